//! Who calls on the gossip port over TCP, and what for.
//!
//! The first frame tells: a table asks for an exchange (`sync`), a greeting
//! begins a lifeline. Each has room of its own, so that neither thousands of
//! lifelines nor callers that say nothing keep anyone from an exchange; of each
//! kind one host gets half (`hosts`).
//!
//! Before a frame is authenticated it takes at most its own length: 512 bytes
//! for a stranger, 2 MiB for each of the eight that are in an exchange. Nothing
//! is kept of it, and who has not said it in five seconds is hung up on.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    admission::Admission,
    frame::{self, Prefix, SMALL, refused, why_refused},
    hosts::{Host, Hosts},
    lifeline::{self, LineNews},
    sync::{self, Request},
    wire::{DropReason, Envelope, Kind},
};
use crate::membership::MemberId;

/// Until a caller has said what it wants and, if an exchange, got it.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// Callers that have not said yet what they want; further ones wait in the
/// backlog. After a restart all agents of a large cluster call at once.
pub(super) const STRANGERS: usize = 256;
/// Exchanges at a time: each may hold two frames of the largest size, the
/// caller's before it is known to have the key.
pub(super) const EXCHANGES: usize = 8;
/// Lifelines at a time: one for each member that the table can hold.
pub(super) const LIFELINES: usize = 4096;
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
pub(super) async fn serve(
    listener: TcpListener,
    envelope: Arc<Envelope>,
    admission: Admission,
    inbox: Inbox,
) {
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    let desk = Arc::new(Desk {
        envelope,
        admission,
        inbox,
        exchanges: Semaphore::new(EXCHANGES),
        lifelines: Arc::new(Semaphore::new(LIFELINES)),
    });
    let mut hosts = Hosts::default();
    let mut calls = JoinSet::new();
    while let Ok(place) = Arc::clone(&strangers).acquire_owned().await {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => match desk.receive(&stream, from, &mut hosts) {
                    Ok(caller) => {
                        calls.spawn(Arc::clone(&desk).take_call(stream, caller, place));
                    }
                    Err(reason) => desk.tell_turned_away(from, reason),
                },
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
    admission: Admission,
    inbox: Inbox,
    exchanges: Semaphore,
    lifelines: Arc<Semaphore>,
}

/// Who calls.
struct Caller {
    from: SocketAddr,
    /// Which of this node's addresses is called.
    own: IpAddr,
    host: Arc<Host>,
    /// Its place among the strangers of its host.
    stranger: OwnedSemaphorePermit,
}

/// A lifeline that begins: whose it is, and its place among them and among
/// those of its host.
struct Greeted {
    id: MemberId,
    places: [OwnedSemaphorePermit; 2],
}

impl Desk {
    /// Whether to hear a caller at all.
    fn receive(
        &self,
        stream: &TcpStream,
        from: SocketAddr,
        hosts: &mut Hosts,
    ) -> Result<Caller, DropReason> {
        let ip = from.ip().to_canonical();
        let own = stream
            .local_addr()
            .map_or(ip, |own| own.ip().to_canonical());
        if !self.admission.admits(ip, own) {
            return Err(DropReason::Source);
        }
        let host = hosts.at(ip);
        let stranger = Arc::clone(&host.strangers).try_acquire_owned();
        Ok(Caller {
            from,
            own,
            stranger: stranger.map_err(|_| DropReason::Crowded)?,
            host,
        })
    }

    async fn take_call(
        self: Arc<Self>,
        mut stream: TcpStream,
        caller: Caller,
        place: OwnedSemaphorePermit,
    ) {
        let heard = timeout(DEADLINE, self.hear(&mut stream, &caller)).await;
        drop(place);
        let Caller {
            from,
            stranger,
            host: _host,
            ..
        } = caller;
        drop(stranger);
        // Who failed to say what it wants tries again; a port scanner needs
        // no answer.
        match heard {
            Ok(Ok(Some(Greeted { id, places }))) => {
                lifeline::watch(stream, id, &self.envelope, &self.inbox.lines).await;
                drop(places);
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

    /// Whom to accept next does not wait for this to be counted.
    fn tell_turned_away(&self, from: SocketAddr, reason: DropReason) {
        self.inbox.drops.try_send(Dropped { from, reason }).ok();
    }

    /// Hears the first frame, and answers it where it asks for an exchange.
    async fn hear(&self, stream: &mut TcpStream, caller: &Caller) -> io::Result<Option<Greeted>> {
        let prefix = Prefix::read(stream).await?;
        if prefix.length() > SMALL {
            // Only a table is as large; what it takes is bounded by its place.
            let _places = self.place_for_exchange(caller).await?;
            let opened = frame::read_rest(stream, &self.envelope, prefix).await?;
            self.exchange(stream, opened.kind, &opened.body).await?;
            return Ok(None);
        }
        let opened = frame::read_rest(stream, &self.envelope, prefix).await?;
        if opened.kind == Kind::Lifeline {
            return self.greet(&opened.body, caller).map(Some);
        }
        let _places = self.place_for_exchange(caller).await?;
        self.exchange(stream, opened.kind, &opened.body).await?;
        Ok(None)
    }

    /// Waits for a place among those of its host first: one host that asks
    /// for much keeps no other waiting.
    async fn place_for_exchange<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> io::Result<[SemaphorePermit<'a>; 2]> {
        let of_host = caller.host.exchanges.acquire().await;
        let of_all = self.exchanges.acquire().await;
        Ok([
            of_host.map_err(io::Error::other)?,
            of_all.map_err(io::Error::other)?,
        ])
    }

    async fn exchange(&self, stream: &mut TcpStream, kind: Kind, body: &[u8]) -> io::Result<()> {
        if kind != Kind::Table {
            return Err(refused(DropReason::Malformed));
        }
        sync::answer(stream, body, &self.envelope, &self.inbox.requests).await
    }

    fn greet(&self, body: &[u8], caller: &Caller) -> io::Result<Greeted> {
        let id: MemberId =
            postcard::from_bytes(body).map_err(|_| refused(DropReason::Malformed))?;
        if !self.admission.admits(id.addr.ip(), caller.own) {
            return Err(refused(DropReason::Claim));
        }
        let place = |of: &Arc<Semaphore>| {
            let place = Arc::clone(of).try_acquire_owned();
            place.map_err(|_| refused(DropReason::Crowded))
        };
        let places = [place(&caller.host.lifelines)?, place(&self.lifelines)?];
        Ok(Greeted { id, places })
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
        open_to(Admission::default()).await
    }

    async fn open_to(admission: Admission) -> Port {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let addr = ([127, 0, 0, 1], listener.local_addr().unwrap().port()).into();
        let (requests, _) = mpsc::channel(1);
        let (news, lines) = mpsc::channel(1);
        let (dropped, drops) = mpsc::channel(1);
        let inbox = Inbox {
            requests,
            lines: news,
            drops: dropped,
        };
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, envelope(), admission, inbox));
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

    #[tokio::test]
    async fn a_caller_from_an_address_that_is_not_admitted_is_hung_up_on_at_once() {
        let ranges = vec!["10.0.0.0/8".parse().unwrap()];
        let mut port = open_to(Admission::Only(ranges)).await;
        let mut stream = TcpStream::connect(port.addr).await.unwrap();
        assert!(hung_up(&mut stream).await);
        let dropped = port.drops.recv().await.unwrap();
        assert_eq!(dropped.reason, DropReason::Source);
    }

    #[tokio::test]
    async fn a_lifeline_of_a_node_that_is_not_admitted_is_refused() {
        let mut port = open().await;
        let elsewhere = MemberId {
            addr: "203.0.113.9:7946".parse().unwrap(),
            epoch: 1,
        };
        let mut stream = TcpStream::connect(port.addr).await.unwrap();
        let greeting = postcard::to_allocvec(&elsewhere).unwrap();
        say(&mut stream, Kind::Lifeline, &greeting).await;
        assert!(hung_up(&mut stream).await);
        let dropped = port.drops.recv().await.unwrap();
        assert_eq!(dropped.reason, DropReason::Claim);
    }

    #[tokio::test]
    async fn a_host_that_calls_over_and_over_leaves_places_to_others() {
        let mut port = open().await;
        let mut silent = Vec::new();
        for _ in 0..STRANGERS / 2 {
            silent.push(TcpStream::connect(port.addr).await.unwrap());
        }
        let mut further = TcpStream::connect(port.addr).await.unwrap();
        assert!(hung_up(&mut further).await);
        let dropped = port.drops.recv().await.unwrap();
        assert_eq!(dropped.reason, DropReason::Crowded);
        // Another host: another loopback address.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = socket.connect(port.addr).await.unwrap();
        let greeting = postcard::to_allocvec(&id()).unwrap();
        say(&mut other, Kind::Lifeline, &greeting).await;
        assert_eq!(port.lines.recv().await, Some(LineNews::Opened(id())));
        drop(silent);
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
