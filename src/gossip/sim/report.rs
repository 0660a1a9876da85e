//! Measurements, for the architecture's figures. They take minutes, and run
//! only where `TIDINGS_SIM_REPORT` is set.

use std::{env, time::Duration};

use rand::RngExt as _;

use super::{SECOND, Sim, addr, seeds, spread};
use crate::membership::MemberEvent;

pub(super) fn wanted() -> bool {
    env::var_os("TIDINGS_SIM_REPORT").is_some()
}

/// How long until the balancer knows that a node died, many times.
fn detection(size: usize, kills: usize, runs: u64) -> [Duration; 3] {
    let times = seeds(runs).flat_map(|seed| {
        let mut sim = Sim::formed(seed, 0.0, size);
        (1..=kills)
            .map(|node| {
                let wait = sim.rng.random_range(0..1000);
                sim.run(Duration::from_millis(wait));
                sim.kill(node);
                let told = |sim: &Sim| {
                    sim.saw(
                        0,
                        |event| matches!(event, MemberEvent::Down(id) if id.addr == addr(node)),
                    )
                };
                sim.until(60 * SECOND, told).expect("it is noticed")
            })
            .collect::<Vec<_>>()
    });
    spread(&format!("a death among {size}"), times)
}

/// Packets and bytes that a node sends in a second while nothing happens.
fn idle(size: usize) -> (f64, f64) {
    let mut sim = Sim::formed(1, 0.0, size);
    sim.run(20 * SECOND);
    let (packets, bytes) = (sim.packets, sim.bytes);
    sim.run(20 * SECOND);
    let each = (size * 20) as f64;
    (
        (sim.packets - packets) as f64 / each,
        (sim.bytes - bytes) as f64 / each,
    )
}

/// Blunders in so many hours of a cluster at 5 % loss.
fn false_alarms(size: usize, time: Duration) -> (usize, usize) {
    let mut sim = Sim::formed(1, 0.05, size);
    sim.run(time);
    (sim.blunders.suspicions, sim.blunders.downs)
}

fn row(size: usize, kills: usize, runs: u64, time: Duration) {
    if !wanted() {
        return;
    }
    let [p50, p95, max] = detection(size, kills, runs).map(|time| time.as_secs_f64());
    let (packets, bytes) = idle(size);
    let (suspicions, downs) = false_alarms(size, time);
    let hours = size as f64 * time.as_secs_f64() / 3600.0;
    println!(
        "| nodes | death known p50/p95/max | idle packets/s | idle B/s | suspicions per node-hour at 5 % loss | false downs | in node-hours |\n\
         | {size} | {p50:.2}/{p95:.2}/{max:.2} s | {packets:.1} | {bytes:.0} | {:.2} | {downs} | {hours:.0} |",
        suspicions as f64 / hours
    );
}

#[test]
fn ten_nodes() {
    row(10, 4, 50, Duration::from_hours(5));
}

#[test]
fn a_hundred_nodes() {
    row(100, 20, 3, Duration::from_mins(30));
}

#[test]
fn a_thousand_nodes() {
    row(1000, 20, 1, Duration::from_mins(2));
}

#[test]
fn an_hour_of_two_hundred_nodes_at_five_percent_loss() {
    if wanted() {
        let (suspicions, downs) = false_alarms(200, Duration::from_hours(1));
        println!("200 nodes, an hour, 5 % loss: {suspicions} suspicions, {downs} false downs");
        assert_eq!(downs, 0);
    }
}
