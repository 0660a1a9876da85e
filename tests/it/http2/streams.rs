//! How streams and their connection end: each its own way, and none with
//! another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, ext::Protocol};
use http::Request;
use rustix::process::Signal;
use serde_json::Value;

use super::{
    before, before_http2,
    client::{Client, get, next, post, read},
    frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Raw, STATUS_200, frame, request},
    origin::{Http2Origin, ok},
    run,
};
use crate::support::{
    cluster::Balancer,
    eventually,
    origin::{Origin, Visit, gate},
};

/// Says when the balancer has ended the connection.
fn waits_for_the_end(visit: &mut Visit, ended: &AtomicBool) {
    while visit.read().is_ok_and(|read| !read.is_empty()) {}
    ended.store(true, Relaxed);
}

#[track_caller]
fn becomes_true(what: &str, flag: &AtomicBool) {
    eventually(what, || flag.load(Relaxed).then_some(()));
}

/// What the log says of the request for that path.
#[track_caller]
fn logged(balancer: &Balancer, path: &str) -> Value {
    balancer.process.says("the request is logged", |line| {
        let object: Value = serde_json::from_str(line).ok()?;
        (object["path"] == path).then_some(object)
    })
}

#[test]
fn a_server_that_dies_in_mid_body_resets_one_stream_and_no_other() {
    let (die, dies) = gate();
    let (answer, answers) = gate();
    let origin = Origin::start(move |visit| {
        if visit.seen().first_line().contains("/dies") {
            visit.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten octets")?;
            dies.wait();
            return visit.reset();
        }
        answers.wait();
        visit.send(crate::support::origin::ok("well"))
    });
    let balancer = before(&origin, &["--access-log", "json"]);
    run(async {
        let client = Client::connect(balancer.http).await;
        let (other, _) = client.begin(get("/lives"), true).await.unwrap();
        let (dying, _) = client.begin(get("/dies"), true).await.unwrap();
        let mut body = dying.await.unwrap().into_body();
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "ten octets");
        drop(die);
        let error = next(&mut body).await.unwrap_err();
        assert!(error.is_reset(), "{error}");
        drop(answer);
        assert_eq!(read(other).await.unwrap().body, b"well");
        assert_eq!(client.get("/again").await.unwrap().status, 200);
    });
    assert_eq!(logged(&balancer, "/dies")["termination"], "SD");
}

#[test]
fn the_server_sees_that_a_client_has_taken_its_request_back() {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    let origin = Origin::start(move |visit| {
        if visit.seen().first_line().contains("/back") {
            waits_for_the_end(visit, &flag);
        }
        visit.send(crate::support::origin::ok("well"))
    });
    let balancer = before(&origin, &["--access-log", "json"]);
    run(async {
        let client = Client::connect(balancer.http).await;
        let (response, mut upload) = client.begin(get("/back"), true).await.unwrap();
        assert_eq!(client.get("/").await.unwrap().status, 200);
        upload.send_reset(Reason::CANCEL);
        drop(response);
        assert_eq!(client.get("/").await.unwrap().status, 200);
        let ended = Arc::clone(&ended);
        let seen = move || becomes_true("the request ends at the server", &ended);
        tokio::task::spawn_blocking(seen).await.unwrap();
        assert_eq!(client.get("/").await.unwrap().status, 200);
    });
    assert_eq!(logged(&balancer, "/back")["termination"], "CH");
}

#[test]
fn a_request_that_a_server_of_http2_stalls_is_reset_there_once_nobody_waits() {
    let reset = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&reset);
    let origin = Http2Origin::start(move |request, mut respond| {
        let flag = Arc::clone(&flag);
        async move {
            if request.uri().path() == "/stalls" {
                // What it holds fills the window, and more is not taken.
                let _held = request.into_body();
                let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await?;
                flag.store(reason == Reason::CANCEL, Relaxed);
                return Ok(());
            }
            respond.send_response(ok(), true).map(drop)
        }
    });
    let balancer = before_http2(&origin, &["--timeout-server", "1s", "--retries", "0"]);
    run(async {
        let client = Client::connect(balancer.http).await;
        let (_response, mut upload) = client.begin(post("/stalls"), false).await.unwrap();
        upload
            .send_data(Bytes::from(vec![7; 1 << 20]), false)
            .unwrap();
        assert_eq!(client.get("/").await.unwrap().status, 200);
        upload.send_reset(Reason::CANCEL);
        let reset = Arc::clone(&reset);
        let seen = move || becomes_true("the stream is reset at the server", &reset);
        tokio::task::spawn_blocking(seen).await.unwrap();
        assert_eq!(client.get("/").await.unwrap().status, 200);
    });
}

#[test]
fn streams_in_flight_are_answered_after_the_word_to_end() {
    let (open, gate) = gate();
    let origin = Origin::start(move |visit| {
        gate.wait();
        visit.send(crate::support::origin::ok("at last"))
    });
    let mut balancer = before(&origin, &[]);
    let mut client = Raw::connect(balancer.http, &[]);
    let both = END_HEADERS | END_STREAM;
    for stream in [1, 3] {
        client
            .send(&frame(HEADERS, both, stream, &request("GET", "/")))
            .unwrap();
    }
    origin.wait_for(2);
    balancer.process.signal(Signal::TERM);
    let goaway = client.wait_for(GOAWAY, 0).unwrap();
    assert_eq!(goaway.payload[4..8], [0; 4], "no error");
    drop(open);
    let (frames, closed) = client.rest();
    assert!(closed);
    for stream in [1, 3] {
        let of_stream: Vec<_> = frames
            .iter()
            .filter(|frame| frame.stream == stream)
            .collect();
        assert_eq!(
            (of_stream[0].kind, of_stream[0].payload[0]),
            (HEADERS, STATUS_200)
        );
        let data: Vec<_> = of_stream[1..]
            .iter()
            .flat_map(|frame| &frame.payload)
            .copied()
            .collect();
        assert_eq!(data, b"at last");
        let last = of_stream.last().unwrap();
        assert_eq!((last.kind, last.flags & END_STREAM), (DATA, END_STREAM));
    }
    assert_eq!(balancer.process.exit_code(), 0);
}

#[test]
fn every_request_that_reached_a_server_is_answered_when_the_balancer_ends() {
    let origin = Origin::saying("hello");
    let mut balancer = before(&origin, &[]);
    let http = balancer.http;
    let answered = run(async {
        let mut users = Vec::new();
        for _ in 0..8 {
            users.push(tokio::spawn(async move {
                let client = Client::connect(http).await;
                let mut answered = 0;
                while let Ok(answer) = client.get("/").await {
                    assert_eq!(
                        (answer.status, answer.body.as_slice()),
                        (200, &b"hello"[..])
                    );
                    answered += 1;
                }
                answered
            }));
        }
        let origin = &origin;
        while origin.seen().len() < 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        balancer.process.signal(Signal::TERM);
        let mut answered = 0;
        for user in users {
            answered += user.await.unwrap();
        }
        answered
    });
    assert_eq!(balancer.process.exit_code(), 0);
    assert_eq!(origin.seen().len(), answered);
}

#[test]
fn a_connection_without_requests_is_closed_in_time() {
    let origin = Origin::saying("hello");
    let balancer = before(&origin, &["--timeout-keep-alive", "200ms"]);
    run(async {
        let client = Client::connect(balancer.http).await;
        assert_eq!(client.get("/").await.unwrap().status, 200);
        client.closed().await.unwrap();
    });
}

#[test]
fn a_body_that_does_not_come_is_waited_for_no_longer_than_told() {
    let origin = Origin::saying("hello");
    let balancer = before(&origin, &["--timeout-client", "300ms"]);
    run(async {
        let client = Client::connect(balancer.http).await;
        let (response, _upload) = client.begin(post("/"), false).await.unwrap();
        assert_eq!(read(response).await.unwrap().status, 408);
        assert_eq!(client.get("/").await.unwrap().status, 200);
    });
}

fn connect(protocol: &'static str) -> Request<()> {
    Request::connect("http://test/chat")
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static(protocol))
        .body(())
        .unwrap()
}

#[test]
fn a_websocket_over_http2_reaches_a_server_of_http1() {
    let origin = Origin::start(|visit| {
        let head = visit.seen();
        assert_eq!(head.first_line(), "GET /chat HTTP/1.1");
        assert_eq!(head.values("upgrade"), ["websocket"]);
        assert_eq!(head.values("connection"), ["upgrade"]);
        assert_eq!(head.values("sec-websocket-key")[0].len(), 24);
        visit.send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: x\r\nsec-websocket-protocol: chat\r\n\r\nwelcome",
        )?;
        loop {
            let read = visit.read()?;
            if read.is_empty() {
                visit.send("bye")?;
                visit.close()?;
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            visit.send(read.to_ascii_uppercase())?;
        }
    });
    let balancer = before(&origin, &[]);
    run(async {
        let client = Client::connect(balancer.http).await;
        client.may_switch().await;
        let (response, mut upload) = client.begin(connect("websocket"), false).await.unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        assert!(!response.headers().contains_key("sec-websocket-accept"));
        let mut from = response.into_body();
        assert_eq!(next(&mut from).await.unwrap().unwrap(), "welcome");
        for text in ["one", "two"] {
            upload.send_data(Bytes::from(text), false).unwrap();
            let data = next(&mut from).await.unwrap().unwrap();
            assert_eq!(data, text.to_ascii_uppercase());
        }
        upload.send_data(Bytes::new(), true).unwrap();
        assert_eq!(next(&mut from).await.unwrap().unwrap(), "bye");
        assert_eq!(next(&mut from).await.unwrap(), None);
    });
}

#[test]
fn what_cannot_be_switched_to_is_refused() {
    let origin = Origin::saying("no");
    let balancer = before(&origin, &[]);
    run(async {
        let client = Client::connect(balancer.http).await;
        client.may_switch().await;
        // The server answers as if nothing had been asked for: no success.
        let (response, _upload) = client.begin(connect("websocket"), false).await.unwrap();
        assert_eq!(read(response).await.unwrap().status, 502);
        let (response, _upload) = client.begin(connect("connect-udp"), false).await.unwrap();
        assert_eq!(read(response).await.unwrap().status, 405);
        let tunnel = Request::connect("test:443").body(()).unwrap();
        let (response, _upload) = client.begin(tunnel, false).await.unwrap();
        assert_eq!(read(response).await.unwrap().status, 405);
        assert_eq!(client.get("/").await.unwrap().status, 200);
    });
    assert_eq!(origin.seen().len(), 2);
}
