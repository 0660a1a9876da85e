//! Where a worker counts: its own part of every server's figures and of the
//! totals.

use std::sync::Arc;

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

    /// Adds one to a figure of the server, and to the same figure of them all.
    pub(super) fn inc(&self, server: &Live, which: fn(&Traffic) -> &OwnCounter) {
        which(&self.server(server).traffic).inc();
        which(&self.all().traffic).inc();
    }
}
