//! Servers that leave, and their figures, which wait for their return.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Event, State, event::Change};
use crate::{
    membership::Name,
    pool::server::{Live, Origin, Status},
};

/// How long a departed server's figures wait for its return.
pub(super) const REMEMBER_FOR: Duration = Duration::from_mins(10);

/// How many departed servers are remembered at the most; container names may
/// be random and never come back.
const REMEMBER_MOST: usize = 1024;

#[derive(Debug)]
pub(super) struct Departed {
    pub(super) sid: u32,
    pub(super) live: Arc<Live>,
    pub(super) at: Instant,
}

impl State {
    pub(super) fn depart(&mut self, name: &Name, how: Change, now: Instant) -> Vec<Event> {
        let Some(entry) = self.entries.remove(name) else {
            return Vec::new();
        };
        self.tally.enter(name, Some(entry.part()), None);
        if let Origin::Gossip(id) = entry.origin {
            self.members.remove(&id);
        }
        if entry.status == Status::Up {
            self.last_loss = Some(now);
        }
        if self.departed.len() >= REMEMBER_MOST {
            let oldest = self.departed.iter().min_by_key(|(_, d)| d.at);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.departed.remove(&name);
            }
        }
        let (sid, live) = (entry.sid, entry.live);
        let departed = Departed { sid, live, at: now };
        self.departed.insert(name.clone(), departed);
        vec![Event::plain(name.clone(), how)]
    }

    pub(super) fn figures_for(&mut self, name: &Name) -> (u32, Arc<Live>) {
        if let Some(departed) = self.departed.remove(name) {
            return (departed.sid, departed.live);
        }
        let sid = self.next_sid;
        self.next_sid += 1;
        (sid, Arc::default())
    }
}
