//! The state sync: two nodes tell each other all members they know, over TCP.
//!
//! Gossip tells a newcomer a packet full of members at a time; with a hundred
//! of them that takes a minute. This takes one round trip.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    core::Roster,
    frame::{self, refused},
    port::DEADLINE,
    wire::{DropReason, Envelope, Kind, MAX_FRAME},
};

/// A peer's roster, and where to put ours.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) roster: Roster,
    pub(super) reply: oneshot::Sender<Roster>,
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
        let opened = frame::read(&mut stream, &envelope, MAX_FRAME).await?;
        if opened.kind != Kind::Table {
            return Err(refused(DropReason::Malformed));
        }
        decode(&opened.body)
    })
    .await?
}

/// Answers a caller whose roster is `body`.
pub(super) async fn answer(
    stream: &mut TcpStream,
    body: &[u8],
    envelope: &Envelope,
    requests: &mpsc::Sender<Request>,
) -> io::Result<()> {
    let (reply, ours) = oneshot::channel();
    let request = Request {
        roster: decode(body)?,
        reply,
    };
    requests.send(request).await.map_err(io::Error::other)?;
    let ours = ours.await.map_err(io::Error::other)?;
    write(stream, envelope, &ours).await
}

async fn write(stream: &mut TcpStream, envelope: &Envelope, roster: &Roster) -> io::Result<()> {
    let body = postcard::to_allocvec(roster).map_err(io::Error::other)?;
    frame::write(stream, envelope, Kind::Table, &body).await
}

fn decode(body: &[u8]) -> io::Result<Roster> {
    postcard::from_bytes(body).map_err(|_| refused(DropReason::Malformed))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::Instant,
    };

    use super::*;
    use crate::{
        gossip::{
            Admission,
            core::{Birth, Core},
            port::{Inbox, serve},
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
            admission: Admission::default(),
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
        let (lines, _) = mpsc::channel(1);
        let (drops, _) = mpsc::channel(1);
        let inbox = Inbox {
            requests: sender,
            lines,
            drops,
        };
        tokio::spawn(serve(listener, envelope, Admission::default(), inbox));
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
