//! Connections to servers: one worker's idle ones, and how new ones are made.

mod failure;
mod idle;
mod lease;
mod rescue;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub use self::idle::{IDLE, IDLE_PER_SERVER};
pub(super) use self::{
    failure::{Failure, FailureKind},
    lease::{Counted, Lease},
    rescue::Wait,
};
use self::{
    failure::{connect_failure, is_exhaustion, is_our_own},
    idle::{Idle, shorten},
    lease::Link,
};
use super::{
    buffer::{Buffer, Buffers},
    connection::Client,
    dial::{NotDialled, dial},
    http2::{self, Multiplexed},
    ledger::Ledger,
    stream::Stream,
};
use crate::{
    pool::{Server, Snapshot, server::Life},
    tls,
};

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

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").finish_non_exhaustive()
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
        self.ledger.inc(&server.live, |traffic| &traffic.connects);
        let stream = match timeout(patience, self.open(server, addr, client)).await {
            Err(_) => return Err(FailureKind::ConnectTimeout),
            Ok(Err(NotDialled::Handshake)) => return Err(FailureKind::Handshake),
            Ok(Err(NotDialled::Connect(err))) => {
                if is_our_own(&err) {
                    self.ledger
                        .inc(&server.live, |traffic| &traffic.internal_errors);
                }
                return Err(connect_failure(&err));
            }
            Ok(Ok(stream)) => stream,
        };
        let link = self.link(server, stream);
        Ok(Lease::new(link, server, self, began.elapsed()))
    }

    /// Connects, as far as a request can go over it.
    async fn open(
        &self,
        server: &Server,
        addr: SocketAddr,
        client: &Client,
    ) -> Result<Stream, NotDialled> {
        let stream = self.dial(server, addr, client).await?;
        if !server.transport.http2 {
            return Ok(stream);
        }
        let shared = http2::Link::begin(stream, server.transport.tls).await;
        let shared = shared.map_err(NotDialled::Connect)?;
        if server.transport.send_proxy.is_none() {
            self.multiplexed.add(server.life, shared.clone());
        }
        Ok(shared.open(&self.buffers))
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
