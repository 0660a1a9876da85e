//! Requests of which a server says that it did nothing with them are sent
//! again (RFC 9113 §8.7), and no others are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue};

use super::{
    before_all_http2,
    client::{Answer, Client, next, post, read},
    content,
    frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Raw, STATUS_200, frame},
    origin::{Http2Origin, by_hand},
    run,
};
use crate::support::{
    cluster::Balancer,
    origin::{Origin, Visit},
};

/// What is sent whole before anything is heard of it.
const SMALL: usize = 20_000;

/// What no pipe holds.
const LARGE: usize = 1 << 20;

/// The payload of a GOAWAY without an error.
fn goaway(last: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())
}

fn answer(raw: &mut Raw, stream: u32, body: &[u8]) {
    raw.send(&frame(HEADERS, END_HEADERS, stream, &[STATUS_200]))
        .unwrap();
    for piece in body.chunks(16 * 1024) {
        raw.send(&frame(DATA, 0, stream, piece)).unwrap();
    }
    raw.send(&frame(DATA, END_STREAM, stream, b"")).unwrap();
}

/// A server that refuses requests, once it has got so much of a body.
fn refusing(after: usize) -> (Http2Origin, Arc<AtomicUsize>) {
    let refused = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&refused);
    let origin = Http2Origin::start(move |request, mut respond| {
        let count = Arc::clone(&count);
        async move {
            take(&mut request.into_body(), after).await?;
            count.fetch_add(1, Relaxed);
            respond.send_reset(Reason::REFUSED_STREAM);
            Ok(())
        }
    });
    (origin, refused)
}

/// A server that refuses and one that echoes, with a balancer before them.
struct Pair {
    balancer: Balancer,
    refused: Arc<AtomicUsize>,
    origin: Origin,
    _refusing: Http2Origin,
}

impl Pair {
    fn start() -> Self {
        let (refusing, refused) = refusing(SMALL);
        let origin = Origin::start(echo);
        let flags = ["--server", &origin.named("s2")];
        Self {
            balancer: before_all_http2(&[refusing.addr], &flags),
            refused,
            origin,
            _refusing: refusing,
        }
    }
}

async fn take(from: &mut RecvStream, bytes: usize) -> Result<(), h2::Error> {
    let mut taken = 0;
    while taken < bytes {
        taken += next(from).await?.map_or(bytes, |data| data.len());
    }
    Ok(())
}

/// Answers with the body that it got.
fn echo(visit: &mut Visit) -> std::io::Result<()> {
    visit.body()?;
    let body = visit.seen().content();
    let length = body.len();
    visit.send(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"
    ))?;
    visit.send(body)
}

fn is_echo(answer: &Answer, body: &[u8]) {
    assert_eq!(answer.status, 200);
    assert!(answer.body == body, "{} bytes", answer.body.len());
}

#[test]
fn a_post_that_crosses_the_word_of_a_servers_end_goes_over_a_new_connection() {
    let origin = by_hand(|mut raw, number| {
        raw.wait_for(HEADERS, 1).unwrap();
        if number == 0 {
            answer(&mut raw, 1, b"");
            raw.wait_for(HEADERS, 3).unwrap();
            raw.body(3).unwrap();
            raw.send(&goaway(1)).unwrap();
        } else {
            let body = raw.body(1).unwrap();
            answer(&mut raw, 1, &body);
        }
        raw.rest();
    });
    let balancer = before_all_http2(&[origin], &["--retries", "0"]);
    run(async {
        let client = Client::connect(balancer.http).await;
        assert_eq!(client.get("/").await.unwrap().status, 200);
        let body = content(SMALL);
        let answer = client.ask(post("/"), body.clone()).await.unwrap();
        is_echo(&answer, &body);
    });
}

#[test]
fn a_post_that_one_server_refuses_is_answered_by_another() {
    let pair = Pair::start();
    run(async {
        let client = Client::connect(pair.balancer.http).await;
        let body = content(SMALL);
        for _ in 0..4 {
            let (response, mut upload) = client.begin(post("/"), false).await.unwrap();
            upload.send_data(body.clone().into(), false).unwrap();
            let sum = ("x-check".parse().unwrap(), HeaderValue::from_static("9"));
            upload.send_trailers(HeaderMap::from_iter([sum])).unwrap();
            is_echo(&read(response).await.unwrap(), &body);
        }
    });
    let body = String::from_utf8_lossy(&pair.origin.seen()[0].body).into_owned();
    assert!(body.ends_with("0\r\nx-check: 9\r\n\r\n"));
    let text = String::from_utf8(content(SMALL).iter().map(|it| it % 64 + 32).collect()).unwrap();
    for _ in 0..4 {
        let answer = pair.balancer.connect().post(&text).unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body == text.as_bytes());
    }
    assert_eq!(pair.origin.seen().len(), 8);
    assert!(pair.refused.load(Relaxed) >= 2, "it was asked");
}

#[test]
fn a_body_that_is_still_coming_goes_on_to_the_next_server() {
    let pair = Pair::start();
    run(async {
        let client = Client::connect(pair.balancer.http).await;
        let body = Bytes::from(content(LARGE));
        while pair.refused.load(Relaxed) == 0 {
            let (response, mut upload) = client.begin(post("/"), false).await.unwrap();
            upload.send_data(body.slice(..SMALL), false).unwrap();
            // The word of a refusal has been heard only once the next has it.
            let reached = pair.origin.seen().len();
            while pair.origin.seen().len() == reached {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            upload.send_data(body.slice(SMALL..), true).unwrap();
            is_echo(&read(response).await.unwrap(), &body);
        }
    });
}

#[test]
fn a_body_of_which_too_much_is_gone_is_not_sent_again() {
    let (first, refused) = refusing(LARGE / 2);
    let second = refusing(LARGE / 2);
    let balancer = before_all_http2(&[first.addr, second.0.addr], &[]);
    run(async {
        let client = Client::connect(balancer.http).await;
        let answer = client.ask(post("/"), content(LARGE)).await.unwrap();
        assert_eq!(answer.status, 502);
    });
    assert_eq!(refused.load(Relaxed) + second.1.load(Relaxed), 1);
}

#[test]
fn a_post_that_a_server_has_acted_on_is_never_sent_twice() {
    for reason in [
        Reason::INTERNAL_ERROR,
        Reason::CANCEL,
        Reason::NO_ERROR,
        Reason::ENHANCE_YOUR_CALM,
    ] {
        let executed = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&executed);
        let acts = move |request: http::Request<RecvStream>,
                         mut respond: h2::server::SendResponse<Bytes>| {
            let count = Arc::clone(&count);
            async move {
                take(&mut request.into_body(), SMALL).await?;
                count.fetch_add(1, Relaxed);
                respond.send_reset(reason);
                Ok(())
            }
        };
        let origins = [Http2Origin::start(acts.clone()), Http2Origin::start(acts)];
        let addrs = origins.each_ref().map(|origin| origin.addr);
        let balancer = before_all_http2(&addrs, &[]);
        run(async {
            let client = Client::connect(balancer.http).await;
            let answer = client.ask(post("/"), content(SMALL)).await.unwrap();
            assert_eq!(answer.status, 502, "{reason}");
        });
        assert_eq!(executed.load(Relaxed), 1, "{reason}");
    }
}

#[test]
fn a_post_that_the_word_of_a_servers_end_covers_is_never_sent_twice() {
    for last in [1, u32::MAX >> 1] {
        let executed = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&executed);
        let acts = move |mut raw: Raw, _| {
            raw.wait_for(HEADERS, 1).unwrap();
            raw.body(1).unwrap();
            count.fetch_add(1, Relaxed);
            raw.send(&goaway(last)).unwrap();
            // And it goes without an answer.
        };
        let origins = [by_hand(acts.clone()), by_hand(acts)];
        let balancer = before_all_http2(&origins, &[]);
        run(async {
            let client = Client::connect(balancer.http).await;
            let answer = client.ask(post("/"), content(SMALL)).await.unwrap();
            assert_eq!(answer.status, 502);
        });
        assert_eq!(executed.load(Relaxed), 1);
    }
}
