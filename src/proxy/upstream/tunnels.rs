//! Tunnels are closed when their server leaves.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
};

use tokio_util::sync::CancellationToken;

use crate::pool::{Snapshot, server::Life};

/// The servers that a worker's tunnels lead to. Cancelled: the server has
/// left.
#[derive(Debug, Default)]
pub(super) struct Tunnels(RefCell<HashMap<Life, CancellationToken>>);

impl Tunnels {
    /// A tunnel to that life of a server is there; cancelled when it is to end.
    pub(super) fn open(&self, life: Life) -> CancellationToken {
        self.0.borrow_mut().entry(life).or_default().clone()
    }

    /// Closes tunnels to servers that have left: a tunnel may have no end of
    /// its own, and the server has given its users all the time it had.
    pub(super) fn follow(&self, snapshot: &Snapshot) {
        let mut all = self.0.borrow_mut();
        if all.is_empty() {
            return;
        }
        let there: HashSet<Life> = snapshot.servers.iter().map(|server| server.life).collect();
        all.retain(|life, closing| {
            let stays = there.contains(life);
            if !stays {
                closing.cancel();
            }
            stays
        });
    }
}
