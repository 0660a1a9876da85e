//! The one task that owns the socket and the core.
//!
//! It waits for one input, handles it, and then does the same round as ever:
//! drain the socket, let due timers fire, send, tell. The socket comes before
//! the timers, so that after a stall no probe is judged while its answer
//! waits unread. Nothing in a round waits: a slow round looks like a dead
//! node to the others.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{error, info};

use super::{
    core::{Core, Roster},
    handle::{Declaration, Demand, Published},
    inputs::Inputs,
    lifeline::{Keeper, LineNews},
    outbox::Outbox,
    port::Dropped,
    rate::Rates,
    seeds::Company,
    sync::{self, Request},
    transport::Transport,
    warnings::Warnings,
    wire::{Counters, DropReason, MAX_PACKET},
};
use crate::membership::{MemberEvent, MemberId, Meta};

/// Datagrams taken in one round, so that a flood cannot keep timers waiting.
const MAX_DRAINED: usize = 256;
/// Whoever keeps a lifeline waits while as many have lost theirs.
const LOST_QUEUE: usize = 64;

/// The task, and what it works with.
pub(super) struct Driver {
    core: Core,
    transport: Transport,
    inputs: Inputs,
    /// Balancers whose end of our lifeline closed.
    lost: mpsc::Receiver<MemberId>,
    /// Whether the own address was found, and the server announced is there.
    found: bool,
    keeper: Keeper,
    outputs: Outputs,
    outbox: Outbox,
    exchanges: JoinSet<io::Result<Roster>>,
    warnings: Warnings,
    rates: Rates,
}

/// Where the driver tells what it knows.
pub(super) struct Outputs {
    pub(super) events: mpsc::Sender<MemberEvent>,
    pub(super) published: watch::Sender<Published>,
    pub(super) company: watch::Sender<Company>,
}

/// Everything that can wake the driver.
enum Input {
    Demand(Demand),
    Declaration(Declaration),
    Abandoned,
    Readable,
    Deadline,
    Seeds(Vec<SocketAddr>),
    Request(Request),
    Line(LineNews),
    Dropped(Dropped),
    Lost(MemberId),
    Moved(IpAddr),
    Exchanged(io::Result<Roster>),
    RoomForEvent,
}

impl Driver {
    pub(super) fn new(
        core: Core,
        transport: Transport,
        inputs: Inputs,
        outputs: Outputs,
        found: bool,
    ) -> Self {
        let (lost_sender, lost) = mpsc::channel(LOST_QUEUE);
        let keeper = Keeper::new(Arc::clone(&transport.envelope), lost_sender);
        Self {
            core,
            transport,
            inputs,
            lost,
            found,
            keeper,
            outputs,
            outbox: Outbox::default(),
            exchanges: JoinSet::new(),
            warnings: Warnings::default(),
            rates: Rates::new(Instant::now()),
        }
    }

    /// Runs until the goodbye is said or nobody holds a handle any more.
    pub(super) async fn run(mut self) {
        // Until tokio has seen that the socket can send, it refuses to try.
        self.transport.socket.writable().await.unwrap_or_default();
        self.round(Instant::now());
        while !self.core.is_gone() {
            let input = self.next().await;
            let now = Instant::now();
            match input {
                Input::Abandoned => return,
                Input::Demand(Demand { leave: true, .. }) => self.core.leave(now),
                Input::Demand(Demand { meta, .. }) => self.update(meta, now),
                Input::Declaration(Declaration {
                    service,
                    server,
                    wish,
                }) => self.core.declare(service, server, wish, now),
                Input::Seeds(seeds) => self.core.set_seeds(seeds, now),
                Input::Request(request) => self.answer(request, now),
                Input::Line(news) => self.follow_line(news, now),
                Input::Dropped(Dropped { from, reason }) => self.dropped(from, reason, None, now),
                Input::Lost(balancer) => self.core.hunt(balancer, now),
                Input::Moved(ip) => self.relocate(ip, now),
                Input::Exchanged(Ok(roster)) => {
                    Counters::add(&self.transport.counters.synced);
                    self.merge(roster, now).unwrap_or_default();
                }
                // The core tries again with another peer.
                Input::Exchanged(Err(_))
                | Input::Readable
                | Input::Deadline
                | Input::RoomForEvent => {}
            }
            if self.round(now) {
                // A flood must not keep the thread from its other tasks.
                tokio::task::yield_now().await;
            }
        }
        self.keeper.farewell().await;
    }

    /// Waits for one input. Cancel safe: each branch only receives.
    async fn next(&mut self) -> Input {
        let deadline = self.core.deadline();
        tokio::select! {
            biased;
            changed = self.inputs.demands.changed() => match changed {
                Ok(()) => Input::Demand(self.inputs.demands.borrow_and_update().clone()),
                Err(_) => Input::Abandoned,
            },
            room = self.outputs.events.reserve(), if !self.outbox.is_empty() => {
                if let (Ok(room), Some(event)) = (room, self.outbox.pop()) {
                    room.send(event);
                }
                Input::RoomForEvent
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                Input::Deadline
            }
            Some(declared) = self.inputs.declarations.recv() => Input::Declaration(declared),
            Some(seeds) = self.inputs.seeds.recv() => Input::Seeds(seeds),
            Some(news) = self.inputs.lines.recv() => Input::Line(news),
            Some(balancer) = self.lost.recv() => Input::Lost(balancer),
            Some(ip) = self.inputs.moves.recv() => Input::Moved(ip),
            Some(dropped) = self.inputs.drops.recv() => Input::Dropped(dropped),
            Some(request) = self.inputs.requests.recv() => Input::Request(request),
            Some(exchanged) = self.exchanges.join_next() => {
                Input::Exchanged(exchanged.unwrap_or_else(|error| Err(error.into())))
            }
            // Last, since a flood of packets would keep all others waiting;
            // each round reads the socket anyway. An error shows again there.
            _ = self.transport.socket.readable() => Input::Readable,
        }
    }

    /// Returns whether there is more to read.
    fn round(&mut self, now: Instant) -> bool {
        let more = self.drain_socket(now);
        self.core.advance(now);
        self.core.settle();
        // Before sending: what is told may lead to more to send.
        self.tell(now);
        self.send_all();
        self.start_exchanges();
        more
    }

    fn update(&mut self, meta: Meta, now: Instant) {
        let meta = if self.found {
            // Whoever said it may not know yet that the address has changed.
            meta.at(self.core.local().addr.ip())
        } else {
            meta
        };
        // The handle has checked it; a refusal changes nothing.
        self.core.update(&meta, now).unwrap_or_default();
    }

    fn relocate(&mut self, ip: IpAddr, now: Instant) {
        let former = self.core.local().addr;
        match self.core.relocate(ip, now) {
            Ok(()) => info!(
                "this host's address is {ip} now instead of {}; known to the cluster as {}",
                former.ip(),
                self.core.local().addr
            ),
            Err(error) => error!("cannot go on at {ip} instead of {}: {error}", former.ip()),
        }
    }

    fn follow_line(&mut self, news: LineNews, now: Instant) {
        self.core.follow_line(news, now);
        let standing = self.core.lines_standing() as u64;
        let counters = &self.transport.counters;
        counters.lifelines.store(standing, Ordering::Relaxed);
    }

    fn answer(&mut self, request: Request, now: Instant) {
        Counters::add(&self.transport.counters.synced);
        let ours = self.core.roster(Some(request.roster.addr()));
        if self.merge(request.roster, now).is_ok() {
            // The peer may have hung up.
            request.reply.send(ours).ok();
        }
    }

    fn merge(&mut self, roster: Roster, now: Instant) -> Result<(), DropReason> {
        let from = roster.addr();
        let merged = self.core.merge(roster, now);
        self.tell_dropped(from, merged, now);
        merged
    }

    /// Returns whether more may wait.
    fn drain_socket(&mut self, now: Instant) -> bool {
        // One byte more than allowed, to see that a packet is too large.
        let mut buffer = [0; MAX_PACKET + 1];
        for _ in 0..MAX_DRAINED {
            match self.transport.socket.try_recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let packet = buffer.get(..length).unwrap_or_default();
                    self.receive(packet, from, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // An ICMP error about an earlier send; the next one may be a packet.
                Err(_) => {}
            }
        }
        true
    }

    fn receive(&mut self, packet: &[u8], from: SocketAddr, now: Instant) {
        Counters::add(&self.transport.counters.received);
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let handled = self.look_into(packet, from, now);
        self.tell_dropped(from, handled, now);
    }

    fn look_into(
        &mut self,
        packet: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Result<(), DropReason> {
        if !self.core.hears(from) {
            return Err(DropReason::Source);
        }
        let member = self.core.is_member(from);
        self.rates.admit(from, member, now)?;
        let opened = self.transport.envelope.open(packet)?;
        self.core.receive(from, opened.kind, &opened.body, now)
    }

    /// Tells of what was dropped whole, or in part.
    fn tell_dropped(&mut self, from: SocketAddr, handled: Result<(), DropReason>, now: Instant) {
        let refused = self.core.take_refused();
        let reason = handled.err().or(refused.map(|_| DropReason::Claim));
        if let Some(reason) = reason {
            self.dropped(from, reason, refused, now);
        }
    }

    fn dropped(
        &mut self,
        from: SocketAddr,
        reason: DropReason,
        about: Option<SocketAddr>,
        now: Instant,
    ) {
        Counters::add(self.transport.counters.dropped(reason));
        self.warnings.dropped(from, reason, about, now);
    }

    fn send_all(&mut self) {
        while let Some(outgoing) = self.core.next_send() {
            self.transport.send(&outgoing);
        }
    }

    fn start_exchanges(&mut self) {
        while let Some(peer) = self.core.next_sync() {
            let ours = self.core.roster(Some(peer));
            let envelope = Arc::clone(&self.transport.envelope);
            self.exchanges.spawn(sync::exchange(peer, ours, envelope));
        }
    }

    fn tell(&mut self, now: Instant) {
        while let Some(event) = self.core.next_event() {
            self.outbox.push(event);
        }
        while !self.outbox.is_empty() {
            let Ok(room) = self.outputs.events.try_reserve() else {
                break;
            };
            if let Some(event) = self.outbox.pop() {
                room.send(event);
            }
        }
        if let Some(members) = self.core.take_view() {
            let unreadable = self.core.unreadable() as u64;
            self.transport
                .counters
                .unreadable
                .store(unreadable, Ordering::Relaxed);
            for gone in self.keeper.follow(&members) {
                self.core.hunt(gone, now);
            }
            self.outputs.published.send_replace(Published {
                members: Arc::new(members),
                local: self.core.local(),
            });
        }
        let company = self.core.company();
        self.outputs
            .company
            .send_if_modified(|known| std::mem::replace(known, company) != company);
    }
}
