//! An immutable view of the pool, built once per change and read by all.

use std::{
    cmp::Ordering,
    hash::{BuildHasher, RandomState},
    sync::{Arc, atomic::AtomicUsize},
};

use hashbrown::HashTable;
use tokio::time::Instant;

use super::{
    server::{Cause, Life, Server, Status},
    standing::Standing,
};

/// The most places a weighted schedule has: 256 servers of wholly different
/// weights fit without rounding, and it stays within a CPU's second cache.
const MAX_PLACES: usize = 65_536;

/// The pool at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts the snapshots: a later one has a larger number.
    pub generation: u64,
    /// Every server, in the order of names.
    pub servers: Vec<Arc<Server>>,
    /// Servers that take new users, each as often as its weight says, spread
    /// evenly: round robin walks along it.
    pub schedule: Arc<[u32]>,
    /// The same servers, each once, in the order of names.
    pub rotation: Arc<[u32]>,
    /// Where round robin stands. Every snapshot inherits it, so a change in
    /// the pool never starts the round again.
    pub cursor: Arc<AtomicUsize>,
    /// When a server was last lost. A request that finds no server waits a
    /// moment for one to come back only if there lately was one.
    pub last_loss: Option<Instant>,
    /// Whether any server takes only so many requests at a time: then a request
    /// needs a place at a server, and may have to wait for one.
    pub is_limited: bool,
    /// How the pool as a whole has fared; the writer knows.
    pub standing: Option<Standing>,
    by_name: Arc<ByName>,
}

/// Where in the order of names each server is.
#[derive(Debug, Default)]
struct ByName {
    places: HashTable<u32>,
    key: NameKey,
}

/// Hashes names with a secret key (SipHash): cookies come from clients, who
/// could otherwise make up names that all fall into one place.
#[derive(Debug, Default, Clone)]
pub(super) struct NameKey(RandomState);

impl NameKey {
    pub(super) fn hash(&self, name: &str) -> u64 {
        self.0.hash_one(name)
    }
}

impl ByName {
    fn new(servers: &[Arc<Server>], key: NameKey) -> Self {
        let hash_at = |place: &u32| servers.get(*place as usize).map_or(0, |s| s.name_hash);
        let mut places = HashTable::with_capacity(servers.len());
        for (place, server) in (0..).zip(servers) {
            places.insert_unique(server.name_hash, place, hash_at);
        }
        Self { places, key }
    }

    fn find<'a>(&self, servers: &'a [Arc<Server>], name: &str) -> Option<&'a Arc<Server>> {
        let at = |place: u32| servers.get(place as usize);
        let is_it = |place: &u32| at(*place).is_some_and(|s| s.name.as_str() == name);
        at(*self.places.find(self.key.hash(name), is_it)?)
    }
}

/// What a snapshot has in common with the one before, as long as it holds.
#[derive(Debug, Default)]
pub(super) struct Lasting {
    by_name: Option<Arc<ByName>>,
    turns: Option<Turns>,
    /// What [`Server::name_hash`] is made with.
    pub(super) name_key: NameKey,
}

/// Who takes new users, and in which order.
#[derive(Debug, Clone)]
struct Turns {
    rotation: Arc<[u32]>,
    schedule: Arc<[u32]>,
}

impl Turns {
    fn of(servers: &[Arc<Server>]) -> Self {
        let members = rotation(servers);
        Self {
            rotation: members.iter().map(|(index, _)| *index).collect(),
            schedule: schedule(&members).into(),
        }
    }
}

impl Lasting {
    /// A server came or went: others have another place now.
    pub(super) fn end_names(&mut self) {
        self.by_name = None;
        self.turns = None;
    }

    /// A server has another part in the rotation.
    pub(super) fn end_schedule(&mut self) {
        self.turns = None;
    }
}

impl Snapshot {
    /// Builds the view of `servers`, with what lasts from the one before.
    pub(super) fn new(
        generation: u64,
        servers: Vec<Arc<Server>>,
        cursor: Arc<AtomicUsize>,
        last_loss: Option<Instant>,
        lasting: &mut Lasting,
    ) -> Self {
        let Turns { rotation, schedule } = lasting
            .turns
            .get_or_insert_with(|| Turns::of(&servers))
            .clone();
        let by_name = lasting
            .by_name
            .get_or_insert_with(|| Arc::new(ByName::new(&servers, lasting.name_key.clone())));
        Self {
            rotation,
            schedule,
            by_name: Arc::clone(by_name),
            generation,
            servers,
            cursor,
            last_loss,
            is_limited: false,
            standing: None,
        }
    }

    pub(super) fn limited(self, is_limited: bool) -> Self {
        Self { is_limited, ..self }
    }

    /// The server of that name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Server>> {
        self.by_name.find(&self.servers, name)
    }

    /// The server at a place of the schedule.
    pub fn get(&self, index: u32) -> Option<&Arc<Server>> {
        self.servers.get(index as usize)
    }

    /// The servers that are described anew since `before`, in the order of
    /// names: as they were, and as they are. `None` is a server that was not
    /// there, or is not any more.
    pub fn changed_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a Arc<Server>>, Option<&'a Arc<Server>>)> {
        let mut former = before.servers.iter().peekable();
        let mut present = self.servers.iter().peekable();
        std::iter::from_fn(move || {
            loop {
                let order = match (former.peek(), present.peek()) {
                    (None, None) => return None,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some(was), Some(is)) if Arc::ptr_eq(was, is) => {
                        former.next();
                        present.next();
                        continue;
                    }
                    (Some(was), Some(is)) => was.name.cmp(&is.name),
                };
                return Some(match order {
                    Ordering::Less => (former.next(), None),
                    Ordering::Equal => (former.next(), present.next()),
                    Ordering::Greater => (None, present.next()),
                });
            }
        })
    }

    /// Whether requests without a cookie are given to that server.
    pub fn in_rotation(&self, life: Life) -> bool {
        let mut there = self.rotation.iter().filter_map(|index| self.get(*index));
        there.any(|server| server.life == life)
    }

    /// Whether any server can be given a request.
    pub fn can_serve(&self) -> bool {
        !self.schedule.is_empty()
    }
}

/// Which servers take new users, with their weights.
///
/// Where none is up, those that gossip merely suspects take the traffic, then
/// those in quarantine, then those that gossip has lost: caution alone never
/// empties the pool, and the balancer may itself be the one that is cut off.
fn rotation(servers: &[Arc<Server>]) -> Vec<(u32, u16)> {
    let tiers = [
        Status::Up,
        Status::Suspect,
        Status::Down(Cause::Quarantine),
        Status::Down(Cause::Silent),
    ];
    let members_of = |tier: Status| -> Vec<(u32, u16)> {
        (0..)
            .zip(servers)
            .filter(|(_, s)| s.status == tier && s.addr.is_some() && s.weight > 0)
            .map(|(index, server)| (index, server.share()))
            .collect()
    };
    tiers
        .into_iter()
        .map(members_of)
        .find(|members| !members.is_empty())
        .unwrap_or_default()
}

/// Spreads every server's turns evenly over the round: a server with `w`
/// turns has them at (k + ½)/w of the way, so equal weights alternate in the
/// order of names and a heavy server's turns do not come in a burst.
///
/// Servers with as many turns have them together, so it is these groups that
/// are put in order, not every turn of every server.
fn schedule(members: &[(u32, u16)]) -> Vec<u32> {
    let divisor = members.iter().fold(0, |acc, (_, w)| gcd(acc, *w)).max(1);
    let total: usize = members.iter().map(|(_, w)| usize::from(w / divisor)).sum();
    let scale = total.div_ceil(MAX_PLACES).max(1);
    let turns_of = |weight: u16| (usize::from(weight / divisor) / scale).max(1) as u64;
    let mut members: Vec<(u64, u32)> = members
        .iter()
        .map(|(index, weight)| (turns_of(*weight), *index))
        .collect();
    members.sort_unstable();
    let mut places: Vec<(u64, &[(u64, u32)])> = Vec::new();
    for group in members.chunk_by(|(a, _), (b, _)| a == b) {
        let turns = group.first().map_or(0, |(turns, _)| *turns);
        places.extend((0..turns).map(|turn| (((2 * turn + 1) << 32) / turns, group)));
    }
    places.sort_by_key(|(at, _)| *at);
    let in_order = places.into_iter().flat_map(|(_, group)| group);
    in_order.map(|(_, index)| *index).collect()
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pool::state::{State, StaticServer};

    #[test]
    fn equal_weights_alternate_in_order() {
        assert_eq!(schedule(&[(0, 1), (1, 1), (2, 1)]), [0, 1, 2]);
        assert_eq!(schedule(&[(0, 100), (1, 100)]), [0, 1]);
    }

    #[test]
    fn a_heavy_server_is_spread_over_the_round() {
        assert_eq!(schedule(&[(0, 2), (1, 1)]), [0, 1, 0]);
        assert_eq!(schedule(&[(0, 4), (1, 2)]), [0, 1, 0]);
    }

    #[test]
    fn a_huge_pool_keeps_a_bounded_schedule_with_everyone_in_it() {
        let members: Vec<(u32, u16)> = (0..5000).map(|i| (i, 256 - (i % 7) as u16)).collect();
        let schedule = schedule(&members);
        assert!(schedule.len() <= MAX_PLACES + members.len());
        let mut seen = vec![false; members.len()];
        for index in schedule {
            seen[index as usize] = true;
        }
        assert!(seen.into_iter().all(|there| there));
    }

    fn snapshot(servers: &[Arc<Server>]) -> Snapshot {
        let lasting = &mut Lasting::default();
        Snapshot::new(1, servers.to_vec(), Arc::default(), None, lasting)
    }

    fn server(number: u32) -> Arc<Server> {
        let server = StaticServer {
            name: format!("s{number}").parse().unwrap(),
            target: "127.0.0.1:80".to_owned(),
            weight: 1,
            check: None,
            tags: std::collections::BTreeMap::new(),
        };
        let service = "nodes".parse().unwrap();
        let mut state = State::new(service, vec![server], Instant::now());
        Arc::clone(&state.snapshot().servers[0])
    }

    #[test]
    fn what_changed_is_told_and_nothing_else() {
        let [s1, s2, s3, s4] = [1, 2, 3, 4].map(server);
        let before = snapshot(&[s1.clone(), s2, s3.clone()]);
        let after = snapshot(&[s1, server(3), s4]);
        let name = |server: Option<&Arc<Server>>| server.map(|s| s.name.to_string());
        let told: Vec<_> = after.changed_since(&before).collect();
        assert!(Arc::ptr_eq(told[1].0.unwrap(), &s3));
        assert!(!Arc::ptr_eq(told[1].1.unwrap(), &s3));
        let told: Vec<_> = told.into_iter().map(|(a, b)| (name(a), name(b))).collect();
        let named = |name: &str| Some(name.to_owned());
        let expected = [
            (named("s2"), None),
            (named("s3"), named("s3")),
            (None, named("s4")),
        ];
        assert_eq!(told, expected);
        assert_eq!(after.changed_since(&after).count(), 0);
    }

    proptest! {
        #[test]
        fn every_server_has_its_share_and_its_turns_lie_apart(
            weights in proptest::collection::vec(1u16..=256, 1..40)
        ) {
            let members: Vec<(u32, u16)> = (0..).zip(weights.iter().copied()).collect();
            let schedule = schedule(&members);
            let total: u32 = weights.iter().map(|w| u32::from(*w)).sum();
            for (index, weight) in members {
                let turns = schedule.iter().filter(|i| **i == index).count();
                prop_assert_eq!(turns * total as usize, schedule.len() * usize::from(weight));
                // In any half of the round it has half of its turns, give or take one.
                let half = schedule.iter().take(schedule.len() / 2).filter(|i| **i == index).count();
                prop_assert!(half.abs_diff(turns / 2) <= 1, "{half} of {turns}");
            }
        }
    }
}
