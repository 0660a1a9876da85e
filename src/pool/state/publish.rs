//! How the pool stands, for those who use it and those who are told of it.

use std::sync::Arc;

use super::State;
use crate::{
    membership::Name,
    pool::{snapshot::Snapshot, words::Roll},
};

impl State {
    /// Describes the pool as it is now. Descriptions of servers that did not
    /// change since the last call are shared with it.
    pub fn snapshot(&mut self) -> Snapshot {
        let key = &self.tally.lasting.name_key;
        let servers = self
            .entries
            .iter_mut()
            .map(|(name, entry)| entry.describe(name, key))
            .collect();
        self.generation += 1;
        let is_limited = self.tally.is_limited();
        Snapshot::new(
            self.generation,
            servers,
            Arc::clone(&self.cursor),
            self.last_loss,
            &mut self.tally.lasting,
        )
        .limited(is_limited)
    }

    /// How the pool stands, for whoever is told of a change of that server.
    pub(in crate::pool) fn roll(&self, name: &Name) -> Roll {
        let live = self.entries.get(name).map(|entry| &entry.live);
        let live = live.or_else(|| self.departed.get(name).map(|departed| &departed.live));
        Roll {
            active: self.tally.active(),
            up: self.tally.up(),
            sessions: live.map_or(0, |live| live.counters.active.get()),
            waiting: live.map_or(0, |live| live.counters.waiting.get()),
            can_serve: self.tally.can_serve(),
        }
    }
}
