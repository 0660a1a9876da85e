//! Connections to servers: one worker's idle ones, and how new ones are made.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    fmt, io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use rustix::io::Errno;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    buffer::{Buffer, Buffers},
    connection::Client,
    dial::{NotDialled, dial},
    http2::{self, Found, Multiplexed},
    ledger::Ledger,
    retry::Sent,
    stream::Stream,
};
use crate::{
    counters::ServerTally,
    pool::{
        Server, Snapshot, Status,
        server::{Cause, Life, Live},
    },
    tls,
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
    connector: tls::Connector,
    buffers: Rc<Buffers>,
    idle: RefCell<HashMap<Life, Vec<Idle>>>,
    /// Those that many requests share.
    multiplexed: Multiplexed,
    open: RefCell<HashMap<Life, Vec<Rc<Wait>>>>,
    /// Cancelled: the server has left, and its tunnels are to be closed.
    tunnels: RefCell<HashMap<Life, CancellationToken>>,
}

/// What a connection is waited on for, and by which task.
#[derive(Debug, Default)]
pub(super) struct Wait {
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

/// A connection.
struct Link {
    stream: Stream,
    /// What was read and not been used yet.
    input: Buffer,
    wait: Rc<Wait>,
    counted: Counted,
    /// Whether another request may follow on it.
    reusable: bool,
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
    connect_time: Duration,
}

/// Why there is no response.
#[derive(Debug)]
pub(super) struct Failure {
    /// What happened.
    pub(super) kind: FailureKind,
    /// Whether the server can know of the request.
    pub(super) sent: Sent,
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
    /// The server accepted, and then no TLS came about.
    Handshake,
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
    pub(super) fn new(ledger: Ledger, buffers: &Rc<Buffers>, connector: tls::Connector) -> Self {
        Self {
            ledger,
            connector,
            buffers: Rc::clone(buffers),
            idle: RefCell::default(),
            multiplexed: Multiplexed::default(),
            open: RefCell::default(),
            tunnels: RefCell::default(),
        }
    }

    /// An idle connection to `server`, if there is one that will do: none does
    /// where a connection is one client's (`send-proxy`).
    pub(super) fn reuse(
        self: &Rc<Self>,
        server: &Arc<Server>,
        repeatable: bool,
        now: Instant,
    ) -> Option<Lease> {
        if server.transport.send_proxy.is_some() {
            return None;
        }
        let link = if server.transport.http2 {
            let shared = self.multiplexed.find(server.life)?;
            self.link(server, shared.open(&self.buffers))
        } else {
            self.take_idle(server, repeatable, now)?
        };
        self.ledger.inc(&server.live, |traffic| &traffic.reuses);
        Some(Lease::new(link, server, self, Duration::ZERO))
    }

    /// Does what a change in the pool asks for: closes idle connections to
    /// servers that shall not keep any, rescues requests from servers that do
    /// not answer any more, and closes tunnels to those that have left.
    pub(super) fn follow(&self, before: &Snapshot, snapshot: &Snapshot) {
        let now = Instant::now();
        // Only what changed is looked at: a large pool changes all the time.
        for (was, is) in snapshot.changed_since(before) {
            let mut idle = self.idle.borrow_mut();
            if let Some(was) = was
                && is.is_none_or(|is| is.life != was.life)
            {
                idle.remove(&was.life);
            }
            let Some(is) = is else {
                continue;
            };
            match (is.keeps_connections_for(), idle.get_mut(&is.life)) {
                (_, None) => {}
                (Some(limit), Some(idle)) => shorten(idle, limit, now),
                (None, Some(_)) => drop(idle.remove(&is.life)),
            }
        }
        self.rescue(snapshot, now);
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
                    connection.abandon();
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
            shorten(idle, *limit, now);
            true
        });
        self.multiplexed
            .keep(|life| limits.get(&life).copied(), now);
    }

    /// Does what time alone asks for: closes connections that have been idle
    /// for long enough, and ends what has waited too long.
    pub(super) fn expire(&self, snapshot: &Snapshot, now: Instant) {
        self.rescue(snapshot, now);
        // One that was in use when its server began to drain has come back
        // since, with the time that it had before.
        self.close_idle(snapshot);
        self.idle.borrow_mut().retain(|_, idle| {
            idle.retain(|idle| idle.expires > now && idle.link.stream.is_silent());
            !idle.is_empty()
        });
        self.open.borrow_mut().retain(|_, open| {
            // Only we know of it: the connection is gone.
            open.retain(|connection| Rc::strong_count(connection) > 1);
            !open.is_empty()
        });
    }

    /// The connection that served last: it is the least likely to be closed,
    /// and those that are not needed grow old and go.
    fn take_idle(&self, server: &Server, repeatable: bool, now: Instant) -> Option<Link> {
        let mut all = self.idle.borrow_mut();
        let idle = all.get_mut(&server.life)?;
        while let Some(newest) = idle.pop() {
            let fresh = repeatable || now - newest.since < FRESH;
            if newest.expires <= now || !newest.link.stream.is_silent() {
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

    /// Connects. Where no descriptor is left, once more in the place of
    /// connections that nobody uses at the moment.
    async fn dial(
        &self,
        server: &Server,
        addr: SocketAddr,
        client: &Client,
    ) -> Result<Stream, NotDialled> {
        let dial = || dial(server, addr, client, &self.connector);
        match dial().await {
            Err(NotDialled::Connect(err))
                if is_exhaustion(&err) && !self.idle.take().is_empty() =>
            {
                dial().await
            }
            dialled => dialled,
        }
    }

    /// A new connection to `server` for `client`, made within `patience`.
    pub(super) async fn connect(
        self: &Rc<Self>,
        server: &Arc<Server>,
        addr: SocketAddr,
        client: &Client,
        patience: Duration,
    ) -> Result<Lease, FailureKind> {
        let began = Instant::now();
        let stream = match timeout(patience, self.open(server, addr, client)).await {
            Err(_) => return Err(FailureKind::ConnectTimeout),
            Ok(opened) => opened?,
        };
        let link = self.link(server, stream);
        Ok(Lease::new(link, server, self, began.elapsed()))
    }

    /// Connects, as far as a request can go over it. Where requests share
    /// connections, one that somebody opens meanwhile will do.
    async fn open(
        &self,
        server: &Server,
        addr: SocketAddr,
        client: &Client,
    ) -> Result<Stream, FailureKind> {
        let dial = || async {
            self.ledger.inc(&server.live, |traffic| &traffic.connects);
            let dialled = self.dial(server, addr, client).await;
            dialled.map_err(|why| self.not_dialled(server, why))
        };
        if !server.transport.http2 {
            return dial().await;
        }
        let begin = |stream, opener| async {
            let begun = http2::Link::begin(stream, server.transport.tls, opener).await;
            begun.map_err(|err| self.not_dialled(server, NotDialled::Connect(err)))
        };
        if server.transport.send_proxy.is_some() {
            let own = begin(dial().await?, None).await?;
            return Ok(own.open(&self.buffers));
        }
        let shared = match self.multiplexed.wait(server.life).await? {
            Found::Link(link) => {
                self.ledger.inc(&server.live, |traffic| &traffic.reuses);
                link
            }
            Found::Opens(opener) => {
                let stream = match dial().await {
                    Ok(stream) => stream,
                    Err(kind) => return Err(opener.fail(kind)),
                };
                let link = begin(stream, Some(opener)).await?;
                self.multiplexed.add(server.life, link.clone());
                link
            }
        };
        Ok(shared.open(&self.buffers))
    }

    fn not_dialled(&self, server: &Server, why: NotDialled) -> FailureKind {
        match why {
            NotDialled::Handshake => FailureKind::Handshake,
            NotDialled::Connect(err) => {
                if is_our_own(&err) {
                    self.ledger
                        .inc(&server.live, |traffic| &traffic.internal_errors);
                }
                connect_failure(&err)
            }
        }
    }

    fn link(&self, server: &Server, stream: Stream) -> Link {
        let wait = Rc::new(Wait::default());
        let mut open = self.open.borrow_mut();
        open.entry(server.life).or_default().push(Rc::clone(&wait));
        Link {
            stream,
            input: Buffer::new(&self.buffers),
            wait,
            counted: Counted::new(&server.live, &self.ledger),
            reusable: !server.transport.http2 && server.transport.send_proxy.is_none(),
        }
    }
}

/// Has connections go within `limit`, if not earlier.
fn shorten(idle: &mut [Idle], limit: Duration, now: Instant) {
    for connection in idle {
        let latest = now.checked_add(limit).unwrap_or(connection.expires);
        connection.expires = connection.expires.min(latest);
    }
}

impl Wait {
    /// The request goes out, and its answer is waited for from now on.
    pub(super) fn begin(&self, repeatable: bool, now: Instant) {
        self.stage.set(if repeatable {
            Stage::WaitsRepeatable
        } else {
            Stage::Waits(now)
        });
    }

    /// The wait goes on in that task, which is woken should there be no hope.
    /// Says whether there is none.
    pub(super) fn is_abandoned(&self, cx: &Context<'_>) -> bool {
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
    pub(super) fn end(&self) {
        self.stage.set(Stage::Settled);
    }

    fn abandon(&self) {
        self.stage.set(Stage::Abandoned);
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

impl Lease {
    fn new(link: Link, server: &Arc<Server>, home: &Rc<Upstreams>, connect_time: Duration) -> Self {
        Self {
            link,
            server: Arc::clone(server),
            home: Rc::clone(home),
            connect_time,
        }
    }

    /// The connection, what was read from it, and who waits for it.
    pub(super) fn parts(&mut self) -> (&mut Stream, &mut Buffer, &Wait) {
        let Link {
            stream,
            input,
            wait,
            ..
        } = &mut self.link;
        (stream, input, wait)
    }

    /// The server.
    pub(super) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// How long connecting took; zero for a connection that was there before.
    pub(super) fn connect_time(&self) -> Duration {
        self.connect_time
    }

    /// Leaves the connection to a tunnel, and counts as used until the last
    /// value goes.
    pub(super) fn give_away(self) -> ((Stream, Buffer), Counted) {
        let Link {
            stream,
            input,
            counted,
            ..
        } = self.link;
        ((stream, input), counted)
    }

    /// Puts the connection back for the next request, for as long as the
    /// server says it keeps it.
    pub(super) fn give_back(mut self, keep_alive: Option<Duration>, now: Instant) {
        let lifetime = keep_alive.map_or(IDLE, |timeout| timeout.saturating_sub(IDLE_MARGIN));
        let wanted = self.server.keeps_connections_for().unwrap_or_default();
        let lifetime = lifetime.min(wanted);
        // More than was asked for is nobody's answer.
        if lifetime.is_zero() || !self.link.input.is_empty() || !self.link.reusable {
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
    /// No connection could be made, so nothing was sent.
    pub(super) fn to_connect(kind: FailureKind) -> Self {
        Self {
            kind,
            sent: Sent::Nothing,
            connect_time: None,
            reused: false,
        }
    }

    /// Something went wrong on a connection that was there.
    pub(super) fn on(lease: &Lease, kind: FailureKind, sent: Sent) -> Self {
        Self {
            kind,
            sent,
            connect_time: Some(lease.connect_time),
            reused: kind == FailureKind::Broken && lease.connect_time.is_zero(),
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
        | io::ErrorKind::BrokenPipe
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
