//! Which servers warm up: those that come up beside others that serve.

use std::time::Duration;

use tokio::time::Instant;

use super::State;
use crate::{
    membership::Name,
    pool::{
        quarantine,
        server::{Cause, Status},
        tally::Part,
    },
};

/// How long after the first of them servers still count as having been there
/// with it. A balancer that starts anew hears of all its servers, which are
/// warm, in less; and where all are cold none is to be spared.
const FIRST_WAVE: Duration = Duration::from_secs(2);

impl State {
    /// The same where a server that says nothing else warms up for so long.
    #[must_use]
    pub fn with_slowstart(mut self, slowstart: Option<Duration>) -> Self {
        self.slowstart = slowstart;
        self
    }

    /// Begins a server's warm-up if it has just come up, and ends it if it has
    /// gone. Who drains goes on: it is up, and has its users.
    pub(super) fn warm(&mut self, name: &Name, before: Option<Part>, now: Instant) {
        let wave_is_over = self.serves_since.is_some_and(|at| now >= at + FIRST_WAVE);
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        let was_up = before.is_some_and(|b| b.status.takes_users() && b.life == entry.life);
        match (was_up, entry.status.takes_users()) {
            (_, false) => entry.set_warm_up(None, now),
            (true, true) => {}
            (false, true) => {
                let quarantined = Status::Down(Cause::Quarantine);
                let eased_in = before.filter(|before| before.status == quarantined);
                let eased_in = eased_in.map(|_| quarantine::EASED_IN_OVER);
                let slowstart = entry.slowstart(self.slowstart).filter(|_| wave_is_over);
                entry.set_warm_up(eased_in.max(slowstart), now);
            }
        }
    }
}
