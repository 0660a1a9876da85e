//! Who gets a request.

use std::collections::BTreeMap;

use super::support::{
    cluster::{Balancer, cluster, cluster_with, nobody},
    origin::Origin,
};

#[test]
fn servers_take_strict_turns_in_the_order_of_their_names() {
    let (balancer, _servers) = cluster(3);
    let mut client = balancer.connect();
    let turn: Vec<String> = (0..7).map(|_| client.get(&[]).unwrap().server()).collect();
    for pair in turn.windows(2) {
        let next = match pair[0].as_str() {
            "s1" => "s2",
            "s2" => "s3",
            _ => "s1",
        };
        assert_eq!(pair[1], next, "{turn:?}");
    }
}

#[test]
fn a_thousand_requests_go_half_and_half_over_one_connection_and_over_fifty() {
    let (balancer, _servers) = cluster(2);
    for connections in [1, 50] {
        let mut clients: Vec<_> = (0..connections).map(|_| balancer.connect()).collect();
        let mut tally = BTreeMap::<String, u32>::new();
        for i in 0..1000 {
            let server = clients[i % connections].get(&[]).unwrap().server();
            *tally.entry(server).or_default() += 1;
        }
        let expected = [("s1".to_owned(), 500), ("s2".to_owned(), 500)];
        assert_eq!(tally, expected.into(), "{connections} connections");
    }
}

#[test]
fn a_user_with_a_cookie_stays_and_the_session_counts_up() {
    let (balancer, _servers) = cluster(3);
    let mut client = balancer.connect();
    let first = client.get(&[]).unwrap();
    let session = first
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    let sticky = first.sticky_cookie().unwrap();
    let cookie = format!("cookie: {session}; {sticky}");
    for views in 2..20 {
        let answer = balancer.connect().get(&[&cookie]).unwrap();
        assert_eq!(answer.server(), first.server());
        assert_eq!(answer.json()["sessionViews"], views);
        assert_eq!(
            answer.sticky_cookie(),
            None,
            "a cookie that is valid is not set again"
        );
    }
}

#[test]
fn a_cookie_that_names_nobody_is_replaced_in_the_same_request() {
    let (balancer, _servers) = cluster(2);
    let answer = balancer.connect().get(&["cookie: SERVERID=s9"]).unwrap();
    assert_eq!(answer.status, 200);
    let expected = format!("SERVERID={}", answer.server());
    assert_eq!(answer.sticky_cookie(), Some(expected.as_str()));
}

#[test]
fn without_a_cookie_name_nothing_is_set() {
    let (balancer, _servers) = cluster_with(1, &["--cookie", "off"]);
    assert_eq!(balancer.connect().get(&[]).unwrap().sticky_cookie(), None);
}

#[test]
fn an_empty_pool_answers_503_and_is_not_ready() {
    let (balancer, _) = cluster(0);
    let answer = balancer.connect().get(&[]).unwrap();
    assert_eq!(answer.status, 503);
    assert!(String::from_utf8_lossy(&answer.body).contains("No server is available"));
    assert_eq!(balancer.stats("/readyz").status, 503);
    assert_eq!(balancer.stats("/healthz").status, 200);
}

/// As in the moment in which most of a pool is killed.
#[test]
fn a_request_finds_the_one_server_that_lives_among_many_that_refuse() {
    let dead: Vec<String> = (1..=8)
        .map(|number| format!("s{number}={},check=off", nobody().1))
        .collect();
    let origin = Origin::saying("here");
    let last = origin.named("s9");
    let flags = dead.iter().chain([&last]).flat_map(|s| ["--server", s]);
    let flags: Vec<&str> = flags.chain(["--observe", "off"]).collect();
    let balancer = Balancer::start(&flags);
    let mut client = balancer.connect();
    for _ in 0..9 {
        assert_eq!(client.get(&[]).unwrap().body, b"here");
    }
}
