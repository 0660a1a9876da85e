//! What it costs to read a head and to write it anew for the other side.

use std::{hint::black_box, net::SocketAddr};

use criterion::{Criterion, criterion_group, criterion_main};
use tidings::proxy::bench::{Origin, request_head, response_head};

const PLAIN: &str = "GET /small HTTP/1.1\r\nHost: app.test\r\n\r\n";

const BROWSER: &str = "GET /products?page=2&sort=price HTTP/1.1\r\n\
    Host: app.test\r\n\
    Connection: keep-alive\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Referer: http://app.test/\r\n\
    Cookie: theme=dark; NODESESSID=s%3Aabcdefghijklmnop.qrstuv\r\n\
    If-None-Match: W/\"1f-abcdef\"\r\n\r\n";

const ANSWER: &str = "HTTP/1.1 200 OK\r\n\
    Content-Type: application/json; charset=utf-8\r\n\
    Content-Length: 100\r\n\
    ETag: W/\"64-abcdef\"\r\n\
    Date: Mon, 23 Nov 2026 08:00:00 GMT\r\n\
    Connection: keep-alive\r\n\
    Keep-Alive: timeout=5\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let peer = SocketAddr::from(([192, 0, 2, 17], 51_234));
    let local = SocketAddr::from(([192, 0, 2, 1], 80));
    let origin = Origin::new(peer, local);
    for (name, head) in [
        ("request, one field", PLAIN),
        ("request, a browser's", BROWSER),
    ] {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| request_head(black_box(head.as_bytes()), &origin));
        });
    }
    let mut out = Vec::with_capacity(1024);
    criterion.bench_function("response", |bencher| {
        bencher.iter(|| response_head(black_box(ANSWER.as_bytes()), &mut out));
    });
}

criterion_group!(benches, heads);
criterion_main!(benches);
