//! Requests and answers over HTTP/2 on either side, whole and unaltered.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request};
use serde_json::Value;

use super::{
    before, before_http2,
    client::{Client, get, next, post, read},
    content,
    frames::PREFACE,
    origin::{Http2Origin, ok},
    run,
};
use crate::support::{
    cluster::nobody,
    eventually,
    origin::{Origin, Seen, balancer_over, gate},
};

const LARGE: usize = 4 << 20;

#[test]
fn requests_of_all_kinds_are_answered_on_one_connection() {
    let origin = Origin::saying("hello");
    let balancer = before(&origin, &[]);
    run(async {
        let client = Client::connect(balancer.http).await;
        let answer = client.get("/a?b=c").await.unwrap();
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (200, &b"hello"[..])
        );
        assert_eq!(answer.headers["content-length"], "5");
        assert!(!answer.headers.contains_key("connection"));
        let answer = client.ask(post("/p"), "some text").await.unwrap();
        assert_eq!(answer.status, 200);
        let mut head = get("/h");
        *head.method_mut() = Method::HEAD;
        let answer = client.ask(head, "").await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        assert_eq!(answer.headers["content-length"], "5");
    });
    let seen = origin.seen();
    let lines: Vec<_> = seen.iter().map(Seen::first_line).collect();
    assert_eq!(
        lines,
        [
            "GET /a?b=c HTTP/1.1",
            "POST /p HTTP/1.1",
            "HEAD /h HTTP/1.1"
        ]
    );
    assert_eq!(seen[0].values("host"), ["test"]);
    assert_eq!(seen[0].values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen[1].content(), b"some text");
}

#[test]
fn large_bodies_arrive_as_they_were_sent_in_both_directions() {
    let origin = Origin::start(|visit| {
        visit.body()?;
        let body = visit.seen().content();
        visit.send(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            body.len()
        ))?;
        visit.send(body)
    });
    let echo = |request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>| async move {
        let mut from = request.into_body();
        let mut to = respond.send_response(ok(), false)?;
        while let Some(data) = next(&mut from).await? {
            to.send_data(data, false)?;
        }
        to.send_data(Bytes::new(), true)
    };
    let http2_origin = Http2Origin::start(echo);
    for balancer in [before(&origin, &[]), before_http2(&http2_origin, &[])] {
        run(async {
            let client = Client::connect(balancer.http).await;
            let answer = client.ask(post("/"), content(LARGE)).await.unwrap();
            assert_eq!(answer.status, 200);
            assert!(answer.body == content(LARGE), "{} bytes", answer.body.len());
            let mut told = post("/");
            let length = HeaderValue::from(LARGE);
            told.headers_mut().insert("content-length", length);
            let answer = client.ask(told, content(LARGE)).await.unwrap();
            assert!(answer.body == content(LARGE), "{} bytes", answer.body.len());
        });
    }
}

#[test]
fn a_hundred_requests_are_under_way_at_the_same_time() {
    let (open, gate) = gate();
    let origin = Origin::start(move |visit| {
        gate.wait();
        let target = visit.seen().first_line().to_owned();
        visit.send(crate::support::origin::ok(&target))
    });
    let balancer = before(&origin, &[]);
    run(async {
        let client = Client::connect(balancer.http).await;
        let mut answers = Vec::new();
        for number in 0..100 {
            let (response, _) = client
                .begin(get(&format!("/{number}")), true)
                .await
                .unwrap();
            answers.push(tokio::spawn(read(response)));
        }
        let _origin = tokio::task::spawn_blocking(move || {
            origin.wait_for(100);
            drop(open);
            origin
        })
        .await
        .unwrap();
        for (number, answer) in answers.into_iter().enumerate() {
            let answer = answer.await.unwrap().unwrap();
            let expected = format!("GET /{number} HTTP/1.1");
            assert_eq!(String::from_utf8(answer.body).unwrap(), expected);
        }
    });
}

#[test]
fn trailers_pass_in_both_directions() {
    let origin = Origin::start(|visit| {
        visit.body()?;
        visit.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        visit.send("2\r\nok\r\n0\r\nx-sum: 7\r\ncontent-length: 3\r\n\r\n")
    });
    let balancer = before(&origin, &[]);
    run(async {
        let client = Client::connect(balancer.http).await;
        let (response, mut upload) = client.begin(post("/"), false).await.unwrap();
        upload.send_data(Bytes::from("body"), false).unwrap();
        let sum = ("x-check".parse().unwrap(), HeaderValue::from_static("9"));
        upload.send_trailers(HeaderMap::from_iter([sum])).unwrap();
        let answer = read(response).await.unwrap();
        assert_eq!(answer.body, b"ok");
        let trailers = answer.trailers.unwrap();
        assert_eq!(trailers["x-sum"], "7");
        assert_eq!(trailers.len(), 1, "what would frame is no trailer");
    });
    let body = String::from_utf8(origin.only().body).unwrap();
    assert!(body.ends_with("0\r\nx-check: 9\r\n\r\n"), "{body}");
}

#[test]
fn messages_go_back_and_forth_while_both_bodies_are_open_as_grpc_has_them() {
    let origin = Http2Origin::start(|request, mut respond| async move {
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.uri().authority().unwrap(), "test");
        if request.uri().path() == "/unimplemented" {
            let mut response = ok();
            response
                .headers_mut()
                .insert("grpc-status", HeaderValue::from(12));
            return respond.send_response(response, true).map(drop);
        }
        let mut from = request.into_body();
        let mut to = respond.send_response(ok(), false)?;
        while let Some(data) = next(&mut from).await? {
            let text = String::from_utf8_lossy(&data).replace("ping", "pong");
            to.send_data(Bytes::from(text), false)?;
        }
        let status = ("grpc-status".parse().unwrap(), HeaderValue::from(0));
        to.send_trailers(HeaderMap::from_iter([status]))
    });
    let balancer = before_http2(&origin, &[]);
    run(async {
        let client = Client::connect(balancer.http).await;
        let call = |path: &str| {
            let mut call = post(path);
            call.headers_mut()
                .insert("te", HeaderValue::from_static("trailers"));
            call
        };
        let (response, mut upload) = client.begin(call("/talk"), false).await.unwrap();
        upload.send_data(Bytes::from("ping 0"), false).unwrap();
        let mut answer = response.await.unwrap().into_body();
        for number in 0..20 {
            let data = next(&mut answer).await.unwrap().unwrap();
            assert_eq!(data, format!("pong {number}"));
            let text = format!("ping {}", number + 1);
            upload.send_data(Bytes::from(text), false).unwrap();
        }
        assert_eq!(next(&mut answer).await.unwrap().unwrap(), "pong 20");
        upload.send_data(Bytes::new(), true).unwrap();
        assert_eq!(next(&mut answer).await.unwrap(), None);
        let trailers = answer.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "0");

        let answer = client.ask(call("/unimplemented"), "ping").await.unwrap();
        assert_eq!(answer.headers["grpc-status"], "12");
        assert_eq!((answer.body.len(), answer.trailers), (0, None));
    });
}

#[test]
fn a_cookie_in_crumbs_keeps_its_user_at_one_server() {
    let origins = ["one", "two"].map(Origin::saying);
    let [one, two] = &origins;
    let balancer = balancer_over(&[one, two], &[]);
    run(async {
        let client = Client::connect(balancer.http).await;
        let first = client.get("/").await.unwrap();
        let cookie = first.headers["set-cookie"].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        for _ in 0..5 {
            let mut request = get("/");
            let headers = request.headers_mut();
            headers.append("cookie", HeaderValue::from_static("a=1"));
            headers.append("cookie", cookie.parse().unwrap());
            headers.append("cookie", HeaderValue::from_static("b=2"));
            let again = client.ask(request, "").await.unwrap();
            assert_eq!(again.body, first.body);
            assert!(!again.headers.contains_key("set-cookie"));
        }
    });
    let seen = origins.iter().flat_map(Origin::seen).last().unwrap();
    assert_eq!(seen.values("cookie"), ["a=1; b=2"]);
}

#[test]
fn a_server_that_is_not_there_is_tried_no_longer_than_it_takes_to_find_another() {
    let origin = Origin::saying("hello");
    let (_, dead) = nobody();
    let dead = [
        format!("s1={dead},check=off"),
        format!("s3={dead},check=off,proto=h2"),
    ];
    let flags = [
        "--server",
        &dead[0],
        "--server",
        &dead[1],
        "--server",
        &origin.named("s2"),
    ];
    let balancer = crate::support::cluster::Balancer::start(&flags);
    run(async {
        let client = Client::connect(balancer.http).await;
        for _ in 0..6 {
            let answer = client.ask(post("/"), "text").await.unwrap();
            assert_eq!(
                (answer.status, answer.body.as_slice()),
                (200, &b"hello"[..])
            );
        }
    });
}

#[test]
fn clients_of_http1_are_served_by_servers_of_http2() {
    let origin = Http2Origin::start(|request, mut respond| async move {
        let (parts, mut from) = request.into_parts();
        let mut text = format!("{} {} ", parts.method, parts.uri);
        while let Some(data) = next(&mut from).await? {
            text += &String::from_utf8_lossy(&data);
        }
        if let Some(trailers) = from.trailers().await? {
            text = format!("{text} {:?}", trailers["x-sum"]);
        }
        let mut to = respond.send_response(ok(), parts.method == Method::HEAD)?;
        if parts.method == Method::HEAD {
            return Ok(());
        }
        to.send_data(Bytes::from(text), true)
    });
    let balancer = before_http2(&origin, &[]);
    let mut client = balancer.connect();
    let text = |answer: crate::support::client::Answer| String::from_utf8(answer.body).unwrap();
    let answer = client.request("GET", "/a?b", &[]).unwrap();
    assert_eq!(text(answer), "GET http://test/a?b ");
    let answer = client.post_to("/p", "some text").unwrap();
    assert_eq!(text(answer), "POST http://test/p some text");
    let head = "POST /c HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    client
        .send(format!("{head}3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n"))
        .unwrap();
    let answer = client.answer(false).unwrap();
    assert_eq!(text(answer), "POST http://test/c abc \"7\"");
    let answer = client.request("HEAD", "/h", &[]).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-length"), None, "none was told");
    let answer = client.request("GET", "/<a>", &[]).unwrap();
    assert_eq!(answer.status, 400, "HTTP/2 has no such target");
    let mut old = balancer.connect();
    old.send("GET /old HTTP/1.0\r\n\r\n").unwrap();
    let answer = text(old.answer(false).unwrap());
    assert_eq!(answer, format!("GET http://{}/old ", balancer.http));
    assert_eq!(balancer.server("s1")["status"], "up");
}

#[test]
fn http_checks_of_a_server_with_http2_speak_it() {
    let checks = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&checks);
    let origin = Http2Origin::start(move |request, mut respond| {
        assert_eq!(request.uri().path(), "/health");
        seen.fetch_add(1, Relaxed);
        async move { respond.send_response(ok(), true).map(drop) }
    });
    let http1 = Origin::saying("hello");
    let check = "proto=h2,check=http:GET:/health,check-interval=100ms";
    let servers = [origin.addr, http1.addr].map(|addr| addr.to_string());
    let flags = [
        "--server",
        &format!("s1={},{check}", servers[0]),
        "--server",
        &format!("s2={},{check}", servers[1]),
    ];
    let balancer = crate::support::cluster::Balancer::start(&flags);
    balancer.wait_for(&[("s1", "up"), ("s2", "down")]);
    eventually("it is checked", || (checks.load(Relaxed) > 2).then_some(()));
    balancer.wait_for(&[("s1", "up"), ("s2", "down")]);
}

#[test]
fn sessions_and_requests_are_counted_by_protocol() {
    let origin = Origin::saying("hello");
    let balancer = before(&origin, &[]);
    run(async {
        let client = Client::connect(balancer.http).await;
        for _ in 0..3 {
            client.get("/").await.unwrap();
        }
    });
    let mut client = balancer.connect();
    client.get(&[]).unwrap();
    client.get(&[]).unwrap();
    let csv = String::from_utf8(balancer.stats("/;csv").body).unwrap();
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let frontend = lines.find(|line| line.contains(",FRONTEND,")).unwrap();
    let cells: Vec<&str> = frontend.split(',').collect();
    let of = |name: &str| cells[names.iter().position(|it| *it == name).unwrap()];
    let counted = ["stot", "h1sess", "h2sess", "req_tot", "h1req", "h2req"].map(of);
    assert_eq!(counted, ["2", "1", "1", "5", "2", "3"]);
    let metrics = String::from_utf8(balancer.stats("/metrics").body).unwrap();
    for series in [
        "haproxy_frontend_sessions_total{proxy=\"localnodes\"} 2\n",
        "haproxy_frontend_http_requests_total{proxy=\"localnodes\"} 5\n",
    ] {
        assert!(metrics.contains(series), "{series}");
    }
}

#[test]
fn the_log_names_the_protocol() {
    let origin = Origin::saying("hello");
    let balancer = before(&origin, &["--access-log", "json"]);
    run(async {
        let client = Client::connect(balancer.http).await;
        client.get("/logged").await.unwrap();
    });
    let line = balancer.process.says("the request is logged", |line| {
        let object: Value = serde_json::from_str(line).ok()?;
        (object["path"] == "/logged").then_some(object)
    });
    assert_eq!(line["protocol"], "HTTP/2.0");
    assert_eq!(line["termination"], "--");
    assert_eq!(line["status"], 200);
}

#[test]
fn what_is_no_preface_or_comes_too_late_for_one_is_refused() {
    let origin = Origin::saying("hello");
    let balancer = before(&origin, &["--timeout-http-request", "500ms"]);
    let said = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(balancer.http).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // A reset is an end as well.
        stream.read_to_end(&mut answer).ok();
        String::from_utf8_lossy(&answer).into_owned()
    };
    for garbled in [
        &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSN",
        b"PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"pri * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = said(garbled);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
    }
    let answer = said(&PREFACE[..20]);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    let late = [b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", PREFACE].concat();
    let answer = said(&late);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    assert!(answer.contains("HTTP/1.1 400 "), "{answer:?}");
    // No settings, or something else: not a word of HTTP/1.1, and an end.
    for behind in [&b""[..], b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"] {
        let answer = said(&[PREFACE, behind].concat());
        assert!(!answer.contains("HTTP/1.1"), "{answer:?}");
    }
    assert_eq!(origin.seen().len(), 1);
    let still = eventually("it still serves", || balancer.connect().get(&[]).ok());
    assert_eq!(still.status, 200);
}
