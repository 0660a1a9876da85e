//! A request's way through the balancer: choose a server, send, and if that
//! fails and may be repeated, choose another.

use std::{future::poll_fn, pin::pin, rc::Rc, sync::Arc, task::Poll, time::Duration};

use http::Method;
use tokio::time::{Instant, timeout_at};
use tower::retry::budget::Budget;

use super::{
    Worker,
    body::Body,
    connection::{Asked, Client, Wire},
    conversation::{Conversation, Stop, gone},
    error::{Asker, Error},
    exchange::{Affinity, Exchange},
    explain::Why,
    pieces::{self, Taker},
    retry::{Sent, may_repeat},
    turn::{Line, Turn},
    upgrade::Tunnel,
    upstream::{Failure, FailureKind, IMPATIENT, Lease},
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

/// What becomes of the connection behind a request.
#[derive(Debug)]
pub(super) enum After {
    /// The next request may come.
    Next,
    /// It is closed, and the client may still be sending.
    Close,
    /// It is closed: the client is gone, or knows that nothing more comes.
    Gone,
    /// It carries another protocol.
    Tunnel(Box<Tunnel>),
    /// Its client speaks HTTP/2.
    Http2,
}

/// Answers one request.
pub(super) async fn answer(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    wire: &mut Wire,
    mut asked: Asked,
) -> After {
    let mut exchange = Exchange::begin(worker, client, &mut asked);
    let refused = worker.exceeds_rate(&asked, client);
    let mut body = Body::new(asked.length);
    worker.budget.deposit();
    let mut conversation = Conversation {
        worker,
        client,
        asked: &asked,
        wire,
        body: &mut body,
        exchange: &mut exchange,
        again: Vec::new(),
    };
    let forwarded = match refused {
        None => forward(&mut conversation).await,
        Some(error) => Err(Stop::Error(error)),
    };
    let error = match forwarded {
        Ok(Forwarded::Whole(after)) => return after,
        Ok(Forwarded::Switched(lease)) => {
            let closing = worker.upstreams.open_tunnel(lease.server().life);
            let (server, counted) = lease.give_away();
            let tunnel = Tunnel::new(server, counted, closing, exchange);
            return After::Tunnel(Box::new(tunnel));
        }
        Err(Stop::ClientGone) => return After::Gone,
        Err(Stop::BrokenOff(how)) => {
            exchange.finish(how);
            return After::Close;
        }
        Err(Stop::Error(error)) => error,
    };
    exchange.fail(error);
    // A body that is there already need not end the connection.
    let keep_alive = !error.ends_connection()
        && body.skip(&mut wire.input)
        && client.may_ask_again(worker, &asked);
    let why = worker.why(&exchange);
    let asker = Asker {
        version: asked.version,
        head_only: asked.method == Method::HEAD,
        keep_alive,
        why: why.as_deref(),
        location: asked
            .redirect
            .as_deref()
            .filter(|_| error == Error::NotSecure),
        hsts: client.hsts(worker),
    };
    let mut answer = Vec::new();
    let head = error.write(&mut answer, &asker);
    exchange.begin_own_response(head as u64);
    exchange.add_bytes_out((answer.len() - head) as u64);
    let (_, mut to) = wire.stream.split();
    let written = pieces::write(&mut to, &mut answer, b"", b"", Taker::Client(&client.watch)).await;
    match written {
        Ok(()) if keep_alive => After::Next,
        Ok(()) => After::Close,
        Err(_) => After::Gone,
    }
}

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
    left: u32,
    pub(super) line: Line,
}

async fn forward(conversation: &mut Conversation<'_>) -> Result<Forwarded, Stop> {
    let Conversation { worker, asked, .. } = *conversation;
    if asked.redirect.is_some() {
        return Err(Stop::Error(Error::NotSecure));
    }
    let has_body = !conversation.body.is_over();
    let repeatable = may_repeat(Sent::Perhaps, &asked.method, has_body);
    let mut attempts = Attempts {
        worker,
        cookie: asked.cookie.as_deref(),
        tried: Tried::default(),
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
        if !attempts.may_go_on(&failure, &asked.method, has_body) {
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
        exchange.leave_place();
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
        if let Some(idle) = upstreams.reuse(server, repeatable, conversation.client.watch.now()) {
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
            FailureKind::Broken => self.worker.report(server, Fault::Broken),
            FailureKind::ConnectTimeout
            | FailureKind::Handshake
            | FailureKind::Exhausted
            | FailureKind::Malformed
            | FailureKind::ResponseTimeout
            | FailureKind::Abandoned => {}
        }
        // An idle connection that turns out to be closed is no fault of the
        // server's: it may well be the only one there is.
        if !failure.reused {
            self.tried.add(server.life);
        }
    }

    fn may_go_on(&mut self, failure: &Failure, method: &Method, has_body: bool) -> bool {
        let Some(left) = self.left.checked_sub(1) else {
            return false;
        };
        self.left = left;
        // A server that is slow or talks nonsense would only do so twice.
        let pointless = matches!(
            failure.kind,
            FailureKind::ResponseTimeout | FailureKind::Malformed
        );
        let allowed = !pointless && may_repeat(failure.sent, method, has_body);
        allowed && (failure.sent == Sent::Nothing || self.worker.budget.withdraw())
    }
}

impl From<FailureKind> for Error {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Refused => Self::ConnectFailed,
            FailureKind::Handshake => Self::HandshakeFailed,
            FailureKind::ConnectTimeout => Self::ConnectTimeout,
            FailureKind::Exhausted => Self::Exhausted,
            FailureKind::Broken => Self::ServerAbort,
            FailureKind::Malformed => Self::BadResponse,
            FailureKind::Abandoned => Self::ServerLost,
            FailureKind::ResponseTimeout => Self::ResponseTimeout,
        }
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

    /// Whether the client's source asks more than it may.
    fn exceeds_rate(&self, asked: &Asked, client: &Client) -> Option<Error> {
        let limit = self.rate_limit.as_ref()?;
        let wait = limit.take(asked.source, client.watch.now()).err()?;
        self.ledger.all().denied.inc();
        Some(Error::TooManyRequests(wait))
    }

    /// Why the request went where it went, where the response is to say so
    /// (`--explain`).
    pub(super) fn why(&self, exchange: &Exchange) -> Option<String> {
        let why = exchange
            .why()
            .filter(|_| self.settings.explain)?
            .to_string();
        let is_text = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        // It quotes the client.
        why.bytes().all(is_text).then_some(why)
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
