//! What the envelope of a gossip packet costs, plain and sealed.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidings::gossip::{
    Key, Keyring,
    bench::{LARGEST_BODY, Wire},
};

fn envelopes(criterion: &mut Criterion) {
    let sealed: Keyring = [Key::generate()].into_iter().collect();
    for (kind, keyring) in [("plain", Keyring::default()), ("sealed", sealed)] {
        let wire = Wire::new("tidings".parse().expect("a name"), keyring);
        for size in [64, LARGEST_BODY] {
            let body = vec![7; size];
            let packet = wire.seal(&body);
            let mut group = criterion.benchmark_group(kind);
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new("seal", size), |bencher| {
                bencher.iter(|| wire.seal(black_box(&body)));
            });
            group.bench_function(BenchmarkId::new("open", size), |bencher| {
                bencher.iter(|| wire.open(black_box(&packet)));
            });
            group.finish();
        }
    }
}

criterion_group!(benches, envelopes);
criterion_main!(benches);
