//! A connection that switched protocols: bytes both ways until one side has
//! closed and the other has nothing left, or nothing came for too long.

use std::{cell::Cell, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    buffer::Buffer,
    error::Termination,
    exchange::Exchange,
    stream::{ReadHalf, Stream, WriteHalf},
    upstream::Counted,
};

/// The server's end of a switched connection. The exchange that led to it
/// lasts until the tunnel's end.
#[derive(Debug)]
pub(super) struct Tunnel {
    server: (Stream, Buffer),
    closing: CancellationToken,
    exchange: Box<Exchange>,
    _counted: Counted,
}

/// What went by, and when something last did.
struct Flow {
    to_server: Cell<u64>,
    to_client: Cell<u64>,
    last: Cell<Instant>,
    /// One side has said all it had to.
    half_closed: Cell<bool>,
}

/// How long a tunnel may be silent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// While both sides are open.
    pub(super) idle: Duration,
    /// Once one has closed: the other may have been forgotten.
    pub(super) half_closed: Duration,
}

impl Tunnel {
    /// The server's side of a 101, with what came behind it, counted as used,
    /// and the exchange it belongs to.
    ///
    /// It is closed when `closing` is cancelled: the server has left.
    pub(super) fn new(
        server: (Stream, Buffer),
        counted: Counted,
        closing: CancellationToken,
        exchange: Box<Exchange>,
    ) -> Self {
        Self {
            server,
            closing,
            exchange,
            _counted: counted,
        }
    }

    /// Carries bytes until the end. `client` comes with what was sent behind
    /// the request.
    pub(super) async fn run(mut self, client: (Stream, Buffer), limits: Limits) {
        let flow = Flow {
            to_server: Cell::new(0),
            to_client: Cell::new(0),
            last: Cell::new(Instant::now()),
            half_closed: Cell::new(false),
        };
        let ended = tokio::select! {
            carried = carry(client, self.server, &flow, limits) => {
                carried.map_or_else(Side::broke, |()| Termination::NORMAL)
            }
            () = self.closing.cancelled() => {
                self.exchange.count_closed_tunnel();
                Termination::SERVER_LEFT
            }
        };
        self.exchange.add_bytes_in(flow.to_server.get());
        self.exchange.add_bytes_out(flow.to_client.get());
        self.exchange.finish(ended);
    }
}

/// One of the two ends of a tunnel.
#[derive(Debug, Clone, Copy)]
enum Side {
    Client,
    Server,
}

impl Side {
    fn broke(self) -> Termination {
        match self {
            Self::Client => Termination::CLIENT_GONE_IN_DATA,
            Self::Server => Termination::SERVER_GONE_IN_DATA,
        }
    }
}

/// Each side comes with the bytes that were read from it already. An error is
/// the side that broke.
async fn carry(
    (mut client, from_client): (Stream, Buffer),
    (mut server, from_server): (Stream, Buffer),
    flow: &Flow,
    limits: Limits,
) -> Result<(), Side> {
    let (client_in, client_out) = client.split();
    let (server_in, server_out) = server.split();
    let (client_in, client_out) = ((Side::Client, client_in), (Side::Client, client_out));
    let (server_in, server_out) = ((Side::Server, server_in), (Side::Server, server_out));
    let up = pump(client_in, server_out, from_client, &flow.to_server, flow);
    let down = pump(server_in, client_out, from_server, &flow.to_client, flow);
    tokio::select! {
        both = async { tokio::try_join!(up, down) } => both.map(drop),
        () = silence(flow, limits) => Ok(()),
    }
}

/// `buffer` holds what was read ahead.
async fn pump(
    (source, mut from): (Side, ReadHalf<'_>),
    (sink, mut to): (Side, WriteHalf<'_>),
    mut buffer: Buffer,
    count: &Cell<u64>,
    flow: &Flow,
) -> Result<(), Side> {
    loop {
        let there = buffer.filled();
        to.write_all(there).await.map_err(|_| sink)?;
        to.flush().await.map_err(|_| sink)?;
        count.set(count.get() + there.len() as u64);
        buffer.consume(there.len());
        let read = buffer.fill(&mut from).await.map_err(|_| source)?;
        flow.last.set(Instant::now());
        if read == 0 {
            flow.half_closed.set(true);
            return to.shutdown().await.map_err(|_| sink);
        }
    }
}

/// Waits until nothing has gone by for too long.
async fn silence(flow: &Flow, limits: Limits) {
    // How soon a half-closed tunnel is noticed.
    const LOOK: Duration = Duration::from_secs(1);
    loop {
        let limit = if flow.half_closed.get() {
            limits.idle.min(limits.half_closed)
        } else {
            limits.idle
        };
        let now = Instant::now();
        let deadline = flow.last.get() + limit;
        if deadline <= now {
            return;
        }
        sleep_until(deadline.min(now + LOOK.max(limit / 60))).await;
    }
}
