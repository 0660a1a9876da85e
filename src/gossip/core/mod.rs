//! The membership protocol without any I/O: foca, and what it leaves to us.
//!
//! Inputs go in with the time they came at; then [`Core::settle`]; then the
//! caller takes out what there is to send, to tell and to wait for. The core
//! never reads a clock, never logs and never waits, so a simulation can run
//! many of them over virtual time.

pub(super) mod admit;
mod answers;
mod due;
mod effects;
mod hunt;
mod moving;
mod own_identity;
mod receive;
mod search;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use foca::{Foca, PostcardCodec, State};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use self::{
    answers::{Answer, CORRECTION_PAUSE},
    due::Due,
    effects::{Effects, Outgoing},
};
use super::{
    admission::Admission,
    identity::{Id, MAX_ID, MetaError},
    lifeline::{LineNews, Lines},
    profile,
    rate::Bucket,
    records::{self, MAX_RECORDS, Shared},
    seeds::Company,
    table::Table,
    wire::{DropReason, ENVELOPE, Kind, MAX_FRAME},
};
use crate::membership::{
    Intent, MemberEvent, MemberId, MemberState, MemberView, Meta, Name, Version, Wish,
};

/// The most members that are kept, the dead ones of a day included.
pub(super) const MAX_MEMBERS: usize = 4096;
/// The most that a roster takes: besides the ids the incarnations, and the
/// two counts and the speaker's own id.
const MAX_ROSTER: usize =
    MAX_MEMBERS * (MAX_ID + MAX_VARINT_16) + MAX_RECORDS * records::MAX_ENCODED + 2 * MAX_ID;
const MAX_VARINT_16: usize = 3;
const _: () = assert!(
    MAX_ROSTER + ENVELOPE <= MAX_FRAME,
    "a full roster fits a frame"
);
/// The most members that one packet can name: its size by the smallest id.
const MAX_IN_PACKET: usize = 128;

const SYNC_PERIOD: Duration = Duration::from_secs(30);
/// Until an exchange succeeded, another peer is tried this often.
const SYNC_RETRY: Duration = Duration::from_secs(1);
/// How often somebody is told which records we have, while there are any.
const DIGEST_PERIOD: Duration = Duration::from_secs(5);
/// Of records that a sync brings, so many are told on at once. More come from
/// a part of the cluster that was cut off; digests bring those everywhere
/// without filling every packet for a minute.
const MAX_TOLD_ON: usize = 64;
/// The goodbye is said three times in all.
const GOODBYE_PERIOD: Duration = Duration::from_millis(30);
const GOODBYE_REPEATS: u8 = 2;

/// What two nodes tell each other in a state sync.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Roster {
    /// The node that speaks.
    from: Id,
    /// The members it knows to be alive, with their incarnation.
    members: Vec<(Id, u16)>,
    /// What operators want, as far as it knows.
    records: Vec<Intent>,
}

impl Roster {
    #[cfg(test)]
    pub(super) fn forged(from: Id, members: Vec<(Id, u16)>) -> Self {
        Self {
            from,
            members,
            records: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn speaker(&self) -> &Id {
        &self.from
    }

    /// The address of the node that speaks.
    pub(super) fn addr(&self) -> SocketAddr {
        self.from.addr()
    }
}

/// The start of a core.
#[derive(Debug)]
pub(super) struct Birth {
    pub(super) addr: SocketAddr,
    pub(super) meta: Meta,
    pub(super) admission: Admission,
    /// Wall clock at `now`, unix milliseconds; also the epoch.
    pub(super) unix_ms: u64,
    pub(super) now: Instant,
    /// Seed of every random choice.
    pub(super) seed: u64,
}

/// One node of the cluster.
pub(super) struct Core {
    foca: Protocol,
    records: Shared,
    effects: Effects,
    table: Table,
    rng: StdRng,
    born: Instant,
    unix_ms: u64,
    /// Nodes the settings of foca were made for.
    size: usize,
    seeds: Vec<SocketAddr>,
    syncs: VecDeque<SocketAddr>,
    /// Whether a state sync succeeded since the first peer appeared.
    synced: bool,
    next_sync: Instant,
    next_digest: Instant,
    /// Since when there is no peer.
    alone_since: Option<Instant>,
    /// Whom we answered lately, and when.
    answers: HashMap<(SocketAddr, Answer), Instant>,
    /// The lifelines that others keep to us.
    lines: Lines,
    /// Balancers that are looked for: in which life they were lost, and when.
    hunted: BTreeMap<SocketAddr, (u64, Instant)>,
    /// Whether the timer of the hunt is set.
    hunting: bool,
    life: Life,
    local_changed: bool,
    /// What is left for answers that fill a packet.
    feeds: Bucket,
    /// Whose word counts.
    admission: Admission,
    /// The last address that did not.
    refused: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    Leaving { repeats: u8 },
    Gone,
}

impl Core {
    pub(super) fn new(birth: &Birth) -> Result<Self, MetaError> {
        let id = Id::new(birth.addr, birth.unix_ms, &birth.meta)?;
        let mut rng = StdRng::seed_from_u64(birth.seed);
        let mut effects = Effects::new(birth.now);
        effects.timers.set(birth.now, Due::Search);
        let records = Shared::default();
        Ok(Self {
            foca: protocol(id, 1, &mut rng, &records),
            records,
            effects,
            table: Table::default(),
            rng,
            born: birth.now,
            unix_ms: birth.unix_ms,
            size: 1,
            seeds: Vec::new(),
            syncs: VecDeque::new(),
            synced: false,
            next_sync: birth.now,
            next_digest: birth.now,
            alone_since: Some(birth.now),
            answers: HashMap::new(),
            lines: Lines::default(),
            hunted: BTreeMap::new(),
            hunting: false,
            life: Life::Running,
            local_changed: true,
            feeds: Bucket::full(birth.now),
            admission: birth.admission.clone(),
            refused: None,
        })
    }

    // --- inputs ---

    /// Takes a message out of a datagram that came from `from`.
    pub(super) fn receive(
        &mut self,
        from: SocketAddr,
        kind: Kind,
        body: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        self.effects.now = now;
        if self.life != Life::Running {
            // A late packet that carries our own end would make foca rejoin.
            return Ok(());
        }
        match kind {
            Kind::Foca => self.receive_foca(body),
            Kind::Hello => self.receive_hello(from, body),
            Kind::Digest => self.receive_digest(body),
            Kind::Table | Kind::Lifeline | Kind::Goodbye => Err(DropReason::Malformed),
        }
    }

    /// Lets every timer fire that is due.
    pub(super) fn advance(&mut self, now: Instant) {
        self.effects.now = now;
        self.excuse_own_stall();
        while let Some(due) = self.effects.timers.pop_due(now) {
            match due {
                Due::Foca(timer) => self.fire(timer),
                Due::Search => self.search(),
                Due::Hunt => self.hunt_on(),
                Due::Goodbye => self.repeat_goodbye(),
            }
        }
    }

    /// Says what an operator wants of a server to everyone, this node too.
    pub(super) fn declare(&mut self, service: Name, server: Name, wish: Wish, now: Instant) {
        self.effects.now = now;
        if self.life != Life::Running {
            return;
        }
        self.wind_records();
        let intent = Intent {
            service,
            server,
            wish,
            version: Version {
                clock: self.records.lock().next_clock(),
                writer: self.foca.identity().addr(),
            },
        };
        self.tell_on(&intent);
        self.tell_all();
    }

    /// Says goodbye. It is over once [`Core::is_gone`].
    pub(super) fn leave(&mut self, now: Instant) {
        self.effects.now = now;
        if self.life != Life::Running {
            return;
        }
        self.life = Life::Leaving {
            repeats: GOODBYE_REPEATS,
        };
        tolerate(self.foca.set_config(profile::leaving(self.size)));
        let farewell = self.foca.identity().farewell();
        tolerate(self.foca.change_identity(farewell, &mut self.effects));
        tolerate(self.foca.leave_cluster(&mut self.effects));
        self.effects.set_timer(GOODBYE_PERIOD, Due::Goodbye);
        self.local_changed = true;
    }

    /// Takes over what a peer told in a state sync.
    pub(super) fn merge(&mut self, roster: Roster, now: Instant) -> Result<(), DropReason> {
        self.effects.now = now;
        if self.life != Life::Running {
            return Ok(());
        }
        let roster = self.admit_roster(roster)?;
        self.merge_records(roster.records);
        let own = self.foca.identity().addr();
        let (ours, theirs): (Vec<_>, Vec<_>) = std::iter::once((roster.from, 0))
            .chain(roster.members)
            .take(MAX_MEMBERS)
            .filter(|(id, _)| id.reachable())
            .partition(|(id, _)| id.addr() == own);
        for (id, _) in ours {
            self.outlive(&id);
        }
        let mut room = MAX_MEMBERS.saturating_sub(self.known());
        let updates: Vec<_> = theirs
            .into_iter()
            .filter(|(id, _)| {
                if self.known_at(id.addr()).is_some() {
                    return true;
                }
                let fits = room > 0;
                room = room.saturating_sub(1);
                fits
            })
            .map(|(id, incarnation)| foca::Member::new(id, incarnation, State::Alive))
            .collect();
        let mut updates = updates.into_iter();
        // Whoever speaks may be news to everyone. The rest, the first time,
        // is news to nobody but us.
        self.apply(updates.by_ref().take(1), true);
        self.apply(updates, self.synced);
        self.synced = true;
        self.plan_sync();
        Ok(())
    }

    /// Takes in what became of a lifeline to us.
    pub(super) fn follow_line(&mut self, news: LineNews, now: Instant) {
        self.effects.now = now;
        let hung_up = self.lines.follow(news);
        if let Some(id) = hung_up.filter(|_| self.life == Life::Running) {
            self.table.hung_up(id);
        }
    }

    /// How many members say of themselves what cannot be read.
    pub(super) fn unreadable(&self) -> usize {
        self.table.unreadable()
    }

    /// How many members keep a lifeline to us.
    pub(super) fn lines_standing(&self) -> usize {
        self.lines.count()
    }

    /// To be called after a batch of inputs, before the outputs are taken.
    pub(super) fn settle(&mut self) {
        self.reconnect_after_rejoin();
        if !std::mem::take(&mut self.effects.stirred) {
            return;
        }
        self.note_company();
        let own = self.foca.identity().addr();
        let now = self.effects.now;
        let seeds = self.active_seeds();
        // First those that are there: who went on elsewhere is never missed.
        for gone in [false, true] {
            let members = self.foca.iter_membership_state();
            let others = members.filter(|member| member.id().addr() != own);
            for member in others.filter(|member| (member.state() == State::Down) == gone) {
                self.table.observe(member, now);
            }
        }
        for seed in seeds {
            self.hunt_if_gone(seed);
        }
        self.resize();
    }

    // --- outputs ---

    pub(super) fn next_send(&mut self) -> Option<Outgoing> {
        self.effects.sends.pop_front()
    }

    pub(super) fn next_event(&mut self) -> Option<MemberEvent> {
        let wanted = || self.records.lock().pop_news().map(MemberEvent::Wanted);
        self.table.pop_event().or_else(wanted)
    }

    /// A peer to exchange [`Core::roster`] with.
    pub(super) fn next_sync(&mut self) -> Option<SocketAddr> {
        self.syncs.pop_front()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.effects.timers.deadline()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.life == Life::Gone
    }

    pub(super) fn local(&self) -> MemberId {
        self.foca.identity().member_id()
    }

    pub(super) fn company(&self) -> Company {
        if !self.has_peers() {
            Company::Alone
        } else if self.silent_seeds().next().is_some() {
            Company::Incomplete
        } else {
            Company::Complete
        }
    }

    /// Every member, this node first; `None` when nothing changed since the
    /// last call.
    pub(super) fn take_view(&mut self) -> Option<Vec<MemberView>> {
        let changed = self.table.take_changed() | std::mem::take(&mut self.local_changed);
        changed.then(|| self.view())
    }

    pub(super) fn view(&self) -> Vec<MemberView> {
        let id = self.foca.identity();
        let local = MemberView {
            id: id.member_id(),
            meta: id.meta(),
            state: match self.life {
                Life::Running => MemberState::Alive,
                Life::Leaving { .. } | Life::Gone => MemberState::Left,
            },
            since: self.born,
            incarnation: None,
            generation: id.generation(),
            local: true,
        };
        std::iter::once(local).chain(self.table.rows()).collect()
    }

    /// What to tell in a state sync, to the node at `peer` where it is known.
    pub(super) fn roster(&self, peer: Option<SocketAddr>) -> Roster {
        let members = self
            .foca
            .iter_membership_state()
            // Of the peer itself everything is told: it must learn of a
            // former life that is ahead of it.
            .filter(|known| known.state() == State::Alive || Some(known.id().addr()) == peer)
            .map(|known| (known.id().clone(), known.incarnation()))
            .collect();
        Roster {
            from: self.foca.identity().clone(),
            members,
            records: self.records.lock().all(),
        }
    }

    /// The addresses of the members that are there, this node's first.
    #[cfg(test)]
    pub(super) fn there(&self) -> impl Iterator<Item = SocketAddr> {
        let own = Some(self.foca.identity().addr()).filter(|_| self.life == Life::Running);
        own.into_iter().chain(self.table.active())
    }

    #[cfg(test)]
    pub(super) fn records_digest(&self) -> u64 {
        self.records.lock().digest()
    }

    #[cfg(test)]
    pub(super) fn wishes(&self) -> Vec<Wish> {
        let records = self.records.lock().all();
        records.into_iter().map(|record| record.wish).collect()
    }

    // --- messages ---

    /// A member tells which records it has: if they are not ours, one of us
    /// missed something.
    fn receive_digest(&mut self, body: &[u8]) -> Result<(), DropReason> {
        let (sender, digest): (SocketAddr, u64) =
            postcard::from_bytes(body).map_err(|_| DropReason::Malformed)?;
        let differs = digest != self.records.lock().digest();
        if differs
            && self.table.is_active(sender)
            // One for all: a roster is large, and who sends a digest may be
            // another than it says.
            && self.may_answer(self.foca.identity().addr(), Answer::Records, CORRECTION_PAUSE)
        {
            self.syncs.push_back(sender);
        }
        Ok(())
    }

    fn announce(&mut self, id: Id) {
        tolerate(self.foca.announce(id, &mut self.effects));
    }

    /// Tells everyone, or as many as there are packets for, what is news.
    fn tell_all(&mut self) {
        tolerate(self.foca.set_config(profile::loud(self.size)));
        tolerate(self.foca.gossip(&mut self.effects));
        tolerate(self.foca.set_config(profile::running(self.size)));
    }

    // --- records ---

    /// Takes over what operators want, as a peer knows it.
    fn merge_records(&mut self, records: Vec<Intent>) {
        self.wind_records();
        let mut told_on = 0;
        for intent in records.into_iter().take(MAX_RECORDS) {
            // The first time it is news to nobody but us.
            if !self.synced || told_on == MAX_TOLD_ON {
                self.records.lock().offer(intent);
            } else if self.tell_on(&intent) {
                told_on += 1;
            }
        }
    }

    /// Takes a record over and broadcasts it, if it is new.
    fn tell_on(&mut self, intent: &Intent) -> bool {
        self.foca
            .add_broadcast(&records::encode(intent))
            .unwrap_or(false)
    }

    fn wind_records(&mut self) {
        self.records.lock().set_clock(self.wall_clock());
    }

    /// Unix milliseconds, by the clock as it was at the start.
    fn wall_clock(&self) -> u64 {
        self.unix_ms + (self.effects.now - self.born).as_millis() as u64
    }

    /// Tells somebody which records we have: broadcasts may get lost.
    fn tell_digest(&mut self) {
        let now = self.effects.now;
        let (empty, digest) = {
            let records = self.records.lock();
            (records.is_empty(), records.digest())
        };
        if now < self.next_digest || empty {
            return;
        }
        let Some(to) = self.random_peer() else {
            return;
        };
        self.next_digest = now + DIGEST_PERIOD;
        let own = self.foca.identity().addr();
        let body = postcard::to_allocvec(&(own, digest)).unwrap_or_default();
        self.effects.sends.push_back(Outgoing {
            to,
            kind: Kind::Digest,
            body: body.into(),
        });
    }

    // --- timers ---

    fn sync_when_due(&mut self) {
        if self.effects.now < self.next_sync || !self.has_peers() {
            return;
        }
        let peer = self.random_peer();
        self.syncs.extend(peer);
        self.plan_sync();
    }

    fn random_peer(&mut self) -> Option<SocketAddr> {
        let peers = self.foca.num_members();
        let chosen = (peers > 0).then(|| self.rng.random_range(0..peers))?;
        let peer = self.foca.iter_members().nth(chosen)?;
        Some(peer.id().addr())
    }

    fn plan_sync(&mut self) {
        let pause = if self.synced { SYNC_PERIOD } else { SYNC_RETRY };
        // Spread, so that nodes started together do not all sync at once.
        let pause = pause.mul_f64(self.rng.random_range(0.9..1.1));
        self.next_sync = self.effects.now + pause;
    }

    fn repeat_goodbye(&mut self) {
        let Life::Leaving { repeats } = self.life else {
            return;
        };
        tolerate(self.foca.gossip(&mut self.effects));
        self.life = match repeats.checked_sub(1) {
            None | Some(0) => Life::Gone,
            Some(repeats) => {
                self.effects.set_timer(GOODBYE_PERIOD, Due::Goodbye);
                Life::Leaving { repeats }
            }
        };
    }

    // --- after a batch ---

    /// Notes when the first peer came and when the last one went.
    fn note_company(&mut self) {
        match (self.alone_since, self.has_peers()) {
            (Some(_), true) => {
                self.alone_since = None;
                self.next_sync = self.effects.now;
                self.sync_when_due();
            }
            (None, false) => {
                self.alone_since = Some(self.effects.now);
                self.synced = false;
            }
            _ => {}
        }
    }

    fn resize(&mut self) {
        let size = self.foca.num_members() + 1;
        if size != self.size && self.life == Life::Running {
            self.size = size;
            tolerate(self.foca.set_config(profile::running(size)));
        }
    }

    fn apply(&mut self, updates: impl Iterator<Item = foca::Member<Id>>, do_broadcast: bool) {
        self.effects.stirred = true;
        tolerate(
            self.foca
                .apply_many(updates, do_broadcast, &mut self.effects),
        );
    }

    fn has_peers(&self) -> bool {
        self.foca.num_members() > 0
    }

    pub(super) fn known(&self) -> usize {
        self.foca.iter_membership_state().len()
    }

    fn known_at(&self, addr: SocketAddr) -> Option<&Id> {
        self.foca
            .iter_membership_state()
            .map(foca::Member::id)
            .find(|id| id.addr() == addr)
    }
}

type Protocol = Foca<Id, PostcardCodec, StdRng, Shared>;

/// foca, for a node that knows nobody yet in a cluster of that size.
fn protocol(id: Id, size: usize, rng: &mut StdRng, records: &Shared) -> Protocol {
    let rng = StdRng::seed_from_u64(rng.random());
    let config = profile::running(size);
    Foca::with_custom_broadcast(id, config, rng, PostcardCodec, records.clone())
}

/// What foca refuses in our own calls is stale (a timer of a former state)
/// and harmless: it leaves its state as it was.
fn tolerate(result: Result<(), foca::Error>) {
    result.unwrap_or_default();
}
