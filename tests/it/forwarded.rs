//! Who the client is: what servers are told of it, whose word counts, and the
//! PROXY protocol on both sides, in raw bytes and with HAProxy.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
};

use super::{
    admin::ask,
    support::{
        client::Client,
        cluster::Balancer,
        eventually,
        haproxy::{self, HaProxy},
        origin::{Origin, Seen, balancer_over, gate, ok},
    },
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, for 192.0.2.7:50000 that connected to 198.51.100.1:443.
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\xc3\x50\x01\xbb";
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n";

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

// --- what servers are told

const CLAIMS: [&str; 6] = [
    "X-Forwarded-For: 203.0.113.1",
    "X-Forwarded-Host: shop.example",
    "X-Forwarded-Port: 443",
    "X-Forwarded-Proto: https",
    "Forwarded: for=203.0.113.1",
    "X-Real-IP: 203.0.113.1",
];

/// What reaches a server of a request with all of those claims: the values of
/// X-Forwarded-For, -Host, -Port, -Proto, Forwarded and X-Real-IP.
fn told(flags: &[&str]) -> [Vec<String>; 6] {
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], flags);
    balancer.connect().get(&CLAIMS).unwrap();
    let seen = origin.only();
    let port = format!("{}", balancer.http.port());
    CLAIMS.map(|claim| {
        let (name, _) = claim.split_once(':').unwrap();
        let values = seen.values(name);
        let values = values.into_iter();
        values
            .map(|value| value.replace(&port, "OURS"))
            .collect::<Vec<_>>()
    })
}

#[test]
fn a_server_is_told_of_the_client_as_the_flags_have_it() {
    let (client, said) = ("127.0.0.1", "203.0.113.1");
    let element = "for=127.0.0.1;proto=http;host=test";
    let dropped: [&[&str]; 6] = [&[client], &[], &["OURS"], &["http"], &[], &[]];
    let rows: [(&str, [&[&str]; 6]); 8] = [
        (
            "",
            [
                &[said, client],
                &["shop.example"],
                &["OURS"],
                &["http"],
                &["for=203.0.113.1"],
                &[said],
            ],
        ),
        ("--forwarded-for replace", dropped),
        ("--trusted-proxy 10.0.0.0/8,::1", dropped),
        (
            "--trusted-proxy 10.0.0.0/8 --trusted-proxy 127.0.0.0/8",
            [
                &[said, client],
                &["shop.example"],
                &["443"],
                &["https"],
                &["for=203.0.113.1"],
                &[said],
            ],
        ),
        (
            "--forwarded-for off",
            [
                &[said],
                &["shop.example"],
                &["443"],
                &["https"],
                &["for=203.0.113.1"],
                &[said],
            ],
        ),
        (
            "--forwarded-for replace --forwarded",
            [&[client], &[], &["OURS"], &["http"], &[element], &[]],
        ),
        (
            "--forwarded --trusted-proxy 127.0.0.1",
            [
                &[said, client],
                &["shop.example"],
                &["443"],
                &["https"],
                &["for=203.0.113.1", element],
                &[said],
            ],
        ),
        (
            "--forwarded --trusted-proxy 127.0.0.2",
            [&[client], &[], &["OURS"], &["http"], &[element], &[]],
        ),
    ];
    for (flags, expected) in rows {
        let given: Vec<&str> = flags.split_whitespace().collect();
        assert_eq!(told(&given), expected, "{flags}");
    }
}

// --- the PROXY protocol from clients

const FROM_HERE: [&str; 2] = ["--accept-proxy", "127.0.0.0/8"];

/// The lines of the access log, once there are as many.
#[track_caller]
fn log(balancer: &Balancer, lines: usize) -> Vec<String> {
    eventually("the exchange is logged", || {
        let said = balancer.process.said();
        let log = said.lines().filter(|line| line.contains(" localnodes "));
        let log: Vec<String> = log.map(str::to_owned).collect();
        (log.len() >= lines).then_some(log)
    })
}

/// Requests that could not be read, connections without a header among them.
fn errors(balancer: &Balancer) -> u64 {
    let metrics = String::from_utf8(balancer.stats("/metrics").body).expect("text");
    let name = "haproxy_frontend_request_errors_total{proxy=\"localnodes\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(name));
    value.expect("the metric").parse().expect("a number")
}

fn v6() -> Vec<u8> {
    let mut header = [SIGNATURE, b"\x21\x21\0\x2a"].concat();
    header.extend(
        "2001:db8::7"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    header.extend(
        "2001:db8::1"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    header.extend(b"\xc3\x50\x01\xbb");
    header.extend(b"\x04\0\x03abc");
    header
}

#[test]
fn a_client_is_who_the_header_says() {
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], &FROM_HERE);
    let rows = [
        (V1.to_vec(), "192.0.2.7"),
        (V2.to_vec(), "192.0.2.7"),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 443\r\n".to_vec(),
            "2001:db8::7",
        ),
        (v6(), "2001:db8::7"),
    ];
    for (row, (header, address)) in rows.iter().enumerate() {
        for in_pieces in [false, true] {
            let mut client = balancer.connect();
            let bytes = [header.as_slice(), GET].concat();
            let size = if in_pieces { 1 } else { bytes.len() };
            for piece in bytes.chunks(size) {
                client.send(piece).unwrap();
            }
            assert_eq!(client.answer(false).unwrap().status, 200);
            // It holds for the whole connection.
            assert_eq!(client.get(&[]).unwrap().status, 200);
        }
        let seen = &origin.seen()[row * 4..];
        assert_eq!(seen.len(), 4);
        for seen in seen {
            assert_eq!(seen.values("x-forwarded-for"), [*address]);
            assert_eq!(seen.values("x-forwarded-port"), ["443"]);
        }
        let start = format!("{address}:50000 [");
        for line in &log(&balancer, row * 4 + 4)[row * 4..] {
            assert!(line.starts_with(&start), "{line}");
        }
    }
    assert_eq!(errors(&balancer), 0);
}

#[test]
fn a_header_for_nobody_leaves_the_address_of_the_connection() {
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], &FROM_HERE);
    let local = [SIGNATURE, b"\x20\0\0\0"].concat();
    for header in [local, b"PROXY UNKNOWN\r\n".to_vec()] {
        let mut client = balancer.connect();
        client.send([&header, GET].concat()).unwrap();
        assert_eq!(client.answer(false).unwrap().status, 200);
    }
    let port = balancer.http.port().to_string();
    for seen in origin.seen() {
        assert_eq!(seen.values("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(seen.values("x-forwarded-port"), [port.as_str()]);
    }
}

#[test]
fn operators_see_whom_the_header_names() {
    let (open, gate) = gate();
    let origin = Origin::start(move |visit| {
        gate.wait();
        visit.send(ok("hello"))
    });
    let balancer = balancer_over(&[&origin], &FROM_HERE);
    let mut client = balancer.connect();
    client.send([V1, GET].concat()).unwrap();
    origin.wait_for(1);
    let listed = ask(balancer.admin, "show sess");
    assert!(listed.contains(" src=192.0.2.7:50000 "), "{listed}");
    open.send(()).unwrap();
    assert_eq!(client.answer(false).unwrap().status, 200);
}

#[test]
fn whom_the_header_names_is_trusted_or_not() {
    let origin = Origin::saying("hello");
    let flags = "--accept-proxy 127.0.0.1 --trusted-proxy 127.0.0.1,192.0.2.0/24";
    let flags: Vec<&str> = flags.split(' ').collect();
    let balancer = balancer_over(&[&origin], &flags);
    let claim = b"GET / HTTP/1.1\r\nhost: test\r\nx-forwarded-for: 203.0.113.1\r\n\r\n";
    let stranger = b"PROXY TCP4 198.51.100.7 198.51.100.1 50000 443\r\n";
    for header in [V1, stranger] {
        let mut client = balancer.connect();
        client.send([header, claim].concat()).unwrap();
        assert_eq!(client.answer(false).unwrap().status, 200);
    }
    let told: Vec<Seen> = origin.seen();
    assert_eq!(
        told[0].values("x-forwarded-for"),
        ["203.0.113.1", "192.0.2.7"]
    );
    assert_eq!(told[1].values("x-forwarded-for"), ["198.51.100.7"]);
}

#[test]
fn from_anyone_else_a_header_is_a_bad_request() {
    let origin = Origin::saying("hello");
    let nobody = ["--accept-proxy", "192.0.2.0/24"];
    for flags in [&nobody[..], &[]] {
        let balancer = balancer_over(&[&origin], flags);
        for header in [V1, V2] {
            let mut client = balancer.connect();
            client.send([header, GET].concat()).unwrap();
            assert_eq!(client.answer(false).unwrap().status, 400);
            assert_eq!(client.rest().unwrap(), b"");
        }
        assert!(
            log(&balancer, 2)
                .iter()
                .all(|line| line.starts_with("127.0.0.1:"))
        );
    }
    assert!(origin.seen().is_empty());
}

#[test]
fn a_connection_without_its_header_is_closed_without_a_word_and_counted() {
    let origin = Origin::saying("hello");
    let patience = ["--timeout-http-request", "500ms"];
    let balancer = balancer_over(&[&origin], &[FROM_HERE, patience].concat());
    let mut wrong_family = V2.to_vec();
    wrong_family[13] = 0x41;
    let mut counted = 0;
    for bytes in [
        // Missing.
        GET,
        // Malformed.
        b"PROXY TCP4 192.0.2.7 198.51.100.1 050000 443\r\n",
        &wrong_family,
        // Late, in the middle and before it.
        &V1[..20],
        &V2[..20],
        b"",
    ] {
        let mut client = balancer.connect();
        client.send(bytes).unwrap();
        // What was not read makes it a reset.
        let said = client.rest().unwrap_or_default();
        assert!(said.is_empty(), "{said:?}");
        counted += 1;
        assert_eq!(errors(&balancer), counted, "{}", bytes.escape_ascii());
    }
    let mut broken_off = balancer.connect();
    broken_off.send(&V2[..20]).unwrap();
    broken_off.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(broken_off.rest().unwrap(), b"");
    assert_eq!(errors(&balancer), counted + 1);
    // Somebody who only looks whether we accept.
    let mut looking = balancer.connect();
    looking.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(looking.rest().unwrap(), b"");
    assert_eq!(errors(&balancer), counted + 1);
    assert!(origin.seen().is_empty());
    let warning = "is one of --accept-proxy, and its connection was closed: no PROXY header";
    assert!(balancer.process.said().contains(warning));
}

#[test]
fn an_end_does_not_wait_long_for_headers() {
    let origin = Origin::saying("hello");
    let mut balancer = balancer_over(&[&origin], &FROM_HERE);
    let mut silent = balancer.connect();
    let mut there = balancer.connect();
    there.send([V1, GET].concat()).unwrap();
    assert_eq!(there.answer(false).unwrap().status, 200);
    balancer.process.signal(rustix::process::Signal::TERM);
    assert_eq!(silent.rest().unwrap_or_default(), b"");
    assert_eq!(balancer.process.exit_code(), 0);
}

// --- the PROXY protocol to servers

/// A server that keeps every byte of every connection, in the order in which
/// they came, and answers every request with 200.
#[derive(Debug)]
struct Raw {
    addr: SocketAddr,
    connections: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Raw {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let connections = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let kept = Arc::clone(&connections);
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let kept = Arc::clone(&kept);
                let index = {
                    let mut kept = kept.lock().unwrap();
                    kept.push(Vec::new());
                    kept.len() - 1
                };
                thread::spawn(move || {
                    let mut chunk = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut chunk) {
                        let mut kept = kept.lock().unwrap();
                        kept[index].extend_from_slice(&chunk[..read]);
                        let ends_head = kept[index].ends_with(b"\r\n\r\n");
                        drop(kept);
                        if ends_head {
                            stream.write_all(ok("hello").as_bytes()).ok();
                        }
                    }
                });
            }
        });
        Self { addr, connections }
    }

    /// What came over its connections, once there are as many and each has
    /// brought something.
    fn came(&self, connections: usize) -> Vec<Vec<u8>> {
        eventually("the connections reach the server", || {
            let came = self.connections.lock().unwrap().clone();
            let whole = came.len() >= connections && came.iter().all(|bytes| !bytes.is_empty());
            whole.then_some(came)
        })
    }
}

/// Version 2 for a client that came to that address.
fn v2_of(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut header = [SIGNATURE, b"\x21\x11\0\x0c"].concat();
    for addr in [client, to] {
        let SocketAddr::V4(addr) = addr else {
            panic!("{addr}")
        };
        header.extend(addr.ip().octets());
    }
    header.extend(client.port().to_be_bytes());
    header.extend(to.port().to_be_bytes());
    header
}

#[test]
fn a_server_is_told_of_each_client_before_anything_else_on_a_connection_of_its_own() {
    for version in ["v1", "v2"] {
        let server = Raw::start();
        let named = format!("s1={},check=off,send-proxy={version}", server.addr);
        let balancer = Balancer::start(&["--workers", "1", "--server", &named]);
        let mut clients = [balancer.connect(), balancer.connect()];
        for client in [0, 1, 0] {
            assert_eq!(clients[client].get(&[]).unwrap().status, 200);
        }
        let came = server.came(3);
        assert_eq!(came.len(), 3, "one for each request");
        for (bytes, client) in came.iter().zip([0, 1, 0]) {
            let client = clients[client].stream().local_addr().unwrap();
            let header = match version {
                "v1" => format!(
                    "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
                    client.port(),
                    balancer.http.port()
                )
                .into_bytes(),
                _ => v2_of(client, balancer.http),
            };
            let head = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            assert!(bytes.starts_with(&head), "{}", bytes.escape_ascii());
        }
    }
}

#[test]
fn a_server_is_told_whom_another_proxy_passes_on() {
    let server = Raw::start();
    let named = format!("s1={},check=off,send-proxy=v2", server.addr);
    let balancer = Balancer::start(&[&FROM_HERE[..], &["--server", &named]].concat());
    let mut client = balancer.connect();
    client.send([V1, GET].concat()).unwrap();
    assert_eq!(client.answer(false).unwrap().status, 200);
    assert!(server.came(1)[0].starts_with(&[V2, b"GET /"].concat()));
}

#[test]
fn a_check_says_that_it_is_on_nobodys_behalf() {
    let local = [SIGNATURE, b"\x20\0\0\0"].concat();
    for (version, header) in [("v1", &b"PROXY UNKNOWN\r\n"[..]), ("v2", &local)] {
        for (check, behind) in [
            ("tcp", &b""[..]),
            ("http:GET:/health", b"GET /health HTTP/1.1"),
        ] {
            let server = Raw::start();
            let named = format!("s1={},check={check},send-proxy={version}", server.addr);
            let balancer = Balancer::start(&["--server", &named]);
            let came = server.came(1);
            let expected = [header, behind].concat();
            assert!(came[0].starts_with(&expected), "{check} {version}");
            if check == "tcp" {
                assert_eq!(came[0], header);
            }
            balancer.wait_for(&[("s1", "up")]);
        }
    }
}

// --- HAProxy

/// Starts one, if there is one: `BIND` in its configuration is its address.
fn start_haproxy(test: &str, config: &str) -> Option<HaProxy> {
    let defaults = "defaults\n mode http\n timeout connect 5s\n timeout client 5s\n \
                    timeout server 5s\n";
    haproxy::is_installed(test).then(|| HaProxy::start(&format!("{defaults}{config}\n")))
}

#[test]
fn haproxy_in_front_tells_who_its_client_is() {
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], &FROM_HERE);
    for (requests, send) in (1..).zip([
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c",
    ]) {
        let config = format!(
            "listen in\n bind BIND\n server lb {} {send} check check-send-proxy",
            balancer.http
        );
        let Some(haproxy) = start_haproxy("HAProxy in front", &config) else {
            return;
        };
        let mut client = Client::connect(haproxy.addr).unwrap();
        let own = client.stream().local_addr().unwrap();
        assert_eq!(client.get(&[]).unwrap().status, 200, "{send}");
        let line = log(&balancer, requests).pop().unwrap();
        assert!(line.starts_with(&format!("{own} [")), "{send}: {line}");
        let seen = origin.seen().pop().unwrap();
        let port = haproxy.addr.port().to_string();
        assert_eq!(seen.values("x-forwarded-port"), [port.as_str()], "{send}");
    }
}

#[test]
fn haproxy_behind_learns_who_the_client_is() {
    let config = "listen out\n bind BIND accept-proxy\n \
                  http-request return status 200 content-type text/plain lf-string %[src]:%[src_port]";
    let Some(haproxy) = start_haproxy("HAProxy behind", config) else {
        return;
    };
    for keys in ["send-proxy=v1", "send-proxy=v2", "send-proxy=v2,proto=h2"] {
        let named = format!("s1={},check=http:GET:/,{keys}", haproxy.addr);
        let balancer = Balancer::start(&["--workers", "1", "--server", &named]);
        balancer.wait_for(&[("s1", "up")]);
        for _ in 0..2 {
            let mut client = balancer.connect();
            let own = client.stream().local_addr().unwrap();
            let answer = client.get(&[]).unwrap();
            let said = String::from_utf8(answer.body).unwrap();
            assert_eq!((answer.status, said), (200, own.to_string()), "{keys}");
        }
    }
}
