//! Keys, and what comes from those who are no members.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use rand::RngExt as _;

use super::{EPOCH, MS, SECOND, Sim, addr, meta};
use crate::{
    gossip::{
        core::{MAX_MEMBERS, Roster, admit::hello},
        identity::Id,
        wire::{DropReason, Key, Keyring, Kind},
    },
    membership::Phase,
};

#[test]
fn keys_are_rotated_without_losing_contact() {
    let (a, b) = (Key::generate(), Key::generate());
    let ring = |keys: &[&Key]| keys.iter().map(|key| (*key).clone()).collect::<Keyring>();
    let mut sim = Sim::new(1, 0.0);
    for node in 0..3 {
        sim.start_as(node, &[0], meta(node, Phase::Ready), ring(&[&a]));
    }
    assert!(sim.until(SECOND, Sim::all_know_all).is_some());
    for keys in [ring(&[&a, &b]), ring(&[&b, &a]), ring(&[&b])] {
        for node in 0..3 {
            sim.nodes[&node].envelope.set_keyring(keys.clone());
            sim.run(SECOND);
        }
    }
    for node in sim.nodes.values() {
        assert_eq!(node.dropped, []);
    }
    assert!((0..3).all(|node| !sim.saw_down(node)));
}

#[test]
fn a_node_with_another_key_stays_outside() {
    let mut sim = Sim::new(1, 0.0);
    let ring = || std::iter::once(Key::generate()).collect::<Keyring>();
    sim.start_as(0, &[], meta(0, Phase::Ready), ring());
    sim.start_as(1, &[0], meta(1, Phase::Ready), ring());
    sim.run(2 * SECOND);
    assert_eq!(sim.known(0), BTreeSet::from([0]));
    assert!(sim.nodes[&0].dropped.contains(&DropReason::BadKey));
}

#[test]
fn garbage_in_a_good_envelope_is_dropped_and_harms_nobody() {
    let mut sim = Sim::cluster(1, 0.0, 2);
    for kind in [Kind::Foca, Kind::Hello, Kind::Table] {
        for length in [0, 1, 2, 40, 1000] {
            let body: Vec<u8> = (0..length).map(|_| sim.rng.random()).collect();
            sim.act(0, |core, now| {
                assert_eq!(
                    core.receive(addr(9), kind, &body, now),
                    Err(DropReason::Malformed)
                );
            });
        }
    }
    sim.run(3 * SECOND);
    assert!(sim.all_know_all());
}

#[test]
fn the_table_does_not_grow_beyond_its_bound() {
    let mut sim = Sim::new(1, 0.0);
    sim.start(0, &[]);
    let stranger = |n: u32| {
        let ip = Ipv4Addr::from_bits(0x0ac0_0000 + n);
        Id::new((ip, 7946).into(), EPOCH, &meta(1, Phase::Ready)).unwrap()
    };
    let full = (0..5000).map(|n| (stranger(n), 0)).collect();
    let roster = Roster::forged(stranger(6000), full);
    sim.act(0, |core, now| core.merge(roster, now).unwrap());
    assert_eq!(sim.nodes[&0].core.view().len(), MAX_MEMBERS + 1);
    let hello = hello(&stranger(7000));
    sim.act(0, |core, now| {
        let refused = core.receive(addr(9), Kind::Hello, &hello, now);
        assert_eq!(refused, Err(DropReason::TableFull));
    });
}

#[test]
fn thousands_of_joins_a_second_are_borne() {
    let mut sim = Sim::cluster(1, 0.0, 3);
    let mut refused = 0;
    let us = Id::new(addr(0), EPOCH, &meta(0, Phase::Ready)).unwrap();
    // A hundred in a batch, as the driver reads them from its socket.
    for batch in 0..200_u32 {
        sim.act(0, |core, now| {
            for n in batch * 100..(batch + 1) * 100 {
                let ip = Ipv4Addr::from_bits(0x0ac0_0000 + n);
                let from = (ip, 7946).into();
                let id = Id::new(from, EPOCH, &meta(1, Phase::Ready)).unwrap();
                core.receive(from, Kind::Hello, &hello(&id), now).ok();
                let word = postcard::to_allocvec(&foca::Header {
                    src: id,
                    src_incarnation: 0,
                    dst: us.clone(),
                    message: foca::Message::<Id>::Gossip,
                });
                let joined = core.receive(from, Kind::Foca, &word.unwrap(), now);
                refused += usize::from(joined == Err(DropReason::TableFull));
            }
        });
        sim.run(MS);
    }
    assert!(refused > 15_000, "{refused}");
    assert!(sim.nodes[&0].core.known() <= MAX_MEMBERS);
    assert!(sim.known(0).is_superset(&(0..3).collect()));
}

#[test]
fn a_member_that_says_nonsense_of_itself_is_a_member_and_no_server() {
    let mut sim = Sim::cluster(1, 0.0, 2);
    let id = Id::new(addr(7), EPOCH, &meta(7, Phase::Ready))
        .unwrap()
        .unreadable();
    let before = sim.nodes[&0].events.len();
    let roster = Roster::forged(id, Vec::new());
    sim.act(0, |core, now| core.merge(roster, now).unwrap());
    sim.run(100 * MS);
    let node = &sim.nodes[&0];
    assert!(node.core.view().iter().any(|row| row.meta.is_none()));
    assert_eq!(node.events.len(), before, "nothing is told of it");
    assert_eq!(node.core.unreadable(), 1);
}

#[test]
fn whoever_is_down_is_forgotten_after_a_day() {
    let mut sim = Sim::cluster(1, 0.0, 2);
    for generation in 0..10 {
        let phase = if generation % 2 == 0 {
            Phase::Draining
        } else {
            Phase::Ready
        };
        sim.act(1, |core, now| core.update(&meta(1, phase), now).unwrap());
        sim.run(20 * MS);
    }
    sim.kill(1);
    sim.run(Duration::from_hours(23));
    assert_eq!(sim.nodes[&0].core.known(), 1);
    sim.run(Duration::from_hours(2));
    assert_eq!(sim.nodes[&0].core.known(), 0);
}
