//! Keeps a server that crashes again and again out for longer each time.
//! Pure; keyed by name, so that a new container does not wipe the record.

use std::time::Duration;

use tokio::time::Instant;

/// How long the second crash in a row keeps a server out. The first is
/// forgiven: anything may crash once.
const FIRST: Duration = Duration::from_secs(1);

/// The longest that a server is kept out.
const LONGEST: Duration = Duration::from_mins(1);

/// How long a server must have behaved, after it was let in again, for its
/// crashes to be forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_mins(1);

/// How long a server that was kept out takes at the least to get back to its
/// full share.
pub(super) const EASED_IN_OVER: Duration = Duration::from_secs(10);

/// A server's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    crashes: u32,
    last: Instant,
}

impl Record {
    /// Enters a crash at `now`, into an earlier record if there is one.
    pub(super) fn crashed(before: Option<Self>, now: Instant) -> Self {
        let counting = before.filter(|record| now < record.forgotten_at());
        let crashes = counting
            .map_or(0, |record| record.crashes)
            .saturating_add(1);
        Self { crashes, last: now }
    }

    /// Until when the server is kept out.
    pub(super) fn out_until(&self) -> Instant {
        self.last + self.penalty()
    }

    /// When the crashes are forgotten, if no other comes.
    pub(super) fn forgotten_at(&self) -> Instant {
        self.out_until() + FORGIVEN_AFTER
    }

    fn penalty(&self) -> Duration {
        match self.crashes {
            0 | 1 => Duration::ZERO,
            more => FIRST
                .saturating_mul(2_u32.saturating_pow(more - 2))
                .min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn penalties(crashes: usize) -> Vec<u64> {
        let mut now = Instant::now();
        let mut record = None;
        let mut penalties = Vec::new();
        for _ in 0..crashes {
            let entered = Record::crashed(record, now);
            penalties.push((entered.out_until() - now).as_secs());
            now = entered.out_until() + SECOND;
            record = Some(entered);
        }
        penalties
    }

    #[test]
    fn each_crash_keeps_a_server_out_for_twice_as_long_up_to_a_minute() {
        assert_eq!(penalties(10), [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_server_that_behaved_for_a_minute_is_forgiven() {
        let now = Instant::now();
        let second = Record::crashed(Some(Record::crashed(None, now)), now);
        let later = second.out_until() + FORGIVEN_AFTER;
        assert_eq!(Record::crashed(Some(second), later).out_until(), later);
        let sooner = later - SECOND;
        assert!(Record::crashed(Some(second), sooner).out_until() > sooner);
    }
}
