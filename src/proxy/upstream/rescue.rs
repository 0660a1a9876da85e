//! Requests that wait for a server to answer are told when it is given up.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

use tokio::time::Instant;

use crate::pool::{
    Snapshot, Status,
    server::{Cause, Life},
};

/// How long a request that cannot be repeated waits at a server that gossip
/// has lost before it ends with 502.
const LAST_HOPE: Duration = Duration::from_secs(1);

/// A worker's open connections, as far as somebody may wait on them.
#[derive(Debug, Default)]
pub(super) struct Rescue(RefCell<HashMap<Life, Vec<Rc<Wait>>>>);

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

impl Rescue {
    /// A connection to that life of a server is there.
    pub(super) fn enter(&self, life: Life) -> Rc<Wait> {
        let wait = Rc::new(Wait::default());
        let mut open = self.0.borrow_mut();
        open.entry(life).or_default().push(Rc::clone(&wait));
        wait
    }

    /// Hangs up on servers that gossip has lost, so that whoever waits for one
    /// is told at once: what may be repeated is tried elsewhere, the rest ends
    /// with 502 instead of in a timeout. On mere suspicion only what may be
    /// repeated is taken away, since the server may yet answer; and what may
    /// not be repeated gets a moment even from a server that is declared dead,
    /// since the word of it may come from someone else and be late.
    ///
    /// Nothing is taken from a server that is the last resort: there is no
    /// elsewhere.
    pub(super) fn follow(&self, snapshot: &Snapshot, now: Instant) {
        let mut all = self.0.borrow_mut();
        for server in &snapshot.servers {
            let lost = match server.status {
                Status::Down(Cause::Silent) => true,
                Status::Suspect => false,
                _ => continue,
            };
            let open = all.get_mut(&server.life);
            let (Some(open), false) = (open, snapshot.in_rotation(server.life)) else {
                continue;
            };
            open.retain(|connection| {
                let hang_up = connection.stage.get().is_hopeless(lost, now);
                if hang_up {
                    connection.abandon();
                }
                !hang_up
            });
        }
    }

    /// Forgets connections that only this knows of: they are closed.
    pub(super) fn expire(&self) {
        self.0.borrow_mut().retain(|_, open| {
            open.retain(|connection| Rc::strong_count(connection) > 1);
            !open.is_empty()
        });
    }
}

impl Stage {
    /// Whether nothing is to be expected of a server that is suspected, or
    /// `lost`.
    fn is_hopeless(self, lost: bool, now: Instant) -> bool {
        match self {
            Self::WaitsRepeatable => true,
            Self::Waits(since) => lost && now - since >= LAST_HOPE,
            Self::Settled | Self::Abandoned => false,
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
