//! When requests are due: at random, independently of each other and of the
//! answers (a Poisson process), as with many users who do not know each
//! other. The seed is fixed, so every proxy meets the same moments.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Arrivals {
    next: Instant,
    mean: f64,
    state: u64,
}

impl Arrivals {
    /// So many a second on average, from `start` on.
    pub fn new(start: Instant, rate: f64) -> Self {
        let mut arrivals = Self {
            next: start,
            mean: 1.0 / rate,
            state: 0x9e37_79b9_7f4a_7c15,
        };
        arrivals.advance();
        arrivals
    }

    /// When the next request is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    pub fn advance(&mut self) {
        // xorshift64; 1 − u lies in (0, 1], whose logarithm is finite.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let uniform = (self.state >> 11) as f64 / (1u64 << 53) as f64;
        self.next += Duration::from_secs_f64(-(1.0 - uniform).ln() * self.mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_at_the_rate_that_was_asked_for() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start, 1000.0);
        (1..100_000).for_each(|_| arrivals.advance());
        let seconds = (arrivals.next() - start).as_secs_f64();
        assert!((seconds / 100.0 - 1.0).abs() < 0.01, "{seconds}");
    }
}
