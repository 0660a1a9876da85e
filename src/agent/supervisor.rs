//! When an app that ended is started again. Pure: the time comes in as an
//! argument, nothing is started here.

use std::time::Duration;

use tokio::time::Instant;

/// The pause before the first restart.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause: an app that cannot start costs a try every ten seconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// An app that ran this long has started well; what ends it then is news.
const SOUND: Duration = Duration::from_secs(10);

/// What to do when the app ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// Start it again, after a pause that doubles while it keeps ending
    Always,
    /// End too, with the app's exit code
    Never,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Start the app again at this time.
    RestartAt(Instant),
    /// Do not start it again.
    GiveUp,
}

/// Decides on restarts.
#[derive(Debug)]
pub(super) struct Supervisor {
    policy: Policy,
    pause: Duration,
    started: Instant,
}

impl Supervisor {
    /// A supervisor whose app starts at `now`.
    pub(super) fn new(policy: Policy, now: Instant) -> Self {
        Self {
            policy,
            pause: FIRST_PAUSE,
            started: now,
        }
    }

    /// From now on the app is not started again.
    pub(super) fn retire(&mut self) {
        self.policy = Policy::Never;
    }

    /// The app was started.
    pub(super) fn started(&mut self, now: Instant) {
        self.started = now;
    }

    /// The app ended, or could not be started.
    pub(super) fn ended(&mut self, now: Instant) -> Decision {
        if self.policy == Policy::Never {
            return Decision::GiveUp;
        }
        if now.saturating_duration_since(self.started) >= SOUND {
            self.pause = FIRST_PAUSE;
        }
        let restart = Decision::RestartAt(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        restart
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(5);

    /// Starts the app, lets it run, and returns the pause until the next start.
    fn pause_after(supervisor: &mut Supervisor, now: &mut Instant, ran: Duration) -> Duration {
        supervisor.started(*now);
        *now += ran;
        let Decision::RestartAt(at) = supervisor.ended(*now) else {
            panic!("it is to be restarted");
        };
        let pause = at - *now;
        *now = at;
        pause
    }

    #[test]
    fn an_app_that_keeps_ending_is_started_less_and_less_often() {
        let mut now = Instant::now();
        let mut supervisor = Supervisor::new(Policy::Always, now);
        let pauses: Vec<u128> = (0..9)
            .map(|_| pause_after(&mut supervisor, &mut now, MOMENT).as_millis())
            .collect();
        let doubling = [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000];
        assert_eq!(pauses, doubling);
    }

    #[test]
    fn an_app_that_ran_well_is_started_again_at_once() {
        let mut now = Instant::now();
        let mut supervisor = Supervisor::new(Policy::Always, now);
        for _ in 0..5 {
            pause_after(&mut supervisor, &mut now, MOMENT);
        }
        assert_eq!(pause_after(&mut supervisor, &mut now, SOUND), FIRST_PAUSE);
        assert_eq!(
            pause_after(
                &mut supervisor,
                &mut now,
                SOUND.checked_sub(MOMENT).unwrap()
            ),
            2 * FIRST_PAUSE
        );
    }

    #[test]
    fn never_means_never() {
        let now = Instant::now();
        let mut supervisor = Supervisor::new(Policy::Never, now);
        assert_eq!(supervisor.ended(now + SOUND), Decision::GiveUp);
    }
}
