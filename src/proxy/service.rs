//! A request's way through the balancer: choose a server, send, and if that
//! fails and may be repeated, choose another.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, request};
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};
use tower::retry::budget::Budget;

use super::{
    Worker,
    body::{Progress, RequestBody, ResponseBody},
    control::Talk,
    error::Error,
    exchange::{Affinity, Exchange},
    headers,
    retry::{Sent, may_repeat},
    upgrade::Tunnel,
    upstream::{Answer, Failure, FailureKind, IMPATIENT},
    watch::Watch,
};
use crate::{
    balance::{self, Tried, sticky},
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
    /// The address it connected to.
    pub(super) local: SocketAddr,
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
    let mut exchange = Exchange::begin(&worker, &client, &request);
    match forward(&worker, &client, request, &mut exchange).await {
        Ok(forwarded) => forwarded.into_response(&worker, &client, exchange),
        Err(error) => {
            exchange.fail(error);
            let (head, text) = error.response().into_parts();
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
    new_user: bool,
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
    let upgrade = headers::prepare_request(&mut head, client.peer, client.local);
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
        let (server, affinity) = attempts.choose().await?;
        exchange.set_affinity(affinity);
        exchange.attempt(&server, affinity != Affinity::Valid);
        let Some(next) = request.take().or_else(|| spare.as_ref().map(again)) else {
            return Err(Error::BadResponse);
        };
        match attempts.send(&server, next, repeatable).await {
            Ok(answer) => {
                exchange.connected(answer.connect_time);
                exchange.responded(answer.response.status(), answer.response_time);
                let new_user = cookie_name.is_some() && affinity != Affinity::Valid;
                let forwarded = Forwarded {
                    answer,
                    method,
                    server,
                    new_user,
                    upgrade,
                    progress,
                };
                return forwarded.checked(worker);
            }
            Err(failure) if progress.as_ref().is_some_and(|p| p.broken()) => {
                drop(failure);
                return Err(Error::ClientAbort);
            }
            Err(failure) => {
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
    async fn choose(&mut self) -> Result<(Arc<Server>, Affinity), Error> {
        let give_up = Instant::now() + TURN_AROUND;
        loop {
            let snapshot = self.worker.snapshot();
            let affinity = match self.sticky(&snapshot) {
                Ok(server) => return Ok((server, Affinity::Valid)),
                Err(affinity) => affinity,
            };
            if let Some(server) = self.worker.pick(&snapshot, &self.tried) {
                return Ok((server, affinity));
            }
            let rested = Instant::now() >= give_up;
            if !self.worth_waiting(&snapshot) || (rested && self.tried.is_empty()) {
                return Err(Error::NoServer);
            }
            self.worker.wait_for_change(&snapshot, give_up).await;
            self.tried.clear();
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

    fn worth_waiting(&self, snapshot: &Snapshot) -> bool {
        let lately = |at: Instant| at.elapsed() < RECENT_LOSS;
        !self.tried.is_empty() || snapshot.last_loss.is_some_and(lately)
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
        let backend = &self.worker.totals.backend;
        for counters in [backend, &server.live.counters] {
            match failure.kind {
                FailureKind::Refused | FailureKind::ConnectTimeout => counters.connect_errors.inc(),
                FailureKind::Broken | FailureKind::Malformed | FailureKind::ResponseTimeout => {
                    counters.response_errors.inc();
                }
                FailureKind::Abandoned => {
                    counters.response_errors.inc();
                    counters.rescues.inc();
                }
            }
        }
        match failure.kind {
            FailureKind::Refused => self.worker.report(server, Fault::Refused),
            FailureKind::Broken => self.worker.report(server, Fault::Broken),
            FailureKind::ConnectTimeout
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
            reused: false,
        }
    }
}

impl From<FailureKind> for Error {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Refused => Self::ConnectFailed,
            FailureKind::ConnectTimeout => Self::ConnectTimeout,
            FailureKind::Broken | FailureKind::Malformed | FailureKind::Abandoned => {
                Self::BadResponse
            }
            FailureKind::ResponseTimeout => Self::ResponseTimeout,
        }
    }
}

impl Forwarded {
    /// Refuses an answer that makes no sense to the client.
    fn checked(self, worker: &Worker) -> Result<Self, Error> {
        let response = &self.answer.response;
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let unreadable = headers::check_coding(response.headers()).is_err();
        if (switched && !self.upgrade) || unreadable {
            self.server.live.counters.response_errors.inc();
            worker.totals.backend.response_errors.inc();
            return Err(Error::BadResponse);
        }
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
        lease.keep_alive(headers::prepare_response(&mut head));
        if let Some(name) = &worker.settings.cookie {
            sticky::strip(&mut head.headers, name);
            if self.new_user {
                let server = self.server.name.as_str();
                sticky::insert(&mut head.headers, name, server, &self.method, head.status);
                exchange.set_cookie_inserted();
            }
        }
        exchange.begin_response(headers::wire_size(&head.headers, FIRST_LINE));
        let body = if let Some(upgraded) = upgraded {
            lease.give_away();
            let closing = worker.upstreams.open_tunnel(self.server.life);
            let tunnel = Tunnel::new(upgraded, closing, exchange);
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
        let snapshot = self.snapshot();
        snapshot.schedule.iter().any(|index| {
            let other = snapshot.get(*index);
            other.is_some_and(|other| other.life != server.life && !tried.contains(other.life))
        })
    }

    async fn wait_for_change(&self, known: &Snapshot, give_up: Instant) {
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
            }
        }
    }
}
