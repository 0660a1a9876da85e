//! The pool: which servers there are and which of them may take a request.
//!
//! One writer task owns the truth ([`state::State`], pure) and publishes an
//! immutable [`Snapshot`]; everyone else reads the newest one without a lock.

mod entry;
mod quarantine;
pub mod queue;
pub mod rise_fall;
pub mod server;
pub mod snapshot;
pub mod standing;
pub mod state;
mod tally;
pub mod timeline;
pub mod transport;
pub(crate) mod warm_up;
mod words;
pub mod writer;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub use self::{
    server::{Server, Status},
    snapshot::Snapshot,
    state::Input,
    timeline::Timeline,
    writer::Writer,
};

/// The readers' end of the pool. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Reader {
    snapshot: Arc<ArcSwap<Snapshot>>,
    generation: watch::Receiver<u64>,
    timeline: Arc<Timeline>,
}

impl Reader {
    /// The newest snapshot.
    pub fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// What happened lately.
    pub fn timeline(&self) -> &Arc<Timeline> {
        &self.timeline
    }

    /// A reader that checks for news with one atomic load, for a worker that
    /// looks at the snapshot at every request.
    pub fn cached(&self) -> arc_swap::Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>> {
        arc_swap::Cache::new(Arc::clone(&self.snapshot))
    }

    /// Waits until there is a snapshot newer than `known`.
    ///
    /// Cancel safe. Never returns once the writer is gone.
    pub async fn newer_than(&mut self, known: &Snapshot) {
        let newer = self
            .generation
            .wait_for(|generation| *generation > known.generation);
        if newer.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until a snapshot newer than the last one waited for is there.
    ///
    /// Cancel safe. Never returns once the writer is gone: there is no news.
    pub async fn changed(&mut self) {
        if self.generation.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
