//! Logs where users find them: stdout as JSON, syslog, the response.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::support::{
    cluster::{Balancer, agent, nobody},
    eventually, free_port,
    origin::{Origin, balancer_over},
    own_address,
    process::Process,
    syslog::Receiver,
};

/// The next line of the JSON log that is about this path.
#[track_caller]
fn logged(balancer: &Balancer, path: &str) -> Value {
    balancer.process.says("the request is logged", |line| {
        let object: Value = serde_json::from_str(line).ok()?;
        (object["path"] == path).then_some(object)
    })
}

#[test]
fn a_request_is_a_json_object_with_its_reason() {
    let origin = Origin::saying("hello");
    let (_, dead) = nobody();
    let dead = format!("s1={dead},check=off");
    let flags = [
        "--access-log",
        "json",
        "--server",
        &dead,
        "--server",
        &origin.named("s2"),
    ];
    let balancer = Balancer::start(&flags);
    let answer = balancer
        .connect()
        .request("GET", "/a\"b\\c?d=e", &[])
        .unwrap();
    assert_eq!(
        answer.header("x-lb-why"),
        None,
        "only where it is asked for"
    );

    let line = logged(&balancer, "/a\"b\\c?d=e");
    for (field, expected) in [
        ("client", Value::from("127.0.0.1")),
        ("frontend", "localnodes".into()),
        ("backend", "nodes".into()),
        ("server", "s2".into()),
        ("method", "GET".into()),
        ("protocol", "HTTP/1.1".into()),
        ("status", 200.into()),
        ("termination", "--".into()),
        ("retries", 1.into()),
        ("redispatched", true.into()),
        ("sticky", "new".into()),
        ("cookie", "inserted".into()),
        ("why", "rr; s1 failed; attempt 2".into()),
    ] {
        assert_eq!(line[field], expected, "{field} in {line}");
    }
    for timer in [
        "head_ms",
        "wait_ms",
        "connect_ms",
        "response_ms",
        "total_ms",
    ] {
        assert!(
            line[timer].as_f64().is_some_and(|took| took >= 0.0),
            "{timer} in {line}"
        );
    }
    let bytes_out = line["bytes_out"].as_u64().unwrap();
    assert!(
        bytes_out > 5 && line["bytes_in"].as_u64().unwrap() > 10,
        "{line}"
    );
}

#[test]
fn a_response_says_why_where_that_is_asked_for() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let balancer = balancer_over(&[&one, &two], &["--explain"]);
    let why = |headers: &[&str]| {
        let answer = balancer.connect().get(headers).unwrap();
        answer.header("x-lb-why").map(str::to_owned)
    };
    assert_eq!(why(&[]).as_deref(), Some("rr"));
    assert_eq!(why(&["cookie: SERVERID=s2"]).as_deref(), Some("sticky s2"));
    let unknown = why(&["cookie: SERVERID=s9"]);
    assert_eq!(unknown.as_deref(), Some("rr; cookie s9 unknown"));
}

#[test]
fn a_503_says_why_there_was_no_server() {
    let (_, dead) = nobody();
    let server = format!("s1={dead},fall=1,check-interval=100ms");
    let balancer = Balancer::start(&["--explain", "--server", &server]);
    balancer.process.says("the server is down", |line| {
        line.contains("is DOWN").then_some(())
    });
    let answer = balancer.connect().get(&[]).unwrap();
    assert_eq!(answer.status, 503);
    let why = answer.header("x-lb-why").unwrap_or_default();
    assert!(why.starts_with("no server; s1 down "), "{why}");
}

#[test]
fn a_client_that_gives_up_before_there_is_a_server_is_logged_as_such() {
    // A balancer that has just started gives its servers a moment to come.
    let balancer = Balancer::start(&["--cookie", "off"]);
    let mut client = balancer.connect();
    client
        .send("GET /early HTTP/1.1\r\nhost: test\r\n\r\n")
        .unwrap();
    drop(client);
    let line = balancer.process.says("the request is logged", |line| {
        line.contains("/early").then(|| line.to_owned())
    });
    assert!(line.contains(" nodes/<NOSRV> "), "{line}");
    assert!(line.contains("/-1/-1/-1/"), "{line}");
    assert!(line.contains(" -1 0 - - CQ-- "), "{line}");
}

#[test]
fn requests_and_state_changes_go_to_syslog() {
    let receiver = Receiver::start();
    let origin = Origin::saying("hello");
    let (_, dead) = nobody();
    let dead = format!("s2={dead},fall=1,check-interval=100ms");
    let balancer = balancer_over(
        &[&origin],
        &["--syslog", &receiver.target(), "--server", &dead],
    );
    let down = receiver.next("the dead server is told of", |message| {
        message.kind == "state"
    });
    assert_eq!((down.facility, down.severity), (16, 1), "local0.alert");
    assert_eq!((down.host.as_str(), down.app.as_str()), ("ha", "tidings"));
    assert!(
        down.text.starts_with("Server nodes/s2 is DOWN, reason: "),
        "{}",
        down.text
    );
    balancer.process.says("stderr has it too", |line| {
        line.contains("Server nodes/s2 is DOWN").then_some(())
    });

    balancer.connect().request("GET", "/logged", &[]).unwrap();
    let access = receiver.next("the request is logged", |message| message.kind == "access");
    assert_eq!((access.facility, access.severity), (16, 6), "local0.info");
    assert!(
        access.text.contains(" localnodes nodes/s1 "),
        "{}",
        access.text
    );
    assert!(
        access.text.ends_with("\"GET /logged HTTP/1.1\""),
        "{}",
        access.text
    );
    let said = balancer.process.said();
    assert!(!said.contains("/logged"), "stdout has it not: {said}");
}

/// The arguments of an agent that runs this and ends with it.
fn agent_for(receiver: &Receiver, script: &str) -> Vec<String> {
    let addr = free_port(own_address());
    let (ip, _) = nobody();
    let seed = format!("{ip}:7946");
    let mut args = agent("web-1", &seed, addr, free_port(addr.ip()));
    let rest = ["--restart", "never", "--syslog", &receiver.target(), "--"];
    args.extend(rest.map(str::to_owned));
    args.extend(["/bin/sh", "-c", script].map(str::to_owned));
    args
}

#[test]
fn what_an_app_says_goes_to_syslog_and_stays_where_it_was() {
    let receiver = Receiver::start();
    let script =
        "echo one; printf 'a\\tb \\033[1m\\n'; printf 'no end'; echo 'trouble' >&2; exit 7";
    let mut agent = Process::start(&agent_for(&receiver, script));
    let (mut heard, mut ended) = (Vec::new(), false);
    while heard.len() < 4 || !ended {
        let message = receiver.next("the app and its agent are heard", |_| true);
        match message.app.as_str() {
            "web-1" => {
                assert_eq!(message.facility, 3, "daemon");
                heard.push((message.kind, message.severity, message.text));
            }
            app => {
                assert_eq!(app, "tidings");
                ended |= message.text == "the app ended with exit code 7";
            }
        }
    }
    // Each stream in its order.
    heard.sort_by(|a, b| a.0.cmp(&b.0).reverse());
    let heard: Vec<_> = heard
        .iter()
        .map(|(kind, severity, text)| (kind.as_str(), *severity, text.as_str()))
        .collect();
    let expected = [
        ("stdout", 6, "one"),
        ("stdout", 6, "a\tb #033[1m"),
        ("stdout", 6, "no end"),
        ("stderr", 3, "trouble"),
    ];
    assert_eq!(heard, expected);
    assert_eq!(agent.exit_code(), 7);
    for line in ["one", "a\tb \u{1b}[1m", "no end", "trouble"] {
        agent.says("it is passed on", |said| (said == line).then_some(()));
    }
}

#[test]
fn an_app_never_waits_for_whoever_does_not_read() {
    let receiver = Receiver::start();
    let script =
        "head -c 20000000 /dev/zero | tr '\\0' 'x'; head -c 20000000 /dev/zero >&2; exit 7";
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command
        .args(agent_for(&receiver, script))
        .stdin(Stdio::null());
    let mut agent = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = eventually("the agent ends with its app", || agent.try_wait().unwrap());
    assert_eq!(status.code(), Some(7));
}

#[test]
fn a_name_that_does_not_resolve_costs_only_the_messages() {
    let origin = Origin::saying("hello");
    let balancer = balancer_over(&[&origin], &["--syslog", "udp://no-such-host.invalid"]);
    balancer.process.says("it is told", |line| {
        line.contains("--syslog udp://no-such-host.invalid:514 does not resolve")
            .then_some(())
    });
    assert_eq!(balancer.connect().get(&[]).unwrap().status, 200);
    eventually("the lost line is counted", || {
        let metrics = balancer.stats("/metrics");
        let metrics = String::from_utf8(metrics.body).unwrap();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("haproxy_process_dropped_logs_total "))?;
        (line.trim().parse::<f64>().unwrap() > 0.0).then_some(())
    });
}
