//! The load balancer as a process: binds everything, builds the parts, wires
//! them, and takes them down in order. The only place that knows all parts.

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, anyhow};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    cli::serve::{LogFormat, ServeArgs},
    counters::{Counter, unix_seconds},
    gossip, health, host, keys,
    membership::{MemberEvent, Meta, Role},
    net,
    pool::{Input, Writer, state::State},
    proxy::{self, AccessLog, Shared},
    stats,
};

/// The frontend's name, which scripts know.
pub const FRONTEND: &str = "localnodes";

/// How long `/readyz` says no before connections are refused, so that whoever
/// asks it has a chance to look elsewhere.
const NOTICE: Duration = Duration::from_millis(200);

/// Member events on their way to the pool. Gossip keeps what does not fit.
const MEMBER_EVENTS: usize = 256;

/// Runs the load balancer until it is told to end.
pub async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    if args.die_with_parent {
        host::die_with_parent();
    }
    let servers = args.static_servers().map_err(|why| anyhow!(why))?;
    let node = args.name.clone().unwrap_or_else(host::name);
    let workers = args.workers.map_or_else(host::cores, |n| n.get().into());
    let keyring = keys::keyring(&args.gossip_args)?;
    // All sockets first: a port in use is an error at start, not later.
    let listeners =
        proxy::bind(&args.http, workers).map_err(|(addr, err)| busy("--http", addr, &err))?;
    let stats_listener =
        net::bind_alone(args.stats).map_err(|err| busy("--stats", args.stats, &err))?;
    let sockets =
        gossip::Sockets::bind(args.gossip).map_err(|err| busy("--gossip", args.gossip, &err))?;
    let http: Vec<SocketAddr> = listeners
        .first()
        .into_iter()
        .flatten()
        .filter_map(|listener| listener.local_addr().ok())
        .collect();
    let stats_addr = stats_listener.local_addr()?;
    let gossip_addr = sockets.local_addr()?;

    let targets: Vec<(crate::membership::Name, String)> = servers
        .iter()
        .map(|s| (s.name.clone(), s.target.clone()))
        .collect();
    let state = State::new(args.service().clone(), servers, Instant::now());
    let (writer, inputs, pool) = Writer::new(args.service().to_string(), state);
    tokio::spawn(writer.run());
    tokio::spawn(health::run(pool.clone(), inputs.clone()));
    tokio::spawn(health::resolve::run(targets, inputs.clone()));

    let gossip_settings = GossipSettings {
        node: node.clone(),
        keyring,
    };
    let keyed = !gossip_settings.keyring.is_plain();
    let gossip = Arc::new(OnceLock::new());
    tokio::spawn(join_cluster(
        args.clone(),
        gossip_settings,
        sockets,
        inputs.clone(),
        Arc::clone(&gossip),
    ));

    let log_dropped = Arc::new(Counter::default());
    let (access_log, log_writer) = start_log(args.access_log, &log_dropped)?;
    let draining = CancellationToken::new();
    let shared = Shared {
        settings: Arc::new(args.settings()),
        pool: pool.clone(),
        inputs,
        totals: Arc::default(),
        access_log,
        draining: draining.clone(),
    };
    let facts = Facts {
        node,
        workers,
        http: http.clone(),
        keyed,
        log_dropped,
    };
    let source = statistics(&args, facts, &shared, Arc::clone(&gossip));
    let not_ready = Arc::clone(&source.draining);
    let stats_listener = tokio::net::TcpListener::from_std(stats_listener)?;
    tokio::spawn(stats::sample(Arc::clone(&source)));
    tokio::spawn(stats::server::run(
        stats_listener,
        source,
        std::future::pending(),
    ));

    let workers = spawn_workers(listeners, shared)?;
    info!(
        "tidings {} takes requests on {}, shows itself on http://{stats_addr}/ and gossips on {gossip_addr}",
        env!("CARGO_PKG_VERSION"),
        list(&http),
    );
    host::told_to_end().await;

    not_ready.store(true, Relaxed);
    info!("told to end: taking no new connections, finishing what is open");
    sleep(NOTICE).await;
    draining.cancel();
    finish(workers, log_writer).await;
    if let Some(gossip) = gossip.get() {
        gossip.leave().await;
    }
    info!("ended");
    Ok(ExitCode::SUCCESS)
}

/// One line for an address that cannot be bound.
pub fn busy(flag: &str, addr: SocketAddr, err: &std::io::Error) -> anyhow::Error {
    let hint = match err.kind() {
        std::io::ErrorKind::AddrInUse => "stop what listens there, or choose another port",
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need privilege: choose another, such as 8080"
        }
        std::io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        _ => "choose another address",
    };
    anyhow!("{flag} {addr} cannot be used: {err}; {hint}")
}

struct GossipSettings {
    node: crate::membership::Name,
    keyring: gossip::Keyring,
}

struct Facts {
    node: crate::membership::Name,
    workers: usize,
    http: Vec<SocketAddr>,
    keyed: bool,
    log_dropped: Arc<Counter>,
}

/// Takes part in gossip as soon as our own address is known; requests do not
/// wait for that.
async fn join_cluster(
    args: ServeArgs,
    settings: GossipSettings,
    sockets: gossip::Sockets,
    inputs: mpsc::Sender<Input>,
    started: Arc<OnceLock<gossip::Handle>>,
) {
    let advertise = advertised(&args).await;
    let settings = gossip::Settings {
        advertise,
        cluster: args.gossip_args.cluster.clone(),
        keyring: settings.keyring,
        seeds: args.join.clone(),
        meta: Meta {
            name: settings.node,
            role: Role::Balancer,
        },
    };
    let (sender, events) = mpsc::channel(MEMBER_EVENTS);
    match gossip::spawn(sockets, settings, sender) {
        Ok(handle) => {
            info!("known to the cluster as {}", handle.local().addr);
            tokio::spawn(keys::follow(args.gossip_args, handle.clone()));
            // Only this task sets it.
            started.set(handle).ok();
            pass_on(events, inputs).await;
        }
        Err(err) => warn!("gossip cannot start, so no server can join: {err}; see --advertise"),
    }
}

async fn advertised(args: &ServeArgs) -> SocketAddr {
    // Port 0 stands for the one that gossip is bound to.
    let port = args.advertise.and_then(|addr| addr.port).unwrap_or(0);
    match args.advertise {
        Some(addr) => SocketAddr::new(addr.ip, port),
        None if !args.gossip.ip().is_unspecified() => SocketAddr::new(args.gossip.ip(), port),
        None => SocketAddr::new(gossip::local_address(&args.join).await, port),
    }
}

async fn pass_on(mut events: mpsc::Receiver<MemberEvent>, inputs: mpsc::Sender<Input>) {
    while let Some(event) = events.recv().await {
        if inputs.send(Input::Member(event)).await.is_err() {
            return;
        }
    }
}

fn start_log(
    format: LogFormat,
    dropped: &Arc<Counter>,
) -> anyhow::Result<(Option<AccessLog>, Option<JoinHandle<()>>)> {
    match format {
        LogFormat::Off => Ok((None, None)),
        LogFormat::Httplog => {
            let (log, writer) = AccessLog::start(std::io::stdout(), Arc::clone(dropped))
                .context("cannot start the access log's thread")?;
            Ok((Some(log), Some(writer)))
        }
    }
}

fn spawn_workers(
    listeners: Vec<Vec<std::net::TcpListener>>,
    shared: Shared,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let spawn = |(index, listeners)| proxy::spawn(index, listeners, shared.clone());
    let workers: std::io::Result<_> = listeners.into_iter().enumerate().map(spawn).collect();
    workers.context("cannot start a worker thread")
}

/// Waits for the workers, and then for the last line of the log.
async fn finish(workers: Vec<JoinHandle<()>>, log: Option<JoinHandle<()>>) {
    let all = workers.into_iter().chain(log);
    let joined = tokio::task::spawn_blocking(move || {
        for thread in all {
            // A panic ends the process (profile.release), so there is no
            // error to look at.
            thread.join().ok();
        }
    });
    joined.await.ok();
}

fn statistics(
    args: &ServeArgs,
    facts: Facts,
    shared: &Shared,
    gossip: Arc<OnceLock<gossip::Handle>>,
) -> Arc<stats::Source> {
    let members = Arc::clone(&gossip);
    Arc::new(stats::Source {
        pool: shared.pool.clone(),
        totals: Arc::clone(&shared.totals),
        service: args.service().clone(),
        balance: shared.settings.balance.as_str(),
        cookie: shared.settings.cookie.clone(),
        max_connections: None,
        process: stats::Process {
            version: env!("CARGO_PKG_VERSION"),
            node: facts.node.to_string(),
            pid: std::process::id(),
            workers: facts.workers,
            started: Instant::now(),
            started_unix: unix_seconds(),
            http: facts.http,
        },
        members: Box::new(move || {
            members
                .get()
                .map_or_else(Arc::default, gossip::Handle::members)
        }),
        figures: Vec::new(),
        gossip_keyed: facts.keyed,
        log_lines_dropped: facts.log_dropped,
        draining: Arc::new(AtomicBool::new(false)),
        auth: args
            .stats_auth
            .clone()
            .map(|auth| (auth.user, auth.password)),
    })
}

fn list(addrs: &[SocketAddr]) -> String {
    let urls: Vec<String> = addrs.iter().map(|addr| format!("http://{addr}/")).collect();
    urls.join(" ")
}
