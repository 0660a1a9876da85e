//! Looks for the next life of a balancer that ended, so often that it is found
//! before it has looked for anyone.

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;

use super::{Core, Life, due::Due};
use crate::{gossip::identity::Id, membership::MemberId};

/// A balancer whose lifeline ended is greeted this often, for so long.
const HUNT_PERIOD: Duration = Duration::from_millis(150);
const HUNT_TIME: Duration = Duration::from_secs(10);
/// The most balancers that are looked for in this way.
const MAX_HUNTED: usize = 64;

impl Core {
    /// Looks for the next life of a balancer, whose end of our lifeline to it
    /// closed.
    pub(in crate::gossip) fn hunt(&mut self, lost: MemberId, now: Instant) {
        self.effects.now = now;
        if self.life != Life::Running || self.hunted.len() >= MAX_HUNTED {
            return;
        }
        if !std::mem::replace(&mut self.hunting, true) {
            self.effects.set_timer(HUNT_PERIOD, Due::Hunt);
        }
        self.hunted.insert(lost.addr, (lost.epoch, now));
        self.greet([lost.addr]);
    }

    /// Looks for the next life of a seed that ended, be it with a goodbye:
    /// who restarts a load balancer says one too.
    pub(super) fn hunt_if_gone(&mut self, seed: SocketAddr) {
        if self.table.is_active(seed) {
            return;
        }
        if let Some(id) = self.known_at(seed).map(Id::member_id) {
            self.hunt(id, self.effects.now);
        }
    }

    pub(super) fn hunt_on(&mut self) {
        let now = self.effects.now;
        self.hunted.retain(|_, (_, since)| now < *since + HUNT_TIME);
        self.hunting = !self.hunted.is_empty() && self.life == Life::Running;
        if !self.hunting {
            return;
        }
        let lost: Vec<_> = self.hunted.keys().copied().collect();
        self.greet(lost);
        self.effects.set_timer(HUNT_PERIOD, Due::Hunt);
    }

    /// A hunt ends with a word of the next life, or of the same one: then only
    /// its line broke. That word must be fresh, not one from before its end.
    pub(super) fn note_sign_of_life(&mut self, id: MemberId) {
        if let Some((epoch, since)) = self.hunted.get(&id.addr)
            && (id.epoch > *epoch || self.effects.now >= *since + HUNT_PERIOD)
        {
            self.hunted.remove(&id.addr);
        }
    }
}
