//! Where a worker counts: its own part of every server's figures and of the
//! totals.

use std::sync::Arc;

use super::control::Clearing;
use crate::{
    counters::{OwnCounter, ServerTally, Slot, TotalTally, Totals, Traffic},
    pool::server::Live,
};

/// A worker's own part of the figures.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    worker: Slot,
    totals: Arc<Totals>,
}

impl Ledger {
    /// The part of `worker`.
    pub(super) fn new(worker: Slot, totals: Arc<Totals>) -> Self {
        Self { worker, totals }
    }

    /// What all workers share.
    pub(super) fn shared(&self) -> &Totals {
        &self.totals
    }

    /// What this worker counts of all requests.
    pub(super) fn all(&self) -> &TotalTally {
        self.totals.of(self.worker)
    }

    /// What this worker counts of one server.
    pub(super) fn server<'a>(&self, server: &'a Live) -> &'a ServerTally {
        server.counters.of(self.worker)
    }

    /// Forgets this worker's part of the figures that are meant.
    pub(super) fn forget(&self, clearing: &Clearing) {
        let Clearing {
            what,
            servers,
            totals,
        } = clearing;
        for server in servers.iter() {
            server.counters.forget_own(self.worker, *what);
        }
        if *totals {
            self.totals.forget_own(self.worker, *what);
        }
    }

    /// Adds one to a figure of the server, and to the same figure of them all.
    pub(super) fn inc(&self, server: &Live, which: fn(&Traffic) -> &OwnCounter) {
        which(&self.server(server).traffic).inc();
        which(&self.all().traffic).inc();
    }
}
