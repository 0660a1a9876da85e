//! What the runtime API's commands do to a running load balancer.

use std::{
    io::Read,
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use super::{
    admin::{ask, stat},
    support::{
        cluster::{Balancer, cluster},
        eventually,
        origin::{Origin, balancer_over, gate, ok},
    },
};

/// The status of a server, as `show stat` has it.
fn status(balancer: &Balancer, server: &str) -> String {
    let rows = stat(balancer.admin, "");
    let mut found = rows.into_iter().filter(|row| row["svname"] == server);
    found
        .next()
        .map_or(String::new(), |mut row| row.remove("status").unwrap())
}

#[track_caller]
fn does(balancer: &Balancer, line: &str) {
    assert_eq!(ask(balancer.admin, line), "\n", "{line}");
}

#[track_caller]
fn says(balancer: &Balancer, line: &str, answer: &str) {
    assert_eq!(ask(balancer.admin, line), format!("{answer}\n\n"), "{line}");
}

#[test]
fn an_operators_verdict_takes_a_server_out_and_back() {
    let (balancer, _servers) = cluster(2);
    does(&balancer, "set server nodes/s1 health down");
    assert_eq!(status(&balancer, "s1"), "DOWN");
    for _ in 0..4 {
        assert_eq!(balancer.connect().get(&[]).unwrap().server(), "s2");
    }
    does(&balancer, "set server nodes/s1 health stopping");
    assert_eq!(status(&balancer, "s1"), "DRAIN");
    does(&balancer, "set server nodes/s1 health up");
    assert_eq!(status(&balancer, "s1"), "UP");
    let refused = "The address of this server is announced by its agent.";
    says(&balancer, "set server nodes/s1 addr 127.0.0.9", refused);
    let announced = "This server cannot be removed at runtime due to other configuration \
                     elements pointing to it.";
    says(&balancer, "del server nodes/s1", announced);
    let failed = format!("Failed. {announced}");
    says(&balancer, "wait 5s srv-removable nodes/s1", &failed);
}

#[test]
fn a_server_is_added_enabled_moved_and_removed() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let balancer = Balancer::start(&[]);
    says(
        &balancer,
        &format!("add server nodes/s1 {} weight 3 check inter 50ms", one.addr),
        "New server registered.",
    );
    assert_eq!(status(&balancer, "s1"), "MAINT");
    assert_eq!(balancer.connect().get(&[]).unwrap().status, 503);
    let name_taken = "Already exists a server with the same name in backend.";
    says(
        &balancer,
        &format!("add server nodes/s1 {}", one.addr),
        name_taken,
    );

    does(&balancer, "enable server nodes/s1");
    assert_eq!(balancer.connect().get(&[]).unwrap().body, b"one");
    does(&balancer, "enable health nodes/s1");
    eventually("its checks are on and pass", || {
        (stat(balancer.admin, "nodes 4 1")[0]["check_status"] == "L4OK").then_some(())
    });

    let port = two.addr.port();
    let moved = format!(
        "port changed from '{}' to '{port}' by 'stats socket command'",
        one.addr.port()
    );
    let line = format!("set server nodes/s1 addr 127.0.0.1 port {port}");
    says(&balancer, &line, &moved);
    says(&balancer, &line, "nothing changed");
    assert_eq!(balancer.connect().get(&[]).unwrap().body, b"two");

    let running = "Only servers in maintenance mode can be deleted.";
    says(&balancer, "del server nodes/s1", running);
    does(&balancer, "set server nodes/s1 state maint");
    says(&balancer, "wait 10s srv-removable nodes/s1", "Done.");
    says(&balancer, "del server nodes/s1", "Server deleted.");
    assert_eq!(status(&balancer, "s1"), "");
    says(&balancer, "get weight nodes/s1", "No such server.");
}

#[test]
fn checks_are_pointed_elsewhere_and_switched_off() {
    let app = Origin::saying("hello");
    let server = format!("s1={},check-interval=50ms", app.addr);
    let balancer = Balancer::start(&["--server", &server, "--observe", "off"]);
    eventually("the server is checked", || {
        (status(&balancer, "s1") == "UP").then_some(())
    });
    does(&balancer, "set server nodes/s1 check-port 1");
    eventually("nobody listens at port 1", || {
        (status(&balancer, "s1") == "DOWN").then_some(())
    });
    let fields = ask(balancer.admin, "show servers state");
    assert!(fields.trim_end().ends_with(" 0 1 - - 0"), "{fields}");
    does(&balancer, "disable health nodes/s1");
    does(&balancer, "set server nodes/s1 health up");
    assert_eq!(status(&balancer, "s1"), "UP");
    let off = ask(balancer.admin, "show servers state");
    assert!(
        off.contains(" 4 2 0 0 0 - "),
        "checks configured and off: {off}"
    );
}

#[test]
fn sessions_are_listed_and_ended() {
    let (_open, gate) = gate();
    let slow = Origin::start(move |visit| {
        visit.body()?;
        gate.wait();
        Ok(())
    });
    let balancer = balancer_over(&[&slow], &[]);
    assert_eq!(ask(balancer.admin, "show sess"), "\n");
    let get = || {
        let http = balancer.http;
        thread::spawn(move || until_closed(http))
    };
    let waiting = [get(), get()];
    slow.wait_for(2);
    let listed = ask(balancer.admin, "show sess");
    let lines: Vec<&str> = listed.trim_end().lines().collect();
    assert_eq!(lines.len(), 2, "{listed}");
    for line in &lines {
        assert!(line.contains(": proto=tcpv4 src=127.0.0.1:"), "{line}");
        assert!(
            line.contains(" fe=localnodes be=nodes srv=s1 age="),
            "{line}"
        );
    }
    assert_eq!(ask(balancer.admin, "show sess older 1h"), "\n");
    let of_s1 = ask(balancer.admin, "show sess server nodes/s1");
    assert_eq!(of_s1.trim_end().lines().count(), 2, "{of_s1}");
    let (id, _) = lines[0].split_once(':').unwrap();
    let one = ask(balancer.admin, &format!("show sess {id}"));
    assert!(
        one.starts_with(&format!("{id}: ")) && one.lines().count() == 2,
        "{one}"
    );

    does(&balancer, &format!("shutdown session {id}"));
    let gone = "No such session (use 'show sess').";
    eventually("the session ends", || {
        (ask(balancer.admin, "show sess").lines().count() == 2).then_some(())
    });
    says(&balancer, &format!("shutdown session {id}"), gone);
    does(&balancer, "shutdown sessions server nodes/s1");
    for client in waiting {
        assert_eq!(client.join().unwrap(), "", "closed without an answer");
    }
    let log = eventually("both are logged", || {
        let said = balancer.process.said();
        (said.matches("KH").count() == 2).then_some(said)
    });
    assert!(log.contains(" nodes/s1 "), "{log}");
}

/// All that a request is answered until the connection is closed.
fn until_closed(http: SocketAddr) -> String {
    let mut stream = TcpStream::connect(http).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(15)))
        .unwrap();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let mut answer = String::new();
    // A reset is an end as well.
    stream.read_to_string(&mut answer).ok();
    answer
}

#[test]
fn a_disabled_frontend_refuses_connections_and_keeps_those_there_are() {
    let origin = Origin::answering(ok("hello"));
    let balancer = balancer_over(&[&origin], &[]);
    let mut before = balancer.connect();
    assert_eq!(before.get(&[]).unwrap().status, 200);
    says(
        &balancer,
        "enable frontend localnodes",
        "All sockets are already enabled.",
    );
    for _ in 0..2 {
        does(&balancer, "disable frontend localnodes");
        says(
            &balancer,
            "disable frontend localnodes",
            "All sockets are already disabled.",
        );
        eventually("connections are refused", || {
            TcpStream::connect(balancer.http).err()
        });
        assert_eq!(status(&balancer, "FRONTEND"), "STOP");
        assert_eq!(balancer.stats("/readyz").status, 503);
        let page = String::from_utf8(balancer.stats("/").body).unwrap();
        assert!(page.contains("Paused: "), "{page}");
        assert_eq!(before.get(&[]).unwrap().status, 200);
        does(&balancer, "enable frontend localnodes");
        eventually("connections are accepted", || {
            TcpStream::connect(balancer.http).ok()
        });
        // Both workers' listeners, whichever the kernel chooses.
        eventually("ten in a row are served", || {
            let served = |_| {
                let answer = balancer.connect().get(&[]);
                answer.is_ok_and(|answer| answer.status == 200)
            };
            (0..10).all(served).then_some(())
        });
        assert_eq!(status(&balancer, "FRONTEND"), "OPEN");
    }
}

#[test]
fn counters_start_from_zero_for_one_server_or_for_all() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let balancer = balancer_over(&[&one, &two], &[]);
    for _ in 0..4 {
        balancer.connect().get(&[]).unwrap();
    }
    let of = |server: &str, column: &str| {
        let rows = stat(balancer.admin, "");
        rows.iter().find(|row| row["svname"] == server).unwrap()[column].clone()
    };
    eventually("all four are counted", || {
        (of("s1", "hrsp_2xx") == "2").then_some(())
    });
    assert_eq!(of("s1", "smax"), "1");
    does(&balancer, "clear counters");
    assert_eq!(
        (of("s1", "stot"), of("s1", "smax")),
        ("2".into(), "0".into())
    );
    says(
        &balancer,
        "clear counters server nodes/s1",
        "Server counters cleared.",
    );
    assert_eq!(
        (of("s1", "stot"), of("s2", "stot")),
        ("0".into(), "2".into())
    );
    does(&balancer, "clear counters all");
    assert_eq!(
        (of("s2", "stot"), of("BACKEND", "stot")),
        ("0".into(), "0".into())
    );
    assert_eq!(of("FRONTEND", "req_tot"), "0");
    let metrics = String::from_utf8(balancer.stats("/metrics").body).unwrap();
    let series = "haproxy_frontend_http_requests_total{proxy=\"localnodes\"} 0\n";
    assert!(metrics.contains(series), "{metrics}");
    assert_eq!(
        balancer.connect().get(&[]).unwrap().status,
        200,
        "traffic goes on"
    );
    eventually("and is counted", || {
        (of("BACKEND", "stot") == "1").then_some(())
    });
    // Cleared by every worker before the next command of the same line.
    let cleared = ask(balancer.admin, "clear counters all;show stat nodes 2 -1");
    let row: Vec<&str> = cleared
        .trim_end()
        .lines()
        .last()
        .unwrap()
        .split(',')
        .collect();
    assert_eq!((row[1], row[7]), ("BACKEND", "0"), "{cleared}");
}

#[test]
fn figures_come_typed_and_as_json() {
    let origin = Origin::saying("one");
    let balancer = balancer_over(&[&origin], &[]);
    let typed = ask(balancer.admin, "show stat nodes 4 1 typed");
    assert!(
        typed.contains("\nS.4.1.17.status.1:SGPV:str:no check\n"),
        "{typed}"
    );
    assert!(
        typed
            .lines()
            .all(|line| line.is_empty() || line.starts_with("S.4.1."))
    );
    let json = ask(balancer.admin, "show stat json");
    let json: serde_json::Value = serde_json::from_str(json.trim_end()).unwrap();
    assert_eq!(
        json.as_array().unwrap().len(),
        3,
        "frontend, server, backend"
    );
    let info = ask(balancer.admin, "show info json");
    let info: serde_json::Value = serde_json::from_str(info.trim_end()).unwrap();
    assert_eq!(info[0]["value"]["value"], "HAProxy");
    let events = ask(balancer.admin, "show events timeline");
    assert!(
        events.is_empty() || !events.trim_end().contains("\n\n"),
        "{events}"
    );
}
