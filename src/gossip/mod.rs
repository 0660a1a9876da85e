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
mod helpers;
mod hosts;
mod identity;
mod inputs;
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
mod transport;
mod warnings;
mod wire;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{mpsc, watch},
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
    driver::{Driver, Outputs},
    handle::Published,
    helpers::Helpers,
    seeds::Company,
    transport::Transport,
    wire::Envelope,
};
use crate::membership::{MemberEvent, Meta, Name};

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
    let addr = advertised(&settings, &sockets)?;
    warn_if_unheard(&settings.admission, addr.ip());
    let core = Core::new(&birth(&settings, addr))?;
    let listener = TcpListener::from_std(sockets.tcp)?;
    let socket = UdpSocket::from_std(sockets.udp)?;
    let envelope = Envelope::new(settings.cluster, settings.keyring);
    let transport = Transport::new(socket, envelope);

    let (senders, inputs) = inputs::channels(settings.meta);
    let (publish, published) = watch::channel(Published::of(&core));
    let (tell_company, company) = watch::channel(Company::Alone);
    let handle = Handle {
        demands: senders.demands,
        declarations: senders.declarations,
        published,
        envelope: Arc::clone(&transport.envelope),
        counters: Arc::clone(&transport.counters),
    };
    let helpers = Helpers {
        listener,
        envelope: Arc::clone(&transport.envelope),
        admission: settings.admission,
        inbox: senders.inbox,
        seeds: settings.seeds,
        resolved: senders.seeds,
        company,
        found: settings.found.then_some(addr.ip()),
        moves: senders.moves,
    };
    let outputs = Outputs {
        events,
        published: publish,
        company: tell_company,
    };
    let driver = Driver::new(core, transport, inputs, outputs, settings.found);
    tokio::spawn(async move {
        // They end with the driver: dropping the set aborts them.
        let _tasks = helpers.start();
        driver.run().await;
    });
    Ok(handle)
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

fn warn_if_unheard(admission: &Admission, own: IpAddr) {
    if !admission.admits_elsewhere(own) {
        warn!(
            "no node elsewhere hears this one at {own}, unless its --gossip-allow admits that; \
             with a key (`tidings keygen`) every address may take part"
        );
    }
}

fn birth(settings: &Settings, addr: SocketAddr) -> Birth {
    Birth {
        addr,
        meta: settings.meta.clone(),
        admission: settings.admission.clone(),
        unix_ms: unix_ms(),
        now: Instant::now(),
        seed: rand::random(),
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}
