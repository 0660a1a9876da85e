//! A request's way through the balancer: choose a server, send, and if that
//! fails and may be repeated, choose another.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request,
};
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};
use tower::retry::budget::Budget;

use super::{
    Worker,
    body::{Progress, RequestBody, ResponseBody},
    control::Talk,
    error::Error,
    exchange::{Affinity, CookieSent, Exchange},
    explain::Why,
    headers,
    retry::{Sent, may_repeat},
    upgrade::Tunnel,
    upstream::{Answer, Failure, FailureKind, IMPATIENT},
    watch::Watch,
};
use crate::{
    balance::{self, Tried, sticky},
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

/// A client connection, as its requests see it.
#[derive(Debug)]
pub(super) struct Client {
    /// The client's address.
    pub(super) peer: SocketAddr,
    /// What servers are told of it.
    pub(super) origin: headers::Origin,
    /// What the connection waits for.
    pub(super) watch: Rc<Watch>,
    /// What operators see of it.
    pub(super) talk: Rc<Talk>,
    /// Set by a request that was answered by 101: what the connection becomes.
    pub(super) tunnel: std::cell::RefCell<Option<Tunnel>>,
}

/// Answers one request.
pub(super) async fn handle(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let mut response = answer(&worker, &client, request).await;
    // Looked up only now: the end may have come near meanwhile.
    if worker.ending.load(Relaxed) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

async fn answer(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let mut exchange = Exchange::begin(worker, client, &request);
    match forward(worker, client, request, &mut exchange).await {
        Ok(forwarded) => forwarded.into_response(worker, client, exchange),
        Err(error) => {
            exchange.fail(error);
            let (mut head, text) = error.response().into_parts();
            worker.tell_why(&mut head.headers, &exchange);
            exchange.begin_own_response(headers::wire_size(&head.headers, FIRST_LINE));
            Response::from_parts(head, ResponseBody::own(text, exchange))
        }
    }
}

/// `HTTP/1.1 200 OK` and the end of the line.
const FIRST_LINE: usize = 17;

/// A server's answer with all that is needed to pass it on.
struct Forwarded {
    answer: Answer,
    method: Method,
    server: Arc<Server>,
    upgrade: bool,
    progress: Option<Rc<Progress>>,
}

/// What of a request outlives an attempt.
struct Attempts<'a> {
    worker: &'a Rc<Worker>,
    watch: &'a Rc<Watch>,
    cookie: Option<String>,
    tried: Tried,
    left: u32,
}

async fn forward(
    worker: &Rc<Worker>,
    client: &Client,
    request: Request<Incoming>,
    exchange: &mut Exchange,
) -> Result<Forwarded, Error> {
    let (mut head, body) = request.into_parts();
    let has_body = !body.is_end_stream();
    headers::check(&head, has_body)?;
    let cookie_name = worker.settings.cookie.as_deref();
    let cookie = cookie_name.and_then(|name| sticky::take(&mut head.headers, name));
    let upgrade = headers::prepare_request(&mut head, &client.origin);
    exchange.prepared(&head);
    let method = head.method.clone();
    let repeatable = may_repeat(Sent::Perhaps, &method, has_body);

    let (body, progress) = request_body(body, has_body, &client.watch);
    let spare = repeatable.then(|| copy(&head));
    let mut request = Some(Request::from_parts(head, body));
    let mut attempts = Attempts {
        worker,
        watch: &client.watch,
        cookie,
        tried: Tried::default(),
        left: worker.settings.retries,
    };
    worker.budget.deposit();
    loop {
        let server = attempts.choose(exchange).await?;
        let Some(next) = request.take().or_else(|| spare.as_ref().map(again)) else {
            return Err(Error::ServerAbort);
        };
        match attempts.send(&server, next, repeatable).await {
            Ok(answer) => {
                exchange.connected(answer.connect_time);
                let forwarded = Forwarded {
                    answer,
                    method,
                    server,
                    upgrade,
                    progress,
                };
                return forwarded.checked(worker, exchange);
            }
            Err(failure) if progress.as_ref().is_some_and(|p| p.broken()) => {
                exchange.not_answered(failure.connect_time);
                return Err(Error::ClientAbort);
            }
            Err(failure) => {
                exchange.not_answered(failure.connect_time);
                attempts.note(&server, &failure);
                if !attempts.may_go_on(&failure, &method, has_body) {
                    return Err(failure.kind.into());
                }
                request = failure.request;
            }
        }
    }
}

fn request_body(
    body: Incoming,
    has_body: bool,
    watch: &Rc<Watch>,
) -> (RequestBody, Option<Rc<Progress>>) {
    if !has_body {
        return (RequestBody::Empty, None);
    }
    let progress = Rc::<Progress>::default();
    let body = RequestBody::Client {
        body,
        watch: Rc::clone(watch),
        progress: Rc::clone(&progress),
    };
    (body, Some(progress))
}

fn copy(head: &request::Parts) -> Request<()> {
    let mut copy = Request::new(());
    *copy.method_mut() = head.method.clone();
    *copy.uri_mut() = head.uri.clone();
    *copy.headers_mut() = head.headers.clone();
    copy
}

fn again(spare: &Request<()>) -> Request<RequestBody> {
    let (head, ()) = spare.clone().into_parts();
    Request::from_parts(head, RequestBody::Empty)
}

impl Attempts<'_> {
    /// The server that the cookie names if it is there for its users, or the
    /// one whose turn it is.
    async fn choose(&mut self, exchange: &mut Exchange) -> Result<Arc<Server>, Error> {
        let mut give_up = None;
        loop {
            let snapshot = self.worker.snapshot();
            let (server, affinity) = match self.sticky(&snapshot) {
                Ok(server) => (Some(server), Affinity::Valid),
                Err(affinity) => (self.worker.pick(&snapshot, &self.tried), affinity),
            };
            exchange.set_affinity(affinity);
            if server.is_some() || self.waits_in_vain(&snapshot, give_up) {
                if self.worker.explains {
                    let chosen = server.as_deref();
                    exchange.explain(self.why(snapshot, chosen, affinity, exchange.attempts()));
                }
                let server = server.ok_or(Error::NoServer)?;
                exchange.attempt(&server, affinity != Affinity::Valid, give_up.is_some());
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
            cookie: self.cookie.clone(),
            chosen: chosen.map(|server| server.life),
            tried: self.tried.lives().to_vec(),
            attempt: before + 1,
        }
    }

    fn sticky(&self, snapshot: &Snapshot) -> Result<Arc<Server>, Affinity> {
        if self.worker.settings.cookie.is_none() {
            return Err(Affinity::Off);
        }
        let Some(cookie) = &self.cookie else {
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

    async fn send(
        &self,
        server: &Arc<Server>,
        request: Request<RequestBody>,
        repeatable: bool,
    ) -> Result<Answer, Failure> {
        let Some(addr) = server.addr else {
            return Err(Failure::unreachable(request));
        };
        let limit = self.worker.settings.timeouts.connect;
        let others = self.left > 0 && self.worker.has_other(server, &self.tried);
        let patience = if others { limit.min(IMPATIENT) } else { limit };
        let upstreams = &self.worker.upstreams;
        upstreams
            .send(server, addr, request, repeatable, patience, self.watch)
            .await
    }

    /// Counts a failure where it belongs, and tells the pool.
    fn note(&mut self, server: &Server, failure: &Failure) {
        let count = |which| self.worker.ledger.inc(&server.live, which);
        match failure.kind {
            FailureKind::Refused | FailureKind::ConnectTimeout | FailureKind::Exhausted => {
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

impl Failure {
    fn unreachable(request: Request<RequestBody>) -> Self {
        Self {
            kind: FailureKind::ConnectTimeout,
            sent: Sent::Nothing,
            request: Some(request),
            connect_time: None,
            reused: false,
        }
    }
}

impl From<FailureKind> for Error {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Refused => Self::ConnectFailed,
            FailureKind::ConnectTimeout => Self::ConnectTimeout,
            FailureKind::Exhausted => Self::Exhausted,
            FailureKind::Broken => Self::ServerAbort,
            FailureKind::Malformed => Self::BadResponse,
            FailureKind::Abandoned => Self::ServerLost,
            FailureKind::ResponseTimeout => Self::ResponseTimeout,
        }
    }
}

impl Forwarded {
    /// Refuses an answer that makes no sense to the client.
    fn checked(self, worker: &Worker, exchange: &mut Exchange) -> Result<Self, Error> {
        let response = &self.answer.response;
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let unreadable = headers::check_coding(response.headers()).is_err();
        if (switched && !self.upgrade) || unreadable {
            let refused = &self.server.live;
            worker
                .ledger
                .inc(refused, |traffic| &traffic.response_errors);
            return Err(Error::BadResponse);
        }
        exchange.responded(response.status(), self.answer.response_time);
        Ok(self)
    }

    fn into_response(
        self,
        worker: &Rc<Worker>,
        client: &Client,
        mut exchange: Box<Exchange>,
    ) -> Response<ResponseBody> {
        let Answer {
            mut response,
            mut lease,
            ..
        } = self.answer;
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let upgraded = switched.then(|| hyper::upgrade::on(&mut response));
        let (mut head, body) = response.into_parts();
        let received = headers::wire_size(&head.headers, FIRST_LINE);
        lease.keep_alive(headers::prepare_response(&mut head));
        if let Some(name) = &worker.settings.cookie {
            let stripped = sticky::strip(&mut head.headers, name);
            if exchange.affinity() != Affinity::Valid {
                let server = self.server.name.as_str();
                sticky::insert(&mut head.headers, name, server, &self.method, head.status);
                exchange.set_cookie_sent(CookieSent::Inserted);
            } else if stripped {
                exchange.set_cookie_sent(CookieSent::Deleted);
            }
        }
        worker.tell_why(&mut head.headers, &exchange);
        exchange.begin_response(headers::wire_size(&head.headers, FIRST_LINE), received);
        let body = if let Some(upgraded) = upgraded {
            let counted = lease.give_away();
            let closing = worker.upstreams.open_tunnel(self.server.life);
            let tunnel = Tunnel::new((upgraded, counted), closing, exchange);
            client.tunnel.replace(Some(tunnel));
            ResponseBody::none()
        } else {
            let watch = Rc::clone(&client.watch);
            ResponseBody::server(body, lease, self.progress, watch, exchange)
        };
        Response::from_parts(head, body)
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

    /// Says why in the response (`--explain`).
    fn tell_why(&self, headers: &mut HeaderMap, exchange: &Exchange) {
        if self.settings.explain
            && let Some(why) = exchange.why()
            && let Ok(why) = HeaderValue::try_from(why.to_string())
        {
            headers.insert(HeaderName::from_static("x-lb-why"), why);
        }
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
struct Waits<'a>(&'a Gauge);

impl<'a> Waits<'a> {
    fn count(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
