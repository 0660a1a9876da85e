//! How connections come to a worker: from its own listeners, or handed over by
//! a worker that is busier.
//!
//! A connection is handed over as a bare socket, which the other worker
//! registers with its own runtime. It is counted there from the moment it is
//! sent, so that two in a row do not take each other's place. No connection is
//! lost on the way: a worker that ends first refuses what comes, which its
//! sender then serves itself, and serves what had come.

use std::{
    net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    pin::pin,
    rc::Rc,
    sync::Arc,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

use super::{
    Listener, Scheme, Worker,
    admission::Admitted,
    load::{Loads, Place},
};
use crate::{counters::Gauge, net};

/// Connections on their way to one worker, at the most. Each of them counts
/// there already, so a worker that does not take them soon gets no more; only
/// where it had far fewer than the others before it got stuck can so many
/// come together. What does not fit stays with who accepted it.
const ON_THE_WAY: usize = 64;

/// The workers, as one that has accepted a connection sees them: how many
/// connections each has, and the way to hand it one. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Workers {
    loads: Loads,
    ways: Arc<[mpsc::Sender<HandedOver>]>,
}

/// A worker's place among the workers.
#[derive(Debug)]
pub struct Seat {
    pub(super) index: usize,
    pub(super) workers: Workers,
    pub(super) inbox: Inbox,
}

/// Where a worker finds the connections that others hand to it.
#[derive(Debug)]
pub(super) struct Inbox(mpsc::Receiver<HandedOver>);

/// A connection on its way to another worker, which counts it already.
#[derive(Debug)]
struct HandedOver {
    socket: StdStream,
    peer: SocketAddr,
    scheme: Scheme,
    place: Place,
    admitted: Admitted,
}

impl Workers {
    /// So many workers, and the seat of each.
    pub fn new(count: usize) -> (Self, Vec<Seat>) {
        let ways = (0..count).map(|_| mpsc::channel(ON_THE_WAY));
        let (ways, inboxes): (Vec<_>, Vec<_>) = ways.unzip();
        let workers = Self {
            loads: Loads::new(count),
            ways: ways.into(),
        };
        let seat = |(index, inbox)| Seat {
            index,
            workers: workers.clone(),
            inbox: Inbox(inbox),
        };
        let seats = inboxes.into_iter().enumerate().map(seat).collect();
        (workers, seats)
    }

    /// How many client connections each worker has, with those on their way
    /// to it.
    pub fn connections(&self) -> impl Iterator<Item = Arc<Gauge>> {
        self.loads.gauges()
    }
}

/// Accepts until the word to drain, but for the times when an operator wants
/// connections refused. What waits in the backlog is taken first: those
/// clients have connected, and not listening any more would reset them.
pub(super) async fn accept(worker: Rc<Worker>, listener: Listener) {
    let Listener {
        socket: mut listener,
        scheme,
    } = listener;
    let mut accepts = worker.control.follow_accepting();
    loop {
        let Ok(live) = TcpListener::from_std(listener) else {
            return;
        };
        worker
            .accept_while_wanted(&live, scheme, &mut accepts)
            .await;
        // Anew after each pause: the runtime would take this one for closed.
        let Ok(still) = live.into_std() else {
            return;
        };
        listener = still;
        worker.empty_backlog(&listener, scheme);
        if worker.draining.is_cancelled() {
            return;
        }
        net::refuse(&listener);
        tokio::select! {
            () = worker.draining.cancelled() => return,
            wanted = accepts.wait_for(|accepts| *accepts) => drop(wanted),
        }
        net::listen_again(&listener);
    }
}

/// Serves what other workers hand over, until the word to drain; what they
/// have sent by then is served as well.
pub(super) async fn take_over(worker: Rc<Worker>, Inbox(mut inbox): Inbox) {
    let until_drained = async {
        while let Some(connection) = inbox.recv().await {
            worker.serve_handed_over(connection);
        }
    };
    worker.draining.run_until_cancelled(until_drained).await;
    // From here on, senders keep theirs.
    inbox.close();
    while let Some(connection) = inbox.recv().await {
        worker.serve_handed_over(connection);
    }
}

impl Worker {
    /// Accepts until the word to drain or to pause.
    async fn accept_while_wanted(
        self: &Rc<Self>,
        listener: &TcpListener,
        scheme: Scheme,
        accepts: &mut watch::Receiver<bool>,
    ) {
        // Made once: to make them means to take locks that workers share.
        let mut draining = pin!(self.draining.cancelled());
        let mut pausing = pin!(accepts.wait_for(|accepts| !accepts));
        loop {
            tokio::select! {
                biased;
                () = &mut draining => return,
                _ = &mut pausing => return,
                (socket, peer, admitted) = self.admission.accept(listener) => {
                    self.serve_or_hand_over(socket, peer, scheme, admitted);
                }
            }
        }
    }

    /// Serves the clients that have connected and not been accepted yet, as far
    /// as there may be more. None is handed over: the other workers may be about to end.
    fn empty_backlog(self: &Rc<Self>, listener: &StdListener, scheme: Scheme) {
        while let Some((socket, peer, admitted)) = self.admission.accept_now(listener) {
            let place = self.workers.loads.take(self.index);
            self.register(socket, peer, scheme, place, admitted);
        }
    }

    /// Serves a connection, or hands it to a worker that has fewer.
    fn serve_or_hand_over(
        self: &Rc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
        scheme: Scheme,
        admitted: Admitted,
    ) {
        let Workers { loads, ways } = &self.workers;
        let chosen = loads.choose(self.index);
        let way = ways.get(chosen).filter(|_| chosen != self.index);
        let Some(way) = way else {
            let place = loads.take(self.index);
            return self.begin(socket, peer, scheme, place, admitted);
        };
        let Ok(socket) = socket.into_std() else {
            return;
        };
        let place = loads.take(chosen);
        let sent = way.try_send(HandedOver {
            socket,
            peer,
            scheme,
            place,
            admitted,
        });
        if let Err(kept) = sent {
            // It ends, or has more on their way than it takes.
            let HandedOver {
                socket,
                peer,
                admitted,
                ..
            } = kept.into_inner();
            self.register(socket, peer, scheme, loads.take(self.index), admitted);
        }
    }

    fn serve_handed_over(self: &Rc<Self>, connection: HandedOver) {
        let HandedOver {
            socket,
            peer,
            scheme,
            place,
            admitted,
        } = connection;
        self.register(socket, peer, scheme, place, admitted);
    }

    /// Serves a connection that the runtime does not know yet.
    fn register(
        self: &Rc<Self>,
        socket: StdStream,
        peer: SocketAddr,
        scheme: Scheme,
        place: Place,
        admitted: Admitted,
    ) {
        if let Ok(socket) = TcpStream::from_std(socket) {
            self.begin(socket, peer, scheme, place, admitted);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        task::LocalSet,
        time::Instant,
    };
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        balance::Algorithm,
        pool::{Writer, state::State},
        proxy::{Control, Limits, Policy, Settings, Shared, Timeouts},
    };

    const LONG: Duration = Duration::from_secs(10);

    fn shared() -> Shared {
        let state = State::new("nodes".parse().unwrap(), vec![], Instant::now());
        let (_, inputs, pool) = Writer::new("nodes".into(), state);
        let settings = Settings {
            frontend: "localnodes".into(),
            backend: "nodes".into(),
            balance: Algorithm::default(),
            cookie: None,
            compression: Vec::new(),
            forwarded: Policy::default(),
            accept_proxy: vec![],
            retries: 0,
            explain: false,
            observe: false,
            redirect_https: None,
            hsts: None,
            timeouts: Timeouts {
                connect: LONG,
                queue: LONG,
                client: LONG,
                server: LONG,
                http_request: LONG,
                keep_alive: LONG,
                tunnel: LONG,
            },
            drain_timeout: LONG,
        };
        Shared {
            settings: Arc::new(settings),
            pool,
            inputs,
            totals: Arc::default(),
            access_log: None,
            ending: Arc::default(),
            draining: CancellationToken::new(),
            control: Control::default(),
            limits: Limits::none(),
            tls: None,
            connector: crate::tls::Connector::new(None, true).unwrap(),
        }
    }

    struct Two {
        busy: Rc<Worker>,
        other: Rc<Worker>,
        inbox: Inbox,
        /// Holds the inbox that nobody hands anything to.
        _own: Inbox,
        draining: CancellationToken,
        listener: TcpListener,
        clients: Vec<TcpStream>,
    }

    impl Two {
        async fn new() -> Self {
            let shared = shared();
            let (_, seats) = Workers::new(2);
            let [busy, other]: [Seat; 2] = seats.try_into().unwrap();
            let worker = |seat: Seat| {
                let worker = Worker::new(seat.index, seat.workers, shared.clone());
                (Rc::new(worker), seat.inbox)
            };
            let ((busy, own), (other, inbox)) = (worker(busy), worker(other));
            Self {
                busy,
                other,
                inbox,
                _own: own,
                draining: shared.draining.clone(),
                listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
                clients: Vec::new(),
            }
        }

        /// So many clients, whose connections the first worker accepts.
        async fn connect(&mut self, clients: usize) {
            for _ in 0..clients {
                let there = self.listener.local_addr().unwrap();
                self.clients.push(TcpStream::connect(there).await.unwrap());
                let (socket, peer) = self.listener.accept().await.unwrap();
                let admitted = self.busy.admission.enter().unwrap();
                let busy = &self.busy;
                busy.serve_or_hand_over(socket, peer, Scheme::Http, admitted);
            }
        }

        fn counts(&self) -> Vec<u32> {
            let loads = self.busy.workers.connections();
            loads.map(|load| load.get()).collect()
        }

        /// How many of the connections each of the workers serves.
        fn served(&self) -> [usize; 2] {
            [&self.busy, &self.other].map(|worker| worker.connections.len())
        }
    }

    #[tokio::test]
    async fn a_worker_that_ends_serves_what_was_handed_over_and_senders_keep_the_rest() {
        let test = async {
            let mut two = Two::new().await;
            two.connect(4).await;
            assert_eq!(two.counts(), [2, 2]);
            assert_eq!(two.served(), [2, 0], "two are on their way");
            two.draining.cancel();
            let Inbox(closed) = std::mem::replace(&mut two.inbox, Inbox(mpsc::channel(1).1));
            take_over(Rc::clone(&two.other), Inbox(closed)).await;
            assert_eq!(two.served(), [2, 2]);
            two.connect(2).await;
            assert_eq!(two.counts(), [4, 2]);
            assert_eq!(two.served(), [4, 2]);
            for client in &mut two.clients {
                client.write_all(b"BAD\r\n\r\n").await.unwrap();
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).await.unwrap();
                assert!(answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
            }
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn what_a_stuck_worker_has_no_room_for_stays() {
        let test = async {
            let mut two = Two::new().await;
            // As if long-lived connections had come while the other was idle.
            let loads = two.busy.workers.loads.clone();
            let _before: Vec<Place> = (0..2 * ON_THE_WAY).map(|_| loads.take(0)).collect();
            two.connect(ON_THE_WAY + 3).await;
            assert_eq!(two.served(), [3, 0]);
            assert_eq!(two.counts(), [2 * ON_THE_WAY as u32 + 3, ON_THE_WAY as u32]);
        };
        LocalSet::new().run_until(test).await;
    }
}
