//! Who is not admitted, and who wants more sent than it sends: without a key
//! anyone on the network can say all of this.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::BufMut as _;
use foca::{Header, Member, Message};

use super::{EPOCH, SECOND, Sim, addr, meta, name};
use crate::{
    gossip::{
        core::{Core, Roster, admit},
        identity::Id,
        wire::{DropReason, Kind},
    },
    membership::{MemberView, Meta, Phase, Role, Wish},
};

/// Where no packet may be sent to by hearsay.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

fn balancer(addr: SocketAddr) -> Id {
    let meta = Meta {
        name: name(77),
        role: Role::Balancer,
    };
    Id::new(addr, EPOCH, &meta).unwrap()
}

/// A node at a private address whose server is elsewhere.
fn with_server_at(node: usize, server: Ipv4Addr) -> Id {
    let meta = meta(node, Phase::Ready).at(server.into());
    Id::new(addr(node), EPOCH, &meta).unwrap()
}

/// Somebody with nothing to say: the shortest identity there is.
fn lean(node: usize) -> Id {
    balancer(addr(node))
}

/// The present identity of a node.
fn identity(sim: &Sim, node: usize) -> Id {
    let roster = sim.nodes[&node].core.roster(None);
    roster.speaker().clone()
}

fn packet(src: &Id, dst: &Id, message: Message<Id>, members: &[Id]) -> Vec<u8> {
    let asks = message == Message::Announce;
    let mut packet = postcard::to_allocvec(&Header {
        src: src.clone(),
        src_incarnation: 0,
        dst: dst.clone(),
        message,
    })
    .unwrap();
    if !asks {
        packet.put_u16(members.len() as u16);
        for id in members {
            packet = postcard::to_extend(&Member::alive(id.clone()), packet).unwrap();
        }
    }
    packet
}

/// What a core answers to packets that come at once, taken out of it: how
/// many packets and bytes.
fn answers(core: &mut Core) -> Vec<(SocketAddr, usize)> {
    std::iter::from_fn(|| core.next_send())
        .map(|outgoing| (outgoing.to, outgoing.body.len()))
        .collect()
}

fn view(sim: &Sim, addr: SocketAddr) -> Option<MemberView> {
    let members = sim.nodes[&0].core.view();
    members.into_iter().find(|row| row.id.addr == addr)
}

// --- admission ---

#[test]
fn of_a_packet_all_is_heard_but_members_and_servers_that_are_not_admitted() {
    let mut sim = Sim::cluster(1, 0.0, 2);
    let (us, sender) = (identity(&sim, 0), identity(&sim, 1));
    let elsewhere = balancer((PUBLIC, 7946).into());
    let pointing = with_server_at(8, PUBLIC);
    let good = with_server_at(9, Ipv4Addr::new(10, 9, 9, 9));
    let members = [elsewhere.clone(), pointing.clone(), good.clone()];
    let body = packet(&sender, &us, Message::Gossip, &members);
    sim.act(0, |core, now| {
        assert_eq!(core.receive(addr(1), Kind::Foca, &body, now), Ok(()));
        assert_eq!(core.take_refused(), Some((PUBLIC, 3000).into()));
        assert_eq!(core.take_refused(), None);
    });
    assert!(view(&sim, good.addr()).is_some());
    assert_eq!(view(&sim, elsewhere.addr()), None);
    assert_eq!(view(&sim, pointing.addr()), None);
}

#[test]
fn nobody_at_a_place_or_with_a_server_that_is_not_admitted_is_heard_of_itself() {
    let mut sim = Sim::cluster(1, 0.0, 2);
    let us = identity(&sim, 0);
    for id in [balancer((PUBLIC, 7946).into()), with_server_at(8, PUBLIC)] {
        let gossip = packet(&id, &us, Message::Gossip, &[]);
        let roster = Roster::forged(id.clone(), vec![(with_server_at(9, addr_of(9)), 0)]);
        let known = sim.nodes[&0].core.known();
        sim.act(0, |core, now| {
            let refused = Err(DropReason::Claim);
            let hello = admit::hello(&id);
            assert_eq!(core.receive(addr(8), Kind::Foca, &gossip, now), refused);
            assert_eq!(core.receive(addr(8), Kind::Hello, &hello, now), refused);
            assert_eq!(core.merge(roster, now), refused);
            assert!(core.take_refused().is_some());
            assert_eq!(answers(core), []);
        });
        assert_eq!(sim.nodes[&0].core.known(), known);
    }
}

fn addr_of(node: usize) -> Ipv4Addr {
    match addr(node) {
        SocketAddr::V4(v4) => *v4.ip(),
        SocketAddr::V6(_) => unreachable!(),
    }
}

#[test]
fn of_a_table_all_is_taken_but_who_is_not_admitted() {
    let mut sim = Sim::cluster(1, 0.0, 2);
    let (elsewhere, good) = (
        balancer((PUBLIC, 7946).into()),
        with_server_at(9, addr_of(9)),
    );
    let members = vec![(elsewhere.clone(), 0), (good.clone(), 0)];
    let roster = Roster::forged(identity(&sim, 1), members);
    sim.act(0, |core, now| {
        core.merge(roster, now).unwrap();
        assert_eq!(core.take_refused(), Some(elsewhere.addr()));
    });
    assert!(view(&sim, good.addr()).is_some());
    assert_eq!(view(&sim, elsewhere.addr()), None);
}

// --- amplification: what goes out for what came in ---

#[test]
fn a_greeting_is_answered_with_no_more_than_it_has_and_a_short_one_not_at_all() {
    let mut sim = Sim::cluster(1, 0.0, 2);
    for id in [lean(9), with_server_at(9, addr_of(9))] {
        sim.run(SECOND);
        let hello = admit::hello(&id);
        sim.act(0, |core, now| {
            answers(core);
            core.receive(addr(9), Kind::Hello, &hello, now).unwrap();
            let sent = answers(core);
            assert_eq!(sent.len(), 1);
            assert_eq!(sent[0].0, id.addr());
            assert!(sent[0].1 <= hello.len(), "{sent:?} for {}", hello.len());
        });
        sim.run(SECOND);
        let short = postcard::to_allocvec(&id).unwrap();
        sim.act(0, |core, now| {
            answers(core);
            let refused = core.receive(addr(9), Kind::Hello, &short, now);
            assert_eq!(refused, Err(DropReason::Malformed));
            assert_eq!(answers(core), []);
        });
    }
}

#[test]
fn a_probe_is_passed_on_to_members_only() {
    let mut sim = Sim::cluster(1, 0.0, 3);
    let (us, sender) = (identity(&sim, 0), identity(&sim, 1));
    for (target, passed) in [(identity(&sim, 2), 1), (lean(9), 0)] {
        for message in [
            Message::PingReq {
                target: target.clone(),
                probe_number: 1,
            },
            Message::IndirectAck {
                target: target.clone(),
                probe_number: 1,
            },
        ] {
            let body = packet(&sender, &us, message, &[]);
            sim.act(0, |core, now| {
                answers(core);
                core.receive(addr(1), Kind::Foca, &body, now).unwrap();
                let sent = answers(core);
                assert_eq!(sent.len(), passed, "{sent:?}");
                assert!(sent.iter().all(|(to, _)| *to == target.addr()));
            });
        }
    }
}

#[test]
fn announcements_are_answered_with_few_feeds_whoever_they_name() {
    let mut sim = Sim::formed(1, 0.0, 20);
    let us = identity(&sim, 0);
    sim.act(0, |core, now| {
        answers(core);
        let mut announce = |node| {
            let body = packet(&lean(node), &us, Message::Announce, &[]);
            core.receive(addr(node), Kind::Foca, &body, now).unwrap();
        };
        (0..50).for_each(|_| announce(100));
        (100..1000).for_each(announce);
        let feeds = answers(core)
            .into_iter()
            .filter(|(_, length)| *length > 600);
        let mut feeds: Vec<_> = feeds.map(|(to, _)| to).collect();
        assert!((100..=200).contains(&feeds.len()), "{}", feeds.len());
        feeds.sort();
        feeds.dedup();
        assert!(feeds.len() >= 100, "one address has one feed");
    });
}

#[test]
fn however_many_members_are_said_to_have_other_records_one_sync_begins() {
    let mut sim = Sim::formed(1, 0.0, 20);
    sim.act(0, |core, now| {
        core.declare(name(99), name(1), Wish::Weight(Some(1)), now);
    });
    sim.run(2 * SECOND);
    sim.act(0, |core, now| {
        while core.next_sync().is_some() {}
        for node in 1..20 {
            let digest = postcard::to_allocvec(&(addr(node), 12_345_u64)).unwrap();
            core.receive(addr(node), Kind::Digest, &digest, now)
                .unwrap();
        }
        assert_eq!(std::iter::from_fn(|| core.next_sync()).count(), 1);
    });
}

#[test]
fn forged_words_of_a_later_life_make_one_rebirth_at_a_time() {
    let mut sim = Sim::formed(1, 0.0, 20);
    let before = sim.local(0);
    sim.act(0, |core, now| {
        answers(core);
        for later in 1..=50 {
            let dst = Id::new(addr(0), EPOCH + later, &meta(0, Phase::Ready)).unwrap();
            let body = packet(&lean(50), &dst, Message::Gossip, &[]);
            core.receive(addr(50), Kind::Foca, &body, now).unwrap();
        }
        let sent = answers(core).len();
        assert!((19..60).contains(&sent), "{sent}");
    });
    assert_eq!(sim.local(0).epoch, before.epoch + 2);
}

#[test]
fn a_word_to_a_former_self_is_answered_with_twice_its_length_at_the_most() {
    let mut sim = Sim::cluster(1, 0.0, 2);
    let called = |name: &str| Meta {
        name: name.parse().unwrap(),
        role: Role::Balancer,
    };
    let long = called(&"n".repeat(60));
    sim.act(0, |core, now| core.update(&long, now).unwrap());
    for (meta, answered) in [(&long, 1), (&called("x"), 0)] {
        sim.run(2 * SECOND);
        let former = Id::new(addr(0), EPOCH - 1, meta).unwrap();
        let body = packet(&lean(9), &former, Message::Ping(1), &[]);
        sim.act(0, |core, now| {
            answers(core);
            core.receive(addr(9), Kind::Foca, &body, now).unwrap();
            let sent = answers(core);
            assert_eq!(sent.len(), answered, "{sent:?}");
            assert!(sent.iter().all(|(_, length)| *length <= 2 * body.len()));
        });
    }
}
