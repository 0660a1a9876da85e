//! One worker's connections to servers: which one a request gets, and what
//! becomes of them when the pool changes.

mod failure;
mod idle;
mod lease;
mod rescue;
mod tunnels;

use std::{collections::HashMap, fmt, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

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
    idle::IdleConnections,
    lease::Link,
    rescue::Rescue,
    tunnels::Tunnels,
};
use super::{
    buffer::{Buffer, Buffers},
    connection::Client,
    dial::{NotDialled, dial},
    http2::{self, Found, Multiplexed},
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
    idle: IdleConnections,
    /// Those that many requests share.
    multiplexed: Multiplexed,
    rescue: Rescue,
    tunnels: Tunnels,
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
            idle: IdleConnections::default(),
            multiplexed: Multiplexed::default(),
            rescue: Rescue::default(),
            tunnels: Tunnels::default(),
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
            self.idle.take(server.life, repeatable, now)?
        };
        self.ledger.inc(&server.live, |traffic| &traffic.reuses);
        Some(Lease::new(link, server, self, Duration::ZERO))
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
        if !server.transport.http2 {
            return self.dial(server, addr, client).await;
        }
        let begin = |stream, opener| async {
            let begun = http2::Link::begin(stream, server.transport.tls, opener).await;
            begun.map_err(|_| FailureKind::Handshake)
        };
        if server.transport.send_proxy.is_some() {
            let own = begin(self.dial(server, addr, client).await?, None).await?;
            return Ok(own.open(&self.buffers));
        }
        let shared = match self.multiplexed.wait(server.life).await? {
            Found::Link(link) => {
                self.ledger.inc(&server.live, |traffic| &traffic.reuses);
                link
            }
            Found::Opens(opener) => {
                let stream = match self.dial(server, addr, client).await {
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

    /// Connects. Where no descriptor is left, once more in the place of
    /// connections that nobody uses at the moment.
    async fn dial(
        &self,
        server: &Server,
        addr: SocketAddr,
        client: &Client,
    ) -> Result<Stream, FailureKind> {
        self.ledger.inc(&server.live, |traffic| &traffic.connects);
        let dial = || dial(server, addr, client, &self.connector);
        let dialled = match dial().await {
            Err(NotDialled::Connect(err)) if is_exhaustion(&err) && self.idle.close() => {
                dial().await
            }
            dialled => dialled,
        };
        dialled.map_err(|why| self.not_dialled(server, why))
    }

    /// The failure, counted as ours where it is.
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
        Link {
            stream,
            input: Buffer::new(&self.buffers),
            wait: self.rescue.enter(server.life),
            counted: Counted::new(&server.live, &self.ledger),
            reusable: !server.transport.http2 && server.transport.send_proxy.is_none(),
        }
    }

    /// Does what a change in the pool asks for: closes idle connections to
    /// servers that shall not keep any, rescues requests from servers that do
    /// not answer any more, and closes tunnels to those that have left.
    pub(super) fn follow(&self, before: &Snapshot, snapshot: &Snapshot) {
        let now = Instant::now();
        self.idle.follow(before, snapshot, now);
        self.rescue.follow(snapshot, now);
        self.tunnels.follow(snapshot);
    }

    /// Does what time alone asks for: closes connections that have been idle
    /// for long enough, and ends what has waited too long.
    pub(super) fn expire(&self, snapshot: &Snapshot, now: Instant) {
        self.rescue.follow(snapshot, now);
        let servers = snapshot.servers.iter();
        let limits: HashMap<Life, Duration> = servers
            .filter_map(|server| Some((server.life, server.keeps_connections_for()?)))
            .collect();
        // One that was in use when its server began to drain has come back
        // since, with the time that it had before.
        self.idle.expire(&limits, now);
        let shared = &self.multiplexed;
        shared.keep(|life| limits.get(&life).copied(), now);
        self.rescue.expire();
    }

    /// A tunnel to that life of a server is there; cancelled when it is to end.
    pub(super) fn open_tunnel(&self, life: Life) -> CancellationToken {
        self.tunnels.open(life)
    }
}
