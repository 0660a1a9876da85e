//! The fault suite: every way in which servers come, go and fail, under load,
//! one after another on an otherwise quiet machine, and a table of what each
//! cost. CONTRIBUTING.md says how to run it alone.

mod network;

use std::{
    fmt::Write as _,
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Signal, kill_process};

use super::support::{
    announce,
    client::Client,
    cluster::{Balancer, Server, agent, app, cluster},
    eventually, free_port, ledger,
    load::{Load, Report},
    origin::{Origin, ok},
    own_address,
    process::Process,
};

/// Requests before and after each fault.
const BEFORE: u64 = 1_000;
const AFTER: u64 = 4_000;

/// What may fail in a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    /// Nothing at all.
    Nothing,
    /// POSTs that were inside the server that failed.
    PostsInside,
}

/// The longest that a GET may take, whatever happens: far more than it does
/// take, far less than any timeout.
const SLOWEST: Duration = Duration::from_secs(5);

/// One row of the table.
#[derive(Debug)]
struct Row {
    fault: &'static str,
    report: Report,
    /// From the fault to the change in the pool; the median where there were
    /// several.
    pool_change: Option<Duration>,
    /// POSTs that were executed more than once.
    twice: usize,
}

impl Row {
    fn new(fault: &'static str, report: Report, changes: &[Duration], allowed: Allowed) -> Self {
        let posts = report.failed("POST").len();
        assert!(
            report.failed("GET").is_empty(),
            "{fault}: {:?}",
            report.failed
        );
        assert!(report.slowest < SLOWEST, "{fault}: {:?}", report.slowest);
        let executed = ledger::executed();
        let times = |id: &u64| executed.get(id).copied().unwrap_or(0);
        let twice = report.posts.iter().filter(|(id, _)| times(id) > 1).count();
        assert_eq!(twice, 0, "{fault}: executed more than once");
        let answered = report.posts.iter().filter(|(_, answered)| *answered);
        let lost = answered.filter(|(id, _)| times(id) == 0).count();
        assert_eq!(lost, 0, "{fault}: answered, but never executed");
        let inside = 16 * changes.len().max(1);
        assert!(
            posts <= inside,
            "{fault}: more than were inside: {:?}",
            report.failed
        );
        assert!(
            allowed == Allowed::PostsInside || posts == 0,
            "{fault}: {:?}",
            report.failed
        );
        let pool_change = median(changes);
        Self {
            fault,
            report,
            pool_change,
            twice,
        }
    }
}

fn median(durations: &[Duration]) -> Option<Duration> {
    let mut sorted = durations.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied()
}

#[test]
fn no_fault_costs_a_request_that_was_not_inside() {
    let rows = [
        joins(),
        graceful_stop(),
        rolling_restart(),
        kills(),
        freeze(),
        short_freeze(),
        app_crashes(),
        app_crashes_again_and_again(),
        agent_dies_alone(),
        drain_with_a_tunnel(),
        idle_kills(),
        balancer_restarts(),
    ];
    announce(&format!("\n{}", table(&rows)));
    let twice = ledger::executed().into_values().filter(|times| *times > 1);
    assert_eq!(twice.count(), 0, "POSTs executed more than once, if late");
}

fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| fault | requests | failed GET | failed POST | POSTs executed twice | slowest | until the pool was right |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let change = row.pool_change.map_or("–".into(), millis);
        writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | {change} |",
            row.fault,
            row.report.requests,
            row.report.failed("GET").len(),
            row.report.failed("POST").len(),
            row.twice,
            millis(row.report.slowest),
        )
        .unwrap();
    }
    table
}

fn millis(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1000.0)
}

fn under_load(balancer: &Balancer, fault: impl FnOnce(&Load)) -> Report {
    let load = Load::start(balancer.http);
    load.go_on_for(BEFORE);
    fault(&load);
    load.go_on_for(AFTER);
    load.stop()
}

/// Waits until a server's status is, or is not, `up`; the time since `start`.
fn until_up(balancer: &Balancer, name: &str, up: bool, start: Instant) -> Duration {
    eventually("the pool changes", || {
        let servers = balancer.servers();
        let is_up = servers
            .iter()
            .any(|(n, status)| n == name && status == "up");
        (is_up == up).then(|| start.elapsed())
    })
}

fn joins() -> Row {
    let (balancer, _first) = cluster(1);
    let mut changes = Vec::new();
    let mut servers = Vec::new();
    let report = under_load(&balancer, |_| {
        for name in ["s2", "s3", "s4"] {
            let server = Server::start(name, &balancer);
            eventually("it listens", || {
                std::net::TcpStream::connect(server.addr).ok()
            });
            changes.push(until_up(&balancer, name, true, Instant::now()));
            servers.push(server);
        }
    });
    Row::new("three joins", report, &changes, Allowed::Nothing)
}

fn graceful_stop() -> Row {
    let (balancer, mut servers) = cluster(3);
    let mut changes = Vec::new();
    let report = under_load(&balancer, |_| {
        let mut server = servers.remove(1);
        server.agent.signal(Signal::TERM);
        changes.push(until_up(&balancer, "s2", false, Instant::now()));
        server.agent.wait();
    });
    Row::new("one graceful stop", report, &changes, Allowed::Nothing)
}

fn rolling_restart() -> Row {
    let (balancer, servers) = cluster(3);
    let mut restarted = Vec::new();
    let report = under_load(&balancer, |load| {
        for server in servers {
            let name = server.name.clone();
            restarted.push(server.stop().again());
            until_up(&balancer, &name, true, Instant::now());
            load.go_on_for(BEFORE);
        }
    });
    Row::new("rolling restart of three", report, &[], Allowed::Nothing)
}

/// Ten kills of servers that had no other trouble, so that quarantine, which
/// is another matter, does not come in.
fn kills() -> Row {
    let (balancer, _servers) = cluster(2);
    let mut changes = Vec::new();
    let report = under_load(&balancer, |load| {
        for i in 0..10 {
            let name = format!("victim{i}");
            let server = Server::start(&name, &balancer);
            until_up(&balancer, &name, true, Instant::now());
            load.go_on_for(200);
            let killed = Instant::now();
            let _dead = server.kill();
            changes.push(until_up(&balancer, &name, false, killed));
        }
    });
    Row::new(
        "kill -9 of agent and app, ten times",
        report,
        &changes,
        Allowed::PostsInside,
    )
}

fn freeze() -> Row {
    let (balancer, servers) = cluster(3);
    let mut changes = Vec::new();
    let report = under_load(&balancer, |_| {
        let frozen = Instant::now();
        servers[1].freeze();
        changes.push(until_up(&balancer, "s2", false, frozen));
    });
    let row = Row::new(
        "SIGSTOP of agent and app",
        report,
        &changes,
        Allowed::PostsInside,
    );
    servers[1].thaw();
    balancer.wait_for(&[("s1", "up"), ("s2", "up"), ("s3", "up")]);
    row
}

fn app_crashes() -> Row {
    let (balancer, servers) = cluster(3);
    let mut changes = Vec::new();
    let report = under_load(&balancer, |_| {
        let before = servers[1].app();
        let killed = Instant::now();
        kill_process(before, Signal::KILL).unwrap();
        eventually("the agent starts it again", || {
            (servers[1].app() != before).then_some(())
        });
        changes.push(until_up(&balancer, "s2", true, killed));
    });
    Row::new(
        "the app alone crashes and is back",
        report,
        &changes,
        Allowed::PostsInside,
    )
}

/// Its clients lose their connections, so there is no load; what counts is
/// when all servers are back.
fn balancer_restarts() -> Row {
    let (mut balancer, _servers) = cluster(3);
    balancer.process.signal(Signal::KILL);
    balancer.process.wait();
    let started = Instant::now();
    let balancer = balancer.again();
    balancer.wait_for(&[("s1", "up"), ("s2", "up"), ("s3", "up")]);
    let changes = [started.elapsed()];
    let report = under_load(&balancer, |_| {});
    Row::new(
        "the balancer killed and started again",
        report,
        &changes,
        Allowed::Nothing,
    )
}

/// Too short for anyone to be declared dead: what waits is answered late.
fn short_freeze() -> Row {
    let (balancer, servers) = cluster(3);
    let report = under_load(&balancer, |_| {
        servers[1].freeze();
        // The fault itself takes this long.
        sleep(Duration::from_millis(500));
        servers[1].thaw();
    });
    balancer.wait_for(&[("s1", "up"), ("s2", "up"), ("s3", "up")]);
    Row::new("SIGSTOP for half a second", report, &[], Allowed::Nothing)
}

/// The first crash is forgiven, the next ones keep a server out for 1 s, 2 s
/// and so on, but never more than half of the pool.
fn app_crashes_again_and_again() -> Row {
    let (balancer, servers) = cluster(3);
    let mut out = Vec::new();
    let report = under_load(&balancer, |_| {
        for _ in 0..3 {
            out.push(crash(&balancer, &servers[0]));
        }
        // A fourth time, and now another one crashes as well: the two must not
        // be kept out together.
        kill_process(servers[0].app(), Signal::KILL).unwrap();
        out.push(crash(&balancer, &servers[1]));
        out.push(crash(&balancer, &servers[1]));
    });
    let second = Duration::from_secs(1);
    assert!(out[1] >= second && out[2] >= 2 * second, "{out:?}");
    let events = balancer.list("events");
    let quarantined = events.iter().filter(|e| e["event"] == "quarantine");
    assert!(quarantined.count() >= 2, "{events:?}");
    Row::new(
        "an app crashes again and again",
        report,
        &out,
        Allowed::PostsInside,
    )
}

/// Kills a server's app and waits until it takes traffic again, watching over
/// those that are kept out; the time that took.
fn crash(balancer: &Balancer, server: &Server) -> Duration {
    let downs = |server: &serde_json::Value| server["downs"].as_u64();
    let before = downs(&balancer.server(&server.name));
    let killed = Instant::now();
    kill_process(server.app(), Signal::KILL).unwrap();
    eventually("the server is back", || {
        let servers = balancer.list("servers");
        let kept_out = servers.iter().filter(|server| {
            let reason = server["reason"].as_str().unwrap_or_default();
            reason.contains("crashed too often")
        });
        assert!(kept_out.count() * 2 <= servers.len(), "{servers:?}");
        let now = servers.iter().find(|now| now["name"] == server.name)?;
        let back = now["status"] == "up" && downs(now) > before;
        back.then(|| killed.elapsed())
    })
}

/// Outside of a container an app can outlive its agent. Nobody speaks for it
/// any more, so it is taken out of rotation although it would answer; it is
/// back with its agent.
fn agent_dies_alone() -> Row {
    let (balancer, _others) = cluster(2);
    let addr = free_port(own_address());
    let _app = Process::start(&app("s3", addr));
    let mut agent = agent_beside(&balancer, "s3", addr, &[]);
    until_up(&balancer, "s3", true, Instant::now());
    let mut changes = Vec::new();
    let report = under_load(&balancer, |_| {
        let killed = Instant::now();
        agent.signal(Signal::KILL);
        agent.wait();
        changes.push(until_up(&balancer, "s3", false, killed));
    });
    let _agent = agent_beside(&balancer, "s3", addr, &[]);
    until_up(&balancer, "s3", true, Instant::now());
    Row::new(
        "kill -9 of the agent alone; its app lives on",
        report,
        &changes,
        Allowed::PostsInside,
    )
}

/// An agent for an app that somebody else runs.
fn agent_beside(balancer: &Balancer, name: &str, addr: SocketAddr, flags: &[&str]) -> Process {
    let gossip = SocketAddr::new(addr.ip(), 0);
    let mut args = agent(name, &balancer.gossip.to_string(), addr, gossip);
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    Process::start(&args)
}

/// A tunnel may have no end of its own: it lives for as long as its server
/// may drain, and is then closed and counted.
fn drain_with_a_tunnel() -> Row {
    const SWITCHED: &str =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n";
    let (balancer, _others) = cluster(2);
    let origin = Origin::start(|visit| {
        if visit.seen().values("upgrade").is_empty() {
            visit.body()?;
            return visit.send(ok(r#"{"tag": "s3"}"#));
        }
        visit.send(SWITCHED)?;
        loop {
            let bytes = visit.read()?;
            if bytes.is_empty() {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            visit.send(bytes)?;
        }
    });
    let mut agent = agent_beside(&balancer, "s3", origin.addr, &["--drain", "4s"]);
    until_up(&balancer, "s3", true, Instant::now());
    let mut tunnel = balancer.connect();
    let upgrade = [
        "cookie: SERVERID=s3",
        "connection: upgrade",
        "upgrade: echo",
    ];
    assert_eq!(tunnel.request("GET", "/", &upgrade).unwrap().status, 101);
    let echoes = |tunnel: &mut Client| {
        tunnel.send("x").unwrap();
        let mut byte = [0];
        std::io::Read::read_exact(&mut tunnel.stream(), &mut byte).unwrap();
    };
    let mut changes = Vec::new();
    let load = Load::start(balancer.http);
    load.go_on_for(BEFORE);
    let told = Instant::now();
    agent.signal(Signal::TERM);
    changes.push(until_up(&balancer, "s3", false, told));
    while balancer.servers().contains(&("s3".into(), "drain".into())) {
        assert_eq!(balancer.connect().get(&[]).unwrap().status, 200);
        assert!(told.elapsed() < Duration::from_secs(15), "it never leaves");
        if told.elapsed() < Duration::from_secs(2) {
            echoes(&mut tunnel);
        }
    }
    tunnel.rest().unwrap();
    assert!(
        told.elapsed() > Duration::from_secs(2),
        "it may drain for longer"
    );
    assert_eq!(agent.exit_code(), 0);
    let report = load.stop();
    let metrics = String::from_utf8(balancer.stats("/metrics").body).unwrap();
    let closed = r#"tidings_tunnels_closed_total{proxy="nodes"} 1"#;
    assert!(metrics.contains(closed), "{metrics}");
    // The origin keeps no ledger, so the POSTs it answered are in none.
    let report = Report {
        posts: Vec::new(),
        ..report
    };
    Row::new(
        "a stop with an open tunnel, --drain 4s",
        report,
        &changes,
        Allowed::Nothing,
    )
}

/// Without a request nothing but the lifeline shows that a server has gone.
fn idle_kills() -> Row {
    let (balancer, _servers) = cluster(2);
    let mut changes = Vec::new();
    for i in 0..10 {
        let name = format!("victim{i}");
        let server = Server::start(&name, &balancer);
        until_up(&balancer, &name, true, Instant::now());
        let killed = Instant::now();
        let _dead = server.kill();
        changes.push(until_up(&balancer, &name, false, killed));
    }
    let events = balancer.list("events");
    let signs = events.iter().filter(|event| event["event"] == "down");
    let signs: Vec<&serde_json::Value> = signs.map(|event| &event["sign"]).collect();
    assert_eq!(signs, ["lifeline"; 10]);
    // Gossip alone takes more than a second.
    assert!(
        median(&changes) < Some(Duration::from_secs(1)),
        "{changes:?}"
    );
    Row::new(
        "kill -9 of agent and app, no load, ten times",
        Report::default(),
        &changes,
        Allowed::Nothing,
    )
}
