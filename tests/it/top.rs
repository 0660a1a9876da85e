//! `tidings top` in a real terminal, and `tidings events`.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::support::{
    announce,
    cluster::{Balancer, cluster},
    eventually,
    process::Process,
};

/// Runs a command in a terminal of 80 by 24, whose keys are its own input and
/// whose screen is its output. At the end it says whether the terminal echoes
/// again, and ends with the command's exit code. The first line is the
/// command's process id.
const TERMINAL: &str = r"
import fcntl, os, select, struct, subprocess, sys, termios
screen, tty = os.openpty()
fcntl.ioctl(tty, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
own = lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0))
child = subprocess.Popen(sys.argv[1:], stdin=tty, stdout=tty, stderr=tty, preexec_fn=own)
os.write(1, b'%d\n' % child.pid)
sources = [0, screen]
while True:
    ready, _, _ = select.select(sources, [], [], 0.05)
    if 0 in ready:
        keys = os.read(0, 4096)
        if keys: os.write(screen, keys)
        else: sources.remove(0)
    if screen in ready:
        os.write(1, os.read(screen, 65536))
    elif child.poll() is not None:
        break
echoes = termios.tcgetattr(tty)[3] & termios.ECHO
os.write(1, b'\nechoes\n' if echoes else b'\nechoes no more\n')
code = child.returncode
sys.exit(code if code >= 0 else 128 - code)
";

/// Gives the terminal its other screen, and gives it back.
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

/// `tidings top` in a terminal.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts it; `None`, and a loud line, where there is no Python.
    fn start(balancer: &Balancer) -> Option<Self> {
        if Command::new("python3").arg("-c").output().is_err() {
            announce("SKIPPED: tidings top in a terminal needs python3");
            return None;
        }
        let (stats, admin) = (balancer.stats.to_string(), balancer.admin.to_string());
        let mut child = Command::new("python3")
            .args(["-c", TERMINAL, env!("CARGO_BIN_EXE_tidings"), "top"])
            .args(["--stats", &stats, "--admin", &admin])
            .args(["--interval", "100ms"])
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let keys = child.stdin.take().unwrap();
        let mut output = child.stdout.take().unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&written);
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(1..) = output.read(&mut piece).inspect(|&read| {
                all.lock().unwrap().extend_from_slice(&piece[..read]);
            }) {}
        });
        let terminal = Self {
            child,
            keys,
            written,
        };
        Some(terminal)
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Everything that was written to the terminal.
    fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        eventually(&format!("the terminal shows {text}"), || {
            screen(&self.written()).contains(text).then_some(())
        });
    }

    /// The process under test.
    fn pid(&self) -> Pid {
        let pid = eventually("the process id", || {
            let written = self.written();
            written
                .split_once('\n')
                .and_then(|(pid, _)| pid.parse().ok())
        });
        Pid::from_raw(pid).unwrap()
    }

    /// Waits for its end; the exit code.
    #[track_caller]
    fn ends(&mut self) -> i32 {
        let status = eventually("tidings top ends", || self.child.try_wait().unwrap());
        eventually("the last word on the terminal", || {
            self.written().contains("\nechoes").then_some(())
        });
        status.code().unwrap()
    }

    /// That the terminal is as it was.
    #[track_caller]
    fn is_given_back(&self) {
        let written = self.written();
        let (before, after) = written.rsplit_once(LEAVE).expect("the first screen again");
        assert!(before.contains(ENTER));
        assert!(
            after.contains("\u{1b}[?25h"),
            "the cursor is there: {after:?}"
        );
        assert!(after.contains("\nechoes\n"), "{after:?}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            kill_process(self.pid(), Signal::KILL).ok();
            self.child.kill().ok();
            self.child.wait().ok();
        }
        if thread::panicking() {
            eprintln!("--- the terminal:\n{}", screen(&self.written()));
        }
    }
}

/// What stands on a terminal after all that was written to it. Only what is
/// changed is written: texts, and where they go.
fn screen(written: &str) -> String {
    let mut rows = vec![vec![' '; 80]; 24];
    let (mut row, mut column) = (0, 0);
    let mut rest = written
        .split_once(ENTER)
        .map_or("", |(_, rest)| rest)
        .chars();
    while let Some(c) = rest.next() {
        if c != '\u{1b}' {
            if let Some(cell) = rows.get_mut(row).and_then(|row| row.get_mut(column)) {
                *cell = c;
            }
            column += 1;
            continue;
        }
        let mut place = String::new();
        let end = rest.by_ref().skip(1).find(|c| {
            place.push(*c);
            c.is_ascii_alphabetic()
        });
        let place = place.trim_end_matches('H').split_once(';');
        if let (Some('H'), Some((y, x))) = (end, place) {
            let index = |number: &str| number.parse::<usize>().unwrap() - 1;
            (row, column) = (index(y), index(x));
        }
    }
    let rows = rows.into_iter().map(String::from_iter);
    rows.collect::<Vec<String>>().join("\n")
}

/// A server's status, as `tidings servers --json` says it.
fn status(balancer: &Balancer, name: &str) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_tidings"))
        .args(["servers", "--json", "--stats", &balancer.stats.to_string()])
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let servers = answer["servers"].as_array().unwrap();
    let server = servers.iter().find(|server| server["name"] == name)?;
    Some(server["status"].as_str()?.to_owned())
}

#[track_caller]
fn becomes(balancer: &Balancer, name: &str, expected: &str) {
    eventually(&format!("{name} is {expected}"), || {
        (status(balancer, name)? == expected).then_some(())
    });
}

#[test]
fn a_server_is_drained_and_made_ready_by_keys_and_the_terminal_is_given_back() {
    let (balancer, _servers) = cluster(2);
    let Some(mut terminal) = Terminal::start(&balancer) else {
        return;
    };
    terminal.shows("2 of 2 up");
    terminal.press("jd");
    becomes(&balancer, "s2", "drain");
    terminal.shows("drain s2");
    terminal.press("u");
    becomes(&balancer, "s2", "up");
    terminal.shows("undone: ready s2");
    // Nobody is there to stop it for, so it goes on at once.
    terminal.press("\u{1a}");
    eventually("the terminal is taken again", || {
        (terminal.written().matches(ENTER).count() == 2).then_some(())
    });
    terminal.press("+");
    eventually("s2 weighs 2", || {
        (balancer.server("s2")["weight"] == 2).then_some(())
    });
    // The last that is left is taken out only after a question.
    terminal.press("d");
    terminal.shows("1 of 2 up");
    terminal.press("km");
    terminal.shows("Nobody would be left");
    assert_eq!(status(&balancer, "s1").unwrap(), "up");
    terminal.press("y");
    becomes(&balancer, "s1", "maint");
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    terminal.is_given_back();
}

#[test]
fn a_balancer_that_goes_is_missed_and_found_again_and_a_signal_gives_the_terminal_back() {
    let mut balancer = Balancer::start(&["--server", "s1=127.0.0.1:1,check=off"]);
    let Some(mut terminal) = Terminal::start(&balancer) else {
        return;
    };
    terminal.shows("1 of 1 up");
    balancer.process.signal(Signal::KILL);
    balancer.process.wait();
    terminal.shows("NO ANSWER SINCE");
    terminal.press("r");
    terminal.shows("give its address with --admin");
    let again = balancer.again();
    terminal.press("d");
    terminal.shows("Nobody would be left");
    terminal.press("y");
    becomes(&again, "s1", "drain");
    kill_process(terminal.pid(), Signal::TERM).unwrap();
    assert_eq!(terminal.ends(), 128 + 15);
    terminal.is_given_back();
}

#[test]
fn without_a_terminal_there_is_one_line_that_names_what_scripts_use() {
    let mut top = Process::start(&["top".to_owned()]);
    assert_eq!(top.exit_code(), 1);
    let hint = |line: &str| line.contains("tidings servers --json").then_some(());
    top.says("what to use instead", hint);
    assert_eq!(top.said().lines().count(), 1);
}

#[test]
fn events_are_listed_and_followed_over_a_restart_of_the_balancer() {
    let mut balancer = Balancer::start(&["--server", "s1=127.0.0.1:1,check=off"]);
    let run = |args: &str| Process::start(&args.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let drain = |balancer: &Balancer| {
        let mut drain = run(&format!("drain s1 --admin {}", balancer.admin));
        assert_eq!(drain.exit_code(), 0);
    };
    let is_drain = |line: &str| line.contains("DRAIN").then_some(());
    let events = format!("events --stats {}", balancer.stats);
    let following = run(&format!("{events} --follow"));
    let as_json = run(&format!("{events} --follow --json"));
    drain(&balancer);
    following.says("the event", is_drain);
    let mut list = run(&events);
    assert_eq!(list.exit_code(), 0);
    list.says("the event", is_drain);
    as_json.says("the event", is_drain);

    balancer.process.signal(Signal::KILL);
    balancer.process.wait();
    let again = balancer.again();
    drain(&again);
    eventually("the event of the second start", || {
        let said = as_json.said();
        let events = said
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let first = events.filter(|event| event["number"] == 1 && event["event"] == "drain");
        (first.count() == 2).then_some(())
    });
}
