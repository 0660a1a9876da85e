//! Servers come, go and die under load, and nobody notices.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::support::{
    client::Client,
    cluster::{Balancer, Server, cluster, cluster_with},
    eventually, free_port,
    load::{Load, Report},
    own_address,
    process::Process,
};

/// Requests before a change, and from then on: enough for a gap of a
/// millisecond to show with 16 connections.
const BEFORE: u64 = 2_000;
const AFTER: u64 = 18_000;

fn nothing_failed(report: &Report) {
    assert!(
        report.failed.is_empty(),
        "{:?} of {}",
        report.failed,
        report.requests
    );
}

#[test]
fn a_server_takes_its_turn_soon_after_it_listens() {
    let (balancer, _servers) = cluster(1);
    let server = Server::start("s2", &balancer);
    eventually("s2 listens", || {
        std::net::TcpStream::connect(server.addr).ok()
    });
    let listening = Instant::now();
    let mut client = balancer.connect();
    eventually("s2 answers", || {
        (client.get(&[]).unwrap().server() == "s2").then_some(())
    });
    println!("first request {:?} after it listened", listening.elapsed());
}

#[test]
fn joins_fail_no_request() {
    let (balancer, _first) = cluster(1);
    let load = Load::start(balancer.http);
    load.go_on_for(BEFORE);
    let _second = Server::start("s2", &balancer);
    let _third = Server::start("s3", &balancer);
    balancer.wait_for(&[("s1", "up"), ("s2", "up"), ("s3", "up")]);
    load.go_on_for(AFTER);
    let report = load.stop();
    nothing_failed(&report);
    assert_eq!(report.by_server.len(), 3, "{:?}", report.by_server);
}

#[test]
fn a_graceful_stop_fails_no_request() {
    let (balancer, mut servers) = cluster(3);
    let load = Load::start(balancer.http);
    load.go_on_for(BEFORE);
    servers.remove(1).stop();
    load.go_on_for(AFTER);
    nothing_failed(&load.stop());
    balancer.wait_for(&[("s1", "up"), ("s3", "up")]);
}

#[test]
fn a_rolling_restart_fails_no_request() {
    let (balancer, servers) = cluster(3);
    let load = Load::start(balancer.http);
    load.go_on_for(BEFORE);
    let all_up = [("s1", "up"), ("s2", "up"), ("s3", "up")];
    let mut restarted = Vec::new();
    for server in servers {
        restarted.push(server.stop().again());
        balancer.wait_for(&all_up);
        load.go_on_for(BEFORE);
    }
    nothing_failed(&load.stop());
}

#[test]
fn a_killed_server_fails_nothing_but_posts_that_were_inside() {
    let (balancer, mut servers) = cluster(3);
    let load = Load::start(balancer.http);
    load.go_on_for(BEFORE);
    let _dead = servers.remove(1).kill();
    load.go_on_for(AFTER);
    let report = load.stop();
    assert!(report.failed("GET").is_empty(), "{:?}", report.failed);
    assert!(
        report.failed.len() <= 16,
        "more than were inside: {:?}",
        report.failed
    );
    for failed in &report.failed {
        assert_eq!(failed.why, "status 502", "{failed:?}");
    }
}

#[test]
fn an_app_that_crashes_is_started_again_and_takes_traffic_again() {
    let (balancer, servers) = cluster(2);
    let load = Load::start(balancer.http);
    load.go_on_for(BEFORE);
    let before = servers[0].app();
    kill_process(before, Signal::KILL).unwrap();
    eventually("the agent starts it again", || {
        (servers[0].app() != before).then_some(())
    });
    balancer.wait_for(&[("s1", "up"), ("s2", "up")]);
    load.go_on_for(AFTER);
    let report = load.stop();
    assert!(report.failed("GET").is_empty(), "{:?}", report.failed);
}

#[test]
fn a_killed_balancer_finds_its_servers_again() {
    let took = finds_its_servers_again_after(Signal::KILL);
    println!("all three servers back {took:?} after the start");
}

#[test]
fn a_balancer_that_was_told_to_end_finds_its_servers_again() {
    let took = finds_its_servers_again_after(Signal::TERM);
    println!("all three servers back {took:?} after the start");
}

fn finds_its_servers_again_after(end: Signal) -> Duration {
    let (mut balancer, _servers) = cluster(3);
    balancer.process.signal(end);
    balancer.process.wait();
    let balancer = balancer.again();
    let started = Instant::now();
    balancer.wait_for(&[("s1", "up"), ("s2", "up"), ("s3", "up")]);
    started.elapsed()
}

#[test]
fn servers_may_start_before_the_balancer() {
    let gossip = free_port("127.0.0.1".parse().unwrap());
    let server = Server::start_with("s1", &gossip.to_string(), &[]);
    server.agent.says("the server looks for it", |line| {
        line.contains("announcing s1").then_some(())
    });
    let balancer = Balancer::start_gossiping_at(gossip, &[]);
    balancer.wait_for(&[("s1", "up")]);
}

#[test]
fn a_server_that_comes_back_elsewhere_under_its_name_is_taken_at_once() {
    let (balancer, mut servers) = cluster(2);
    let dead = servers.remove(0).kill();
    let elsewhere = free_port(own_address());
    assert_ne!(dead.addr, elsewhere);
    let _moved = Server::start_at("s1", &balancer.gossip.to_string(), elsewhere, &[]);
    let mut client = balancer.connect();
    eventually("s1 answers at its new address", || {
        let answer = client.get(&["cookie: SERVERID=s1"]).unwrap();
        (answer.json()["ip"] == elsewhere.ip().to_string()).then_some(())
    });
}

#[test]
fn a_draining_server_keeps_its_users_and_gets_no_new_ones() {
    let (balancer, servers) = cluster(2);
    // Its user comes back often enough for the traffic never to end.
    let mut user = balancer.connect();
    user.get(&["cookie: SERVERID=s1"]).unwrap();
    servers[0].agent.signal(Signal::TERM);
    let mut stays = || {
        let answer = user.get(&["cookie: SERVERID=s1"]).unwrap();
        assert_eq!(answer.server(), "s1");
    };
    eventually("s1 drains", || {
        stays();
        balancer
            .servers()
            .contains(&("s1".into(), "drain".into()))
            .then_some(())
    });
    for _ in 0..50 {
        stays();
        assert_eq!(balancer.connect().get(&[]).unwrap().server(), "s2");
    }
}

#[test]
fn only_members_with_the_key_are_heard_and_it_can_be_rotated() {
    let key = |n: u8| base64_of(&[n; 32]);
    let dir = std::env::temp_dir().join(format!("tidings-keys-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("keys");
    let path = file.to_str().unwrap();
    std::fs::write(&file, key(1)).unwrap();
    let (balancer, _) = cluster_with(0, &["--gossip-key-file", path]);
    let seed = balancer.gossip.to_string();

    let _stranger = Server::start_with("s9", &seed, &[]);
    let _wrong = Server::start_with("s8", &seed, &["--gossip-key", &key(9)]);
    let _first = Server::start_with("s1", &seed, &["--gossip-key-file", path]);
    balancer.wait_for(&[("s1", "up")]);

    // Both keys everywhere, then the new one first, then the new one alone.
    for keys in [
        [key(1), key(2)].join("\n"),
        [key(2), key(1)].join("\n"),
        key(2),
    ] {
        std::fs::write(&file, keys).unwrap();
        let read = |process: &Process| process.said().matches("gossip keys read again").count();
        let before = read(&balancer.process);
        eventually("the balancer reads its keys", || {
            (read(&balancer.process) > before).then_some(())
        });
    }
    let _second = Server::start_with("s2", &seed, &["--gossip-key", &key(2)]);
    balancer.wait_for(&[("s1", "up"), ("s2", "up")]);
    std::fs::remove_dir_all(dir).unwrap();
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(bytes)
}

#[test]
fn an_agent_answers_for_its_app() {
    let balancer = Balancer::start(&[]);
    let seed = balancer.gossip.to_string();
    let server = Server::start_with("s1", &seed, &["--stats", "127.0.0.1:0"]);
    balancer.wait_for(&[("s1", "up")]);
    let stats = server.agent.says("where it shows itself", |line| {
        let (_, url) = line.split_once("shows itself on http://")?;
        url.strip_suffix("/metrics")?.parse().ok()
    });
    let ask = |path: &str| {
        let mut client = Client::connect(stats).expect("the agent accepts");
        client.request("GET", path, &["connection: close"]).unwrap()
    };
    assert_eq!(ask("/readyz").status, 200);
    let metrics = String::from_utf8(ask("/metrics").body).unwrap();
    for line in [
        "tidings_agent_app_up 1",
        "tidings_agent_app_starts_total 1",
        "tidings_members{state=\"alive\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }

    // Killed, the app is started again, and that is counted.
    kill_process(server.app(), Signal::KILL).unwrap();
    eventually("the second start is counted", || {
        let metrics = String::from_utf8(ask("/metrics").body).unwrap();
        let counted = metrics.contains("tidings_agent_app_starts_total 2")
            && metrics.contains("tidings_agent_app_failures_total 1")
            && metrics.contains("tidings_agent_app_up 1");
        counted.then_some(())
    });

    let health = |stats: &str, flags: &[&str]| {
        let args = [&["healthcheck", "--stats", stats], flags].concat();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Process::start(&args).exit_code()
    };
    assert_eq!(health(&stats.to_string(), &["--ready"]), 0);
    assert_eq!(health(&balancer.stats.to_string(), &["--ready"]), 0);
    let alone = Balancer::start(&[]);
    assert_eq!(health(&alone.stats.to_string(), &[]), 0);
    assert_eq!(health(&alone.stats.to_string(), &["--ready"]), 1);
    assert_eq!(health("127.0.0.1:1", &[]), 1);
}

#[test]
fn a_balancer_that_is_told_to_end_breaks_no_kept_connection() {
    let (mut balancer, _servers) = cluster(2);
    let load = Load::start(balancer.http);
    load.go_on_for(BEFORE);
    balancer.process.signal(Signal::TERM);
    assert_eq!(balancer.process.exit_code(), 0);
    let report = load.stop();
    let lost = report.failed.iter().filter(|failed| !failed.first);
    let lost: Vec<_> = lost.collect();
    assert!(lost.is_empty(), "{lost:?} of {}", report.requests);
}

#[test]
fn a_stop_under_load_takes_no_longer_than_its_users_do() {
    let (balancer, _first) = cluster(1);
    let seed = balancer.gossip.to_string();
    let mut server = Server::start_with("s2", &seed, &["--drain", "6s"]);
    balancer.wait_for(&[("s1", "up"), ("s2", "up")]);
    let load = Load::start(balancer.http);
    load.go_on_for(BEFORE);
    server.agent.signal(Signal::TERM);
    assert_eq!(server.agent.exit_code(), 0);
    nothing_failed(&load.stop());
    // Connections that were in use at the word to drain are given up as soon
    // as the idle ones, and not when the time is up.
    let said = server.agent.said();
    assert!(said.contains("the traffic has ended"), "{said}");
}
