//! The app: the command, the process it runs as, and when it runs again.

use std::{
    ffi::OsString,
    io, process,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    child::{Child, Exit},
    output::Output,
    status::Status,
    supervisor::{Decision, Policy, Supervisor},
};

/// How long the app may take to end when it is told to.
pub(super) const STOP: Duration = Duration::from_secs(5);

/// How long what the app started may outlive it, where it ended by itself.
const REST: Duration = Duration::from_secs(2);

/// A command and its arguments.
#[derive(Debug, Clone)]
pub struct Command {
    /// The program, looked up in `PATH` where it has no slash.
    pub program: OsString,
    /// What it is given.
    pub arguments: Vec<OsString>,
}

impl Command {
    fn spawn(&self, status: &Status, output: Option<&Output>) -> io::Result<Child> {
        let mut command = process::Command::new(&self.program);
        command.args(&self.arguments);
        // The cluster's key is the agent's; an app has no use for it.
        command.env_remove("TIDINGS_GOSSIP_KEY");
        // It may want to say who it is.
        command.env("TIDINGS_NAME", status.name().as_str());
        let child = match output {
            Some(output) => Child::spawn_heard(command, output)?,
            None => Child::spawn(command)?,
        };
        status.starts.fetch_add(1, Relaxed);
        Ok(child)
    }
}

/// The app that the agent runs.
#[derive(Debug)]
pub(super) struct App {
    command: Command,
    output: Option<Output>,
    supervisor: Supervisor,
    state: State,
    /// The present process has been told to end.
    told: bool,
    status: Arc<Status>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Running(Child),
    /// It ended in this way, and what it started has until this time: a shell
    /// ends at once, the server that it started may still finish its work.
    Lingering(Child, Exit, Instant),
    /// It ended in this way, and is to be started at this time.
    Pausing(Exit, Instant),
    Ended(Exit),
}

impl App {
    /// Starts it for the first time. What it says goes through `output`, or
    /// where the agent's own output goes.
    pub(super) fn start(
        command: Command,
        policy: Policy,
        status: Arc<Status>,
        output: Option<Output>,
    ) -> io::Result<Self> {
        let child = command.spawn(&status, output.as_ref())?;
        Ok(Self {
            command,
            output,
            supervisor: Supervisor::new(policy, Instant::now()),
            state: State::Running(child),
            told: false,
            status,
        })
    }

    /// Whether its own process runs.
    pub(super) fn runs(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    /// How it ended, once nothing of it is left.
    pub(super) fn exit(&self) -> Option<Exit> {
        match self.state {
            State::Running(_) | State::Lingering(..) => None,
            State::Pausing(exit, _) | State::Ended(exit) => Some(exit),
        }
    }

    /// How it ended, where it is not to be started again.
    pub(super) fn over(&self) -> Option<Exit> {
        match self.state {
            State::Ended(exit) => Some(exit),
            _ => None,
        }
    }

    /// When [`go_on`](Self::go_on) is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Lingering(_, _, at) | State::Pausing(_, at) => Some(at),
            State::Running(_) | State::Ended(_) => None,
        }
    }

    /// Passes a signal on.
    pub(super) fn signal(&self, signal: Signal) {
        if let State::Running(child) | State::Lingering(child, ..) = self.state {
            child.signal(signal);
        }
    }

    /// Tells it to end, for good. What is left of it is told only once: to
    /// many a server a second signal means not to finish its work.
    pub(super) fn stop(&mut self) {
        self.retire();
        if !std::mem::replace(&mut self.told, true) {
            self.signal(Signal::TERM);
        }
        if let State::Lingering(_, _, until) = &mut self.state {
            *until = Instant::now() + STOP;
        }
    }

    /// A process ended: if it was the last one of the app, decides what comes
    /// next and says so.
    pub(super) fn process_ended(&mut self, pid: Pid, exit: Exit) -> Option<Decision> {
        if let State::Running(child) = self.state
            && child.pid() == pid
        {
            self.linger(child, exit);
        }
        match self.state {
            State::Lingering(child, exit, _) if !child.is_left() => Some(self.decide(exit)),
            _ => None,
        }
    }

    /// Gives what the app started its time to end.
    fn linger(&mut self, child: Child, exit: Exit) {
        // It would hold the app's port, and nobody else is left to end it.
        let patience = if std::mem::replace(&mut self.told, true) {
            STOP
        } else {
            self.status.failures.fetch_add(1, Relaxed);
            child.signal(Signal::TERM);
            REST
        };
        self.state = State::Lingering(child, exit, Instant::now() + patience);
    }

    /// Does what is due: kills what is left of the app, and decides what comes
    /// next, or starts it again.
    pub(super) fn go_on(&mut self) -> Option<Decision> {
        match self.state {
            State::Lingering(child, exit, _) => {
                child.signal(Signal::KILL);
                Some(self.decide(exit))
            }
            State::Pausing(..) => {
                self.restart();
                None
            }
            State::Running(_) | State::Ended(_) => None,
        }
    }

    /// From now on it is not started again.
    pub(super) fn retire(&mut self) {
        self.supervisor.retire();
        if let State::Pausing(exit, _) = self.state {
            self.state = State::Ended(exit);
        }
    }

    /// Starts it again, or puts it off further where that fails.
    fn restart(&mut self) {
        let now = Instant::now();
        self.told = false;
        self.supervisor.started(now);
        match self.command.spawn(&self.status, self.output.as_ref()) {
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
