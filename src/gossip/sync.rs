//! The state sync: two nodes tell each other all members they know, over TCP.
//!
//! Gossip tells a newcomer a packet full of members at a time; with a hundred
//! of them that takes a minute. This takes one round trip.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    core::Roster,
    wire::{Envelope, Kind, MAX_FRAME},
};

/// For one exchange, connecting included.
const DEADLINE: Duration = Duration::from_secs(5);
/// Exchanges that are answered at a time; further ones wait in the backlog.
const CONCURRENT: usize = 32;
/// After a failed accept, which mostly means that no file is left to open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A peer's roster, and where to put ours.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) roster: Roster,
    pub(super) reply: oneshot::Sender<Roster>,
}

/// Answers exchanges for as long as somebody takes the requests.
pub(super) async fn serve(
    listener: TcpListener,
    envelope: Arc<Envelope>,
    requests: mpsc::Sender<Request>,
) {
    let permits = Arc::new(Semaphore::new(CONCURRENT));
    while !requests.is_closed() {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let answer = answer(stream, Arc::clone(&envelope), requests.clone());
        tokio::spawn(async move {
            // Who called tries again; a port scanner needs no answer.
            timeout(DEADLINE, answer).await.ok();
            drop(permit);
        });
    }
}

/// Tells `peer` our roster and returns its own.
pub(super) async fn exchange(
    peer: SocketAddr,
    ours: Roster,
    envelope: Arc<Envelope>,
) -> io::Result<Roster> {
    timeout(DEADLINE, async {
        let mut stream = TcpStream::connect(peer).await?;
        write(&mut stream, &envelope, &ours).await?;
        read(&mut stream, &envelope).await
    })
    .await?
}

async fn answer(
    mut stream: TcpStream,
    envelope: Arc<Envelope>,
    requests: mpsc::Sender<Request>,
) -> io::Result<()> {
    let roster = read(&mut stream, &envelope).await?;
    let (reply, ours) = oneshot::channel();
    let request = Request { roster, reply };
    requests.send(request).await.map_err(io::Error::other)?;
    let ours = ours.await.map_err(io::Error::other)?;
    write(&mut stream, &envelope, &ours).await
}

async fn write(stream: &mut TcpStream, envelope: &Envelope, roster: &Roster) -> io::Result<()> {
    let body = postcard::to_allocvec(roster).map_err(io::Error::other)?;
    let frame = envelope
        .seal_frame(Kind::Table, &body)
        .ok_or_else(|| invalid("the table is too large"))?;
    stream.write_all(&frame).await
}

async fn read(stream: &mut TcpStream, envelope: &Envelope) -> io::Result<Roster> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await?;
    let length = u32::from_be_bytes(prefix);
    if length as usize > MAX_FRAME {
        return Err(invalid("the frame is too large"));
    }
    // Grows with what arrives, not with what the length claims.
    let mut frame = Vec::new();
    stream.take(length.into()).read_to_end(&mut frame).await?;
    if frame.len() != length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let opened = envelope
        .open_frame(prefix, &frame)
        .map_err(io::Error::other)?;
    if opened.kind != Kind::Table {
        return Err(invalid("it is not a table"));
    }
    postcard::from_bytes(&opened.body).map_err(io::Error::other)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
