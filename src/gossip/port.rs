//! Who calls on the gossip port over TCP, and what for.
//!
//! The first frame tells: a table asks for an exchange (`sync`), a greeting
//! begins a lifeline. Each has room of its own, so that neither thousands of
//! lifelines nor callers that say nothing keep anyone from an exchange.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    frame::{self, Prefix, SMALL, refused, why_refused},
    lifeline::{self, LineNews},
    sync::{self, Request},
    wire::{DropReason, Envelope, Kind},
};
use crate::membership::MemberId;

/// Until a caller has said what it wants and, if an exchange, got it.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// Callers that have not said yet what they want; further ones wait in the
/// backlog. After a restart all agents of a large cluster call at once.
const STRANGERS: usize = 256;
/// Exchanges at a time: each may hold two frames of the largest size, the
/// caller's before it is known to have the key.
const EXCHANGES: usize = 8;
/// Lifelines at a time: one for each member that the table can hold.
const LIFELINES: usize = 4096;
/// After a failed accept, which mostly means that no file is left to open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where to tell what callers want.
#[derive(Debug, Clone)]
pub(super) struct Inbox {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) lines: mpsc::Sender<LineNews>,
    pub(super) drops: mpsc::Sender<Dropped>,
}

/// A frame that was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) from: SocketAddr,
    pub(super) reason: DropReason,
}

/// Answers callers for ever. Dropping it hangs up on all of them.
pub(super) async fn serve(listener: TcpListener, envelope: Arc<Envelope>, inbox: Inbox) {
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    let desk = Arc::new(Desk {
        envelope,
        inbox,
        exchanges: Semaphore::new(EXCHANGES),
        lifelines: Arc::new(Semaphore::new(LIFELINES)),
    });
    let mut calls = JoinSet::new();
    while let Ok(place) = Arc::clone(&strangers).acquire_owned().await {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    calls.spawn(Arc::clone(&desk).take_call(stream, from, place));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = calls.join_next() => {}
        }
    }
}

/// What the calls share.
#[derive(Debug)]
struct Desk {
    envelope: Arc<Envelope>,
    inbox: Inbox,
    exchanges: Semaphore,
    lifelines: Arc<Semaphore>,
}

/// A lifeline that begins: whose it is, and its place among them.
struct Greeted {
    id: MemberId,
    place: OwnedSemaphorePermit,
}

impl Desk {
    async fn take_call(
        self: Arc<Self>,
        mut stream: TcpStream,
        from: SocketAddr,
        place: OwnedSemaphorePermit,
    ) {
        let heard = timeout(DEADLINE, self.hear(&mut stream)).await;
        drop(place);
        // Who failed to say what it wants tries again; a port scanner needs
        // no answer.
        match heard {
            Ok(Ok(Some(Greeted { id, place }))) => {
                lifeline::watch(stream, id, &self.envelope, &self.inbox.lines).await;
                drop(place);
            }
            Ok(Err(error)) => self.tell_dropped(from, &error).await,
            Ok(Ok(None)) | Err(_) => {}
        }
    }

    async fn tell_dropped(&self, from: SocketAddr, error: &io::Error) {
        if let Some(reason) = why_refused(error) {
            // Nobody left to tell: this node has ended.
            self.inbox.drops.send(Dropped { from, reason }).await.ok();
        }
    }

    /// Hears the first frame, and answers it where it asks for an exchange.
    async fn hear(&self, stream: &mut TcpStream) -> io::Result<Option<Greeted>> {
        let prefix = Prefix::read(stream).await?;
        if prefix.length() > SMALL {
            // Only a table is as large; what it takes is bounded by its place.
            let _place = self.exchanges.acquire().await.map_err(io::Error::other)?;
            let opened = frame::read_rest(stream, &self.envelope, prefix).await?;
            self.exchange(stream, opened.kind, &opened.body).await?;
            return Ok(None);
        }
        let opened = frame::read_rest(stream, &self.envelope, prefix).await?;
        if opened.kind == Kind::Lifeline {
            return self.greet(&opened.body).map(Some);
        }
        let _place = self.exchanges.acquire().await.map_err(io::Error::other)?;
        self.exchange(stream, opened.kind, &opened.body).await?;
        Ok(None)
    }

    async fn exchange(&self, stream: &mut TcpStream, kind: Kind, body: &[u8]) -> io::Result<()> {
        if kind != Kind::Table {
            return Err(refused(DropReason::Malformed));
        }
        sync::answer(stream, body, &self.envelope, &self.inbox.requests).await
    }

    fn greet(&self, body: &[u8]) -> io::Result<Greeted> {
        let id = postcard::from_bytes(body).map_err(|_| refused(DropReason::Malformed))?;
        let place = Arc::clone(&self.lifelines).try_acquire_owned();
        let place = place.map_err(io::Error::other)?;
        Ok(Greeted { id, place })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::gossip::wire::{Key, Keyring};

    fn envelope() -> Arc<Envelope> {
        Arc::new(Envelope::new("test".parse().unwrap(), Keyring::default()))
    }

    struct Port {
        addr: SocketAddr,
        lines: mpsc::Receiver<LineNews>,
        drops: mpsc::Receiver<Dropped>,
        _serving: JoinSet<()>,
    }

    async fn open() -> Port {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (requests, _) = mpsc::channel(1);
        let (news, lines) = mpsc::channel(1);
        let (dropped, drops) = mpsc::channel(1);
        let inbox = Inbox {
            requests,
            lines: news,
            drops: dropped,
        };
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, envelope(), inbox));
        Port {
            addr,
            lines,
            drops,
            _serving: serving,
        }
    }

    async fn say(stream: &mut TcpStream, kind: Kind, body: &[u8]) {
        frame::write(stream, &envelope(), kind, body).await.unwrap();
    }

    async fn hung_up(stream: &mut TcpStream) -> bool {
        matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_))
    }

    fn id() -> MemberId {
        MemberId {
            addr: "10.0.0.1:7946".parse().unwrap(),
            epoch: 1,
        }
    }

    async fn lifeline(port: &mut Port) -> TcpStream {
        let mut stream = TcpStream::connect(port.addr).await.unwrap();
        let greeting = postcard::to_allocvec(&id()).unwrap();
        say(&mut stream, Kind::Lifeline, &greeting).await;
        assert_eq!(port.lines.recv().await, Some(LineNews::Opened(id())));
        stream
    }

    #[tokio::test]
    async fn a_line_that_ends_without_a_word_is_told_as_broken() {
        let mut port = open().await;
        drop(lifeline(&mut port).await);
        assert_eq!(port.lines.recv().await, Some(LineNews::Broke(id())));
    }

    #[tokio::test]
    async fn a_line_that_says_goodbye_is_told_as_closed() {
        let mut port = open().await;
        let mut stream = lifeline(&mut port).await;
        say(&mut stream, Kind::Goodbye, &[]).await;
        drop(stream);
        assert_eq!(port.lines.recv().await, Some(LineNews::Closed(id())));
    }

    #[tokio::test]
    async fn anything_unexpected_on_a_line_closes_it() {
        let mut port = open().await;
        for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 1, b'T']] {
            let mut stream = lifeline(&mut port).await;
            stream.write_all(noise).await.unwrap();
            assert!(hung_up(&mut stream).await);
            assert_eq!(port.lines.recv().await, Some(LineNews::Closed(id())));
        }
    }

    #[tokio::test]
    async fn who_wants_nothing_known_is_hung_up_on_and_told_of() {
        let mut port = open().await;
        for (kind, body) in [
            (Kind::Foca, &[][..]),
            (Kind::Goodbye, &[]),
            (Kind::Lifeline, b"?"),
        ] {
            let mut stream = TcpStream::connect(port.addr).await.unwrap();
            say(&mut stream, kind, body).await;
            assert!(hung_up(&mut stream).await);
            let from = stream.local_addr().unwrap();
            let reason = DropReason::Malformed;
            assert_eq!(port.drops.recv().await, Some(Dropped { from, reason }));
        }
    }

    #[tokio::test]
    async fn a_frame_of_another_key_or_too_large_is_told_with_the_reason() {
        let mut port = open().await;
        let keyring = std::iter::once(Key::generate()).collect();
        let keyed = Envelope::new("test".parse().unwrap(), keyring);
        let keyed = keyed.seal_frame(Kind::Table, &[]).unwrap();
        for (frame, reason) in [
            (&keyed[..], DropReason::BadKey),
            (&[0xff; 4], DropReason::Oversized),
        ] {
            let mut stream = TcpStream::connect(port.addr).await.unwrap();
            stream.write_all(frame).await.unwrap();
            let dropped = port.drops.recv().await.unwrap();
            assert_eq!(dropped.reason, reason);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_hung_up_on_after_five_seconds() {
        let port = open().await;
        let mut stream = TcpStream::connect(port.addr).await.unwrap();
        let called = tokio::time::Instant::now();
        assert!(hung_up(&mut stream).await);
        assert!(called.elapsed() >= DEADLINE);
    }

    #[tokio::test]
    async fn dropping_the_port_hangs_up_on_every_line() {
        let mut port = open().await;
        let mut stream = lifeline(&mut port).await;
        drop(port);
        assert!(hung_up(&mut stream).await);
    }
}
