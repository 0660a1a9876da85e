//! What gossip says of members.

use tokio::time::Instant;

use super::{Event, MOST_SERVERS, State, event::Change};
use crate::{
    membership::{Announcement, Member, MemberId, Name, Phase, Role},
    pool::{
        entry::{Entry, Liveness},
        server::{Origin, Status},
    },
};

impl State {
    pub(super) fn member_up(&mut self, member: Member, now: Instant) -> Vec<Event> {
        let Role::Server(announced) = member.meta.role else {
            return Vec::new();
        };
        if announced.service != self.service {
            return Vec::new();
        }
        let name = member.meta.name;
        match self.entries.get(&name).map(|entry| entry.origin) {
            _ if announced.phase == Phase::Leaving => self.goodbye(member.id, &name, now),
            Some(Origin::Gossip(known)) if known == member.id => {
                self.update(&name, now, |entry| entry.announced(announced, now))
            }
            Some(Origin::Gossip(known)) if self.outranks(member.id, &announced, known, &name) => {
                self.take_over(&name, member.id, announced, now)
            }
            Some(Origin::Gossip(_)) => {
                self.keep_rival(member.id, name, announced, now);
                Vec::new()
            }
            // The command line is the operator's own word.
            Some(Origin::Static) => Vec::new(),
            None => self.join(name, member.id, announced, now),
        }
    }

    pub(super) fn join(
        &mut self,
        name: Name,
        id: MemberId,
        announced: Announcement,
        now: Instant,
    ) -> Vec<Event> {
        if self.entries.len() >= MOST_SERVERS {
            return vec![Event::plain(name, Change::Refused)];
        }
        // It may have waited for the one before it to go.
        self.rivals.remove(&id);
        let (sid, live) = self.figures_for(&name);
        let life = self.begin_life();
        let mut entry = Entry::from_gossip(sid, life, live, id, announced, now);
        if let Some(record) = self.crashes.get(&name) {
            entry.keep_out(Some(record.out_until()));
        }
        for wish in self.wishes_for(&name) {
            entry.wanted(wish);
        }
        self.members.insert(id, name.clone());
        self.insert(&name, entry, now);
        let what = Change::Joined(self.entries.get(&name).map_or(Status::Up, |e| e.status));
        vec![Event::plain(name, what)]
    }

    /// Gossip has lost a member.
    pub(super) fn lost(&mut self, id: MemberId, now: Instant) -> Vec<Event> {
        let Some(name) = self.members.get(&id).cloned() else {
            return self.rival_ended(id, true, now);
        };
        let mut events = self.update(&name, now, |entry| entry.alive(Liveness::Lost, now));
        events.extend(self.succeed(&name, now));
        events
    }

    /// A member says that it is leaving: its server takes no request at all.
    pub(super) fn goodbye(&mut self, id: MemberId, name: &Name, now: Instant) -> Vec<Event> {
        if self.members.remove(&id).is_none() {
            return self.rival_ended(id, false, now);
        }
        let mut events = self.depart(name, Change::Left, now);
        events.extend(self.succeed(name, now));
        events
    }

    pub(super) fn update_member(
        &mut self,
        id: MemberId,
        now: Instant,
        change: impl FnOnce(&mut Entry),
    ) -> Vec<Event> {
        let Some(name) = self.members.get(&id).cloned() else {
            return Vec::new();
        };
        self.update(&name, now, change)
    }
}
