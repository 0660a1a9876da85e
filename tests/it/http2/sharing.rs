//! How many connections there are to a server that speaks HTTP/2.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use h2::server::Builder;
use tokio::sync::watch;

use super::{
    before_all_http2, before_http2,
    client::{Client, get, read},
    origin::{Http2Origin, ok},
    run,
};
use crate::support::{eventually, origin::Origin};

/// How many connections a server sees that takes so many requests on each,
/// where so many come at once and none is answered before the last is there.
fn connections_of_a_burst(requests: usize, on_each: Option<u32>) -> usize {
    let mut builder = Builder::new();
    if let Some(most) = on_each {
        builder.max_concurrent_streams(most);
    }
    let (open, gate) = watch::channel(false);
    let seen = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&seen);
    let origin = Http2Origin::start_with(&builder, move |_, mut respond| {
        counted.fetch_add(1, Relaxed);
        let mut gate = gate.clone();
        async move {
            gate.wait_for(|open| *open)
                .await
                .expect("the test opens it");
            respond.send_response(ok(), true).map(drop)
        }
    });
    let balancer = before_http2(&origin, &[]);
    run(async {
        let mut clients = Vec::new();
        let mut answers = Vec::new();
        for number in 0..requests {
            // A client has so many at a time.
            if number % 100 == 0 {
                clients.push(Client::connect(balancer.http).await);
            }
            let client = clients.last().unwrap();
            let (response, _) = client.begin(get("/"), true).await.unwrap();
            answers.push(tokio::spawn(read(response)));
        }
        let all = move || {
            eventually("all are there", || {
                (seen.load(Relaxed) == requests).then_some(())
            });
        };
        tokio::task::spawn_blocking(all).await.unwrap();
        open.send(true).unwrap();
        for answer in answers {
            assert_eq!(answer.await.unwrap().unwrap().status, 200);
        }
    });
    origin.connections()
}

#[test]
fn a_burst_that_finds_no_connection_opens_one() {
    assert_eq!(connections_of_a_burst(60, None), 1);
}

#[test]
fn a_burst_opens_as_many_connections_as_the_servers_limit_asks_for() {
    assert_eq!(connections_of_a_burst(30, Some(10)), 3);
}

#[test]
fn a_burst_of_hundreds_opens_a_connection_a_hundred() {
    assert_eq!(connections_of_a_burst(300, None), 3);
}

#[test]
fn who_waited_for_a_connection_that_breaks_is_served_elsewhere() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closes = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().for_each(drop));
    let origin = Origin::saying("hello");
    let other = origin.named("s2");
    let balancer = before_all_http2(&[closes], &["--server", &other]);
    run(async {
        let client = Client::connect(balancer.http).await;
        let mut answers = Vec::new();
        for _ in 0..40 {
            let (response, _) = client.begin(get("/"), true).await.unwrap();
            answers.push(tokio::spawn(read(response)));
        }
        for answer in answers {
            assert_eq!(answer.await.unwrap().unwrap().body, b"hello");
        }
    });
}
