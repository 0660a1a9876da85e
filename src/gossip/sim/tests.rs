//! What a cluster must do, run by run.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{EPOCH, MS, SECOND, Sim, addr, meta, name, seeds, spread};
use crate::{
    gossip::{
        Admission,
        core::{Birth, Core, MAX_MEMBERS, Roster, admit::hello},
        identity::Id,
        wire::{DropReason, Key, Keyring, Kind},
    },
    membership::{Admin, MemberEvent, Phase, Wish},
};

#[test]
fn a_seed_replays_its_simulation_packet_by_packet() {
    let run = || {
        let mut sim = Sim::cluster(7, 0.1, 5);
        sim.kill(3);
        sim.run(5 * SECOND);
        let events = sim.nodes[&0].events.iter();
        let events: Vec<_> = events
            .map(|(at, event)| (*at - sim.start, event.clone()))
            .collect();
        (sim.packets, events)
    };
    assert_eq!(run(), run());
}

// --- joining ---

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

// --- restarts ---

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

// --- what operators want ---

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

// --- failing and leaving ---

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

// --- steadiness ---

#[test]
fn lost_packets_take_nobody_down_and_make_nobody_rejoin() {
    for seed in seeds(3) {
        let mut sim = Sim::cluster(seed, 0.05, 3);
        let before: Vec<_> = (0..3).map(|node| sim.generation(node)).collect();
        sim.run(1200 * SECOND);
        for (node, generation) in before.into_iter().enumerate() {
            assert!(!sim.saw_down(node));
            assert_eq!(sim.generation(node), generation, "a rejoin");
        }
    }
}

#[test]
fn a_node_that_stalls_blames_nobody_when_it_wakes() {
    for seed in seeds(20) {
        let mut sim = Sim::cluster(seed, 0.01, 3);
        for _ in 0..5 {
            sim.run(3 * SECOND);
            sim.freeze(0, 900 * MS);
        }
        sim.run(3 * SECOND);
        assert!((0..3).all(|node| !sim.saw_down(node)));
    }
}

#[test]
fn a_suspect_gets_back_the_time_its_judge_was_stalled() {
    let mut sim = Sim::cluster(1, 0.0, 2);
    sim.kill(1);
    let suspect = |sim: &Sim| sim.saw(0, |event| matches!(event, MemberEvent::Suspect(_)));
    assert!(sim.until(2 * SECOND, suspect).is_some());
    sim.freeze(0, 2 * SECOND);
    sim.run(2800 * MS);
    assert!(!sim.saw_down(0));
    sim.run(SECOND);
    assert!(sim.saw_down(0));
}

#[test]
fn a_host_that_sleeps_finds_all_its_nodes_again() {
    for seed in seeds(10) {
        let mut sim = Sim::cluster(seed, 0.1, 4);
        for _ in 0..50 {
            sim.run(3 * SECOND);
            (0..4).for_each(|node| sim.freeze(node, 2 * SECOND));
        }
        assert!((0..4).all(|node| !sim.saw_down(node)));
    }
}

#[test]
fn two_identities_of_one_address_settle() {
    let mut sim = Sim::cluster(1, 0.0, 3);
    for turn in 0..20 {
        let phase = if turn % 2 == 0 {
            Phase::Draining
        } else {
            Phase::Ready
        };
        let meta = meta(1, phase);
        sim.act(1, |core, now| core.update(&meta, now).unwrap());
        sim.run(20 * MS);
    }
    sim.run(2 * SECOND);
    let settled = sim.nodes[&0].events.len();
    sim.run(20 * SECOND);
    assert_eq!(sim.nodes[&0].events.len(), settled);
    assert_eq!(sim.phase_of(1, 0), Some(Phase::Ready));
    assert!((0..3).all(|node| !sim.saw_down(node)));
}

// --- keys and strangers ---

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
    for n in 0..20_000_u32 {
        let ip = Ipv4Addr::from_bits(0x0ac0_0000 + n);
        let id = Id::new((ip, 7946).into(), EPOCH, &meta(1, Phase::Ready)).unwrap();
        let hello = hello(&id);
        let header = foca::Header {
            src: id,
            src_incarnation: 0,
            dst: Id::new(addr(0), EPOCH, &meta(0, Phase::Ready)).unwrap(),
            message: foca::Message::<Id>::Gossip,
        };
        let word = postcard::to_allocvec(&header).unwrap();
        let from = (ip, 7946).into();
        sim.act(0, |core, now| {
            core.receive(from, Kind::Hello, &hello, now).ok();
            let joined = core.receive(from, Kind::Foca, &word, now);
            refused += usize::from(joined == Err(DropReason::TableFull));
        });
        if n % 100 == 0 {
            sim.run(MS);
        }
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

// --- foca itself ---

/// foca 2.0.0 tells a suspect that it is down although it refuted in time;
/// `Core::fire` works around it. When this fails, foca has been mended and
/// the way round can go.
#[test]
fn foca_still_has_the_bug_that_the_timer_filter_works_around() {
    use foca::{AccumulatingRuntime, Config, Foca, Member, PostcardCodec, State, Timer};

    let id = |node| Id::new(addr(node), EPOCH, &meta(node, Phase::Ready)).unwrap();
    let config = Config {
        notify_down_members: true,
        ..Config::simple()
    };
    let mut foca = Foca::new(id(0), config, StdRng::seed_from_u64(0), PostcardCodec);
    let mut runtime = AccumulatingRuntime::new();
    let refuted = [
        Member::new(id(1), 0, State::Suspect),
        Member::new(id(1), 1, State::Alive),
    ];
    foca.apply_many(refuted.into_iter(), true, &mut runtime)
        .unwrap();
    while runtime.to_send().is_some() {}
    let judge = Timer::ChangeSuspectToDown {
        member_id: id(1),
        incarnation: 0,
        token: 0,
    };
    foca.handle_timer(judge, &mut runtime).unwrap();
    assert!(
        runtime.to_send().is_some(),
        "a TurnUndead to a healthy member"
    );
}
