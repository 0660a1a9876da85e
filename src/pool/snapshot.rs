//! An immutable view of the pool, built once per change and read by all.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicUsize},
};

use tokio::time::Instant;

use super::{
    server::{Cause, Life, Server, Status},
    standing::Standing,
};

/// The most places a weighted schedule has: 256 servers of wholly different
/// weights fit without rounding, and it stays within a CPU's second cache.
const MAX_PLACES: usize = 65_536;

/// The pool at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts the snapshots: a later one has a larger number.
    pub generation: u64,
    /// Every server, in the order of names.
    pub servers: Vec<Arc<Server>>,
    /// Servers that take new users, each as often as its weight says, spread
    /// evenly: round robin walks along it.
    pub schedule: Vec<u32>,
    /// Where round robin stands. Every snapshot inherits it, so a change in
    /// the pool never starts the round again.
    pub cursor: Arc<AtomicUsize>,
    /// When a server was last lost. A request that finds no server waits a
    /// moment for one to come back only if there lately was one.
    pub last_loss: Option<Instant>,
    /// How the pool as a whole has fared; the writer knows.
    pub standing: Option<Standing>,
    by_name: HashMap<String, u32>,
}

impl Snapshot {
    /// Builds the view of `servers`.
    pub fn new(
        generation: u64,
        servers: Vec<Arc<Server>>,
        cursor: Arc<AtomicUsize>,
        last_loss: Option<Instant>,
    ) -> Self {
        let schedule = schedule(&rotation(&servers));
        let by_name = (0..)
            .zip(&servers)
            .map(|(index, server)| (server.name.to_string(), index))
            .collect();
        Self {
            generation,
            servers,
            schedule,
            cursor,
            last_loss,
            standing: None,
            by_name,
        }
    }

    /// The server of that name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Server>> {
        self.get(*self.by_name.get(name)?)
    }

    /// The server at a place of the schedule.
    pub fn get(&self, index: u32) -> Option<&Arc<Server>> {
        self.servers.get(index as usize)
    }

    /// Whether requests without a cookie are given to that server.
    pub fn in_rotation(&self, life: Life) -> bool {
        let mut there = self.schedule.iter().filter_map(|index| self.get(*index));
        there.any(|server| server.life == life)
    }

    /// Whether any server can be given a request.
    pub fn can_serve(&self) -> bool {
        !self.schedule.is_empty()
    }
}

/// Which servers take new users, with their weights.
///
/// Where none is up, those that gossip merely suspects take the traffic, then
/// those in quarantine, then those that gossip has lost: caution alone never
/// empties the pool, and the balancer may itself be the one that is cut off.
fn rotation(servers: &[Arc<Server>]) -> Vec<(u32, u16)> {
    let tiers = [
        Status::Up,
        Status::Suspect,
        Status::Down(Cause::Quarantine),
        Status::Down(Cause::Silent),
    ];
    let members_of = |tier: Status| -> Vec<(u32, u16)> {
        (0..)
            .zip(servers)
            .filter(|(_, s)| s.status == tier && s.addr.is_some() && s.weight > 0)
            .map(|(index, server)| (index, share(server)))
            .collect()
    };
    tiers
        .into_iter()
        .map(members_of)
        .find(|members| !members.is_empty())
        .unwrap_or_default()
}

/// A server's share in hundredths of its weight, so that a server that is
/// eased in can have less than one of weight 1. At least one: it has a turn.
fn share(server: &Server) -> u16 {
    let percent = u16::from(server.throttle.unwrap_or(100));
    (server.weight * percent).max(1)
}

/// Spreads every server's turns evenly over the round: a server with `w`
/// turns has them at (k + ½)/w of the way, so equal weights alternate in the
/// order of names and a heavy server's turns do not come in a burst.
fn schedule(members: &[(u32, u16)]) -> Vec<u32> {
    let divisor = members.iter().fold(0, |acc, (_, w)| gcd(acc, *w)).max(1);
    let total: usize = members.iter().map(|(_, w)| usize::from(w / divisor)).sum();
    let scale = total.div_ceil(MAX_PLACES).max(1);
    let mut places: Vec<(u64, u32)> = Vec::with_capacity(total / scale + members.len());
    for (index, weight) in members {
        let turns = (usize::from(weight / divisor) / scale).max(1) as u64;
        for turn in 0..turns {
            places.push((((2 * turn + 1) << 32) / turns, *index));
        }
    }
    places.sort_unstable();
    places.into_iter().map(|(_, index)| index).collect()
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_weights_alternate_in_order() {
        assert_eq!(schedule(&[(0, 1), (1, 1), (2, 1)]), [0, 1, 2]);
        assert_eq!(schedule(&[(0, 100), (1, 100)]), [0, 1]);
    }

    #[test]
    fn a_heavy_server_is_spread_over_the_round() {
        assert_eq!(schedule(&[(0, 2), (1, 1)]), [0, 1, 0]);
        assert_eq!(schedule(&[(0, 4), (1, 2)]), [0, 1, 0]);
    }

    #[test]
    fn a_huge_pool_keeps_a_bounded_schedule_with_everyone_in_it() {
        let members: Vec<(u32, u16)> = (0..5000).map(|i| (i, 256 - (i % 7) as u16)).collect();
        let schedule = schedule(&members);
        assert!(schedule.len() <= MAX_PLACES + members.len());
        let mut seen = vec![false; members.len()];
        for index in schedule {
            seen[index as usize] = true;
        }
        assert!(seen.into_iter().all(|there| there));
    }

    proptest! {
        #[test]
        fn every_server_has_its_share_and_its_turns_lie_apart(
            weights in proptest::collection::vec(1u16..=256, 1..40)
        ) {
            let members: Vec<(u32, u16)> = (0..).zip(weights.iter().copied()).collect();
            let schedule = schedule(&members);
            let total: u32 = weights.iter().map(|w| u32::from(*w)).sum();
            for (index, weight) in members {
                let turns = schedule.iter().filter(|i| **i == index).count();
                prop_assert_eq!(turns * total as usize, schedule.len() * usize::from(weight));
                // In any half of the round it has half of its turns, give or take one.
                let half = schedule.iter().take(schedule.len() / 2).filter(|i| **i == index).count();
                prop_assert!(half.abs_diff(turns / 2) <= 1, "{half} of {turns}");
            }
        }
    }
}
