//! What a wrong word on the command line gets: one line that says what to do.

use std::{
    net::TcpListener,
    process::{Command, Stdio},
};

use super::support::{cluster::Balancer, process::Process};

fn run(args: &[&str]) -> (i32, String) {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let mut process = Process::start(&args);
    let code = process.exit_code();
    // The reader may be a moment behind the end.
    let said = process.says("a message", |line| {
        (!line.is_empty()).then(|| line.to_owned())
    });
    assert_eq!(process.said().lines().count(), 1, "{}", process.said());
    (code, said)
}

#[test]
fn a_wrong_flag_names_the_right_one() {
    let (code, said) = run(&["serve", "--htp", "127.0.0.1:0"]);
    assert_eq!(code, 2);
    assert!(said.contains("--htp") && said.contains("--http"), "{said}");
}

#[test]
fn a_mistake_points_to_the_help_that_lists_the_flags() {
    for (args, help) in [
        (["agent", "--prot=1"], "tidings agent --help"),
        (["demo", "--prot=1"], "tidings demo --help"),
        (["top", "--stats=x"], "tidings top --help"),
        (["drain", "--admin=x"], "tidings drain --help"),
        (["--retries=-1", "--explain"], "tidings --help"),
    ] {
        let (code, said) = run(&args);
        assert_eq!(code, 2, "{said}");
        assert!(said.ends_with(&format!("(see `{help}`)")), "{said}");
    }
}

/// Runs a subcommand whose stdout nobody reads.
fn unread(args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command
        .args(args)
        .env_clear()
        .stdout(writer)
        .stderr(Stdio::piped());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn who_stops_reading_gets_no_message_and_what_was_asked_is_done() {
    let servers = ["--server", "s1=127.0.0.1:1", "--server", "s2=127.0.0.1:1"];
    let balancer = Balancer::start(&servers);
    let (stats, admin) = (balancer.stats.to_string(), balancer.admin.to_string());
    let quiet = (Some(0), String::new());
    for what in ["servers", "members", "events", "healthcheck"] {
        assert_eq!(unread(&[what, "--stats", &stats]), quiet, "{what}");
    }
    assert_eq!(unread(&["maint", "s1", "s2", "--admin", &admin]), quiet);
    balancer.wait_for(&[("s1", "maint"), ("s2", "maint")]);
}

#[test]
fn a_wrong_value_says_what_would_be_right() {
    for (args, hint) in [
        (vec!["serve", "--timeout-client", "5"], "500ms"),
        (vec!["serve", "--gossip-key", "abc"], "tidings keygen"),
        (vec!["serve", "--balance", "robin"], "roundrobin"),
        (vec!["serve", "--workers", "0"], "number of threads, 1 to"),
        (vec!["serve", "--retries", "-1"], "try again, 0 or more"),
        (vec!["serve", "--server", "s1"], "s1=10.0.0.5:3000"),
        (vec!["serve", "--http-redirect-https"], "give --https"),
        (vec!["--http-redirect-https"], "give --https"),
        (vec!["serve", "--server", "s1=a:1 s1=b:1"], "names s1 twice"),
        (vec!["serve", "--maxconn", "0"], "of 1 or more"),
        (vec!["serve", "--slowstart", "10"], "such as 10s"),
        (
            vec!["serve", "--server", "s1=a:1,slowstart=x"],
            "such as 10s",
        ),
        (
            vec!["agent", "--port", "1", "--tag", "slowstart=x"],
            "such as 10s",
        ),
        (vec!["agent", "--port", "0"], "port"),
        (vec!["agent"], "--port"),
        (vec!["agent", "--port", "1", "--tag", "a=b;c"], "printable"),
    ] {
        let (code, said) = run(&args);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(hint), "{args:?}: {said}");
    }
}

#[test]
fn an_announcement_that_is_too_large_is_told_before_the_app_starts() {
    let long = "x".repeat(64);
    let tags = ["a", "b", "c", "d"].map(|key| format!("{key}={long}"));
    let tags = tags.join(",");
    let (code, said) = run(&[
        "agent", "--port", "1", "--tag", &tags, "--", "echo", "started",
    ]);
    assert_eq!(code, 1);
    assert!(said.contains("shorten the tags"), "{said}");
}

#[test]
fn a_busy_port_names_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    let free = "127.0.0.1:0";
    let key = base64_key();
    for flag in ["--http", "--stats", "--gossip", "--admin"] {
        let at = |name| if name == flag { busy.as_str() } else { free };
        let (http, stats, gossip) = (at("--http"), at("--stats"), at("--gossip"));
        let admin = at("--admin");
        let (code, said) = run(&[
            "serve",
            "--http",
            http,
            "--stats",
            stats,
            "--gossip",
            gossip,
            "--admin",
            admin,
            "--gossip-key",
            &key,
        ]);
        assert_eq!(code, 1);
        assert!(said.contains(flag) && said.contains("in use"), "{said}");
    }
}

#[test]
fn a_join_name_that_does_not_resolve_is_one_line_and_not_the_end() {
    let balancer = Balancer::start(&["--join", "no-such-host.invalid"]);
    balancer.process.says("the name is told", |line| {
        (line.contains("no-such-host.invalid") && line.contains("WARN")).then_some(())
    });
    assert_eq!(
        balancer.connect().get(&[]).unwrap().status,
        503,
        "it serves all the same"
    );
    let said = balancer.process.said();
    let told = said
        .lines()
        .filter(|line| line.contains("does not resolve"));
    assert_eq!(told.count(), 1, "{said}");
}

#[test]
fn a_key_that_was_generated_is_taken() {
    let (code, key) = run(&["keygen"]);
    assert_eq!(code, 0);
    let balancer = Balancer::start(&["--gossip-key", &key]);
    assert!(!balancer.process.said().contains("gossip has no key"));
}

fn base64_key() -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode([7; 32])
}
