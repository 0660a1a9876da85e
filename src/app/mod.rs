//! The load balancer as a process: binds everything, builds the parts, wires
//! them, and takes them down in order. The only place that knows all parts.

mod cluster;
mod desks;
mod sockets;

use std::{
    io,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, anyhow};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use self::sockets::busy;
use self::{
    cluster::Cluster,
    desks::Desks,
    sockets::{Addresses, Sockets},
};
use crate::{
    cli::serve::ServeArgs,
    counters::{Counter, Totals, unix_seconds},
    health, host,
    membership::Name,
    pool::{Input, Reader, Writer, state::State},
    proxy::{self, AccessLog, Names, Seat, Shared},
    stats,
    syslog::Syslog,
    tls,
};

/// The frontend's name, which scripts know.
pub const FRONTEND: &str = "localnodes";

/// How long `/readyz` says no, and each answer that its connection ends with
/// it, before connections are refused: whoever asks has a chance to look
/// elsewhere, and no request is on its way when a connection is closed.
const NOTICE: Duration = Duration::from_millis(200);

/// Runs the load balancer until it is told to end.
pub async fn run(args: ServeArgs, syslog: Option<Syslog>) -> anyhow::Result<ExitCode> {
    if args.die_with_parent {
        host::die_with_parent();
    }
    let node = match args.name.clone() {
        Some(name) => name,
        None => host::name().await,
    };
    let workers = args.workers.map_or_else(host::cores, |n| n.get().into());
    let tls = start_tls(&args)?;
    let settings = args.settings().map_err(|why| anyhow!(why))?;
    // All sockets first: a port in use is an error at start, not later.
    let sockets = Sockets::bind(&args, workers)?;
    let addresses = sockets.addresses()?;

    let pool = start_pool(&args, &tls.connector)?;
    let cluster = Cluster::join(&args, &node, sockets.gossip, pool.inputs.clone())?;
    let log = Log::start(&args, &settings, syslog.as_ref())?;
    let shared = share(&args, settings, pool, tls, log.lines)?;
    let (seated, seats) = proxy::Workers::new(workers);
    let desks = Desks {
        args: &args,
        process: process(&node, workers, &addresses),
        cluster: &cluster,
        shared: &shared,
        seated: &seated,
        log_lines_dropped: log.dropped,
    };
    let _socket_files = desks.open(sockets.stats, sockets.admin)?;
    let workers = start_workers(seats, sockets.http, &shared)?;

    info!("tidings {} {addresses}", env!("CARGO_PKG_VERSION"));
    host::told_to_end().await;
    stop_taking(shared).await;
    end(workers.into_iter().chain(log.writer), &cluster).await;
    Ok(ExitCode::SUCCESS)
}

/// Says that the end is near, and a moment later closes the listeners. What is
/// open is finished. The log ends with the last of its senders, of which
/// `shared` has one.
async fn stop_taking(shared: Shared) {
    info!("told to end: taking no new connections, finishing what is open");
    shared.ending.store(true, Relaxed);
    sleep(NOTICE).await;
    shared.draining.cancel();
}

/// Waits for the last request and its line in the log, then says goodbye.
async fn end(threads: impl Iterator<Item = JoinHandle<()>>, cluster: &Cluster) {
    join(threads).await;
    cluster.leave().await;
    info!("ended");
}

/// What all workers share: what they are told, read and count.
fn share(
    args: &ServeArgs,
    settings: proxy::Settings,
    pool: Pool,
    tls: Tls,
    access_log: Option<AccessLog>,
) -> anyhow::Result<Shared> {
    let totals = Arc::<Totals>::default();
    let limits = args.limits(host::max_connections(), Arc::clone(&totals));
    Ok(Shared {
        settings: Arc::new(settings),
        pool: pool.reader,
        inputs: pool.inputs,
        totals,
        access_log,
        ending: Arc::default(),
        draining: CancellationToken::new(),
        control: proxy::Control::default(),
        limits: limits.map_err(|why| anyhow!(why))?,
        tls: tls.server,
        connector: tls.connector,
    })
}

/// The pool: where it is told what happens, and where it is read.
struct Pool {
    inputs: mpsc::Sender<Input>,
    reader: Reader,
}

/// Starts the pool's writer and what feeds it from here: probes and names.
fn start_pool(args: &ServeArgs, connector: &tls::Connector) -> anyhow::Result<Pool> {
    let servers = args.static_servers().map_err(|why| anyhow!(why))?;
    let targets: Vec<(Name, String)> = servers
        .iter()
        .map(|server| (server.name.clone(), server.target.clone()))
        .collect();
    let now = Instant::now();
    let state = State::new(args.service().clone(), servers, now);
    let state = state.with_server_maxconn(args.server_maxconn(), now);
    let state = state.with_slowstart(args.slowstart());
    let (writer, inputs, reader) = Writer::new(args.service().to_string(), state);
    tokio::spawn(writer.run());
    tokio::spawn(health::run(
        reader.clone(),
        inputs.clone(),
        connector.clone(),
    ));
    tokio::spawn(health::resolve::run(targets, inputs.clone()));
    Ok(Pool { inputs, reader })
}

/// TLS on both sides.
struct Tls {
    /// Takes handshakes, if there are to be any.
    server: Option<Arc<tls::Server>>,
    /// Makes connections to servers.
    connector: tls::Connector,
}

/// Reads certificates, and follows them in their files.
fn start_tls(args: &ServeArgs) -> anyhow::Result<Tls> {
    let server = args.tls().map(tls::Server::new).transpose();
    let server = server.map_err(|why| anyhow!(why))?;
    if let Some(server) = &server {
        tokio::spawn(Arc::clone(server).follow());
    }
    let connector = args.connector().map_err(|why| anyhow!(why))?;
    tokio::spawn(connector.clone().follow());
    Ok(Tls { server, connector })
}

/// The access log.
struct Log {
    /// Where lines go in; `None` where none are wanted.
    lines: Option<AccessLog>,
    /// The thread that writes them, until the last sender is gone.
    writer: Option<JoinHandle<()>>,
    /// Lines that found no room, those of syslog included.
    dropped: Arc<Counter>,
}

impl Log {
    fn start(
        args: &ServeArgs,
        settings: &proxy::Settings,
        syslog: Option<&Syslog>,
    ) -> anyhow::Result<Self> {
        let dropped = syslog.map(Syslog::dropped).unwrap_or_default();
        let Some(format) = args.access_log.format() else {
            return Ok(Self {
                lines: None,
                writer: None,
                dropped,
            });
        };
        let names = Names {
            frontend: settings.frontend.clone(),
            backend: settings.backend.clone(),
        };
        let started = match syslog {
            Some(syslog) => AccessLog::to_syslog(format, names, syslog, Arc::clone(&dropped)),
            None => AccessLog::to_stdout(format, names, Arc::clone(&dropped)),
        };
        let (lines, writer) = started.context("cannot start the access log's thread")?;
        Ok(Self {
            lines: Some(lines),
            writer: Some(writer),
            dropped,
        })
    }
}

fn start_workers(
    seats: Vec<Seat>,
    listeners: Vec<Vec<proxy::Listener>>,
    shared: &Shared,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let start = |(seat, listeners)| proxy::spawn(seat, listeners, shared.clone());
    let workers: io::Result<_> = seats.into_iter().zip(listeners).map(start).collect();
    workers.context("cannot start a worker thread")
}

/// Waits for threads in their order: the workers, then the log they write to.
async fn join(threads: impl Iterator<Item = JoinHandle<()>>) {
    let threads: Vec<_> = threads.collect();
    let joined = tokio::task::spawn_blocking(|| {
        for thread in threads {
            // A panic ends the process (profile.release), so there is no
            // error to look at.
            thread.join().ok();
        }
    });
    joined.await.ok();
}

/// The process, as it starts.
fn process(node: &Name, workers: usize, addresses: &Addresses) -> stats::Process {
    stats::Process {
        version: env!("CARGO_PKG_VERSION"),
        node: node.to_string(),
        pid: std::process::id(),
        workers,
        max_descriptors: host::max_descriptors(),
        started: Instant::now(),
        started_unix: unix_seconds(),
        http: addresses.http.iter().map(|(addr, _)| *addr).collect(),
        listeners: addresses.count(),
    }
}
