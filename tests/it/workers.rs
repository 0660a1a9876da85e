//! How connections spread over the workers.

use super::support::{
    client::Client,
    cluster::Balancer,
    eventually,
    origin::{Origin, balancer_over},
};

/// How many connections each worker has.
fn connections(balancer: &Balancer) -> Vec<usize> {
    let metrics = String::from_utf8(balancer.stats("/metrics").body).unwrap();
    let of_worker = |line: &str| {
        let sample = line.strip_prefix("tidings_worker_connections{worker=\"")?;
        let (worker, count) = sample.split_once("\"} ")?;
        let count = count.parse().expect("a whole number");
        Some((worker.to_owned(), count))
    };
    let workers = metrics.lines().filter_map(of_worker).enumerate();
    let in_order = workers.map(|(index, (worker, count))| {
        assert_eq!(worker, index.to_string());
        count
    });
    in_order.collect()
}

/// New connections, each in use.
fn connect(balancer: &Balancer, count: usize) -> Vec<Client> {
    let connect = |_| {
        let mut client = balancer.connect();
        assert_eq!(client.get(&[]).unwrap().body, b"hello");
        client
    };
    (0..count).map(connect).collect()
}

/// As many rounds that chance alone, which is even in three of four, gets
/// through all of them once in three hundred.
const ROUNDS: usize = 20;

#[test]
fn three_connections_on_two_workers_are_two_and_one() {
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], &["--workers", "2"]);
    for _ in 0..ROUNDS {
        let mut clients = connect(&balancer, 3);
        let mut spread = connections(&balancer);
        spread.sort_unstable();
        assert_eq!(spread, [1, 2]);
        // Those that were handed over are kept like any other.
        for client in &mut clients {
            assert_eq!(client.get(&[]).unwrap().body, b"hello");
        }
        drop(clients);
        eventually("they are closed", || {
            (connections(&balancer) == [0, 0]).then_some(())
        });
    }
}

#[test]
fn a_connection_goes_where_others_have_left() {
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], &["--workers", "2"]);
    let mut clients = connect(&balancer, 6);
    assert_eq!(connections(&balancer), [3, 3]);
    for left in (2..6).rev() {
        clients.remove(0);
        eventually("it is closed", || {
            (connections(&balancer).iter().sum::<usize>() == left).then_some(())
        });
    }
    let more = connect(&balancer, 4);
    assert_eq!(connections(&balancer), [3, 3]);
    drop((clients, more));
}
