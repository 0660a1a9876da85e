//! A connection that switched protocols: bytes both ways until one side has
//! closed and the other has nothing left, or nothing came for too long.

use std::{cell::Cell, io, time::Duration};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{error::Termination, exchange::Exchange};

/// Bytes read at a time in one direction.
const BUFFER: usize = 16 * 1024;

/// Both ends of a switched connection, the client's still under hyper. The
/// exchange that led to it lasts until the tunnel's end.
#[derive(Debug)]
pub(super) struct Tunnel {
    server: OnUpgrade,
    closing: CancellationToken,
    exchange: Box<Exchange>,
}

/// What went by, and when something last did.
struct Flow {
    to_server: Cell<u64>,
    to_client: Cell<u64>,
    last: Cell<Instant>,
}

impl Tunnel {
    /// The server's side of a 101, and the exchange it belongs to.
    ///
    /// It is closed when `closing` is cancelled: the server has left.
    pub(super) fn new(
        server: OnUpgrade,
        closing: CancellationToken,
        exchange: Box<Exchange>,
    ) -> Self {
        Self {
            server,
            closing,
            exchange,
        }
    }

    /// Carries bytes until the end. `early` came from the client behind its
    /// request.
    pub(super) async fn run(mut self, client: TcpStream, early: Bytes, idle: Duration) {
        let flow = Flow {
            to_server: Cell::new(0),
            to_client: Cell::new(0),
            last: Cell::new(Instant::now()),
        };
        let ended = match self
            .server
            .await
            .map(hyper::upgrade::Upgraded::downcast::<TokioIo<TcpStream>>)
        {
            Ok(Ok(server)) => {
                let (socket, first) = (server.io.into_inner(), server.read_buf);
                tokio::select! {
                    carried = carry((client, early), (socket, first), &flow, idle) => {
                        carried.map_or(Termination::SERVER_GONE_IN_DATA, |()| Termination::NORMAL)
                    }
                    () = self.closing.cancelled() => {
                        self.exchange.count_closed_tunnel();
                        Termination::SERVER_LEFT
                    }
                }
            }
            _ => Termination::SERVER_GONE_IN_DATA,
        };
        self.exchange.add_bytes_in(flow.to_server.get());
        self.exchange.add_bytes_out(flow.to_client.get());
        self.exchange.finish(ended);
    }
}

/// Each side comes with the bytes that were read from it already.
async fn carry(
    (mut client, from_client): (TcpStream, Bytes),
    (mut server, from_server): (TcpStream, Bytes),
    flow: &Flow,
    idle: Duration,
) -> io::Result<()> {
    let (client_in, client_out) = client.split();
    let (server_in, server_out) = server.split();
    let up = pump(
        client_in,
        server_out,
        from_client,
        &flow.to_server,
        &flow.last,
    );
    let down = pump(
        server_in,
        client_out,
        from_server,
        &flow.to_client,
        &flow.last,
    );
    tokio::select! {
        both = async { tokio::try_join!(up, down) } => both.map(drop),
        () = silence(&flow.last, idle) => Ok(()),
    }
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    first: Bytes,
    count: &Cell<u64>,
    last: &Cell<Instant>,
) -> io::Result<()> {
    to.write_all(&first).await?;
    count.set(first.len() as u64);
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        last.set(Instant::now());
        match buffer.get(..read) {
            Some(bytes) if !bytes.is_empty() => to.write_all(bytes).await?,
            _ => return to.shutdown().await,
        }
        count.set(count.get() + read as u64);
    }
}

/// Waits until nothing has gone by for `idle`.
async fn silence(last: &Cell<Instant>, idle: Duration) {
    loop {
        let deadline = last.get() + idle;
        if deadline <= Instant::now() {
            return;
        }
        sleep_until(deadline).await;
    }
}
