//! The runtime API beside that of a real HAProxy: the same lines to both, and
//! the same bytes back. Skipped, loudly, where no HAProxy is installed.
//!
//! Debian's is 2.6; where 3.5, which Tidings speaks as, says something else
//! than that, the texts are in the other tests.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use super::{
    admin::ask,
    support::{
        cluster::Balancer,
        eventually, free_port,
        haproxy::{self, HaProxy},
        own_address,
    },
};

/// A HAProxy with the same frontend, backend and servers as the balancer.
struct Theirs {
    _process: HaProxy,
    socket: PathBuf,
}

impl Theirs {
    fn start(test: &str) -> Option<Self> {
        if !haproxy::is_installed(test) {
            return None;
        }
        let name = format!("tidings-{test}-{}.sock", std::process::id());
        let socket = std::env::temp_dir().join(name);
        let process = HaProxy::start(&format!(
            "global\n stats socket {} mode 600 level admin\n\
             defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n\
             listen stats\n bind {}\n stats enable\n\
             frontend localnodes\n bind BIND\n default_backend nodes\n\
             backend nodes\n balance roundrobin\n server s1 127.0.0.1:1\n \
             server s2 127.0.0.1:2 weight 10\n",
            socket.display(),
            free_port(own_address()),
        ));
        eventually("HAProxy takes commands", || {
            UnixStream::connect(&socket).ok()
        });
        Some(Self {
            _process: process,
            socket,
        })
    }

    fn ask(&self, line: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        // At once: it may answer, and close, before the rest of a line is there.
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        fs::remove_file(&self.socket).ok();
    }
}

/// Servers that nobody needs to run.
const SERVERS: [&str; 4] = [
    "--server",
    "s1=127.0.0.1:1,check=off",
    "--server",
    "s2=127.0.0.1:2,check=off,weight=10",
];

fn both(test: &str) -> Option<(Balancer, Theirs)> {
    Some((Balancer::start(&SERVERS), Theirs::start(test)?))
}

/// Lines that both answer with the same bytes, in this order.
const SAME: &[&str] = &[
    "show cli level",
    "show servers state web",
    "show servers conn web",
    "show errors web",
    "show table",
    "show table web",
    "show map",
    "show map web",
    "show acl web",
    "show cache",
    "show tls-keys",
    "show tls-keys web",
    "show peers",
    "show peers web",
    "show resolvers web",
    "show ssl cert web",
    "show env TIDINGS_NO_SUCH_VARIABLE",
    "show sess 0x1234",
    "show stat web 4 -1",
    "get weight nodes/s1",
    "get weight nodes/s2",
    "get weight nodes",
    "get weight web/s1",
    "get weight nodes/s9",
    "get map web key",
    "get map web",
    "get acl web key",
    "get var proc.web",
    "add map web a b",
    "set map web a b",
    "set map web",
    "del map web a",
    "clear map web",
    "clear acl web",
    "clear table web",
    "clear table",
    "set table web key 1",
    "prepare map web",
    "set weight nodes/s1",
    "set weight web/s1 x",
    "set weight nodes/s1 257",
    "set weight nodes/s1 -1",
    "set weight nodes/s1 -5%",
    "set weight nodes/s1 50%",
    "set weight nodes/s1 1",
    "set server nodes",
    "set server web/s1 state ready",
    "set server nodes/s9 state x",
    "set server nodes/s1 state",
    "set server nodes/s1 state x",
    "set server nodes/s1 health",
    "set server nodes/s1 health x",
    "set server nodes/s1 health down",
    "set server nodes/s1 health up",
    "set server nodes/s1 agent up",
    "set server nodes/s1 agent-send x",
    "set server nodes/s1 check-port",
    "set server nodes/s1 addr",
    "set server nodes/s1 fqdn",
    "set server nodes/s1 fqdn web.example",
    "set server nodes/s1 ssl on",
    "set server nodes/s1 addr 127.0.0.3 port 3",
    "set server nodes/s1 addr 127.0.0.1 port 1",
    "set server nodes/s1 addr 127.0.0.4",
    "set server nodes/s1 addr 127.0.0.1",
    "set maxconn server nodes/s1",
    "set maxconn server nodes/s9 x",
    "set maxconn frontend localnodes",
    "set maxconn frontend web 3",
    "set maxconn global",
    "set rate-limit",
    "set rate-limit web 3",
    "set rate-limit connections",
    "set rate-limit connections global",
    "set rate-limit sessions global 0",
    "set timeout",
    "set timeout cli",
    "set timeout cli x",
    "set timeout cli 0",
    "set timeout cli 30s",
    "set timeout web 3",
    "set severity-output",
    "set severity-output web",
    "set severity-output number;get weight s1",
    "set severity-output string;get weight s1;get weight nodes/s1x",
    "set severity-output number;set server nodes/s1 addr 127.0.0.3;set server nodes/s1 addr 127.0.0.1",
    "set severity-output number;show errors web;show sess 0x1;show table web;show env TIDINGS_NO",
    "set severity-output number;show servers state web;set timeout web 1;show cli level",
    "enable agent nodes/s1",
    "disable agent nodes/s1",
    "enable health nodes/s1",
    "disable health nodes/s1",
    "enable health nodes",
    "enable agent nodes/s9",
    "disable server nodes/s1",
    "disable server nodes",
    "enable server nodes/s1",
    "disable frontend",
    "disable frontend web",
    "enable frontend web",
    "enable frontend localnodes",
    "disable frontend localnodes",
    "disable frontend localnodes",
    "enable frontend localnodes",
    "shutdown session",
    "shutdown session x",
    "shutdown session 0x1",
    "shutdown sessions server nodes/s1",
    "shutdown sessions server nodes",
    "add server nodes/s1 127.0.0.1:3",
    "add server nodes/s3",
    "clear counters",
    "clear counters all",
    "operator;show cli level",
    "user;operator;show cli level",
    "operator;set server nodes/s1 state ready;get weight nodes/s1",
    "user;show sess;show errors;show env HOME;clear counters;clear counters all",
    "user;shutdown session 0x1;disable frontend x;enable server x;set weight x",
    "operator;shutdown session 0x1;clear counters;clear counters all",
    "expert-mode;experimental-mode;expert-mode on;expert-mode",
    "show cli level;quit;show cli level",
    "quit",
    "get weight nodes/s\\;1;get  weight  nodes/s2 ;show cli level",
    "prompt\nshow cli level\nget weight nodes/s2;get weight s1\nquit",
    "prompt\nadd map web <<\na b\nc d\n\nshow cli level\nquit",
    "add map web <<\na b\n",
];

#[test]
fn the_same_line_gets_the_same_answer() {
    let Some((balancer, haproxy)) = both("the_same_line_gets_the_same_answer") else {
        return;
    };
    let differences: Vec<String> = SAME
        .iter()
        .map(|line| (line, ask(balancer.admin, line), haproxy.ask(line)))
        .filter(|(_, ours, theirs)| ours != theirs)
        .map(|(line, ours, theirs)| format!("{line:?}\n  ours {ours:?}\n theirs {theirs:?}"))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Some messages of 2.6 lack the line end that closes them, so that the empty
/// line behind them is missing as well. The texts are the same.
const SAME_BUT_FOR_LINE_ENDS: &[&str] = &[
    "set weight nodes/s1 x",
    "set maxconn server nodes/s1 x",
    "set maxconn server nodes/s1 3x",
    "set server nodes/s1 check-port 80",
    "set server nodes/s1 check-addr 127.0.0.1",
    "set server nodes/s1 agent-addr 127.0.0.1",
    "set server nodes/s1 agent-port 80",
    "show events web",
    "add server nodes",
    "add server web/s3 127.0.0.1:3",
    "del server nodes/s9",
    "del server nodes/s1",
    "add server nodes/s3 127.0.0.1:3 weight 5",
    "del server nodes/s3",
];

#[test]
fn every_answer_ends_with_an_empty_line_even_where_haproxys_does_not() {
    let Some((balancer, haproxy)) = both("every_answer_ends_with_an_empty_line") else {
        return;
    };
    for line in SAME_BUT_FOR_LINE_ENDS {
        let ours = ask(balancer.admin, line);
        assert_eq!(ours.trim_end(), haproxy.ask(line).trim_end(), "{line:?}");
        assert!(ours.ends_with("\n\n"), "{line:?}: {ours:?}");
    }
}

#[test]
fn a_servers_line_has_the_same_fields() {
    let Some((balancer, haproxy)) = both("a_servers_line_has_the_same_fields") else {
        return;
    };
    for line in ["set server nodes/s1 state drain", "disable server nodes/s2"] {
        assert_eq!(ask(balancer.admin, line), haproxy.ask(line));
    }
    let ours = ask(balancer.admin, "show servers state nodes");
    let theirs = haproxy.ask("show servers state nodes");
    assert_eq!(ours.lines().count(), theirs.lines().count());
    for (own, their) in ours.lines().zip(theirs.lines()) {
        // The time, and the check's state, which differs between versions
        // where there is no check.
        let shown = |line: &str| -> Vec<String> {
            let fields = line.split(' ').enumerate();
            let kept =
                fields.filter(|(index, _)| !(9..15).contains(index) || line.starts_with('#'));
            kept.map(|(_, field)| field.to_owned()).collect()
        };
        assert_eq!(shown(own), shown(their));
    }
}

/// What each field is by its name: tags and type.
fn natures(json: &str) -> HashMap<String, (serde_json::Value, serde_json::Value)> {
    let json: serde_json::Value = serde_json::from_str(json.trim_end()).unwrap();
    let fields = json.as_array().unwrap().iter();
    let fields = fields.flat_map(|row| match row.as_array() {
        Some(fields) => fields.clone(),
        None => vec![row.clone()],
    });
    let nature = |field: serde_json::Value| {
        let name = field["field"]["name"].as_str().unwrap().to_owned();
        (
            name,
            (field["tags"].clone(), field["value"]["type"].clone()),
        )
    };
    fields.map(nature).collect()
}

#[test]
fn each_field_is_of_the_same_nature() {
    let Some((balancer, haproxy)) = both("each_field_is_of_the_same_nature") else {
        return;
    };
    for (line, expected) in [("show info json", 20), ("show stat nodes 4 1 json", 35)] {
        let ours = natures(&ask(balancer.admin, line));
        let theirs = natures(&haproxy.ask(line));
        let mut compared = 0;
        for (name, nature) in &ours {
            if let Some(their) = theirs.get(name) {
                assert_eq!(nature, their, "{line}: {name}");
                compared += 1;
            }
        }
        assert!(compared >= expected, "{line}: only {compared} in common");
    }
    let names = |csv: &str| csv.lines().next().unwrap().to_owned();
    let theirs = names(&haproxy.ask("show stat"));
    let (theirs, _) = theirs.split_once(",-,").unwrap();
    assert!(names(&ask(balancer.admin, "show stat")).starts_with(theirs));
}
