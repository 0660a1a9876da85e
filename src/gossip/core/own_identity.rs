//! Who this node says it is. What it announces may change, and another life
//! with its address is to be outlived.

use foca::Identity as _;
use tokio::time::Instant;

use super::{
    Core, Life,
    answers::{Answer, REBIRTH_PAUSE},
    tolerate,
};
use crate::{
    gossip::{
        identity::{Id, MetaError},
        profile,
    },
    membership::Meta,
};

/// A clock may be wrong by this much; who claims more is not followed.
const MAX_AHEAD: u64 = 3600 * 1000;

impl Core {
    /// Says something new of this node to everyone.
    pub(in crate::gossip) fn update(&mut self, meta: &Meta, now: Instant) -> Result<(), MetaError> {
        self.effects.now = now;
        let unchanged = self.foca.identity().meta().as_ref() == Some(meta);
        if self.life == Life::Running && !unchanged {
            let id = self.foca.identity().with_meta(meta)?;
            self.become_id(id);
        }
        Ok(())
    }

    /// Makes our identity win over another one with our address.
    pub(super) fn outlive(&mut self, other: &Id) {
        let own = self.foca.identity();
        let wall = self.wall_clock();
        if other.win_addr_conflict(own) && other.epoch() < wall + MAX_AHEAD {
            let reborn = own.reborn(other.epoch() + 1);
            // It goes to everyone, so not for each forged word of a later life.
            if self.may_answer(reborn.addr(), Answer::Rebirth, REBIRTH_PAUSE) {
                self.become_id(reborn);
            }
        }
    }

    fn become_id(&mut self, id: Id) {
        tolerate(self.foca.set_config(profile::loud(self.size)));
        tolerate(self.foca.change_identity(id, &mut self.effects));
        tolerate(self.foca.set_config(profile::running(self.size)));
        self.effects.rejoined = true;
        self.reconnect_after_rejoin();
    }

    /// With a new identity foca waits for a packet before it probes and
    /// gossips again; that packet may be lost. Its members are still there.
    pub(super) fn reconnect_after_rejoin(&mut self) {
        if std::mem::take(&mut self.effects.rejoined) {
            self.apply(std::iter::empty(), false);
            self.local_changed = true;
        }
    }
}
