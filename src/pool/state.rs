//! The truth about servers, as a pure state machine: what gossip, probes and
//! traffic say goes in with the time, events come out, and the servers can be
//! described at any moment. No I/O, no clock of its own.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    entry::{Entry, LOST_FOR, Liveness},
    quarantine::Record,
    rise_fall::Thresholds,
    server::{Cause, Check, CheckAt, CheckReport, Life, Live, Origin, Status},
    snapshot::Snapshot,
    tally::Tally,
    words::Roll,
};
use crate::membership::{
    Admin, Announcement, Intent, Member, MemberEvent, MemberId, Name, Phase, Role, Wish,
};

/// How long a departed server's figures wait for its return.
const REMEMBER_FOR: Duration = Duration::from_mins(10);

/// How many departed servers are remembered at the most; container names may
/// be random and never come back.
const REMEMBER_MOST: usize = 1024;

/// How long a life that was replaced may take to be found dead: longer than
/// gossip needs.
const RIVAL_ENDS: Duration = Duration::from_secs(10);

/// How many servers' crashes are remembered at the most, and how many
/// operators' wishes: for names that are not there either may be made up.
const RECORDS_MOST: usize = 4096;

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
    /// What else is said of it, such as how connections to it are made.
    pub tags: BTreeMap<String, String>,
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
    /// An operator tells this balancer alone something about a server.
    Told(Name, Order),
    /// An operator adds a server that no agent announces, in maintenance and
    /// with its checks off.
    Added(StaticServer),
    /// An operator removes a server that is in maintenance.
    Removed(Name),
    /// An operator has the counters of one server, or of all, start from zero.
    CountersCleared(Option<Name>),
}

/// What an operator tells one balancer about a server. What all balancers
/// shall know travels by gossip, as a [`Wish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// How it is, until a check says otherwise.
    Health(Verdict),
    /// Whether its checks are on.
    Checks(bool),
    /// Where its checks connect to.
    CheckAt(CheckAt),
    /// Requests that it takes at a time, `None` for as many as come.
    Maxconn(Option<NonZeroU32>),
}

/// What an operator says of a server's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is well.
    Up,
    /// It is well, but wants no new users.
    Stopping,
    /// It is not well.
    Down,
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
    /// How trouble was found out, where it was.
    pub detected: Option<Detection>,
}

/// How a server's trouble was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detection {
    /// The first sign of it.
    pub sign: Sign,
    /// From that sign to the change in the pool.
    pub took: Duration,
}

/// A sign that a server is in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Its agent says so: the app ended, or does not accept.
    Agent,
    /// The agent's lifeline broke.
    Lifeline,
    /// A request met a refused or broken connection.
    Traffic,
    /// A check failed.
    Check,
    /// It did not answer gossip.
    Gossip,
}

impl Sign {
    /// Every sign there is.
    pub const ALL: [Self; 5] = [
        Self::Agent,
        Self::Lifeline,
        Self::Traffic,
        Self::Check,
        Self::Gossip,
    ];

    /// The sign as events and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Lifeline => "lifeline",
            Self::Traffic => "traffic",
            Self::Check => "check",
            Self::Gossip => "gossip",
        }
    }
}

impl Event {
    fn plain(server: Name, what: Change) -> Self {
        let detected = None;
        Self {
            server,
            what,
            detected,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.server, self.what)?;
        match self.detected {
            Some(Detection { sign, took }) => {
                let millis = took.as_secs_f64() * 1000.0;
                write!(f, ", first sign: {}, {millis:.1} ms before", sign.as_str())
            }
            None => Ok(()),
        }
    }
}

/// Whether a server that took traffic a moment ago ended up so by a fault of
/// its own.
fn is_crash(status: Status) -> bool {
    matches!(
        status,
        Status::Down(Cause::Agent | Cause::Refused | Cause::Check | Cause::Silent)
    )
}

/// What can happen to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new in the pool.
    Joined(Status),
    /// It said goodbye, or has been down for so long that it is forgotten.
    Left,
    /// An operator removed it.
    Removed,
    /// Its status changed.
    Became(Status),
    /// It restarted, or moved to another address, under the same name.
    Replaced,
    /// Another node of its name, which started earlier, is alive as well.
    Clash,
    /// It was refused: the pool is full.
    Refused,
}

impl Change {
    /// What happened, in a word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Joined(_) => "joined",
            Self::Left => "left",
            Self::Removed => "removed",
            Self::Became(Status::Up) => "up",
            Self::Became(Status::Suspect) => "suspect",
            Self::Became(Status::Drain) => "drain",
            Self::Became(Status::Maint) => "maint",
            Self::Became(Status::Down(Cause::Quarantine)) => "quarantine",
            Self::Became(Status::Down(_)) => "down",
            Self::Replaced => "replaced",
            Self::Clash => "clash",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self {
            Self::Left => return f.write_str("left"),
            Self::Removed => return f.write_str("was removed by an operator"),
            Self::Replaced => return f.write_str("started anew under the same name"),
            Self::Clash => {
                return f.write_str(
                    "is two nodes at once: the one that started last counts; give each its own --name",
                );
            }
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
            Status::Maint => f.write_str("is going DOWN for maintenance"),
        }
    }
}

/// The pool's state machine.
#[derive(Debug)]
pub struct State {
    service: Name,
    /// Requests that a server takes at a time if it says nothing else.
    server_maxconn: Option<NonZeroU32>,
    entries: BTreeMap<Name, Entry>,
    /// Sums over the entries; whoever changes one enters it here.
    tally: Tally,
    /// Gossip speaks of lives, not of names.
    members: HashMap<MemberId, Name>,
    /// Figures of servers that left, for their return.
    departed: HashMap<Name, Departed>,
    /// Members that have a server's name without being that server: lives
    /// that were replaced and may be there still, and nodes of the same name.
    rivals: HashMap<MemberId, Rival>,
    /// Who crashed, and how often of late; by name, whoever runs under it.
    crashes: HashMap<Name, Record>,
    /// What operators want, also of servers that are not there.
    wishes: HashMap<Name, Wishes>,
    cursor: Arc<AtomicUsize>,
    generation: u64,
    next_sid: u32,
    next_life: u64,
    last_loss: Option<Instant>,
    /// Since when gossip has heard any server at all.
    hears_since: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Wishes {
    state: Option<Wish>,
    weight: Option<Wish>,
}

#[derive(Debug)]
struct Rival {
    name: Name,
    announced: Announcement,
    since: Instant,
    /// It took requests when it was replaced.
    was_able: bool,
    told_of: bool,
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
            server_maxconn: None,
            entries: BTreeMap::new(),
            tally: Tally::default(),
            members: HashMap::new(),
            departed: HashMap::new(),
            rivals: HashMap::new(),
            crashes: HashMap::new(),
            wishes: HashMap::new(),
            cursor: Arc::default(),
            generation: 0,
            next_sid: 1,
            next_life: 1,
            // Servers may be on their way back to a balancer that restarts.
            last_loss: Some(now),
            hears_since: None,
        };
        for server in servers {
            let (sid, live) = state.figures_for(&server.name);
            let life = state.begin_life();
            let entry = Entry::from_command_line(sid, life, live, &server, now);
            state.insert(&server.name, entry, now);
        }
        state
    }

    /// The same where a server takes only so many requests at a time unless it
    /// says otherwise.
    #[must_use]
    pub fn with_server_maxconn(mut self, limit: Option<NonZeroU32>, now: Instant) -> Self {
        self.server_maxconn = limit;
        let names: Vec<Name> = self.entries.keys().cloned().collect();
        for name in names {
            self.update(&name, now, |entry| entry.set_usual_maxconn(limit));
        }
        self
    }

    /// Takes one input and says what it changed.
    pub fn apply(&mut self, input: Input, now: Instant) -> Vec<Event> {
        let events = self.take(input, now);
        let hears = self.tally.hears();
        self.hears_since = hears.then(|| self.hears_since.unwrap_or(now));
        events
    }

    fn take(&mut self, input: Input, now: Instant) -> Vec<Event> {
        match input {
            Input::Member(MemberEvent::Up(member)) => self.member_up(member, now),
            Input::Member(MemberEvent::Suspect(id)) => {
                self.update_member(id, now, |entry| entry.alive(Liveness::Suspect, now))
            }
            Input::Member(MemberEvent::Refuted(id)) => {
                self.update_member(id, now, |entry| entry.alive(Liveness::Alive, now))
            }
            Input::Member(MemberEvent::Down(id)) => self.lost(id, now),
            Input::Member(MemberEvent::Left(id)) => match self.members.get(&id).cloned() {
                Some(name) => self.goodbye(id, &name, now),
                None => self.rival_ended(id, false, now),
            },
            Input::Member(MemberEvent::HungUp(id)) if self.rivals.contains_key(&id) => {
                self.rival_ended(id, true, now)
            }
            Input::Member(MemberEvent::HungUp(id)) => {
                self.update_member(id, now, |entry| entry.hung_up(now))
            }
            Input::Member(MemberEvent::Wanted(intent)) => self.wanted(&intent, now),
            Input::Resolved(name, addr) => self.resolved(&name, addr, now),
            Input::Probed(life, report) => {
                self.update_life(life, now, |entry| entry.probed(report, now))
            }
            Input::Fault(life, fault) => {
                self.update_life(life, now, |entry| entry.fault(fault, now))
            }
            Input::Told(name, order) => self.update(&name, now, |entry| entry.told(order)),
            Input::Added(server) => self.add(&server, now),
            Input::Removed(name) => match self.entries.get(&name) {
                Some(entry) if entry.is_removable() => self.depart(&name, Change::Removed, now),
                _ => Vec::new(),
            },
            Input::CountersCleared(name) => self.clear_counters(name.as_ref()),
        }
    }

    /// Forgets what has waited long enough. To be called at
    /// [`next_deadline`](Self::next_deadline) or any time later.
    pub fn tick(&mut self, now: Instant) -> Vec<Event> {
        let forgotten = |entry: &Entry| self.forget_at(entry).is_some_and(|at| at <= now);
        let overdue: Vec<Name> = self
            .timed()
            .filter(|(_, entry)| forgotten(entry))
            .map(|(name, _)| name.clone())
            .collect();
        let mut events: Vec<Event> = overdue
            .iter()
            .flat_map(|name| self.depart(name, Change::Left, now))
            .collect();
        let changing: Vec<Name> = self
            .timed()
            .filter(|(_, entry)| entry.changes_by_time())
            .map(|(name, _)| name.clone())
            .collect();
        for name in changing {
            events.extend(self.update(&name, now, |entry| entry.ease_in(now)));
        }
        events.extend(self.tell_of_clashes(now));
        self.departed
            .retain(|_, departed| now < departed.at + REMEMBER_FOR);
        self.crashes.retain(|_, record| now < record.forgotten_at());
        events
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let changing = self
            .timed()
            .filter_map(|(_, entry)| entry.next_deadline(now));
        let lost = self.timed().filter_map(|(_, entry)| self.forget_at(entry));
        let departed = self.departed.values().map(|d| d.at + REMEMBER_FOR);
        let untold = self.rivals.values().filter(|rival| !rival.told_of);
        let clashes = untold.map(|rival| rival.since + RIVAL_ENDS);
        let all = changing.chain(lost).chain(departed).chain(clashes);
        all.min()
    }

    /// The servers that time alone may change.
    fn timed(&self) -> impl Iterator<Item = (&Name, &Entry)> {
        let entry = |name| Some((name, self.entries.get(name)?));
        self.tally.timed().filter_map(entry)
    }

    /// When a server that is lost is forgotten. Who hears no server at all is
    /// more likely cut off than alone: it keeps its last pool, and once it
    /// hears one again it gives the others as long to be heard.
    fn forget_at(&self, entry: &Entry) -> Option<Instant> {
        let lost_for_long = entry.forget_at()?;
        match entry.status {
            Status::Down(Cause::Silent) => Some(lost_for_long.max(self.hears_since? + LOST_FOR)),
            _ => Some(lost_for_long),
        }
    }

    /// Describes the pool as it is now. Descriptions of servers that did not
    /// change since the last call are shared with it.
    pub fn snapshot(&mut self) -> Snapshot {
        let key = &self.tally.lasting.name_key;
        let servers = self
            .entries
            .iter_mut()
            .map(|(name, entry)| entry.describe(name, key))
            .collect();
        self.generation += 1;
        let is_limited = self.tally.is_limited();
        Snapshot::new(
            self.generation,
            servers,
            Arc::clone(&self.cursor),
            self.last_loss,
            &mut self.tally.lasting,
        )
        .limited(is_limited)
    }

    /// How the pool stands, for whoever is told of a change of that server.
    pub(super) fn roll(&self, name: &Name) -> Roll {
        let live = self.entries.get(name).map(|entry| &entry.live);
        let live = live.or_else(|| self.departed.get(name).map(|departed| &departed.live));
        Roll {
            active: self.tally.active(),
            up: self.tally.up(),
            sessions: live.map_or(0, |live| live.counters.active.get()),
            waiting: live.map_or(0, |live| live.counters.waiting.get()),
            can_serve: self.tally.can_serve(),
        }
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
                self.update(&name, now, |entry| entry.announced(announced, now))
            }
            Some(Origin::Gossip(known)) if self.outranks(member.id, &announced, known, &name) => {
                self.take_over(&name, member.id, announced, now)
            }
            Some(Origin::Gossip(_)) => {
                self.keep_rival(member.id, name, announced, now);
                Vec::new()
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
            return vec![Event::plain(name, Change::Refused)];
        }
        // It may have waited for the one before it to go.
        self.rivals.remove(&id);
        let (sid, live) = self.figures_for(&name);
        let life = self.begin_life();
        let mut entry = Entry::from_gossip(sid, life, live, id, announced, now);
        if let Some(record) = self.crashes.get(&name) {
            entry.keep_out(Some(record.out_until()));
        }
        for wish in self.wishes_for(&name) {
            entry.wanted(wish);
        }
        self.members.insert(id, name.clone());
        self.insert(&name, entry, now);
        let what = Change::Joined(self.entries.get(&name).map_or(Status::Up, |e| e.status));
        vec![Event::plain(name, what)]
    }

    fn add(&mut self, server: &StaticServer, now: Instant) -> Vec<Event> {
        let name = &server.name;
        if self.entries.contains_key(name) {
            return Vec::new();
        }
        if self.entries.len() >= MOST_SERVERS {
            return vec![Event::plain(name.clone(), Change::Refused)];
        }
        let (sid, live) = self.figures_for(name);
        let life = self.begin_life();
        let mut entry = Entry::from_command_line(sid, life, live, server, now);
        entry.admin = Admin::Maint;
        entry.checks_off = true;
        self.insert(name, entry, now);
        vec![Event::plain(name.clone(), Change::Joined(Status::Maint))]
    }

    fn insert(&mut self, name: &Name, mut entry: Entry, now: Instant) {
        entry.set_usual_maxconn(self.server_maxconn);
        let former = self.entries.insert(name.clone(), entry);
        // Only now, beside the others, can it be told how it stands.
        self.settle(name, now);
        let part = self.entries.get(name).map(Entry::part);
        let former = former.map(|entry| entry.part());
        self.tally.enter(name, former, part);
    }

    fn clear_counters(&mut self, only: Option<&Name>) -> Vec<Event> {
        for (name, entry) in &mut self.entries {
            if only.is_none_or(|only| only == name) {
                entry.clear_counters();
                entry.described = None;
            }
        }
        if only.is_none() {
            for departed in self.departed.values_mut() {
                departed.live = Arc::default();
            }
        }
        Vec::new()
    }

    /// Of two lives under one name the later counts, and of two nodes that
    /// share a name the one that started last; but not before it is ready
    /// where the other one serves.
    fn outranks(
        &self,
        id: MemberId,
        announced: &Announcement,
        holder: MemberId,
        name: &Name,
    ) -> bool {
        let holder_serves = self.entries.get(name).is_some_and(Entry::is_able);
        id.epoch > holder.epoch && (announced.phase == Phase::Ready || !holder_serves)
    }

    fn take_over(
        &mut self,
        name: &Name,
        id: MemberId,
        announced: Announcement,
        now: Instant,
    ) -> Vec<Event> {
        self.rivals.remove(&id);
        self.demote(name, now);
        let life = self.begin_life();
        self.members.insert(id, name.clone());
        let replaced = Event::plain(name.clone(), Change::Replaced);
        let became = self.update(name, now, |entry| {
            entry.begin(life);
            entry.origin = Origin::Gossip(id);
            entry.announced(announced, now);
        });
        [vec![replaced], became].concat()
    }

    /// Makes a rival of the server that holds the name: it may be there still.
    fn demote(&mut self, name: &Name, now: Instant) {
        let Some(entry) = self.entries.get(name) else {
            return;
        };
        let Origin::Gossip(id) = entry.origin else {
            return;
        };
        self.members.remove(&id);
        if entry.is_lost() {
            return;
        }
        if let Some(announced) = entry.announcement(&self.service) {
            let was_able = entry.is_able();
            self.keep_rival(id, name.clone(), announced, now);
            if let Some(rival) = self.rivals.get_mut(&id) {
                rival.was_able = was_able;
            }
        }
    }

    fn keep_rival(&mut self, id: MemberId, name: Name, announced: Announcement, now: Instant) {
        if let Some(rival) = self.rivals.get_mut(&id) {
            rival.announced = announced;
        } else if self.rivals.len() < RECORDS_MOST {
            let rival = Rival {
                name,
                announced,
                since: now,
                was_able: false,
                told_of: false,
            };
            self.rivals.insert(id, rival);
        }
    }

    /// A rival is no more. One that was replaced while it took requests, and
    /// never said goodbye, has crashed, whether or not anyone noticed in time.
    fn rival_ended(&mut self, id: MemberId, by_fault: bool, now: Instant) -> Vec<Event> {
        if let Some(rival) = self.rivals.remove(&id)
            && by_fault
            && rival.was_able
        {
            self.enter_crash(&rival.name, now);
            return self.update(&rival.name, now, |_| {});
        }
        Vec::new()
    }

    /// Gossip has lost a member.
    fn lost(&mut self, id: MemberId, now: Instant) -> Vec<Event> {
        let Some(name) = self.members.get(&id).cloned() else {
            return self.rival_ended(id, true, now);
        };
        let mut events = self.update(&name, now, |entry| entry.alive(Liveness::Lost, now));
        events.extend(self.succeed(&name, now));
        events
    }

    /// Gives the name of a server that is gone to the latest of those that
    /// have it as well.
    fn succeed(&mut self, name: &Name, now: Instant) -> Vec<Event> {
        let ready = |rival: &Rival| rival.name == *name && rival.announced.phase == Phase::Ready;
        let heirs = self.rivals.iter().filter(|(_, rival)| ready(rival));
        let Some(id) = heirs.map(|(id, _)| *id).max_by_key(|id| id.epoch) else {
            return Vec::new();
        };
        let Some(rival) = self.rivals.remove(&id) else {
            return Vec::new();
        };
        if self.entries.contains_key(name) {
            self.take_over(name, id, rival.announced, now)
        } else {
            self.join(name.clone(), id, rival.announced, now)
        }
    }

    /// A member says that it is leaving: its server takes no request at all.
    fn goodbye(&mut self, id: MemberId, name: &Name, now: Instant) -> Vec<Event> {
        if self.members.remove(&id).is_none() {
            return self.rival_ended(id, false, now);
        }
        let mut events = self.depart(name, Change::Left, now);
        events.extend(self.succeed(name, now));
        events
    }

    fn depart(&mut self, name: &Name, how: Change, now: Instant) -> Vec<Event> {
        let Some(entry) = self.entries.remove(name) else {
            return Vec::new();
        };
        self.tally.enter(name, Some(entry.part()), None);
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
        vec![Event::plain(name.clone(), how)]
    }

    fn update_member(
        &mut self,
        id: MemberId,
        now: Instant,
        change: impl FnOnce(&mut Entry),
    ) -> Vec<Event> {
        let Some(name) = self.members.get(&id).cloned() else {
            return Vec::new();
        };
        self.update(&name, now, change)
    }

    fn wanted(&mut self, intent: &Intent, now: Instant) -> Vec<Event> {
        let known = self.wishes.contains_key(&intent.server);
        if intent.service != self.service || (!known && self.wishes.len() >= RECORDS_MOST) {
            return Vec::new();
        }
        let wishes = self.wishes.entry(intent.server.clone()).or_default();
        match intent.wish {
            Wish::State(_) => wishes.state = Some(intent.wish),
            Wish::Weight(_) => wishes.weight = Some(intent.wish),
        }
        self.update(&intent.server, now, |entry| entry.wanted(intent.wish))
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
        let name = self.tally.name_of(life).cloned();
        name.map_or_else(Vec::new, |name| self.update(&name, now, change))
    }

    fn update(&mut self, name: &Name, now: Instant, change: impl FnOnce(&mut Entry)) -> Vec<Event> {
        let Some(entry) = self.entries.get_mut(name) else {
            return Vec::new();
        };
        let before = entry.part();
        change(entry);
        entry.described = None;
        let detected = self.settle(name, now);
        let after = self.entries.get(name).map_or(before.status, |e| e.status);
        let came_down = matches!(before.status, Status::Up | Status::Suspect) && is_crash(after);
        if came_down {
            self.enter_crash(name, now);
        }
        let part = self.entries.get(name).map(Entry::part);
        self.tally.enter(name, Some(before), part);
        if before.status == after {
            return Vec::new();
        }
        if before.status == Status::Up {
            self.last_loss = Some(now);
        }
        vec![Event {
            server: name.clone(),
            what: Change::Became(after),
            detected,
        }]
    }

    /// Gives a server the status that follows from what is known of it.
    fn settle(&mut self, name: &Name, now: Instant) -> Option<Detection> {
        let quarantined = Status::Down(Cause::Quarantine);
        let in_quarantine = |entry: &&Entry| entry.status == quarantined;
        let entry = self.entries.get(name)?;
        let mut status = entry.derive_status(now);
        if status == quarantined && entry.status != quarantined {
            // Never more than half of those that could serve are kept out.
            let others = || self.entries.values().filter(|other| other.sid != entry.sid);
            let kept_out = others().filter(in_quarantine).count() + 1;
            let able = others().filter(|other| other.is_able()).count() + 1;
            if kept_out * 2 > able {
                self.entries.get_mut(name)?.keep_out(None);
                status = self.entries.get(name)?.derive_status(now);
            }
        }
        let entry = self.entries.get_mut(name)?;
        if entry.status == status {
            return None;
        }
        entry.enter_status(status, now)
    }

    fn enter_crash(&mut self, name: &Name, now: Instant) {
        let before = self.crashes.get(name).copied();
        if before.is_none() && self.crashes.len() >= RECORDS_MOST {
            return;
        }
        let record = Record::crashed(before, now);
        self.crashes.insert(name.clone(), record);
        if let Some(entry) = self.entries.get_mut(name) {
            entry.keep_out(Some(record.out_until()));
        }
    }

    /// A rival that has neither ended nor failed for a while is another node
    /// of that name.
    fn tell_of_clashes(&mut self, now: Instant) -> Vec<Event> {
        let overdue = |rival: &&mut Rival| !rival.told_of && now >= rival.since + RIVAL_ENDS;
        let telling = self.rivals.values_mut().filter(overdue).map(|rival| {
            rival.told_of = true;
            Event::plain(rival.name.clone(), Change::Clash)
        });
        telling.collect()
    }

    fn wishes_for(&self, name: &Name) -> impl Iterator<Item = Wish> + use<> {
        let wishes = self.wishes.get(name).copied().unwrap_or_default();
        wishes.state.into_iter().chain(wishes.weight)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        counters::Slot,
        membership::Meta,
        pool::{
            server::{CheckCode, Probe, Server},
            snapshot::Lasting,
        },
    };

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
            tags: BTreeMap::new(),
        }
    }

    fn report(code: CheckCode) -> CheckReport {
        let took = Duration::from_millis(1);
        CheckReport {
            code,
            http_status: None,
            info: None,
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
        assert!(server.keeps_users());
        assert_eq!(server.keeps_connections_for(), Some(SECOND));
    }

    #[test]
    fn a_balancer_that_is_cut_off_for_long_keeps_its_last_pool() {
        let mut pool = Pool::new(Vec::new());
        for name in ["s1", "s2"] {
            pool.up(name, 1, Phase::Ready);
            pool.apply(down(id(name, 1)));
        }
        assert!(pool.after(Duration::from_mins(10)).is_empty());
        assert_eq!(pool.rotation(), ["s1", "s2"]);
        assert_eq!(pool.state.next_deadline(pool.now), None);
        // Once it hears one again, it waits for the other before it forgets it.
        pool.up("s1", 1, Phase::Ready);
        assert!(pool.after(59 * SECOND).is_empty());
        assert_eq!(pool.after(SECOND), [Change::Left]);
        assert_eq!(pool.rotation(), ["s1"]);
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
        before
            .live
            .counters
            .of(Slot::new(0))
            .traffic
            .requests
            .add(5);
        pool.apply(Input::Member(MemberEvent::Left(id("s1", 1))));
        pool.after(60 * SECOND);
        pool.up("s1", 2, Phase::Ready);
        let after = pool.server("s1");
        assert_eq!((after.sid, after.live.counters.requests()), (before.sid, 5));
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
        pool.up("s2", 1, Phase::Ready);
        pool.apply(down(id("s1", 1)));
        assert_eq!(pool.after(59 * SECOND), []);
        assert_eq!(pool.after(SECOND), [Change::Left]);
        assert_eq!(pool.rotation(), ["s2"]);
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
        assert_eq!(pool.server("s1").probe, Some(Probe::Confirm));
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

    fn wanted(server: &str, wish: Wish) -> Input {
        let version = crate::membership::Version {
            clock: 1,
            writer: "127.0.0.9:7946".parse().unwrap(),
        };
        let intent = Intent {
            service: "nodes".parse().unwrap(),
            server: server.parse().unwrap(),
            wish,
            version,
        };
        Input::Member(MemberEvent::Wanted(intent))
    }

    #[test]
    fn an_operator_takes_a_server_out_drains_it_and_gives_it_back() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        pool.up("s2", 1, Phase::Ready);
        let maint = pool.apply(wanted("s1", Wish::State(Admin::Maint)));
        assert_eq!(maint, [Change::Became(Status::Maint)]);
        assert_eq!(pool.rotation(), ["s2"]);
        assert!(!pool.server("s1").keeps_users());
        pool.apply(wanted("s1", Wish::State(Admin::Drain)));
        assert!(pool.server("s1").keeps_users());
        assert_eq!(pool.rotation(), ["s2"]);
        pool.apply(wanted("s1", Wish::State(Admin::Ready)));
        assert_eq!(pool.rotation(), ["s1", "s2"]);
    }

    #[test]
    fn a_wish_waits_for_its_server_and_outlives_it() {
        let mut pool = Pool::new(Vec::new());
        pool.apply(wanted("s1", Wish::State(Admin::Drain)));
        pool.apply(wanted("s1", Wish::Weight(Some(7))));
        for epoch in 1..3 {
            pool.up("s1", epoch, Phase::Ready);
            let server = pool.server("s1");
            assert_eq!((server.status, server.weight), (Status::Drain, 7));
            pool.apply(Input::Member(MemberEvent::Left(id("s1", epoch))));
        }
        pool.apply(wanted("s1", Wish::Weight(None)));
        pool.up("s1", 3, Phase::Ready);
        assert_eq!(pool.server("s1").weight, 1);
    }

    #[test]
    fn a_lifeline_that_breaks_is_looked_into_before_it_is_believed() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        let life = pool.server("s1").life;
        let hung_up = Input::Member(MemberEvent::HungUp(id("s1", 1)));
        assert_eq!(pool.apply(hung_up.clone()), []);
        assert_eq!(pool.server("s1").probe, Some(Probe::Confirm));
        // The app outlives its agent by a moment; one look is not enough.
        pool.apply(Input::Probed(life, report(CheckCode::L4Ok)));
        assert_eq!(pool.server("s1").probe, Some(Probe::Confirm));
        pool.now += Duration::from_millis(20);
        let refused = Input::Probed(life, report(CheckCode::L4Connection));
        let events = pool.state.apply(refused, pool.now);
        assert_eq!(events[0].what, Change::Became(Status::Down(Cause::Refused)));
        let took = Duration::from_millis(20);
        let sign = Sign::Lifeline;
        assert_eq!(events[0].detected, Some(Detection { sign, took }));
    }

    #[test]
    fn an_app_that_outlives_its_agents_lifeline_stays() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        let life = pool.server("s1").life;
        pool.apply(Input::Member(MemberEvent::HungUp(id("s1", 1))));
        for _ in 0..6 {
            assert_eq!(pool.apply(Input::Probed(life, report(CheckCode::L4Ok))), []);
        }
        assert_eq!(pool.server("s1").probe, None);
        assert_eq!(pool.status("s1"), Status::Up);
    }

    /// Lets s1 crash and its app come back, and says when it is up again.
    fn crash(pool: &mut Pool) -> Duration {
        pool.up("s1", 1, Phase::Down);
        let down = pool.now;
        pool.up("s1", 1, Phase::Ready);
        while pool.status("s1") != Status::Up {
            assert_eq!(pool.status("s1"), Status::Down(Cause::Quarantine));
            let next = pool.state.next_deadline(pool.now).unwrap();
            pool.after(next - pool.now);
        }
        pool.now - down
    }

    #[test]
    fn a_server_that_keeps_crashing_is_kept_out_for_longer_and_eased_in() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        pool.up("s2", 1, Phase::Ready);
        let out: Vec<u64> = (0..4).map(|_| crash(&mut pool).as_secs()).collect();
        assert_eq!(out, [0, 1, 2, 4]);
        assert_eq!(pool.server("s1").throttle, Some(25));
        let share = pool.rotation().iter().filter(|name| *name == "s1").count();
        assert_eq!((share, pool.rotation().len()), (1, 5));
        pool.after(10 * SECOND);
        assert_eq!(pool.server("s1").throttle, None);
        assert_eq!(pool.rotation(), ["s1", "s2"]);
    }

    #[test]
    fn a_new_container_does_not_wipe_the_record() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s2", 9, Phase::Ready);
        for epoch in 1..4 {
            pool.up("s1", epoch, Phase::Ready);
            // The life before, replaced without a goodbye, is found dead.
            pool.apply(down(id("s1", epoch - 1)));
        }
        assert_eq!(pool.status("s1"), Status::Down(Cause::Quarantine));
    }

    #[test]
    fn a_node_of_the_same_name_waits_until_it_is_ready_and_the_other_takes_over_again() {
        let other_id = MemberId {
            addr: "127.0.0.9:7946".parse().unwrap(),
            epoch: 2,
        };
        let other = |phase| {
            let mut member = member("s1", 2, phase);
            member.id = other_id;
            Input::Member(MemberEvent::Up(member))
        };
        for end in [MemberEvent::Left(other_id), MemberEvent::Down(other_id)] {
            let mut pool = Pool::new(Vec::new());
            pool.up("s1", 1, Phase::Ready);
            assert_eq!(pool.apply(other(Phase::Down)), []);
            assert_eq!(pool.apply(other(Phase::Ready)), [Change::Replaced]);
            assert_eq!(pool.server("s1").origin, Origin::Gossip(other_id));
            pool.apply(Input::Member(end));
            assert_eq!(pool.server("s1").origin, Origin::Gossip(id("s1", 1)));
            assert_eq!(pool.status("s1"), Status::Up);
        }
    }

    #[test]
    fn a_graceful_restart_is_no_crash() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s2", 9, Phase::Ready);
        for epoch in 1..9 {
            pool.up("s1", epoch, Phase::Ready);
            assert_eq!(pool.status("s1"), Status::Up);
            pool.up("s1", epoch, Phase::Draining);
            pool.up("s1", epoch, Phase::Leaving);
        }
    }

    #[test]
    fn quarantine_takes_no_more_than_half_of_the_pool() {
        let mut pool = Pool::new(Vec::new());
        for name in ["s1", "s2", "s3"] {
            pool.up(name, 1, Phase::Ready);
        }
        for _ in 0..3 {
            for name in ["s1", "s2", "s3"] {
                pool.up(name, 1, Phase::Down);
                pool.up(name, 1, Phase::Ready);
            }
        }
        let snapshot = pool.state.snapshot();
        let kept_out = |server: &&Arc<Server>| server.status == Status::Down(Cause::Quarantine);
        assert_eq!(snapshot.servers.iter().filter(kept_out).count(), 1);
    }

    #[test]
    fn with_nobody_else_left_a_quarantined_server_serves() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        pool.up("s2", 1, Phase::Ready);
        crash(&mut pool);
        pool.up("s1", 1, Phase::Down);
        pool.up("s1", 1, Phase::Ready);
        assert_eq!(pool.rotation(), ["s2"]);
        pool.up("s2", 1, Phase::Down);
        assert_eq!(pool.rotation(), ["s1"]);
    }

    #[test]
    fn two_nodes_of_one_name_are_told_of_and_a_mere_restart_is_not() {
        for (dies, expected) in [(true, vec![]), (false, vec![Change::Clash])] {
            let mut pool = Pool::new(Vec::new());
            pool.up("s1", 1, Phase::Ready);
            let mut other = member("s1", 2, Phase::Ready);
            other.id.addr = "127.0.0.9:7946".parse().unwrap();
            pool.apply(Input::Member(MemberEvent::Up(other)));
            if dies {
                assert_eq!(pool.apply(down(id("s1", 1))), []);
            }
            assert_eq!(pool.after(10 * SECOND), expected);
        }
    }

    #[test]
    fn an_operators_verdict_holds_until_a_check_has_another() {
        let mut pool = Pool::new(vec![static_server(true)]);
        let say = |verdict| Input::Told("s1".parse().unwrap(), Order::Health(verdict));
        let down = Status::Down(Cause::Operator);
        assert_eq!(pool.apply(say(Verdict::Down)), [Change::Became(down)]);
        assert_eq!(
            pool.apply(say(Verdict::Up)),
            [Change::Became(Status::Up)],
            "no crash to be kept out for"
        );
        assert_eq!(pool.server("s1").health.unwrap().count(), 4);
        pool.apply(say(Verdict::Stopping));
        assert_eq!(pool.status("s1"), Status::Drain);
        pool.apply(say(Verdict::Down));
        let life = pool.server("s1").life;
        for _ in 0..2 {
            pool.apply(Input::Probed(life, report(CheckCode::L4Ok)));
        }
        assert_eq!(pool.status("s1"), Status::Up);
    }

    #[test]
    fn without_checks_an_operators_verdict_holds_until_the_next() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        let say = |verdict| Input::Told("s1".parse().unwrap(), Order::Health(verdict));
        pool.apply(say(Verdict::Down));
        pool.up("s1", 1, Phase::Ready);
        assert_eq!(pool.status("s1"), Status::Down(Cause::Operator));
        pool.apply(say(Verdict::Up));
        assert_eq!(pool.status("s1"), Status::Up);
    }

    #[test]
    fn checks_are_switched_off_and_pointed_elsewhere() {
        let mut pool = Pool::new(vec![static_server(true)]);
        let tell = |order| Input::Told("s1".parse().unwrap(), order);
        let elsewhere = CheckAt {
            ip: None,
            port: Some(8080),
        };
        pool.apply(tell(Order::CheckAt(elsewhere)));
        let Some(Probe::Check { at, .. }) = pool.server("s1").probe.clone() else {
            panic!("it is checked");
        };
        let addr = pool.server("s1").addr.unwrap();
        assert_eq!(at.resolve(addr), "127.0.0.1:8080".parse().unwrap());
        pool.apply(tell(Order::Checks(false)));
        assert_eq!(pool.server("s1").probe, None);
        pool.apply(tell(Order::Checks(true)));
        assert!(pool.server("s1").probe.is_some());
    }

    #[test]
    fn an_added_server_begins_in_maintenance_and_is_removed_only_there() {
        let mut pool = Pool::new(Vec::new());
        pool.apply(wanted("s1", Wish::State(Admin::Ready)));
        let added = pool.apply(Input::Added(static_server(true)));
        assert_eq!(added, [Change::Joined(Status::Maint)]);
        assert!(pool.rotation().is_empty(), "an older wish does not count");
        assert_eq!(pool.server("s1").probe, None, "its checks are off");
        let again = pool.apply(Input::Added(static_server(true)));
        assert!(again.is_empty(), "its name is taken");

        let remove = || Input::Removed("s1".parse().unwrap());
        pool.apply(wanted("s1", Wish::State(Admin::Ready)));
        assert_eq!(pool.rotation(), ["s1"]);
        assert!(pool.apply(remove()).is_empty());
        pool.apply(wanted("s1", Wish::State(Admin::Maint)));
        assert_eq!(pool.apply(remove()), [Change::Removed]);
    }

    #[test]
    fn a_suspect_is_up_and_not_active() {
        let mut pool = Pool::new(Vec::new());
        for name in ["s1", "s2"] {
            pool.up(name, 1, Phase::Ready);
        }
        pool.apply(Input::Member(MemberEvent::Suspect(id("s1", 1))));
        let roll = pool.state.roll(&"s1".parse().unwrap());
        assert_eq!((roll.active, roll.up), (1, 2));
    }

    #[test]
    fn a_server_that_an_agent_announces_is_not_removed() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        pool.apply(wanted("s1", Wish::State(Admin::Maint)));
        assert!(pool.apply(Input::Removed("s1".parse().unwrap())).is_empty());
        assert_eq!(pool.status("s1"), Status::Maint);
    }

    #[test]
    fn who_comes_after_a_goodbye_is_no_second_node_of_the_name() {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        let mut next = member("s1", 2, Phase::Down);
        next.id.addr = "127.0.0.9:7946".parse().unwrap();
        pool.apply(Input::Member(MemberEvent::Up(next.clone())));
        pool.apply(Input::Member(MemberEvent::Left(id("s1", 1))));
        if let Role::Server(announced) = &mut next.meta.role {
            announced.phase = Phase::Ready;
        }
        pool.apply(Input::Member(MemberEvent::Up(next)));
        assert_eq!(pool.rotation(), ["s1"]);
        assert_eq!(pool.after(10 * SECOND), []);
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
                for index in snapshot.schedule.iter() {
                    let server = snapshot.get(*index).unwrap();
                    let refused = server.status == Status::Down(Cause::Refused);
                    prop_assert!(!refused && server.status != Status::Drain);
                }
                let takes = |s: &Arc<Server>| s.status == Status::Up && s.weight > 0;
                let any_up = snapshot.servers.iter().any(takes);
                prop_assert!(!any_up || snapshot.can_serve());
                // What lasts from snapshot to snapshot is what a new one would have.
                let anew = Snapshot::new(
                    0, snapshot.servers.clone(), Arc::default(), None, &mut Lasting::default(),
                );
                prop_assert_eq!(&snapshot.schedule, &anew.schedule);
                for server in &snapshot.servers {
                    let found = snapshot.by_name(server.name.as_str());
                    prop_assert!(found.is_some_and(|found| Arc::ptr_eq(found, server)));
                }
                // So do the sums.
                let mut sums = Tally::default();
                for (name, entry) in &pool.state.entries {
                    sums.enter(name, None, Some(entry.part()));
                }
                prop_assert!(pool.state.tally.agrees_with(&sums));
            }
        }
    }
}
