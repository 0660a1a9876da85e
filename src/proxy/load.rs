//! Which worker serves a new connection. The kernel chooses a listener by a
//! hash of addresses and ports, and a few long-lived connections may all meet
//! the same worker: the one that accepts looks who has the fewest.
//!
//! A worker is as busy as it has open client connections. Requests under way
//! would say more, but not of the connection that was just accepted: whether
//! it asks once or all the time is not known yet, and it stays where it is.
//! The count says where such connections can find a core in the long run.

use std::sync::Arc;

use crate::counters::Gauge;

/// A worker with `n` connections serves one more itself unless another has
/// fewer than `n - n / SLACK`.
///
/// Below [`SLACK`] connections any difference counts: three on two workers
/// are two and one. With more, a difference of an eighth is let be, since it
/// is no more than chance makes of it all the time where connections are
/// short (of 64 that the hash spreads over two workers, every third time one
/// has eight more than the other), and to hand one over wakes a thread.
const SLACK: u32 = 8;

/// Whether a worker that has `own` connections hands the next one to the
/// worker that has the `least`.
///
/// So nobody takes a connection and then has over `least + own / SLACK + 1`.
fn hands_over(own: u32, least: u32) -> bool {
    own > least.saturating_add(own / SLACK)
}

/// How many connections each worker has.
///
/// Each count has cache lines to itself, and is written when a connection
/// comes and when it goes. Whoever accepts reads them without waiting for
/// anyone, so workers that accept in the same moment may each add one to what
/// the other saw.
#[derive(Debug, Clone)]
pub(super) struct Loads(Arc<[Arc<Gauge>]>);

/// One connection in a worker's count, for as long as this is there.
#[derive(Debug)]
pub(super) struct Place(Arc<Gauge>);

impl Loads {
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Arc::default()).collect())
    }

    /// The worker that is to serve a connection which `here` has accepted.
    pub(super) fn choose(&self, here: usize) -> usize {
        let own = self.of(here);
        // Nobody has fewer, so the others' counts need not be fetched.
        if own == 0 {
            return here;
        }
        let workers = self.0.len();
        // From the next one on, so that not all turn to the same one.
        let others = (1..workers).map(|step| (here + step) % workers);
        match others.min_by_key(|other| self.of(*other)) {
            Some(idlest) if hands_over(own, self.of(idlest)) => idlest,
            _ => here,
        }
    }

    /// Counts a connection for a worker, from now on. One that nobody has
    /// heard of has a count of its own.
    pub(super) fn take(&self, worker: usize) -> Place {
        let load = self.0.get(worker).cloned().unwrap_or_default();
        load.inc();
        Place(load)
    }

    /// How many connections each worker has.
    pub(super) fn gauges(&self) -> impl Iterator<Item = Arc<Gauge>> {
        self.0.iter().cloned()
    }

    fn of(&self, worker: usize) -> u32 {
        self.0.get(worker).map_or(u32::MAX, |load| load.get())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(loads: &Loads) -> Vec<u32> {
        loads.gauges().map(|load| load.get()).collect()
    }

    /// As many connections, all accepted by `here`.
    fn arrive(loads: &Loads, here: usize, connections: usize) -> Vec<Place> {
        let all = (0..connections).map(|_| loads.take(loads.choose(here)));
        all.collect()
    }

    #[test]
    fn a_few_are_spread_evenly_and_many_but_for_an_eighth() {
        for (own, least, expected) in [
            (0, 0, false),
            (1, 1, false),
            (1, 0, true),
            (2, 1, true),
            (7, 6, true),
            (8, 7, false),
            (8, 6, true),
            (64, 56, false),
            (64, 55, true),
            (8000, 7000, false),
            (8000, 6999, true),
            (0, 9, false),
            (u32::MAX, u32::MAX, false),
        ] {
            assert_eq!(hands_over(own, least), expected, "{own} and {least}");
        }
    }

    #[test]
    fn whoever_accepts_them_two_are_one_each_and_three_are_two_and_one() {
        for here in 0..2 {
            let loads = Loads::new(2);
            let _two = arrive(&loads, here, 2);
            assert_eq!(counts(&loads), [1, 1]);
            let third = arrive(&loads, here, 1);
            let mut both = counts(&loads);
            both.sort_unstable();
            assert_eq!(both, [1, 2]);
            drop(third);
            assert_eq!(counts(&loads), [1, 1]);
        }
    }

    #[test]
    fn those_with_as_few_take_turns() {
        let loads = Loads::new(4);
        let _all = arrive(&loads, 2, 8);
        assert_eq!(counts(&loads), [2, 2, 2, 2]);
    }

    #[test]
    fn a_worker_alone_serves_all() {
        let loads = Loads::new(1);
        let _all = arrive(&loads, 0, 100);
        assert_eq!(counts(&loads), [100]);
    }

    proptest! {
        #[test]
        fn even_if_one_accepts_all_nobody_has_much_more_than_another(
            workers in 1usize..9,
            here in 0usize..9,
            connections in 0usize..600,
        ) {
            let loads = Loads::new(workers);
            let _all = arrive(&loads, here % workers, connections);
            let counts = counts(&loads);
            let (most, least) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
            prop_assert_eq!(counts.iter().sum::<u32>() as usize, connections);
            prop_assert!(most - least <= 1 + most / SLACK, "{:?}", counts);
        }

        /// However they come and go, and whoever accepts them.
        #[test]
        fn nobody_takes_one_who_then_has_much_more_than_another(
            workers in 1usize..9,
            events in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..600),
        ) {
            let loads = Loads::new(workers);
            let mut open = Vec::new();
            for (arrives, which) in events {
                if arrives || open.is_empty() {
                    let least = *counts(&loads).iter().min().unwrap();
                    let taker = loads.choose(which.index(workers));
                    open.push(loads.take(taker));
                    let taken = loads.of(taker);
                    prop_assert!(taken - least <= 1 + taken / SLACK, "{:?}", loads);
                } else {
                    let index = which.index(open.len());
                    open.swap_remove(index);
                }
            }
            let there: u32 = counts(&loads).iter().sum();
            prop_assert_eq!(there as usize, open.len());
        }
    }
}
