//! Membership by gossip: who is there, what they say, who failed, who left.
//!
//! Each node announces its [`Meta`] and learns everyone else's. SWIM (foca)
//! over UDP finds failures in one to two seconds; a state sync over TCP, on
//! the same port, tells a newcomer everything in one round trip. An idle TCP
//! connection from each agent to each balancer, its lifeline, shows at once
//! that either ended. Packets are sealed when a key is set.
//!
//! [`spawn`] starts a node, [`Handle`] steers it, and what changes comes out
//! as [`MemberEvent`]s.

mod admission;
#[doc(hidden)]
pub mod bench;
mod core;
mod driver;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod handle;
mod hosts;
mod identity;
mod lifeline;
mod outbox;
mod own_address;
mod port;
mod profile;
mod rate;
mod records;
mod seeds;
#[cfg(test)]
mod sim;
mod sockets;
mod sync;
mod table;
#[cfg(test)]
mod tests;
mod timers;
mod warnings;
mod wire;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tracing::warn;

pub use self::{
    admission::Admission,
    handle::Handle,
    identity::{MAX_TAG_VALUE, MetaError, check_meta, check_tag},
    own_address::local_address,
    seeds::{DEFAULT_PORT, Seed, SeedError},
    sockets::Sockets,
    wire::{Counters, DropReason, Key, KeyError, Keyring, MAX_PACKET},
};
use self::{
    core::{Birth, Core},
    driver::Driver,
    handle::{Demand, Published},
    lifeline::Keeper,
    outbox::Outbox,
    port::Inbox,
    rate::Rates,
    warnings::Warnings,
    wire::Envelope,
};
use crate::membership::{MemberEvent, Meta, Name};

/// The resolver sends a list when it changed and waits while one is unread.
const SEED_QUEUE: usize = 1;
/// Each exchange waits for its answer, so there are no more than these.
const REQUEST_QUEUE: usize = 32;
/// As many as are kept: whoever sets a whole cluster's servers at once finds
/// room.
const DECLARATION_QUEUE: usize = records::MAX_RECORDS;
/// Whoever finds the own address waits while the last one is not taken on.
const MOVE_QUEUE: usize = 1;
/// Whoever watches a lifeline waits while as many have something to tell.
const LINE_QUEUE: usize = 64;
/// Whoever dropped a frame waits while as many are to be counted.
const DROP_QUEUE: usize = 64;

/// How a node takes part.
#[derive(Debug)]
pub struct Settings {
    /// Where the others reach this node; port 0 means the one it is bound to.
    pub advertise: SocketAddr,
    /// Whether the IP address of `advertise` is what [`local_address`] found.
    /// The node then goes on at another one when this host loses it, and what
    /// it announces moves along: a server announced by such a node is always
    /// at the node's own address.
    pub found: bool,
    /// Nodes of another cluster are not heard.
    pub cluster: Name,
    /// The keys that all nodes share; none means plain text.
    pub keyring: Keyring,
    /// The addresses of nodes and servers that may take part. A key that is
    /// introduced later does not change it.
    pub admission: Admission,
    /// Where to look for the cluster. May be empty: then others find us.
    pub seeds: Vec<Seed>,
    /// What to say of this node.
    pub meta: Meta,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What it would say of itself cannot be told.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// No other node can send anything to this address.
    #[error("{0} cannot be advertised: the others must be able to send to it")]
    Advertise(SocketAddr),
    /// The sockets cannot be used.
    #[error("the gossip sockets cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// Starts a node on the current tokio runtime.
///
/// Events wait for the reader of `events` without holding up the node; of a
/// member that changes meanwhile only the latest are kept.
pub fn spawn(
    sockets: Sockets,
    settings: Settings,
    events: mpsc::Sender<MemberEvent>,
) -> Result<Handle, StartError> {
    let now = Instant::now();
    let addr = advertised(&settings, &sockets)?;
    if !settings.admission.admits_elsewhere(addr.ip()) {
        warn!(
            "no node elsewhere hears this one at {}, unless its --gossip-allow admits that; with \
             a key (`tidings keygen`) every address may take part",
            addr.ip()
        );
    }
    let core = Core::new(&Birth {
        addr,
        meta: settings.meta.clone(),
        admission: settings.admission.clone(),
        unix_ms: unix_ms(),
        now,
        seed: rand::random(),
    })?;
    let socket = tokio::net::UdpSocket::from_std(sockets.udp)?;
    let listener = tokio::net::TcpListener::from_std(sockets.tcp)?;
    let envelope = Arc::new(Envelope::new(settings.cluster, settings.keyring));
    let counters = Arc::new(Counters::default());

    let (demand_sender, demands) = watch::channel(Demand {
        meta: settings.meta,
        leave: false,
    });
    let (declare, declarations) = mpsc::channel(DECLARATION_QUEUE);
    let (publish, published) = watch::channel(Published {
        members: Arc::new(core.view()),
        local: core.local(),
    });
    let (company_sender, company) = watch::channel(seeds::Company::Alone);
    let (seed_sender, seeds) = mpsc::channel(SEED_QUEUE);
    let (request_sender, requests) = mpsc::channel(REQUEST_QUEUE);
    let (line_sender, lines) = mpsc::channel(LINE_QUEUE);
    let (drop_sender, drops) = mpsc::channel(DROP_QUEUE);
    let (lost_sender, lost) = mpsc::channel(LINE_QUEUE);
    let (move_sender, moves) = mpsc::channel(MOVE_QUEUE);

    let driver = Driver {
        core,
        socket,
        envelope: Arc::clone(&envelope),
        counters: Arc::clone(&counters),
        demands,
        declarations,
        seeds,
        requests,
        lines,
        drops,
        lost,
        moves,
        found: settings.found,
        keeper: Keeper::new(Arc::clone(&envelope), lost_sender),
        events,
        published: publish,
        company: company_sender,
        outbox: Outbox::default(),
        exchanges: JoinSet::new(),
        warnings: Warnings::default(),
        rates: Rates::new(now),
    };
    let waiting = seeds::tell_of_silence(settings.seeds.clone(), company.clone());
    let following = settings.found.then(|| {
        let seeds = settings.seeds.clone();
        own_address::follow(addr.ip(), seeds, company.clone(), move_sender)
    });
    let resolving = seeds::resolve_for_ever(settings.seeds, company, seed_sender);
    let inbox = Inbox {
        requests: request_sender,
        lines: line_sender,
        drops: drop_sender,
    };
    let serving = port::serve(listener, Arc::clone(&envelope), settings.admission, inbox);
    tokio::spawn(async move {
        // They end with the driver: dropping the set aborts them.
        let mut helpers = JoinSet::new();
        helpers.spawn(waiting);
        helpers.spawn(resolving);
        helpers.spawn(serving);
        following.map(|following| helpers.spawn(following));
        driver.run().await;
    });
    Ok(Handle {
        demands: demand_sender,
        declarations: declare,
        published,
        envelope,
        counters,
    })
}

fn advertised(settings: &Settings, sockets: &Sockets) -> Result<SocketAddr, StartError> {
    let mut addr = settings.advertise;
    addr.set_ip(addr.ip().to_canonical());
    if addr.port() == 0 {
        addr.set_port(sockets.local_addr()?.port());
    }
    if !identity::reachable(addr) {
        return Err(StartError::Advertise(addr));
    }
    Ok(addr)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}
