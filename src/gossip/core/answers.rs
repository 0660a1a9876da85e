//! At most one answer a while to one address, so that nobody can be flooded
//! through us.

use std::{net::SocketAddr, time::Duration};

use super::Core;
use crate::gossip::identity::Id;

pub(super) const CORRECTION_PAUSE: Duration = Duration::from_secs(1);
pub(super) const WELCOME_PAUSE: Duration = Duration::from_millis(100);
pub(super) const FEED_PAUSE: Duration = Duration::from_millis(100);
pub(super) const REBIRTH_PAUSE: Duration = Duration::from_millis(100);
/// The most addresses whose last answer is remembered.
const MAX_ANSWERS: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Welcome,
    Correction,
    Records,
    Feed,
    Rebirth,
}

impl Core {
    /// Tells a node who we are.
    pub(super) fn correct(&mut self, id: Id) {
        if self.may_answer(id.addr(), Answer::Correction, CORRECTION_PAUSE) {
            self.announce(id);
        }
    }

    pub(super) fn may_answer(&mut self, to: SocketAddr, answer: Answer, pause: Duration) -> bool {
        let now = self.effects.now;
        let last = self.answers.get(&(to, answer));
        if last.is_some_and(|last| now < *last + pause) {
            return false;
        }
        if self.answers.len() >= MAX_ANSWERS {
            self.answers
                .retain(|_, last| now < *last + CORRECTION_PAUSE);
        }
        if self.answers.len() >= MAX_ANSWERS {
            return false;
        }
        self.answers.insert((to, answer), now);
        true
    }
}
