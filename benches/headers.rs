//! What it costs to make a client's head one for a server, and a server's one
//! for a client.

use std::{hint::black_box, net::SocketAddr};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{Request, Response, request, response};
use tidings::proxy::bench::{Origin, prepare_request, prepare_response};

fn plain() -> request::Parts {
    let request = Request::get("/small").header("host", "app.test");
    request.body(()).expect("a request").into_parts().0
}

fn browser() -> request::Parts {
    let fields = [
        ("host", "app.test"),
        ("connection", "keep-alive"),
        ("upgrade-insecure-requests", "1"),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101",
        ),
        (
            "accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ),
        ("accept-encoding", "gzip, deflate, br"),
        ("accept-language", "en-GB,en;q=0.5"),
        ("referer", "http://app.test/"),
        (
            "cookie",
            "theme=dark; NODESESSID=s%3Aabcdefghijklmnop.qrstuv",
        ),
        ("if-none-match", "W/\"1f-abcdef\""),
    ];
    let request = Request::get("/products?page=2&sort=price");
    let request = fields.into_iter().fold(request, |request, (name, value)| {
        request.header(name, value)
    });
    request.body(()).expect("a request").into_parts().0
}

fn answer() -> response::Parts {
    let response = Response::builder()
        .header("content-type", "application/json; charset=utf-8")
        .header("content-length", "100")
        .header("etag", "W/\"64-abcdef\"")
        .header("date", "Mon, 23 Nov 2026 08:00:00 GMT")
        .header("connection", "keep-alive")
        .header("keep-alive", "timeout=5");
    response.body(()).expect("a response").into_parts().0
}

fn heads(criterion: &mut Criterion) {
    let peer = SocketAddr::from(([192, 0, 2, 17], 51_234));
    let local = SocketAddr::from(([192, 0, 2, 1], 80));
    let origin = Origin::new(peer, local);
    for (name, head) in [
        ("request, one field", plain()),
        ("request, a browser's", browser()),
    ] {
        criterion.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || head.clone(),
                |head| prepare_request(black_box(head), &origin),
                BatchSize::SmallInput,
            );
        });
    }
    criterion.bench_function("response", |bencher| {
        bencher.iter_batched_ref(
            answer,
            |head| prepare_response(black_box(head)),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, heads);
criterion_main!(benches);
