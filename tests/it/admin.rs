//! The runtime API as scripts and people use it, over real sockets.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use rustix::process::Signal;

use super::support::{
    cluster::{Balancer, cluster},
    process::Process,
};

/// Two servers that nobody needs to run.
const STATIC: [&str; 4] = [
    "--server",
    "s1=127.0.0.1:1,check=off",
    "--server",
    "s2=127.0.0.1:2,check=off,weight=10",
];

/// A balancer that has servers and no cluster.
fn balancer(flags: &[&str]) -> Balancer {
    Balancer::start(&[&STATIC, flags].concat())
}

/// What `echo line | socat` gets: all that is answered until the end.
pub(crate) fn ask(addr: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The rows of `show stat` as haproxyadmin and Ansible read them.
pub(crate) fn stat(addr: SocketAddr, which: &str) -> Vec<HashMap<String, String>> {
    let answer = ask(addr, &format!("show stat {which}"));
    assert!(
        answer.ends_with(",\n\n"),
        "one empty line at the end: {answer:?}"
    );
    let mut lines = answer.trim_end().lines();
    let header = lines.next().unwrap().strip_prefix("# ").unwrap();
    let names: Vec<&str> = header.split(',').collect();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells.len(), names.len(), "{line}");
        let pairs = names.iter().zip(cells);
        pairs
            .map(|(name, cell)| ((*name).to_owned(), cell.to_owned()))
            .collect()
    };
    lines.map(row).collect()
}

/// Runs a subcommand to its end.
fn tidings(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDINGS_")) {
        command.env_remove(name);
    }
    command.args(args).output().unwrap()
}

#[track_caller]
fn says(output: &Output, code: i32) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
    if code == 0 { stdout } else { stderr }.into_owned()
}

/// A path for a socket, short enough for one, that no other test has.
pub(crate) fn socket_path(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tidings-{test}-{}.sock", std::process::id()));
    std::fs::remove_file(&path).ok();
    path
}

#[test]
fn a_line_is_answered_and_the_connection_closes() {
    let balancer = balancer(&[]);
    let info = ask(balancer.admin, "show info");
    assert!(info.starts_with("Name: HAProxy\nVersion: "), "{info}");
    assert!(info.contains("\nProcess_num: 1\n"), "{info}");
    assert!(info.contains("\nnode: ha\n"), "{info}");
    assert!(
        info.ends_with("\n\n") && !info.trim_end().contains("\n\n"),
        "{info}"
    );
    assert_eq!(ask(balancer.admin, "show backend"), "# name\nnodes\n\n");
    assert_eq!(
        ask(balancer.admin, "get weight nodes/s2"),
        "10 (initial 10)\n\n"
    );
}

#[test]
fn each_command_of_a_chain_ends_with_an_empty_line() {
    let balancer = balancer(&[]);
    assert_eq!(
        ask(
            balancer.admin,
            "show cli level; get weight nodes/s1;show backend;"
        ),
        "admin\n\n1 (initial 1)\n\n# name\nnodes\n\n"
    );
    assert_eq!(
        ask(balancer.admin, r"get weight nodes/s\;1"),
        "No such server.\n\n"
    );
    assert_eq!(ask(balancer.admin, ""), "\n");
}

#[test]
fn a_second_line_is_not_looked_at_and_does_not_cost_the_first_its_answer() {
    let balancer = balancer(&[]);
    let lines = format!("show cli level\nshow backend\n{}", "x".repeat(50_000));
    assert_eq!(ask(balancer.admin, &lines), "admin\n\n");
}

#[test]
fn errors_are_in_haproxys_words() {
    let balancer = balancer(&[]);
    for (line, error) in [
        ("get weight s1", "Require 'backend/server'."),
        ("get weight web/s1", "No such backend."),
        ("set server nodes/s9 state drain", "No such server."),
        (
            "set server nodes/s1 state up",
            "'set server <srv> state' expects 'ready', 'drain' and 'maint'.",
        ),
        (
            "set weight nodes/s1 300",
            "Absolute weight can only be between 0 and 256 inclusive.",
        ),
        ("show stat web 4 -1", "No such proxy."),
        ("show servers state web", "Can't find backend."),
        (
            "set severity-output number;get weight s1",
            "\n[3]: Require 'backend/server'.",
        ),
    ] {
        assert_eq!(ask(balancer.admin, line), format!("{error}\n\n"), "{line}");
    }
    let unknown = ask(balancer.admin, "foo bar");
    let first = "Unknown command: 'foo'. Please enter one of the following commands only:\n";
    assert!(unknown.starts_with(first), "{unknown}");
    assert!(unknown.contains("\n  show stat "), "{unknown}");
    let near = ask(balancer.admin, "show foo");
    assert!(
        near.contains("'show', but maybe one of the following"),
        "{near}"
    );
    let long = ask(balancer.admin, &"x".repeat(20_000));
    assert!(long.starts_with("Line too long"), "{long}");
}

#[test]
fn rows_can_be_read_as_haproxys_clients_read_them() {
    let (balancer, _servers) = cluster(2);
    balancer.connect().get(&[]).unwrap();
    let rows = stat(balancer.admin, "");
    let names: Vec<&str> = rows.iter().map(|row| row["svname"].as_str()).collect();
    assert_eq!(names, ["FRONTEND", "s1", "s2", "BACKEND"]);
    assert_eq!(rows[1]["pxname"], "nodes");
    assert_eq!(rows[1]["status"], "UP");
    assert_eq!(rows[3]["stot"], "1");

    let servers = stat(balancer.admin, "4 4 -1");
    let names: Vec<&str> = servers.iter().map(|row| row["svname"].as_str()).collect();
    assert_eq!(names, ["s1", "s2"]);
    let one = stat(balancer.admin, &format!("nodes 4 {}", servers[1]["sid"]));
    assert_eq!(one[0]["svname"], "s2");
}

#[test]
fn servers_have_a_line_of_25_fields() {
    let balancer = balancer(&[]);
    let states = ask(balancer.admin, "show servers state nodes");
    let mut lines = states.lines();
    assert_eq!(lines.next(), Some("1"));
    assert!(lines.next().unwrap().starts_with("# be_id be_name srv_id"));
    let s2: Vec<&str> = lines.nth(1).unwrap().split(' ').collect();
    assert_eq!(s2.len(), 25);
    assert_eq!(
        s2[..9],
        ["4", "nodes", "2", "s2", "127.0.0.1", "2", "0", "10", "10"]
    );
}

#[test]
fn a_prompt_keeps_the_connection_until_quit() {
    let balancer = balancer(&[]);
    let mut stream = TcpStream::connect(balancer.admin).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut until_prompt = |stream: &mut TcpStream, line: &str| {
        writeln!(stream, "{line}").unwrap();
        let mut said = Vec::new();
        reader.read_until(b'>', &mut said).unwrap();
        reader.read_until(b' ', &mut Vec::new()).unwrap();
        String::from_utf8(said).unwrap()
    };
    assert_eq!(until_prompt(&mut stream, "prompt"), "\n>");
    assert_eq!(until_prompt(&mut stream, "show cli level"), "admin\n\n>");
    assert_eq!(
        until_prompt(&mut stream, "show backend"),
        "# name\nnodes\n\n>"
    );
    writeln!(stream, "quit").unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn a_user_may_look_and_not_touch() {
    let balancer = balancer(&["--admin-level", "user"]);
    let denied = "Permission denied\n\n";
    assert_eq!(ask(balancer.admin, "show cli level"), "user\n\n");
    assert_eq!(
        ask(balancer.admin, "set server nodes/s1 state maint"),
        denied
    );
    assert_eq!(ask(balancer.admin, "enable server nodes/s1"), denied);
    assert_eq!(ask(balancer.admin, "show env"), denied);
    assert!(!ask(balancer.admin, "help").contains("set server"));
    let admin = balancer.admin.to_string();
    let said = says(&tidings(&["drain", "s1", "--admin", &admin]), 1);
    assert!(said.contains("--admin-level admin"), "{said}");
}

#[test]
fn an_operator_sees_the_environment_without_our_secrets() {
    let balancer = balancer(&["--admin-level", "operator"]);
    assert!(ask(balancer.admin, "show env PATH").starts_with("PATH="));
    assert_eq!(
        ask(balancer.admin, "disable server nodes/s1"),
        "Permission denied\n\n"
    );
}

#[test]
fn a_unix_socket_takes_commands_and_outlives_a_kill() {
    let path = socket_path("outlives");
    let address = format!("unix:{}", path.display());
    // Killed, it leaves its file behind; told to end, it takes it along.
    for signal in [Signal::KILL, Signal::TERM] {
        let mut balancer = balancer(&["--admin", &address]);
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"show cli level\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "admin\n\n");
        let listed = says(&tidings(&["weight", "s9", "1", "--admin", &address]), 1);
        assert!(listed.contains("nodes/s1, nodes/s2"), "{listed}");
        balancer.process.signal(signal);
        balancer.process.wait();
        assert_eq!(path.exists(), signal == Signal::KILL, "{signal:?}");
    }
}

#[test]
fn the_runtime_api_can_be_off() {
    // The helper's own --admin stands first, and off goes with no other.
    let args = [
        "serve",
        "--http",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--admin",
        "off",
    ];
    let said = says(&tidings(&args), 2);
    assert!(said.contains("--admin off and an address"), "{said}");
    let mut args = vec!["serve", "--admin", "off"];
    for flag in ["--http", "--stats", "--gossip"] {
        args.extend([flag, "127.0.0.1:0"]);
    }
    let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    let process = Process::start(&args);
    let line = process.says("it takes requests", |line| {
        line.contains("takes requests on").then(|| line.to_owned())
    });
    assert!(line.ends_with("and takes no commands"), "{line}");
    process.signal(Signal::KILL);
}

#[test]
fn subcommands_say_in_one_line_what_is_wrong() {
    let nobody = "127.0.0.1:1";
    for (args, code, hint) in [
        (
            vec!["drain", "s1", "--admin", nobody],
            1,
            "no load balancer answers at 127.0.0.1:1",
        ),
        (
            vec!["drain", "s1", "--admin", nobody],
            1,
            "give its address with --admin",
        ),
        (
            vec!["servers", "--stats", nobody],
            1,
            "give its address with --stats",
        ),
        (vec!["drain"], 2, "<NAME>"),
        (vec!["weight", "s1", "300"], 2, "0 to 256"),
        (vec!["members", "--stats", "1936"], 2, "127.0.0.1:1936"),
    ] {
        let said = says(&tidings(&args), code);
        assert!(said.contains(hint), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn servers_and_members_are_listed_as_a_table_or_as_json() {
    let (balancer, _servers) = cluster(2);
    let stats = balancer.stats.to_string();
    let table = says(&tidings(&["servers", "--stats", &stats]), 0);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("NAME  ADDRESS"), "{table}");
    assert_eq!(lines[0].find("STATUS"), lines[1].find("up"), "{table}");

    let json = says(&tidings(&["servers", "--json", "--stats", &stats]), 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["servers"][1]["name"], "s2");

    let members = says(&tidings(&["members", "--stats", &stats]), 0);
    let ha = members
        .lines()
        .find(|line| line.starts_with("ha "))
        .unwrap();
    assert!(ha.contains("balancer") && ha.contains("alive"), "{members}");
}

#[test]
fn a_password_on_the_statistics_is_asked_for_by_its_flag() {
    let balancer = balancer(&["--stats-auth", "me:secret"]);
    let stats = balancer.stats.to_string();
    let said = says(&tidings(&["servers", "--stats", &stats]), 1);
    assert!(said.contains("--stats-auth"), "{said}");
    let args = ["servers", "--stats", &stats, "--stats-auth", "me:secret"];
    assert!(says(&tidings(&args), 0).starts_with("NAME"));
}

#[test]
fn steering_from_the_shell_says_what_it_did() {
    let balancer = balancer(&[]);
    let admin = balancer.admin.to_string();
    let said = says(&tidings(&["drain", "s1", "nodes/s2", "--admin", &admin]), 0);
    assert_eq!(said, "nodes/s1: state drain\nnodes/s2: state drain\n");
    let said = says(&tidings(&["ready", "s1", "--admin", &admin]), 0);
    assert_eq!(said, "nodes/s1: state ready\n");
    let said = says(&tidings(&["weight", "s2", "50%", "--admin", &admin]), 0);
    assert_eq!(said, "nodes/s2: weight 50%\n");
    let said = says(
        &tidings(&["maint", "s1", "s2", "--json", "--admin", &admin]),
        0,
    );
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(json["servers"][1]["server"], "nodes/s2");
    assert_eq!(json["servers"][1]["state"], "maint");
    let said = says(
        &tidings(&["weight", "s1", "3", "--json", "--admin", &admin]),
        0,
    );
    assert_eq!(
        said,
        "{\"servers\":[{\"server\":\"nodes/s1\",\"weight\":\"3\"}]}\n"
    );
    assert_eq!(ask(balancer.admin, "set server nodes/s1 state ready"), "\n");
}

#[test]
fn a_page_in_a_browser_cannot_hide_commands_in_a_request() {
    let balancer = balancer(&[]);
    let hidden = "POST /;prompt;x HTTP/1.1\r\nHost: 127.0.0.1:9999\r\nOrigin: http://evil.example\r\n\
                  Content-Type: text/plain\r\nContent-Length: 31\r\n\r\n\
                  set server nodes/s1 state maint";
    assert_eq!(ask(balancer.admin, hidden), "", "hung up on");
    let states = ask(balancer.admin, "show servers state");
    let s1 = states.lines().find(|line| line.contains(" s1 ")).unwrap();
    // srv_admin_state: nobody has asked for maintenance.
    assert_eq!(s1.split(' ').nth(6), Some("0"), "{s1}");
}
