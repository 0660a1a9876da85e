//! Members that have a server's name without being that server: lives that
//! were replaced and may be there still, and nodes of the same name.

use std::time::Duration;

use tokio::time::Instant;

use super::{Event, RECORDS_MOST, State, event::Change};
use crate::{
    membership::{Announcement, MemberId, Name, Phase},
    pool::{entry::Entry, server::Origin},
};

/// How long a life that was replaced may take to be found dead: longer than
/// gossip needs.
pub(super) const RIVAL_ENDS: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Rival {
    name: Name,
    announced: Announcement,
    pub(super) since: Instant,
    /// It took requests when it was replaced.
    was_able: bool,
    pub(super) told_of: bool,
}

impl State {
    /// Of two lives under one name the later counts, and of two nodes that
    /// share a name the one that started last; but not before it is ready
    /// where the other one serves.
    pub(super) fn outranks(
        &self,
        id: MemberId,
        announced: &Announcement,
        holder: MemberId,
        name: &Name,
    ) -> bool {
        let holder_serves = self.entries.get(name).is_some_and(Entry::is_able);
        id.epoch > holder.epoch && (announced.phase == Phase::Ready || !holder_serves)
    }

    pub(super) fn take_over(
        &mut self,
        name: &Name,
        id: MemberId,
        announced: Announcement,
        now: Instant,
    ) -> Vec<Event> {
        self.rivals.remove(&id);
        self.demote(name, now);
        let life = self.begin_life();
        self.members.insert(id, name.clone());
        let replaced = Event::plain(name.clone(), Change::Replaced);
        let became = self.update(name, now, |entry| {
            entry.begin(life);
            entry.origin = Origin::Gossip(id);
            entry.announced(announced, now);
            entry.doubt_tls();
        });
        [vec![replaced], became].concat()
    }

    /// Gives the name of a server that is gone to the latest of those that
    /// have it as well.
    pub(super) fn succeed(&mut self, name: &Name, now: Instant) -> Vec<Event> {
        let ready = |rival: &Rival| rival.name == *name && rival.announced.phase == Phase::Ready;
        let heirs = self.rivals.iter().filter(|(_, rival)| ready(rival));
        let Some(id) = heirs.map(|(id, _)| *id).max_by_key(|id| id.epoch) else {
            return Vec::new();
        };
        let Some(rival) = self.rivals.remove(&id) else {
            return Vec::new();
        };
        if self.entries.contains_key(name) {
            self.take_over(name, id, rival.announced, now)
        } else {
            self.join(name.clone(), id, rival.announced, now)
        }
    }

    /// Makes a rival of the server that holds the name: it may be there still.
    pub(super) fn demote(&mut self, name: &Name, now: Instant) {
        let Some(entry) = self.entries.get(name) else {
            return;
        };
        let Origin::Gossip(id) = entry.origin else {
            return;
        };
        self.members.remove(&id);
        if entry.is_lost() {
            return;
        }
        if let Some(announced) = entry.announcement(&self.service) {
            let was_able = entry.is_able();
            self.keep_rival(id, name.clone(), announced, now);
            if let Some(rival) = self.rivals.get_mut(&id) {
                rival.was_able = was_able;
            }
        }
    }

    pub(super) fn keep_rival(
        &mut self,
        id: MemberId,
        name: Name,
        announced: Announcement,
        now: Instant,
    ) {
        if let Some(rival) = self.rivals.get_mut(&id) {
            rival.announced = announced;
        } else if self.rivals.len() < RECORDS_MOST {
            let rival = Rival {
                name,
                announced,
                since: now,
                was_able: false,
                told_of: false,
            };
            self.rivals.insert(id, rival);
        }
    }

    /// A rival is no more. One that was replaced while it took requests, and
    /// never said goodbye, has crashed, whether or not anyone noticed in time.
    pub(super) fn rival_ended(&mut self, id: MemberId, by_fault: bool, now: Instant) -> Vec<Event> {
        if let Some(rival) = self.rivals.remove(&id)
            && by_fault
            && rival.was_able
        {
            self.enter_crash(&rival.name, now);
            return self.update(&rival.name, now, |_| {});
        }
        Vec::new()
    }

    /// A rival that has neither ended nor failed for a while is another node
    /// of that name.
    pub(super) fn tell_of_clashes(&mut self, now: Instant) -> Vec<Event> {
        let overdue = |rival: &&mut Rival| !rival.told_of && now >= rival.since + RIVAL_ENDS;
        let telling = self.rivals.values_mut().filter(overdue).map(|rival| {
            rival.told_of = true;
            Event::plain(rival.name.clone(), Change::Clash)
        });
        telling.collect()
    }
}
