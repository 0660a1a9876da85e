//! The seeds of runs, who the nodes are, and how times are summed up.

use std::{
    collections::BTreeMap,
    env,
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    time::Duration,
};

use crate::membership::{Announcement, Meta, Name, Phase, Role};

/// The seeds of a test's runs: so many, or the one to be replayed.
pub(super) fn seeds(count: u64) -> Range<u64> {
    match env::var("TIDINGS_SIM_SEED") {
        Ok(text) => {
            let seed: u64 = text.parse().expect("TIDINGS_SIM_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..count,
    }
}

pub(super) fn addr(node: usize) -> SocketAddr {
    (Ipv4Addr::from_bits(0x0a00_0001 + node as u32), 7946).into()
}

pub(super) fn number(addr: SocketAddr) -> Option<usize> {
    match addr {
        SocketAddr::V4(v4) => (v4.ip().to_bits() as usize).checked_sub(0x0a00_0001),
        SocketAddr::V6(_) => None,
    }
}

pub(super) fn name(node: usize) -> Name {
    format!("s{node}").parse().unwrap()
}

/// Node 0 is the load balancer.
pub(super) fn meta(node: usize, phase: Phase) -> Meta {
    let role = match node {
        0 => Role::Balancer,
        _ => Role::Server(Announcement {
            service: name(99),
            addr: SocketAddr::new(addr(node).ip(), 3000),
            weight: 1,
            phase,
            tags: BTreeMap::from([("zone".into(), "a".into())]),
        }),
    };
    Meta {
        name: name(node),
        role,
    }
}

/// Median, the value below which 95 % lie, and the largest. Shown, so that
/// a change of a timing can be judged.
pub(super) fn spread(what: &str, times: impl Iterator<Item = Duration>) -> [Duration; 3] {
    let mut times: Vec<_> = times.collect();
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let spread = [at(50), at(95), at(100)];
    println!("{what}: p50, p95, max {spread:?}");
    spread
}
