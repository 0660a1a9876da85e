//! HTTP/1.1 between a client and a server, byte for byte: both ends are the
//! test's own, and the balancer is between them.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::support::{
    client::{Answer, Client},
    cluster::{Balancer, nobody},
    eventually,
    origin::{Origin, Visit, balancer_over, gate, ok},
};

const GET: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";

/// Sends a whole request as it is and reads the answer.
#[track_caller]
fn exchange(client: &mut Client, request: &str) -> Answer {
    client.send(request).unwrap();
    client.answer(request.starts_with("HEAD")).unwrap()
}

/// The lines of the access log, once there are as many.
#[track_caller]
fn log(balancer: &Balancer, lines: usize) -> Vec<String> {
    eventually("the exchange is logged", || {
        let said = balancer.process.said();
        let log: Vec<String> = said
            .lines()
            .filter(|line| line.contains(" localnodes "))
            .map(str::to_owned)
            .collect();
        (log.len() >= lines).then_some(log)
    })
}

/// The termination state in a line of the access log.
fn state(line: &str) -> &str {
    line.split(' ').nth(9).unwrap_or_default()
}

#[track_caller]
fn assert_closed(client: &mut Client) {
    assert_eq!(
        client.rest().unwrap(),
        b"",
        "nothing more, and then the end"
    );
}

/// Sends until nobody takes it any more.
fn keep_sending(client: &Client) -> thread::JoinHandle<()> {
    let mut stream = client.stream().try_clone().unwrap();
    thread::spawn(move || while stream.write_all(&[0; 16 * 1024]).is_ok() {})
}

fn echo_first_line(visit: &mut Visit) -> io::Result<()> {
    visit.body()?;
    let line = ok(visit.seen().first_line());
    visit.send(line)
}

// --- connections

#[test]
fn requests_share_connections_on_both_sides() {
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], &["--workers", "1"]);
    for _ in 0..2 {
        let mut client = balancer.connect();
        for _ in 0..3 {
            assert_eq!(client.get(&[]).unwrap().body, b"hello");
        }
    }
    assert_eq!(origin.seen().len(), 6);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start(echo_first_line);
    let balancer = balancer_over(&[&origin], &[]);
    let mut client = balancer.connect();
    let paths = ["/1", "/2", "/3"];
    let all = paths.map(|path| format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
    client.send(all.concat()).unwrap();
    for path in paths {
        let expected = format!("GET {path} HTTP/1.1");
        assert_eq!(client.answer(false).unwrap().body, expected.as_bytes());
    }
}

#[test]
fn a_connection_is_kept_as_the_client_asks() {
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], &[]);
    for (request, kept) in [
        (GET, true),
        (
            "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            false,
        ),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", true),
    ] {
        let mut client = balancer.connect();
        let answer = exchange(&mut client, request);
        assert_eq!(answer.body, b"hello", "{request}");
        if kept {
            assert_eq!(exchange(&mut client, request).body, b"hello", "{request}");
        } else {
            assert_closed(&mut client);
        }
    }
}

#[test]
fn an_http_1_0_client_gets_no_chunks() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let balancer = balancer_over(&[&origin], &[]);
    let mut client = balancer.connect();
    let answer = exchange(
        &mut client,
        "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    );
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.body, b"hello", "all there was until the close");
}

// --- heads

#[test]
fn a_server_gets_what_is_for_it_and_who_asked() {
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], &[]);
    exchange(
        &mut balancer.connect(),
        "GET http://shop.example/a%20b?c=d&e HTTP/1.1\r\nHost: other.example\r\n\
         Connection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: h2c\r\n\
         X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 1\r\n\
         Cookie: a=\"b;c\";  d==; SERVERID=s9; e\r\nAccept: text/html\r\naccept: */*\r\n\r\n",
    );
    let seen = origin.only();
    assert_eq!(seen.first_line(), "GET /a%20b?c=d&e HTTP/1.1");
    let mut fields: Vec<&str> = seen.head.trim_end().lines().skip(1).collect();
    // Fields of one name keep their order; between names it means nothing.
    fields.sort_by_key(|field| name_of(field));
    let port = format!("x-forwarded-port: {}", balancer.http.port());
    let expected = [
        "Accept: text/html",
        "accept: */*",
        "Cookie: a=\"b;c\";  d==; e",
        "host: shop.example",
        "X-Forwarded-For: 203.0.113.1",
        "x-forwarded-for: 127.0.0.1",
        &port,
        "x-forwarded-proto: http",
    ];
    assert_eq!(fields, expected);
}

fn name_of(field: &str) -> Option<String> {
    field.split(':').next().map(str::to_ascii_lowercase)
}

#[test]
fn a_server_is_asked_for_the_host_that_the_client_asked_for() {
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], &[]);
    let itself = balancer.http.to_string();
    for (request, host) in [
        (
            "GET / HTTP/1.1\r\nhost: Shop.example:8080\r\n\r\n",
            "Shop.example:8080",
        ),
        ("OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n", "test"),
        ("GET / HTTP/1.0\r\n\r\n", itself.as_str()),
    ] {
        exchange(&mut balancer.connect(), request);
        let seen = origin.seen().pop().unwrap();
        assert_eq!(seen.values("host"), [host]);
        let target = request.split(' ').nth(1).unwrap();
        assert_eq!(seen.first_line().split(' ').nth(1), Some(target));
    }
}

#[test]
fn a_client_gets_the_servers_head_without_what_was_for_us() {
    let origin = Origin::answering(
        "HTTP/1.1 299 Rather Good\r\nSet-Cookie: a=1\r\nX-One: 1\r\nSet-Cookie: b=2\r\n\
         Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 5\r\n\
         Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nhello",
    );
    let balancer = balancer_over(&[&origin], &["--cookie", "off"]);
    let mut client = balancer.connect();
    client
        .send(GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"))
        .unwrap();
    let answer = String::from_utf8(client.rest().unwrap()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("HTTP/1.1 299 Rather Good"));
    let mut fields: Vec<&str> = lines.collect();
    fields.sort_by_key(|field| name_of(field));
    let expected = [
        "connection: close",
        "Content-Length: 5",
        "Date: Sun, 06 Nov 1994 08:49:37 GMT",
        "Set-Cookie: a=1",
        "Set-Cookie: b=2",
        "X-One: 1",
    ];
    assert_eq!(fields, expected);
    assert_eq!(body, "hello");
}

// --- bodies

#[test]
fn every_answer_ends_where_it_ends() {
    // Request, answer, what the client is told of the body's length, body.
    let chunked = ("transfer-encoding", "chunked");
    let rows = [
        (
            "HEAD",
            "200 OK\r\ncontent-length: 5\r\n\r\n",
            Some(("content-length", "5")),
            "",
        ),
        (
            "HEAD",
            "200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            None,
            "",
        ),
        ("GET", "204 No Content\r\n\r\n", None, ""),
        ("GET", "304 Not Modified\r\netag: \"1\"\r\n\r\n", None, ""),
        (
            "GET",
            "304 Not Modified\r\ncontent-length: 5\r\n\r\n",
            Some(("content-length", "5")),
            "",
        ),
        (
            "GET",
            "200 OK\r\ncontent-length: 0\r\n\r\n",
            Some(("content-length", "0")),
            "",
        ),
        (
            "GET",
            "200 OK\r\ncontent-length: 5\r\n\r\nhello",
            Some(("content-length", "5")),
            "hello",
        ),
        (
            "GET",
            "200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            Some(chunked),
            "",
        ),
        (
            "GET",
            "200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
            Some(chunked),
            "hello world",
        ),
        (
            "POST",
            "201 Created\r\ncontent-length: 2\r\n\r\nok",
            Some(("content-length", "2")),
            "ok",
        ),
    ];
    for (method, answer, length, body) in rows {
        let origin = Origin::start(move |visit| match visit.index {
            0 => visit.send(format!("HTTP/1.1 {answer}")),
            _ => visit.send(ok("next")),
        });
        let balancer = balancer_over(&[&origin], &["--workers", "1"]);
        let mut client = balancer.connect();
        let got = client.request(method, "/", &[]).unwrap();
        let told = ["content-length", "transfer-encoding"]
            .iter()
            .find_map(|name| got.header(name).map(|value| (*name, value)));
        assert_eq!(told, length, "{method} {answer}");
        assert_eq!(got.body, body.as_bytes(), "{method} {answer}");
        let next = client.get(&[]).unwrap();
        assert_eq!(next.body, b"next", "{method} {answer}");
        assert_eq!(origin.connections(), 1, "{method} {answer}");
    }
}

/// As when an app with many idle connections is killed: each of them breaks
/// under the request that goes over it.
#[test]
fn many_closed_idle_connections_cost_a_request_one_attempt() {
    const IDLE: usize = 6;
    let (open, gate) = gate();
    let origin = Origin::start(move |visit| {
        if visit.index < IDLE {
            gate.wait();
        } else if visit.seen().connection < IDLE {
            return visit.reset();
        }
        visit.send(ok("there"))
    });
    let balancer = balancer_over(&[&origin], &["--workers", "1", "--retries", "1"]);
    let mut clients: Vec<_> = (0..IDLE).map(|_| balancer.connect()).collect();
    for client in &mut clients {
        client.send(GET).unwrap();
    }
    origin.wait_for(IDLE);
    drop(open);
    for client in &mut clients {
        assert_eq!(client.answer(false).unwrap().body, b"there");
    }
    assert_eq!(origin.connections(), IDLE);
    assert_eq!(clients[0].get(&[]).unwrap().body, b"there");
    assert_eq!(origin.seen().len(), IDLE + 2, "one broke, one was made");
}

#[test]
fn an_answer_that_ends_with_its_connection_arrives_whole() {
    let origin = Origin::start(|visit| {
        visit.send("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
        for _ in 0..100 {
            visit.send([b'x'; 1000])?;
        }
        visit.close()
    });
    let balancer = balancer_over(&[&origin], &[]);
    let mut client = balancer.connect();
    for _ in 0..2 {
        // The client's own connection lives on.
        assert_eq!(client.get(&[]).unwrap().body, vec![b'x'; 100_000]);
    }
}

#[test]
fn trailers_arrive_where_they_are_asked_for() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
         5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n",
    );
    let balancer = balancer_over(&[&origin], &[]);
    for (te, trailers) in [("te: trailers\r\n", true), ("", false)] {
        let mut client = balancer.connect();
        let request = format!("GET / HTTP/1.1\r\nhost: test\r\n{te}connection: close\r\n\r\n");
        client.send(request).unwrap();
        let answer = String::from_utf8(client.rest().unwrap()).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let end = if trailers {
            "0\r\nx-sum: 42\r\n\r\n"
        } else {
            "0\r\n\r\n"
        };
        assert_eq!(body, format!("5\r\nhello\r\n{end}"), "{te:?}");
    }
}

#[test]
fn a_server_gets_the_clients_body_and_nothing_else() {
    // The request's fields and the rest, the body, whether it has a length.
    let rows = [
        ("POST", "content-length: 5\r\n\r\nhello", "hello", Some("5")),
        ("POST", "content-length: 0\r\n\r\n", "", Some("0")),
        (
            "PUT",
            "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n",
            "hello world",
            None,
        ),
        (
            "POST",
            "transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "",
            None,
        ),
        ("GET", "content-length: 5\r\n\r\nhello", "hello", Some("5")),
        (
            "GET",
            "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
            None,
        ),
        (
            "DELETE",
            "transfer-encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
            None,
        ),
    ];
    let origin = Origin::start(echo_first_line);
    let balancer = balancer_over(&[&origin], &[]);
    for (method, rest, body, length) in rows {
        let mut client = balancer.connect();
        let request = format!("{method} / HTTP/1.1\r\nhost: test\r\n{rest}");
        assert_eq!(exchange(&mut client, &request).status, 200);
        let seen = origin.seen().pop().unwrap();
        assert_eq!(seen.content(), body.as_bytes(), "{request}");
        let lengths: Vec<&str> = length.into_iter().collect();
        assert_eq!(seen.values("content-length"), lengths, "{request}");
        let codings = seen.values("transfer-encoding");
        let expected: &[&str] = if length.is_none() { &["chunked"] } else { &[] };
        assert_eq!(codings, expected, "{request}");
        let next = client.request("GET", "/next", &[]).unwrap();
        assert_eq!(next.body, b"GET /next HTTP/1.1", "{request}");
    }
}

#[test]
fn a_length_beside_chunks_reaches_no_server() {
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], &[]);
    for fields in [
        "content-length: 40\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
    ] {
        let mut client = balancer.connect();
        let answer = exchange(
            &mut client,
            &format!("POST / HTTP/1.1\r\nhost: test\r\n{fields}\r\n\r\n0\r\n\r\n{GET}"),
        );
        assert_eq!(answer.status, 400, "{fields}");
        assert_closed(&mut client);
    }
    assert_eq!(origin.seen().len(), 0, "nothing was let through");
}

const MIB: usize = 1024 * 1024;

/// A large body comes in pieces of 251 KiB, which no buffer's size divides:
/// bytes that were lost, doubled or moved show.
fn pieces(size: usize) -> impl Iterator<Item = &'static [u8]> {
    static PIECE: LazyLock<Vec<u8>> = LazyLock::new(|| (0..251 * 1024).map(byte_at).collect());
    (0..size)
        .step_by(PIECE.len())
        .map(move |from| &PIECE[..PIECE.len().min(size - from)])
}

fn byte_at(at: usize) -> u8 {
    (at % 251) as u8
}

/// Reads such a body.
fn read_pieces(from: &mut impl Read, size: usize) -> io::Result<bool> {
    let mut got = vec![0; 251 * 1024];
    for piece in pieces(size) {
        from.read_exact(&mut got[..piece.len()])?;
        if got[..piece.len()] != *piece {
            return Ok(false);
        }
    }
    Ok(true)
}

#[test]
fn large_bodies_pass_both_ways_byte_for_byte_and_are_never_held() {
    const SIZE: usize = 256 * MIB;
    let origin = Origin::start(|visit| {
        if visit.seen().first_line().starts_with("POST") {
            let same = read_pieces(&mut visit.raw_body(), SIZE)?;
            return visit.send(ok(if same { "same" } else { "different" }));
        }
        visit.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n"))?;
        pieces(SIZE).try_for_each(|piece| visit.send(piece))
    });
    let balancer = balancer_over(&[&origin], &[]);

    let mut up = balancer.connect();
    let uploading = thread::spawn(move || {
        let head = format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {SIZE}\r\n\r\n");
        up.send(head).unwrap();
        pieces(SIZE).for_each(|piece| up.send(piece).unwrap());
        up.answer(false).unwrap()
    });

    let mut down = balancer.connect();
    down.send(GET).unwrap();
    let mut stream = down.stream();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(read_pieces(&mut stream, SIZE).unwrap());

    assert_eq!(uploading.join().unwrap().body, b"same");
    let peak = balancer.process.peak_memory();
    assert!(peak < 64 * 1024, "{peak} KiB in use at the most");
}

#[test]
fn a_server_is_held_back_while_the_client_does_not_read() {
    const SIZE: usize = 64 * MIB;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let origin = Origin::start(move |visit| {
        // Small kernel buffers, so that it is the balancer that is measured.
        socket2::SockRef::from(visit.stream()).set_send_buffer_size(64 * 1024)?;
        visit.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n"))?;
        pieces(SIZE).try_for_each(|piece| {
            visit.send(piece)?;
            counter.fetch_add(piece.len(), Relaxed);
            Ok(())
        })
    });
    let balancer = balancer_over(&[&origin], &[]);
    let mut client = balancer.connect();
    client.send(GET).unwrap();
    // It has stopped once nothing more was sent for a while.
    let mut last = (0, Instant::now());
    let stopped_at = eventually("the server is held back", || {
        let now = sent.load(Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (now > 0 && last.1.elapsed() > Duration::from_millis(300)).then_some(now)
    });
    assert!(
        stopped_at < SIZE / 4,
        "{stopped_at} bytes were taken for nobody"
    );
    let answer = client.answer(false).unwrap();
    assert_eq!(answer.body.len(), SIZE);
}

// --- Expect: 100-continue

const EXPECTING: &str =
    "POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";

#[test]
fn a_client_that_waits_for_100_gets_it_and_the_server_the_body() {
    for interim in ["", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let origin = Origin::start(move |visit| {
            if visit.seen().values("expect") == ["100-continue"] {
                visit.send(interim)?;
            }
            visit.body()?;
            visit.send(ok("thanks"))
        });
        let balancer = balancer_over(&[&origin], &[]);
        let mut client = balancer.connect();
        assert_eq!(exchange(&mut client, EXPECTING).status, 100);
        client.send("hello").unwrap();
        assert_eq!(client.answer(false).unwrap().body, b"thanks");
        assert_eq!(client.get(&[]).unwrap().body, b"thanks");
        assert_eq!(origin.seen()[0].body, b"hello");
    }
}

#[test]
fn nobody_is_asked_for_a_body_that_no_server_would_get() {
    let (_, addr) = nobody();
    let server = format!("s1={addr},check=off");
    let balancer = Balancer::start(&["--server", &server, "--retries", "0"]);
    assert_eq!(exchange(&mut balancer.connect(), EXPECTING).status, 503);
}

#[test]
fn a_server_that_answers_without_the_body_is_heard() {
    let origin = Origin::start(|visit| {
        visit.send(
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno",
        )?;
        visit.close()
    });
    let balancer = balancer_over(&[&origin], &[]);
    let mut client = balancer.connect();
    let mut answer = exchange(&mut client, EXPECTING);
    if answer.status == 100 {
        answer = client.answer(false).unwrap();
    }
    assert_eq!((answer.status, answer.body.as_slice()), (401, &b"no"[..]));
}

#[test]
fn a_server_that_refuses_a_large_body_halfway_is_heard() {
    let origin = Origin::start(|visit| {
        visit.send(
            "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno",
        )?;
        visit.stream().shutdown(Shutdown::Write)?;
        // As a careful server does, so that its answer is not lost.
        io::copy(&mut visit.raw_body(), &mut io::sink()).map(drop)
    });
    let balancer = balancer_over(&[&origin], &[]);
    let mut client = balancer.connect();
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100000000\r\n\r\n")
        .unwrap();
    let sending = keep_sending(&client);
    let answer = client.answer(false).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (413, &b"no"[..]));
    drop(client);
    sending.join().unwrap();
}

// --- Upgrade

const WEBSOCKET: &str = "GET /chat HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\n\
     upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";

/// Switches, says hello at once, then echoes until the end and says goodbye.
fn chat(visit: &mut Visit) -> io::Result<()> {
    visit.send(format!("{SWITCHED}hello "))?;
    loop {
        let bytes = visit.read()?;
        if bytes.is_empty() {
            visit.send(" bye")?;
            return visit.close();
        }
        visit.send(bytes)?;
    }
}

#[test]
fn a_websocket_carries_bytes_both_ways_until_both_are_done() {
    let origin = Origin::start(chat);
    let balancer = balancer_over(&[&origin], &[]);
    let mut client = balancer.connect();
    // A client should wait for the 101, but what it sends early is not lost.
    let answer = exchange(&mut client, &format!("{WEBSOCKET}early "));
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(answer.header("connection"), Some("upgrade"));
    client.send("late").unwrap();
    client.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest().unwrap(), b"hello early late bye");
    let seen = origin.only();
    assert_eq!(seen.values("upgrade"), ["websocket"]);
    assert_eq!(seen.values("connection"), ["upgrade"]);
    let line = &log(&balancer, 1)[0];
    assert!(
        state(line).starts_with("--") && line.contains(" 101 "),
        "{line}"
    );
}

#[test]
fn an_upgrade_that_the_server_refuses_is_an_ordinary_exchange() {
    for status in ["200 OK", "400 Bad Request"] {
        let origin = Origin::start(move |visit| {
            visit.send(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno"))
        });
        let balancer = balancer_over(&[&origin], &[]);
        let mut client = balancer.connect();
        for request in [WEBSOCKET, &WEBSOCKET.replace("websocket", "h2c"), GET] {
            let answer = exchange(&mut client, request);
            assert_eq!(answer.body, b"no");
            assert!(status.starts_with(&answer.status.to_string()));
        }
    }
}

#[test]
fn a_switch_that_nobody_asked_for_is_a_bad_answer() {
    let origin = Origin::answering(SWITCHED);
    let balancer = balancer_over(&[&origin], &[]);
    let h2c = "GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade, http2-settings\r\n\
               upgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n";
    for request in [GET, h2c] {
        assert_eq!(exchange(&mut balancer.connect(), request).status, 502);
        assert!(origin.seen().pop().unwrap().values("upgrade").is_empty());
    }
}

#[test]
fn a_tunnel_that_falls_silent_is_closed() {
    let origin = Origin::start(chat);
    let balancer = balancer_over(&[&origin], &["--timeout-tunnel", "1s"]);
    let mut client = balancer.connect();
    exchange(&mut client, WEBSOCKET);
    let start = Instant::now();
    assert_eq!(client.rest().unwrap(), b"hello ");
    assert!(start.elapsed() > Duration::from_millis(900));
}

// --- what clients do wrong

#[test]
fn a_bad_request_is_refused_and_goes_nowhere() {
    let long = "x".repeat(17 * 1024);
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nhost: test\r\n{fields}\r\n\r\n");
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nhost: test\r\n{fields}\r\n\r\n");
    let rows = [
        (400, "\u{16}\u{3}\u{1}\r\n\r\n".to_owned()),
        (400, "GET /\r\n\r\n".to_owned()),
        (400, "GET / BAD-VERSION\r\nhost: a\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (
            400,
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(),
        ),
        (400, "GET admin HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
        (400, "GET * HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
        (400, get("a : b")),
        (400, get("a: b\r\n folded: c")),
        (400, post("content-length: -1")),
        (400, post("content-length: ")),
        (400, post("content-length: 5\r\ncontent-length: 6")),
        (400, post("transfer-encoding: gzip")),
        (400, post("transfer-encoding: chunked, gzip")),
        (400, post("transfer-encoding: chunked, chunked")),
        (
            400,
            post("transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
        ),
        (422, post("transfer-encoding: gzip, chunked")),
        (
            400,
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
        ),
        (
            405,
            "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n".to_owned(),
        ),
        (
            413,
            "GET / HTTP/1.0\r\ncontent-length: 1\r\n\r\nx".to_owned(),
        ),
        (431, get(&format!("a: {long}"))),
        (431, get(&"a: b\r\n".repeat(200))),
        (414, format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n")),
    ];
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], &[]);
    for (lines, (status, request)) in (1..).zip(rows) {
        let mut client = balancer.connect();
        let shown: String = request.chars().take(100).collect();
        let answer = exchange(&mut client, &request);
        assert_eq!(answer.status, status, "{shown}");
        assert_closed(&mut client);
        let line = log(&balancer, lines).pop().unwrap();
        assert!(line.contains(&format!(" {status} ")), "{shown}: {line}");
        assert!(
            line.contains("<NOSRV>") && state(&line) == "PR--",
            "{shown}: {line}"
        );
    }
    assert!(origin.seen().is_empty());
}

#[test]
fn a_client_that_is_too_slow_is_told_and_logged_once() {
    let origin = Origin::start(Visit::body);
    let flags = ["--timeout-http-request", "1s", "--timeout-client", "1s"];
    let balancer = balancer_over(&[&origin], &flags);
    let half = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf";
    for (lines, (request, ended, server)) in
        (1..).zip([("GET / HT", "cR", "<NOSRV>"), (half, "cH", "nodes/s1")])
    {
        let mut client = balancer.connect();
        let answer = exchange(&mut client, request);
        assert_eq!(answer.status, 408);
        assert_closed(&mut client);
        let log = log(&balancer, lines);
        assert_eq!(log.len(), lines, "{log:#?}");
        let line = &log[lines - 1];
        assert!(line.contains(" 408 ") && line.contains(server), "{line}");
        assert!(state(line).starts_with(ended), "{line}");
    }
}

#[test]
fn a_client_that_gives_up_is_logged_as_such() {
    let (_open, gate) = gate();
    let origin = Origin::start(move |visit| {
        visit.body()?;
        gate.wait();
        Ok(())
    });
    let balancer = balancer_over(&[&origin], &[]);
    let half = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf";
    for (visits, (request, ended)) in (1..).zip([(GET, "CH"), (half, "CD")]) {
        let mut client = balancer.connect();
        client.send(request).unwrap();
        origin.wait_for(visits);
        drop(client);
        let line = log(&balancer, visits).pop().unwrap();
        assert!(state(&line).starts_with(ended), "{line}");
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_answer_is_logged_as_such() {
    let (left, gate) = gate();
    let origin = Origin::start(move |visit| {
        visit.send("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello")?;
        gate.wait();
        pieces(64 * MIB).try_for_each(|piece| visit.send(piece))
    });
    let balancer = balancer_over(&[&origin], &[]);
    let mut client = balancer.connect();
    client.send(GET).unwrap();
    client.stream().read_exact(&mut [0; 10]).unwrap();
    drop(client);
    left.send(()).unwrap();
    let line = log(&balancer, 1).pop().unwrap();
    assert!(state(&line).starts_with("CD"), "{line}");
}

#[test]
fn a_client_that_does_not_take_its_answer_is_cut_off() {
    let origin = Origin::start(|visit| {
        visit.send("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
        loop {
            visit.send(vec![0; 64 * 1024])?;
        }
    });
    let balancer = balancer_over(&[&origin], &["--timeout-client", "1s"]);
    let mut client = balancer.connect();
    client.send(GET).unwrap();
    let line = log(&balancer, 1).pop().unwrap();
    assert!(
        state(&line).starts_with("cD") && line.contains(" 200 "),
        "{line}"
    );
}

#[test]
fn a_kept_connection_that_is_not_used_is_closed_without_a_word() {
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], &["--timeout-keep-alive", "1s"]);
    let mut client = balancer.connect();
    client.get(&[]).unwrap();
    let start = Instant::now();
    assert_closed(&mut client);
    assert!(start.elapsed() > Duration::from_millis(900));
    assert_eq!(log(&balancer, 1).len(), 1);
}

#[test]
fn an_empty_line_behind_a_body_is_no_beginning_of_a_request() {
    let origin = Origin::saying("hello");
    let flags = ["--timeout-http-request", "1s", "--timeout-keep-alive", "2s"];
    let balancer = balancer_over(&[&origin], &flags);
    let mut client = balancer.connect();
    let post = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\nab\r\n";
    assert_eq!(exchange(&mut client, post).body, b"hello");
    assert_closed(&mut client);
    assert_eq!(log(&balancer, 1).len(), 1, "and no 408");
}

#[test]
fn a_large_body_makes_no_room_for_a_large_head_behind_it() {
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], &[]);
    let mut client = balancer.connect();
    let body = "x".repeat(400_000);
    let post = format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 400000\r\n\r\n{body}");
    client.send(post + GET).unwrap();
    for _ in 0..2 {
        assert_eq!(client.answer(false).unwrap().body, b"hello");
    }
    let large = "x".repeat(60_000);
    let get = format!("GET / HTTP/1.1\r\nhost: test\r\na: {large}\r\n\r\n");
    assert_eq!(exchange(&mut client, &get).status, 431);
}

// --- what servers do wrong

#[test]
fn a_bad_answer_is_a_502() {
    for (answer, ended) in [
        ("hello\r\n\r\n", "PH"),
        ("", "SH"),
        ("HTTP/1.1 200 OK\r\ncontent-le", "SH"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
            "PH",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "PH",
        ),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", "PH"),
    ] {
        for reset in [false, true] {
            let origin = Origin::start(move |visit| {
                visit.send(answer)?;
                if reset { visit.reset() } else { visit.close() }
            });
            let balancer = balancer_over(&[&origin], &["--retries", "0"]);
            let mut client = balancer.connect();
            assert_eq!(client.get(&[]).unwrap().status, 502, "{answer:?}");
            let line = log(&balancer, 1).pop().unwrap();
            assert!(
                line.contains(" nodes/s1 ") && line.contains(" 502 "),
                "{line}"
            );
            // A reset may overtake the answer before it.
            let overtaken = reset && state(&line).starts_with("SH");
            assert!(overtaken || state(&line).starts_with(ended), "{line}");
        }
    }
}

#[test]
fn without_a_server_that_accepts_the_answer_is_503() {
    let (_, addr) = nobody();
    let server = format!("s1={addr},check=off");
    for (flags, name, flag) in [
        (vec![], "nodes/<NOSRV>", "SC"),
        (
            vec!["--server", &server, "--retries", "0"],
            "nodes/s1",
            "SC",
        ),
    ] {
        let balancer = Balancer::start(&flags);
        assert_eq!(balancer.connect().get(&[]).unwrap().status, 503);
        let line = log(&balancer, 1).pop().unwrap();
        assert!(line.contains(name) && line.contains(" 503 "), "{line}");
        assert!(state(&line).starts_with(flag), "{line}");
    }
}

#[test]
fn a_server_that_does_not_answer_gets_no_second_try() {
    let (_open, gate) = gate();
    let slow = Origin::start(move |_| {
        gate.wait();
        Ok(())
    });
    let other = Origin::saying("hello");
    let balancer = balancer_over(&[&slow, &other], &["--timeout-server", "1s"]);
    assert_eq!(balancer.connect().get(&[]).unwrap().status, 504);
    let line = log(&balancer, 1).pop().unwrap();
    assert!(
        state(&line).starts_with("sH") && line.contains(" 504 "),
        "{line}"
    );
    assert!(other.seen().is_empty());
}

#[test]
fn a_server_that_does_not_take_a_body_is_too_slow_too() {
    let (_open, gate) = gate();
    let origin = Origin::start(move |_| {
        gate.wait();
        Ok(())
    });
    let balancer = balancer_over(&[&origin], &["--timeout-server", "1s"]);
    let mut client = balancer.connect();
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100000000\r\n\r\n")
        .unwrap();
    let sending = keep_sending(&client);
    assert_eq!(client.answer(false).unwrap().status, 504);
    let line = log(&balancer, 1).pop().unwrap();
    assert!(state(&line).starts_with("sH"), "{line}");
    // Nobody holds on to what is left of the body.
    eventually("the connection ends", || {
        sending.is_finished().then_some(())
    });
}

/// What a server does in the middle of its answer.
#[derive(Debug, Clone, Copy)]
enum Breaks {
    Closes,
    Resets,
    Stalls,
}

#[test]
fn a_server_that_takes_a_large_body_slowly_is_not_too_slow() {
    const SIZE: usize = 16 * MIB;
    let origin = Origin::start(|visit| {
        // Half as long again as it may be silent.
        let pause = Duration::from_millis(1500) / 64;
        for _ in 0..64 {
            io::copy(
                &mut visit.raw_body().take(SIZE as u64 / 64),
                &mut io::sink(),
            )?;
            thread::sleep(pause);
        }
        visit.send(ok("thanks"))
    });
    let balancer = balancer_over(&[&origin], &["--timeout-server", "1s"]);
    let mut client = balancer.connect();
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {SIZE}\r\n\r\n"
        ))
        .unwrap();
    pieces(SIZE).for_each(|piece| client.send(piece).unwrap());
    assert_eq!(client.answer(false).unwrap().body, b"thanks");
}

/// Answers at once, and keeps the connection as far as it says.
const EARLY: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno";

#[test]
fn a_server_that_answers_early_and_hangs_up_does_not_leave_the_client_waiting() {
    let origin = Origin::start(|visit| {
        visit.send(EARLY)?;
        visit.close()
    });
    let balancer = balancer_over(&[&origin], &[]);
    let mut client = balancer.connect();
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100000000\r\n\r\nabc")
        .unwrap();
    assert_eq!(client.answer(false).unwrap().status, 404);
    // What nobody takes any more is not waited for.
    let sending = keep_sending(&client);
    let line = log(&balancer, 1).pop().unwrap();
    assert!(line.contains(" 404 "), "{line}");
    eventually("the connection ends", || {
        sending.is_finished().then_some(())
    });
}

#[test]
fn a_server_that_answers_early_and_reads_no_more_is_too_slow() {
    let (_open, gate) = gate();
    let origin = Origin::start(move |visit| {
        visit.send(EARLY)?;
        gate.wait();
        Ok(())
    });
    let balancer = balancer_over(&[&origin], &["--timeout-server", "1s"]);
    let mut client = balancer.connect();
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100000000\r\n\r\n")
        .unwrap();
    let sending = keep_sending(&client);
    assert_eq!(client.answer(false).unwrap().status, 404);
    eventually("the connection ends", || {
        sending.is_finished().then_some(())
    });
    assert!(log(&balancer, 1)[0].contains(" 404 "));
}

#[test]
fn an_answer_that_breaks_off_is_not_completed_nor_repeated() {
    let length = "content-length: 10\r\n\r\nhalf";
    let chunked = "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for (framing, how, ended) in [
        (length, Breaks::Closes, "SD"),
        (length, Breaks::Resets, "SD"),
        (length, Breaks::Stalls, "sD"),
        (chunked, Breaks::Closes, "SD"),
        (chunked, Breaks::Resets, "SD"),
        (chunked, Breaks::Stalls, "sD"),
    ] {
        let (stalled, stall) = gate();
        let (open, gate) = gate();
        let origin = Origin::start(move |visit| {
            visit.send(format!("HTTP/1.1 200 OK\r\n{framing}"))?;
            gate.wait();
            match how {
                Breaks::Closes => visit.close(),
                Breaks::Resets => visit.reset(),
                Breaks::Stalls => {
                    stall.wait();
                    Ok(())
                }
            }
        });
        let other = Origin::saying("hello");
        let balancer = balancer_over(&[&origin, &other], &["--timeout-server", "1s"]);
        let mut client = balancer.connect();
        client.send(GET).unwrap();
        let mut got = Vec::new();
        while !got.windows(4).any(|window| window == b"half") {
            let mut byte = [0];
            client.stream().read_exact(&mut byte).unwrap();
            got.push(byte[0]);
        }
        open.send(()).unwrap();
        // What is left of the chunk may come, but never the last chunk.
        let rest = client.rest().unwrap_or_default();
        assert!(
            rest.is_empty() || rest == b"\r\n",
            "{framing} {how:?}: {rest:?}"
        );
        let line = log(&balancer, 1).pop().unwrap();
        assert!(state(&line).starts_with(ended), "{framing} {how:?}: {line}");
        assert!(other.seen().is_empty());
        drop(stalled);
    }
}

// --- retries

/// Ends the connection once the whole request is there.
fn reset_after_request(visit: &mut Visit) -> io::Result<()> {
    visit.body()?;
    visit.reset()
}

#[test]
fn only_what_is_safe_is_tried_at_another_server() {
    let chunked_get =
        "GET / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\nx";
    let empty_post = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n";
    let delete = "DELETE / HTTP/1.1\r\nhost: test\r\n\r\n";
    for (request, flags, status) in [
        (GET, vec![], 200),
        (delete, vec![], 200),
        (GET, vec!["--retries", "0"], 502),
        (post, vec![], 502),
        (empty_post, vec![], 502),
        (chunked_get, vec![], 502),
    ] {
        let first = Origin::start(reset_after_request);
        let second = Origin::saying("hello");
        let balancer = balancer_over(&[&first, &second], &flags);
        let answer = exchange(&mut balancer.connect(), request);
        assert_eq!(answer.status, status, "{request} {flags:?}");
        assert_eq!(first.seen().len(), 1, "{request} {flags:?}");
        let repeated = usize::from(status == 200);
        assert_eq!(second.seen().len(), repeated, "{request} {flags:?}");
        let line = log(&balancer, 1).pop().unwrap();
        let retries = if repeated == 1 { "/+1 0/0 " } else { "/0 0/0 " };
        assert!(line.contains(retries), "{line}");
    }
}

#[test]
fn what_no_server_has_seen_goes_to_another_whatever_it_is() {
    let (_, addr) = nobody();
    let refusing = format!("s0={addr},check=off");
    let origin = Origin::start(echo_first_line);
    let server = origin.named("s1");
    let balancer = Balancer::start(&["--server", &refusing, "--server", &server]);
    for visits in 1..=3 {
        let mut client = balancer.connect();
        let answer = client.post("hello").unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(origin.seen().len(), visits);
        assert_eq!(origin.seen()[visits - 1].body, b"hello");
    }
}

#[test]
fn a_kept_connection_that_the_server_has_closed_costs_nobody_a_request() {
    for request in [
        GET,
        "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\nx",
    ] {
        let (closed, closes) = std::sync::mpsc::channel();
        let origin = Origin::start(move |visit| {
            visit.body()?;
            visit.send(ok("hello"))?;
            visit.close()?;
            closed.send(()).ok();
            Ok(())
        });
        let balancer = balancer_over(&[&origin], &["--workers", "1"]);
        let mut client = balancer.connect();
        for visits in 1..=3 {
            assert_eq!(exchange(&mut client, request).body, b"hello");
            assert_eq!(origin.seen().len(), visits);
            closes.recv().unwrap();
        }
    }
}

#[test]
fn a_request_that_crosses_the_close_of_a_kept_connection_is_repeated_if_it_may() {
    let post = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\nx";
    for (request, status, visits) in [(GET, 200, 3), (post, 502, 2)] {
        // The second request of the first connection finds it closing.
        let origin = Origin::start(|visit| {
            visit.body()?;
            match visit.index {
                1 => visit.reset(),
                _ => visit.send(ok("hello")),
            }
        });
        let balancer = balancer_over(&[&origin], &["--workers", "1"]);
        let mut client = balancer.connect();
        client.get(&[]).unwrap();
        assert_eq!(exchange(&mut client, request).status, status);
        let seen = origin.seen();
        assert_eq!(seen.len(), visits, "{seen:#?}");
        assert_eq!(seen[1].connection, seen[0].connection);
    }
}

#[test]
fn a_post_does_not_trust_a_connection_that_has_been_idle() {
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], &["--workers", "1"]);
    let mut client = balancer.connect();
    client.get(&[]).unwrap();
    client.post("at once").unwrap();
    assert_eq!(origin.connections(), 1);
    // The age itself is what this is about.
    thread::sleep(Duration::from_millis(1100));
    client.post("later").unwrap();
    assert_eq!(origin.connections(), 2);
}

// --- the sticky cookie

#[test]
fn the_cookie_is_ours_alone() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nset-cookie: SERVERID=mine\r\nset-cookie: a=1\r\n\
         cache-control: max-age=5\r\ncontent-length: 0\r\n\r\n",
    );
    let cookies = |answer: &Answer| -> Vec<String> {
        let values = |name: &str| {
            let of_name = answer.headers.iter().filter(move |(n, _)| n == name);
            of_name.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        [values("set-cookie"), values("cache-control")].concat()
    };
    let balancer = balancer_over(&[&origin], &[]);
    let mut client = balancer.connect();
    let new = cookies(&client.get(&[]).unwrap());
    assert_eq!(new, ["a=1", "SERVERID=s1; Path=/", "max-age=5", "private"]);
    let uncacheable = cookies(&client.request("DELETE", "/", &[]).unwrap());
    assert_eq!(uncacheable, ["a=1", "SERVERID=s1; Path=/", "max-age=5"]);
    let known = cookies(&client.get(&["cookie: SERVERID=s1"]).unwrap());
    assert_eq!(known, ["a=1", "max-age=5"]);
    assert!(origin.seen()[2].values("cookie").is_empty());

    let without = balancer_over(&[&origin], &["--cookie", "off"]);
    let answer = without.connect().get(&["cookie: SERVERID=s1"]).unwrap();
    assert_eq!(cookies(&answer), ["SERVERID=mine", "a=1", "max-age=5"]);
    assert_eq!(origin.seen()[3].values("cookie"), ["SERVERID=s1"]);
}

#[test]
fn a_user_of_a_dead_server_gets_another_in_the_same_request() {
    let (_, addr) = nobody();
    let dead = format!("s1={addr},check=off");
    let origin = Origin::saying("hello");
    let alive = origin.named("s2");
    let balancer = Balancer::start(&["--server", &dead, "--server", &alive]);
    let answer = balancer.connect().get(&["cookie: SERVERID=s1"]).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.sticky_cookie(), Some("SERVERID=s2"));
    let line = log(&balancer, 1).pop().unwrap();
    assert_eq!(state(&line), "--DI", "{line}");
}

// --- the end

#[test]
fn an_end_finishes_what_is_open_and_refuses_what_is_new() {
    let (open, gate) = gate();
    let origin = Origin::start(move |visit| {
        if visit.seen().first_line().contains("/slow") {
            visit.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")?;
            gate.wait();
            return visit.send("hello");
        }
        visit.send(ok("hello"))
    });
    let mut balancer = balancer_over(&[&origin], &[]);
    let mut idle = balancer.connect();
    idle.get(&[]).unwrap();
    let mut busy = balancer.connect();
    busy.send("GET /slow HTTP/1.1\r\nhost: test\r\n\r\n")
        .unwrap();
    origin.wait_for(2);

    balancer.process.signal(Signal::TERM);
    assert_closed(&mut idle);
    eventually("new connections are refused", || {
        TcpStream::connect(balancer.http).is_err().then_some(())
    });
    open.send(()).unwrap();
    assert_eq!(busy.answer(false).unwrap().body, b"hellohello");
    assert_closed(&mut busy);
    assert_eq!(balancer.process.exit_code(), 0);
    assert_eq!(log(&balancer, 2).len(), 2, "the last line is written");
}

#[test]
fn an_end_loses_no_request_of_those_who_had_connected() {
    let origin = Origin::saying("hello");
    let mut balancer = balancer_over(&[&origin], &[]);
    balancer.process.signal(Signal::TERM);
    eventually("the end has begun", || {
        (balancer.stats("/readyz").status == 503).then_some(())
    });
    // While it is frozen its time to accept runs out, and we connect.
    balancer.process.signal(Signal::STOP);
    eventually("it is frozen", || {
        balancer.process.is_stopped().then_some(())
    });
    let mut clients: Vec<Client> = (0..40).map(|_| balancer.connect()).collect();
    let (early, late) = clients.split_at_mut(20);
    for client in early.iter_mut() {
        client.send(GET).unwrap();
    }
    thread::sleep(Duration::from_millis(400));
    balancer.process.signal(Signal::CONT);
    eventually("the listeners are closed", || {
        TcpStream::connect(balancer.http).is_err().then_some(())
    });
    for client in late.iter_mut() {
        client.send(GET).unwrap();
    }
    for client in &mut clients {
        let answer = client.answer(false).unwrap();
        assert_eq!(answer.body, b"hello");
        assert_closed(client);
    }
    assert_eq!(balancer.process.exit_code(), 0);
}

#[test]
fn an_end_does_not_wait_for_clients_that_ask_nothing() {
    let mut balancer = Balancer::start(&[]);
    let mut silent = balancer.connect();
    balancer.process.signal(Signal::TERM);
    let start = Instant::now();
    assert_closed(&mut silent);
    drop(silent);
    assert_eq!(balancer.process.exit_code(), 0);
    assert!(start.elapsed() < Duration::from_secs(5));
}

// --- the log

#[test]
fn the_log_has_a_line_for_each_exchange_as_haproxy_writes_it() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 5\r\n\r\nhello",
    );
    let balancer = balancer_over(&[&origin], &[]);
    let mut client = balancer.connect();
    let address = client.stream().local_addr().unwrap();
    let mut sizes = Vec::new();
    for cookie in ["", "cookie: SERVERID=s1\r\n", "cookie: SERVERID=s9\r\n"] {
        client
            .send(format!(
                "GET /\"a\"?b=c HTTP/1.1\r\nhost: test\r\n{cookie}\r\n"
            ))
            .unwrap();
        let answer = client.answer(false).unwrap();
        let fields = answer.headers.iter().map(|(n, v)| n.len() + v.len() + 4);
        sizes.push("HTTP/1.1 200 OK\r\n\r\nhello".len() + fields.sum::<usize>());
    }
    for ((line, affinity), size) in log(&balancer, 3).iter().zip(["NI", "VN", "II"]).zip(sizes) {
        let words: Vec<&str> = line.split(' ').collect();
        let [
            client,
            date,
            frontend,
            server,
            times,
            status,
            bytes,
            req,
            res,
            state,
            load,
            queue,
            method,
            target,
            version,
        ] = words.as_slice()
        else {
            panic!("{line}");
        };
        assert_eq!(*client, address.to_string());
        assert!(date.starts_with('[') && date.ends_with(']'), "{date}");
        assert_eq!((*frontend, *server), ("localnodes", "nodes/s1"));
        let times: Vec<u32> = times.split('/').map(|time| time.parse().unwrap()).collect();
        assert_eq!(times.len(), 5, "{line}");
        assert!(times[4] >= times[2] + times[3], "{line}");
        assert_eq!((*status, *bytes), ("200", size.to_string().as_str()));
        assert_eq!((*req, *res, *queue), ("-", "-", "0/0"));
        assert_eq!(*state, format!("--{affinity}"));
        assert_eq!(*load, "1/1/0/0/0");
        assert_eq!(
            (*method, *target, *version),
            ("\"GET", "/#22a#22?b=c", "HTTP/1.1\"")
        );
    }
}
