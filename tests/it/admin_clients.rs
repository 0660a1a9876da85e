//! The runtime API through the clients that people use with HAProxy's, each as
//! it is published. One that is not installed is skipped, loudly.

use std::{path::PathBuf, process::Command};

use super::support::{announce, cluster::Balancer};

/// A balancer with two servers, and the directory of its socket.
struct Subject {
    balancer: Balancer,
    dir: PathBuf,
}

impl Subject {
    fn start(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("tidings-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let socket = format!("unix:{}/ha.sock", dir.display());
        let balancer = Balancer::start(&[
            "--admin",
            &socket,
            "--server",
            "s1=127.0.0.1:1,check=off",
            "--server",
            "s2=127.0.0.1:2,check=off,weight=10",
        ]);
        Self { balancer, dir }
    }

    fn socket(&self) -> String {
        self.dir.join("ha.sock").display().to_string()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// The Python to run clients with, if it has that module.
fn python_with(module: &str) -> Option<String> {
    let python = std::env::var("TIDINGS_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let import = format!("import {module}");
    let output = Command::new(&python).args(["-c", &import]).output();
    if output.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    announce(&format!(
        "SKIPPED: a client because {python} has no module {module}; see tests/clients/README.md"
    ));
    None
}

/// Runs a client of tests/clients to its good end.
#[track_caller]
fn run(python: &str, script: &str, arguments: &[&str]) {
    let script = format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python)
        .arg(script)
        .args(arguments)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}{stderr}");
    assert_eq!(stdout.trim_end(), "ok", "{stderr}");
}

#[test]
fn socat_asks_over_tcp_and_over_the_socket() {
    if Command::new("socat").arg("-V").output().is_err() {
        return announce("SKIPPED: socat, which is not installed");
    }
    let subject = Subject::start("socat");
    let tcp = format!("TCP:{}", subject.balancer.admin);
    let unix = format!("UNIX-CONNECT:{}", subject.socket());
    let shell = |line: &str| {
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for address in [tcp, unix] {
        let ask = |line: &str| shell(&format!("echo '{line}' | socat - {address}"));
        assert_eq!(ask("show cli level"), "admin\n\n");
        assert_eq!(ask("set server nodes/s1 state drain"), "\n");
        assert_eq!(
            ask("get weight nodes/s2; show backend"),
            "10 (initial 10)\n\n# name\nnodes\n\n"
        );
        assert_eq!(ask("set server nodes/s1 state ready"), "\n");
        let words = shell(&format!(
            "printf 'prompt\\nshow cli level\\nquit\\n' | socat - {address}"
        ));
        assert_eq!(words, "\n> admin\n\n> ");
        let up = shell(&format!(
            "echo 'show stat' | socat - {address} | cut -d, -f2,18 | grep -c 'no check'"
        ));
        assert_eq!(up, "2\n");
    }
}

#[test]
fn haproxyadmin_reads_and_steers() {
    let Some(python) = python_with("haproxyadmin") else {
        return;
    };
    let subject = Subject::start("haproxyadmin");
    run(
        &python,
        "use_haproxyadmin.py",
        &[&subject.dir.display().to_string()],
    );
}

#[test]
fn ansibles_module_enables_disables_and_drains() {
    let module = "ansible_collections.community.general.plugins.modules.haproxy";
    let Some(python) = python_with(module) else {
        return;
    };
    let subject = Subject::start("ansible");
    run(&python, "use_ansible.py", &[&subject.socket()]);
}

#[test]
fn telegrafs_way_of_reading_finds_every_row() {
    let Some(python) = python_with("csv") else {
        return;
    };
    let subject = Subject::start("telegraf");
    let stats = subject.balancer.stats.to_string();
    run(&python, "like_telegraf.py", &[&subject.socket(), &stats]);
}
