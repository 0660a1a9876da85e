//! Timers in the order they are due. Pure: it never reads the clock.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    time::Duration,
};

use tokio::time::Instant;

/// A heap of timers; those due at the same moment fire in the order they
/// were set, so that a simulation replays exactly.
#[derive(Debug)]
pub(super) struct Timers<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    set: u64,
}

#[derive(Debug)]
struct Entry<T> {
    due: Instant,
    order: u64,
    timer: T,
}

impl<T> Timers<T> {
    pub(super) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            set: 0,
        }
    }

    pub(super) fn set(&mut self, due: Instant, timer: T) {
        let order = self.set;
        self.set += 1;
        self.heap.push(Reverse(Entry { due, order, timer }));
    }

    /// When the next timer is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.due)
    }

    /// Takes the next timer that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<T> {
        if self.deadline()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry.timer)
    }

    /// Forgets every timer that `which` picks.
    pub(super) fn cancel(&mut self, which: impl Fn(&T) -> bool) {
        self.heap.retain(|Reverse(entry)| !which(&entry.timer));
    }

    /// Moves every timer that `which` picks by `delay`.
    pub(super) fn postpone(&mut self, delay: Duration, which: impl Fn(&T) -> bool) {
        self.heap = std::mem::take(&mut self.heap)
            .into_iter()
            .map(|Reverse(mut entry)| {
                if which(&entry.timer) {
                    entry.due += delay;
                }
                Reverse(entry)
            })
            .collect();
    }
}

// === impl Entry ===

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn timers_fire_in_order_and_never_early() {
        let now = Instant::now();
        let mut timers = Timers::new();
        timers.set(now + 2 * MS, "second");
        timers.set(now + 2 * MS, "third");
        timers.set(now + MS, "first");
        assert_eq!(timers.deadline(), Some(now + MS));
        assert_eq!(timers.pop_due(now), None);
        let late = now + 5 * MS;
        let fired: Vec<_> = std::iter::from_fn(|| timers.pop_due(late)).collect();
        assert_eq!(fired, ["first", "second", "third"]);
    }

    #[test]
    fn only_the_picked_timers_are_postponed() {
        let now = Instant::now();
        let mut timers = Timers::new();
        timers.set(now, "judge");
        timers.set(now, "probe");
        timers.postpone(MS, |timer| *timer == "judge");
        assert_eq!(timers.pop_due(now), Some("probe"));
        assert_eq!(timers.pop_due(now), None);
        assert_eq!(timers.deadline(), Some(now + MS));
    }
}
