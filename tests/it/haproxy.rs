//! The access log and the state changes beside those of HAProxy itself, which
//! is asked the same things of the same servers. Where there is no HAProxy,
//! the tests say so and pass.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::support::{
    client::Client,
    cluster::{Balancer, nobody},
    eventually,
    haproxy::{HaProxy, is_installed},
    origin::{Origin, Visit, ok},
    syslog::{Message, Receiver},
};

/// What the two are given: the same, each in its own words.
struct Setup<'a> {
    /// Lines of HAProxy's backend.
    backend: &'a str,
    /// Our flags.
    flags: &'a [&'a str],
}

/// HAProxy and Tidings in front of the same servers.
struct Pair {
    haproxy: HaProxy,
    tidings: Balancer,
    /// What each of them logs.
    logs: [Receiver; 2],
}

/// HAProxy as a load balancer whose frontend and backend are named like ours.
fn start_haproxy(backend: &str, log: SocketAddr) -> HaProxy {
    HaProxy::start(&format!(
        "global\n log {log} format rfc5424 local0\n\
         defaults\n log global\n mode http\n option httplog\n option dontlognull\n \
         timeout connect 1s\n timeout client 1s\n timeout server 1s\n \
         timeout http-request 1s\n\
         frontend localnodes\n bind BIND\n default_backend nodes\n\
         backend nodes\n balance roundrobin\n {backend}\n"
    ))
}

impl Pair {
    fn start(setup: &Setup<'_>) -> Self {
        let logs = [Receiver::start(), Receiver::start()];
        let target = logs[1].target();
        let mut flags = vec!["--syslog", &target, "--access-log", "httplog"];
        flags.extend([
            "--timeout-connect",
            "1s",
            "--timeout-client",
            "1s",
            "--timeout-server",
            "1s",
            "--timeout-http-request",
            "1s",
        ]);
        flags.extend(setup.flags);
        Self {
            haproxy: start_haproxy(setup.backend, logs[0].addr()),
            tidings: Balancer::start(&flags),
            logs,
        }
    }

    /// Does the same to both, and expects both to log the same.
    #[track_caller]
    fn same(&self, situation: &str, act: impl Fn(TcpStream)) -> String {
        // A connection that was just closed may still be counted.
        let idle = "haproxy_frontend_current_sessions{proxy=\"localnodes\"} 0";
        eventually("no connection is left", || {
            let metrics = self.tidings.stats("/metrics").body;
            let metrics = String::from_utf8(metrics).expect("text");
            metrics.lines().any(|line| line == idle).then_some(())
        });
        let addresses = [self.haproxy.addr, self.tidings.http];
        let [theirs, ours] = [0, 1].map(|index| {
            let client = TcpStream::connect(addresses[index]).unwrap();
            client.set_nodelay(true).unwrap();
            act(client);
            let is_access = |message: &Message| message.text.contains(" localnodes ");
            self.logs[index].next(situation, is_access)
        });
        for message in [&theirs, &ours] {
            assert_eq!((message.facility, message.severity), (16, 6), "local0.info");
        }
        let theirs = shape(&theirs.text);
        assert_eq!(shape(&ours.text), theirs, "{situation}");
        theirs
    }

    /// Waits until both have told of a change, and expects the same words, but
    /// for what ours has behind them.
    #[track_caller]
    fn same_words(&self, what: &str) {
        let is_it = |message: &Message| message.text.contains(what);
        let [theirs, ours] = [0, 1].map(|index| self.logs[index].next(what, is_it));
        assert_eq!(
            (theirs.facility, theirs.severity),
            (ours.facility, ours.severity),
            "{}",
            theirs.text
        );
        let (theirs, ours) = (without_duration(&theirs.text), without_duration(&ours.text));
        assert!(ours.starts_with(&theirs), "{ours}\nis not\n{theirs}");
    }
}

/// A line without what differs from one request to the next: the client's
/// port, the date, how long things took, and how many bytes each counts.
fn shape(line: &str) -> String {
    let mut fields: Vec<String> = line.splitn(14, ' ').map(str::to_owned).collect();
    let timers = fields[4].split('/');
    let timers = timers.map(|timer| if timer == "-1" { "-1" } else { "n" });
    fields[4] = timers.collect::<Vec<_>>().join("/");
    let (client, _port) = fields[0].rsplit_once(':').unwrap();
    let client = client.to_owned();
    fields[0] = client;
    let date: String = fields[1]
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    // The month may be another by the second line.
    fields[1] = date.split('/').map(|part| part.len().to_string()).collect();
    assert!(fields[6].parse::<u64>().is_ok(), "bytes: {line}");
    fields[6] = "n".into();
    fields.join(" ")
}

/// The termination state in a line, and the status before it.
fn state(line: &str) -> String {
    let fields: Vec<&str> = line.split(' ').collect();
    format!("{} {}", fields[5], fields[9])
}

fn without_duration(line: &str) -> String {
    match line.split_once("check duration: ") {
        Some((before, after)) => {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}check duration: {rest}")
        }
        None => line.to_owned(),
    }
}

/// Sends a request and reads all that comes.
fn ask(request: impl Into<String>) -> impl Fn(TcpStream) {
    let request = request.into();
    move |mut client| {
        client.write_all(request.as_bytes()).unwrap();
        // What comes may end with a reset.
        client.read_to_end(&mut Vec::new()).ok();
    }
}

fn get(path: &str) -> impl Fn(TcpStream) + use<> {
    get_with(path, "")
}

fn get_with(path: &str, header: &str) -> impl Fn(TcpStream) + use<> {
    ask(format!(
        "GET {path} HTTP/1.1\r\nhost: test\r\n{header}connection: close\r\n\r\n"
    ))
}

/// Sends this, reads some of the answer if there is to be one, and resets.
fn ask_and_reset(request: &'static str, answered: bool) -> impl Fn(TcpStream) {
    move |mut client| {
        client.write_all(request.as_bytes()).unwrap();
        if answered {
            client.read_exact(&mut [0; 1000]).unwrap();
        }
        let now = Some(Duration::ZERO);
        socket2::SockRef::from(&client).set_linger(now).unwrap();
    }
}

/// A server that misbehaves as its path says.
fn server() -> Origin {
    Origin::start(|visit| {
        let seen = visit.seen();
        let path = seen.first_line().split(' ').nth(1).unwrap_or_default();
        let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
        match path {
            "/reset" => visit.reset(),
            "/close" => visit.close(),
            "/junk" => {
                visit.send("220 mail.test ESMTP\r\n")?;
                visit.close()
            }
            "/half" => {
                visit.send(half)?;
                visit.close()
            }
            "/stall" => {
                visit.send(half)?;
                until_closed(visit)
            }
            "/hang" => until_closed(visit),
            "/flood" => {
                visit.send("HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")?;
                (0..1000).try_for_each(|_| visit.send(vec![b'x'; 100_000]))
            }
            "/cookie" => visit.send(
                "HTTP/1.1 200 OK\r\nset-cookie: SERVERID=mine\r\ncontent-length: 2\r\n\r\nok",
            ),
            "/switch" => {
                visit.send(
                    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                     upgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
                )?;
                visit.close()
            }
            _ => visit.send(ok("ok")),
        }
    })
}

fn until_closed(visit: &mut Visit) -> std::io::Result<()> {
    while !visit.read()?.is_empty() {}
    visit.close()
}

#[test]
fn every_end_of_a_request_is_logged_as_haproxy_logs_it() {
    if !is_installed("every_end_of_a_request_is_logged_as_haproxy_logs_it") {
        return;
    }
    let server = server();
    // HAProxy repeats only what was not sent.
    let pair = Pair::start(&Setup {
        backend: &format!("retries 0\n server s1 {}", server.addr),
        flags: &[
            "--server",
            &server.named("s1"),
            "--cookie",
            "off",
            "--retries",
            "0",
        ],
    });
    let same = |situation, expected: &str, act: &dyn Fn(TcpStream)| {
        let line = pair.same(situation, act);
        assert_eq!(state(&line), expected, "{situation}: {line}");
    };
    same("all is well", "200 ----", &get("/a?x=1"));
    same("a quote", "200 ----", &get("/a\"b\\c"));
    same("HTTP/1.0", "200 ----", &ask("GET /old HTTP/1.0\r\n\r\n"));
    same("absolute", "200 ----", &get("http://test/abs?y=1"));
    same(
        "a body",
        "200 ----",
        &ask("POST / HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc"),
    );
    same("not HTTP", "400 PR--", &ask("GARBAGE\r\n\r\n"));
    same("a control character", "400 PR--", &get("/a\u{1}b"));
    same(
        "two lengths",
        "400 PR--",
        &ask("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"),
    );
    same("a slow head", "408 cR--", &ask("GET / HTTP/1.1\r\nho"));
    same(
        "a client that leaves in its head",
        "400 CR--",
        &ask_and_reset("GET / HTTP/1.1\r\nho", false),
    );
    same("the server resets", "502 SH--", &get("/reset"));
    same("the server closes", "502 SH--", &get("/close"));
    same("the answer is not HTTP", "502 PH--", &get("/junk"));
    same("the server breaks off", "200 SD--", &get("/half"));
    same("the server says nothing", "504 sH--", &get("/hang"));
    same("the server stalls", "200 sD--", &get("/stall"));
    same(
        "the client leaves in the answer",
        "200 CD--",
        &ask_and_reset("GET /flood HTTP/1.1\r\nhost: test\r\n\r\n", true),
    );
    same(
        "a tunnel",
        "101 ----",
        &ask(
            "GET /switch HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
              sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        ),
    );
}

#[test]
fn cookies_are_logged_as_haproxy_logs_them() {
    if !is_installed("cookies_are_logged_as_haproxy_logs_them") {
        return;
    }
    let server = server();
    let (_, dead) = nobody();
    let pair = Pair::start(&Setup {
        backend: &format!(
            "cookie SERVERID insert indirect nocache\n \
             server s1 {} cookie s1\n server s2 {dead} cookie s2 check fall 1 inter 100",
            server.addr
        ),
        flags: &[
            "--server",
            &server.named("s1"),
            "--server",
            &format!("s2={dead},fall=1,check-interval=100ms"),
        ],
    });
    pair.same_words("Server nodes/s2 is DOWN");
    let with = |cookie: &str, path: &str| get_with(path, &format!("cookie: {cookie}\r\n"));
    for (situation, expected, act) in [
        ("no cookie", "200 --NI", get_with("/", "")),
        ("another's cookie", "200 --NI", with("a=b", "/")),
        ("a valid one", "200 --VN", with("a=b; SERVERID=s1", "/")),
        (
            "a server nobody knows",
            "200 --II",
            with("SERVERID=s9", "/"),
        ),
        (
            "a server that is down",
            "200 --DI",
            with("SERVERID=s2", "/"),
        ),
        (
            "the server sets it too",
            "200 --II",
            with("SERVERID=s9", "/cookie"),
        ),
        (
            "the server alone sets it",
            "200 --VD",
            with("SERVERID=s1", "/cookie"),
        ),
        (
            "a valid one, and no answer",
            "504 sHVN",
            with("SERVERID=s1", "/hang"),
        ),
    ] {
        let line = pair.same(situation, act);
        assert_eq!(state(&line), expected, "{situation}: {line}");
    }
    let line = pair.same("a request that is refused", ask("GARBAGE\r\n\r\n"));
    assert_eq!(state(&line), "400 PR--");
}

#[test]
fn a_redispatch_is_logged_as_haproxy_logs_it() {
    if !is_installed("a_redispatch_is_logged_as_haproxy_logs_it") {
        return;
    }
    let server = server();
    let (_, dead) = nobody();
    let pair = Pair::start(&Setup {
        backend: &format!(
            "option redispatch 1\n server s1 {dead}\n server s2 {}",
            server.addr
        ),
        flags: &[
            "--server",
            &format!("s1={dead},check=off"),
            "--server",
            &server.named("s2"),
            "--cookie",
            "off",
        ],
    });
    let line = pair.same("the first server refuses", get("/"));
    assert!(
        line.contains(" nodes/s2 n/n/n/n/n 200 n - - ---- 1/1/0/0/+1 0/0 "),
        "{line}"
    );
}

#[test]
fn a_pool_without_a_server_is_logged_as_haproxy_logs_it() {
    if !is_installed("a_pool_without_a_server_is_logged_as_haproxy_logs_it") {
        return;
    }
    let (_, dead) = nobody();
    let pair = Pair::start(&Setup {
        backend: &format!(
            "cookie SERVERID insert indirect nocache\n server s1 {dead} cookie s1 check fall 1 inter 100"
        ),
        flags: &[
            "--server",
            &format!("s1={dead},fall=1,check-interval=100ms"),
        ],
    });
    pair.same_words("backend nodes has no server available!");
    let line = pair.same("no server", get("/"));
    assert!(
        line.contains(" nodes/<NOSRV> n/-1/-1/-1/n 503 n - - SCNN 1/1/0/0/0 0/0 "),
        "{line}"
    );
    let line = pair.same(
        "the server of the cookie",
        get_with("/", "cookie: SERVERID=s1\r\n"),
    );
    assert_eq!(state(&line), "503 SCDN");
}

#[test]
fn a_server_that_refuses_is_logged_as_haproxy_logs_it() {
    if !is_installed("a_server_that_refuses_is_logged_as_haproxy_logs_it") {
        return;
    }
    let (_, dead) = nobody();
    let pair = Pair::start(&Setup {
        backend: &format!("retries 0\n server s1 {dead}"),
        flags: &[
            "--server",
            &format!("s1={dead},check=off"),
            "--cookie",
            "off",
            "--retries",
            "0",
        ],
    });
    let line = pair.same("refused", get("/"));
    assert!(
        line.contains(" nodes/s1 n/n/-1/-1/n 503 n - - SC-- 1/1/0/0/0 0/0 "),
        "{line}"
    );
}

#[test]
fn what_an_operator_does_is_told_in_haproxys_words() {
    if !is_installed("what_an_operator_does_is_told_in_haproxys_words") {
        return;
    }
    let (one, two) = (server(), server());
    let socket = std::env::temp_dir().join(format!("tidings-haproxy-{}.sock", one.addr));
    let pair = Pair::start(&Setup {
        backend: &format!(
            "server s1 {}\n server s2 {}\nglobal\n stats socket {} level admin",
            one.addr,
            two.addr,
            socket.display()
        ),
        flags: &["--server", &one.named("s1"), "--server", &two.named("s2")],
    });
    for (command, expected) in [
        ("set server nodes/s1 state drain", "enters drain state"),
        ("set server nodes/s1 state ready", "(leaving forced drain)"),
        (
            "set server nodes/s1 state maint",
            "going DOWN for maintenance",
        ),
        (
            "set server nodes/s1 state ready",
            "(leaving forced maintenance)",
        ),
        (
            "set server nodes/s1 state maint",
            "going DOWN for maintenance",
        ),
        ("set server nodes/s1 state drain", "is UP/DRAIN"),
    ] {
        let mut theirs = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        writeln!(theirs, "{command}").unwrap();
        theirs.read_to_end(&mut Vec::new()).unwrap();
        let mut ours = Client::connect(pair.tidings.admin).unwrap();
        ours.send(format!("{command}\n")).unwrap();
        ours.rest().unwrap();
        pair.same_words(expected);
    }
    std::fs::remove_file(socket).ok();
}
