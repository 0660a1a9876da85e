//! Requests that wait for a server to answer are told when it is given up.

use std::{
    cell::{Cell, RefCell},
    task::{Context, Waker},
    time::Duration,
};

use tokio::time::Instant;

use super::Upstreams;
use crate::pool::{Snapshot, Status, server::Cause};

/// How long a request that cannot be repeated waits at a server that gossip
/// has lost before it ends with 502.
const LAST_HOPE: Duration = Duration::from_secs(1);

/// What a connection is waited on for, and by which task.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Wait {
    stage: Cell<Stage>,
    task: RefCell<Option<Waker>>,
}

/// How far the request on a connection is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// There is none, or its answer has begun.
    #[default]
    Settled,
    /// It waits for its answer; it may be repeated elsewhere.
    WaitsRepeatable,
    /// It has waited for its answer since then; it may not be repeated.
    Waits(Instant),
    /// It waited for a server that was given up.
    Abandoned,
}

impl Upstreams {
    /// Hangs up on servers that gossip has lost, so that whoever waits for one
    /// is told at once: what may be repeated is tried elsewhere, the rest ends
    /// with 502 instead of in a timeout. On mere suspicion only what may be
    /// repeated is taken away, since the server may yet answer; and what may
    /// not be repeated gets a moment even from a server that is declared dead,
    /// since the word of it may come from someone else and be late.
    ///
    /// Nothing is taken from a server that is the last resort: there is no
    /// elsewhere.
    pub(super) fn rescue(&self, snapshot: &Snapshot, now: Instant) {
        let mut all = self.open.borrow_mut();
        for server in &snapshot.servers {
            let lost = match server.status {
                Status::Down(Cause::Silent) => true,
                Status::Suspect => false,
                _ => continue,
            };
            let hopeless = |stage| match stage {
                Stage::WaitsRepeatable => true,
                Stage::Waits(since) => lost && now - since >= LAST_HOPE,
                Stage::Settled | Stage::Abandoned => false,
            };
            let open = all.get_mut(&server.life);
            let (Some(open), false) = (open, snapshot.in_rotation(server.life)) else {
                continue;
            };
            open.retain(|connection| {
                let hang_up = hopeless(connection.stage.get());
                if hang_up {
                    connection.abandon();
                }
                !hang_up
            });
        }
    }
}

impl Wait {
    /// The request goes out, and its answer is waited for from now on.
    pub(in crate::proxy) fn begin(&self, repeatable: bool, now: Instant) {
        self.stage.set(if repeatable {
            Stage::WaitsRepeatable
        } else {
            Stage::Waits(now)
        });
    }

    /// The wait goes on in that task, which is woken should there be no hope.
    /// Says whether there is none.
    pub(in crate::proxy) fn is_abandoned(&self, cx: &Context<'_>) -> bool {
        if self.stage.get() == Stage::Abandoned {
            return true;
        }
        let mut waiting = self.task.borrow_mut();
        match &mut *waiting {
            Some(task) => task.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        false
    }

    /// The answer has begun.
    pub(in crate::proxy) fn end(&self) {
        self.stage.set(Stage::Settled);
    }

    fn abandon(&self) {
        self.stage.set(Stage::Abandoned);
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}
