//! Ports that are not for traffic, while a crowd holds them.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::{
    admin::ask,
    support::{
        client::Client,
        cluster::{Balancer, agent},
        free_port, own_address,
        process::Process,
    },
};

/// More connections than any of the ports has places for.
const CROWD: usize = 600;

/// Connections that say nothing.
fn crowd(addr: SocketAddr) -> Vec<TcpStream> {
    (0..CROWD)
        .map(|_| TcpStream::connect(addr).unwrap())
        .collect()
}

/// Who is answered on a port. The answer is waited for, whenever it comes; who
/// is not let in is closed, and fails.
fn is_answered(addr: SocketAddr, path: &str) {
    let mut client = Client::connect(addr).unwrap();
    let answer = client.request("GET", path, &["connection: close"]);
    assert_eq!(answer.unwrap().status, 200, "{path}");
}

#[test]
fn an_idle_crowd_at_the_statistics_keeps_no_probe_out() {
    let balancer = Balancer::start(&["--server", "s1=127.0.0.1:1,check=off"]);
    let before = balancer.process.descriptors();
    let _crowd = crowd(balancer.stats);
    for path in ["/healthz", "/readyz", "/metrics", "/"] {
        is_answered(balancer.stats, path);
    }
    let more = balancer.process.descriptors() - before;
    assert!(more <= 130, "{more} connections of one address are open");
}

#[test]
fn an_idle_crowd_at_an_agent_keeps_no_probe_out() {
    let [app, gossip, stats] = [(); 3].map(|()| free_port(own_address()));
    let mut args = agent("s1", "127.0.0.1:1", app, gossip);
    args.extend(["--stats".to_owned(), stats.to_string()]);
    let agent = Process::start(&args);
    agent.says("it shows itself", |line| {
        line.contains("shows itself on").then_some(())
    });
    let before = agent.descriptors();
    let _crowd = crowd(stats);
    for path in ["/healthz", "/metrics"] {
        is_answered(stats, path);
    }
    let more = agent.descriptors().saturating_sub(before);
    assert!(more <= 30, "{more} connections of one address are open");
}

#[test]
fn an_idle_crowd_at_the_runtime_api_keeps_no_command_out() {
    let balancer = Balancer::start(&[]);
    let before = balancer.process.descriptors();
    let _crowd = crowd(balancer.admin);
    assert_eq!(ask(balancer.admin, "show cli level"), "admin\n\n");
    let more = balancer.process.descriptors() - before;
    assert!(more <= 40, "{more} connections of one address are open");
}

#[test]
fn who_does_not_take_its_answers_is_cut_off() {
    let balancer = Balancer::start(&[]);
    let mut client = TcpStream::connect(balancer.stats).unwrap();
    // Many answers, and none is taken. What the kernel does not take either is
    // still to be sent when it is over.
    client
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let request = "GET / HTTP/1.1\r\nhost: ha\r\n\r\n".repeat(100);
    while client.write_all(request.as_bytes()).is_ok() {}
    let more = Duration::from_secs(30);
    client.set_read_timeout(Some(more)).unwrap();
    let before = balancer.process.descriptors();
    super::support::eventually("it is closed", || {
        (balancer.process.descriptors() < before).then_some(())
    });
    let mut rest = Vec::new();
    // It ends, or is reset.
    client.read_to_end(&mut rest).ok();
}
