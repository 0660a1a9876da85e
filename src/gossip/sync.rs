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

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::{
        gossip::{
            core::{Birth, Core},
            wire::{Key, Keyring},
        },
        membership::{Meta, Role},
    };

    fn roster(addr: SocketAddr) -> Roster {
        let core = Core::new(&Birth {
            addr,
            meta: Meta {
                name: "ha".parse().unwrap(),
                role: Role::Balancer,
            },
            unix_ms: 1,
            now: Instant::now(),
            seed: 1,
        });
        core.unwrap().roster(None)
    }

    fn envelope(keyring: Keyring) -> Arc<Envelope> {
        Arc::new(Envelope::new("test".parse().unwrap(), keyring))
    }

    /// A node that answers each request with the roster it got.
    async fn echoing(envelope: Arc<Envelope>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, mut requests) = mpsc::channel::<Request>(1);
        tokio::spawn(serve(listener, envelope, sender));
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                request.reply.send(request.roster).unwrap();
            }
        });
        addr
    }

    #[tokio::test]
    async fn both_sides_get_the_roster_of_the_other() {
        let peer = echoing(envelope(Keyring::default())).await;
        let ours = roster("10.0.0.1:7946".parse().unwrap());
        let theirs = exchange(peer, ours, envelope(Keyring::default())).await;
        assert_eq!(theirs.unwrap().addr(), "10.0.0.1:7946".parse().unwrap());
    }

    #[tokio::test]
    async fn a_caller_with_another_key_gets_nothing_and_others_are_served() {
        let ring = || envelope(std::iter::once(Key::generate()).collect());
        let (good, bad) = (ring(), ring());
        let peer = echoing(Arc::clone(&good)).await;
        let ours = roster("10.0.0.1:7946".parse().unwrap());
        assert!(exchange(peer, ours.clone(), bad).await.is_err());
        assert!(exchange(peer, ours, good).await.is_ok());
    }

    #[tokio::test]
    async fn a_claim_of_a_huge_frame_is_hung_up_on() {
        let peer = echoing(envelope(Keyring::default())).await;
        let mut stream = TcpStream::connect(peer).await.unwrap();
        stream.write_all(&[0xff; 4]).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty());
    }
}
