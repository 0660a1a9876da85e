//! Hosts that get another address while their node runs.

use super::*;
use crate::membership::{Member, Role};

/// Where an agent's app is, by what a node saw of it last.
fn app_of(sim: &Sim, at: usize, id: MemberId) -> Option<SocketAddr> {
    let events = sim.nodes[&at].events.iter().rev();
    let ups = events.filter_map(|(_, event)| match event {
        MemberEvent::Up(Member { id: up, meta }) if *up == id => Some(meta),
        _ => None,
    });
    match &ups.take(1).next()?.role {
        Role::Server(announcement) => Some(announcement.addr),
        Role::Balancer => None,
    }
}

#[test]
fn a_moved_node_is_known_at_its_new_address_and_missed_by_nobody() {
    for seed in seeds(20) {
        let mut sim = Sim::cluster(seed, 0.05, 6);
        sim.forget_seeds();
        let former = sim.local(3);
        sim.relocate(3, 13);
        let moved = sim.local(13);
        assert!(moved.epoch > former.epoch);
        let took = sim.until(5 * SECOND, Sim::all_know_all);
        assert!(took.unwrap() < SECOND, "{took:?}");
        let app = SocketAddr::new(addr(13).ip(), 3000);
        assert_eq!(app_of(&sim, 0, moved), Some(app));
        sim.check();
        for node in [0, 1, 2, 4, 5] {
            assert!(!sim.saw_down(node), "{node} missed somebody");
            assert!(sim.saw(node, |event| *event == MemberEvent::Left(former)));
        }
        assert_eq!(sim.blunders.downs, 0);
    }
}

/// The pool takes the new address over before it hears of the old one's end.
#[test]
fn where_a_moved_node_is_now_is_told_before_that_it_left() {
    let mut sim = Sim::cluster(1, 0.0, 4);
    let former = sim.local(3);
    sim.relocate(3, 13);
    let moved = sim.local(13);
    assert!(sim.until(SECOND, Sim::all_know_all).is_some());
    let events = sim.nodes[&0].events.iter().map(|(_, event)| event);
    let about = events.filter_map(|event| match event {
        MemberEvent::Up(member) if member.id == moved => Some("up"),
        MemberEvent::Left(id) if *id == former => Some("left"),
        _ => None,
    });
    assert_eq!(about.collect::<Vec<_>>(), ["up", "left"]);
}

#[test]
fn a_node_that_had_no_address_for_long_is_back_within_two_seconds() {
    for (seed, away) in seeds(10).flat_map(|seed| [(seed, 3), (seed, 30), (seed, 90)]) {
        let mut sim = Sim::cluster(seed, 0.0, 5);
        sim.cut_off(3..4);
        sim.run(away * SECOND);
        assert_eq!(sim.known(3), BTreeSet::from([3]), "it is alone");
        sim.heal();
        sim.blunders = Blunders::default();
        sim.relocate(3, 13);
        let took = sim.until(10 * SECOND, Sim::all_know_all);
        assert!(took.unwrap() < 2 * SECOND, "{took:?}");
        sim.check();
        assert_eq!(sim.blunders.downs, 0, "after {away} s");
    }
}

#[test]
fn a_moved_balancer_without_seeds_finds_its_agents_again() {
    for (seed, away) in seeds(10).flat_map(|seed| [(seed, 0), (seed, 10), (seed, 50)]) {
        let mut sim = Sim::cluster(seed, 0.0, 5);
        sim.forget_seeds();
        sim.cut_off(0..1);
        sim.run(away * SECOND);
        sim.heal();
        sim.blunders = Blunders::default();
        sim.relocate(0, 10);
        let took = sim.until(10 * SECOND, Sim::all_know_all);
        assert!(took.unwrap() < 2 * SECOND, "after {away} s: {took:?}");
        sim.check();
        assert_eq!(sim.blunders.downs, 0, "after {away} s");
    }
}

#[test]
fn another_node_at_the_former_address_and_the_moved_one_are_two_members() {
    for seed in seeds(10) {
        let mut sim = Sim::cluster(seed, 0.0, 4);
        let former = sim.local(3);
        sim.cut_off(3..4);
        sim.run(100 * MS);
        // Node 3 hears of nobody, and nobody of it: its address is 13 only later.
        let lost = sim.nodes.remove(&3).unwrap();
        sim.heal();
        sim.start_as(3, &[0], meta(7, Phase::Ready), Keyring::default());
        let newcomer = sim.local(3);
        let seen = sim.until(SECOND, |sim| {
            sim.saw(0, |event| *event == MemberEvent::Left(former))
        });
        assert!(seen.is_some(), "the address is another node's");
        sim.nodes.insert(13, lost);
        sim.act(13, |core, now| {
            core.relocate(addr(13).ip(), now).unwrap();
        });
        let took = sim.until(5 * SECOND, Sim::all_know_all);
        assert!(took.unwrap() < 2 * SECOND, "{took:?}");
        sim.check();
        assert_eq!(sim.local(3).addr, newcomer.addr);
        assert_eq!(sim.blunders.downs, 0);
    }
}

#[test]
fn there_and_back_again_and_onto_an_address_that_was_somebodys() {
    for seed in seeds(10) {
        let mut sim = Sim::cluster(seed, 0.0, 5);
        sim.relocate(3, 13);
        sim.run(SECOND);
        sim.relocate(13, 3);
        assert!(sim.until(2 * SECOND, Sim::all_know_all).is_some());
        sim.kill(4);
        sim.relocate(3, 4);
        assert!(sim.until(2 * SECOND, Sim::all_know_all).is_some());
        sim.check();
        assert!(
            sim.nodes[&4]
                .core
                .view()
                .iter()
                .all(|row| row.local || row.id.addr != addr(4))
        );
    }
}
