//! How many requests a second each source may make (`--rate-limit`).
//!
//! A bucket of tokens a source, as one moment: the one at which the bucket
//! will be full again (GCRA, the generic cell rate algorithm of ITU-T I.371).
//! A source whose bucket is full needs no entry, so the table holds those who
//! asked lately and nobody else.

use std::{collections::HashMap, net::IpAddr, num::NonZeroU32, time::Duration};

use tokio::time::Instant;

use super::source::BySource;
use crate::net;

/// Sources that are remembered at the most: 4 MiB, and as many as can empty
/// their buckets at a time behind one balancer.
///
/// Where there are more, those that are not remembered are let through: the
/// limit is there to share a service fairly, and a newcomer has done nothing.
/// Those who are remembered stay limited.
const MOST: usize = 65_536;

/// A rate and how far it may be exceeded for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second.
    pub per_second: NonZeroU32,
    /// Requests at once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// What one request takes.
    fn step(self) -> Duration {
        Duration::from_secs(1) / self.per_second.get()
    }

    /// One request, `full_at` being when the bucket was to be full. Gives when
    /// it will be now, or how long to wait.
    fn take(self, full_at: Option<Instant>, now: Instant) -> Result<Instant, Duration> {
        let full_at = full_at.map_or(now, |at| at.max(now)) + self.step();
        let depth = self.step() * self.burst.get();
        match (full_at - now).checked_sub(depth) {
            None | Some(Duration::ZERO) => Ok(full_at),
            Some(wait) => Err(wait),
        }
    }
}

/// The buckets of all sources.
#[derive(Debug)]
pub struct RateLimit {
    rate: Rate,
    buckets: BySource<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    full_at: Instant,
}

impl RateLimit {
    /// All buckets are full.
    pub fn new(rate: Rate) -> Self {
        let buckets = BySource::default();
        Self { rate, buckets }
    }

    /// One request. An error says after how many seconds the next may come.
    pub(super) fn take(&self, ip: IpAddr, now: Instant) -> Result<(), u32> {
        let source = net::source(ip);
        let Some(mut shard) = self.buckets.of(source) else {
            return Ok(());
        };
        let known = shard.get(&source).map(|bucket| bucket.full_at);
        match self.rate.take(known, now) {
            Ok(full_at) => {
                if known.is_some() || has_room(&mut shard, now) {
                    shard.insert(source, Bucket { full_at });
                }
                Ok(())
            }
            Err(wait) => Err(u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)),
        }
    }
}

/// Whether one more source can be remembered, perhaps in place of those whose
/// buckets are full again.
fn has_room(shard: &mut HashMap<IpAddr, Bucket>, now: Instant) -> bool {
    const MOST_HERE: usize = MOST / BySource::<Bucket>::SHARDS;
    // A table that once was large gives its memory back.
    if shard.len() >= shard.capacity() || shard.len() >= MOST_HERE {
        shard.retain(|_, bucket| bucket.full_at > now);
        shard.shrink_to(shard.len() * 2);
    }
    shard.len() < MOST_HERE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate {
            per_second: per_second.try_into().unwrap(),
            burst: burst.try_into().unwrap(),
        }
    }

    fn ip(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn a_burst_is_let_through_and_then_the_rate_holds() {
        let limit = RateLimit::new(rate(2, 3));
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(limit.take(ip(1), now), Ok(()));
        }
        assert_eq!(limit.take(ip(1), now), Err(1));
        assert_eq!(limit.take(ip(2), now), Ok(()), "another source");
        let later = now + Duration::from_millis(500);
        assert_eq!(limit.take(ip(1), later), Ok(()));
        assert_eq!(limit.take(ip(1), later), Err(1));
        let much_later = now + Duration::from_mins(1);
        for _ in 0..3 {
            assert_eq!(limit.take(ip(1), much_later), Ok(()));
        }
        assert!(
            limit.take(ip(1), much_later).is_err(),
            "no more than the burst"
        );
    }

    #[test]
    fn whoever_is_refused_loses_nothing_by_it() {
        let limit = RateLimit::new(rate(1, 1));
        let now = Instant::now();
        assert_eq!(limit.take(ip(1), now), Ok(()));
        for _ in 0..100 {
            assert_eq!(limit.take(ip(1), now), Err(1));
        }
        assert_eq!(limit.take(ip(1), now + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn sources_are_forgotten_and_never_more_than_so_many_are_remembered() {
        let limit = RateLimit::new(rate(1, 1));
        let now = Instant::now();
        for number in 0..2 * MOST as u32 {
            assert_eq!(limit.take(ip(number), now), Ok(()));
        }
        assert!(limit.buckets.len() <= MOST);
        assert_eq!(limit.take(ip(0), now), Err(1), "who is known stays limited");
        let later = now + Duration::from_secs(2);
        for number in 0..20_000 {
            assert_eq!(limit.take(ip(1 << 24 | number), later), Ok(()));
        }
        assert!(limit.buckets.len() < MOST / 2, "{}", limit.buckets.len());
    }

    proptest! {
        #[test]
        fn in_any_time_there_are_no_more_than_the_burst_and_the_rate(
            per_second in 1u32..50,
            burst in 1u32..20,
            pauses in proptest::collection::vec(0u64..200, 1..200),
        ) {
            let limit = RateLimit::new(rate(per_second, burst));
            let start = Instant::now();
            let (mut now, mut taken) = (start, Vec::new());
            for pause in pauses {
                now += Duration::from_millis(pause);
                if limit.take(ip(1), now).is_ok() {
                    taken.push(now);
                }
            }
            for (index, from) in taken.iter().enumerate() {
                for (more, to) in taken[index..].iter().enumerate() {
                    let most = f64::from(burst) + (*to - *from).as_secs_f64() * f64::from(per_second);
                    prop_assert!((more + 1) as f64 <= most + 1e-6);
                }
            }
        }
    }
}
