//! The statistics page in a real browser.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use super::support::{
    announce,
    cluster::{Balancer, Server},
    eventually,
};

/// The script that sits at the page.
struct Operator {
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Operator {
    /// `None` where there is no browser to sit at.
    fn at(balancer: &Balancer) -> Option<Self> {
        let there = |program| Command::new(program).arg("--version").output().is_ok();
        if !there("chromium") || !there("python3") {
            announce("SKIPPED the page in a browser: it takes chromium and python3");
            return None;
        }
        let mut process = Command::new("python3")
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/browser/page.py"
            ))
            .arg(format!("http://{}/", balancer.stats))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Some(Self { process, lines })
    }

    /// Waits until that holds on the page. The script has deadlines of its
    /// own, and says on stderr which it missed.
    fn sees(&mut self, what: &str) {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), what, "see the script's message above");
    }

    /// Lets it go on.
    fn go_on(&mut self) {
        writeln!(self.process.stdin.as_mut().unwrap()).unwrap();
    }
}

/// A server's status as `show stat` has it.
fn status(balancer: &Balancer, server: &str) -> Option<String> {
    let mut stream = TcpStream::connect(balancer.admin).unwrap();
    writeln!(stream, "show stat").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let start = format!("nodes,{server},");
    let row = answer.lines().find(|line| line.starts_with(&start))?;
    row.split(',').nth(17).map(str::to_owned)
}

#[track_caller]
fn wait_for(balancer: &Balancer, server: &str, expected: &str) {
    eventually("show stat agrees", || {
        (status(balancer, server).as_deref() == Some(expected)).then_some(())
    });
}

#[test]
fn an_operator_sees_servers_come_and_go_and_steers_them_without_a_reload() {
    let balancer = Balancer::start(&["--stats-admin"]);
    let _first = Server::start("s1", &balancer);
    let second = Server::start("s2", &balancer);
    balancer.wait_for(&[("s1", "up"), ("s2", "up")]);
    let Some(mut operator) = Operator::at(&balancer) else {
        return;
    };
    operator.sees("open");
    let _third = Server::start("s3", &balancer);
    operator.go_on();
    operator.sees("joined");
    let _dead = second.kill();
    operator.go_on();
    operator.sees("died");
    operator.go_on();
    operator.sees("drained");
    wait_for(&balancer, "s1", "DRAIN");
    operator.go_on();
    operator.sees("undone");
    wait_for(&balancer, "s1", "UP");
    operator.go_on();
    operator.sees("out");
    for server in ["s1", "s3"] {
        wait_for(&balancer, server, "MAINT");
    }
    operator.go_on();
    operator.sees("back");
    wait_for(&balancer, "s3", "UP");
    operator.go_on();
    assert!(operator.process.wait().unwrap().success());
}
