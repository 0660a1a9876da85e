//! The end of a node that leaves: it says goodbye, more than once.

use std::time::Duration;

use tokio::time::Instant;

use super::{Core, Life, due::Due, tolerate};
use crate::gossip::profile;

/// The goodbye is said three times in all.
const GOODBYE_PERIOD: Duration = Duration::from_millis(30);
const GOODBYE_REPEATS: u8 = 2;

impl Core {
    /// Says goodbye. It is over once [`Core::is_gone`].
    pub(in crate::gossip) fn leave(&mut self, now: Instant) {
        self.effects.now = now;
        if self.life != Life::Running {
            return;
        }
        self.life = Life::Leaving {
            repeats: GOODBYE_REPEATS,
        };
        tolerate(self.foca.set_config(profile::leaving(self.size)));
        let farewell = self.foca.identity().farewell();
        tolerate(self.foca.change_identity(farewell, &mut self.effects));
        tolerate(self.foca.leave_cluster(&mut self.effects));
        self.effects.set_timer(GOODBYE_PERIOD, Due::Goodbye);
        self.local_changed = true;
    }

    pub(super) fn repeat_goodbye(&mut self) {
        let Life::Leaving { repeats } = self.life else {
            return;
        };
        tolerate(self.foca.gossip(&mut self.effects));
        self.life = match repeats.checked_sub(1) {
            None | Some(0) => Life::Gone,
            Some(repeats) => {
                self.effects.set_timer(GOODBYE_PERIOD, Due::Goodbye);
                Life::Leaving { repeats }
            }
        };
    }
}
