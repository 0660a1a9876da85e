//! What operators want, in records that every node keeps.

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;

use super::{
    Core, Life,
    answers::{Answer, CORRECTION_PAUSE},
    effects::Outgoing,
};
use crate::{
    gossip::{
        records::{self, MAX_RECORDS},
        wire::{DropReason, Kind},
    },
    membership::{Intent, Name, Version, Wish},
};

/// How often somebody is told which records we have, while there are any.
const DIGEST_PERIOD: Duration = Duration::from_secs(5);
/// Of records that a sync brings, so many are told on at once. More come from
/// a part of the cluster that was cut off; digests bring those everywhere
/// without filling every packet for a minute.
const MAX_TOLD_ON: usize = 64;

impl Core {
    /// Says what an operator wants of a server to everyone, this node too.
    pub(in crate::gossip) fn declare(
        &mut self,
        service: Name,
        server: Name,
        wish: Wish,
        now: Instant,
    ) {
        self.effects.now = now;
        if self.life != Life::Running {
            return;
        }
        self.wind_records();
        let intent = Intent {
            service,
            server,
            wish,
            version: Version {
                clock: self.records.lock().next_clock(),
                writer: self.foca.identity().addr(),
            },
        };
        self.tell_on(&intent);
        self.tell_all();
    }

    /// Takes over what operators want, as a peer knows it.
    pub(super) fn merge_records(&mut self, records: Vec<Intent>) {
        self.wind_records();
        let mut told_on = 0;
        for intent in records.into_iter().take(MAX_RECORDS) {
            // The first time it is news to nobody but us.
            if !self.synced || told_on == MAX_TOLD_ON {
                self.records.lock().offer(intent);
            } else if self.tell_on(&intent) {
                told_on += 1;
            }
        }
    }

    /// Takes a record over and broadcasts it, if it is new.
    fn tell_on(&mut self, intent: &Intent) -> bool {
        self.foca
            .add_broadcast(&records::encode(intent))
            .unwrap_or(false)
    }

    /// Tells somebody which records we have: broadcasts may get lost.
    pub(super) fn tell_digest(&mut self) {
        let now = self.effects.now;
        let (empty, digest) = {
            let records = self.records.lock();
            (records.is_empty(), records.digest())
        };
        if now < self.next_digest || empty {
            return;
        }
        let Some(to) = self.random_peer() else {
            return;
        };
        self.next_digest = now + DIGEST_PERIOD;
        let own = self.foca.identity().addr();
        let body = postcard::to_allocvec(&(own, digest)).unwrap_or_default();
        self.effects.sends.push_back(Outgoing {
            to,
            kind: Kind::Digest,
            body: body.into(),
        });
    }

    /// A member tells which records it has: if they are not ours, one of us
    /// missed something.
    pub(super) fn receive_digest(&mut self, body: &[u8]) -> Result<(), DropReason> {
        let (sender, digest): (SocketAddr, u64) =
            postcard::from_bytes(body).map_err(|_| DropReason::Malformed)?;
        let differs = digest != self.records.lock().digest();
        if differs
            && self.table.is_active(sender)
            // One for all: a roster is large, and who sends a digest may be
            // another than it says.
            && self.may_answer(self.foca.identity().addr(), Answer::Records, CORRECTION_PAUSE)
        {
            self.syncs.push_back(sender);
        }
        Ok(())
    }

    pub(super) fn wind_records(&mut self) {
        self.records.lock().set_clock(self.wall_clock());
    }

    #[cfg(test)]
    pub(in crate::gossip) fn records_digest(&self) -> u64 {
        self.records.lock().digest()
    }

    #[cfg(test)]
    pub(in crate::gossip) fn wishes(&self) -> Vec<Wish> {
        let records = self.records.lock().all();
        records.into_iter().map(|record| record.wish).collect()
    }
}
