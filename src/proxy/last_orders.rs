//! The word to drain.

use std::{cell::Cell, time::Duration};

use tokio::{sync::Notify, time::sleep};

/// How long a connection that has asked nothing yet may still begin to, once
/// the word to drain is given: its client has just connected, or never asks.
pub(super) const LAST_CHANCE: Duration = Duration::from_secs(1);

/// The word to drain as a worker's connections hear it: a look at it costs
/// nothing, where one at the process's takes a lock that workers share.
#[derive(Debug, Default)]
pub(super) struct LastOrders {
    pub(super) called: Cell<bool>,
    pub(super) bell: Notify,
}

impl LastOrders {
    /// Gives the word.
    pub(super) fn call(&self) {
        self.called.set(true);
        self.bell.notify_waiters();
    }

    /// Until it is too late for who is not done with what comes before the
    /// first request.
    pub(super) async fn too_late(&self) {
        let notified = self.bell.notified();
        if !self.called.get() {
            notified.await;
        }
        sleep(LAST_CHANCE).await;
    }
}
