//! The app as a child process, and the duties of whoever has children.

use std::{
    io::{self, IsTerminal},
    os::unix::process::CommandExt,
    process::{self, Command, Stdio},
};

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process_group, test_kill_process_group,
};
use tokio::signal::unix::{self, SignalKind};
use tracing::debug;

use super::output::Output;

/// A process in a group of its own.
///
/// So a Ctrl-C in the terminal reaches the agent alone, which ends the app in
/// its own time; and signals reach what the app itself has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    pid: Pid,
}

impl Child {
    /// Starts a command. Its output goes where this process's output goes.
    pub fn spawn(command: Command) -> io::Result<Self> {
        Self::start(command).map(|(child, _)| child)
    }

    /// Starts a command whose output goes through `output`.
    pub(super) fn spawn_heard(mut command: Command, output: &Output) -> io::Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (child, mut process) = Self::start(command)?;
        if let (Some(stdout), Some(stderr)) = (process.stdout.take(), process.stderr.take()) {
            output.follow(process.id(), stdout, stderr)?;
        }
        Ok(child)
    }

    fn start(mut command: Command) -> io::Result<(Self, process::Child)> {
        command.process_group(0);
        // A group in the background that reads from the terminal is stopped.
        if io::stdin().is_terminal() {
            command.stdin(Stdio::null());
        }
        let process = command.spawn()?;
        // Not waited for here: the reaper takes every child.
        let pid = Pid::from_child(&process);
        Ok((Self { pid }, process))
    }

    /// Its process id.
    pub fn pid(self) -> Pid {
        self.pid
    }

    /// Sends a signal to it and to all it has started. That they are gone
    /// already is no error: a process may end at any moment.
    pub fn signal(self, signal: Signal) {
        if let Err(err) = kill_process_group(self.pid, signal) {
            debug!("no {signal:?} to the app: {err}");
        }
    }

    /// Whether anything of it is left, itself or what it has started.
    pub fn is_left(self) -> bool {
        test_kill_process_group(self.pid).is_ok()
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The code for `exit` that says the same, as shells have it.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }

    fn from_status(status: WaitStatus) -> Option<Self> {
        let code = status.exit_status().map(|code| Self::Code(code as u8));
        code.or_else(|| status.terminating_signal().map(Self::Signal))
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Takes note of every child's end, its own and adopted ones alike, so that
/// none stays behind as a zombie. A process has one reaper at the most.
#[derive(Debug)]
pub struct Reaper {
    deaths: unix::Signal,
}

impl Reaper {
    /// To be made before the first child is. Needs a tokio runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            deaths: unix::signal(SignalKind::child())?,
        })
    }

    /// The next child that ended, and how. Cancel safe.
    pub async fn next(&mut self) -> (Pid, Exit) {
        loop {
            // One signal may stand for several deaths: ask until there is none.
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if let Some(exit) = Exit::from_status(status) {
                        return (pid, exit);
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Ok(None) | Err(_) => {
                    self.deaths.recv().await;
                }
            }
        }
    }
}

/// Makes this process the parent of its descendants that lose their own, as
/// PID 1 is in any case: their ends are then seen here.
pub fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    if !rustix::process::getpid().is_init()
        && let Err(err) = rustix::process::set_child_subreaper(Some(Pid::INIT))
    {
        debug!("orphans are left to PID 1: {err}");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Runs a test's body in a process of its own: a reaper takes any child,
    /// and would take those of tests that run beside it.
    pub(in crate::agent) fn alone(module: &str, name: &str, body: impl AsyncFnOnce()) {
        const MARK: &str = "TIDINGS_TEST_ALONE";
        if std::env::var_os(MARK).is_some() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            return runtime.unwrap().block_on(body());
        }
        let (_crate, module) = module.split_once("::").unwrap();
        let path = format!("{module}::{name}");
        let output = Command::new(std::env::current_exe().unwrap())
            .args([&path, "--exact", "--nocapture"])
            .env(MARK, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{output:?}"
        );
    }

    fn shell(script: &str) -> Child {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Child::spawn(command).unwrap()
    }

    async fn next(reaper: &mut Reaper) -> (Pid, Exit) {
        timeout(DEADLINE, reaper.next())
            .await
            .expect("a child ends")
    }

    #[test]
    fn an_exit_code_is_kept_and_a_signal_told_apart() {
        alone(
            module_path!(),
            "an_exit_code_is_kept_and_a_signal_told_apart",
            async || {
                let mut reaper = Reaper::new().unwrap();
                let child = shell("exit 7");
                assert_eq!(next(&mut reaper).await, (child.pid(), Exit::Code(7)));

                let child = shell("kill -KILL $$");
                let (pid, exit) = next(&mut reaper).await;
                assert_eq!((pid, exit), (child.pid(), Exit::Signal(9)));
                assert_eq!(exit.code(), 137);
            },
        );
    }

    #[test]
    fn a_signal_reaches_the_whole_group() {
        alone(
            module_path!(),
            "a_signal_reaches_the_whole_group",
            async || {
                adopt_orphans();
                let mut reaper = Reaper::new().unwrap();
                let mut ready = unix::signal(SignalKind::user_defined1()).unwrap();
                let child = shell("sleep 60 & kill -USR1 $PPID; wait");
                timeout(DEADLINE, ready.recv())
                    .await
                    .expect("the shell is ready");
                child.signal(Signal::TERM);
                let ended = [next(&mut reaper).await, next(&mut reaper).await];
                assert!(ended.iter().any(|(pid, _)| *pid == child.pid()));
                assert!(ended.iter().all(|(_, exit)| *exit == Exit::Signal(15)));
            },
        );
    }

    #[test]
    fn an_orphan_is_adopted_and_leaves_no_zombie() {
        alone(
            module_path!(),
            "an_orphan_is_adopted_and_leaves_no_zombie",
            async || {
                adopt_orphans();
                let mut reaper = Reaper::new().unwrap();
                let child = shell("(exec sleep 0.2) & exit 0");
                assert_eq!(next(&mut reaper).await, (child.pid(), Exit::Code(0)));
                let (orphan, exit) = next(&mut reaper).await;
                assert_ne!(orphan, child.pid());
                assert_eq!(exit, Exit::Code(0));
                assert!(rustix::process::test_kill_process(orphan).is_err());
            },
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_at_once() {
        let missing = Child::spawn(Command::new("/no/such/app")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let directory = Child::spawn(Command::new("/")).unwrap_err();
        assert_eq!(directory.kind(), io::ErrorKind::PermissionDenied);
    }
}
