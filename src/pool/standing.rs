//! Whether the pool as a whole has been able to serve. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Since when the pool has been able to serve or not, and how often and for
/// how long it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    serves: bool,
    /// Since when that is so.
    pub since: Instant,
    /// Times it became unable to serve.
    pub downs: u64,
    downtime: Duration,
}

impl Standing {
    /// The standing of a pool at its start.
    pub fn new(serves: bool, now: Instant) -> Self {
        Self {
            serves,
            since: now,
            downs: 0,
            downtime: Duration::ZERO,
        }
    }

    /// The standing once it `serves` or not, as of `now`.
    #[must_use]
    pub fn then(self, serves: bool, now: Instant) -> Self {
        if serves == self.serves {
            return self;
        }
        Self {
            serves,
            since: now,
            downs: self.downs + u64::from(self.serves),
            downtime: self.downtime(now),
        }
    }

    /// The standing once an operator has its counters start from zero.
    #[must_use]
    pub fn cleared(self) -> Self {
        Self { downs: 0, ..self }
    }

    /// Time without a server so far.
    pub fn downtime(&self, now: Instant) -> Duration {
        if self.serves {
            self.downtime
        } else {
            self.downtime + now.saturating_duration_since(self.since)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_knows_how_often_and_how_long_it_could_not_serve() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let standing = Standing::new(false, start);
        assert_eq!(standing.downtime(at(3)), Duration::from_secs(3));
        let standing = standing.then(true, at(5)).then(true, at(6));
        assert_eq!((standing.downs, standing.since), (0, at(5)));
        let standing = standing.then(false, at(10)).then(true, at(12));
        assert_eq!((standing.downs, standing.since), (1, at(12)));
        assert_eq!(standing.downtime(at(99)), Duration::from_secs(7));
        let cleared = standing.cleared();
        assert_eq!((cleared.downs, cleared.since), (0, at(12)));
        assert_eq!(cleared.then(false, at(100)).downs, 1);
    }
}
