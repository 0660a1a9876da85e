//! The app: the command, the process it runs as, and when it runs again.

use std::{ffi::OsString, io, process};

use rustix::process::{Pid, Signal};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    child::{Child, Exit},
    supervisor::{Decision, Policy, Supervisor},
};

/// A command and its arguments.
#[derive(Debug, Clone)]
pub struct Command {
    /// The program, looked up in `PATH` where it has no slash.
    pub program: OsString,
    /// What it is given.
    pub arguments: Vec<OsString>,
}

impl Command {
    fn spawn(&self) -> io::Result<Child> {
        let mut command = process::Command::new(&self.program);
        command.args(&self.arguments);
        // The cluster's key is the agent's; an app has no use for it.
        command.env_remove("TIDINGS_GOSSIP_KEY");
        Child::spawn(command)
    }
}

/// The app that the agent runs.
#[derive(Debug)]
pub(super) struct App {
    command: Command,
    supervisor: Supervisor,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Running(Child),
    /// It ended in this way, and is to be started at this time.
    Pausing(Exit, Instant),
    Ended(Exit),
}

impl App {
    /// Starts it for the first time.
    pub(super) fn start(command: Command, policy: Policy) -> io::Result<Self> {
        let child = command.spawn()?;
        Ok(Self {
            command,
            supervisor: Supervisor::new(policy, Instant::now()),
            state: State::Running(child),
        })
    }

    /// Its process, while it runs.
    pub(super) fn child(&self) -> Option<Child> {
        match self.state {
            State::Running(child) => Some(child),
            _ => None,
        }
    }

    /// How it ended, unless it runs.
    pub(super) fn exit(&self) -> Option<Exit> {
        match self.state {
            State::Running(_) => None,
            State::Pausing(exit, _) | State::Ended(exit) => Some(exit),
        }
    }

    /// When [`restart`](Self::restart) is to be called.
    pub(super) fn restart_at(&self) -> Option<Instant> {
        match self.state {
            State::Pausing(_, at) => Some(at),
            _ => None,
        }
    }

    /// Passes a signal on.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(child) = self.child() {
            child.signal(signal);
        }
    }

    /// A process ended: if it was the app, decides what comes next and says
    /// so. `None` for any other process.
    pub(super) fn process_ended(&mut self, pid: Pid, exit: Exit) -> Option<Decision> {
        let child = self.child().filter(|child| child.pid() == pid)?;
        // What it started would hold its port, and nobody is left to end it.
        child.signal(Signal::KILL);
        Some(self.decide(exit))
    }

    /// From now on it is not started again.
    pub(super) fn retire(&mut self) {
        self.supervisor.retire();
        if let State::Pausing(exit, _) = self.state {
            self.state = State::Ended(exit);
        }
    }

    /// Starts it again, or puts it off further where that fails.
    pub(super) fn restart(&mut self) {
        let now = Instant::now();
        self.supervisor.started(now);
        match self.command.spawn() {
            Ok(child) => self.state = State::Running(child),
            Err(err) => {
                warn!("{}: {err}", self.command.program.display());
                self.decide(exit_for(&err));
            }
        }
    }

    fn decide(&mut self, exit: Exit) -> Decision {
        let now = Instant::now();
        let decision = self.supervisor.ended(now);
        self.state = match decision {
            Decision::RestartAt(at) => {
                let pause = humantime::format_duration(at - now);
                warn!("the app ended with {exit}; it is started again in {pause}");
                State::Pausing(exit, at)
            }
            Decision::GiveUp => {
                info!("the app ended with {exit}");
                State::Ended(exit)
            }
        };
        decision
    }
}

/// What shells exit with when a program cannot be started.
pub(super) fn exit_for(err: &io::Error) -> Exit {
    Exit::Code(match err.kind() {
        io::ErrorKind::NotFound => 127,
        _ => 126,
    })
}
