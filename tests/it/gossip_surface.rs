//! The gossip port as strangers meet it: who is not admitted stays outside,
//! and a flood changes nothing for those that are.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use super::support::{
    cluster::{Balancer, Server, cluster},
    eventually,
    load::Load,
};

/// Packets of a flood, and how long it may take to send them.
const FLOOD: usize = 200_000;
const FLOOD_TIME: Duration = Duration::from_secs(20);

/// Packets and connections dropped for a reason.
fn dropped(balancer: &Balancer, reason: &str) -> u64 {
    let metrics = String::from_utf8(balancer.stats("/metrics").body).unwrap();
    let series = format!("tidings_gossip_packets_dropped_total{{reason=\"{reason}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    value.expect("the series").parse().unwrap()
}

#[test]
fn an_agent_from_outside_the_ranges_that_are_given_is_not_admitted() {
    let balancer = Balancer::start(&["--gossip-allow", "10.0.0.0/8,fc00::/7"]);
    let _outside = Server::start("s1", &balancer);
    eventually("its packets are dropped", || {
        (dropped(&balancer, "source") > 5).then_some(())
    });
    assert_eq!(balancer.servers(), []);
    balancer.process.says("it says what to do", |line| {
        (line.contains("not admitted") && line.contains("--gossip-allow")).then_some(())
    });
}

#[test]
fn an_agent_from_within_them_is_admitted_and_without_any_from_loopback() {
    for flags in [&["--gossip-allow", "127.0.0.0/8"][..], &[]] {
        let balancer = Balancer::start(flags);
        let _server = Server::start("s1", &balancer);
        balancer.wait_for(&[("s1", "up")]);
        assert_eq!(dropped(&balancer, "source"), 0);
    }
}

#[test]
fn a_server_elsewhere_is_not_believed_in() {
    let balancer = Balancer::start(&[]);
    let seed = balancer.gossip.to_string();
    let _server = Server::start("s1", &balancer);
    balancer.wait_for(&[("s1", "up")]);
    // An address of documentation, which nobody has.
    let args = format!(
        "agent --name s2 --address 192.0.2.9 --port 80 --gossip 127.0.0.1:0 --join {seed} \
         --gossip-allow 0.0.0.0/0 --die-with-parent -- sleep 60"
    );
    let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
    let _pointing_away = super::support::process::Process::start(&args);
    eventually("its claims are dropped", || {
        (dropped(&balancer, "claim") > 0).then_some(())
    });
    balancer.wait_for(&[("s1", "up")]);
}

#[test]
fn a_flood_from_a_servers_own_host_leaves_the_server_in_rotation() {
    let (balancer, servers) = cluster(2);
    let load = Load::with(balancer.http, 4);
    load.go_on_for(500);
    // Another socket of the host that s1's agent runs on.
    let socket = UdpSocket::bind((servers[0].addr.ip(), 0)).unwrap();
    let garbage = [b'?'; 64];
    let begun = Instant::now();
    let mut sent = 0;
    while sent < FLOOD && begun.elapsed() < FLOOD_TIME {
        // A full buffer is loss like any other.
        socket.send_to(&garbage, balancer.gossip).ok();
        sent += 1;
    }
    load.go_on_for(500);
    let report = load.stop();
    println!(
        "{sent} packets in {:?}: {} read as foreign, {} beyond the rate; {} requests",
        begun.elapsed(),
        dropped(&balancer, "foreign"),
        dropped(&balancer, "source_rate"),
        report.requests,
    );
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert_eq!(report.by_server.len(), 2, "{:?}", report.by_server);
    assert!(dropped(&balancer, "source_rate") > 0);
    balancer.wait_for(&[("s1", "up"), ("s2", "up")]);
    for name in ["s1", "s2"] {
        let downs = balancer
            .list("events")
            .into_iter()
            .filter(|event| event["server"] == name && event["event"] == "down");
        assert_eq!(downs.count(), 0, "{name} went down");
    }
}
