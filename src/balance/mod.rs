//! Which server takes a request: balancing over the snapshot, and the sticky
//! cookie. Pure, apart from the shared cursor of round robin.

pub mod sticky;

use std::sync::{Arc, atomic::Ordering::Relaxed};

use clap::ValueEnum;
use rand::{Rng, RngExt};

use crate::pool::{Server, Snapshot, server::Life};

/// How servers take turns (`HAProxy`'s `balance`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Algorithm {
    /// In strict turn, weighted, across all workers
    #[default]
    RoundRobin,
    /// The server with the fewest requests in it, by weight
    LeastConn,
    /// Of two drawn at random, the one with fewer requests in it
    Random,
}

impl Algorithm {
    /// The name on the command line and in the statistics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "roundrobin",
            Self::LeastConn => "leastconn",
            Self::Random => "random",
        }
    }
}

/// The servers that this request has met and that failed it.
///
/// Bounded by the number of attempts, so a look along it is cheaper than a set.
#[derive(Debug, Default)]
pub struct Tried(Vec<Life>);

impl Tried {
    /// Notes a server.
    pub fn add(&mut self, life: Life) {
        self.0.push(life);
    }

    /// Whether the server was tried.
    pub fn contains(&self, life: Life) -> bool {
        self.0.contains(&life)
    }

    /// All of them.
    pub fn lives(&self) -> &[Life] {
        &self.0
    }

    /// Whether none was tried.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives everyone another chance.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Chooses a server that has not been tried; `None` when there is none left.
pub fn pick(
    algorithm: Algorithm,
    snapshot: &Snapshot,
    tried: &Tried,
    rng: &mut impl Rng,
) -> Option<Arc<Server>> {
    choose(algorithm, snapshot, rng, |server| {
        !tried.contains(server.life)
    })
}

/// The same, but of servers that seem to have room for one more.
pub fn pick_with_room(
    algorithm: Algorithm,
    snapshot: &Snapshot,
    tried: &Tried,
    rng: &mut impl Rng,
) -> Option<Arc<Server>> {
    choose(algorithm, snapshot, rng, |server| {
        !tried.contains(server.life) && server.seems_to_have_room()
    })
}

fn choose(
    algorithm: Algorithm,
    snapshot: &Snapshot,
    rng: &mut impl Rng,
    fits: impl Fn(&Server) -> bool,
) -> Option<Arc<Server>> {
    match algorithm {
        Algorithm::RoundRobin => round_robin(snapshot, &fits),
        Algorithm::LeastConn => least_conn(snapshot, &fits),
        Algorithm::Random => random_of_two(snapshot, &fits, rng),
    }
    .map(Arc::clone)
}

/// Takes the next place of the schedule. One shared cursor for all workers is
/// what makes the turn strict.
fn round_robin(snapshot: &Snapshot, fits: impl Fn(&Server) -> bool) -> Option<&Arc<Server>> {
    let places = snapshot.schedule.len();
    let mut turns = (0..places).map(|_| snapshot.cursor.fetch_add(1, Relaxed) % places);
    turns
        .find_map(|place| server_at(snapshot, place, &fits))
        // Others move the cursor too, so these turns may have missed a place.
        .or_else(|| (0..places).find_map(|place| server_at(snapshot, place, &fits)))
}

fn least_conn(snapshot: &Snapshot, fits: impl Fn(&Server) -> bool) -> Option<&Arc<Server>> {
    let servers = &snapshot.rotation;
    // The search starts one server further each time, so servers that are
    // equally loaded take turns.
    let start = snapshot.cursor.fetch_add(1, Relaxed) % servers.len().max(1);
    let mut best: Option<&Arc<Server>> = None;
    for index in servers.iter().cycle().skip(start).take(servers.len()) {
        if let Some(server) = snapshot.get(*index).filter(|server| fits(server))
            && best.is_none_or(|best| less_loaded(server, best))
        {
            best = Some(server);
        }
    }
    best
}

fn random_of_two<'a>(
    snapshot: &'a Snapshot,
    fits: impl Fn(&Server) -> bool,
    rng: &mut impl Rng,
) -> Option<&'a Arc<Server>> {
    let places = snapshot.schedule.len();
    if places == 0 {
        return None;
    }
    let mut draw = || server_at(snapshot, rng.random_range(0..places), &fits);
    match (draw(), draw()) {
        (Some(a), Some(b)) => Some(if less_loaded(b, a) { b } else { a }),
        (Some(one), None) | (None, Some(one)) => Some(one),
        // Both draws hit servers that were tried: rare, and then any will do.
        (None, None) => round_robin(snapshot, &fits),
    }
}

fn server_at(
    snapshot: &Snapshot,
    place: usize,
    fits: impl Fn(&Server) -> bool,
) -> Option<&Arc<Server>> {
    let server = snapshot.get(*snapshot.schedule.get(place)?)?;
    fits(server).then_some(server)
}

/// Whether `a` would have fewer requests than `b` for its share with one more.
fn less_loaded(a: &Server, b: &Server) -> bool {
    let load = |server: &Server, other: &Server| {
        u64::from(server.live.counters.active.get() + 1) * u64::from(other.share())
    };
    load(a, b) < load(b, a)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::SmallRng};
    use tokio::time::Instant;

    use super::*;
    use crate::pool::state::{Input, Order, State, StaticServer, Verdict};

    fn snapshot(weights: &[u16]) -> Snapshot {
        let servers = weights.iter().enumerate().map(|(i, weight)| StaticServer {
            name: format!("s{i}").parse().unwrap(),
            target: format!("127.0.0.1:{}", 3000 + i),
            weight: *weight,
            check: None,
            tags: std::collections::BTreeMap::new(),
        });
        let service = "nodes".parse().unwrap();
        State::new(service, servers.collect(), Instant::now()).snapshot()
    }

    fn tally(algorithm: Algorithm, snapshot: &Snapshot, picks: usize) -> HashMap<String, usize> {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut tally = HashMap::new();
        for _ in 0..picks {
            let server = pick(algorithm, snapshot, &Tried::default(), &mut rng).unwrap();
            *tally.entry(server.name.to_string()).or_default() += 1;
        }
        tally
    }

    #[test]
    fn round_robin_is_strict() {
        let snapshot = snapshot(&[1, 1, 1]);
        let mut rng = SmallRng::seed_from_u64(1);
        let mut next = || {
            pick(
                Algorithm::RoundRobin,
                &snapshot,
                &Tried::default(),
                &mut rng,
            )
            .unwrap()
            .name
            .to_string()
        };
        let turn: Vec<String> = (0..6).map(|_| next()).collect();
        assert_eq!(turn, ["s0", "s1", "s2", "s0", "s1", "s2"]);
    }

    #[test]
    fn round_robin_follows_the_weights_exactly() {
        let tally = tally(Algorithm::RoundRobin, &snapshot(&[2, 1]), 999);
        assert_eq!((tally["s0"], tally["s1"]), (666, 333));
    }

    #[test]
    fn a_tried_server_is_not_picked_again() {
        let snapshot = snapshot(&[1, 1]);
        let mut tried = Tried::default();
        tried.add(snapshot.servers[0].life);
        let mut rng = SmallRng::seed_from_u64(1);
        for algorithm in [
            Algorithm::RoundRobin,
            Algorithm::LeastConn,
            Algorithm::Random,
        ] {
            for _ in 0..20 {
                let server = pick(algorithm, &snapshot, &tried, &mut rng).unwrap();
                assert_eq!(server.name.as_str(), "s1");
            }
        }
        tried.add(snapshot.servers[1].life);
        for algorithm in [
            Algorithm::RoundRobin,
            Algorithm::LeastConn,
            Algorithm::Random,
        ] {
            assert!(pick(algorithm, &snapshot, &tried, &mut rng).is_none());
        }
    }

    #[test]
    fn least_conn_avoids_the_busy_server_and_weighs_what_is_busy() {
        let snapshot = snapshot(&[3, 1]);
        // Three requests in a server of weight 3 are as many as one in the other.
        for _ in 0..3 {
            snapshot.servers[0].live.counters.active.inc();
        }
        let tally = tally(Algorithm::LeastConn, &snapshot, 10);
        assert_eq!(tally["s1"], 10);
        snapshot.servers[1].live.counters.active.inc();
        assert_eq!(
            pick(
                Algorithm::LeastConn,
                &snapshot,
                &Tried::default(),
                &mut SmallRng::seed_from_u64(1)
            )
            .unwrap()
            .name
            .as_str(),
            "s0"
        );
    }

    #[test]
    fn a_server_that_warms_up_has_less_under_every_algorithm() {
        let mut now = Instant::now();
        let server = |name: &str| StaticServer {
            name: name.parse().unwrap(),
            target: "127.0.0.1:3000".into(),
            weight: 1,
            check: None,
            tags: std::collections::BTreeMap::new(),
        };
        let servers = vec![server("s0"), server("s1")];
        let mut state = State::new("nodes".parse().unwrap(), servers, now)
            .with_slowstart(Some(Duration::from_secs(10)));
        now += Duration::from_mins(1);
        for verdict in [Verdict::Down, Verdict::Up] {
            let told = Input::Told("s1".parse().unwrap(), Order::Health(verdict));
            state.apply(told, now);
        }
        let snapshot = state.snapshot();
        assert_eq!(snapshot.by_name("s1").unwrap().throttle, Some(5));
        // Were s1 warm, the fewest would get it all the requests.
        for _ in 0..30 {
            snapshot.servers[0].live.counters.active.inc();
        }
        snapshot.servers[1].live.counters.active.inc();
        for algorithm in [
            Algorithm::RoundRobin,
            Algorithm::LeastConn,
            Algorithm::Random,
        ] {
            let tally = tally(algorithm, &snapshot, 210);
            let s1 = tally.get("s1").copied().unwrap_or(0);
            assert!(s1 <= 30, "{algorithm:?}: {tally:?}");
        }
    }

    #[test]
    fn least_conn_takes_turns_among_equals() {
        let tally = tally(Algorithm::LeastConn, &snapshot(&[1, 1]), 100);
        assert_eq!((tally["s0"], tally["s1"]), (50, 50));
    }

    #[test]
    fn random_prefers_the_less_busy_of_two() {
        let snapshot = snapshot(&[1, 1]);
        snapshot.servers[0].live.counters.active.inc();
        let tally = tally(Algorithm::Random, &snapshot, 1000);
        // s0 is only taken when both draws hit it: a quarter of the time.
        assert!((200..300).contains(&tally["s0"]), "{tally:?}");
    }

    proptest! {
        #[test]
        fn every_round_gives_each_server_exactly_its_weight(
            weights in proptest::collection::vec(1u16..=16, 1..12),
            start in 0usize..1000,
        ) {
            let snapshot = snapshot(&weights);
            snapshot.cursor.store(start, Relaxed);
            let tally = tally(Algorithm::RoundRobin, &snapshot, snapshot.schedule.len());
            let total: usize = weights.iter().map(|w| usize::from(*w)).sum();
            for (i, weight) in weights.iter().enumerate() {
                let share = usize::from(*weight) * snapshot.schedule.len() / total;
                prop_assert_eq!(tally[&format!("s{i}")], share);
            }
        }
    }
}
