//! Where foca's effects go: what is to be sent, and when to wake it.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use bytes::Bytes;
use foca::{Notification, Timer};
use tokio::time::Instant;

use super::due::Due;
use crate::gossip::{identity::Id, timers::Timers, wire::Kind};

/// Where foca's effects go.
#[derive(Debug)]
pub(super) struct Effects {
    pub(super) now: Instant,
    pub(super) sends: VecDeque<Outgoing>,
    pub(super) timers: Timers<Due>,
    /// When to forget the members that are down, a day after the last word.
    /// One for each address: as timers they would pile up, for every
    /// identity that anybody ever declared down.
    pub(super) forget: BTreeMap<SocketAddr, (Instant, Id)>,
    /// foca took a new identity of itself.
    pub(super) rejoined: bool,
    /// Something happened by which foca may see a member differently.
    pub(super) stirred: bool,
}

/// Something to send, not yet in its envelope.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::gossip) struct Outgoing {
    pub(in crate::gossip) to: SocketAddr,
    pub(in crate::gossip) kind: Kind,
    pub(in crate::gossip) body: Bytes,
}

// === impl Effects ===

impl Effects {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            now,
            sends: VecDeque::new(),
            timers: Timers::new(),
            forget: BTreeMap::new(),
            rejoined: false,
            stirred: true,
        }
    }

    pub(super) fn set_timer(&mut self, after: Duration, due: Due) {
        self.timers.set(self.now + after, due);
    }
}

impl foca::Runtime<Id> for Effects {
    fn notify(&mut self, notification: Notification<'_, Id>) {
        // Members are told from foca's list instead, see `Table`.
        if let Notification::Rejoin(_) = notification {
            self.rejoined = true;
        }
    }

    fn send_to(&mut self, to: Id, data: &[u8]) {
        self.sends.push_back(Outgoing {
            to: to.addr(),
            kind: Kind::Foca,
            body: Bytes::copy_from_slice(data),
        });
    }

    fn submit_after(&mut self, event: Timer<Id>, after: Duration) {
        match event {
            Timer::RemoveDown(id) => {
                self.forget.insert(id.addr(), (self.now + after, id));
            }
            event => self.set_timer(after, Due::Foca(event)),
        }
    }
}
