//! What time alone changes.

use tokio::time::Instant;

use super::{Event, State, departed::REMEMBER_FOR, event::Change, rivals::RIVAL_ENDS};
use crate::{
    membership::Name,
    pool::{
        entry::{Entry, LOST_FOR},
        server::{Cause, Status},
    },
};

impl State {
    /// Forgets what has waited long enough. To be called at
    /// [`next_deadline`](Self::next_deadline) or any time later.
    pub fn tick(&mut self, now: Instant) -> Vec<Event> {
        let forgotten = |entry: &Entry| self.forget_at(entry).is_some_and(|at| at <= now);
        let overdue: Vec<Name> = self
            .timed()
            .filter(|(_, entry)| forgotten(entry))
            .map(|(name, _)| name.clone())
            .collect();
        let mut events: Vec<Event> = overdue
            .iter()
            .flat_map(|name| self.depart(name, Change::Left, now))
            .collect();
        let changing: Vec<Name> = self
            .timed()
            .filter(|(_, entry)| entry.is_due(now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in changing {
            events.extend(self.update(&name, now, |entry| entry.take_up_time(now)));
        }
        events.extend(self.tell_of_clashes(now));
        self.departed
            .retain(|_, departed| now < departed.at + REMEMBER_FOR);
        self.crashes.retain(|_, record| now < record.forgotten_at());
        self.note_since(now);
        events
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let changing = self
            .timed()
            .filter_map(|(_, entry)| entry.next_deadline(now));
        let lost = self.timed().filter_map(|(_, entry)| self.forget_at(entry));
        let departed = self.departed.values().map(|d| d.at + REMEMBER_FOR);
        let untold = self.rivals.values().filter(|rival| !rival.told_of);
        let clashes = untold.map(|rival| rival.since + RIVAL_ENDS);
        let all = changing.chain(lost).chain(departed).chain(clashes);
        all.min()
    }

    /// The servers that time alone may change.
    pub(super) fn timed(&self) -> impl Iterator<Item = (&Name, &Entry)> {
        let entry = |name| Some((name, self.entries.get(name)?));
        self.tally.timed().filter_map(entry)
    }

    /// When a server that is lost is forgotten. Who hears no server at all is
    /// more likely cut off than alone: it keeps its last pool, and once it
    /// hears one again it gives the others as long to be heard.
    pub(super) fn forget_at(&self, entry: &Entry) -> Option<Instant> {
        let lost_for_long = entry.forget_at()?;
        match entry.status {
            Status::Down(Cause::Silent) => Some(lost_for_long.max(self.hears_since? + LOST_FOR)),
            _ => Some(lost_for_long),
        }
    }
}
