//! What operators want, told to all.

use super::{EPOCH, MS, SECOND, Sim, meta, name, seeds, spread};
use crate::{
    gossip::{core::Birth, wire::Keyring},
    membership::{Admin, MemberEvent, Phase, Wish},
};

fn declare(sim: &mut Sim, node: usize, wish: Wish) {
    sim.act(node, |core, now| {
        core.declare(name(99), name(1), wish, now);
    });
}

fn told(sim: &Sim, node: usize) -> Vec<Wish> {
    let events = sim.nodes[&node].events.iter();
    let wishes = events.filter_map(|(_, event)| match event {
        MemberEvent::Wanted(intent) => Some(intent.wish),
        _ => None,
    });
    wishes.collect()
}

#[test]
fn a_wish_reaches_all_within_300_ms_despite_loss_and_each_hears_it_once() {
    let wish = Wish::State(Admin::Drain);
    let all_told = |sim: &Sim| (0..11).all(|node| told(sim, node) == [wish]);
    let times = seeds(20).map(|seed| {
        let mut sim = Sim::cluster(seed, 0.05, 11);
        sim.run(SECOND);
        declare(&mut sim, 0, wish);
        let took = sim.until(30 * SECOND, all_told).unwrap();
        sim.run(30 * SECOND);
        assert!(all_told(&sim), "told again");
        took
    });
    let [.., worst] = spread("a wish told to 10, 5 % loss", times);
    assert!(worst < 300 * MS);
}

#[test]
fn a_lone_restarted_balancer_learns_the_wishes_back_from_an_agent() {
    let mut sim = Sim::cluster(1, 0.0, 3);
    declare(&mut sim, 0, Wish::State(Admin::Maint));
    declare(&mut sim, 0, Wish::Weight(Some(3)));
    sim.run(5 * SECOND);
    sim.kill(0);
    sim.run(30 * SECOND);
    sim.start(0, &[]);
    let both = [Wish::State(Admin::Maint), Wish::Weight(Some(3))];
    let took = sim.until(5 * SECOND, |sim| told(sim, 0) == both);
    assert!(took.is_some_and(|took| took < SECOND), "{took:?}");
}

#[test]
fn a_wish_whose_broadcasts_are_all_lost_arrives_by_the_digest() {
    let mut sim = Sim::cluster(1, 0.0, 2);
    sim.run(SECOND);
    sim.network.loss = 1.0;
    declare(&mut sim, 0, Wish::State(Admin::Drain));
    sim.run(700 * MS);
    sim.network.loss = 0.0;
    let took = sim.until(10 * SECOND, |sim| {
        told(sim, 1) == [Wish::State(Admin::Drain)]
    });
    assert!(took.is_some_and(|took| took < 7 * SECOND), "{took:?}");
}

#[test]
fn the_later_of_two_wishes_holds_everywhere_though_its_clock_is_behind() {
    let mut sim = Sim::cluster(1, 0.0, 2);
    let ahead = Birth {
        unix_ms: EPOCH + 1_800_000,
        ..sim.birth(5, meta(5, Phase::Ready))
    };
    sim.start_from(5, &[0], &ahead, Keyring::default());
    assert!(sim.until(SECOND, Sim::all_know_all).is_some());
    declare(&mut sim, 5, Wish::State(Admin::Maint));
    sim.run(SECOND);
    declare(&mut sim, 0, Wish::State(Admin::Ready));
    sim.run(SECOND);
    for node in [0, 1, 5] {
        assert_eq!(sim.nodes[&node].core.wishes(), [Wish::State(Admin::Ready)]);
    }
}

#[test]
fn who_is_hours_ahead_is_not_followed_in_what_it_wants() {
    let mut sim = Sim::cluster(1, 0.0, 2);
    let ahead = Birth {
        unix_ms: EPOCH + 7_200_000,
        ..sim.birth(5, meta(5, Phase::Ready))
    };
    sim.start_from(5, &[0], &ahead, Keyring::default());
    sim.run(SECOND);
    declare(&mut sim, 5, Wish::State(Admin::Maint));
    sim.run(10 * SECOND);
    assert_eq!(told(&sim, 0), []);
}
