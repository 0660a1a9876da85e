//! What the sticky cookie costs: to take it out of a request, and to set it.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header::COOKIE};
use tidings::balance::sticky::{insert, take};

fn takes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("take");
    for (name, cookies) in [
        ("no cookies", None),
        ("alone", Some("SERVERID=s1")),
        (
            "among others",
            Some("theme=dark; SERVERID=s1; NODESESSID=s%3Aabcdefghijklmnop.qrstuv; lang=en"),
        ),
        (
            "only others",
            Some("theme=dark; NODESESSID=s%3Aabcdefghijklmnop.qrstuv; lang=en"),
        ),
    ] {
        let mut headers = HeaderMap::new();
        if let Some(cookies) = cookies {
            headers.insert(COOKIE, HeaderValue::from_static(cookies));
        }
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || headers.clone(),
                |headers| take(headers, black_box("SERVERID")),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn inserts(criterion: &mut Criterion) {
    criterion.bench_function("insert", |bencher| {
        bencher.iter_batched_ref(
            HeaderMap::new,
            |headers| {
                insert(
                    headers,
                    black_box("SERVERID"),
                    "s1",
                    &Method::GET,
                    StatusCode::OK,
                );
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, takes, inserts);
criterion_main!(benches);
