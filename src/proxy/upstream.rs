//! Connections to servers: one worker's idle ones, how new ones are made, and
//! how a request is sent over either.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio::{
    task::{AbortHandle, spawn_local},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    body::RequestBody,
    ledger::Ledger,
    retry::Sent,
    watch::{Waiting, Watch},
};
use crate::{
    counters::ServerTally,
    net,
    pool::{
        Server, Snapshot, Status,
        server::{Cause, Life, Live},
    },
};

/// How long a connection may lie idle when the server does not say: Node.js
/// and Apache close theirs after 5 s, and a request that crosses that close
/// on its way is lost unless it may be repeated.
pub const IDLE: Duration = Duration::from_secs(4);

/// How much earlier than the server says a connection is given up.
const IDLE_MARGIN: Duration = Duration::from_secs(1);

/// A request that cannot be repeated only takes a connection that has served
/// within this time, which no server closes at that very moment.
const FRESH: Duration = Duration::from_secs(1);

/// Idle connections a worker keeps to one server at the most, so that a burst
/// does not hold descriptors for long after.
pub const IDLE_PER_SERVER: usize = 512;

/// How long a request that cannot be repeated waits at a server that gossip
/// has lost before it ends with 502.
const LAST_HOPE: Duration = Duration::from_secs(1);

/// How long a server may take to accept while there are others to ask. On a
/// network where servers gossip with each other an answer takes milliseconds;
/// an address that has vanished gives none at all.
pub(super) const IMPATIENT: Duration = Duration::from_millis(250);

/// One worker's connections to servers.
pub(super) struct Upstreams {
    ledger: Ledger,
    idle: RefCell<HashMap<Life, Vec<Idle>>>,
    open: RefCell<HashMap<Life, Vec<Open>>>,
    /// Cancelled: the server has left, and its tunnels are to be closed.
    tunnels: RefCell<HashMap<Life, CancellationToken>>,
}

/// A connection that is there, idle or not.
struct Open {
    driver: AbortHandle,
    stage: Rc<Cell<Stage>>,
}

/// How far the request on a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is none, or its answer has begun.
    Settled,
    /// It waits for its answer; it may be repeated elsewhere.
    WaitsRepeatable,
    /// It has waited for its answer since then; it may not be repeated.
    Waits(Instant),
    /// It waited for a server that was given up.
    Abandoned,
}

/// A connection and the task that drives it, which ends with it: left to
/// itself, hyper goes on with a request body that nobody waits for any more.
struct Link {
    sender: SendRequest<RequestBody>,
    driver: AbortOnDropHandle<()>,
    stage: Rc<Cell<Stage>>,
    counted: Counted,
}

struct Idle {
    link: Link,
    since: Instant,
    expires: Instant,
}

/// Counts a connection to a server for as long as it is open, as idle or as
/// in use.
#[derive(Debug)]
pub(super) struct Counted {
    live: Arc<Live>,
    ledger: Ledger,
    idle: bool,
}

/// A connection in use. Given back when its response has been read whole;
/// dropped, it closes.
pub(super) struct Lease {
    link: Link,
    server: Arc<Server>,
    home: Rc<Upstreams>,
    keep_alive: Option<Duration>,
}

/// A response's head, and the connection its body comes over.
#[derive(Debug)]
pub(super) struct Answer {
    /// The response.
    pub(super) response: Response<Incoming>,
    /// Its connection.
    pub(super) lease: Lease,
    /// How long connecting took; zero for a connection that was there before.
    pub(super) connect_time: Duration,
    /// From the request being sent to the response's head.
    pub(super) response_time: Duration,
}

/// Why there is no response.
#[derive(Debug)]
pub(super) struct Failure {
    /// What happened.
    pub(super) kind: FailureKind,
    /// Whether the server can know of the request.
    pub(super) sent: Sent,
    /// The request, where nothing of it was sent.
    pub(super) request: Option<Request<RequestBody>>,
    /// How long connecting took, where there was a connection.
    pub(super) connect_time: Option<Duration>,
    /// The connection had served before: its end may be the server's ordinary
    /// clearing of idle connections and says little about the server.
    pub(super) reused: bool,
}

/// What happened to a request that got no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// Nobody listens at the server's address.
    Refused,
    /// No connection in time.
    ConnectTimeout,
    /// No connection for want of a descriptor, a port or memory of our own.
    Exhausted,
    /// The connection broke.
    Broken,
    /// What came is not HTTP.
    Malformed,
    /// No response in time.
    ResponseTimeout,
    /// The server was given up while the request waited for its response.
    Abandoned,
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").finish_non_exhaustive()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("server", &self.server.name)
            .finish_non_exhaustive()
    }
}

impl Upstreams {
    /// No connections yet.
    pub(super) fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            idle: RefCell::default(),
            open: RefCell::default(),
            tunnels: RefCell::default(),
        }
    }

    /// Sends a request to `server`, over an idle connection if there is one.
    ///
    /// `patience` bounds the connecting. The wait for the response is bounded
    /// by the connection's [`Watch`].
    pub(super) async fn send(
        self: &Rc<Self>,
        server: &Arc<Server>,
        addr: SocketAddr,
        mut request: Request<RequestBody>,
        repeatable: bool,
        patience: Duration,
        watch: &Watch,
    ) -> Result<Answer, Failure> {
        while let Some(link) = self.take_idle(server, repeatable) {
            self.ledger.inc(&server.live, |traffic| &traffic.reuses);
            let lease = Lease::new(link, server, self);
            match lease.send(request, repeatable, watch, Duration::ZERO).await {
                Err(Failure {
                    sent: Sent::Nothing,
                    request: Some(back),
                    ..
                }) => request = back,
                Err(failure) => {
                    let reused = failure.kind == FailureKind::Broken;
                    return Err(Failure { reused, ..failure });
                }
                Ok(answer) => return Ok(answer),
            }
        }
        let began = Instant::now();
        match self.connect(server, addr, patience).await {
            Ok(lease) => {
                lease
                    .send(request, repeatable, watch, began.elapsed())
                    .await
            }
            Err(kind) => Err(Failure {
                kind,
                sent: Sent::Nothing,
                request: Some(request),
                connect_time: None,
                reused: false,
            }),
        }
    }

    /// Does what a change in the pool asks for: closes idle connections to
    /// servers that shall not keep any, rescues requests from servers that do
    /// not answer any more, and closes tunnels to those that have left.
    pub(super) fn follow(&self, snapshot: &Snapshot) {
        self.close_idle(snapshot);
        self.rescue(snapshot, Instant::now());
        self.close_tunnels(snapshot);
    }

    /// A tunnel to that life of a server is there; cancelled when it is to end.
    pub(super) fn open_tunnel(&self, life: Life) -> CancellationToken {
        self.tunnels.borrow_mut().entry(life).or_default().clone()
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
    fn rescue(&self, snapshot: &Snapshot, now: Instant) {
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
                    connection.stage.set(Stage::Abandoned);
                    connection.driver.abort();
                }
                !hang_up
            });
        }
    }

    /// Closes tunnels to servers that have left: a tunnel may have no end of
    /// its own, and the server has given its users all the time it had.
    fn close_tunnels(&self, snapshot: &Snapshot) {
        let mut all = self.tunnels.borrow_mut();
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

    fn close_idle(&self, snapshot: &Snapshot) {
        let now = Instant::now();
        let servers = snapshot.servers.iter();
        let limits: HashMap<Life, Duration> = servers
            .filter_map(|server| Some((server.life, server.keeps_connections_for()?)))
            .collect();
        self.idle.borrow_mut().retain(|life, idle| {
            let Some(limit) = limits.get(life) else {
                return false;
            };
            for connection in idle {
                let latest = now.checked_add(*limit).unwrap_or(connection.expires);
                connection.expires = connection.expires.min(latest);
            }
            true
        });
    }

    /// Does what time alone asks for: closes connections that have been idle
    /// for long enough, and ends what has waited too long.
    pub(super) fn expire(&self, snapshot: &Snapshot, now: Instant) {
        self.rescue(snapshot, now);
        // One that was in use when its server began to drain has come back
        // since, with the time that it had before.
        self.close_idle(snapshot);
        self.idle.borrow_mut().retain(|_, idle| {
            idle.retain(|idle| idle.expires > now && !idle.link.sender.is_closed());
            !idle.is_empty()
        });
        self.open.borrow_mut().retain(|_, open| {
            open.retain(|connection| !connection.driver.is_finished());
            !open.is_empty()
        });
    }

    /// The connection that served last: it is the least likely to be closed,
    /// and those that are not needed grow old and go.
    fn take_idle(&self, server: &Server, repeatable: bool) -> Option<Link> {
        let mut all = self.idle.borrow_mut();
        let idle = all.get_mut(&server.life)?;
        let now = Instant::now();
        while let Some(newest) = idle.pop() {
            let fresh = repeatable || now - newest.since < FRESH;
            if newest.expires <= now || !newest.link.sender.is_ready() {
                continue;
            }
            if !fresh {
                // Good enough for others; all below it are older still.
                idle.push(newest);
                return None;
            }
            let mut link = newest.link;
            link.counted.set_idle(false);
            return Some(link);
        }
        None
    }

    async fn connect(
        self: &Rc<Self>,
        server: &Arc<Server>,
        addr: SocketAddr,
        patience: Duration,
    ) -> Result<Lease, FailureKind> {
        self.ledger.inc(&server.live, |traffic| &traffic.connects);
        let socket = match timeout(patience, net::connect(addr)).await {
            Err(_) => return Err(FailureKind::ConnectTimeout),
            Ok(Err(err)) => {
                if is_our_own(&err) {
                    self.ledger
                        .inc(&server.live, |traffic| &traffic.internal_errors);
                }
                return Err(connect_failure(&err));
            }
            Ok(Ok(socket)) => socket,
        };
        let (sender, connection) = Builder::new()
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|_| FailureKind::Broken)?;
        // Its errors reach whoever waits for the response.
        let driving = spawn_local(async move {
            connection.with_upgrades().await.ok();
        });
        let driver = AbortOnDropHandle::new(driving);
        let stage = Rc::new(Cell::new(Stage::Settled));
        let mut open = self.open.borrow_mut();
        open.entry(server.life).or_default().push(Open {
            driver: driver.abort_handle(),
            stage: Rc::clone(&stage),
        });
        let link = Link {
            sender,
            driver,
            stage,
            counted: Counted::new(&server.live, &self.ledger),
        };
        Ok(Lease::new(link, server, self))
    }
}

impl Lease {
    fn new(link: Link, server: &Arc<Server>, home: &Rc<Upstreams>) -> Self {
        Self {
            link,
            server: Arc::clone(server),
            home: Rc::clone(home),
            keep_alive: None,
        }
    }

    async fn send(
        mut self,
        request: Request<RequestBody>,
        repeatable: bool,
        watch: &Watch,
        connect_time: Duration,
    ) -> Result<Answer, Failure> {
        let began = Instant::now();
        let stage = if repeatable {
            Stage::WaitsRepeatable
        } else {
            Stage::Waits(began)
        };
        self.link.stage.set(stage);
        let mut response = std::pin::pin!(self.link.sender.try_send_request(request));
        let sent = poll_fn(|cx| match response.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if watch.server_expired() => Poll::Ready(None),
            Poll::Pending => {
                watch.wait_for_server(Instant::now);
                Poll::Pending
            }
        });
        let outcome = sent.await;
        watch.arrived(Waiting::Server);
        let abandoned = self.link.stage.replace(Stage::Settled) == Stage::Abandoned;
        let failure = match outcome {
            Some(Ok(response)) => {
                return Ok(Answer {
                    response,
                    lease: self,
                    connect_time,
                    response_time: began.elapsed(),
                });
            }
            Some(Err(_)) if abandoned => Failure::after_sending(FailureKind::Abandoned),
            Some(Err(err)) if err.error().is_parse() => {
                Failure::after_sending(FailureKind::Malformed)
            }
            Some(Err(mut err)) => Failure::broken(err.take_message()),
            None => Failure::after_sending(FailureKind::ResponseTimeout),
        };
        Err(Failure {
            connect_time: Some(connect_time),
            ..failure
        })
    }

    /// Notes how long the server says it keeps the connection.
    pub(super) fn keep_alive(&mut self, timeout: Option<Duration>) {
        self.keep_alive = timeout;
    }

    /// Leaves the connection to whoever has its upgrade, and counts as used
    /// until the returned value goes.
    pub(super) fn give_away(self) -> Counted {
        self.link.driver.detach();
        self.link.counted
    }

    /// Puts the connection back for the next request.
    pub(super) fn give_back(mut self) {
        let now = Instant::now();
        let lifetime = self
            .keep_alive
            .map_or(IDLE, |timeout| timeout.saturating_sub(IDLE_MARGIN));
        let wanted = self.server.keeps_connections_for().unwrap_or_default();
        let lifetime = lifetime.min(wanted);
        if self.link.sender.is_closed() || lifetime.is_zero() {
            return;
        }
        let mut all = self.home.idle.borrow_mut();
        let idle = all.entry(self.server.life).or_default();
        if idle.len() < IDLE_PER_SERVER {
            self.link.counted.set_idle(true);
            idle.push(Idle {
                link: self.link,
                since: now,
                expires: now + lifetime,
            });
        }
    }
}

impl Failure {
    fn after_sending(kind: FailureKind) -> Self {
        Self {
            kind,
            sent: Sent::Perhaps,
            request: None,
            connect_time: None,
            reused: false,
        }
    }

    fn broken(request: Option<Request<RequestBody>>) -> Self {
        let sent = if request.is_some() {
            Sent::Nothing
        } else {
            Sent::Perhaps
        };
        let kind = FailureKind::Broken;
        Self {
            kind,
            sent,
            request,
            connect_time: None,
            reused: false,
        }
    }
}

impl Counted {
    fn new(live: &Arc<Live>, ledger: &Ledger) -> Self {
        ledger.server(live).used.inc();
        Self {
            live: Arc::clone(live),
            ledger: ledger.clone(),
            idle: false,
        }
    }

    fn set_idle(&mut self, idle: bool) {
        let tally = self.tally();
        let (from, to) = if idle {
            (&tally.used, &tally.idle)
        } else {
            (&tally.idle, &tally.used)
        };
        from.dec();
        to.inc();
        self.idle = idle;
    }

    fn tally(&self) -> &ServerTally {
        self.ledger.server(&self.live)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let tally = self.tally();
        let level = if self.idle { &tally.idle } else { &tally.used };
        level.dec();
    }
}

/// Whether it is trouble of our own, such as having no descriptor or no port
/// left, which says nothing about the server.
fn is_our_own(err: &io::Error) -> bool {
    let timed_out = err.kind() == io::ErrorKind::TimedOut;
    connect_failure(err) != FailureKind::Refused && !timed_out
}

/// Tells a server that is not there from everything else.
fn connect_failure(err: &io::Error) -> FailureKind {
    match err.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => FailureKind::Refused,
        _ if is_exhaustion(err) => FailureKind::Exhausted,
        _ => FailureKind::ConnectTimeout,
    }
}

fn is_exhaustion(err: &io::Error) -> bool {
    let exhausted = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
        Errno::AGAIN,
    ];
    Errno::from_io_error(err).is_some_and(|err| exhausted.contains(&err))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_of_our_own_is_told_from_the_servers() {
        for (errno, kind) in [
            (Errno::CONNREFUSED, FailureKind::Refused),
            (Errno::HOSTUNREACH, FailureKind::Refused),
            (Errno::TIMEDOUT, FailureKind::ConnectTimeout),
            (Errno::MFILE, FailureKind::Exhausted),
            (Errno::ADDRNOTAVAIL, FailureKind::Exhausted),
        ] {
            assert_eq!(connect_failure(&errno.into()), kind, "{errno}");
        }
    }
}
