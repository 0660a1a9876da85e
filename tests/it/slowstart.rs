//! A server that joins a busy pool warms up.

use super::support::{
    cluster::{Balancer, Server, cluster_with},
    eventually,
    load::Load,
};

/// Requests that a look at the shares is taken over.
const LOOK: u64 = 200;

/// Two servers that have all of their share, and s3.
const WHOLE: f64 = 1.0 / 3.0;

/// What part of the requests s3 got while so many more were answered.
fn part_of_s3(balancer: &Balancer, load: &Load) -> f64 {
    let counts = || {
        let of = |name| balancer.server(name)["requests"].as_f64().unwrap();
        ["s1", "s2", "s3"].map(of)
    };
    let before = counts();
    load.go_on_for(LOOK);
    let got: Vec<f64> = counts().iter().zip(before).map(|(a, b)| a - b).collect();
    got[2] / got.iter().sum::<f64>()
}

#[test]
fn a_server_that_joins_a_busy_pool_gets_little_at_first_and_its_share_in_the_end() {
    let (balancer, _servers) = cluster_with(2, &["--slowstart", "3s", "--cookie", "off"]);
    let load = Load::start(balancer.http);
    // Who comes with the first is as warm as they are.
    eventually("the pool has served for a while", || {
        let age = balancer.server("s1")["since_seconds"].as_u64();
        (age > Some(3)).then_some(())
    });
    assert!(balancer.server("s1")["throttle_percent"].is_null());

    let _third = Server::start("s3", &balancer);
    balancer.wait_for(&[("s1", "up"), ("s2", "up"), ("s3", "up")]);
    let mut least = WHOLE;
    let whole = eventually("it has its whole share", || {
        let part = part_of_s3(&balancer, &load);
        let percent = balancer.server("s3")["throttle_percent"].as_f64();
        let Some(percent) = percent else {
            return Some(part_of_s3(&balancer, &load));
        };
        // It may have had less when the look began, and never more.
        let most = percent / (200.0 + percent);
        assert!(part < most + 0.04, "{part} of the requests at {percent} %");
        least = least.min(part);
        None
    });
    assert!(least < WHOLE / 2.0, "{least} of the requests at the least");
    assert!(
        (whole - WHOLE).abs() < 0.04,
        "{whole} of the requests in the end"
    );
    let report = load.stop();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
}
