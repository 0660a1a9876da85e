//! The network falls in two, and comes together again.

use std::time::Duration;

use super::{SECOND, Sim, report, seeds, spread};
use crate::membership::{Admin, Wish};

/// How long after the healing all know all again.
fn healing(size: usize, apart: Duration, runs: u64) -> [Duration; 3] {
    let times = seeds(runs).map(|seed| {
        let mut sim = Sim::formed(seed, 0.01, size);
        // The hardest case: nobody looks for the other half by a seed.
        sim.forget_seeds();
        sim.cut_off(0..size / 2);
        sim.run(apart);
        assert_eq!(sim.known(0).len(), size / 2, "the halves have parted");
        sim.heal();
        let took = sim.until_about(400 * SECOND, Sim::all_know_all);
        took.expect("together again")
    });
    spread(&format!("{size} nodes, apart for {apart:?}, heal"), times)
}

fn agree_within_seconds(size: usize, apart: u64, runs: u64) {
    let [.., worst] = healing(size, Duration::from_secs(apart), runs);
    assert!(worst < 5 * SECOND, "{size} nodes, {apart} s: {worst:?}");
}

#[test]
fn two_halves_agree_again_within_seconds() {
    agree_within_seconds(11, 60, 5);
}

#[test]
fn two_halves_agree_again_after_ten_minutes_apart() {
    agree_within_seconds(11, 600, 1);
}

#[test]
fn two_large_halves_agree_again_within_seconds() {
    agree_within_seconds(60, 60, 1);
}

#[test]
fn many_nodes_agree_again_after_ten_minutes_apart() {
    if report::wanted() {
        let [.., worst] = healing(60, Duration::from_mins(10), 3);
        assert!(worst < 5 * SECOND, "{worst:?}");
    }
}

#[test]
fn what_operators_said_on_either_side_holds_on_both_afterwards() {
    for seed in seeds(3) {
        let mut sim = Sim::cluster(seed, 0.05, 6);
        sim.cut_off(0..3);
        sim.run(10 * SECOND);
        let server = || "s4".parse().unwrap();
        let service = || "nodes".parse().unwrap();
        sim.act(0, |core, now| {
            core.declare(service(), server(), Wish::State(Admin::Drain), now);
        });
        sim.run(SECOND);
        sim.act(5, |core, now| {
            core.declare(service(), server(), Wish::State(Admin::Maint), now);
            core.declare(service(), server(), Wish::Weight(Some(7)), now);
        });
        sim.check();
        let wishes = |node: usize| sim.nodes[&node].core.wishes();
        assert_eq!(
            wishes(0),
            [Wish::State(Admin::Maint), Wish::Weight(Some(7))]
        );
    }
}
