//! Warnings that would otherwise come with every connection or request.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use crate::counters::unix_seconds;

/// The least time from one warning to the next, in seconds.
const BETWEEN: u64 = 10;

/// Lets one warning through every few seconds, however many meet its cause.
/// One for each cause, and for all workers, is a `static`.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// When it last let one through, in Unix seconds.
    last: AtomicI64,
}

impl Throttle {
    /// Lets the first one through.
    pub(crate) const fn new() -> Self {
        Self {
            last: AtomicI64::new(i64::MIN),
        }
    }

    /// Whether to warn now. Whoever is told so is expected to.
    pub(crate) fn allows(&self) -> bool {
        self.allows_at(unix_seconds())
    }

    fn allows_at(&self, now: i64) -> bool {
        let last = self.last.load(Relaxed);
        // The distance, lest a clock that is set back silence it.
        now.abs_diff(last) >= BETWEEN
            && self
                .last
                .compare_exchange(last, now, Relaxed, Relaxed)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_warning_is_let_through_every_few_seconds() {
        let throttle = Throttle::new();
        let allowed: Vec<i64> = (100..125).filter(|now| throttle.allows_at(*now)).collect();
        assert_eq!(allowed, [100, 110, 120]);
        assert!(!throttle.allows_at(120), "twice in a second");
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nobody() {
        let throttle = Throttle::new();
        assert!(throttle.allows_at(10_000));
        assert!(throttle.allows_at(100));
    }
}
