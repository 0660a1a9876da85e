//! The load balancer as a process: binds everything, builds the parts, wires
//! them, and takes them down in order. The only place that knows all parts.

mod cluster;
mod sockets;

use std::{
    io,
    net::TcpListener,
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
    cluster::{Gossip, declare, join_cluster, list_members},
    sockets::{Addresses, Sockets},
};
use crate::{
    admin,
    cli::serve::ServeArgs,
    counters::{Counter, Totals, unix_seconds},
    gossip, health, host, keys,
    membership::{Meta, Name, Role},
    pool::{Input, Reader, Writer, state::State},
    proxy::{self, AccessLog, Format, Names, Seat, Shared},
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
    let (tls, connector) = start_tls(&args)?;
    let settings = args.settings().map_err(|why| anyhow!(why))?;
    // All sockets first: a port in use is an error at start, not later.
    let sockets = Sockets::bind(&args, workers)?;
    let addresses = sockets.addresses()?;

    let (inputs, pool) = start_pool(&args, &connector)?;
    let keyring = keys::keyring(&args.gossip_args)?;
    let keyed = !keyring.is_plain();
    let gossip = Gossip::default();
    let in_cluster = gossip::Settings {
        advertise: args.gossip,
        found: args.advertise.is_none() && args.gossip.ip().is_unspecified(),
        cluster: args.gossip_args.cluster.clone(),
        keyring,
        admission: args.gossip_args.admission(),
        seeds: args.join.clone(),
        meta: Meta {
            name: node.clone(),
            role: Role::Balancer,
        },
    };
    let members = inputs.clone();
    tokio::spawn(join_cluster(
        args.clone(),
        in_cluster,
        sockets.gossip,
        members,
        gossip.clone(),
    ));

    let (limits, totals) = limits(&args)?;
    let log_dropped = syslog.as_ref().map(Syslog::dropped).unwrap_or_default();
    let format = args.access_log.format();
    let (access_log, log_writer) = start_log(format, &settings, syslog.as_ref(), &log_dropped)?;
    let shared = Shared {
        settings: Arc::new(settings),
        pool,
        inputs,
        totals,
        access_log,
        ending: Arc::default(),
        draining: CancellationToken::new(),
        control: proxy::Control::default(),
        limits,
        tls: tls.clone(),
        connector,
    };
    let (seated, seats) = proxy::Workers::new(workers);
    let ending = Arc::clone(&shared.ending);
    let source = Arc::new(stats::Source {
        pool: shared.pool.clone(),
        totals: Arc::clone(&shared.totals),
        service: args.service().clone(),
        balance: shared.settings.balance.as_str(),
        cookie: shared.settings.cookie.clone(),
        admission: Arc::clone(&shared.limits.admission),
        maxqueue: args.maxqueue(),
        process: process(&node, workers, &addresses),
        members: list_members(gossip.clone()),
        figures: figures(&gossip, &seated, tls.as_ref()),
        figures_of_the_moment: tls.into_iter().map(stats::certificate_figures).collect(),
        gossip_keyed: keyed,
        history: stats::History::default(),
        log_lines_dropped: log_dropped,
        draining: Arc::clone(&ending),
        accepts: accepts(shared.control.clone()),
        declare: args.stats_admin.then(|| declare(gossip.clone())),
        auth: args
            .stats_auth
            .clone()
            .map(|auth| (auth.user, auth.password)),
    });
    start_statistics(sockets.stats, Arc::clone(&source))?;
    let declare = declare(gossip.clone());
    let controls = Arc::new(admin::Controls {
        source,
        declare,
        inputs: shared.inputs.clone(),
        workers: shared.control.clone(),
    });
    let _socket_files = admin::start(sockets.admin, args.admin_level, &controls)?;

    let draining = shared.draining.clone();
    let workers = start_workers(seats, sockets.http, &shared)?;
    // The log ends with the last of its senders.
    drop(shared);
    info!("tidings {} {addresses}", env!("CARGO_PKG_VERSION"));
    host::told_to_end().await;

    info!("told to end: taking no new connections, finishing what is open");
    ending.store(true, Relaxed);
    sleep(NOTICE).await;
    draining.cancel();
    end(workers.into_iter().chain(log_writer), &gossip).await;
    Ok(ExitCode::SUCCESS)
}

/// Waits for the last request and its line in the log, then says goodbye.
async fn end(threads: impl Iterator<Item = JoinHandle<()>>, gossip: &Gossip) {
    join(threads).await;
    if let Some(gossip) = gossip.get() {
        gossip.leave().await;
    }
    info!("ended");
}

/// How much is let in, and the figures that it counts into.
fn limits(args: &ServeArgs) -> anyhow::Result<(proxy::Limits, Arc<Totals>)> {
    let totals = Arc::<Totals>::default();
    let limits = args.limits(host::max_connections(), Arc::clone(&totals));
    Ok((limits.map_err(|why| anyhow!(why))?, totals))
}

/// Starts the pool's writer and what feeds it from here: probes and names.
fn start_pool(
    args: &ServeArgs,
    connector: &tls::Connector,
) -> anyhow::Result<(mpsc::Sender<Input>, Reader)> {
    let servers = args.static_servers().map_err(|why| anyhow!(why))?;
    let targets: Vec<(Name, String)> = servers
        .iter()
        .map(|server| (server.name.clone(), server.target.clone()))
        .collect();
    let now = Instant::now();
    let state = State::new(args.service().clone(), servers, now);
    let state = state.with_server_maxconn(args.server_maxconn(), now);
    let (writer, inputs, pool) = Writer::new(args.service().to_string(), state);
    tokio::spawn(writer.run());
    tokio::spawn(health::run(pool.clone(), inputs.clone(), connector.clone()));
    tokio::spawn(health::resolve::run(targets, inputs.clone()));
    Ok((inputs, pool))
}

/// Reads certificates, and follows them in their files: what takes handshakes,
/// if there are to be any, and what makes connections over TLS to servers.
fn start_tls(args: &ServeArgs) -> anyhow::Result<(Option<Arc<tls::Server>>, tls::Connector)> {
    let tls = args.tls().map(tls::Server::new).transpose();
    let tls = tls.map_err(|why| anyhow!(why))?;
    if let Some(tls) = &tls {
        tokio::spawn(Arc::clone(tls).follow());
    }
    let connector = args.connector().map_err(|why| anyhow!(why))?;
    tokio::spawn(connector.clone().follow());
    Ok((tls, connector))
}

/// What parts of the process count that are none of the statistics'.
fn figures(
    gossip: &Gossip,
    seated: &proxy::Workers,
    tls: Option<&Arc<tls::Server>>,
) -> Vec<stats::Figure> {
    stats::gossip_figures(gossip)
        .into_iter()
        .chain(stats::worker_figures(seated))
        .chain(tls.into_iter().flat_map(stats::handshake_figures))
        .collect()
}

fn start_log(
    format: Option<Format>,
    settings: &proxy::Settings,
    syslog: Option<&Syslog>,
    dropped: &Arc<Counter>,
) -> anyhow::Result<(Option<AccessLog>, Option<JoinHandle<()>>)> {
    let Some(format) = format else {
        return Ok((None, None));
    };
    let names = Names {
        frontend: settings.frontend.clone(),
        backend: settings.backend.clone(),
    };
    let dropped = Arc::clone(dropped);
    let started = match syslog {
        Some(syslog) => AccessLog::to_syslog(format, names, syslog, dropped),
        None => AccessLog::to_stdout(format, names, dropped),
    };
    let (log, writer) = started.context("cannot start the access log's thread")?;
    Ok((Some(log), Some(writer)))
}

fn start_statistics(listener: TcpListener, source: Arc<stats::Source>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::spawn(stats::sample(Arc::clone(&source)));
    tokio::spawn(stats::run(listener, source, std::future::pending()));
    Ok(())
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

fn accepts(control: proxy::Control) -> stats::Accepts {
    Box::new(move || control.is_accepting())
}
