//! Looks for seeds that are silent and for members that are missing.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use foca::State;
use rand::RngExt as _;
use tokio::time::Instant;

use super::{Core, Life, admit, due::Due, effects::Outgoing};
use crate::gossip::{identity::Id, seeds::pause_alone, wire::Kind};

/// How often missing members and silent seeds are looked for.
const SEARCH_PERIOD: Duration = Duration::from_secs(1);
/// How often a second somebody in the cluster tries to reach a member that
/// failed lately, and one that failed in the last day.
pub(super) const KNOCKS_AT_MISSING: usize = 20;
const KNOCKS_AT_LONG_DOWN: usize = 4;

impl Core {
    /// The addresses to look for the cluster at.
    pub(in crate::gossip) fn set_seeds(&mut self, seeds: Vec<SocketAddr>, now: Instant) {
        self.effects.now = now;
        self.seeds = seeds;
        if self.life == Life::Running {
            self.greet_seeds();
        }
    }

    /// Looks for seeds that are silent and for members that are missing.
    pub(super) fn search(&mut self) {
        if self.life != Life::Running {
            return;
        }
        self.greet_seeds();
        self.knock();
        self.sync_when_due();
        self.tell_digest();
        self.table.expire(self.effects.now);
        self.forget_long_down();
        let pause = match self.alone_since {
            Some(since) => pause_alone(self.effects.now - since),
            None => SEARCH_PERIOD,
        };
        self.effects.set_timer(pause, Due::Search);
    }

    pub(super) fn greet_seeds(&mut self) {
        let silent: Vec<_> = self.silent_seeds().collect();
        self.greet(silent);
    }

    pub(super) fn silent_seeds(&self) -> impl Iterator<Item = SocketAddr> {
        let own = self.foca.identity().addr();
        self.seeds
            .iter()
            .copied()
            .filter(move |seed| *seed != own && !self.table.is_active(*seed))
    }

    pub(super) fn active_seeds(&self) -> Vec<SocketAddr> {
        let seeds = self.seeds.iter().copied();
        seeds.filter(|seed| self.table.is_active(*seed)).collect()
    }

    pub(super) fn greet(&mut self, whom: impl IntoIterator<Item = SocketAddr>) {
        let hello = Bytes::from(admit::hello(self.foca.identity()));
        self.effects
            .sends
            .extend(whom.into_iter().map(|to| Outgoing {
                to,
                kind: Kind::Hello,
                body: hello.clone(),
            }));
    }

    /// A member that comes back without seeds of its own is found by this, and
    /// so is the other part of a cluster that was cut in two. The whole cluster
    /// knocks as often as [`KNOCKS_AT_MISSING`] says, however large it is.
    fn knock(&mut self) {
        let mut missing: Vec<_> = self.table.missing().cloned().collect();
        let mut knocks = KNOCKS_AT_MISSING;
        if missing.is_empty() {
            missing = self.long_down();
            knocks = KNOCKS_AT_LONG_DOWN;
        }
        let turn = self.rng.random_range(0..self.size.max(knocks)) < knocks;
        if missing.is_empty() || !turn {
            return;
        }
        let chosen = self.rng.random_range(0..missing.len());
        if let Some(id) = missing.into_iter().nth(chosen) {
            self.announce(id);
        }
    }

    fn long_down(&self) -> Vec<Id> {
        self.foca
            .iter_membership_state()
            .filter(|known| known.state() == State::Down && !known.id().leaving())
            .map(|known| known.id().clone())
            .collect()
    }
}
