//! The truth about servers, as a pure state machine: what gossip, probes and
//! traffic say goes in with the time, events come out, and the servers can be
//! described at any moment. No I/O, no clock of its own.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    rise_fall::{Health, Thresholds},
    server::{Cause, Check, CheckReport, FaultGate, Life, Live, Origin, Probe, Server, Status},
    snapshot::Snapshot,
};
use crate::membership::{Announcement, Member, MemberEvent, MemberId, Name, Phase, Role};

/// How long a server that gossip lost stays on the page.
const LOST_FOR: Duration = Duration::from_mins(1);

/// How long a departed server's figures wait for its return.
const REMEMBER_FOR: Duration = Duration::from_mins(10);

/// How many departed servers are remembered at the most; container names may
/// be random and never come back.
const REMEMBER_MOST: usize = 1024;

/// The most servers: with HAProxy's 4,095 for round robin as the order of
/// magnitude, and far below what one snapshot can hold.
const MOST_SERVERS: usize = 16_384;

/// A server named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticServer {
    /// Its name.
    pub name: Name,
    /// `HOST:PORT`; the host is resolved again from time to time.
    pub target: String,
    /// 0 to 256.
    pub weight: u16,
    /// How it is checked, `None` for not at all.
    pub check: Option<CheckPlan>,
}

/// How a server is checked from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckPlan {
    /// What a check does.
    pub check: Check,
    /// Time from one check to the next while nothing changes.
    pub interval: Duration,
    /// How many outcomes in a row change the verdict.
    pub thresholds: Thresholds,
}

/// Everything that can change the pool.
#[derive(Debug, Clone)]
pub enum Input {
    /// Gossip has news of a member.
    Member(MemberEvent),
    /// A static server's host name was resolved; `None`: it has no address.
    Resolved(Name, Option<SocketAddr>),
    /// A probe ended.
    Probed(Life, CheckReport),
    /// A request met a fault.
    Fault(Life, Fault),
}

/// A fault that a request met at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection was refused: nobody listens there.
    Refused,
    /// The connection broke. The app may have closed it for reasons of its
    /// own, so this only asks for a probe.
    Broken,
}

/// Something that happened to a server, for logs and timelines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The server.
    pub server: Name,
    /// What happened.
    pub what: Change,
}

/// What can happen to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new in the pool.
    Joined(Status),
    /// It said goodbye, or has been down for so long that it is forgotten.
    Left,
    /// Its status changed.
    Became(Status),
    /// It restarted, or moved to another address, under the same name.
    Replaced,
    /// It was refused: the pool is full.
    Refused,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self {
            Self::Left => return f.write_str("left"),
            Self::Replaced => return f.write_str("started anew under the same name"),
            Self::Refused => return write!(f, "is refused: {MOST_SERVERS} servers are the most"),
            Self::Joined(status) => {
                f.write_str("joined and ")?;
                status
            }
            Self::Became(status) => status,
        };
        match status {
            Status::Up => f.write_str("is UP"),
            Status::Suspect => f.write_str("is UP, but gossip suspects it"),
            Status::Drain => f.write_str("is DRAIN: it keeps its users and takes no new ones"),
            Status::Down(cause) => write!(f, "is DOWN, reason: {cause}"),
        }
    }
}

/// The pool's state machine.
#[derive(Debug)]
pub struct State {
    service: Name,
    entries: BTreeMap<Name, Entry>,
    /// Gossip speaks of lives, not of names.
    members: HashMap<MemberId, Name>,
    /// Figures of servers that left, for their return.
    departed: HashMap<Name, Departed>,
    cursor: Arc<AtomicUsize>,
    generation: u64,
    next_sid: u32,
    next_life: u64,
    last_loss: Option<Instant>,
}

#[derive(Debug)]
struct Departed {
    sid: u32,
    live: Arc<Live>,
    at: Instant,
}

impl State {
    /// The pool of `service` at start: static servers without an address yet.
    pub fn new(service: Name, servers: Vec<StaticServer>, now: Instant) -> Self {
        let mut state = Self {
            service,
            entries: BTreeMap::new(),
            members: HashMap::new(),
            departed: HashMap::new(),
            cursor: Arc::default(),
            generation: 0,
            next_sid: 1,
            next_life: 1,
            last_loss: None,
        };
        for server in servers {
            let (sid, live) = state.figures_for(&server.name);
            let life = state.begin_life();
            let entry = Entry::from_command_line(sid, life, live, &server, now);
            state.entries.insert(server.name, entry);
        }
        state
    }

    /// Takes one input and says what it changed.
    pub fn apply(&mut self, input: Input, now: Instant) -> Vec<Event> {
        match input {
            Input::Member(MemberEvent::Up(member)) => self.member_up(member, now),
            Input::Member(MemberEvent::Suspect(id)) => self.member_is(id, Liveness::Suspect, now),
            Input::Member(MemberEvent::Refuted(id)) => self.member_is(id, Liveness::Alive, now),
            Input::Member(MemberEvent::Down(id)) => self.member_is(id, Liveness::Lost, now),
            Input::Member(MemberEvent::Left(id)) => {
                let left = self.members.remove(&id);
                left.map_or_else(Vec::new, |name| self.depart(&name, now))
            }
            Input::Member(MemberEvent::HungUp(_) | MemberEvent::Wanted(_)) => Vec::new(),
            Input::Resolved(name, addr) => self.resolved(&name, addr, now),
            Input::Probed(life, report) => {
                self.update_life(life, now, |entry| entry.probed(report))
            }
            Input::Fault(life, fault) => self.update_life(life, now, |entry| entry.fault(fault)),
        }
    }

    /// Forgets what has waited long enough. To be called at
    /// [`next_deadline`](Self::next_deadline) or any time later.
    pub fn tick(&mut self, now: Instant) -> Vec<Event> {
        let overdue: Vec<Name> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.forget_at().is_some_and(|at| at <= now))
            .map(|(name, _)| name.clone())
            .collect();
        let events = overdue
            .iter()
            .flat_map(|name| self.depart(name, now))
            .collect();
        self.departed
            .retain(|_, departed| now < departed.at + REMEMBER_FOR);
        events
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let lost = self.entries.values().filter_map(Entry::forget_at);
        let departed = self.departed.values().map(|d| d.at + REMEMBER_FOR);
        lost.chain(departed).min()
    }

    /// Describes the pool as it is now. Descriptions of servers that did not
    /// change since the last call are shared with it.
    pub fn snapshot(&mut self) -> Snapshot {
        let servers = self
            .entries
            .iter_mut()
            .map(|(name, entry)| entry.describe(name))
            .collect();
        self.generation += 1;
        Snapshot::new(
            self.generation,
            servers,
            Arc::clone(&self.cursor),
            self.last_loss,
        )
    }

    fn member_up(&mut self, member: Member, now: Instant) -> Vec<Event> {
        let Role::Server(announced) = member.meta.role else {
            return Vec::new();
        };
        if announced.service != self.service {
            return Vec::new();
        }
        let name = member.meta.name;
        match self.entries.get(&name).map(|entry| entry.origin) {
            _ if announced.phase == Phase::Leaving => self.goodbye(member.id, &name, now),
            Some(Origin::Gossip(known)) if known == member.id => {
                self.update(&name, now, |entry| entry.announced(announced))
            }
            // Of two lives under one name the later counts; of two nodes that
            // share a name, the one that started last.
            Some(Origin::Gossip(known)) if known.epoch > member.id.epoch => Vec::new(),
            Some(Origin::Gossip(known)) => {
                self.members.remove(&known);
                self.replace(&name, member.id, announced, now)
            }
            // The command line is the operator's own word.
            Some(Origin::Static) => Vec::new(),
            None => self.join(name, member.id, announced, now),
        }
    }

    fn join(
        &mut self,
        name: Name,
        id: MemberId,
        announced: Announcement,
        now: Instant,
    ) -> Vec<Event> {
        if self.entries.len() >= MOST_SERVERS {
            let what = Change::Refused;
            return vec![Event { server: name, what }];
        }
        let (sid, live) = self.figures_for(&name);
        let life = self.begin_life();
        let entry = Entry::from_gossip(sid, life, live, id, announced, now);
        let what = Change::Joined(entry.status);
        self.members.insert(id, name.clone());
        self.entries.insert(name.clone(), entry);
        vec![Event { server: name, what }]
    }

    fn replace(
        &mut self,
        name: &Name,
        id: MemberId,
        announced: Announcement,
        now: Instant,
    ) -> Vec<Event> {
        let life = self.begin_life();
        self.members.insert(id, name.clone());
        let replaced = Event {
            server: name.clone(),
            what: Change::Replaced,
        };
        let became = self.update(name, now, |entry| {
            entry.begin(life);
            entry.origin = Origin::Gossip(id);
            entry.announced(announced);
        });
        [vec![replaced], became].concat()
    }

    /// A member says that it is leaving: its server takes no request at all.
    fn goodbye(&mut self, id: MemberId, name: &Name, now: Instant) -> Vec<Event> {
        match self.members.remove(&id) {
            Some(_) => self.depart(name, now),
            None => Vec::new(),
        }
    }

    fn depart(&mut self, name: &Name, now: Instant) -> Vec<Event> {
        let Some(entry) = self.entries.remove(name) else {
            return Vec::new();
        };
        if let Origin::Gossip(id) = entry.origin {
            self.members.remove(&id);
        }
        if entry.status == Status::Up {
            self.last_loss = Some(now);
        }
        if self.departed.len() >= REMEMBER_MOST {
            let oldest = self.departed.iter().min_by_key(|(_, d)| d.at);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.departed.remove(&name);
            }
        }
        let (sid, live) = (entry.sid, entry.live);
        let departed = Departed { sid, live, at: now };
        self.departed.insert(name.clone(), departed);
        vec![Event {
            server: name.clone(),
            what: Change::Left,
        }]
    }

    fn member_is(&mut self, id: MemberId, liveness: Liveness, now: Instant) -> Vec<Event> {
        let Some(name) = self.members.get(&id).cloned() else {
            return Vec::new();
        };
        self.update(&name, now, |entry| entry.liveness = liveness)
    }

    fn resolved(&mut self, name: &Name, addr: Option<SocketAddr>, now: Instant) -> Vec<Event> {
        let life = self.begin_life();
        self.update(name, now, |entry| {
            // A name server's bad minute does not unlearn an address that works.
            if addr.is_some() && addr != entry.addr {
                entry.begin(life);
                entry.addr = addr;
            }
        })
    }

    fn update_life(
        &mut self,
        life: Life,
        now: Instant,
        change: impl FnOnce(&mut Entry),
    ) -> Vec<Event> {
        let name = self
            .entries
            .iter()
            .find(|(_, entry)| entry.life == life)
            .map(|(name, _)| name.clone());
        name.map_or_else(Vec::new, |name| self.update(&name, now, change))
    }

    fn update(&mut self, name: &Name, now: Instant, change: impl FnOnce(&mut Entry)) -> Vec<Event> {
        let Some(entry) = self.entries.get_mut(name) else {
            return Vec::new();
        };
        change(entry);
        let (before, after) = (entry.status, entry.derive_status());
        entry.described = None;
        if before == after {
            return Vec::new();
        }
        entry.enter_status(after, now);
        if before == Status::Up {
            self.last_loss = Some(now);
        }
        vec![Event {
            server: name.clone(),
            what: Change::Became(after),
        }]
    }

    fn figures_for(&mut self, name: &Name) -> (u32, Arc<Live>) {
        if let Some(departed) = self.departed.remove(name) {
            return (departed.sid, departed.live);
        }
        let sid = self.next_sid;
        self.next_sid += 1;
        (sid, Arc::default())
    }

    fn begin_life(&mut self) -> Life {
        self.next_life += 1;
        Life(self.next_life)
    }
}

/// All that is known of one server.
#[derive(Debug)]
struct Entry {
    sid: u32,
    life: Life,
    origin: Origin,
    addr: Option<SocketAddr>,
    weight: u16,
    phase: Phase,
    tags: BTreeMap<String, String>,
    liveness: Liveness,
    plan: Option<CheckPlan>,
    health: Option<Health>,
    /// A connection was refused, and none has been accepted since.
    refused: bool,
    /// A connection broke; a probe shall tell whether the server is there.
    doubted: bool,
    last_check: Option<CheckReport>,
    failed_checks: u64,
    status: Status,
    since: Instant,
    downs: u64,
    downtime: Duration,
    live: Arc<Live>,
    faults: Arc<FaultGate>,
    described: Option<Arc<Server>>,
}

/// What gossip thinks of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Liveness {
    Alive,
    Suspect,
    Lost,
}

impl Entry {
    fn from_command_line(
        sid: u32,
        life: Life,
        live: Arc<Live>,
        server: &StaticServer,
        now: Instant,
    ) -> Self {
        let mut entry = Self {
            sid,
            life,
            origin: Origin::Static,
            addr: server.target.parse().ok(),
            weight: server.weight,
            phase: Phase::Ready,
            tags: BTreeMap::new(),
            liveness: Liveness::Alive,
            health: server
                .check
                .as_ref()
                .map(|plan| Health::unproven(plan.thresholds)),
            plan: server.check.clone(),
            refused: false,
            doubted: false,
            last_check: None,
            failed_checks: 0,
            status: Status::Up,
            since: now,
            downs: 0,
            downtime: Duration::ZERO,
            live,
            faults: Arc::default(),
            described: None,
        };
        entry.status = entry.derive_status();
        entry
    }

    fn from_gossip(
        sid: u32,
        life: Life,
        live: Arc<Live>,
        id: MemberId,
        announced: Announcement,
        now: Instant,
    ) -> Self {
        let mut entry = Self {
            sid,
            life,
            origin: Origin::Gossip(id),
            addr: Some(announced.addr),
            weight: announced.weight,
            phase: announced.phase,
            tags: announced.tags,
            liveness: Liveness::Alive,
            plan: None,
            health: None,
            refused: false,
            doubted: false,
            last_check: None,
            failed_checks: 0,
            status: Status::Up,
            since: now,
            downs: 0,
            downtime: Duration::ZERO,
            live,
            faults: Arc::default(),
            described: None,
        };
        entry.status = entry.derive_status();
        entry
    }

    /// Another life begins: what was met in the one before is about the past.
    fn begin(&mut self, life: Life) {
        self.life = life;
        self.refused = false;
        self.doubted = false;
        self.faults = Arc::default();
    }

    fn announced(&mut self, announced: Announcement) {
        // The app has just been seen to accept; what traffic met before that
        // is about the past.
        if announced.phase == Phase::Ready && self.phase != Phase::Ready {
            self.refused = false;
        }
        self.liveness = Liveness::Alive;
        self.addr = Some(announced.addr);
        self.weight = announced.weight;
        self.phase = announced.phase;
        self.tags = announced.tags;
    }

    fn probed(&mut self, report: CheckReport) {
        let passed = report.code.passed();
        if let Some(health) = &mut self.health {
            if health.is_up() && !passed {
                self.failed_checks += 1;
            }
            health.enter(passed);
            self.refused &= !health.is_up();
        } else {
            self.refused = !passed;
        }
        self.doubted = false;
        self.last_check = Some(report);
        self.faults.release();
    }

    fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Refused => {
                self.refused = true;
                if let Some(health) = &mut self.health {
                    health.fail();
                }
            }
            Fault::Broken => self.doubted = true,
        }
        self.faults.release();
    }

    fn derive_status(&self) -> Status {
        let unhealthy = self.health.is_some_and(|health| !health.is_up());
        match (self.phase, self.liveness) {
            _ if self.addr.is_none() => Status::Down(Cause::Unresolved),
            (Phase::Down | Phase::Leaving, _) => Status::Down(Cause::Agent),
            _ if self.refused => Status::Down(Cause::Refused),
            _ if unhealthy => Status::Down(Cause::Check),
            (_, Liveness::Lost) => Status::Down(Cause::Silent),
            (Phase::Draining, _) => Status::Drain,
            (Phase::Ready, Liveness::Suspect) => Status::Suspect,
            (Phase::Ready, Liveness::Alive) => Status::Up,
        }
    }

    fn enter_status(&mut self, status: Status, now: Instant) {
        match (self.status, status) {
            (Status::Down(_), Status::Down(_)) => {}
            (Status::Down(_), _) => self.downtime += now.saturating_duration_since(self.since),
            (_, Status::Down(_)) => self.downs += 1,
            _ => {}
        }
        let still_down = matches!((self.status, status), (Status::Down(_), Status::Down(_)));
        if !still_down {
            self.since = now;
        }
        self.status = status;
    }

    fn forget_at(&self) -> Option<Instant> {
        (self.status == Status::Down(Cause::Silent) || self.liveness == Liveness::Lost)
            .then(|| self.since + LOST_FOR)
    }

    /// What is to be probed. A server with a check of its own has its check,
    /// more often while the verdict is open; any other only after a fault.
    fn probe(&self) -> Option<Probe> {
        /// `HAProxy` calls it `fastinter`.
        const FAST: Duration = Duration::from_millis(500);
        match (&self.plan, self.health) {
            (Some(plan), Some(health)) => {
                let settled = !(self.refused || self.doubted || health.in_transition());
                let interval = if settled {
                    plan.interval
                } else {
                    plan.interval.min(FAST)
                };
                let check = plan.check.clone();
                Some(Probe::Check { check, interval })
            }
            _ => (self.refused || self.doubted).then_some(Probe::Recovery),
        }
    }

    fn describe(&mut self, name: &Name) -> Arc<Server> {
        if let Some(described) = &self.described {
            return Arc::clone(described);
        }
        let server = Arc::new(Server {
            sid: self.sid,
            life: self.life,
            name: name.clone(),
            addr: self.addr,
            weight: self.weight,
            status: self.status,
            since: self.since,
            origin: self.origin,
            tags: self.tags.clone(),
            probe: self.probe(),
            health: self.health,
            last_check: self.last_check.clone(),
            failed_checks: self.failed_checks,
            downs: self.downs,
            downtime: self.downtime,
            live: Arc::clone(&self.live),
            faults: Arc::clone(&self.faults),
        });
        self.described = Some(Arc::clone(&server));
        server
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{membership::Meta, pool::server::CheckCode};

    const SECOND: Duration = Duration::from_secs(1);

    struct Pool {
        state: State,
        now: Instant,
    }

    impl Pool {
        fn new(servers: Vec<StaticServer>) -> Self {
            let now = Instant::now();
            let service = "nodes".parse().unwrap();
            let state = State::new(service, servers, now);
            Self { state, now }
        }

        fn apply(&mut self, input: Input) -> Vec<Change> {
            let events = self.state.apply(input, self.now);
            events.into_iter().map(|event| event.what).collect()
        }

        fn up(&mut self, name: &str, epoch: u64, phase: Phase) -> Vec<Change> {
            self.apply(Input::Member(MemberEvent::Up(member(name, epoch, phase))))
        }

        fn after(&mut self, time: Duration) -> Vec<Change> {
            self.now += time;
            let events = self.state.tick(self.now);
            events.into_iter().map(|event| event.what).collect()
        }

        fn server(&mut self, name: &str) -> Arc<Server> {
            Arc::clone(self.state.snapshot().by_name(name).unwrap())
        }

        fn status(&mut self, name: &str) -> Status {
            self.server(name).status
        }

        fn rotation(&mut self) -> Vec<String> {
            let snapshot = self.state.snapshot();
            let names = snapshot
                .schedule
                .iter()
                .map(|index| snapshot.get(*index).unwrap());
            names.map(|server| server.name.to_string()).collect()
        }
    }

    fn id(name: &str, epoch: u64) -> MemberId {
        let host = name.trim_start_matches(|c: char| !c.is_ascii_digit());
        let addr = format!("127.0.0.{host}:7946").parse().unwrap();
        MemberId { addr, epoch }
    }

    fn member(name: &str, epoch: u64, phase: Phase) -> Member {
        let id = id(name, epoch);
        let announcement = Announcement {
            service: "nodes".parse().unwrap(),
            addr: SocketAddr::new(id.addr.ip(), 3000),
            weight: 1,
            phase,
            tags: BTreeMap::new(),
        };
        let role = Role::Server(announcement);
        let name = name.parse().unwrap();
        Member {
            id,
            meta: Meta { name, role },
        }
    }

    fn static_server(check: bool) -> StaticServer {
        let plan = CheckPlan {
            check: Check::Tcp,
            interval: 2 * SECOND,
            thresholds: Thresholds {
                rise: 2.try_into().unwrap(),
                fall: 3.try_into().unwrap(),
            },
        };
        StaticServer {
            name: "s1".parse().unwrap(),
            target: "127.0.0.1:3000".into(),
            weight: 1,
            check: check.then_some(plan),
        }
    }

    fn report(code: CheckCode) -> CheckReport {
        let took = Duration::from_millis(1);
        CheckReport {
            code,
            http_status: None,
            took,
        }
    }

    fn down(id: MemberId) -> Input {
        Input::Member(MemberEvent::Down(id))
    }

    #[test]
    fn a_server_takes_traffic_once_its_app_accepts() {
        let mut pool = Pool::new(Vec::new());
        let joined = pool.up("s1", 1, Phase::Down);
        assert_eq!(joined, [Change::Joined(Status::Down(Cause::Agent))]);
        assert!(pool.rotation().is_empty());
        assert_eq!(pool.up("s1", 1, Phase::Ready), [Change::Became(Status::Up)]);
        assert_eq!(pool.rotation(), ["s1"]);
    }

    #[test]
    fn servers_take_turns_in_the_order_of_their_names_however_they_joined() {
        let mut pool = Pool::new(Vec::new());
        for name in ["s10", "s2", "s1"] {
            pool.up(name, 1, Phase::Ready);
        }
        assert_eq!(pool.rotation(), ["s1", "s2", "s10"]);
    }

    #[test]
    fn a_draining_server_keeps_its_users_and_takes_no_new_ones() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        pool.up("s2", 1, Phase::Ready);
        pool.up("s1", 1, Phase::Draining);
        assert_eq!(pool.rotation(), ["s2"]);
        let server = pool.server("s1");
        assert!(server.keeps_users() && !server.keeps_connections());
    }

    #[test]
    fn a_server_that_says_goodbye_is_gone() {
        for goodbye in [
            Input::Member(MemberEvent::Up(member("s1", 1, Phase::Leaving))),
            Input::Member(MemberEvent::Left(id("s1", 1))),
        ] {
            let mut pool = Pool::new(Vec::new());
            pool.up("s1", 1, Phase::Ready);
            assert_eq!(pool.apply(goodbye), [Change::Left]);
            assert!(pool.state.snapshot().servers.is_empty());
        }
    }

    #[test]
    fn a_servers_figures_survive_its_absence() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        let before = pool.server("s1");
        before.live.counters.requests.add(5);
        pool.apply(Input::Member(MemberEvent::Left(id("s1", 1))));
        pool.after(60 * SECOND);
        pool.up("s1", 2, Phase::Ready);
        let after = pool.server("s1");
        assert_eq!(
            (after.sid, after.live.counters.requests.get()),
            (before.sid, 5)
        );
        assert_ne!(after.life, before.life);
    }

    #[test]
    fn the_cursor_goes_on_through_every_change() {
        let mut pool = Pool::new(Vec::new());
        let before = pool.state.snapshot();
        pool.up("s1", 1, Phase::Ready);
        assert!(Arc::ptr_eq(&before.cursor, &pool.state.snapshot().cursor));
    }

    #[test]
    fn a_restart_under_the_same_name_wins_and_late_word_of_the_old_life_is_ignored() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        let old = pool.server("s1");
        let mut moved = member("s1", 2, Phase::Ready);
        moved.id.addr = "127.0.0.9:7946".parse().unwrap();
        let changes = pool.apply(Input::Member(MemberEvent::Up(moved)));
        assert_eq!(changes, [Change::Replaced]);
        assert_eq!(pool.apply(down(id("s1", 1))), []);
        assert_eq!(pool.apply(Input::Fault(old.life, Fault::Refused)), []);
        assert_eq!(pool.status("s1"), Status::Up);
        assert_eq!(
            pool.up("s1", 1, Phase::Ready),
            [],
            "the older life comes too late"
        );
    }

    #[test]
    fn a_suspect_is_the_last_resort() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        pool.up("s2", 1, Phase::Ready);
        pool.apply(Input::Member(MemberEvent::Suspect(id("s1", 1))));
        assert_eq!(pool.rotation(), ["s2"]);
        pool.apply(Input::Member(MemberEvent::Suspect(id("s2", 1))));
        assert_eq!(pool.rotation(), ["s1", "s2"]);
        pool.apply(Input::Member(MemberEvent::Refuted(id("s1", 1))));
        assert_eq!(pool.rotation(), ["s1"]);
    }

    #[test]
    fn gossip_alone_never_empties_the_pool() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        pool.up("s2", 1, Phase::Ready);
        pool.apply(down(id("s1", 1)));
        assert_eq!(pool.rotation(), ["s2"]);
        pool.apply(down(id("s2", 1)));
        assert_eq!(pool.rotation(), ["s1", "s2"]);
    }

    #[test]
    fn a_lost_server_leaves_the_page_after_a_minute() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        pool.apply(down(id("s1", 1)));
        assert_eq!(pool.after(59 * SECOND), []);
        assert_eq!(pool.after(SECOND), [Change::Left]);
        assert!(pool.state.snapshot().servers.is_empty());
    }

    #[test]
    fn a_refused_connection_takes_a_server_out_until_a_probe_is_accepted() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        let life = pool.server("s1").life;
        assert_eq!(pool.server("s1").probe, None);
        let changes = pool.apply(Input::Fault(life, Fault::Refused));
        assert_eq!(changes, [Change::Became(Status::Down(Cause::Refused))]);
        assert_eq!(pool.server("s1").probe, Some(Probe::Recovery));
        assert_eq!(
            pool.apply(Input::Probed(life, report(CheckCode::L4Connection))),
            []
        );
        let changes = pool.apply(Input::Probed(life, report(CheckCode::L4Ok)));
        assert_eq!(changes, [Change::Became(Status::Up)]);
        assert_eq!(pool.server("s1").probe, None);
    }

    #[test]
    fn a_broken_connection_only_asks_for_a_probe() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        let life = pool.server("s1").life;
        assert_eq!(pool.apply(Input::Fault(life, Fault::Broken)), []);
        assert_eq!(pool.server("s1").probe, Some(Probe::Recovery));
        let changes = pool.apply(Input::Probed(life, report(CheckCode::L4Connection)));
        assert_eq!(changes, [Change::Became(Status::Down(Cause::Refused))]);
    }

    #[test]
    fn an_agent_that_sees_its_app_accept_again_clears_what_traffic_met() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        let life = pool.server("s1").life;
        pool.apply(Input::Fault(life, Fault::Refused));
        pool.up("s1", 1, Phase::Down);
        assert_eq!(pool.up("s1", 1, Phase::Ready), [Change::Became(Status::Up)]);
    }

    #[test]
    fn checks_take_a_static_server_down_and_bring_it_back() {
        let mut pool = Pool::new(vec![static_server(true)]);
        let life = pool.server("s1").life;
        let mut probed = |code| pool.apply(Input::Probed(life, report(code)));
        assert_eq!(probed(CheckCode::L4Ok), []);
        assert_eq!(probed(CheckCode::L4Timeout), []);
        assert_eq!(probed(CheckCode::L4Timeout), []);
        let down = Change::Became(Status::Down(Cause::Check));
        assert_eq!(probed(CheckCode::L4Timeout), [down]);
        assert_eq!(probed(CheckCode::L4Ok), []);
        assert_eq!(probed(CheckCode::L4Ok), [Change::Became(Status::Up)]);
        let server = pool.server("s1");
        assert_eq!((server.failed_checks, server.downs), (3, 1));
    }

    #[test]
    fn a_checked_server_that_refuses_traffic_is_down_at_once_and_checked_sooner() {
        let mut pool = Pool::new(vec![static_server(true)]);
        let life = pool.server("s1").life;
        pool.apply(Input::Fault(life, Fault::Refused));
        assert_eq!(pool.status("s1"), Status::Down(Cause::Refused));
        let probe = pool.server("s1").probe.clone();
        assert!(matches!(probe, Some(Probe::Check { interval, .. }) if interval < SECOND));
        pool.apply(Input::Probed(life, report(CheckCode::L4Ok)));
        pool.apply(Input::Probed(life, report(CheckCode::L4Ok)));
        assert_eq!(pool.status("s1"), Status::Up);
    }

    #[test]
    fn a_server_without_an_address_waits_for_one_and_a_new_one_is_a_new_life() {
        let mut server = static_server(false);
        server.target = "app:3000".into();
        let mut pool = Pool::new(vec![server]);
        assert_eq!(pool.status("s1"), Status::Down(Cause::Unresolved));
        let name: Name = "s1".parse().unwrap();
        let resolved = |addr: &str| Input::Resolved(name.clone(), Some(addr.parse().unwrap()));
        assert_eq!(
            pool.apply(resolved("10.0.0.1:3000")),
            [Change::Became(Status::Up)]
        );
        let first = pool.server("s1").life;
        pool.apply(Input::Resolved(name.clone(), None));
        assert_eq!(
            pool.server("s1").life,
            first,
            "an address that works is kept"
        );
        pool.apply(resolved("10.0.0.2:3000"));
        assert_ne!(pool.server("s1").life, first);
    }

    #[test]
    fn the_command_lines_server_is_not_replaced_by_a_member_of_its_name() {
        let mut pool = Pool::new(vec![static_server(false)]);
        assert_eq!(pool.up("s1", 1, Phase::Ready), []);
        assert_eq!(pool.server("s1").origin, Origin::Static);
    }

    #[test]
    fn other_services_and_balancers_are_not_in_the_pool() {
        let mut pool = Pool::new(Vec::new());
        let mut other = member("s1", 1, Phase::Ready);
        if let Role::Server(announcement) = &mut other.meta.role {
            announcement.service = "api".parse().unwrap();
        }
        let mut balancer = member("s2", 1, Phase::Ready);
        balancer.meta.role = Role::Balancer;
        for member in [other, balancer] {
            assert_eq!(pool.apply(Input::Member(MemberEvent::Up(member))), []);
        }
    }

    #[test]
    fn downtime_adds_up_over_the_times_a_server_was_down() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        for _ in 0..2 {
            pool.up("s1", 1, Phase::Down);
            pool.after(10 * SECOND);
            pool.up("s1", 1, Phase::Ready);
            pool.after(10 * SECOND);
        }
        let server = pool.server("s1");
        assert_eq!((server.downs, server.downtime(pool.now)), (2, 20 * SECOND));
    }

    #[test]
    fn a_server_that_did_not_change_is_described_once() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        let before = pool.server("s1");
        pool.up("s2", 1, Phase::Ready);
        assert!(Arc::ptr_eq(&before, &pool.server("s1")));
    }

    fn any_input() -> impl Strategy<Value = Input> {
        let phase = prop_oneof![
            Just(Phase::Down),
            Just(Phase::Ready),
            Just(Phase::Draining),
            Just(Phase::Leaving),
        ];
        let name = prop_oneof![Just("s1"), Just("s2"), Just("s3")];
        let member_event = (name, 1u64..4, phase, 0..5).prop_map(|(name, epoch, phase, kind)| {
            Input::Member(match kind {
                0 => MemberEvent::Suspect(id(name, epoch)),
                1 => MemberEvent::Refuted(id(name, epoch)),
                2 => MemberEvent::Down(id(name, epoch)),
                3 => MemberEvent::Left(id(name, epoch)),
                _ => MemberEvent::Up(member(name, epoch, phase)),
            })
        });
        let life = (1u64..12).prop_map(Life);
        let fault = life
            .clone()
            .prop_map(|life| Input::Fault(life, Fault::Refused));
        let probed = (life, any::<bool>()).prop_map(|(life, passed)| {
            let code = if passed {
                CheckCode::L4Ok
            } else {
                CheckCode::L4Connection
            };
            Input::Probed(life, report(code))
        });
        prop_oneof![4 => member_event, 1 => fault, 1 => probed]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_snapshot_is_sound(
            inputs in proptest::collection::vec((any_input(), 0u32..40), 0..60)
        ) {
            let mut pool = Pool::new(Vec::new());
            let mut generation = 0;
            for (input, pause) in inputs {
                pool.apply(input);
                pool.after(SECOND * pause);
                let snapshot = pool.state.snapshot();
                prop_assert!(snapshot.generation > generation);
                generation = snapshot.generation;
                prop_assert!(snapshot.servers.is_sorted_by_key(|server| &server.name));
                for index in &snapshot.schedule {
                    let server = snapshot.get(*index).unwrap();
                    let refused = server.status == Status::Down(Cause::Refused);
                    prop_assert!(!refused && server.status != Status::Drain);
                }
                let any_up = snapshot.servers.iter().any(|server| server.takes_new_users());
                prop_assert!(!any_up || snapshot.can_serve());
            }
        }
    }
}
