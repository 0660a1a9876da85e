//! A simulated network of many cores: virtual time, and every choice from one
//! seed, so that a run can be replayed packet by packet.
//!
//! A test starts nodes ([`Sim::cluster`], [`Sim::formed`]), lets things happen
//! to them (kill, freeze, restart, cut the network in two, lose, delay and
//! double packets), lets time pass ([`Sim::run`], [`Sim::until`]) and looks at
//! what the nodes think. [`Sim::check`] then asks what must hold after every
//! run, whatever happened in it.
//!
//! Where a test tries many seeds ([`seeds`]), a failure prints the one it
//! failed with; `TIDINGS_SIM_SEED=<seed> cargo test <test>` runs only that.
//! `TIDINGS_SIM_REPORT=1 cargo test --release sim::report -- --nocapture`
//! measures how clusters of different sizes do.

mod chaos;
mod fixture;
mod hostile;
mod joining;
mod leaving;
mod look;
mod moves;
mod network;
mod partitions;
mod report;
mod restarts;
mod steadiness;
mod strangers;
mod wishes;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Range,
    sync::Arc,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::Instant;

use self::{
    fixture::{addr, meta, name, number, seeds, spread},
    network::Network,
};
use super::{
    Admission,
    core::{Birth, Core, Roster},
    identity::Id,
    timers::Timers,
    wire::{DropReason, Envelope, Keyring},
};
use crate::membership::{MemberEvent, MemberId, Meta, Phase};

const EPOCH: u64 = 1_700_000_000_000;
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// How long after the last trouble all must agree again.
const CALM: Duration = Duration::from_secs(15);
/// What sealing and the headers of IP and UDP add to a packet here.
const OVERHEAD: usize = 24 + 16 + 28;

struct Sim {
    seed: u64,
    rng: StdRng,
    network: Network,
    start: Instant,
    now: Instant,
    queue: Timers<Happening>,
    nodes: BTreeMap<usize, Node>,
    /// Sent, the lost ones included.
    packets: usize,
    bytes: usize,
    blunders: Blunders,
}

/// How often somebody was taken for what it was not.
#[derive(Debug, Default)]
struct Blunders {
    /// Suspicions of a node that ran and could be reached.
    suspicions: usize,
    /// Declared down, by a node that could have reached it.
    downs: usize,
}

struct Node {
    core: Core,
    envelope: Arc<Envelope>,
    /// The wake-up that counts; others in the queue are stale.
    wake: Option<Instant>,
    /// Does not run before.
    frozen_until: Instant,
    events: Vec<(Instant, MemberEvent)>,
    dropped: Vec<DropReason>,
}

enum Happening {
    Packet(SocketAddr, usize, Vec<u8>),
    Wake(usize),
    Ask(usize, usize, Roster),
    Reply(usize, Roster),
}

impl Sim {
    fn new(seed: u64, loss: f64) -> Self {
        let start = Instant::now();
        Self {
            seed,
            rng: StdRng::seed_from_u64(seed),
            network: Network::new(loss),
            start,
            now: start,
            queue: Timers::new(),
            nodes: BTreeMap::new(),
            packets: 0,
            bytes: 0,
            blunders: Blunders::default(),
        }
    }

    /// Nodes 0 to `size`, all of which know node 0 as their seed.
    fn cluster(seed: u64, loss: f64, size: usize) -> Self {
        let mut sim = Self::new(seed, loss);
        for node in 0..size {
            sim.start(node, &[0]);
            // Spread, as in life: nodes in step would look better than they are.
            let pause = sim.rng.random_range(0..1000 / size as u32);
            sim.run(pause * MS);
        }
        let all = sim.until(30 * SECOND, Sim::all_know_all);
        assert!(all.is_some(), "the cluster did not form");
        sim
    }

    /// The same without the joining, which takes long to simulate where there
    /// are many: as if each had synced with one who knows all.
    fn formed(seed: u64, loss: f64, size: usize) -> Self {
        let mut sim = Self::new(seed, loss);
        let ids: Vec<_> = (0..size)
            .map(|node| Id::new(addr(node), EPOCH, &meta(node, Phase::Ready)).unwrap())
            .collect();
        for node in 0..size {
            let birth = Birth {
                unix_ms: EPOCH,
                ..sim.birth(node, meta(node, Phase::Ready))
            };
            sim.start_from(node, &[], &birth, Keyring::default());
            let others = ids.iter().filter(|id| id.addr() != addr(node));
            let others: Vec<_> = others.map(|id| (id.clone(), 0)).collect();
            if let [(first, _), rest @ ..] = &others[..] {
                let roster = Roster::forged(first.clone(), rest.to_vec());
                sim.act(node, |core, now| core.merge(roster, now).unwrap());
            }
            // One probe's period: nobody has missed anyone before all are there.
            sim.run(Duration::from_micros(250_000 / size as u64));
        }
        sim.run(10 * SECOND);
        assert!(sim.all_know_all(), "the cluster did not form");
        sim.blunders = Blunders::default();
        sim
    }

    fn start(&mut self, node: usize, seeds: &[usize]) {
        self.start_as(node, seeds, meta(node, Phase::Ready), Keyring::default());
    }

    fn start_as(&mut self, node: usize, seeds: &[usize], meta: Meta, keyring: Keyring) {
        let birth = self.birth(node, meta);
        self.start_from(node, seeds, &birth, keyring);
    }

    fn birth(&mut self, node: usize, meta: Meta) -> Birth {
        Birth {
            addr: addr(node),
            meta,
            admission: Admission::default(),
            unix_ms: EPOCH + (self.now - self.start).as_millis() as u64,
            now: self.now,
            seed: self.rng.random(),
        }
    }

    fn start_from(&mut self, node: usize, seeds: &[usize], birth: &Birth, keyring: Keyring) {
        let mut core = Core::new(birth).unwrap();
        core.set_seeds(seeds.iter().map(|seed| addr(*seed)).collect(), self.now);
        let envelope = Envelope::new("sim".parse().unwrap(), keyring);
        let node_state = Node {
            core,
            envelope: Arc::new(envelope),
            wake: None,
            frozen_until: self.now,
            events: Vec::new(),
            dropped: Vec::new(),
        };
        self.nodes.insert(node, node_state);
        self.round(node);
    }

    // --- what can happen ---

    fn kill(&mut self, node: usize) {
        self.nodes.remove(&node);
    }

    fn freeze(&mut self, node: usize, time: Duration) {
        self.nodes.get_mut(&node).unwrap().frozen_until = self.now + time;
    }

    /// A node's host gets the address of `to`, by which the node is known here
    /// from now on. What was sent to the former one is lost.
    fn relocate(&mut self, node: usize, to: usize) {
        let mut moving = self.nodes.remove(&node).unwrap();
        moving.wake = None;
        self.nodes.insert(to, moving);
        self.act(to, |core, now| core.relocate(addr(to).ip(), now).unwrap());
    }

    /// Cuts these off from the others.
    fn cut_off(&mut self, island: Range<usize>) {
        self.network.island = island.collect();
    }

    fn heal(&mut self) {
        self.network.island.clear();
    }

    /// Lets a node do something, and sends what follows.
    fn act(&mut self, node: usize, act: impl FnOnce(&mut Core, Instant)) {
        let now = self.now;
        act(&mut self.nodes.get_mut(&node).unwrap().core, now);
        self.round(node);
    }

    fn leave(&mut self, node: usize) {
        self.act(node, Core::leave);
    }

    /// Nobody looks for anyone any more but by what it knows itself.
    fn forget_seeds(&mut self) {
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.act(node, |core, now| core.set_seeds(Vec::new(), now));
        }
    }

    // --- time ---

    /// Runs until something is true; how long that took.
    fn until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let begin = self.now;
        while self.now < begin + limit {
            if done(self) {
                return Some(self.now - begin);
            }
            self.step(begin + limit);
        }
        None
    }

    /// The same to the next 50 ms, for what takes long to find out.
    fn until_about(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let begin = self.now;
        while self.now < begin + limit {
            if done(self) {
                return Some(self.now - begin);
            }
            self.run(50 * MS);
        }
        None
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
        }
    }

    fn step(&mut self, end: Instant) {
        let next = self.queue.deadline().filter(|next| *next <= end);
        self.now = next.unwrap_or(end);
        if let Some(happening) = self.queue.pop_due(self.now) {
            self.happen(happening);
        }
    }

    fn happen(&mut self, happening: Happening) {
        let at = match &happening {
            Happening::Packet(_, node, _)
            | Happening::Wake(node)
            | Happening::Ask(_, node, _)
            | Happening::Reply(node, _) => *node,
        };
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&at) else {
            return;
        };
        if now < node.frozen_until {
            // What arrives meanwhile waits in the socket; a thawed node
            // reads that before it looks at its timers.
            let thaw = node.frozen_until;
            let thaw = match happening {
                Happening::Wake(_) => {
                    node.wake = Some(thaw + MS);
                    thaw + MS
                }
                _ => thaw,
            };
            self.queue.set(thaw, happening);
            return;
        }
        match happening {
            Happening::Packet(from, _, packet) => {
                let handled = node
                    .envelope
                    .open(&packet)
                    .and_then(|opened| node.core.receive(from, opened.kind, &opened.body, now));
                node.dropped.extend(handled.err());
            }
            Happening::Wake(_) if node.wake != Some(now) => return,
            Happening::Wake(_) => {
                node.wake = None;
                node.core.advance(now);
            }
            Happening::Ask(asker, _, roster) => {
                let ours = node.core.roster(Some(roster.addr()));
                node.core.merge(roster, now).unwrap();
                if self.network.connects(at, asker) {
                    self.queue.set(now + MS, Happening::Reply(asker, ours));
                }
            }
            Happening::Reply(_, roster) => node.core.merge(roster, now).unwrap(),
        }
        self.round(at);
    }

    fn round(&mut self, at: usize) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&at) else {
            return;
        };
        node.core.settle();
        let mut events = Vec::new();
        while let Some(event) = node.core.next_event() {
            events.push((now, event));
        }
        while let Some(outgoing) = node.core.next_send() {
            let packet = node.envelope.seal(outgoing.kind, &outgoing.body);
            self.packets += 1;
            self.bytes += packet.len() + OVERHEAD;
            let Some(to) = number(outgoing.to).filter(|to| self.network.connects(at, *to)) else {
                continue;
            };
            for delay in self.network.fate(&mut self.rng) {
                let packet = Happening::Packet(addr(at), to, packet.clone());
                self.queue.set(now + delay, packet);
            }
        }
        while let Some(peer) = node.core.next_sync() {
            let roster = node.core.roster(Some(peer));
            if let Some(peer) = number(peer).filter(|peer| self.network.connects(at, *peer)) {
                self.queue.set(now + MS, Happening::Ask(at, peer, roster));
            }
        }
        let due = node.core.deadline().map(|due| due.max(now));
        if let Some(due) = due
            && node.wake.is_none_or(|wake| due < wake)
        {
            node.wake = Some(due);
            self.queue.set(due, Happening::Wake(at));
        }
        node.events.extend(events.iter().cloned());
        for (_, event) in &events {
            self.judge(at, event);
        }
    }

    /// Counts an event that should not have been.
    fn judge(&mut self, at: usize, event: &MemberEvent) {
        let (MemberEvent::Suspect(id) | MemberEvent::Down(id)) = event else {
            return;
        };
        let blameless = number(id.addr).is_some_and(|node| {
            self.network.connects(at, node)
                && self
                    .nodes
                    .get(&node)
                    .is_some_and(|node| node.core.local() == *id && node.frozen_until <= self.now)
        });
        match event {
            MemberEvent::Suspect(_) if blameless => self.blunders.suspicions += 1,
            MemberEvent::Down(_) if blameless => self.blunders.downs += 1,
            _ => {}
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "simulation failed at {:?}; replay it with TIDINGS_SIM_SEED={}",
                self.now - self.start,
                self.seed,
            );
        }
    }
}
