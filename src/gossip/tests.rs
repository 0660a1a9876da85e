//! Nodes over real sockets, on loopback.

use std::{collections::BTreeMap, net::SocketAddr, sync::atomic::Ordering, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    Admission, DropReason, Handle, Key, Keyring, MAX_PACKET, MetaError, Settings, Sockets,
    StartError, advertised, spawn,
    wire::{Envelope, Kind},
};
use crate::membership::{
    Admin, Announcement, MemberEvent, MemberId, MemberState, MemberView, Meta, Name, Phase, Role,
    Wish,
};

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
            other("another", Keyring::default()).seal(Kind::Foca, b""),
            DropReason::OtherCluster,
        ),
        (keyed.seal(Kind::Foca, b""), DropReason::BadKey),
        (plain.seal(Kind::Foca, b"\xff"), DropReason::Malformed),
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
