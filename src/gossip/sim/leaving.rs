//! Who fails, who leaves and who says something new of itself.

use rand::RngExt as _;

use super::{MS, SECOND, Sim, meta, seeds, spread};
use crate::membership::Phase;

#[test]
fn a_crash_among_four_is_detected_within_two_seconds() {
    let times = seeds(100).map(|seed| {
        let mut sim = Sim::cluster(seed, 0.0, 4);
        let wait = sim.rng.random_range(0..500);
        sim.run(wait * MS);
        sim.kill(3);
        sim.until(10 * SECOND, |sim| sim.saw_down(0)).unwrap()
    });
    let [_, p95, _] = spread("crash of 1 in 4", times);
    assert!(p95 < 2 * SECOND);
}

#[test]
fn a_goodbye_reaches_all_of_eleven_within_200_ms_despite_loss() {
    let others = || (0..11).filter(|node| *node != 5);
    let times = seeds(50).map(|seed| {
        let mut sim = Sim::cluster(seed, 0.05, 11);
        sim.run(SECOND);
        sim.leave(5);
        let took = sim.until(SECOND, |sim| others().all(|node| sim.saw_left(node, 5)));
        sim.run(3 * SECOND);
        assert!(others().all(|node| !sim.saw_down(node)));
        took.unwrap()
    });
    let [.., worst] = spread("goodbye to 10, 5 % loss", times);
    assert!(worst < 200 * MS);
}

#[test]
fn a_leaving_load_balancer_is_told_from_a_failing_one() {
    let mut sim = Sim::cluster(1, 0.0, 3);
    sim.leave(0);
    sim.run(100 * MS);
    assert!(sim.nodes[&0].core.is_gone());
    assert!(sim.saw_left(1, 0) && sim.saw_left(2, 0));
}

#[test]
fn a_change_reaches_all_within_200_ms_and_nobody_is_taken_for_down() {
    let times = seeds(20).map(|seed| {
        let mut sim = Sim::cluster(seed, 0.05, 11);
        sim.run(SECOND);
        let draining = meta(3, Phase::Draining);
        sim.act(3, |core, now| core.update(&draining, now).unwrap());
        let all_know = |sim: &Sim| (0..11).all(|at| sim.phase_of(3, at) == Some(Phase::Draining));
        let took = sim.until(2 * SECOND, all_know).unwrap();
        sim.run(3 * SECOND);
        assert!((0..11).all(|node| !sim.saw_down(node)));
        took
    });
    let [.., worst] = spread("change told to 10, 5 % loss", times);
    assert!(worst < 200 * MS);
}

#[test]
fn a_change_whose_first_packets_are_lost_is_told_again_at_once() {
    for seed in seeds(10) {
        let mut sim = Sim::cluster(seed, 0.0, 2);
        sim.run(SECOND + seed as u32 * 25 * MS);
        sim.network.loss = 1.0;
        let draining = meta(1, Phase::Draining);
        sim.act(1, |core, now| core.update(&draining, now).unwrap());
        sim.network.loss = 0.0;
        let took = sim.until(SECOND, |sim| sim.phase_of(1, 0) == Some(Phase::Draining));
        assert!(took.is_some_and(|took| took < 100 * MS), "{took:?}");
        assert!(!sim.saw_down(0));
    }
}
