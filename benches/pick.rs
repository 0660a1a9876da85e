//! What choosing a server costs, at pools of different sizes.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::{SeedableRng, rngs::SmallRng};
use tidings::{
    balance::{Algorithm, Tried, pick},
    pool::{
        Snapshot,
        state::{State, StaticServer},
    },
};
use tokio::time::Instant;

fn snapshot(servers: usize) -> Snapshot {
    let servers = (0..servers).map(|i| StaticServer {
        name: format!("s{i}").parse().expect("a name"),
        target: format!("127.0.0.1:{}", 1024 + i),
        weight: 1,
        check: None,
        tags: std::collections::BTreeMap::new(),
    });
    let service = "nodes".parse().expect("a name");
    State::new(service, servers.collect(), Instant::now()).snapshot()
}

fn picks(criterion: &mut Criterion) {
    let mut rng = SmallRng::seed_from_u64(1);
    for (name, algorithm) in [
        ("roundrobin", Algorithm::RoundRobin),
        ("leastconn", Algorithm::LeastConn),
        ("random", Algorithm::Random),
    ] {
        let mut group = criterion.benchmark_group(name);
        for servers in [1, 10, 100, 1000, 5000] {
            let snapshot = snapshot(servers);
            let tried = Tried::default();
            group.bench_function(BenchmarkId::from_parameter(servers), |bencher| {
                bencher.iter(|| pick(algorithm, black_box(&snapshot), &tried, &mut rng));
            });
        }
        group.finish();
    }
}

fn sticky_look_up(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sticky look-up");
    for servers in [1, 10, 100, 1000, 5000] {
        let snapshot = snapshot(servers);
        // As cookies come: now for one server, now for another.
        let names: Vec<String> = (0..servers).map(|i| format!("s{i}")).collect();
        let mut turns = names.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(servers), |bencher| {
            bencher.iter(|| {
                let name = turns.next().map_or("", String::as_str);
                snapshot.by_name(black_box(name)).is_some()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, picks, sticky_look_up);
criterion_main!(benches);
