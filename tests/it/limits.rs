//! What happens when there is more to do than may be done: what waits, for how
//! long, and what those are told who cannot.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::Sender,
    },
    thread::{self, JoinHandle},
};

use super::{
    admin::{ask, stat},
    support::{
        client::{Answer, Client},
        cluster::{Balancer, Server, nobody},
        eventually,
        origin::{Gate, Origin, balancer_over, gate, ok},
    },
};

/// How many requests a server has at a time, and the most it ever had.
#[derive(Debug, Default)]
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// A server whose every answer waits for a word of the test, or for its end.
fn gated() -> (Origin, Sender<()>, Arc<Crowd>) {
    let (open, gate) = gate();
    let gate = Arc::new(gate);
    let (origin, crowd) = slow(move || Gate::wait(&gate));
    (origin, open, crowd)
}

fn slow(wait: impl Fn() + Send + Sync + 'static) -> (Origin, Arc<Crowd>) {
    let crowd = Arc::<Crowd>::default();
    let seen = Arc::clone(&crowd);
    let origin = Origin::start(move |visit| {
        let now = seen.now.fetch_add(1, SeqCst) + 1;
        seen.most.fetch_max(now, SeqCst);
        wait();
        seen.now.fetch_sub(1, SeqCst);
        visit.send(ok("done"))
    });
    (origin, crowd)
}

/// A row of the statistics.
fn row(balancer: &Balancer, name: &str) -> HashMap<String, String> {
    let rows = stat(balancer.admin, "");
    let mut rows = rows.into_iter().filter(|row| row["svname"] == name);
    rows.next().expect("the row")
}

#[track_caller]
fn wait_for(balancer: &Balancer, name: &str, column: &str, value: usize) {
    eventually(&format!("{column} of {name} is {value}"), || {
        (row(balancer, name)[column] == value.to_string()).then_some(())
    });
}

fn metric(balancer: &Balancer, name: &str) -> String {
    let metrics = String::from_utf8(balancer.stats("/metrics").body).unwrap();
    let mut lines = metrics.lines().filter_map(|line| line.rsplit_once(' '));
    let (_, value) = lines.find(|(series, _)| *series == name).expect(name);
    value.to_owned()
}

/// A request on a connection of its own.
fn request(balancer: &Balancer, path: &str, fields: &'static [&str]) -> JoinHandle<Answer> {
    let (mut client, path) = (balancer.connect(), path.to_owned());
    thread::spawn(move || client.request("GET", &path, fields).expect("an answer"))
}

/// Waits for a line of the access log that has this in it.
#[track_caller]
fn logged(balancer: &Balancer, what: &str) -> String {
    balancer
        .process
        .says(what, |line| line.contains(what).then(|| line.to_owned()))
}

#[test]
fn at_maxconn_new_connections_wait_until_one_closes_and_the_others_go_on() {
    let origin = Origin::saying("here");
    let balancer = balancer_over(&[&origin], &["--maxconn", "2"]);
    let mut two = [balancer.connect(), balancer.connect()];
    for client in &mut two {
        assert_eq!(client.get(&[]).unwrap().status, 200);
    }
    // Only now: of those who come together, any may be the first.
    let mut third = balancer.connect();
    third.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    for _ in 0..50 {
        for client in &mut two {
            assert_eq!(client.get(&[]).unwrap().status, 200);
        }
    }
    let frontend = row(&balancer, "FRONTEND");
    assert_eq!((&*frontend["scur"], &*frontend["slim"]), ("2", "2"));
    assert!(third.is_silent(), "it waits in the backlog");
    assert_eq!(origin.seen().len(), 102);
    let info = ask(balancer.admin, "show info");
    assert!(
        info.contains("\nMaxconn: 2\n") && info.contains("\nCurrConns: 2\n"),
        "{info}"
    );
    let limit = "haproxy_frontend_limit_sessions{proxy=\"localnodes\"}";
    for limit in [limit, "haproxy_process_max_connections"] {
        assert_eq!(metric(&balancer, limit), "2");
    }
    let [first, second] = two;
    drop(first);
    assert_eq!(third.answer(false).unwrap().status, 200);

    // And at another's word.
    let mut fourth = balancer.connect();
    fourth.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    assert_eq!(third.get(&[]).unwrap().status, 200);
    assert!(fourth.is_silent());
    let too_many = ask(balancer.admin, "set maxconn global 4000000000");
    assert_eq!(too_many, "Value out of range.\n\n");
    assert_eq!(
        ask(balancer.admin, "set maxconn frontend localnodes 1"),
        "\n"
    );
    assert_eq!(ask(balancer.admin, "set maxconn global 3"), "\n");
    assert_eq!(row(&balancer, "FRONTEND")["slim"], "1");
    assert!(fourth.is_silent());
    assert_eq!(
        ask(balancer.admin, "set maxconn frontend localnodes 0"),
        "\n"
    );
    assert_eq!(fourth.answer(false).unwrap().status, 200);
    drop(second);
}

#[test]
fn a_source_with_too_many_connections_has_the_next_closed_and_counted() {
    let origin = Origin::saying("here");
    let balancer = balancer_over(&[&origin], &["--maxconn-per-source", "2"]);
    let mut two = [balancer.connect(), balancer.connect()];
    for client in &mut two {
        assert_eq!(client.get(&[]).unwrap().status, 200);
    }
    let mut third = balancer.connect();
    assert!(third.get(&[]).is_err(), "it is closed");
    for client in &mut two {
        assert_eq!(client.get(&[]).unwrap().status, 200);
    }
    assert_eq!(row(&balancer, "FRONTEND")["dcon"], "1");
    let denied = "haproxy_frontend_denied_connections_total{proxy=\"localnodes\"}";
    assert_eq!(metric(&balancer, denied), "1");
    drop(two);
    eventually("its connections are gone", || {
        balancer.connect().get(&[]).ok().map(|_| ())
    });
}

#[test]
fn a_source_that_asks_too_often_gets_429_and_may_ask_again_on_the_same_connection() {
    let origin = Origin::saying("here");
    let balancer = balancer_over(&[&origin], &["--rate-limit", "1:3"]);
    let mut client = balancer.connect();
    for _ in 0..3 {
        assert_eq!(client.get(&[]).unwrap().status, 200);
    }
    // A second may have passed meanwhile, but not one a request.
    let refused = eventually("the burst is over", || {
        let answer = client.get(&[]).unwrap();
        (answer.status == 429).then_some(answer)
    });
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("connection"), None);
    let page = String::from_utf8(refused.body).unwrap();
    assert!(
        page.starts_with("<html><body><h1>429 Too Many Requests</h1>\n"),
        "{page}"
    );
    let line = logged(&balancer, " 429 ");
    assert!(
        line.contains("nodes/<NOSRV>") && line.contains(" PR"),
        "{line}"
    );
    eventually("a token is there again", || {
        (client.get(&[]).unwrap().status == 200).then_some(())
    });
    let denied: usize = row(&balancer, "FRONTEND")["dreq"].parse().unwrap();
    assert!(denied > 0);
}

#[test]
fn a_server_never_has_more_than_its_maxconn_and_the_others_are_served_in_their_order() {
    let (origin, open, crowd) = gated();
    let server = format!("{},maxconn=2", origin.named("s1"));
    let balancer = Balancer::start(&["--server", &server, "--timeout-queue", "1m"]);
    let mut answers = Vec::new();
    for number in 0..20 {
        answers.push(request(&balancer, &format!("/{number}"), &[]));
        if number < 2 {
            origin.wait_for(number + 1);
        } else {
            wait_for(&balancer, "BACKEND", "qcur", number - 1);
        }
    }
    assert_eq!(origin.seen().len(), 2);
    let s1 = row(&balancer, "s1");
    assert_eq!(
        (&*s1["scur"], &*s1["slim"], &*s1["qlimit"]),
        ("2", "2", "1024")
    );
    let queued = "haproxy_backend_current_queue{proxy=\"nodes\"}";
    assert_eq!(metric(&balancer, queued), "18");
    for answered in 1..=20 {
        open.send(()).unwrap();
        if answered <= 18 {
            origin.wait_for(2 + answered);
        }
    }
    for answer in answers {
        assert_eq!(answer.join().unwrap().status, 200);
    }
    assert_eq!(crowd.most.load(SeqCst), 2);
    let paths: Vec<String> = (origin.seen().iter())
        .map(|seen| seen.first_line().split(' ').nth(1).unwrap().to_owned())
        .collect();
    let in_turn: Vec<String> = (0..20).map(|number| format!("/{number}")).collect();
    assert_eq!(paths, in_turn);
    let backend = row(&balancer, "BACKEND");
    assert_eq!((&*backend["qcur"], &*backend["qmax"]), ("0", "18"));
    let last = logged(&balancer, "\"GET /19 ");
    assert!(last.contains(" 0/17 \"GET"), "{last}");
}

#[test]
fn whoever_waits_too_long_or_finds_the_queue_full_is_told_to_try_again() {
    let (origin, open, _) = gated();
    let flags = [
        "--server-maxconn",
        "1",
        "--maxqueue",
        "1",
        "--timeout-queue",
        "300ms",
    ];
    let balancer = balancer_over(&[&origin], &flags);
    let first = request(&balancer, "/first", &[]);
    origin.wait_for(1);
    let waits = request(&balancer, "/waits", &[]);
    wait_for(&balancer, "BACKEND", "qcur", 1);
    let full = request(&balancer, "/full", &[]).join().unwrap();
    let late = waits.join().unwrap();
    for answer in [&full, &late] {
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (503, Some("1"))
        );
    }
    assert!(logged(&balancer, "/full").contains(" SQ"));
    assert!(logged(&balancer, "/waits").contains(" sQ"));
    wait_for(&balancer, "BACKEND", "qcur", 0);
    open.send(()).unwrap();
    assert_eq!(first.join().unwrap().status, 200);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_client_that_goes_leaves_the_queue_and_the_next_one_is_served() {
    let (origin, open, _) = gated();
    let balancer = balancer_over(&[&origin], &["--server-maxconn", "1"]);
    let first = request(&balancer, "/first", &[]);
    origin.wait_for(1);
    let mut gone = balancer.connect();
    gone.send("GET /gone HTTP/1.1\r\nhost: test\r\n\r\n")
        .unwrap();
    wait_for(&balancer, "BACKEND", "qcur", 1);
    let next = request(&balancer, "/next", &[]);
    wait_for(&balancer, "BACKEND", "qcur", 2);
    drop(gone);
    wait_for(&balancer, "BACKEND", "qcur", 1);
    for answer in [first, next] {
        open.send(()).unwrap();
        assert_eq!(answer.join().unwrap().status, 200);
    }
    assert_eq!(origin.seen().len(), 2);
    assert!(logged(&balancer, "/gone").contains(" CQ"));
}

#[test]
fn users_wait_for_their_own_server_and_choose_another_once_it_is_taken_out() {
    let (one, open, _) = gated();
    let other = Origin::saying("other");
    let balancer = balancer_over(&[&one, &other], &["--server-maxconn", "1"]);
    let first = request(&balancer, "/", &["cookie: SERVERID=s1"]);
    one.wait_for(1);
    let user = request(&balancer, "/", &["cookie: SERVERID=s1"]);
    wait_for(&balancer, "s1", "qcur", 1);
    let stranger = request(&balancer, "/", &[]).join().unwrap();
    assert_eq!(stranger.sticky_cookie(), Some("SERVERID=s2"));
    assert_eq!(row(&balancer, "s1")["qcur"], "1");
    assert_eq!(ask(balancer.admin, "set server nodes/s1 state maint"), "\n");
    let moved = user.join().unwrap();
    assert_eq!(
        (moved.status, moved.sticky_cookie()),
        (200, Some("SERVERID=s2"))
    );
    open.send(()).unwrap();
    assert_eq!(first.join().unwrap().status, 200);
}

#[test]
fn a_request_that_waits_is_none_of_the_server_that_refused_it() {
    let (origin, open, _) = gated();
    let dead = format!("dead={},check=off", nobody().1);
    let flags = ["--server-maxconn", "1", "--observe", "off", "--server"];
    let balancer = balancer_over(&[&origin], &[&flags[..], &[&dead]].concat());
    let answers: Vec<_> = (0..5).map(|_| request(&balancer, "/", &[])).collect();
    origin.wait_for(1);
    wait_for(&balancer, "BACKEND", "qcur", 4);
    assert_eq!(row(&balancer, "dead")["scur"], "0");
    ask(balancer.admin, "shutdown sessions server nodes/dead");
    for _ in &answers {
        open.send(()).unwrap();
    }
    for answer in answers {
        assert_eq!(answer.join().unwrap().status, 200);
    }
}

#[test]
fn a_server_that_joins_and_a_limit_that_is_raised_take_from_the_queue() {
    let (one, open, crowd) = gated();
    let balancer = balancer_over(&[&one], &["--server-maxconn", "1", "--timeout-queue", "1m"]);
    let first = request(&balancer, "/", &[]);
    one.wait_for(1);
    let waiting: Vec<_> = (0..4).map(|_| request(&balancer, "/", &[])).collect();
    wait_for(&balancer, "BACKEND", "qcur", 4);
    assert_eq!(ask(balancer.admin, "set maxconn server nodes/s1 2"), "\n");
    one.wait_for(2);
    wait_for(&balancer, "BACKEND", "qcur", 3);
    let joining = Server::start_with("s2", &balancer.gossip.to_string(), &["--maxconn", "8"]);
    wait_for(&balancer, "BACKEND", "qcur", 0);
    assert_eq!(row(&balancer, "s2")["slim"], "8");
    for _ in 0..2 {
        open.send(()).unwrap();
    }
    let answers = waiting.into_iter().chain([first]);
    let answers: Vec<Answer> = answers.map(|answer| answer.join().unwrap()).collect();
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(crowd.most.load(SeqCst), 2);
    assert_eq!(ask(balancer.admin, "set maxconn server nodes/s1 0"), "\n");
    assert_eq!(row(&balancer, "s1")["slim"], "");
    joining.stop();
}

#[test]
fn with_fewer_descriptors_than_clients_those_who_are_in_go_on_and_the_rest_follow() {
    let origin = Origin::saying("here");
    let server = origin.named("s1");
    let balancer = Balancer::start_with_descriptors(96, &["--server", &server]);
    let info = ask(balancer.admin, "show info");
    assert!(
        info.contains("\nUlimit-n: 96\n") && info.contains("\nMaxconn: 16\n"),
        "{info}"
    );
    let mut clients: Vec<Client> = (0..60).map(|_| balancer.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    }
    wait_for(&balancer, "FRONTEND", "scur", 16);
    // Whoever is in has its answer, and may go on for as long as it likes.
    let (mut inside, mut outside) = (Vec::new(), clients);
    eventually("those who are in are answered", || {
        let (more, rest) = outside.drain(..).partition(|client| !client.is_silent());
        outside = rest;
        inside.extend::<Vec<Client>>(more);
        (inside.len() == 16).then_some(())
    });
    for client in &mut inside {
        assert_eq!(client.answer(false).unwrap().status, 200);
    }
    for _ in 0..10 {
        for client in &mut inside {
            assert_eq!(client.get(&[]).unwrap().status, 200);
        }
    }
    drop(inside);
    // In whatever order they come in: each leaves once it is answered.
    eventually("the rest are answered", || {
        let (answered, rest) = outside.drain(..).partition(|client| !client.is_silent());
        outside = rest;
        for mut client in Vec::from_iter::<Vec<Client>>(answered) {
            assert_eq!(client.answer(false).unwrap().status, 200);
        }
        outside.is_empty().then_some(())
    });
    assert_eq!(balancer.connect().get(&[]).unwrap().status, 200);
}

#[test]
fn twenty_thousand_requests_through_a_queue_with_a_server_killed_in_the_middle() {
    let balancer = Balancer::start(&["--server-maxconn", "2", "--timeout-queue", "30s"]);
    let names = ["s1", "s2", "s3"];
    let mut servers: Vec<Server> = names.map(|name| Server::start(name, &balancer)).into();
    balancer.wait_for(&names.map(|name| (name, "up")));
    let (sent, failed) = (
        Arc::<AtomicUsize>::default(),
        Arc::<Mutex<Vec<String>>>::default(),
    );
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let (addr, sent, failed) = (balancer.http, Arc::clone(&sent), Arc::clone(&failed));
            thread::spawn(move || {
                let mut client = Client::connect(addr).unwrap();
                for _ in 0..1000 {
                    match client.get(&[]) {
                        Ok(answer) if answer.status == 200 => {}
                        Ok(answer) => failed.lock().unwrap().push(answer.status.to_string()),
                        Err(err) => {
                            failed.lock().unwrap().push(err.to_string());
                            client = Client::connect(addr).unwrap();
                        }
                    }
                    sent.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    eventually("the load is half way", || {
        (sent.load(SeqCst) >= 8000).then_some(())
    });
    servers.remove(1).kill();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(sent.load(SeqCst), 20_000);
    assert_eq!(*failed.lock().unwrap(), [] as [String; 0]);
    // An exchange ends a moment after its client has the answer.
    for name in ["s1", "s3", "BACKEND"] {
        eventually("nobody is there or waits", || {
            let row = row(&balancer, name);
            (row["scur"] == "0" && row["qcur"] == "0").then_some(())
        });
    }
    for name in ["s1", "s3"] {
        let row = row(&balancer, name);
        assert!(row["smax"].parse::<u32>().unwrap() <= 2, "{row:?}");
    }
    let backend = row(&balancer, "BACKEND");
    assert_ne!(backend["qmax"], "0", "somebody waited");
}

#[test]
fn too_large_a_maxconn_is_refused_at_start() {
    let mut process = super::support::process::Process::start(&[
        "serve".to_owned(),
        "--maxconn".to_owned(),
        "4000000000".to_owned(),
    ]);
    assert_ne!(process.exit_code(), 0);
    assert!(
        process.said().contains("the file limit suffices for"),
        "{}",
        process.said()
    );
}
