//! Live figures of a frontend, a backend or a server: the one place where a
//! number is counted. Every surface (page, CSV, Prometheus, JSON) prints from
//! here. A leaf: it knows nothing of the pool or of HTTP types.

use std::{
    sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A figure that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The figure.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Starts from zero again.
    pub fn clear(&self) {
        self.0.store(0, Relaxed);
    }
}

/// How many of something there are now, and the most there ever were.
#[derive(Debug, Default)]
pub struct Gauge {
    current: AtomicU32,
    max: AtomicU32,
}

impl Gauge {
    /// One more; the returned value counts it.
    pub fn inc(&self) -> u32 {
        let now = self.current.fetch_add(1, Relaxed) + 1;
        // The plain load keeps the common case free of a second write.
        if now > self.max.load(Relaxed) {
            self.max.fetch_max(now, Relaxed);
        }
        now
    }

    /// One less.
    pub fn dec(&self) {
        self.current.fetch_sub(1, Relaxed);
    }

    /// How many there are.
    pub fn get(&self) -> u32 {
        self.current.load(Relaxed)
    }

    /// The most there ever were.
    pub fn max(&self) -> u32 {
        self.max.load(Relaxed)
    }

    /// Forgets the most there ever were but for those that there are.
    pub fn clear_max(&self) {
        self.max.store(self.current.load(Relaxed), Relaxed);
    }
}

/// A second's worth of a [`Counter`], taken by the sampler once a second, so
/// that rates cost the request path nothing.
#[derive(Debug, Default)]
pub struct Rate {
    seen: AtomicU64,
    last: AtomicU32,
    max: AtomicU32,
}

impl Rate {
    /// Takes the growth of `total` since the last call as the rate.
    pub fn sample(&self, total: u64) {
        let grown = total.saturating_sub(self.seen.swap(total, Relaxed));
        let rate = u32::try_from(grown).unwrap_or(u32::MAX);
        self.last.store(rate, Relaxed);
        self.max.fetch_max(rate, Relaxed);
    }

    /// Events in the last full second.
    pub fn get(&self) -> u32 {
        self.last.load(Relaxed)
    }

    /// The most events in one second.
    pub fn max(&self) -> u32 {
        self.max.load(Relaxed)
    }

    /// Forgets the most events in one second.
    pub fn clear_max(&self) {
        self.max.store(0, Relaxed);
    }
}

/// A duration's average over about the last 1,024 requests (`HAProxy`'s
/// window), and its maximum.
#[derive(Debug, Default)]
pub struct Timing {
    /// Sum over the window in microseconds, decayed by 1/1024 at each entry.
    window: AtomicU64,
    entries: AtomicU32,
    max: AtomicU64,
}

impl Timing {
    const WINDOW: u64 = 1024;

    /// Enters one request's duration.
    ///
    /// Two workers that enter at the same moment may lose one of the two: an
    /// average over a thousand does not show it, and a lock would.
    pub fn enter(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> 1);
        let entries = u64::from(self.entries.load(Relaxed));
        let window = self.window.load(Relaxed);
        if entries < Self::WINDOW {
            self.entries.store(entries as u32 + 1, Relaxed);
            self.window.store(window.saturating_add(micros), Relaxed);
        } else {
            let decayed = window - window / Self::WINDOW;
            self.window.store(decayed.saturating_add(micros), Relaxed);
        }
        if micros > self.max.load(Relaxed) {
            self.max.fetch_max(micros, Relaxed);
        }
    }

    /// The average; zero before the first entry.
    pub fn average(&self) -> Duration {
        let entries = u64::from(self.entries.load(Relaxed)).max(1);
        Duration::from_micros(self.window.load(Relaxed) / entries)
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max.load(Relaxed))
    }

    /// Forgets the longest.
    pub fn clear_max(&self) {
        self.max.store(0, Relaxed);
    }

    /// Forgets the average too.
    pub fn clear(&self) {
        self.entries.store(0, Relaxed);
        self.window.store(0, Relaxed);
        self.clear_max();
    }
}

/// How often a duration fell below each of some bounds, as Prometheus'
/// histograms have it.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Not cumulative; the last is for what lies above all bounds.
    buckets: [Counter; Self::BOUNDS.len() + 1],
    sum: AtomicU64,
}

impl Histogram {
    /// The upper bounds, in seconds.
    pub const BOUNDS: [f64; 12] = [
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    ];

    /// Enters a duration.
    pub fn enter(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let above = Self::BOUNDS
            .iter()
            .take_while(|bound| seconds > **bound)
            .count();
        if let Some(bucket) = self.buckets.get(above) {
            bucket.inc();
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum.fetch_add(micros, Relaxed);
    }

    /// For each bound, how many entries were not above it.
    pub fn cumulative(&self) -> Vec<(f64, u64)> {
        let mut total = 0;
        Self::BOUNDS
            .iter()
            .zip(&self.buckets)
            .map(|(bound, bucket)| {
                total += bucket.get();
                (*bound, total)
            })
            .collect()
    }

    /// How many entries there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }

    /// All entries together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum.load(Relaxed))
    }
}

/// Everything that is counted for one row of the statistics.
///
/// One type serves frontends, backends and servers; what has no meaning for a
/// row stays zero, and the printers leave it out.
#[derive(Debug, Default)]
pub struct Counters {
    /// Open client connections (frontends).
    pub connections: Gauge,
    /// Client connections ever accepted (frontends).
    pub connections_total: Counter,
    /// Requests being served now (`scur`, `smax`).
    pub active: Gauge,
    /// Requests ever given to this row (`stot`, `req_tot`).
    pub requests: Counter,
    /// Requests that balancing, not a cookie, gave to this row (`lbtot`).
    pub balanced: Counter,
    /// Request bytes, bodies and heads as received (`bin`).
    pub bytes_in: Counter,
    /// Response bytes, bodies and heads as sent (`bout`).
    pub bytes_out: Counter,
    /// Responses by class: 1xx to 5xx, then everything else.
    pub responses: [Counter; 6],
    /// Requests that could not be read: malformed, too large, too slow.
    pub request_errors: Counter,
    /// Connections to a server that could not be made (`econ`).
    pub connect_errors: Counter,
    /// Responses that were broken off, malformed or never came (`eresp`).
    pub response_errors: Counter,
    /// Attempts after the first (`wretr`).
    pub retries: Counter,
    /// Retries that went to another server (`wredis`).
    pub redispatches: Counter,
    /// Requests that were taken away from the server because it was given up
    /// while they waited for it.
    pub rescues: Counter,
    /// Tunnels that were closed because the server left.
    pub tunnels_closed: Counter,
    /// Exchanges the client gave up on (`cli_abrt`).
    pub client_aborts: Counter,
    /// Exchanges the server broke off after its response began (`srv_abrt`).
    pub server_aborts: Counter,
    /// New connections made to the server (`connect`).
    pub connects: Counter,
    /// Requests sent over a connection that was already there (`reuse`).
    pub reuses: Counter,
    /// Connections to the server that are open and unused (`srv_icur`).
    pub idle: Gauge,
    /// Time to connect.
    pub connect_time: Timing,
    /// From the request being sent to the response's head.
    pub response_time: Timing,
    /// From the request's head to the response's last byte.
    pub total_time: Timing,
    /// Requests a second.
    pub request_rate: Rate,
    /// Connections a second (frontends).
    pub connection_rate: Rate,
    last_request: AtomicI64,
}

impl Counters {
    /// Enters a response's status code.
    pub fn response(&self, status: u16) {
        let class = match status {
            100..=599 => usize::from(status / 100 - 1),
            _ => 5,
        };
        if let Some(counter) = self.responses.get(class) {
            counter.inc();
        }
    }

    /// Notes that a request came to this row at the wall-clock second `now`.
    pub fn touch(&self, now: i64) {
        // Most requests share their second with the one before.
        if self.last_request.load(Relaxed) != now {
            self.last_request.store(now, Relaxed);
        }
    }

    /// Seconds since the last request, `None` if there never was one.
    pub fn seconds_since_last(&self) -> Option<u64> {
        let last = self.last_request.load(Relaxed);
        (last != 0).then(|| u64::try_from(unix_seconds() - last).unwrap_or(0))
    }

    /// Forgets the maxima (`clear counters`).
    pub fn clear_max(&self) {
        for gauge in [&self.connections, &self.active, &self.idle] {
            gauge.clear_max();
        }
        for timing in [&self.connect_time, &self.response_time, &self.total_time] {
            timing.clear_max();
        }
        self.request_rate.clear_max();
        self.connection_rate.clear_max();
    }

    /// Forgets everything but what there is now (`clear counters all`).
    pub fn clear(&self) {
        self.clear_max();
        let totals = [
            &self.connections_total,
            &self.requests,
            &self.balanced,
            &self.bytes_in,
            &self.bytes_out,
            &self.request_errors,
            &self.connect_errors,
            &self.response_errors,
            &self.retries,
            &self.redispatches,
            &self.rescues,
            &self.tunnels_closed,
            &self.client_aborts,
            &self.server_aborts,
            &self.connects,
            &self.reuses,
        ];
        totals.into_iter().for_each(Counter::clear);
        self.responses.iter().for_each(Counter::clear);
        for timing in [&self.connect_time, &self.response_time, &self.total_time] {
            timing.clear();
        }
        self.last_request.store(0, Relaxed);
    }

    /// Closes a second: takes the rates. The sampler calls it once a second.
    pub fn sample(&self) {
        self.request_rate.sample(self.requests.get());
        self.connection_rate.sample(self.connections_total.get());
    }
}

/// The figures of a frontend and of the backend behind it.
#[derive(Debug, Default)]
pub struct Totals {
    /// What came in from clients.
    pub frontend: Counters,
    /// What was to be given to servers.
    pub backend: Counters,
}

/// The wall clock in seconds.
pub fn unix_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_remembers_its_peak() {
        let gauge = Gauge::default();
        gauge.inc();
        gauge.inc();
        gauge.dec();
        assert_eq!((gauge.get(), gauge.max()), (1, 2));
    }

    #[test]
    fn a_rate_is_the_growth_between_two_samples() {
        let rate = Rate::default();
        rate.sample(10);
        rate.sample(13);
        assert_eq!((rate.get(), rate.max()), (3, 10));
    }

    #[test]
    fn a_timing_forgets_what_lies_a_window_back() {
        let timing = Timing::default();
        for _ in 0..1024 {
            timing.enter(Duration::from_millis(100));
        }
        assert_eq!(timing.average(), Duration::from_millis(100));
        for _ in 0..10_000 {
            timing.enter(Duration::from_millis(1));
        }
        assert!(timing.average() < Duration::from_millis(2));
        assert_eq!(timing.max(), Duration::from_millis(100));
    }

    #[test]
    fn a_histogram_counts_cumulatively() {
        let histogram = Histogram::default();
        for millis in [1, 2, 200, 60_000] {
            histogram.enter(Duration::from_millis(millis));
        }
        let counts: Vec<u64> = histogram.cumulative().iter().map(|(_, n)| *n).collect();
        assert_eq!(counts, [1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3]);
        assert_eq!(histogram.count(), 4);
        assert_eq!(histogram.sum(), Duration::from_millis(60_203));
    }

    #[test]
    fn what_is_cleared_starts_from_zero_but_for_what_there_is_now() {
        let counters = Counters::default();
        for _ in 0..3 {
            counters.requests.inc();
            counters.active.inc();
        }
        counters.active.dec();
        counters.total_time.enter(Duration::from_millis(4));
        counters.sample();
        counters.clear_max();
        assert_eq!((counters.active.get(), counters.active.max()), (2, 2));
        assert_eq!(counters.request_rate.max(), 0);
        assert_eq!(counters.requests.get(), 3);
        assert_eq!(counters.total_time.average(), Duration::from_millis(4));
        counters.clear();
        assert_eq!((counters.requests.get(), counters.active.get()), (0, 2));
        assert_eq!(counters.total_time.average(), Duration::ZERO);
        counters.requests.inc();
        counters.sample();
        assert_eq!(counters.request_rate.max(), 0, "a reset is no burst");
    }

    #[test]
    fn responses_are_counted_by_class() {
        let counters = Counters::default();
        for status in [200, 204, 404, 503, 999] {
            counters.response(status);
        }
        let by_class: Vec<u64> = counters.responses.iter().map(Counter::get).collect();
        assert_eq!(by_class, [0, 2, 0, 1, 1, 1]);
    }
}
