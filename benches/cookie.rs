//! What the sticky cookie costs: to take it out of a request, and to set it.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{Method, StatusCode};
use tidings::balance::sticky::{insert, take};

fn takes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("take");
    for (name, cookies) in [
        ("alone", "SERVERID=s1"),
        (
            "among others",
            "theme=dark; SERVERID=s1; NODESESSID=s%3Aabcdefghijklmnop.qrstuv; lang=en",
        ),
        (
            "only others",
            "theme=dark; NODESESSID=s%3Aabcdefghijklmnop.qrstuv; lang=en",
        ),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut value = None;
                let rest = take(black_box(cookies.as_bytes()), "SERVERID", &mut value);
                black_box(rest);
                value
            });
        });
    }
    group.finish();
}

fn inserts(criterion: &mut Criterion) {
    let mut head = Vec::with_capacity(256);
    criterion.bench_function("insert", |bencher| {
        bencher.iter(|| {
            head.clear();
            let name = black_box("SERVERID");
            insert(&mut head, name, "s1", &Method::GET, StatusCode::OK);
            head.len()
        });
    });
}

criterion_group!(benches, takes, inserts);
criterion_main!(benches);
