//! What a change of one server costs the writer, at pools of different sizes:
//! to take it in, to build the next snapshot, to publish it and to drop the
//! one before.

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidings::{
    membership::Name,
    pool::{
        Input,
        state::{State, StaticServer},
    },
};
use tokio::time::Instant;

fn name(number: usize) -> Name {
    format!("s{number}").parse().expect("a name")
}

fn state(servers: usize, now: Instant) -> State {
    let servers = (0..servers).map(|number| StaticServer {
        name: name(number),
        target: format!("127.0.0.1:{}", 1024 + number),
        weight: 1,
        check: None,
    });
    let service = "nodes".parse().expect("a name");
    State::new(service, servers.collect(), now)
}

fn publishes(criterion: &mut Criterion) {
    let now = Instant::now();
    let mut group = criterion.benchmark_group("publish");
    for servers in [1, 100, 5000] {
        let mut state = state(servers, now);
        let published = ArcSwap::from_pointee(state.snapshot());
        let mut port = 1;
        group.bench_function(BenchmarkId::from_parameter(servers), |bencher| {
            bencher.iter(|| {
                // Another address each time, so that there is a change.
                port = port % 1000 + 1;
                let address = SocketAddr::from(([127, 0, 0, 2], port));
                let moved = Input::Resolved(name(servers / 2), Some(address));
                state.apply(moved, now);
                published.store(Arc::new(state.snapshot()));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, publishes);
criterion_main!(benches);
