//! Single figures. What many threads add to is atomic; what one thread alone
//! adds to is read by others, and costs it a plain addition.

use std::{
    sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A figure that only grows, added to by any thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
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

/// A figure that only grows, added to by one thread alone: a second one's
/// additions could be lost.
#[derive(Debug, Default)]
pub struct OwnCounter(AtomicU64);

impl OwnCounter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Relaxed);
    }

    /// The figure.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Starts from zero again. Only the thread that adds to it may do so.
    pub fn clear(&self) {
        self.0.store(0, Relaxed);
    }
}

/// How many of something there are, as one thread alone counts them.
#[derive(Debug, Default)]
pub struct OwnLevel(AtomicU32);

impl OwnLevel {
    /// One more.
    pub fn inc(&self) {
        self.0.store(self.get().wrapping_add(1), Relaxed);
    }

    /// One less.
    pub fn dec(&self) {
        self.0.store(self.get().wrapping_sub(1), Relaxed);
    }

    /// How many there are.
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// How many of something there are now over all threads, and the most there
/// ever were, both exact.
///
/// Every worker writes it, so it has its cache lines to itself (two: CPUs
/// fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Gauge {
    current: AtomicU32,
    max: AtomicU32,
}

impl Gauge {
    /// One more.
    pub fn inc(&self) {
        let now = self.current.fetch_add(1, Relaxed) + 1;
        // The plain load keeps the common case free of a second write.
        if now > self.max.load(Relaxed) {
            self.max.fetch_max(now, Relaxed);
        }
    }

    /// One less.
    pub fn dec(&self) {
        self.current.fetch_sub(1, Relaxed);
    }

    /// How many there are.
    pub fn get(&self) -> u32 {
        self.current.load(Relaxed)
    }

    /// The most there ever were at a time.
    pub fn max(&self) -> u32 {
        self.max.load(Relaxed)
    }

    /// Forgets the most there ever were but for those that there are.
    pub fn clear_max(&self) {
        self.max.store(self.get(), Relaxed);
    }
}

/// A second's worth of a counter, taken by the sampler once a second, so that
/// rates and the time of the last event cost the request path nothing.
#[derive(Debug, Default)]
pub struct Rate {
    seen: AtomicU64,
    last: AtomicU32,
    max: AtomicU32,
    /// The wall-clock second in which growth was last seen; 0 for never.
    grown_at: AtomicI64,
}

impl Rate {
    /// Takes the growth of `total` since the last call as the rate; `now` is
    /// the wall clock in seconds.
    pub fn sample(&self, total: u64, now: i64) {
        let grown = total.saturating_sub(self.seen.swap(total, Relaxed));
        let rate = u32::try_from(grown).unwrap_or(u32::MAX);
        self.last.store(rate, Relaxed);
        self.max.fetch_max(rate, Relaxed);
        if grown > 0 {
            self.grown_at.store(now, Relaxed);
        }
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

    /// Forgets the past of a counter that has started from zero again. What
    /// happened in the last second stays.
    pub fn restart(&self) {
        self.clear_max();
        self.seen.store(0, Relaxed);
        self.grown_at.store(0, Relaxed);
    }

    /// Seconds since the counter, which now stands at `total`, last grew;
    /// `None` if it never did.
    pub fn seconds_since_last(&self, total: u64, now: i64) -> Option<u64> {
        if total > self.seen.load(Relaxed) {
            return Some(0);
        }
        let last = self.grown_at.load(Relaxed);
        (last != 0).then(|| u64::try_from(now - last).unwrap_or(0))
    }
}

/// How many of something will be needed, from looks at how many there are:
/// more at once, fewer by and by (`HAProxy`'s `need_conn_est`).
#[derive(Debug, Default)]
pub struct Estimate(AtomicU32);

impl Estimate {
    /// Takes a look. The sampler calls it once a second.
    pub fn sample(&self, now: u32) {
        let before = self.0.load(Relaxed);
        self.0.store(now.max(before.midpoint(now)), Relaxed);
    }

    /// The estimate.
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// A duration's average over about the last 1,024 entries (`HAProxy`'s
/// window), and its maximum. Entered by one thread alone.
#[derive(Debug, Default)]
pub struct Timing {
    /// Sum over the window in microseconds, decayed by 1/1024 at each entry.
    window: AtomicU64,
    entries: AtomicU32,
    max: AtomicU64,
}

impl Timing {
    const WINDOW: u64 = 1024;

    /// Enters a duration.
    pub fn enter(&self, took: Duration) {
        let micros = micros(took);
        let entries = u64::from(self.entries.load(Relaxed));
        let window = self.window.load(Relaxed);
        let kept = if entries < Self::WINDOW {
            self.entries.store(entries as u32 + 1, Relaxed);
            window
        } else {
            window - window / Self::WINDOW
        };
        self.window.store(kept.saturating_add(micros), Relaxed);
        if micros > self.max.load(Relaxed) {
            self.max.store(micros, Relaxed);
        }
    }

    /// Forgets the longest. Only the thread that enters may do so.
    pub fn clear_max(&self) {
        self.max.store(0, Relaxed);
    }

    /// Forgets everything. Only the thread that enters may do so.
    pub fn clear(&self) {
        self.entries.store(0, Relaxed);
        self.window.store(0, Relaxed);
        self.clear_max();
    }

    /// The average and the maximum over what several threads entered, each of
    /// which has a window of its own; `None` before the first entry.
    pub fn over<'a>(timings: impl Iterator<Item = &'a Self>) -> Option<(Duration, Duration)> {
        let (mut window, mut entries, mut max) = (0u64, 0, 0);
        for timing in timings {
            window = window.saturating_add(timing.window.load(Relaxed));
            entries += u64::from(timing.entries.load(Relaxed));
            max = max.max(timing.max.load(Relaxed));
        }
        let average = window.checked_div(entries)?;
        Some((Duration::from_micros(average), Duration::from_micros(max)))
    }
}

/// Whole microseconds. Saturates after half a million years.
pub(super) fn micros(time: Duration) -> u64 {
    let whole = time.as_secs().saturating_mul(1_000_000);
    whole.saturating_add(time.subsec_micros().into())
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
        rate.sample(10, 1);
        rate.sample(13, 2);
        assert_eq!((rate.get(), rate.max()), (3, 10));
    }

    #[test]
    fn a_counter_that_starts_anew_is_no_burst_and_has_no_past() {
        let rate = Rate::default();
        rate.sample(10, 1);
        rate.restart();
        assert_eq!((rate.max(), rate.seconds_since_last(0, 5)), (0, None));
        rate.sample(3, 2);
        assert_eq!((rate.get(), rate.max()), (3, 3));
    }

    #[test]
    fn the_last_event_is_known_to_the_second() {
        let rate = Rate::default();
        assert_eq!(rate.seconds_since_last(0, 100), None);
        // Not sampled yet, so it came just now.
        assert_eq!(rate.seconds_since_last(1, 100), Some(0));
        rate.sample(1, 100);
        rate.sample(1, 101);
        assert_eq!(rate.seconds_since_last(1, 107), Some(7));
        assert_eq!(rate.seconds_since_last(2, 107), Some(0));
    }

    #[test]
    fn an_estimate_rises_at_once_and_falls_slowly() {
        let estimate = Estimate::default();
        let looks = [0, 8, 0, 0, 6].map(|now| {
            estimate.sample(now);
            estimate.get()
        });
        assert_eq!(looks, [0, 8, 4, 2, 6]);
    }

    #[test]
    fn a_timing_forgets_what_lies_a_window_back() {
        let timing = Timing::default();
        assert_eq!(Timing::over([&timing].into_iter()), None);
        let read = |timing: &Timing| Timing::over([timing].into_iter()).unwrap();
        let (long, short) = (Duration::from_millis(100), Duration::from_millis(1));
        for _ in 0..1024 {
            timing.enter(long);
        }
        assert_eq!(read(&timing), (long, long));
        for _ in 0..10_000 {
            timing.enter(short);
        }
        let (average, max) = read(&timing);
        assert!(average < Duration::from_millis(2), "{average:?}");
        assert_eq!(max, long);
    }

    #[test]
    fn timings_of_several_threads_average_by_their_entries() {
        let timings = [Timing::default(), Timing::default(), Timing::default()];
        for _ in 0..3 {
            timings[0].enter(Duration::from_millis(1));
        }
        timings[2].enter(Duration::from_millis(5));
        let over = Timing::over(timings.iter());
        assert_eq!(
            over,
            Some((Duration::from_millis(2), Duration::from_millis(5)))
        );
    }
}
