//! The fault suite: every way in which servers come, go and fail, under load,
//! one after another on an otherwise quiet machine, and a table of what each
//! cost. CONTRIBUTING.md says how to run it alone.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use rustix::process::{Signal, kill_process};

use super::support::{
    cluster::{Balancer, Server, cluster},
    eventually,
    load::{Load, Report},
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

/// One row of the table.
#[derive(Debug)]
struct Row {
    fault: &'static str,
    report: Report,
    /// From the fault to the change in the pool; the median where there were
    /// several.
    pool_change: Option<Duration>,
}

impl Row {
    fn new(fault: &'static str, report: Report, changes: &[Duration], allowed: Allowed) -> Self {
        let posts = report.failed("POST").len();
        assert!(
            report.failed("GET").is_empty(),
            "{fault}: {:?}",
            report.failed
        );
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
        app_crashes(),
        balancer_restarts(),
    ];
    println!("\n{}", table(&rows));
}

fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| fault | requests | failed GET | failed POST | slowest | until the pool was right |\n\
         |---|---|---|---|---|---|\n",
    );
    for row in rows {
        let change = row.pool_change.map_or("–".into(), millis);
        writeln!(
            table,
            "| {} | {} | {} | {} | {} | {change} |",
            row.fault,
            row.report.requests,
            row.report.failed("GET").len(),
            row.report.failed("POST").len(),
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
        let app = servers[1].app();
        let frozen = Instant::now();
        kill_process(app, Signal::STOP).unwrap();
        servers[1].agent.signal(Signal::STOP);
        changes.push(until_up(&balancer, "s2", false, frozen));
    });
    let row = Row::new(
        "SIGSTOP of agent and app",
        report,
        &changes,
        Allowed::PostsInside,
    );
    kill_process(servers[1].app(), Signal::CONT).unwrap();
    servers[1].agent.signal(Signal::CONT);
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
