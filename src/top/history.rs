//! The last minute of a row's figures. Pure.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::answer::{Bucket, Server};

/// How far back it goes.
pub const MINUTE: Duration = Duration::from_mins(1);

/// How far apart the totals are that are kept to subtract from: a minute is
/// then true to a twelfth.
const STEP: Duration = Duration::from_secs(5);

/// Rates and totals of the last minute.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// When it began: parts of a minute begin at multiples of their length
    /// after that, so that bars stand still until all move on by one.
    began: Option<Instant>,
    rates: VecDeque<(Instant, u64)>,
    totals: VecDeque<(Instant, Totals)>,
    latest: Option<(Instant, Totals)>,
    errors_per_second: f64,
}

/// Counts that only grow.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// Requests that failed.
    pub errors: u64,
    /// Responses that came, and those within each time.
    responses: u64,
    buckets: Vec<Bucket>,
}

impl Totals {
    /// Those of some servers together.
    pub fn of<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Self {
        let mut totals = Self::default();
        for server in servers {
            totals.errors += server.errors();
            for latency in server.latency.values() {
                totals.responses += latency.count;
                if totals.buckets.is_empty() {
                    totals.buckets.clone_from(&latency.buckets);
                    continue;
                }
                for (sum, bucket) in totals.buckets.iter_mut().zip(&latency.buckets) {
                    sum.count += bucket.count;
                }
            }
        }
        totals
    }

    /// What was added since `before`; `None` where a count went back, as when
    /// the load balancer was started again.
    fn since(&self, before: &Self) -> Option<Self> {
        let bucket = |(index, now): (usize, &Bucket)| {
            let before = before.buckets.get(index).map_or(0, |bucket| bucket.count);
            let count = now.count.checked_sub(before)?;
            Some(Bucket { count, ..*now })
        };
        Some(Self {
            errors: self.errors.checked_sub(before.errors)?,
            responses: self.responses.checked_sub(before.responses)?,
            buckets: self
                .buckets
                .iter()
                .enumerate()
                .map(bucket)
                .collect::<Option<_>>()?,
        })
    }

    /// The time in milliseconds within which that share of the responses
    /// came, between the bounds that it was counted by.
    fn quantile(&self, share: f64) -> Option<f64> {
        if self.responses == 0 {
            return None;
        }
        let rank = share * self.responses as f64;
        let mut below = Bucket::default();
        for bucket in &self.buckets {
            if bucket.count as f64 >= rank {
                let inside = (bucket.count - below.count) as f64;
                let part = (rank - below.count as f64) / inside.max(1.0);
                return Some(below.le_ms + part * (bucket.le_ms - below.le_ms));
            }
            below = *bucket;
        }
        // Longer than the last bound.
        Some(below.le_ms)
    }
}

/// What the last minute comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Minute {
    /// Requests that failed.
    pub errors: Option<u64>,
    /// The median response time in milliseconds.
    pub p50: Option<f64>,
    /// The time within which 99 of 100 responses came.
    pub p99: Option<f64>,
}

impl History {
    /// Enters what was answered at `now`.
    pub fn enter(&mut self, rate: u64, totals: Totals, now: Instant) {
        self.began.get_or_insert(now);
        let is_old = |at: Instant| now.saturating_duration_since(at) > MINUTE;
        self.rates.push_back((now, rate));
        while self.rates.front().is_some_and(|(at, _)| is_old(*at)) {
            self.rates.pop_front();
        }
        self.errors_per_second = 0.0;
        if let Some((at, before)) = &self.latest {
            let took = now.saturating_duration_since(*at).as_secs_f64();
            match totals.since(before) {
                Some(added) if took > 0.0 => self.errors_per_second = added.errors as f64 / took,
                Some(_) => {}
                None => self.totals.clear(),
            }
        }
        while self.totals.front().is_some_and(|(at, _)| is_old(*at)) {
            self.totals.pop_front();
        }
        let last = self.totals.back();
        if last.is_none_or(|(at, _)| now.saturating_duration_since(*at) >= STEP) {
            self.totals.push_back((now, totals.clone()));
        }
        self.latest = Some((now, totals));
    }

    /// Failed requests a second, from the last answer but one to the last.
    pub fn errors_per_second(&self) -> f64 {
        self.errors_per_second
    }

    /// The last minute, or as much of it as was watched.
    pub fn minute(&self) -> Minute {
        let (Some((_, first)), Some((_, latest))) = (self.totals.front(), &self.latest) else {
            return Minute::default();
        };
        let Some(added) = latest.since(first) else {
            return Minute::default();
        };
        Minute {
            errors: Some(added.errors),
            p50: added.quantile(0.5),
            p99: added.quantile(0.99),
        }
    }

    /// The rates of the last minute in `width` parts, the latest last; `None`
    /// is a part in which nobody watched.
    pub fn rates(&self, width: usize, now: Instant) -> Vec<Option<u64>> {
        let mut parts = vec![None; width];
        let part = MINUTE.as_secs_f64() / width.max(1) as f64;
        let began = self.began.unwrap_or(now);
        let number = |at: Instant| {
            let since = at.saturating_duration_since(began).as_secs_f64();
            (since / part) as usize
        };
        for (at, rate) in &self.rates {
            let back = number(now).saturating_sub(number(*at));
            let index = width.checked_sub(back + 1);
            if let Some(slot) = index.and_then(|index| parts.get_mut(index)) {
                *slot = Some(slot.map_or(*rate, |most: u64| most.max(*rate)));
            }
        }
        // With fewer answers than parts, a part shows the answer before it.
        let mut before = None;
        let spacing = self.spacing();
        for (index, slot) in parts.iter_mut().enumerate() {
            match (*slot, before) {
                (Some(rate), _) => before = Some((index, rate)),
                (None, Some((last, rate))) if (index - last) as f64 * part <= spacing => {
                    *slot = Some(rate);
                }
                _ => {}
            }
        }
        parts
    }

    /// The time between the last answers, in seconds, with some patience.
    fn spacing(&self) -> f64 {
        let mut latest = self.rates.iter().rev().map(|(at, _)| *at);
        let apart = latest.next().zip(latest.next());
        apart.map_or(0.0, |(last, before)| {
            last.saturating_duration_since(before).as_secs_f64() * 1.5
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(errors: u64, buckets: &[(f64, u64)], responses: u64) -> Totals {
        let bucket = |&(le_ms, count): &(f64, u64)| Bucket { le_ms, count };
        Totals {
            errors,
            responses,
            buckets: buckets.iter().map(bucket).collect(),
        }
    }

    #[test]
    fn a_minute_is_what_was_added_in_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut history = History::default();
        history.enter(1, totals(90, &[(1.0, 1000), (10.0, 1000)], 1000), at(0));
        assert_eq!(history.minute().p50, None, "nothing came while watching");
        history.enter(1, totals(96, &[(1.0, 1050), (10.0, 1100)], 1100), at(2));
        let minute = history.minute();
        assert_eq!(minute.errors, Some(6));
        assert_eq!(minute.p50, Some(1.0));
        assert!((minute.p99.unwrap() - 9.82).abs() < 0.001, "{minute:?}");
        assert!((history.errors_per_second() - 3.0).abs() < f64::EPSILON);
        for second in 3..=70 {
            history.enter(
                1,
                totals(96, &[(1.0, 1050), (10.0, 1100)], 1100),
                at(second),
            );
        }
        assert_eq!(history.minute().errors, Some(0));
        assert_eq!(history.minute().p50, None);
    }

    #[test]
    fn a_balancer_that_starts_again_makes_nothing_negative() {
        let start = Instant::now();
        let mut history = History::default();
        history.enter(5, totals(90, &[(1.0, 10)], 10), start);
        history.enter(5, totals(1, &[(1.0, 1)], 1), start + Duration::from_secs(1));
        assert_eq!(history.minute().errors, Some(0));
        history.enter(5, totals(3, &[(1.0, 2)], 2), start + Duration::from_secs(2));
        assert_eq!(history.minute().errors, Some(2));
    }

    #[test]
    fn rates_stand_where_they_were_and_gaps_stay_empty() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut history = History::default();
        for second in [0, 1, 58, 59] {
            history.enter(second, Totals::default(), at(second));
        }
        let rates = history.rates(6, at(59));
        assert_eq!(rates, [Some(1), None, None, None, None, Some(59)]);
        let rates = history.rates(60, at(59));
        assert_eq!(
            (rates[0], rates[1], rates[59]),
            (Some(0), Some(1), Some(59))
        );
        assert_eq!(history.rates(0, at(59)), []);
    }

    #[test]
    fn rare_answers_make_a_line_without_holes() {
        let start = Instant::now();
        let mut history = History::default();
        for answer in 0..12 {
            let now = start + Duration::from_secs(answer * 5);
            history.enter(answer + 1, Totals::default(), now);
        }
        let rates = history.rates(60, start + Duration::from_secs(59));
        assert!(rates.iter().all(Option::is_some), "{rates:?}");
    }
}
