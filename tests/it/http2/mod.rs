//! HTTP/2 as its users meet it, and as those do who mean no good.

mod client;
mod floods;
mod frames;
mod hostile;
mod origin;
mod passing;
mod sharing;
mod streams;
mod unprocessed;

use std::{net::SocketAddr, time::Duration};

use super::support::{
    cluster::Balancer,
    origin::{Origin, balancer_over},
};

/// How long anything may take that is sure to happen.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs a client to its end.
#[track_caller]
fn run<T>(client: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("a runtime");
    let patient = async { tokio::time::timeout(PATIENCE, client).await };
    runtime.block_on(patient).expect("it ends in time")
}

/// A balancer with one worker before one server.
fn before(origin: &Origin, flags: &[&str]) -> Balancer {
    let mut all = vec!["--workers", "1"];
    all.extend(flags);
    balancer_over(&[origin], &all)
}

/// A balancer with one worker before a server that speaks HTTP/2.
fn before_http2(origin: &origin::Http2Origin, flags: &[&str]) -> Balancer {
    before_all_http2(&[origin.addr], flags)
}

/// A balancer with one worker before servers that speak HTTP/2, s1 and so on.
fn before_all_http2(addrs: &[SocketAddr], flags: &[&str]) -> Balancer {
    let servers: Vec<String> = addrs
        .iter()
        .zip(1..)
        .map(|(addr, number)| format!("s{number}={addr},proto=h2,check=off"))
        .collect();
    let mut all = vec!["--workers", "1"];
    for server in &servers {
        all.extend(["--server", server]);
    }
    all.extend(flags);
    Balancer::start(&all)
}

/// Bytes of which no two pieces are alike.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251 + at) as u8).collect()
}
