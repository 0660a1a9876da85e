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
mod sync;
mod table;
mod timers;
mod wire;

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
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
    identity::{MAX_TAG_VALUE, MetaError, check_meta, check_tag},
    own_address::local_address,
    seeds::{DEFAULT_PORT, Seed, SeedError},
    wire::{Counters, DropReason, Key, KeyError, Keyring, MAX_PACKET},
};
use self::{
    core::{Birth, Core},
    driver::{Driver, Warnings},
    identity::Id,
    lifeline::Keeper,
    outbox::Outbox,
    port::Inbox,
    rate::Rates,
    wire::Envelope,
};
use crate::membership::{MemberEvent, MemberId, MemberView, Meta, Name, Wish};

/// How often a port free for UDP may turn out taken for TCP.
const BIND_ATTEMPTS: usize = 16;
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

/// The sockets of a node: UDP and TCP on one port.
#[derive(Debug)]
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds both; with port 0 to one that is free for both.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let mut attempt = 1;
        loop {
            let udp = UdpSocket::bind(addr)?;
            match TcpListener::bind(udp.local_addr()?) {
                Ok(tcp) => return Self::new(udp, tcp),
                Err(error) if addr.port() != 0 || attempt == BIND_ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    fn new(udp: UdpSocket, tcp: TcpListener) -> io::Result<Self> {
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp })
    }

    /// The address both are bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }
}

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

/// What the handles want of the driver; the latest counts.
#[derive(Debug, Clone)]
struct Demand {
    meta: Meta,
    leave: bool,
}

/// What an operator wants of a server, before it has a version.
#[derive(Debug)]
struct Declaration {
    service: Name,
    server: Name,
    wish: Wish,
}

/// What the driver last knew.
#[derive(Debug, Clone)]
struct Published {
    members: Arc<Vec<MemberView>>,
    local: MemberId,
}

/// A running node. It ends when it has left, or when the last clone of its
/// handle is dropped, which to the others is a crash.
#[derive(Debug, Clone)]
pub struct Handle {
    demands: watch::Sender<Demand>,
    declarations: mpsc::Sender<Declaration>,
    published: watch::Receiver<Published>,
    envelope: Arc<Envelope>,
    counters: Arc<Counters>,
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

impl Handle {
    /// Says something new of this node; all others know it in milliseconds.
    pub fn update(&self, meta: Meta) -> Result<(), MetaError> {
        Id::new(self.local().addr, 0, &meta)?;
        self.demands.send_modify(|demand| demand.meta = meta);
        Ok(())
    }

    /// Says what an operator wants of a server, which need not be there. Every
    /// node keeps it, the latest word counting, and hands it to those that
    /// come later; here it comes out as [`MemberEvent::Wanted`] like any other.
    ///
    /// `false` when it is lost: the node has ended, or thousands more wait.
    pub fn declare(&self, service: Name, server: Name, wish: Wish) -> bool {
        let declaration = Declaration {
            service,
            server,
            wish,
        };
        self.declarations.try_send(declaration).is_ok()
    }

    /// Says goodbye, and returns once that has gone out, in some 60 ms; the
    /// node has ended then.
    pub async fn leave(&self) {
        self.demands.send_modify(|demand| demand.leave = true);
        let mut published = self.published.clone();
        while published.changed().await.is_ok() {}
    }

    /// Every member, this node first, those that are gone for a minute.
    pub fn members(&self) -> Arc<Vec<MemberView>> {
        Arc::clone(&self.published.borrow().members)
    }

    /// Waits until [`Handle::members`] has changed since the last call on
    /// this handle; `false` when the node has ended.
    pub async fn changed(&mut self) -> bool {
        self.published.changed().await.is_ok()
    }

    /// This node's own id. Its address may change, see [`Settings::found`];
    /// [`Handle::changed`] tells.
    pub fn local(&self) -> MemberId {
        self.published.borrow().local
    }

    /// What went over the wire so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Uses other keys from now on, without a pause.
    pub fn set_keyring(&self, keyring: Keyring) {
        self.envelope.set_keyring(keyring);
    }
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

    use tokio::time::timeout;

    use super::*;
    use crate::membership::{Admin, Announcement, MemberState, Phase, Role};

    struct Node {
        handle: Handle,
        events: mpsc::Receiver<MemberEvent>,
    }

    fn meta(name: &str, phase: Phase) -> Meta {
        Meta {
            name: name.parse().unwrap(),
            role: Role::Server(Announcement {
                service: "nodes".parse().unwrap(),
                addr: "127.0.0.1:3000".parse().unwrap(),
                weight: 1,
                phase,
                tags: BTreeMap::new(),
            }),
        }
    }

    fn start_on(sockets: Sockets, name: &str, seeds: &[&Node], keyring: Keyring) -> Node {
        start_as(sockets, meta(name, Phase::Ready), seeds, keyring)
    }

    fn start_as(sockets: Sockets, meta: Meta, seeds: &[&Node], keyring: Keyring) -> Node {
        let addr = sockets.local_addr().unwrap();
        let seeds = seeds
            .iter()
            .map(|seed| seed.handle.local().addr.to_string().parse().unwrap());
        let settings = Settings {
            advertise: addr,
            found: false,
            cluster: "test".parse().unwrap(),
            keyring,
            admission: Admission::default(),
            seeds: seeds.collect(),
            meta,
        };
        // Room for one event only: a full queue must hold nothing up.
        let (sender, events) = mpsc::channel(1);
        let handle = spawn(sockets, settings, sender).unwrap();
        Node { handle, events }
    }

    fn start(name: &str, seeds: &[&Node]) -> Node {
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        start_on(sockets, name, seeds, Keyring::default())
    }

    fn start_balancer(sockets: Sockets) -> Node {
        let meta = Meta {
            name: "ha".parse().unwrap(),
            role: Role::Balancer,
        };
        start_as(sockets, meta, &[], Keyring::default())
    }

    fn any_port() -> Sockets {
        Sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    impl Node {
        /// The next event that is not one of doubt: a busy machine may stall
        /// a node for long enough to be suspected.
        async fn event(&mut self) -> MemberEvent {
            loop {
                let event = timeout(Duration::from_secs(5), self.events.recv()).await;
                match event.expect("an event in time").expect("a running node") {
                    MemberEvent::Suspect(_) | MemberEvent::Refuted(_) => {}
                    event => return event,
                }
            }
        }

        /// Waits until somebody keeps a lifeline to this node.
        async fn lifeline_from(&mut self, agent: &Node) {
            let id = agent.handle.local();
            self.until(|members| members.iter().any(|row| row.id == id))
                .await;
            let standing = async {
                while self.handle.counters().lifelines.load(Ordering::Relaxed) == 0 {
                    tokio::task::yield_now().await;
                }
            };
            timeout(Duration::from_secs(5), standing)
                .await
                .expect("in time");
        }

        /// Waits for an event that a process ended, or the way there did.
        async fn hangs_up(&mut self) -> MemberId {
            loop {
                match self.event().await {
                    MemberEvent::HungUp(id) => return id,
                    MemberEvent::Up(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }

        async fn until(&mut self, done: impl Fn(&[MemberView]) -> bool) {
            let wait = async {
                while !done(&self.handle.members()) {
                    assert!(self.handle.changed().await);
                }
            };
            timeout(Duration::from_secs(5), wait)
                .await
                .expect("in time");
        }
    }

    fn phase(event: &MemberEvent) -> Option<Phase> {
        match event {
            MemberEvent::Up(member) => match &member.meta.role {
                Role::Server(announcement) => Some(announcement.phase),
                Role::Balancer => None,
            },
            _ => None,
        }
    }

    #[tokio::test]
    async fn two_nodes_join_update_and_leave_over_real_sockets() {
        let mut first = start("s1", &[]);
        let mut second = start("s2", &[&first]);
        assert_eq!(phase(&first.event().await), Some(Phase::Ready));
        assert_eq!(phase(&second.event().await), Some(Phase::Ready));

        second.handle.update(meta("s2", Phase::Draining)).unwrap();
        assert_eq!(phase(&first.event().await), Some(Phase::Draining));

        let id = second.handle.local();
        let leaving = Instant::now();
        second.handle.leave().await;
        assert!(leaving.elapsed() < Duration::from_millis(200));
        assert_eq!(first.event().await, MemberEvent::Left(id));
        first
            .until(|members| members.len() == 2 && members[1].state == MemberState::Left)
            .await;
        assert!(first.handle.members()[0].local);
        for node in [&first, &second] {
            let counters = node.handle.counters();
            assert!(counters.received.load(Ordering::Relaxed) > 0);
            assert_eq!(counters.unsent.load(Ordering::Relaxed), 0);
        }
    }

    #[tokio::test]
    async fn a_newcomer_learns_everyone_by_one_exchange_and_keys_seal_it() {
        let keyring: Keyring = std::iter::once(Key::generate()).collect();
        let sockets = || Sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let seed = start_on(sockets(), "s0", &[], keyring.clone());
        let mut nodes: Vec<_> = (1..8)
            .map(|n| start_on(sockets(), &format!("s{n}"), &[&seed], keyring.clone()))
            .collect();
        let mut last = start_on(sockets(), "last", &[&seed], keyring);
        for node in nodes.iter_mut().chain([&mut last]) {
            node.until(|members| members.len() == 9).await;
        }
        assert!(last.handle.counters().synced.load(Ordering::Relaxed) > 0);
    }

    #[tokio::test]
    async fn a_node_that_crashed_is_found_by_the_others_when_it_is_back() {
        let seed = start("s0", &[]);
        let addr = seed.handle.local().addr;
        let mut others: Vec<_> = (1..4).map(|n| start(&format!("s{n}"), &[&seed])).collect();
        for node in &mut others {
            node.until(|members| members.len() == 4).await;
        }
        let Node { handle, mut events } = seed;
        drop(handle);
        while events.recv().await.is_some() {}
        let sockets = bind_again(addr).await;
        let mut back = start_on(sockets, "s0", &[], Keyring::default());
        back.until(|members| members.len() == 4).await;
        let id = back.handle.local();
        for node in &mut others {
            node.until(|members| members.iter().any(|row| row.id == id))
                .await;
        }
    }

    /// The helpers of a node that ended are aborted, which takes a moment.
    async fn bind_again(addr: SocketAddr) -> Sockets {
        loop {
            match Sockets::bind(addr) {
                Ok(sockets) => return sockets,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    #[tokio::test]
    async fn an_agent_that_dies_hangs_up_before_gossip_notices() {
        let mut balancer = start_balancer(any_port());
        let agent = start("s1", &[&balancer]);
        let id = agent.handle.local();
        balancer.lifeline_from(&agent).await;
        let died = Instant::now();
        drop(agent);
        assert_eq!(balancer.hangs_up().await, id);
        assert!(died.elapsed() < Duration::from_millis(200));
        assert_eq!(balancer.event().await, MemberEvent::Down(id));
    }

    #[tokio::test]
    async fn an_agent_that_leaves_does_not_hang_up() {
        let mut balancer = start_balancer(any_port());
        let agent = start("s1", &[&balancer]);
        let id = agent.handle.local();
        balancer.lifeline_from(&agent).await;
        assert!(matches!(balancer.event().await, MemberEvent::Up(_)));
        agent.handle.leave().await;
        assert_eq!(balancer.event().await, MemberEvent::Left(id));
        drop(agent);
        let quiet = timeout(Duration::from_millis(300), balancer.events.recv()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }

    #[tokio::test]
    async fn a_balancer_that_restarts_without_seeds_has_lifelines_again_at_once() {
        let former = start_balancer(any_port());
        let mut agents: Vec<_> = (1..4)
            .map(|n| start(&format!("s{n}"), &[&former]))
            .collect();
        for agent in &mut agents {
            agent.until(|members| members.len() == 4).await;
        }
        let addr = former.handle.local().addr;
        let Node { handle, mut events } = former;
        drop(handle);
        while events.recv().await.is_some() {}
        let mut balancer = start_balancer(bind_again(addr).await);
        let back = Instant::now();
        balancer.until(|members| members.len() == 4).await;
        assert!(back.elapsed() < Duration::from_secs(1));
        let all = async {
            while balancer.handle.counters().lifelines.load(Ordering::Relaxed) < 3 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(2), all).await.expect("in time");
        let id = agents[0].handle.local();
        drop(agents.remove(0));
        assert_eq!(balancer.hangs_up().await, id);
    }

    fn wanted(event: &MemberEvent) -> Option<Wish> {
        match event {
            MemberEvent::Wanted(intent) => Some(intent.wish),
            _ => None,
        }
    }

    #[tokio::test]
    async fn what_an_operator_wants_is_known_everywhere_and_survives_its_balancer() {
        let mut balancer = start_balancer(any_port());
        let mut agent = start("s1", &[&balancer]);
        agent.until(|members| members.len() == 2).await;
        let [service, server] = ["nodes", "s1"].map(|name| name.parse::<Name>().unwrap());
        let drain = Wish::State(Admin::Drain);
        assert!(balancer.handle.declare(service, server, drain));
        for node in [&mut balancer, &mut agent] {
            while wanted(&node.event().await) != Some(drain) {}
        }
        let addr = balancer.handle.local().addr;
        drop(balancer.handle);
        while balancer.events.recv().await.is_some() {}
        let mut restarted = start_balancer(bind_again(addr).await);
        while wanted(&restarted.event().await) != Some(drain) {}
    }

    #[tokio::test]
    async fn a_node_ends_when_its_last_handle_is_dropped() {
        let mut node = start("s1", &[]);
        drop(node.handle);
        let end = timeout(Duration::from_secs(5), node.events.recv()).await;
        assert_eq!(end, Ok(None));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_and_changes_nothing() {
        let node = start("s1", &[]);
        let mut large = meta("s1", Phase::Ready);
        if let Role::Server(announcement) = &mut large.role {
            announcement.tags = (0..9).map(|n| (format!("k{n}"), "v".repeat(60))).collect();
        }
        let refused = node.handle.update(large).unwrap_err();
        assert!(matches!(refused, MetaError::TooLarge { .. }));
        assert_eq!(
            node.handle.members()[0].meta,
            Some(meta("s1", Phase::Ready))
        );
    }

    #[tokio::test]
    async fn strange_packets_are_counted_by_what_is_wrong_with_them() {
        let node = start("s1", &[]);
        let counters = node.handle.counters();
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let other = |cluster: &str, keyring| Envelope::new(cluster.parse().unwrap(), keyring);
        let keyed = other("test", std::iter::once(Key::generate()).collect());
        let plain = other("test", Keyring::default());
        let packets = [
            (b"GET / HTTP/1.1".to_vec(), DropReason::Foreign),
            (
                other("another", Keyring::default()).seal(wire::Kind::Foca, b""),
                DropReason::OtherCluster,
            ),
            (keyed.seal(wire::Kind::Foca, b""), DropReason::BadKey),
            (plain.seal(wire::Kind::Foca, b"\xff"), DropReason::Malformed),
            (vec![b'T'; MAX_PACKET + 100], DropReason::Oversized),
        ];
        for (packet, reason) in packets {
            socket
                .send_to(&packet, node.handle.local().addr)
                .await
                .unwrap();
            let counted = async {
                while counters.dropped(reason).load(Ordering::Relaxed) == 0 {
                    tokio::task::yield_now().await;
                }
            };
            timeout(Duration::from_secs(5), counted)
                .await
                .expect("counted");
        }
    }

    #[test]
    fn an_address_that_nobody_can_send_to_is_not_advertised() {
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let settings = Settings {
            advertise: "0.0.0.0:7946".parse().unwrap(),
            found: false,
            cluster: "test".parse().unwrap(),
            keyring: Keyring::default(),
            admission: Admission::default(),
            seeds: Vec::new(),
            meta: meta("s1", Phase::Ready),
        };
        let refused = advertised(&settings, &sockets).unwrap_err();
        assert!(matches!(refused, StartError::Advertise(_)));
    }
}
