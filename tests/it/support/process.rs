//! A child process with everything it says, ended with its test.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

use super::eventually;

/// Where a process runs.
#[derive(Debug, Clone, Default)]
pub(crate) enum Place {
    /// Where the test does.
    #[default]
    Here,
    /// On that host of the test's network.
    Host(String),
    /// Where the test does, with so many descriptors.
    WithDescriptors(u32),
}

impl Place {
    /// A command that will be `program` itself, under its own process id.
    fn command(&self, program: &str) -> Command {
        match self {
            Self::Here => Command::new(program),
            Self::Host(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name, program]);
                command
            }
            Self::WithDescriptors(most) => {
                let mut command = Command::new("sh");
                let become_it = format!("ulimit -n {most}; exec \"$0\" \"$@\"");
                command.args(["-c", &become_it, program]);
                command
            }
        }
    }
}

/// A running `tidings`, and what it has said so far.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts the binary under test. It ends at the latest when this test
    /// program does.
    pub(crate) fn start(args: &[String]) -> Self {
        Self::start_on(&Place::Here, args)
    }

    /// Starts it elsewhere.
    pub(crate) fn start_on(place: &Place, args: &[String]) -> Self {
        let mut command = place.command(env!("CARGO_BIN_EXE_tidings"));
        command.args(args).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // What is set around the tests is not what they are about.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDINGS_")) {
            command.env_remove(name);
        }
        let mut child = command.spawn().expect("the binary under test starts");
        let said = Arc::default();
        listen(child.stdout.take().expect("piped"), &said);
        listen(child.stderr.take().expect("piped"), &said);
        Self { child, said }
    }

    /// Everything it has said, stdout and stderr.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    /// Waits for a line that `find` makes something of.
    #[track_caller]
    pub(crate) fn says<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        eventually(what, || {
            self.said.lock().unwrap().iter().find_map(|line| find(line))
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it is still there");
    }

    /// Whether a signal has stopped it.
    pub(crate) fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        stat.is_ok_and(|stat| stat.contains(") T "))
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the process ends", || {
            child.try_wait().expect("our own child")
        })
    }

    /// Waits for its end; the exit code, or the signal as a shell counts it.
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> i32 {
        let status = self.wait();
        let by_signal = || status.signal().map(|signal| 128 + signal);
        status.code().or_else(by_signal).expect("it ended")
    }

    /// The processes it started.
    pub(crate) fn children(&self) -> Vec<Pid> {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let list = std::fs::read_to_string(path).unwrap_or_default();
        let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.filter_map(Pid::from_raw).collect()
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        let list = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        list.expect("it is still there").count()
    }

    /// The most memory it ever had in use, in KiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it is still there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let size = line.and_then(|line| line.trim().strip_suffix(" kB"));
        size.and_then(|size| size.trim().parse().ok())
            .expect("VmHWM in kB")
    }
}

impl Process {
    /// Prints what it said last, and where all of it is: the access log of a
    /// load is longer than anybody scrolls for the failure above it.
    fn tell(&self) {
        const LAST: usize = 20;
        let path = format!("{}/{}.log", env!("CARGO_TARGET_TMPDIR"), self.child.id());
        let saved = std::fs::write(&path, self.said());
        let whole = saved.map_or_else(|err| format!("not saved: {err}"), |()| path);
        let said = self.said.lock().unwrap();
        let last = said.get(said.len().saturating_sub(LAST)..);
        eprintln!(
            "--- process {} said in the end (all of it: {whole}):\n{}",
            self.child.id(),
            last.unwrap_or_default().join("\n")
        );
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut doomed = self.children();
        doomed.push(self.pid());
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            for pid in doomed {
                kill_process(pid, Signal::KILL).ok();
            }
            self.child.wait().ok();
        }
        if thread::panicking() {
            self.tell();
        }
    }
}

fn listen(stream: impl Read + Send + 'static, said: &Arc<Mutex<Vec<String>>>) {
    let said = Arc::clone(said);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            said.lock().unwrap().push(line);
        }
    });
}
