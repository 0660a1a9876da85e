//! How durations are distributed, in Prometheus' way.

use std::{ops::AddAssign, time::Duration};

use super::cell::{OwnCounter, micros};

/// How often a duration fell between each two of some bounds. Entered by one
/// thread alone.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Not cumulative; the last is for what lies above all bounds.
    buckets: [OwnCounter; Distribution::BOUNDS.len() + 1],
    /// In microseconds.
    sum: OwnCounter,
}

impl Histogram {
    /// Enters a duration.
    pub fn enter(&self, took: Duration) {
        let micros = micros(took);
        let above = BOUNDS_MICROS.iter().take_while(|bound| micros > **bound);
        if let Some(bucket) = self.buckets.get(above.count()) {
            bucket.inc();
        }
        self.sum.add(micros);
    }

    /// Forgets what was entered. Only the thread that enters may do so.
    pub fn clear(&self) {
        self.buckets.iter().for_each(OwnCounter::clear);
        self.sum.clear();
    }

    /// What was entered so far.
    pub fn read(&self) -> Distribution {
        Distribution {
            buckets: self.buckets.each_ref().map(OwnCounter::get),
            sum: Duration::from_micros(self.sum.get()),
        }
    }
}

/// What a [`Histogram`] says at one moment, or several of them together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Entries between each two bounds; not cumulative; the last is for what
    /// lies above all bounds.
    pub buckets: [u64; Self::BOUNDS.len() + 1],
    /// All entries together.
    pub sum: Duration,
}

impl Distribution {
    /// The upper bounds, in seconds, each inclusive. Two or three a decade, as
    /// Prometheus' own clients have them: from what a local server takes to
    /// beyond the longest timeout that anyone leaves on.
    pub const BOUNDS: [f64; 16] = [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        60.0,
    ];

    /// For each bound, how many entries were not above it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let buckets = Self::BOUNDS.into_iter().zip(self.buckets);
        buckets.scan(0, |total, (bound, entries)| {
            *total += entries;
            Some((bound, *total))
        })
    }

    /// How many entries there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl AddAssign for Distribution {
    fn add_assign(&mut self, other: Self) {
        for (ours, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *ours += theirs;
        }
        self.sum += other.sum;
    }
}

/// The bounds as entries are compared with them.
const BOUNDS_MICROS: [u64; Distribution::BOUNDS.len()] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lists_of_bounds_are_the_same_and_ascend() {
        let micros = Distribution::BOUNDS.map(|seconds| (seconds * 1e6).round() as u64);
        assert_eq!(micros, BOUNDS_MICROS);
        assert!(BOUNDS_MICROS.is_sorted());
    }

    #[test]
    fn a_histogram_counts_cumulatively() {
        let histogram = Histogram::default();
        for millis in [1, 2, 200, 61_000] {
            histogram.enter(Duration::from_millis(millis));
        }
        let read = histogram.read();
        let counts: Vec<u64> = read.cumulative().map(|(_, n)| n).collect();
        assert_eq!(counts, [0, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3]);
        assert_eq!(read.count(), 4);
        assert_eq!(read.sum, Duration::from_millis(61_203));
    }

    #[test]
    fn distributions_add_up() {
        let histogram = Histogram::default();
        histogram.enter(Duration::from_millis(1));
        let mut twice = histogram.read();
        twice += histogram.read();
        assert_eq!((twice.count(), twice.sum), (2, Duration::from_millis(2)));
        assert_eq!(twice.cumulative().last(), Some((60.0, 2)));
    }
}
