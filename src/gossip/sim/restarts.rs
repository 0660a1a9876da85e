//! Who was here before: how soon it is found again, and that no former life
//! of it quarrels with the later one.

use std::collections::BTreeSet;

use rand::RngExt as _;

use super::{EPOCH, MS, SECOND, Sim, addr, meta, seeds, spread};
use crate::{
    gossip::{
        Admission,
        core::{Birth, Core, admit::hello},
        identity::Id,
        wire::{Keyring, Kind},
    },
    membership::{MemberEvent, Phase},
};

#[test]
fn a_restarted_load_balancer_without_seeds_knows_all_20_within_a_second() {
    let times = seeds(20).map(|seed| {
        let mut sim = Sim::cluster(seed, 0.0, 20);
        let down_for = sim.rng.random_range(100..20_000);
        sim.kill(0);
        sim.run(down_for * MS);
        sim.start(0, &[]);
        let all: BTreeSet<_> = (0..20).collect();
        sim.until(30 * SECOND, |sim| sim.known(0) == all).unwrap()
    });
    let [.., worst] = spread("restart among 20, no seeds", times);
    assert!(worst < SECOND);
}

#[test]
fn a_small_cluster_finds_a_load_balancer_that_was_away_for_long() {
    let times = seeds(20).map(|seed| {
        let mut sim = Sim::cluster(seed, 0.0, 3);
        sim.kill(0);
        for agent in 1..3 {
            sim.act(agent, |core, now| core.set_seeds(Vec::new(), now));
        }
        sim.run(5 * SECOND);
        sim.start(0, &[]);
        sim.until(30 * SECOND, Sim::all_know_all).unwrap()
    });
    let [.., worst] = spread("return after 5 s among 3, no seeds", times);
    assert!(worst < 1200 * MS);
}

#[test]
fn agents_whose_lifelines_ended_find_a_restarted_balancer_within_200_ms() {
    let times = seeds(20).map(|seed| {
        let mut sim = Sim::cluster(seed, 0.0, 6);
        sim.forget_seeds();
        sim.run(SECOND);
        let former = sim.local(0);
        sim.kill(0);
        for agent in 1..6 {
            sim.act(agent, |core, now| core.hunt(former, now));
        }
        let down_for = sim.rng.random_range(20..8000);
        sim.run(down_for * MS);
        sim.start(0, &[]);
        sim.until(30 * SECOND, Sim::all_know_all).unwrap()
    });
    let [.., worst] = spread("a restart among 5 that lost their lifelines", times);
    assert!(worst < 200 * MS);
}

#[test]
fn a_load_balancer_that_said_goodbye_is_back_within_300_ms() {
    let times = seeds(20).map(|seed| {
        let agents = 1 + seed as usize % 5;
        let mut sim = Sim::cluster(seed, 0.0, 1 + agents);
        sim.run(SECOND);
        sim.leave(0);
        sim.run(100 * MS);
        sim.kill(0);
        let down_for = sim.rng.random_range(20..8000);
        sim.run(down_for * MS);
        sim.start(0, &[]);
        sim.until(30 * SECOND, Sim::all_know_all).unwrap()
    });
    let [.., worst] = spread("a restart with a goodbye", times);
    assert!(worst < 300 * MS);
}

#[test]
fn a_lone_agent_finds_its_load_balancer_after_minutes_within_a_second() {
    let times = seeds(20).map(|seed| {
        let mut sim = Sim::cluster(seed, 0.0, 2);
        sim.leave(0);
        sim.run(100 * MS);
        sim.kill(0);
        let down_for = sim.rng.random_range(60_000..120_000);
        sim.run(down_for * MS);
        sim.start(0, &[]);
        sim.until(30 * SECOND, Sim::all_know_all).unwrap()
    });
    let [.., worst] = spread("a restart minutes after a goodbye", times);
    assert!(worst < 1100 * MS);
}

#[test]
fn a_hunt_ends_when_the_balancer_answers_or_after_ten_seconds() {
    let mut sim = Sim::cluster(1, 0.0, 2);
    sim.forget_seeds();
    let balancer = sim.local(0);
    let hellos = |sim: &mut Sim, time| {
        let before = sim.packets;
        sim.run(time);
        sim.packets - before
    };
    let idle = hellos(&mut sim, 5 * SECOND);
    sim.act(1, |core, now| core.hunt(balancer, now));
    assert!(hellos(&mut sim, 5 * SECOND) < idle + 20, "it answered");
    sim.kill(0);
    sim.act(1, |core, now| core.hunt(balancer, now));
    sim.run(11 * SECOND);
    assert!(hellos(&mut sim, 10 * SECOND) <= 20, "it stopped");
}

#[test]
fn a_restarted_agent_is_up_again_with_its_new_epoch() {
    for (seed, down_for) in [(1, 100), (2, 1000), (3, 5000)] {
        let mut sim = Sim::cluster(seed, 0.0, 4);
        sim.kill(2);
        sim.run(down_for * MS);
        sim.start(2, &[0]);
        let new = sim.local(2);
        let took = sim.until(SECOND, |sim| {
            sim.saw(
                0,
                |event| matches!(event, MemberEvent::Up(m) if m.id == new),
            )
        });
        assert!(took.unwrap() < 300 * MS);
    }
}

#[test]
fn a_node_whose_clock_went_back_outlives_its_former_self() {
    for (seed, down_for) in [(1, 100), (2, 5000)] {
        let mut sim = Sim::cluster(seed, 0.0, 4);
        let former = sim.local(2);
        sim.kill(2);
        sim.run(down_for * MS);
        let birth = Birth {
            addr: addr(2),
            meta: meta(2, Phase::Ready),
            admission: Admission::default(),
            unix_ms: EPOCH - 60_000,
            now: sim.now,
            seed,
        };
        sim.start_from(2, &[0], &birth, Keyring::default());
        let took = sim.until(5 * SECOND, |sim| {
            sim.all_know_all() && sim.local(2).epoch > former.epoch
        });
        assert!(took.unwrap() < SECOND, "{took:?}");
        let before = sim.packets;
        sim.run(SECOND);
        assert!(sim.packets - before < 200, "a quarrel over who is alive");
    }
}

#[test]
fn a_node_whose_clock_is_far_behind_stays_outside_without_a_quarrel() {
    let mut sim = Sim::cluster(1, 0.0, 4);
    sim.kill(2);
    let birth = Birth {
        addr: addr(2),
        meta: meta(2, Phase::Ready),
        admission: Admission::default(),
        unix_ms: EPOCH - 2 * 3_600_000,
        now: sim.now,
        seed: 1,
    };
    sim.start_from(2, &[0], &birth, Keyring::default());
    sim.run(5 * SECOND);
    let before = sim.packets;
    sim.run(SECOND);
    assert!(sim.packets - before < 100, "{}", sim.packets - before);
}

#[test]
fn an_epoch_far_ahead_is_not_followed() {
    let mut sim = Sim::cluster(1, 0.0, 2);
    let before = sim.local(1);
    let forged = Id::new(addr(1), EPOCH + 2 * 3_600_000, &meta(1, Phase::Ready)).unwrap();
    let mut core = Core::new(&Birth {
        addr: addr(7),
        meta: meta(7, Phase::Ready),
        admission: Admission::default(),
        unix_ms: EPOCH,
        now: sim.now,
        seed: 0,
    })
    .unwrap();
    let hello = hello(&forged);
    core.receive(addr(1), Kind::Hello, &hello, sim.now).unwrap();
    let announce = core.next_send().unwrap();
    sim.act(1, |core, now| {
        core.receive(addr(7), announce.kind, &announce.body, now)
            .unwrap();
    });
    assert_eq!(sim.local(1), before);
}

#[test]
fn two_nodes_of_one_name_are_two_members_and_stay_so() {
    let mut sim = Sim::cluster(1, 0.0, 3);
    sim.start_as(9, &[0], meta(1, Phase::Ready), Keyring::default());
    assert!(sim.until(SECOND, Sim::all_know_all).is_some());
    sim.run(SECOND);
    let (events, packets) = (sim.nodes[&0].events.len(), sim.packets);
    sim.run(10 * SECOND);
    assert_eq!(sim.nodes[&0].events.len(), events, "no news of either");
    assert!(sim.packets - packets < 10 * 4 * 12, "no quarrel");
    sim.check();
}
