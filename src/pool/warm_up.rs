//! How a server that has come up is given its share little by little: its
//! caches and connections are cold (`HAProxy`'s `slowstart`). Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Steps of a warm-up. Each is a snapshot with a schedule of its own, so they
/// are few; a tenth is as near to the line as a server can tell.
const STEPS: u32 = 10;

/// The tag that says how long a server's warm-up takes.
pub(crate) const SLOWSTART: &str = "slowstart";

/// The longest warm-up: whoever wants a server kept low for longer wants
/// another weight.
const LONGEST: Duration = Duration::from_hours(24);

/// How long a server's warm-up takes, as flag and tag say it; `off` is `None`.
pub(crate) fn slowstart(text: &str) -> Result<Option<Duration>, &'static str> {
    match humantime::parse_duration(text) {
        _ if text == "off" => Ok(None),
        Ok(time) if (Duration::from_millis(1)..=LONGEST).contains(&time) => Ok(Some(time)),
        _ => Err("expected a time such as 10s, a day at the most, or off"),
    }
}

/// The warm-up of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WarmUp {
    since: Instant,
    over: Duration,
}

impl WarmUp {
    /// One that begins at `since` and takes so long.
    pub(super) fn new(since: Instant, over: Duration) -> Self {
        Self { since, over }
    }

    /// The part of its share, in percent, that the server gets at `now`: what
    /// a straight line from nothing to all has in the middle of the step.
    /// `None` once it gets all.
    pub(super) fn percent(&self, now: Instant) -> Option<u8> {
        let done = self.steps_done(now);
        (done < STEPS).then(|| (100 * (2 * done + 1) / (2 * STEPS)) as u8)
    }

    /// When that changes.
    pub(super) fn next_step(&self, now: Instant) -> Option<Instant> {
        let done = self.steps_done(now);
        (done < STEPS).then(|| self.since + self.step() * (done + 1))
    }

    fn steps_done(&self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.since);
        let done = elapsed.as_nanos() / self.step().as_nanos();
        u32::try_from(done).unwrap_or(STEPS)
    }

    fn step(&self) -> Duration {
        (self.over / STEPS).max(Duration::from_nanos(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_servers_share_follows_the_line_by_tenths() {
        let since = Instant::now();
        let warm_up = WarmUp::new(since, 10 * SECOND);
        let share = |millis| warm_up.percent(since + Duration::from_millis(millis));
        assert_eq!(share(0), Some(5));
        assert_eq!(share(999), Some(5));
        assert_eq!(share(1000), Some(15));
        assert_eq!(share(9999), Some(95));
        assert_eq!(share(10_000), None);
        assert_eq!(share(3_600_000), None);
    }

    #[test]
    fn a_time_or_off_is_read_and_nothing_else() {
        assert_eq!(slowstart("off"), Ok(None));
        assert_eq!(slowstart("1500ms"), Ok(Some(Duration::from_millis(1500))));
        for wrong in ["", "0s", "10", "on", "-1s", "25h", "5ns"] {
            assert!(slowstart(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_share_only_grows_and_is_whole_after_few_steps_in_time(nanos in 0u64..u64::MAX / 4) {
            let over = Duration::from_nanos(nanos);
            let since = Instant::now();
            let warm_up = WarmUp::new(since, over);
            let (mut now, mut last, mut steps) = (since, 0, 0);
            while let Some(percent) = warm_up.percent(now) {
                prop_assert!(percent > last && percent < 100, "{last} then {percent}");
                last = percent;
                let next = warm_up.next_step(now).unwrap();
                prop_assert!(next > now);
                now = next;
                steps += 1;
            }
            prop_assert_eq!((steps, warm_up.next_step(now)), (STEPS, None));
            prop_assert!(now - since <= over.max(Duration::from_nanos(STEPS.into())));
        }
    }
}
