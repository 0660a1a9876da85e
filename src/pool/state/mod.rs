//! The truth about servers, as a pure state machine: what gossip, probes and
//! traffic say goes in with the time, events come out, and the servers can be
//! described at any moment. No I/O, no clock of its own.

mod crashes;
mod departed;
mod event;
mod input;
mod members;
mod operators;
mod publish;
mod rivals;
#[cfg(test)]
mod tests;
mod time;
mod warming;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    num::NonZeroU32,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio::time::Instant;

use self::{crashes::is_crash, departed::Departed, operators::Wishes, rivals::Rival};
pub use self::{
    event::{Change, Detection, Event, Sign},
    input::{CheckPlan, Fault, Input, Order, StaticServer, Verdict},
};
use super::{
    entry::{Entry, Liveness},
    quarantine::Record,
    server::{Cause, Life, Status},
    tally::Tally,
};
use crate::membership::{MemberEvent, MemberId, Name};

/// How many servers' crashes are remembered at the most, and how many
/// operators' wishes: for names that are not there either may be made up.
const RECORDS_MOST: usize = 4096;

/// The most servers: with HAProxy's 4,095 for round robin as the order of
/// magnitude, and far below what one snapshot can hold.
const MOST_SERVERS: usize = 16_384;

/// The pool's state machine.
#[derive(Debug)]
pub struct State {
    service: Name,
    /// Requests that a server takes at a time if it says nothing else.
    server_maxconn: Option<NonZeroU32>,
    /// How long a server warms up if it says nothing else.
    slowstart: Option<Duration>,
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
    /// Since when any server has been up.
    serves_since: Option<Instant>,
}

impl State {
    /// The pool of `service` at start: static servers without an address yet.
    pub fn new(service: Name, servers: Vec<StaticServer>, now: Instant) -> Self {
        let mut state = Self {
            service,
            server_maxconn: None,
            slowstart: None,
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
            serves_since: None,
        };
        for server in servers {
            let (sid, live) = state.figures_for(&server.name);
            let life = state.begin_life();
            let entry = Entry::from_command_line(sid, life, live, &server, now);
            state.insert(&server.name, entry, now);
        }
        state.note_since(now);
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
        self.note_since(now);
        events
    }

    /// Notes since when the pool as a whole has been as it is.
    fn note_since(&mut self, now: Instant) {
        let since = |known: Option<Instant>, holds: bool| holds.then(|| known.unwrap_or(now));
        self.hears_since = since(self.hears_since, self.tally.hears());
        self.serves_since = since(self.serves_since, self.tally.up() > 0);
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

    fn insert(&mut self, name: &Name, mut entry: Entry, now: Instant) {
        entry.set_usual_maxconn(self.server_maxconn);
        let former = self.entries.insert(name.clone(), entry);
        // Only now, beside the others, can it be told how it stands.
        self.settle(name, now);
        let former = former.map(|entry| entry.part());
        self.warm(name, former, now);
        let part = self.entries.get(name).map(Entry::part);
        self.tally.enter(name, former, part);
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
        self.warm(name, Some(before), now);
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

    fn begin_life(&mut self) -> Life {
        self.next_life += 1;
        Life(self.next_life)
    }
}
