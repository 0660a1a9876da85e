//! The state sync: what two nodes tell each other, and when it is time to.

use std::{net::SocketAddr, time::Duration};

use foca::State;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Core, Life, MAX_MEMBERS, MAX_VARINT_16};
use crate::{
    gossip::{
        identity::{Id, MAX_ID},
        records::{self, MAX_RECORDS},
        wire::{DropReason, ENVELOPE, MAX_FRAME},
    },
    membership::Intent,
};

/// The most that a roster takes: besides the ids the incarnations, and the
/// two counts and the speaker's own id.
const MAX_ROSTER: usize =
    MAX_MEMBERS * (MAX_ID + MAX_VARINT_16) + MAX_RECORDS * records::MAX_ENCODED + 2 * MAX_ID;
const _: () = assert!(
    MAX_ROSTER + ENVELOPE <= MAX_FRAME,
    "a full roster fits a frame"
);

const SYNC_PERIOD: Duration = Duration::from_secs(30);
/// Until an exchange succeeded, another peer is tried this often.
const SYNC_RETRY: Duration = Duration::from_secs(1);

/// What two nodes tell each other in a state sync.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::gossip) struct Roster {
    /// The node that speaks.
    pub(super) from: Id,
    /// The members it knows to be alive, with their incarnation.
    pub(super) members: Vec<(Id, u16)>,
    /// What operators want, as far as it knows.
    records: Vec<Intent>,
}

impl Core {
    pub(super) fn sync_when_due(&mut self) {
        if self.effects.now < self.next_sync || !self.has_peers() {
            return;
        }
        let peer = self.random_peer();
        self.syncs.extend(peer);
        self.plan_sync();
    }

    fn plan_sync(&mut self) {
        let pause = if self.synced { SYNC_PERIOD } else { SYNC_RETRY };
        // Spread, so that nodes started together do not all sync at once.
        let pause = pause.mul_f64(self.rng.random_range(0.9..1.1));
        self.next_sync = self.effects.now + pause;
    }

    /// What to tell in a state sync, to the node at `peer` where it is known.
    pub(in crate::gossip) fn roster(&self, peer: Option<SocketAddr>) -> Roster {
        let members = self
            .foca
            .iter_membership_state()
            // Of the peer itself everything is told: it must learn of a
            // former life that is ahead of it.
            .filter(|known| known.state() == State::Alive || Some(known.id().addr()) == peer)
            .map(|known| (known.id().clone(), known.incarnation()))
            .collect();
        Roster {
            from: self.foca.identity().clone(),
            members,
            records: self.records.lock().all(),
        }
    }

    /// Takes over what a peer told in a state sync.
    pub(in crate::gossip) fn merge(
        &mut self,
        roster: Roster,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.effects.now = now;
        if self.life != Life::Running {
            return Ok(());
        }
        let roster = self.admit_roster(roster)?;
        self.merge_records(roster.records);
        let own = self.foca.identity().addr();
        let (ours, theirs): (Vec<_>, Vec<_>) = std::iter::once((roster.from, 0))
            .chain(roster.members)
            .take(MAX_MEMBERS)
            .filter(|(id, _)| id.reachable())
            .partition(|(id, _)| id.addr() == own);
        for (id, _) in ours {
            self.outlive(&id);
        }
        let mut room = MAX_MEMBERS.saturating_sub(self.known());
        let updates: Vec<_> = theirs
            .into_iter()
            .filter(|(id, _)| {
                if self.known_at(id.addr()).is_some() {
                    return true;
                }
                let fits = room > 0;
                room = room.saturating_sub(1);
                fits
            })
            .map(|(id, incarnation)| foca::Member::new(id, incarnation, State::Alive))
            .collect();
        let mut updates = updates.into_iter();
        // Whoever speaks may be news to everyone. The rest, the first time,
        // is news to nobody but us.
        self.apply(updates.by_ref().take(1), true);
        self.apply(updates, self.synced);
        self.synced = true;
        self.plan_sync();
        Ok(())
    }
}

// === impl Roster ===

impl Roster {
    #[cfg(test)]
    pub(in crate::gossip) fn forged(from: Id, members: Vec<(Id, u16)>) -> Self {
        Self {
            from,
            members,
            records: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(in crate::gossip) fn speaker(&self) -> &Id {
        &self.from
    }

    /// The address of the node that speaks.
    pub(in crate::gossip) fn addr(&self) -> SocketAddr {
        self.from.addr()
    }
}
