//! The agent: announces one server to the cluster, and runs it.
//!
//! It stands beside the app, not before it: no request passes through here.
//! It says when the app accepts connections, that it is about to go, and that
//! it has gone, so that no load balancer has to find out by failing.

mod announcer;
mod app;
pub mod child;
mod local_check;
mod output;
mod signals;
mod stats;
mod status;
mod supervisor;
mod traffic;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::ControlFlow,
    pin::pin,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use self::{
    announcer::Announcer,
    app::{App, STOP},
    child::{Exit, Reaper},
    local_check::{LocalCheck, Look},
    output::Output,
    signals::Signals,
    status::Status,
    supervisor::Decision,
};
pub use self::{app::Command, supervisor::Policy};
use crate::{
    app::busy,
    cli::GossipArgs,
    gossip::{DEFAULT_PORT, Seed, Sockets, StartError},
    keys,
    membership::{Name, Phase},
    net,
    pool::{server::Check, transport::Transport},
    syslog::Syslog,
};

/// A draining server without a connection for this long has no traffic left:
/// longer than a balancer takes to hear of the drain and send what it was
/// about to send.
const QUIET: Duration = Duration::from_secs(1);

/// How long the last connections may take once everyone knows it is over.
const LAST_CONNECTIONS: Duration = Duration::from_millis(500);

/// How long a goodbye may take to go out.
const GOODBYE: Duration = Duration::from_millis(500);

/// How long the kernel may take to end what it is told to kill.
const KILL: Duration = Duration::from_secs(1);

/// How long the end may wait for somebody to read what the app said last.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What an agent is to do.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server's name.
    pub name: Name,
    /// The service it belongs to.
    pub service: Name,
    /// Where others reach the app; `None`: to be found out.
    pub address: Option<IpAddr>,
    /// The app's port.
    pub port: u16,
    /// Its share of the requests, 0 to 256.
    pub weight: u16,
    /// How the agent looks at the app; `None`: it counts as accepting as soon
    /// as it runs.
    pub check: Option<Check>,
    /// What else to say of it.
    pub tags: BTreeMap<String, String>,
    /// Where to look for the cluster.
    pub seeds: Vec<Seed>,
    /// Where to speak gossip; `None`: at port 7946 if that is free.
    pub gossip: Option<SocketAddr>,
    /// Where to answer for the app's state over HTTP.
    pub stats: Option<SocketAddr>,
    /// The cluster to take part in, and its keys.
    pub gossip_args: GossipArgs,
    /// How long leaving may take, from the signal to the app's own.
    pub drain: Duration,
    /// What to do when the app ends.
    pub restart: Policy,
    /// The app; `None`: somebody else runs it.
    pub command: Option<Command>,
    /// Where what the app says is sent as well.
    pub syslog: Option<Syslog>,
}

impl Settings {
    fn look(&self) -> Option<Look> {
        self.check.clone().map(|check| Look {
            check,
            transport: Transport::of(&self.tags).unwrap_or_default(),
        })
    }

    /// The address that was given in so many words.
    fn known_address(&self) -> Option<IpAddr> {
        let gossip = self.gossip.map(|addr| addr.ip());
        self.address.or(gossip.filter(|ip| !ip.is_unspecified()))
    }
}

/// Runs an agent until it is told to end or its app is over, and returns the
/// app's exit code. Takes the end of every child of this process.
pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    settings.check()?;
    let keyring = keys::keyring(&settings.gossip_args)?;
    let sockets = bind(settings.gossip)?;
    let status = Status::new(settings.name.clone(), settings.service.clone());
    let _stats = start_stats(settings.stats, &status)?;
    // Before there is a child, or its end could be missed.
    let reaper = Reaper::new().context("the ends of children cannot be seen")?;
    let signals = Signals::listen().context("signals cannot be received")?;
    child::adopt_orphans();
    let output = start_output(&settings)?;
    let app = match start_app(&settings, &status, output.clone()) {
        Ok(app) => app,
        Err(exit) => return Ok(exit.code().into()),
    };
    let mut agent = Agent {
        target: Target::likely(&settings),
        look: settings.look(),
        local_check: None,
        app,
        drain: settings.drain,
        announcer: Announcer::new(sockets, keyring, settings, status),
        reaper,
        signals,
    };
    let exit = match agent.serve().await {
        End::Told => {
            if agent.drain().await.is_continue() {
                agent.leave().await;
                agent.last_connections().await;
            }
            Ok(agent.stop_app().await)
        }
        End::AppOver(exit) => Ok(exit),
        End::Failed(err) => {
            agent.stop_app().await;
            Err(err)
        }
    };
    agent.leave().await;
    if let Some(output) = output {
        output.finish(LAST_WORDS);
    }
    Ok(exit?.code().into())
}

/// Binds the gossip port. The default one may be another agent's on the same
/// host; one that was asked for must be had.
fn bind(wanted: Option<SocketAddr>) -> anyhow::Result<Sockets> {
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    if let Some(addr) = wanted {
        return Sockets::bind(addr).map_err(|err| busy("--gossip", addr, &err));
    }
    match Sockets::bind(any(DEFAULT_PORT)) {
        Err(err) if err.kind() == io::ErrorKind::AddrInUse => {
            let sockets = Sockets::bind(any(0)).context("no port is free for gossip")?;
            let port = sockets.local_addr()?.port();
            info!("port {DEFAULT_PORT} is in use, so gossip is spoken at port {port}");
            Ok(sockets)
        }
        bound => bound.context("--gossip"),
    }
}

/// Where the app's output goes, unless it goes where the agent's goes.
fn start_output(settings: &Settings) -> anyhow::Result<Option<Output>> {
    let start = |syslog| Output::start(syslog, settings.name.as_str());
    let syslog = settings
        .syslog
        .clone()
        .filter(|_| settings.command.is_some());
    let output = syslog.map(start).transpose();
    output.context("the app's output cannot be read")
}

/// Answers over HTTP until the handle is dropped, where that is asked for.
fn start_stats(
    addr: Option<SocketAddr>,
    status: &Arc<Status>,
) -> anyhow::Result<Option<AbortOnDropHandle<()>>> {
    let Some(addr) = addr else {
        return Ok(None);
    };
    let listener = net::bind_alone(addr).map_err(|err| busy("--stats", addr, &err))?;
    let listener = TcpListener::from_std(listener).context("--stats")?;
    let addr = listener.local_addr().context("--stats")?;
    info!("shows itself on http://{addr}/metrics");
    let server = stats::run(listener, Arc::clone(status));
    Ok(Some(AbortOnDropHandle::new(tokio::spawn(server))))
}

/// Starts the app, where there is one to start.
fn start_app(
    settings: &Settings,
    status: &Arc<Status>,
    output: Option<Output>,
) -> Result<Option<App>, Exit> {
    let Some(command) = settings.command.clone() else {
        return Ok(None);
    };
    let program = command.program.clone();
    App::start(command, settings.restart, Arc::clone(status), output)
        .map(Some)
        .map_err(|err| {
            error!("{} cannot be run: {err}", program.display());
            app::exit_for(&err)
        })
}

/// A running agent.
struct Agent {
    announcer: Announcer,
    /// Where the app is looked at.
    target: Target,
    look: Option<Look>,
    local_check: Option<LocalCheck>,
    app: Option<App>,
    drain: Duration,
    reaper: Reaper,
    signals: Signals,
}

/// Where the app is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// Where balancers will connect.
    Announced(SocketAddr),
    /// That is not known yet; this is where it is likely to listen too.
    Guessed(SocketAddr),
}

impl Target {
    fn likely(settings: &Settings) -> Self {
        match settings.known_address() {
            Some(ip) => Self::Announced((ip, settings.port).into()),
            None => Self::Guessed((Ipv4Addr::LOCALHOST, settings.port).into()),
        }
    }

    fn addr(self) -> SocketAddr {
        match self {
            Self::Announced(addr) | Self::Guessed(addr) => addr,
        }
    }
}

/// What an agent has to deal with.
enum Event {
    Signal(Signal),
    ProcessEnded(Pid, Exit),
    AppDue,
    Accepting(bool),
    Placed(Result<SocketAddr, StartError>),
}

/// Why an agent does not go on.
enum End {
    /// It was told to end.
    Told,
    /// The app ended, and is not to be started again.
    AppOver(Exit),
    /// It cannot take part in gossip.
    Failed(StartError),
}

impl Agent {
    /// Announces the app and keeps it running, until that is over.
    async fn serve(&mut self) -> End {
        self.look_at_app();
        loop {
            match self.next_event().await {
                Event::Signal(signal) if signals::ends(signal) => return End::Told,
                Event::Signal(signal) => self.pass_on(signal),
                Event::ProcessEnded(pid, exit) => {
                    self.process_ended(pid, exit);
                }
                Event::AppDue => {
                    self.app_due();
                }
                Event::Accepting(accepting) => self.accepting(accepting),
                Event::Placed(Ok(app)) => self.placed(app),
                Event::Placed(Err(err)) => return End::Failed(err),
            }
            if let Some(exit) = self.app.as_ref().and_then(App::over) {
                return End::AppOver(exit);
            }
        }
    }

    /// Cancel safe, as each of its sources is.
    async fn next_event(&mut self) -> Event {
        let due = self.app.as_ref().and_then(App::due);
        tokio::select! {
            biased;
            (pid, exit) = self.reaper.next() => Event::ProcessEnded(pid, exit),
            signal = self.signals.next() => Event::Signal(signal),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Event::AppDue,
            accepting = changed(&mut self.local_check) => Event::Accepting(accepting),
            placed = self.announcer.placed() => Event::Placed(placed),
        }
    }

    fn process_ended(&mut self, pid: Pid, exit: Exit) -> Option<Decision> {
        let app = self.app.as_mut()?;
        let decision = app.process_ended(pid, exit);
        if !app.runs() {
            self.local_check = None;
            // A goodbye is on its way already where the agent leaves.
            if matches!(self.announcer.phase(), Phase::Ready) {
                self.announcer.say(Phase::Down);
            }
        }
        decision
    }

    fn app_due(&mut self) -> Option<Decision> {
        let decision = self.app.as_mut()?.go_on();
        self.look_at_app();
        decision
    }

    /// Looks whether the app accepts, from its start on.
    fn look_at_app(&mut self) {
        let runs = self.app.as_ref().is_none_or(App::runs);
        self.local_check = None;
        match &self.look {
            _ if !runs => {}
            None => self.announcer.say(Phase::Ready),
            Some(look) => {
                self.local_check = Some(LocalCheck::start(self.target.addr(), look.clone()));
            }
        }
    }

    fn accepting(&mut self, accepting: bool) {
        // That it accepts elsewhere does not say that balancers reach it.
        if matches!(self.target, Target::Announced(_)) {
            self.announcer
                .say(if accepting { Phase::Ready } else { Phase::Down });
        }
    }

    /// The app is announced at this address, at first or from now on.
    fn placed(&mut self, app: SocketAddr) {
        let before = std::mem::replace(&mut self.target, Target::Announced(app));
        match (before, &self.look) {
            (before, _) if before == self.target => {}
            // It was seen to accept; that holds until the contrary is seen.
            (Target::Announced(_), Some(look)) if self.announcer.phase() == Phase::Ready => {
                self.local_check = Some(LocalCheck::go_on(app, look.clone()));
            }
            _ => self.look_at_app(),
        }
    }

    fn pass_on(&self, signal: Signal) {
        if let Some(app) = &self.app {
            app.signal(signal);
        }
    }

    /// Keeps the users and takes no new ones, until the traffic has ended or
    /// the time is up. Breaks off when the app ends or is to end at once.
    async fn drain(&mut self) -> ControlFlow<()> {
        self.local_check = None;
        if let Some(app) = &mut self.app {
            app.retire();
        }
        if self.announcer.app().is_none() || self.announcer.phase() != Phase::Ready {
            return ControlFlow::Continue(());
        }
        info!("draining; a second signal ends the app at once");
        self.announcer.say(Phase::Draining);
        // Whoever sent the signal may kill after this time: leave some of it
        // for the goodbye and for the app's own end.
        let reserve = (self.drain / 4).min(Duration::from_secs(2));
        let longest = self.drain.saturating_sub(reserve);
        let quiet = traffic::ended(self.target.addr(), QUIET.min(longest / 2));
        let quiet = timeout(longest, quiet);
        self.meanwhile(async {
            if quiet.await.is_ok() {
                info!("the traffic has ended");
            } else {
                warn!("there is still traffic; leaving all the same");
            }
        })
        .await
    }

    /// Says goodbye, the first time it is called.
    async fn leave(&mut self) {
        if timeout(GOODBYE, self.announcer.leave()).await.is_err() {
            warn!("the goodbye did not go out; the others will find out by themselves");
        }
    }

    /// Waits for the connections that a balancer is about to close.
    async fn last_connections(&mut self) {
        let ended = traffic::ended(self.target.addr(), Duration::ZERO);
        // What is still open then ends with the app.
        let _broken_off = self
            .meanwhile(async { timeout(LAST_CONNECTIONS, ended).await.unwrap_or_default() })
            .await;
    }

    /// Ends the app, the hard way if it does not end by itself, and returns
    /// how it ended.
    async fn stop_app(&mut self) -> Exit {
        self.local_check = None;
        for (signal, patience) in [(Signal::TERM, STOP), (Signal::KILL, KILL)] {
            let Some(app) = &mut self.app else {
                return Exit::Code(0);
            };
            app.retire();
            if let Some(exit) = app.exit() {
                return exit;
            }
            match signal {
                Signal::TERM => app.stop(),
                signal => app.signal(signal),
            }
            let given_up = self.meanwhile(sleep(patience)).await;
            if given_up.is_continue() && signal == Signal::TERM {
                warn!("the app does not end; it is killed");
            }
        }
        let exit = self.app.as_ref().and_then(App::exit);
        exit.unwrap_or(Exit::Signal(Signal::KILL.as_raw()))
    }

    /// Waits for something while the agent is on its way out. Breaks off when
    /// the app ends, or when a signal says not to wait.
    async fn meanwhile(&mut self, wait: impl Future<Output = ()>) -> ControlFlow<()> {
        let mut wait = pin!(wait);
        loop {
            let event = tokio::select! {
                biased;
                event = self.next_event() => event,
                () = &mut wait => return ControlFlow::Continue(()),
            };
            match event {
                Event::Signal(signal) if signals::ends(signal) => return ControlFlow::Break(()),
                Event::Signal(signal) => self.pass_on(signal),
                Event::ProcessEnded(pid, exit) => {
                    if self.process_ended(pid, exit).is_some() {
                        return ControlFlow::Break(());
                    }
                }
                Event::AppDue => {
                    if self.app_due().is_some() {
                        return ControlFlow::Break(());
                    }
                }
                Event::Accepting(_) | Event::Placed(_) => {}
            }
        }
    }
}

async fn changed(local_check: &mut Option<LocalCheck>) -> bool {
    match local_check {
        Some(check) => check.changed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{getpid, kill_process};
    use tokio::sync::mpsc;

    use super::{child::tests::alone, *};
    use crate::{
        gossip::{self, Handle, Keyring},
        membership::{MemberEvent, Meta, Role},
    };

    const DEADLINE: Duration = Duration::from_secs(10);

    /// A balancer's ears.
    struct Observer {
        node: Handle,
        events: mpsc::Receiver<MemberEvent>,
    }

    impl Observer {
        fn start() -> Self {
            let addr: SocketAddr = "127.0.0.1:0".parse().unwrap();
            let settings = gossip::Settings {
                advertise: addr,
                found: false,
                cluster: "test".parse().unwrap(),
                keyring: Keyring::default(),
                admission: gossip::Admission::default(),
                seeds: Vec::new(),
                meta: Meta {
                    name: "ha".parse().unwrap(),
                    role: Role::Balancer,
                },
            };
            let (sender, events) = mpsc::channel(64);
            let node = gossip::spawn(Sockets::bind(addr).unwrap(), settings, sender).unwrap();
            Self { node, events }
        }

        /// What is heard of the agent next: its phase, `None` for its goodbye.
        async fn hears(&mut self) -> Option<Phase> {
            loop {
                let event = timeout(DEADLINE, self.events.recv()).await;
                match event.expect("news in time").expect("a running node") {
                    MemberEvent::Up(member) => {
                        if let Role::Server(announcement) = member.meta.role {
                            return Some(announcement.phase);
                        }
                    }
                    MemberEvent::Left(_) => return None,
                    MemberEvent::Down(_) => panic!("it failed"),
                    MemberEvent::HungUp(_) => panic!("it hung up"),
                    // A busy machine may be slow to answer.
                    MemberEvent::Suspect(_) | MemberEvent::Refuted(_) | MemberEvent::Wanted(_) => {}
                }
            }
        }
    }

    fn settings(observer: &Observer) -> Settings {
        Settings {
            name: "s1".parse().unwrap(),
            service: "nodes".parse().unwrap(),
            address: Some(Ipv4Addr::LOCALHOST.into()),
            port: 1,
            weight: 1,
            check: None,
            tags: BTreeMap::new(),
            seeds: vec![observer.node.local().addr.to_string().parse().unwrap()],
            stats: None,
            gossip: Some("127.0.0.1:0".parse().unwrap()),
            gossip_args: GossipArgs {
                cluster: "test".parse().unwrap(),
                gossip_key: Vec::new(),
                gossip_key_file: None,
                gossip_allow: Vec::new(),
            },
            drain: Duration::from_secs(1),
            restart: Policy::Always,
            command: Some(Command {
                program: "sleep".into(),
                arguments: vec!["60".into()],
            }),
            syslog: None,
        }
    }

    #[test]
    fn every_turn_of_the_apps_life_is_announced() {
        let name = "every_turn_of_the_apps_life_is_announced";
        alone(module_path!(), name, async || {
            let mut observer = Observer::start();
            let agent = tokio::spawn(run(settings(&observer)));
            let agent = AbortOnDropHandle::new(agent);
            assert_eq!(observer.hears().await, Some(Phase::Ready));

            // The app's, and it ends by it.
            kill_process(getpid(), Signal::USR1).unwrap();
            assert_eq!(observer.hears().await, Some(Phase::Down));
            assert_eq!(observer.hears().await, Some(Phase::Ready));

            kill_process(getpid(), Signal::TERM).unwrap();
            assert_eq!(observer.hears().await, Some(Phase::Draining));
            assert_eq!(observer.hears().await, None);
            let exit = timeout(DEADLINE, agent)
                .await
                .expect("it ends")
                .unwrap()
                .unwrap();
            assert_eq!(exit, ExitCode::from(128 + 15));
        });
    }

    fn shell(script: String) -> Command {
        Command {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
        }
    }

    /// What a shell starts as its app: it says in a file when it is ready, and
    /// wants some time for its own end.
    fn slow_to_end(file: &std::path::Path) -> String {
        let file = file.display();
        format!(
            "(trap 'sleep 0.3; echo done > {file}; exit 0' TERM; echo ready > {file}; \
             while :; do sleep 0.02; done) & until [ -s {file} ]; do sleep 0.01; done"
        )
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        let file = std::env::temp_dir().join(format!("tidings-{name}-{}", std::process::id()));
        std::fs::remove_file(&file).ok();
        file
    }

    #[test]
    fn an_app_behind_a_shell_may_finish_its_work_after_the_shell_has_ended() {
        let name = "an_app_behind_a_shell_may_finish_its_work_after_the_shell_has_ended";
        alone(module_path!(), name, async || {
            let file = scratch("shell");
            let mut observer = Observer::start();
            let mut settings = settings(&observer);
            settings.command = Some(shell(format!("{}; wait", slow_to_end(&file))));
            let agent = AbortOnDropHandle::new(tokio::spawn(run(settings)));
            assert_eq!(observer.hears().await, Some(Phase::Ready));
            let ready = async {
                while !std::fs::read_to_string(&file).is_ok_and(|said| said == "ready\n") {
                    tokio::task::yield_now().await;
                }
            };
            timeout(DEADLINE, ready).await.expect("it starts");

            kill_process(getpid(), Signal::TERM).unwrap();
            let exit = timeout(DEADLINE, agent).await.expect("it ends").unwrap();
            assert_eq!(exit.unwrap(), ExitCode::from(128 + 15), "the shell's end");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "done\n");
            std::fs::remove_file(file).unwrap();
        });
    }

    #[test]
    fn what_an_app_leaves_behind_is_told_to_end_too() {
        let name = "what_an_app_leaves_behind_is_told_to_end_too";
        alone(module_path!(), name, async || {
            let file = scratch("rest");
            let mut settings = settings(&Observer::start());
            settings.restart = Policy::Never;
            settings.command = Some(shell(format!("{}; exit 7", slow_to_end(&file))));
            let exit = timeout(DEADLINE, run(settings)).await.expect("it ends");
            assert_eq!(exit.unwrap(), ExitCode::from(7));
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "done\n");
            std::fs::remove_file(file).unwrap();
        });
    }

    #[test]
    fn an_app_that_is_not_to_be_restarted_takes_its_agent_along() {
        let name = "an_app_that_is_not_to_be_restarted_takes_its_agent_along";
        alone(module_path!(), name, async || {
            let mut observer = Observer::start();
            let mut settings = settings(&observer);
            settings.restart = Policy::Never;
            let agent = AbortOnDropHandle::new(tokio::spawn(run(settings)));
            assert_eq!(observer.hears().await, Some(Phase::Ready));
            kill_process(getpid(), Signal::USR1).unwrap();
            while observer.hears().await.is_some() {}
            let exit = timeout(DEADLINE, agent)
                .await
                .expect("it ends")
                .unwrap()
                .unwrap();
            assert_eq!(exit, ExitCode::from(128 + 10));
        });
    }

    #[test]
    fn a_program_that_is_not_there_ends_the_agent_as_it_ends_a_shell() {
        let name = "a_program_that_is_not_there_ends_the_agent_as_it_ends_a_shell";
        alone(module_path!(), name, async || {
            let mut settings = settings(&Observer::start());
            settings.command = Some(Command {
                program: "/no/such/app".into(),
                arguments: Vec::new(),
            });
            assert_eq!(run(settings).await.unwrap(), ExitCode::from(127));
        });
    }

    #[test]
    fn an_announcement_that_fits_no_packet_is_an_error_before_the_app_starts() {
        let name = "an_announcement_that_fits_no_packet_is_an_error_before_the_app_starts";
        alone(module_path!(), name, async || {
            let file = scratch("unfit");
            let mut settings = settings(&Observer::start());
            let long = |key: &str| (key.to_owned(), "x".repeat(gossip::MAX_TAG_VALUE));
            settings.tags = ["a", "b", "c", "d"].map(long).into();
            settings.command = Some(shell(format!("echo started > {}", file.display())));
            let err = run(settings).await.unwrap_err().to_string();
            assert!(err.contains("shorten the tags"), "{err}");
            assert!(!file.exists(), "the app was started");
        });
    }

    #[tokio::test]
    async fn a_gossip_port_that_was_asked_for_and_is_taken_is_an_error() {
        let held = Sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = held.local_addr().unwrap();
        let err = bind(Some(addr)).unwrap_err().to_string();
        assert!(err.contains(&format!("--gossip {addr}")), "{err}");
    }
}
