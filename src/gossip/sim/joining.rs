//! Who comes, and how soon all know.

use super::{MS, SECOND, Sim, meta, name, seeds, spread};
use crate::{
    gossip::wire::Keyring,
    membership::{MemberEvent, Phase},
};

#[test]
fn a_joining_node_is_known_everywhere_within_200_ms() {
    let times = seeds(20).map(|seed| {
        let mut sim = Sim::cluster(seed, 0.0, 2);
        sim.run(SECOND);
        sim.start(2, &[0]);
        sim.until(SECOND, Sim::all_know_all).unwrap()
    });
    let [.., worst] = spread("join of a third", times);
    assert!(worst < 200 * MS);
}

#[test]
fn agents_may_start_before_the_load_balancer_and_after_it() {
    for seed in seeds(10) {
        let mut sim = Sim::new(seed, 0.05);
        for agent in 1..4 {
            sim.start(agent, &[0]);
        }
        sim.run(5 * SECOND);
        sim.start(0, &[]);
        let took = sim.until(2 * SECOND, Sim::all_know_all);
        assert!(took.is_some(), "agents first");

        let mut sim = Sim::new(seed, 0.05);
        sim.start(0, &[]);
        sim.run(5 * SECOND);
        for agent in 1..4 {
            sim.start(agent, &[0]);
        }
        let took = sim.until(2 * SECOND, Sim::all_know_all);
        assert!(took.is_some(), "load balancer first");
    }
}

#[test]
fn a_name_on_a_new_address_is_up_at_once_with_its_new_id() {
    let mut sim = Sim::cluster(1, 0.0, 3);
    sim.kill(1);
    sim.start_as(9, &[0], meta(1, Phase::Ready), Keyring::default());
    let new = sim.local(9);
    let took = sim.until(SECOND, |sim| {
        sim.saw(
            0,
            |event| matches!(event, MemberEvent::Up(m) if m.id == new && m.meta.name == name(1)),
        )
    });
    assert!(took.unwrap() < 50 * MS);
}
