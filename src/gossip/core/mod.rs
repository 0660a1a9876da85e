//! The membership protocol without any I/O: foca, and what it leaves to us.
//!
//! Inputs go in with the time they came at; then [`Core::settle`]; then the
//! caller takes out what there is to send, to tell and to wait for. The core
//! never reads a clock, never logs and never waits, so a simulation can run
//! many of them over virtual time.
//!
//! Here are the life of a core and its ways in and out. [`admit`], [`receive`]
//! and [`answers`] take what comes in; [`due`] and [`effects`] serve foca;
//! [`own_identity`], [`moving`] and [`farewell`] are about this node,
//! [`search`], [`hunt`] and [`roster`] about the others, [`wishes`] about what
//! operators want of servers.

pub(super) mod admit;
mod answers;
mod due;
mod effects;
mod farewell;
mod hunt;
mod moving;
mod own_identity;
mod receive;
mod roster;
mod search;
mod wishes;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
};

use foca::{Foca, PostcardCodec, State};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::Instant;

use self::{answers::Answer, due::Due, effects::Effects};
pub(super) use self::{effects::Outgoing, roster::Roster};
use super::{
    admission::Admission,
    identity::{Id, MetaError},
    lifeline::{LineNews, Lines},
    profile,
    rate::Bucket,
    records::Shared,
    seeds::Company,
    table::Table,
    wire::{DropReason, Kind},
};
use crate::membership::{MemberEvent, MemberId, MemberState, MemberView, Meta};

/// The most members that are kept, the dead ones of a day included.
pub(super) const MAX_MEMBERS: usize = 4096;
/// The most bytes of an incarnation.
const MAX_VARINT_16: usize = 3;

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

    /// Takes in what became of a lifeline to us.
    pub(super) fn follow_line(&mut self, news: LineNews, now: Instant) {
        self.effects.now = now;
        let hung_up = self.lines.follow(news);
        if let Some(id) = hung_up.filter(|_| self.life == Life::Running) {
            self.table.hung_up(id);
        }
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

    /// How many members say of themselves what cannot be read.
    pub(super) fn unreadable(&self) -> usize {
        self.table.unreadable()
    }

    /// How many members keep a lifeline to us.
    pub(super) fn lines_standing(&self) -> usize {
        self.lines.count()
    }

    /// The addresses of the members that are there, this node's first.
    #[cfg(test)]
    pub(super) fn there(&self) -> impl Iterator<Item = SocketAddr> {
        let own = Some(self.foca.identity().addr()).filter(|_| self.life == Life::Running);
        own.into_iter().chain(self.table.active())
    }

    // --- what the parts share ---

    /// Unix milliseconds, by the clock as it was at the start.
    fn wall_clock(&self) -> u64 {
        self.unix_ms + (self.effects.now - self.born).as_millis() as u64
    }

    fn apply(&mut self, updates: impl Iterator<Item = foca::Member<Id>>, do_broadcast: bool) {
        self.effects.stirred = true;
        tolerate(
            self.foca
                .apply_many(updates, do_broadcast, &mut self.effects),
        );
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

    fn has_peers(&self) -> bool {
        self.foca.num_members() > 0
    }

    fn random_peer(&mut self) -> Option<SocketAddr> {
        let peers = self.foca.num_members();
        let chosen = (peers > 0).then(|| self.rng.random_range(0..peers))?;
        let peer = self.foca.iter_members().nth(chosen)?;
        Some(peer.id().addr())
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
