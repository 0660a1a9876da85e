//! Latencies in buckets that grow with the value, as in `HdrHistogram`: 128 to
//! each power of two, so that a quantile is off by less than one percent.

use std::time::Duration;

const SUB_BITS: u32 = 7;
const SUB: u64 = 1 << SUB_BITS;

#[derive(Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let bucket = bucket(nanos);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    /// The latency in microseconds that `share` of the requests did not
    /// exceed; `None` when there are too few of them to say.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        if (self.total as f64) * (1.0 - share) < 1.0 {
            return None;
        }
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(middle(bucket) / 1e3)
    }

    /// The longest, in microseconds.
    pub fn max(&self) -> f64 {
        self.max as f64 / 1e3
    }
}

fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(SUB_BITS + 1);
    (u64::from(shift) * SUB + (nanos >> shift)) as usize
}

fn middle(bucket: usize) -> f64 {
    let bucket = bucket as u64;
    let shift = (bucket / SUB).saturating_sub(1);
    let low = (bucket - shift * SUB) << shift;
    low as f64 + ((1u64 << shift) - 1) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_within_a_percent() {
        for exponent in 0..40 {
            for nanos in [1u64 << exponent, (1 << exponent) + (1 << exponent) / 3] {
                let back = middle(bucket(nanos));
                assert!((back / nanos as f64 - 1.0).abs() < 0.01, "{nanos} → {back}");
            }
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::default();
        for micros in 1..=10_000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (share, expected) in [(0.5, 5_000.0), (0.99, 9_900.0), (0.999, 9_990.0)] {
            let quantile = histogram.quantile(share).unwrap();
            assert!(
                (quantile / expected - 1.0).abs() < 0.01,
                "{share}: {quantile}"
            );
        }
    }

    #[test]
    fn a_few_requests_have_no_far_quantile() {
        let mut histogram = Histogram::default();
        (0..500).for_each(|_| histogram.record(Duration::from_micros(7)));
        assert!(histogram.quantile(0.99).is_some());
        assert!(histogram.quantile(0.999).is_none());
    }
}
