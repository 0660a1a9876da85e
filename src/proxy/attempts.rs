//! A request's way to a server: choose one, send, and if that fails and may be
//! repeated, choose another.

use std::{future::poll_fn, pin::pin, rc::Rc, sync::Arc, task::Poll, time::Duration};

use http::Method;
use tokio::time::{Instant, timeout_at};
use tower::retry::budget::Budget;

use super::{
    Worker,
    connection::Wire,
    conversation::{Conversation, Stop, gone},
    error::Error,
    exchange::{Affinity, Exchange},
    explain::Why,
    retry::{Sent, may_repeat},
    service::After,
    turn::{Line, Turn},
    upstream::{Failure, FailureKind, Lease},
};
use crate::{
    balance::{self, Tried},
    counters::Gauge,
    pool::{Server, Snapshot, state::Fault},
};

/// How long a request that finds no server waits for one to come back, and
/// how long it lets a server rest that failed it while there is no other.
/// `HAProxy` waits as long between attempts at one server.
const TURN_AROUND: Duration = Duration::from_secs(1);

/// How fresh the loss of a server must be for a request to wait for its
/// return: in a pool that has long been empty nobody should wait.
const RECENT_LOSS: Duration = Duration::from_secs(5);

/// How long a server may take to accept while there are others to ask. On a
/// network where servers gossip with each other an answer takes milliseconds;
/// an address that has vanished gives none at all.
const IMPATIENT: Duration = Duration::from_millis(250);

/// How many servers may refuse a request before refusals count as attempts: a
/// pool of thousands that is dead as a whole is not asked through.
const REFUSALS: usize = 16;

/// How a request was answered by a server.
#[derive(Debug)]
pub(super) enum Forwarded {
    /// By a response that has gone to the client.
    Whole(After),
    /// By 101, which has gone to the client.
    Switched(Lease),
}

/// What of a request outlives an attempt.
pub(super) struct Attempts<'a> {
    pub(super) worker: &'a Rc<Worker>,
    cookie: Option<&'a str>,
    pub(super) tried: Tried,
    /// Servers whose idle connections turned out to be closed: where one is,
    /// all may be, and each would cost the request another attempt.
    stale: Tried,
    left: u32,
    pub(super) line: Line,
}

/// Has a server answer, and another one where that fails and may be repeated.
pub(super) async fn forward(conversation: &mut Conversation<'_>) -> Result<Forwarded, Stop> {
    let Conversation { worker, asked, .. } = *conversation;
    let has_body = !conversation.body.is_over();
    let repeatable = may_repeat(Sent::Perhaps, &asked.method, has_body);
    let mut attempts = Attempts {
        worker,
        cookie: asked.cookie.as_deref(),
        tried: Tried::default(),
        stale: Tried::default(),
        left: worker.settings.retries,
        line: Line::default(),
    };
    loop {
        let exchange = &mut *conversation.exchange;
        let server = unless_gone(conversation.wire, attempts.choose(exchange)).await??;
        let failure = loop {
            match attempts.lease(conversation, &server, repeatable).await? {
                Ok(lease) => match conversation.hold(lease, repeatable).await? {
                    Ok(forwarded) => return Ok(forwarded),
                    // It was closed while it was idle, which is no attempt.
                    Err(failure) if failure.reused && failure.sent == Sent::Nothing => {}
                    Err(failure) => break failure,
                },
                Err(failure) => break failure,
            }
        };
        conversation.exchange.not_answered(failure.connect_time);
        attempts.note(&server, &failure);
        if !attempts.may_go_on(&server, &failure, &asked.method, has_body) {
            return Err(Stop::Error(failure.kind.into()));
        }
    }
}

/// Goes on for as long as the client is there.
async fn unless_gone<T>(wire: &mut Wire, what: impl Future<Output = T>) -> Result<T, Stop> {
    let mut what = pin!(what);
    let (mut from, _) = wire.stream.split();
    let mut gone = pin!(gone(&mut from, &mut wire.input));
    poll_fn(|cx| {
        if let Poll::Ready(done) = what.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        gone.as_mut().poll(cx).map(|()| Err(Stop::ClientGone))
    })
    .await
}

impl Attempts<'_> {
    /// The server that the cookie names if it is there for its users, or the
    /// one whose turn it is.
    async fn choose(&mut self, exchange: &mut Exchange) -> Result<Arc<Server>, Error> {
        exchange.leave();
        let mut give_up = None;
        loop {
            let snapshot = self.worker.snapshot();
            let (mut server, affinity) = match self.sticky(&snapshot) {
                Ok(server) => (Some(server), Affinity::Valid),
                Err(affinity) if snapshot.is_limited => (None, affinity),
                Err(affinity) => (self.worker.pick(&snapshot, &self.tried), affinity),
            };
            exchange.set_affinity(affinity);
            if snapshot.is_limited {
                // Behind a pointer: few pools are.
                let place = self.take_place(&snapshot, server.as_ref(), exchange);
                server = match Box::pin(place).await? {
                    Turn::To(server) => Some(server),
                    Turn::Nowhere => None,
                    Turn::ChooseAgain => continue,
                };
            }
            if server.is_some() || self.waits_in_vain(&snapshot, give_up) {
                if self.worker.explains {
                    let chosen = server.as_deref();
                    exchange.explain(self.why(snapshot, chosen, affinity, exchange.attempts()));
                }
                let server = server.ok_or(Error::NoServer)?;
                let waited = give_up.is_some() || self.line.has_waited();
                exchange.attempt(&server, affinity != Affinity::Valid, waited);
                return Ok(server);
            }
            let give_up = *give_up.get_or_insert_with(|| Instant::now() + TURN_AROUND);
            self.worker.wait_for_change(&snapshot, give_up).await;
            self.tried.clear();
        }
    }

    fn why(
        &self,
        snapshot: Arc<Snapshot>,
        chosen: Option<&Server>,
        affinity: Affinity,
        before: u32,
    ) -> Why {
        Why {
            snapshot,
            at: Instant::now(),
            algorithm: self.worker.settings.balance,
            affinity,
            cookie: self.cookie.map(str::to_owned),
            chosen: chosen.map(|server| server.life),
            tried: self.tried.lives().to_vec(),
            attempt: before + 1,
        }
    }

    fn sticky(&self, snapshot: &Snapshot) -> Result<Arc<Server>, Affinity> {
        if self.worker.settings.cookie.is_none() {
            return Err(Affinity::Off);
        }
        let Some(cookie) = self.cookie else {
            return Err(Affinity::New);
        };
        match snapshot.by_name(cookie) {
            None => Err(Affinity::Invalid),
            Some(server) if server.keeps_users() && !self.tried.contains(server.life) => {
                Ok(Arc::clone(server))
            }
            Some(_) => Err(Affinity::Down),
        }
    }

    /// Whether there is no hope of a server, or has been none for long enough.
    fn waits_in_vain(&self, snapshot: &Snapshot, give_up: Option<Instant>) -> bool {
        let lately = |at: Instant| at.elapsed() < RECENT_LOSS;
        let rested = || give_up.is_some_and(|give_up| Instant::now() >= give_up);
        self.tried.is_empty() && (!snapshot.last_loss.is_some_and(lately) || rested())
    }

    /// A connection to the server: an idle one, or else a new one.
    async fn lease(
        &self,
        conversation: &mut Conversation<'_>,
        server: &Arc<Server>,
        repeatable: bool,
    ) -> Result<Result<Lease, Failure>, Stop> {
        let Some(addr) = server.addr else {
            return Ok(Err(Failure::to_connect(FailureKind::ConnectTimeout)));
        };
        let upstreams = &self.worker.upstreams;
        if !self.stale.contains(server.life)
            && let Some(idle) = upstreams.reuse(server, repeatable, conversation.client.watch.now())
        {
            return Ok(Ok(idle));
        }
        let limit = self.worker.settings.timeouts.connect;
        let others = self.left > 0 && self.worker.has_other(server, &self.tried);
        let patience = if others { limit.min(IMPATIENT) } else { limit };
        let connecting = Box::pin(upstreams.connect(server, addr, conversation.client, patience));
        let connected = unless_gone(conversation.wire, connecting).await?;
        Ok(connected.map_err(Failure::to_connect))
    }

    /// Counts a failure where it belongs, and tells the pool.
    fn note(&mut self, server: &Server, failure: &Failure) {
        let count = |which| self.worker.ledger.inc(&server.live, which);
        match failure.kind {
            FailureKind::Refused
            | FailureKind::Handshake
            | FailureKind::ConnectTimeout
            | FailureKind::Exhausted => {
                count(|t| &t.connect_errors);
            }
            FailureKind::Broken | FailureKind::Malformed | FailureKind::ResponseTimeout => {
                count(|t| &t.response_errors);
            }
            FailureKind::Abandoned => {
                count(|t| &t.response_errors);
                count(|t| &t.rescues);
            }
        }
        match failure.kind {
            FailureKind::Refused => self.worker.report(server, Fault::Refused),
            // A look shows whether it is so for everybody.
            FailureKind::Broken | FailureKind::Handshake => {
                self.worker.report(server, Fault::Broken);
            }
            // It may well accept, and make no TLS.
            FailureKind::ConnectTimeout if server.transport.tls => {
                self.worker.report(server, Fault::Broken);
            }
            FailureKind::ConnectTimeout
            | FailureKind::Exhausted
            | FailureKind::Malformed
            | FailureKind::ResponseTimeout
            | FailureKind::Abandoned => {}
        }
        // An idle connection that turns out to be closed is no fault of the
        // server's: it may well be the only one there is.
        if failure.reused {
            self.stale.add(server.life);
        } else {
            self.tried.add(server.life);
        }
    }

    fn may_go_on(
        &mut self,
        server: &Server,
        failure: &Failure,
        method: &Method,
        has_body: bool,
    ) -> bool {
        if !self.costs_nothing(server, failure) {
            let Some(left) = self.left.checked_sub(1) else {
                return false;
            };
            self.left = left;
        }
        // A server that is slow or talks nonsense would only do so twice.
        let pointless = matches!(
            failure.kind,
            FailureKind::ResponseTimeout | FailureKind::Malformed
        );
        let allowed = !pointless && may_repeat(failure.sent, method, has_body);
        allowed && (failure.sent == Sent::Nothing || self.worker.budget.withdraw())
    }

    /// Whether a failure is none of the attempts that `--retries` allows. An
    /// idle connection that was closed says nothing of its server, and comes
    /// once a server. A refusal takes no time, and where half of a pool is
    /// killed at once a request may well meet several before it meets a
    /// server that lives.
    fn costs_nothing(&self, server: &Server, failure: &Failure) -> bool {
        let few = self.tried.lives().len() < REFUSALS;
        let refused = failure.kind == FailureKind::Refused && few;
        let goes_on = failure.reused || refused && self.worker.has_other(server, &self.tried);
        goes_on && self.left > 0
    }
}

impl Worker {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(self.pool.borrow_mut().load())
    }

    fn pick(&self, snapshot: &Snapshot, tried: &Tried) -> Option<Arc<Server>> {
        let rng = &mut *self.rng.borrow_mut();
        balance::pick(self.settings.balance, snapshot, tried, rng)
    }

    /// Whether a request that `server` does not take could go elsewhere.
    fn has_other(&self, server: &Server, tried: &Tried) -> bool {
        // Only looked at: a clone would be two writes to a count that all
        // workers share.
        let mut pool = self.pool.borrow_mut();
        let snapshot = pool.load();
        snapshot.schedule.iter().any(|index| {
            let other = snapshot.get(*index);
            other.is_some_and(|other| other.life != server.life && !tried.contains(other.life))
        })
    }

    async fn wait_for_change(&self, known: &Snapshot, give_up: Instant) {
        let _waiting = Waits::count(&self.ledger.shared().backend.waiting);
        let mut pool = self.reader.clone();
        timeout_at(give_up, pool.newer_than(known)).await.ok();
    }

    fn report(&self, server: &Server, fault: Fault) {
        if self.settings.observe && server.faults.claim() {
            let input = crate::pool::Input::Fault(server.life, fault);
            // A full queue means that the writer is busy; the next request
            // that meets the fault reports it again.
            if self.inputs.try_send(input).is_err() {
                server.faults.release();
            } else {
                self.ledger.server(&server.live).observed_faults.inc();
            }
        }
    }
}

/// Counts a request for as long as it waits for a server, even if its client
/// goes meanwhile.
pub(super) struct Waits<'a>(&'a Gauge);

impl<'a> Waits<'a> {
    pub(super) fn count(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
