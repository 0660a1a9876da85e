//! The last five minutes of every row, for the page's charts.
//!
//! Sampled on the thread that serves no requests, from figures that are
//! counted anyway. A row costs about 2.4 KB: 5,000 servers 12 MB.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    counters::{Counters, Distribution, Totals, Traffic},
    membership::Name,
    pool::Snapshot,
};

/// Time from one point to the next, in seconds.
pub const PERIOD: u32 = 5;

/// Points that are kept: five minutes.
pub const POINTS: usize = 60;

/// Points whose durations are kept apart: a percentile of the last minute is
/// that of all its requests, not an average of percentiles.
const RECENT: usize = 12;

/// A server that has not been seen for as many points has no history left.
const FORGET_AFTER: u64 = POINTS as u64;

/// Requests by how long their answers took: one for each of a
/// [`Distribution`]'s bounds, and one for what lies above.
type Buckets = [u32; Distribution::BOUNDS.len() + 1];

/// The same since the beginning.
type Durations = [u64; Distribution::BOUNDS.len() + 1];

/// What is read from a row's counters; everything only grows.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Requests.
    pub requests: u64,
    /// Requests that failed: attempts of a server that came to nothing,
    /// answers of class 5xx, and what was broken off.
    pub errors: u64,
    /// Requests that balancing decided on; the cookie decided on the others.
    pub balanced: u64,
    /// Requests by how long their answers took.
    pub durations: Durations,
}

impl Sample {
    /// Reads a server's counters.
    fn of_server(counters: &Counters) -> Self {
        let mut sample = Self::default();
        for traffic in counters.tallies().map(|tally| &tally.traffic) {
            sample.add(traffic);
            sample.errors += traffic.connect_errors.get() + traffic.response_errors.get();
        }
        let responses = counters.responses();
        let [_, _, _, _, server_errors, _] = &responses;
        sample.errors += server_errors.count();
        for class in &responses {
            for (sum, count) in sample.durations.iter_mut().zip(class.buckets) {
                *sum += count;
            }
        }
        sample
    }

    /// Reads those of all requests. An attempt that failed is none of a
    /// client's errors; how long answers took, only servers count.
    fn of_all(totals: &Totals) -> Self {
        let mut sample = Self::default();
        for tally in totals.tallies() {
            sample.add(&tally.traffic);
        }
        let [_, _, _, _, server_errors, _] = totals.responses();
        sample.errors += server_errors;
        sample
    }

    fn add(&mut self, traffic: &Traffic) {
        self.requests += traffic.requests.get();
        self.balanced += traffic.balanced.get();
        self.errors += traffic.server_aborts.get();
    }
}

/// What happened in one period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Point {
    /// Requests that came.
    pub requests: u32,
    /// Requests that failed.
    pub errors: u32,
    /// Requests that balancing decided on.
    pub balanced: u32,
    /// Half of the requests took no longer, in microseconds.
    pub p50: Option<NonZeroU32>,
    /// 99 of a hundred took no longer, in microseconds.
    pub p99: Option<NonZeroU32>,
}

/// One row's last five minutes, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Series {
    points: VecDeque<Point>,
    durations: VecDeque<Buckets>,
    seen: Option<Sample>,
}

impl Series {
    /// Closes a period: what has grown since the last call is its point. Says
    /// how long the answers took that came in it.
    pub fn sample(&mut self, now: Sample) -> Buckets {
        let mut durations = Buckets::default();
        // What was counted before anyone looked is spread over who knows what
        // time.
        if let Some(seen) = &self.seen {
            durations = std::array::from_fn(|bucket| {
                let of = |sample: &Sample| sample.durations.get(bucket).copied().unwrap_or(0);
                grown(of(&now), of(seen))
            });
            let point = Point {
                requests: grown(now.requests, seen.requests),
                errors: grown(now.errors, seen.errors),
                balanced: grown(now.balanced, seen.balanced),
                p50: percentile(&durations, 0.50),
                p99: percentile(&durations, 0.99),
            };
            push(&mut self.points, point, POINTS);
            push(&mut self.durations, durations, RECENT);
        }
        self.seen = Some(now);
        durations
    }

    /// The points, oldest first; fewer than [`POINTS`] of a young row.
    pub fn points(&self) -> impl ExactSizeIterator<Item = Point> + Clone + '_ {
        self.points.iter().copied()
    }

    /// The newest point.
    pub fn last(&self) -> Point {
        self.points.back().copied().unwrap_or_default()
    }

    /// What all points have together; percentiles are those of the last
    /// minute.
    pub fn summary(&self) -> Summary {
        let sum =
            |of: fn(&Point) -> u32| self.points.iter().map(|point| u64::from(of(point))).sum();
        let mut recent = Buckets::default();
        for durations in &self.durations {
            for (all, one) in recent.iter_mut().zip(durations) {
                *all = all.saturating_add(*one);
            }
        }
        Summary {
            requests: sum(|point| point.requests),
            errors: sum(|point| point.errors),
            balanced: sum(|point| point.balanced),
            busiest: self
                .points
                .iter()
                .map(|point| point.requests)
                .max()
                .unwrap_or(0),
            p50: percentile(&recent, 0.50),
            p99: percentile(&recent, 0.99),
        }
    }
}

fn push<T>(ring: &mut VecDeque<T>, item: T, most: usize) {
    if ring.len() == most {
        ring.pop_front();
    }
    if ring.capacity() < most {
        ring.reserve_exact(most - ring.len());
    }
    ring.push_back(item);
}

fn grown(now: u64, before: u64) -> u32 {
    u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX)
}

/// A row's last five minutes in a few figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Requests that came.
    pub requests: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Requests that balancing decided on.
    pub balanced: u64,
    /// Requests in the busiest period.
    pub busiest: u32,
    /// The median of the last minute, in microseconds.
    pub p50: Option<NonZeroU32>,
    /// The 99th percentile of the last minute, in microseconds.
    pub p99: Option<NonZeroU32>,
}

/// The duration that a share of the requests did not exceed, in microseconds:
/// on the line between the two bounds around it, as Prometheus'
/// `histogram_quantile` has it. What lies above the last bound counts as that.
fn percentile(durations: &Buckets, share: f64) -> Option<NonZeroU32> {
    let total: u64 = durations.iter().map(|n| u64::from(*n)).sum();
    let rank = total as f64 * share;
    let mut below = 0.0;
    let mut lower = 0.0;
    for (count, upper) in durations.iter().zip(Distribution::BOUNDS) {
        let count = f64::from(*count);
        if count > 0.0 && below + count >= rank {
            let within = lower + (upper - lower) * (rank - below) / count;
            return NonZeroU32::new((within * 1e6) as u32);
        }
        below += count;
        lower = upper;
    }
    (total > 0).then(|| NonZeroU32::new((lower * 1e6) as u32))?
}

/// The history of every row.
#[derive(Debug, Default)]
pub struct History(Mutex<Rows>);

/// Every row's series. Nothing is sampled while somebody reads them.
#[derive(Debug, Default)]
pub struct Rows {
    /// Of all requests: the frontend's and the backend's.
    pub all: Series,
    servers: HashMap<Name, (u64, Series)>,
    /// How long the answers of all servers took that were ever seen.
    durations: Durations,
    round: u64,
}

impl Rows {
    /// A server's; `None` before its first sample.
    pub fn server(&self, name: &Name) -> Option<&Series> {
        self.servers.get(name).map(|(_, series)| series)
    }

    /// Every server's.
    pub fn servers(&self) -> impl Iterator<Item = &Series> {
        self.servers.values().map(|(_, series)| series)
    }

    /// Counts the samples.
    pub fn round(&self) -> u64 {
        self.round
    }

    fn sample(&mut self, totals: &Totals, pool: &Snapshot) {
        self.round += 1;
        for server in &pool.servers {
            let (seen, series) = self.servers.entry(server.name.clone()).or_default();
            *seen = self.round;
            let grown = series.sample(Sample::of_server(&server.live.counters));
            for (all, grown) in self.durations.iter_mut().zip(grown) {
                *all += u64::from(grown);
            }
        }
        self.all.sample(Sample {
            durations: self.durations,
            ..Sample::of_all(totals)
        });
        let round = self.round;
        self.servers
            .retain(|_, (seen, _)| round - *seen < FORGET_AFTER);
    }
}

impl History {
    /// Closes a period of every row. To be called once a [`PERIOD`].
    pub fn sample(&self, totals: &Totals, pool: &Snapshot) {
        self.read().sample(totals, pool);
    }

    /// Looks at it. Only the thread that serves no requests does.
    pub fn read(&self) -> MutexGuard<'_, Rows> {
        // A series is whole after every point, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stats::fixture;

    fn requests(requests: u64) -> Sample {
        Sample {
            requests,
            ..Sample::default()
        }
    }

    #[test]
    fn a_point_is_what_has_grown_since_the_one_before() {
        let mut series = Series::default();
        for total in [1000, 1007, 1007, 1010] {
            series.sample(requests(total));
        }
        let points: Vec<u32> = series.points().map(|point| point.requests).collect();
        assert_eq!(points, [7, 0, 3]);
        assert_eq!(series.last().requests, 3);
        assert_eq!(series.summary().requests, 10);
        assert_eq!(series.summary().busiest, 7);
    }

    #[test]
    fn a_percentile_is_that_of_all_requests_of_the_last_minute() {
        let mut series = Series::default();
        let mut durations = Durations::default();
        series.sample(Sample::default());
        // 98 requests within half a millisecond, then two that took up to 500 ms.
        for (bucket, count) in [(0, 98), (9, 2)] {
            durations[bucket] += count;
            series.sample(Sample {
                durations,
                ..Sample::default()
            });
        }
        let Summary { p50, p99, .. } = series.summary();
        assert!(p50.unwrap().get() <= 500);
        assert_eq!(p99.unwrap().get(), 375_000);
        for _ in 0..RECENT {
            series.sample(Sample {
                durations,
                ..Sample::default()
            });
        }
        assert_eq!(series.summary().p99, None);
    }

    #[test]
    fn what_lies_above_every_bound_counts_as_the_last() {
        let mut buckets = Buckets::default();
        assert_eq!(percentile(&buckets, 0.5), None);
        *buckets.last_mut().unwrap() = 3;
        let last = Distribution::BOUNDS.last().unwrap() * 1e6;
        assert_eq!(percentile(&buckets, 0.5).unwrap().get(), last as u32);
    }

    #[test]
    fn a_row_costs_about_two_kilobytes() {
        let mut series = Series::default();
        for total in 0..500 {
            series.sample(requests(total));
        }
        assert_eq!(series.points().len(), POINTS);
        let heap = series.points.capacity() * size_of::<Point>()
            + series.durations.capacity() * size_of::<Buckets>();
        let all = heap + size_of::<(Name, (u64, Series))>();
        assert!(all <= 2500, "{all} bytes");
    }

    #[tokio::test]
    async fn a_server_that_is_gone_for_five_minutes_is_forgotten() {
        let (full, empty) = (fixture::source(), fixture::empty());
        let history = History::default();
        history.sample(&full.totals, &full.pool.load());
        let s1: Name = "s1".parse().unwrap();
        assert!(history.read().server(&s1).is_some());
        for _ in 0..FORGET_AFTER {
            history.sample(&empty.totals, &empty.pool.load());
        }
        assert!(history.read().server(&s1).is_none());
    }

    proptest! {
        #[test]
        fn a_percentile_lies_within_the_bounds(counts: [u16; Distribution::BOUNDS.len() + 1], share in 0.0..1.0) {
            let buckets = counts.map(u32::from);
            if let Some(micros) = percentile(&buckets, share) {
                let last = Distribution::BOUNDS.last().unwrap() * 1e6;
                prop_assert!(f64::from(micros.get()) <= last);
            }
        }
    }
}
