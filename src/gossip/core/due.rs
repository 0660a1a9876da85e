//! What a timer is for, and what becomes of foca's own when they are due.

use foca::{State, Timer};

use super::{Core, tolerate};
use crate::gossip::{identity::Id, profile};

/// What a timer is for.
#[derive(Debug)]
pub(super) enum Due {
    Foca(Timer<Id>),
    Search,
    Hunt,
    Goodbye,
}

impl Core {
    /// Timers that are late tell that this process did not run. A suspect
    /// could not be heard meanwhile, so it is given the time back.
    pub(super) fn excuse_own_stall(&mut self) {
        let effects = &mut self.effects;
        let Some(due) = effects.timers.deadline() else {
            return;
        };
        let late = effects.now.saturating_duration_since(due);
        if late > profile::PROBE_RTT {
            effects.timers.postpone(late, |due| {
                matches!(due, Due::Foca(Timer::ChangeSuspectToDown { .. }))
            });
        }
    }

    pub(super) fn fire(&mut self, timer: Timer<Id>) {
        // foca 2.0.0 tells a suspect that it is down even where it refuted
        // in time, and the healthy member then rejoins for nothing.
        if let Timer::ChangeSuspectToDown {
            member_id,
            incarnation,
            ..
        } = &timer
            && !self.is_suspect(member_id, *incarnation)
        {
            return;
        }
        // Most wake-ups only send: the table need not be gone through.
        self.effects.stirred |= !matches!(
            timer,
            Timer::PeriodicGossip(_)
                | Timer::PeriodicAnnounce(_)
                | Timer::PeriodicAnnounceDown(_)
                | Timer::SendIndirectProbe { .. }
        );
        tolerate(self.foca.handle_timer(timer, &mut self.effects));
    }

    fn is_suspect(&self, id: &Id, incarnation: u16) -> bool {
        self.foca.iter_membership_state().any(|known| {
            known.id() == id
                && known.state() == State::Suspect
                && known.incarnation() == incarnation
        })
    }

    pub(super) fn forget_long_down(&mut self) {
        let now = self.effects.now;
        let due = self.effects.forget.extract_if(.., |_, (at, _)| *at <= now);
        let forgotten: Vec<_> = due.map(|(_, (_, id))| id).collect();
        for id in forgotten {
            self.fire(Timer::RemoveDown(id));
        }
    }
}
