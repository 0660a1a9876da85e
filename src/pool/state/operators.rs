//! What operators want.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Event, MOST_SERVERS, RECORDS_MOST, State, StaticServer, event::Change};
use crate::{
    membership::{Admin, Intent, Name, Wish},
    pool::{entry::Entry, server::Status},
};

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Wishes {
    state: Option<Wish>,
    weight: Option<Wish>,
}

impl State {
    pub(super) fn wanted(&mut self, intent: &Intent, now: Instant) -> Vec<Event> {
        let known = self.wishes.contains_key(&intent.server);
        if intent.service != self.service || (!known && self.wishes.len() >= RECORDS_MOST) {
            return Vec::new();
        }
        let wishes = self.wishes.entry(intent.server.clone()).or_default();
        match intent.wish {
            Wish::State(_) => wishes.state = Some(intent.wish),
            Wish::Weight(_) => wishes.weight = Some(intent.wish),
        }
        self.update(&intent.server, now, |entry| entry.wanted(intent.wish))
    }

    pub(super) fn wishes_for(&self, name: &Name) -> impl Iterator<Item = Wish> + use<> {
        let wishes = self.wishes.get(name).copied().unwrap_or_default();
        wishes.state.into_iter().chain(wishes.weight)
    }

    pub(super) fn add(&mut self, server: &StaticServer, now: Instant) -> Vec<Event> {
        let name = &server.name;
        if self.entries.contains_key(name) {
            return Vec::new();
        }
        if self.entries.len() >= MOST_SERVERS {
            return vec![Event::plain(name.clone(), Change::Refused)];
        }
        let (sid, live) = self.figures_for(name);
        let life = self.begin_life();
        let mut entry = Entry::from_command_line(sid, life, live, server, now);
        entry.admin = Admin::Maint;
        entry.checks_off = true;
        self.insert(name, entry, now);
        vec![Event::plain(name.clone(), Change::Joined(Status::Maint))]
    }

    pub(super) fn clear_counters(&mut self, only: Option<&Name>) -> Vec<Event> {
        for (name, entry) in &mut self.entries {
            if only.is_none_or(|only| only == name) {
                entry.clear_counters();
                entry.described = None;
            }
        }
        if only.is_none() {
            for departed in self.departed.values_mut() {
                departed.live = Arc::default();
            }
        }
        Vec::new()
    }
}
