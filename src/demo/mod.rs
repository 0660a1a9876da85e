//! The demo: a load balancer and three toy servers that joined it by gossip,
//! on this machine, as processes of their own, so that they can be killed.

mod guide;
pub mod toy;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    pin::pin,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::ValueEnum;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    agent::child::{Child, Exit, Reaper},
    app::busy,
    cli::{out, serve::LogFormat},
    gossip::{Key, Sockets},
    host, net,
};

/// The servers: each has an address of its own, as containers have.
const SERVERS: [(&str, Ipv4Addr); 3] = [
    ("s1", Ipv4Addr::new(127, 0, 0, 11)),
    ("s2", Ipv4Addr::new(127, 0, 0, 12)),
    ("s3", Ipv4Addr::new(127, 0, 0, 13)),
];

/// The port of every server, as in the lab.
const APP_PORT: u16 = 3000;

/// How long all may take to start and to find each other.
const START: Duration = Duration::from_secs(15);

/// How often it is looked whether all are there.
const POLL: Duration = Duration::from_millis(50);

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(1);

/// The largest answer of a toy server that is read.
const MAX_ANSWER: usize = 4096;

/// How long the servers may take to end: a drain of a second, and then some.
const STOP_SERVERS: Duration = Duration::from_secs(8);

/// How long the load balancer may take to end.
const STOP_BALANCER: Duration = Duration::from_secs(4);

/// How long what was killed may take to be gone.
const KILL: Duration = Duration::from_secs(1);

/// Where the demo is to be found.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the load balancer takes requests.
    pub http: SocketAddr,
    /// Where it shows statistics.
    pub stats: SocketAddr,
    /// Where it takes runtime commands.
    pub admin: SocketAddr,
    /// Where it speaks gossip; the servers do at the same port.
    pub gossip: SocketAddr,
    /// Whether each request is logged to stdout.
    pub access_log: LogFormat,
}

/// Runs the demo until it is told to end. Takes the end of every child of
/// this process.
pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    check_free(&settings)?;
    let program = std::env::current_exe().context("this program's own path")?;
    let reaper = Reaper::new().context("the ends of children cannot be seen")?;
    let key = Key::generate().to_string();
    let mut cast = Cast {
        reaper,
        running: BTreeMap::new(),
    };
    let ended = play(&mut cast, &settings, &program, &key).await;
    tokio::select! {
        () = cast.stop() => {}
        // Asked a second time: at once.
        () = host::told_to_end() => {}
    }
    cast.kill().await;
    ended.map(|()| ExitCode::SUCCESS)
}

/// From the start to the signal that ends it.
async fn play(
    cast: &mut Cast,
    settings: &Settings,
    program: &PathBuf,
    key: &str,
) -> anyhow::Result<()> {
    let mut told = pin!(host::told_to_end());
    cast.start(settings, program, key)?;
    let apps = tokio::select! {
        () = &mut told => return Ok(()),
        (name, exit) = cast.next_end() => bail!("{name} ended with {exit} at its start"),
        apps = timeout(START, all_answer(settings.http)) => apps.map_err(|_| {
            anyhow!("not every server answered at {} in {START:?}", guide::url(settings.http))
        })?,
    };
    let text = guide::text(settings, program, key, &cast.pids(), &apps);
    out::write(&text)?;
    loop {
        tokio::select! {
            () = &mut told => return Ok(()),
            (name, exit) = cast.next_end() => {
                if name == BALANCER {
                    bail!("the load balancer ended with {exit}");
                }
            }
        }
    }
}

/// Looks at every port before anything starts: one clear line is better than
/// four processes that complain.
fn check_free(settings: &Settings) -> anyhow::Result<()> {
    for (flag, addr) in [
        ("--http", settings.http),
        ("--stats", settings.stats),
        ("--admin", settings.admin),
    ] {
        let free = net::bind_alone(addr).map(drop);
        free.map_err(|err| taken(flag, addr, addr, &err))?;
    }
    let free = Sockets::bind(settings.gossip).map(drop);
    free.map_err(|err| taken("--gossip", settings.gossip, settings.gossip, &err))?;
    for (name, ip) in SERVERS {
        let gossip = SocketAddr::new(ip.into(), settings.gossip.port());
        let free = Sockets::bind(gossip).map(drop);
        free.map_err(|err| taken("--gossip", settings.gossip, gossip, &err))?;
        let app = SocketAddr::new(ip.into(), APP_PORT);
        let free = net::bind_alone(app).map(drop);
        free.map_err(|err| busy(&format!("server {name} at"), app, &err))?;
    }
    Ok(())
}

/// One line for `addr`, which the value `given` of a flag needs.
fn taken(flag: &str, given: SocketAddr, addr: SocketAddr, err: &io::Error) -> anyhow::Error {
    if err.kind() != io::ErrorKind::AddrInUse {
        return busy(flag, addr, err);
    }
    let mut other = given;
    other.set_port(given.port().checked_add(1).unwrap_or(8080));
    anyhow!(
        "{flag} {addr} is in use: stop what listens there or give another, \
         for example {flag} {other}"
    )
}

/// What the load balancer is called.
const BALANCER: &str = "ha";

/// The processes of the demo.
struct Cast {
    reaper: Reaper,
    running: BTreeMap<&'static str, Child>,
}

impl Cast {
    /// Starts the load balancer and the servers.
    fn start(&mut self, settings: &Settings, program: &PathBuf, key: &str) -> anyhow::Result<()> {
        self.spawn(BALANCER, balancer(settings, program), key)?;
        for (name, ip) in SERVERS {
            self.spawn(name, server(settings, program, name, ip), key)?;
        }
        Ok(())
    }

    fn spawn(&mut self, name: &'static str, mut command: Command, key: &str) -> anyhow::Result<()> {
        // What the environment says is meant for the real thing.
        let tidings = |name: &OsStr| name.to_string_lossy().starts_with("TIDINGS_");
        for (variable, _) in std::env::vars_os().filter(|(variable, _)| tidings(variable)) {
            command.env_remove(variable);
        }
        command.env("TIDINGS_GOSSIP_KEY", key);
        let child = Child::spawn(command).with_context(|| format!("{name} cannot be started"))?;
        self.running.insert(name, child);
        Ok(())
    }

    /// The process ids of the load balancer and of the agents.
    fn pids(&self) -> BTreeMap<&'static str, Pid> {
        let pids = self.running.iter();
        pids.map(|(name, child)| (*name, child.pid())).collect()
    }

    /// The next of them that ends. Cancel safe.
    async fn next_end(&mut self) -> (&'static str, Exit) {
        loop {
            let (pid, exit) = self.reaper.next().await;
            let ended = self.running.iter().find(|(_, child)| child.pid() == pid);
            if let Some(name) = ended.map(|(name, _)| *name) {
                self.running.remove(name);
                return (name, exit);
            }
        }
    }

    /// Ends the servers first, so that each says goodbye, then the balancer.
    async fn stop(&mut self) {
        self.end(|name| name != BALANCER, Signal::TERM, STOP_SERVERS)
            .await;
        self.end(|_| true, Signal::TERM, STOP_BALANCER).await;
    }

    /// Ends what is still there.
    async fn kill(&mut self) {
        self.end(|_| true, Signal::KILL, KILL).await;
    }

    async fn end(&mut self, of: impl Fn(&str) -> bool, signal: Signal, patience: Duration) {
        for (_, child) in self.running.iter().filter(|(name, _)| of(name)) {
            child.signal(signal);
        }
        let deadline = Instant::now() + patience;
        while self.running.keys().any(|name| of(name)) {
            if tokio::time::timeout_at(deadline, self.next_end())
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

fn balancer(settings: &Settings, program: &PathBuf) -> Command {
    let mut command = Command::new(program);
    command
        .arg("serve")
        .args(["--name", BALANCER])
        .args(["--http", &settings.http.to_string()])
        .args(["--stats", &settings.stats.to_string()])
        .args(["--admin", &settings.admin.to_string()])
        .arg("--stats-admin")
        .args(["--gossip", &settings.gossip.to_string()])
        .args(["--drain-timeout", "2s", "--die-with-parent"]);
    if let Some(format) = settings.access_log.to_possible_value() {
        command.args(["--access-log", format.get_name()]);
    }
    command
}

fn server(settings: &Settings, program: &PathBuf, name: &str, ip: Ipv4Addr) -> Command {
    let mut command = Command::new(program);
    command
        .args(agent_flags(settings, name, ip))
        .args(["--drain", "1s", "--die-with-parent", "--"])
        .arg(program)
        .args(app_flags(name, ip))
        .arg("--die-with-parent");
    command
}

/// What an agent on this machine needs to be told.
fn agent_flags(settings: &Settings, name: &str, ip: Ipv4Addr) -> Vec<String> {
    let gossip = SocketAddr::new(ip.into(), settings.gossip.port()).to_string();
    let join = reachable(settings.gossip).to_string();
    let (address, port) = (ip.to_string(), APP_PORT.to_string());
    [
        "agent",
        "--name",
        name,
        "--address",
        &address,
        "--port",
        &port,
    ]
    .into_iter()
    .chain(["--gossip", &gossip, "--join", &join])
    .map(str::to_owned)
    .collect()
}

/// What a toy server needs to be told.
fn app_flags(name: &str, ip: Ipv4Addr) -> [String; 5] {
    let listen = SocketAddr::new(ip.into(), APP_PORT).to_string();
    ["demo-app", "--listen", &listen, "--name", name].map(str::to_owned)
}

/// Where to connect to reach what listens at `addr`.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    addr
}

/// Waits until every server has answered through the load balancer; returns
/// the process ids of their apps.
async fn all_answer(http: SocketAddr) -> BTreeMap<String, u32> {
    let mut apps = BTreeMap::new();
    while apps.len() < SERVERS.len() {
        if let Ok(Some((name, pid))) = timeout(ANSWER, ask(reachable(http))).await {
            apps.insert(name, pid);
        }
        // Those that are up shall not be asked over and over for the others.
        sleep(POLL).await;
    }
    apps
}

/// Asks once who is there: the server's name, and its app's process id.
async fn ask(http: SocketAddr) -> Option<(String, u32)> {
    #[derive(Deserialize)]
    struct Answer {
        tag: String,
    }
    let stream = TokioIo::new(net::connect(http).await.ok()?);
    let (mut sender, connection) = http1::handshake(stream).await.ok()?;
    let request = Request::get("/")
        .header(header::HOST, http.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .ok()?;
    let conversation = async {
        let (head, body) = sender.send_request(request).await.ok()?.into_parts();
        let body = Limited::new(body, MAX_ANSWER)
            .collect()
            .await
            .ok()?
            .to_bytes();
        let answer: Answer = serde_json::from_slice(&body).ok()?;
        let pid = head.headers.get(toy::PID_HEADER)?.to_str().ok()?;
        Some((answer.tag, pid.parse().ok()?))
    };
    let (_, answer) = tokio::join!(connection, conversation);
    answer
}
