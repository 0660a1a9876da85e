//! The request path: a worker a core, each with its own listeners, its own
//! runtime, its own connections to servers and its own part of the figures.
//! Workers share the pool's snapshot, the round robin's cursor and the gauges
//! of what goes on now, and nothing else. A new connection may be handed to a
//! worker that has fewer; it stays there.

mod accept;
mod accept_proxy;
mod access_log;
mod admission;
mod ascii;
mod attempts;
#[doc(hidden)]
pub mod bench;
mod body;
mod buffer;
mod compress;
mod connection;
mod control;
mod conversation;
mod date;
mod dial;
mod door;
mod error;
mod exchange;
mod explain;
mod forwarded;
mod heads;
mod http2;
mod last_orders;
mod ledger;
mod load;
mod pieces;
mod places;
mod rate_limit;
mod redirect;
mod retry;
mod service;
mod source;
mod stream;
mod turn;
mod upgrade;
mod upstream;
mod watch;

use std::{
    cell::RefCell,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::{ArcSwap, Cache};
use rand::{SeedableRng, rngs::SmallRng};
use tokio::{
    net::TcpStream,
    runtime::LocalOptions,
    sync::{broadcast::error::RecvError, mpsc},
    task::spawn_local,
    time::{Instant, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::retry::budget::TpsBudget;

pub use self::{
    accept::{Seat, Workers},
    access_log::{AccessLog, Format, Names},
    admission::Admission,
    compress::Coding,
    control::{Clearing, Control, Session, Which},
    door::Scheme,
    forwarded::{ForwardedFor, Policy, source},
    places::Places,
    rate_limit::{Rate, RateLimit},
    upstream::{IDLE, IDLE_PER_SERVER},
    watch::Timeouts,
};
use self::{
    accept::{accept, take_over},
    admission::Admitted,
    buffer::Buffers,
    control::{Connections, Talk},
    date::Date,
    last_orders::LastOrders,
    ledger::Ledger,
    load::Place,
    upstream::Upstreams,
};
use crate::{
    balance::Algorithm,
    cidr::Cidr,
    counters::{Slot, Totals},
    net,
    pool::{Input, Reader, Snapshot},
    tls,
};

/// How the request path behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The frontend's name in logs and statistics.
    pub frontend: String,
    /// The backend's.
    pub backend: String,
    /// How servers take turns.
    pub balance: Algorithm,
    /// The sticky cookie's name; `None` switches stickiness off.
    pub cookie: Option<String>,
    /// Ways to compress responses, the one that is preferred first; none for
    /// leaving them as they are.
    pub compression: Vec<Coding>,
    /// What servers are told of clients.
    pub forwarded: Policy,
    /// The peers whose connections begin with a PROXY header.
    pub accept_proxy: Vec<Cidr>,
    /// Attempts after the first.
    pub retries: u32,
    /// Whether responses say why their request went where it went.
    pub explain: bool,
    /// Whether faults that requests meet are told to the pool.
    pub observe: bool,
    /// The port at which clients who ask without TLS are to ask again; `None`
    /// answers them.
    pub redirect_https: Option<u16>,
    /// The value of `Strict-Transport-Security` over TLS (RFC 6797).
    pub hsts: Option<String>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// How long open requests may take to finish after the word to drain.
    pub drain_timeout: Duration,
}

/// What all workers share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// How to behave.
    pub settings: Arc<Settings>,
    /// The pool.
    pub pool: Reader,
    /// Where faults are reported.
    pub inputs: mpsc::Sender<Input>,
    /// The figures.
    pub totals: Arc<Totals>,
    /// The access log; `None` for none.
    pub access_log: Option<AccessLog>,
    /// The end is near: whoever is answered is told not to ask here again.
    pub ending: Arc<AtomicBool>,
    /// Cancelled: stop accepting, finish what is open, end.
    pub draining: CancellationToken,
    /// What operators ask of the workers.
    pub control: Control,
    /// How much is let in.
    pub limits: Limits,
    /// What takes handshakes, where there are listeners for them.
    pub tls: Option<Arc<tls::Server>>,
    /// Makes connections over TLS to servers.
    pub connector: tls::Connector,
}

/// How much is let in, and who waits for what. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Client connections.
    pub admission: Arc<Admission>,
    /// Requests a second of one source; `None` for any number.
    pub rate: Option<Arc<RateLimit>>,
    /// Requests at servers that take only so many at a time.
    pub places: Places,
}

impl Limits {
    /// None at all, for tests.
    #[cfg(test)]
    fn none() -> Self {
        Self {
            admission: Arc::new(Admission::new(None, None, None, Arc::default())),
            rate: None,
            places: Places::new(0),
        }
    }
}

/// One worker's own things.
struct Worker {
    settings: Arc<Settings>,
    timeouts: Rc<Timeouts>,
    pool: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    reader: Reader,
    inputs: mpsc::Sender<Input>,
    ledger: Ledger,
    access_log: Option<AccessLog>,
    /// Whether anyone wants to know why requests go where they go.
    explains: bool,
    ending: Arc<AtomicBool>,
    draining: CancellationToken,
    last_orders: LastOrders,
    upstreams: Rc<Upstreams>,
    buffers: Rc<Buffers>,
    date: Date,
    budget: TpsBudget,
    rng: RefCell<SmallRng>,
    connections: TaskTracker,
    control: Control,
    tls: Option<Arc<tls::Server>>,
    known: Connections,
    admission: Arc<Admission>,
    rate_limit: Option<Arc<RateLimit>>,
    places: Places,
    /// Which of the workers it is.
    index: usize,
    workers: Workers,
}

/// A socket that clients connect to.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// What is spoken there.
    pub scheme: Scheme,
}

/// An address and what is spoken there.
pub type At = (SocketAddr, Scheme);

/// Binds every address once for each worker, so that a port in use is found
/// out before anything starts. The first index of the result is the worker's.
pub fn bind(addrs: &[At], workers: usize) -> Result<Vec<Vec<Listener>>, (At, io::Error)> {
    // Without this look another process of the same user that shares the
    // port would silently get half of the connections.
    let (mut first, mut probes) = (Vec::new(), Vec::new());
    for at @ (addr, scheme) in addrs {
        let probe = net::bind_alone(*addr).map_err(|err| (*at, err))?;
        first.push((probe.local_addr().map_err(|err| (*at, err))?, *scheme));
        // Kept for now: the same address twice would share its connections.
        probes.push(probe);
    }
    drop(probes);
    let bind_all = |_| {
        let bind_one = |at: &At| {
            let (addr, scheme) = at;
            let socket = net::bind_shared(*addr).map_err(|err| (*at, err))?;
            Ok(Listener {
                socket,
                scheme: *scheme,
            })
        };
        first.iter().map(bind_one).collect()
    };
    (0..workers).map(bind_all).collect()
}

/// Starts one worker on a thread of its own.
pub fn spawn(seat: Seat, listeners: Vec<Listener>, shared: Shared) -> io::Result<JoinHandle<()>> {
    let index = seat.index;
    let serve = move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        match runtime.enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime.block_on(run(seat, listeners, shared)),
            Err(err) => tracing::error!("worker {index} cannot start: {err}"),
        }
    };
    let name = format!("worker-{index}");
    std::thread::Builder::new().name(name).spawn(serve)
}

async fn run(seat: Seat, listeners: Vec<Listener>, shared: Shared) {
    let drain_timeout = shared.settings.drain_timeout;
    let draining = shared.draining.clone();
    let Seat {
        index,
        workers,
        inbox,
    } = seat;
    let worker = Rc::new(Worker::new(index, workers, shared));
    let housekeeping = spawn_local(keep_house(Rc::clone(&worker)));
    let answering = spawn_local(answer(Rc::clone(&worker)));
    let taking_over = spawn_local(take_over(Rc::clone(&worker), inbox));
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| spawn_local(accept(Rc::clone(&worker), listener)))
        .collect();
    draining.cancelled().await;
    worker.last_orders.call();
    for task in accepting.into_iter().chain([taking_over]) {
        task.await.ok();
    }
    worker.connections.close();
    // What is not done by then is cut off when the runtime goes.
    timeout(drain_timeout, worker.connections.wait()).await.ok();
    housekeeping.abort();
    answering.abort();
}

/// Answers what is asked of this worker.
async fn answer(worker: Rc<Worker>) {
    let mut questions = worker.control.hear();
    loop {
        match questions.recv().await {
            Ok(question) => worker.known.answer(question, &worker.ledger),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Closes connections to servers that are not to be used, or not any more, and
/// sees that those who wait for a place hear of changes in the pool.
async fn keep_house(worker: Rc<Worker>) {
    let mut pool = worker.reader.clone();
    let mut known = pool.load();
    let mut moment = interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            () = pool.changed() => {
                let newest = pool.load();
                worker.upstreams.follow(&known, &newest);
                worker.places.follow(&newest);
                known = newest;
            }
            _ = moment.tick() => worker.upstreams.expire(&pool.load(), Instant::now()),
        }
    }
}

impl Worker {
    fn new(index: usize, workers: Workers, shared: Shared) -> Self {
        let ledger = Ledger::new(Slot::new(index), shared.totals);
        let buffers = Rc::default();
        let log = shared.access_log.as_ref();
        let explains = shared.settings.explain || log.is_some_and(AccessLog::explains);
        Self {
            explains,
            timeouts: Rc::new(shared.settings.timeouts),
            settings: shared.settings,
            pool: RefCell::new(shared.pool.cached()),
            reader: shared.pool,
            inputs: shared.inputs,
            upstreams: Rc::new(Upstreams::new(ledger.clone(), &buffers, shared.connector)),
            buffers,
            date: Date::default(),
            ledger,
            access_log: shared.access_log,
            ending: shared.ending,
            draining: shared.draining,
            last_orders: LastOrders::default(),
            budget: retry_budget(),
            rng: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
            connections: TaskTracker::new(),
            control: shared.control,
            tls: shared.tls,
            known: Connections::default(),
            admission: shared.limits.admission,
            rate_limit: shared.limits.rate,
            places: shared.limits.places,
            index,
            workers,
        }
    }

    /// Serves a connection, which is counted until its end.
    fn begin(
        self: &Rc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
        scheme: Scheme,
        place: Place,
        admitted: Admitted,
    ) {
        let talk = Talk::new(&self.control, peer);
        let (worker, known) = (Rc::clone(self), Rc::clone(&talk));
        let serving = async move {
            let _place = (place, admitted);
            door::admit(worker, socket, scheme, known).await;
        };
        let task = spawn_local(self.connections.track_future(serving));
        self.known.add(talk, task.abort_handle());
    }
}

/// Repeating what may have reached a server is kept to a fifth of the
/// requests, so that servers in trouble do not get more to do than healthy
/// ones; the floor lets a crash under light traffic be hidden whole.
fn retry_budget() -> TpsBudget {
    TpsBudget::new(Duration::from_secs(10), 100, 0.2)
}
