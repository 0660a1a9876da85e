//! Several load balancers: one pool, one will of the operators, users that are
//! at home at each.

use std::io::{Read, Write};

use rustix::process::Signal;

use super::support::{
    cluster::{Balancer, Server},
    eventually,
};

const ALL_UP: [(&str, &str); 2] = [("s1", "up"), ("s2", "up")];

/// Two balancers, and two servers that joined the first.
fn pair() -> (Balancer, Balancer, Vec<Server>) {
    let first = Balancer::start(&[]);
    let second = Balancer::start(&["--join", &first.gossip.to_string()]);
    let servers = ["s1", "s2"].map(|name| Server::start(name, &first));
    for balancer in [&first, &second] {
        balancer.wait_for(&ALL_UP);
    }
    (first, second, servers.into())
}

/// Says something to a balancer's runtime API.
fn tell(balancer: &Balancer, command: &str) -> String {
    let mut stream = std::net::TcpStream::connect(balancer.admin).unwrap();
    writeln!(stream, "{command}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_cookie_is_good_at_every_balancer() {
    let (first, second, _servers) = pair();
    let answer = first.connect().get(&[]).unwrap();
    let cookie = format!("cookie: {}", answer.sticky_cookie().unwrap());
    for _ in 0..5 {
        assert_eq!(
            second.connect().get(&[&cookie]).unwrap().server(),
            answer.server()
        );
    }
}

#[test]
fn what_an_operator_wants_holds_at_every_balancer_and_through_the_restart_of_each() {
    let (mut first, mut second, _servers) = pair();
    assert_eq!(tell(&first, "set server nodes/s1 state drain"), "\n");
    assert_eq!(tell(&first, "set server nodes/s2 weight 7"), "\n");
    let drained = [("s1", "drain"), ("s2", "up")];
    let weight = |balancer: &Balancer| tell(balancer, "get weight nodes/s2");
    let holds = |balancer: &Balancer| {
        balancer.wait_for(&drained);
        eventually("the weight is there", || {
            weight(balancer).starts_with("7 (initial 1)").then_some(())
        });
    };
    holds(&first);
    holds(&second);
    for _ in 0..2 {
        first.process.signal(Signal::KILL);
        first.process.wait();
        first = first.again();
        holds(&first);
        std::mem::swap(&mut first, &mut second);
    }
    assert_eq!(tell(&second, "set server nodes/s1 state ready"), "\n");
    first.wait_for(&ALL_UP);
    second.wait_for(&ALL_UP);
}

#[test]
fn a_server_in_maintenance_takes_nobody_not_even_its_users() {
    let (first, second, _servers) = pair();
    tell(&first, "set server nodes/s1 state maint");
    second.wait_for(&[("s1", "maint"), ("s2", "up")]);
    for balancer in [&first, &second] {
        let answer = balancer.connect().get(&["cookie: SERVERID=s1"]).unwrap();
        assert_eq!(answer.server(), "s2");
        assert_eq!(answer.sticky_cookie(), Some("SERVERID=s2"));
    }
}

#[test]
fn a_server_that_leaves_leaves_at_every_balancer() {
    let (first, second, mut servers) = pair();
    servers.remove(0).stop();
    first.wait_for(&[("s2", "up")]);
    second.wait_for(&[("s2", "up")]);
}

#[test]
fn events_tell_what_happened_and_how_it_was_found_out() {
    let (first, _second, mut servers) = pair();
    let _dead = servers.remove(0).kill();
    let event = eventually("the crash is on the timeline", || {
        let events = first.stats("/v1/events").json();
        let events = events["events"].as_array().unwrap().clone();
        events
            .into_iter()
            .find(|event| event["server"] == "s1" && event["event"] == "down")
    });
    assert!(event["detection_ms"].is_f64(), "{event}");
    assert!(
        ["lifeline", "traffic", "agent"].contains(&event["sign"].as_str().unwrap()),
        "{event}"
    );
}
