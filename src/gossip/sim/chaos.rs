//! Everything at once: whatever happens, once it is over all agree.

use std::time::Duration;

use rand::RngExt as _;

use super::{MS, SECOND, Sim, meta, seeds};
use crate::membership::{Phase, Wish};

const NODES: usize = 8;
const TURNS: usize = 40;

#[test]
fn after_any_trouble_all_agree_again() {
    for seed in seeds(12) {
        let mut sim = Sim::cluster(seed, 0.0, NODES);
        sim.network.loss = sim.rng.random_range(0.0..0.15);
        sim.network.reorder = 0.2;
        sim.network.duplicate = 0.1;
        for _ in 0..TURNS {
            trouble(&mut sim);
            let pause = sim.rng.random_range(0..2000);
            sim.run(pause * MS);
        }
        sim.network.loss = 0.01;
        sim.run(SECOND);
        let seed = sim.nodes.get(&0);
        if seed.is_none_or(|seed| seed.core.is_gone()) {
            // Two parts may be left that never heard of each other.
            sim.start(0, &[]);
        }
        sim.check();
    }
}

fn trouble(sim: &mut Sim) {
    let node = sim.rng.random_range(0..NODES);
    if !sim.nodes.contains_key(&node) {
        sim.start(node, &[0]);
        return;
    }
    match sim.rng.random_range(0..8) {
        0 => sim.kill(node),
        1 => sim.leave(node),
        2 => {
            sim.kill(node);
            sim.start(node, &[0]);
        }
        3 => {
            let time = sim.rng.random_range(0..3000);
            sim.freeze(node, time * MS);
        }
        4 => {
            let size = sim.rng.random_range(1..NODES);
            sim.cut_off(0..size);
        }
        5 => sim.heal(),
        6 => {
            let meta = meta(node, Phase::Draining);
            sim.act(node, |core, now| core.update(&meta, now).unwrap());
        }
        _ => {
            let weight = sim.rng.random_range(0..=256);
            sim.act(node, |core, now| {
                let (service, server) = ("nodes".parse().unwrap(), "s1".parse().unwrap());
                core.declare(service, server, Wish::Weight(Some(weight)), now);
            });
        }
    }
}

#[test]
fn packets_out_of_order_and_doubled_take_nobody_down() {
    for seed in seeds(5) {
        let mut sim = Sim::cluster(seed, 0.02, NODES);
        sim.network.reorder = 0.5;
        sim.network.duplicate = 0.3;
        sim.run(Duration::from_mins(2));
        assert_eq!(sim.blunders.downs, 0);
        sim.check();
    }
}
