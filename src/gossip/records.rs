//! What operators want of servers: one record for each server and kind of
//! wish, the latest version counting.
//!
//! Every node keeps all of them, agents too, so that they live as long as
//! anybody does: a balancer that restarts alone learns them back. They spread
//! as broadcasts of the protocol and travel in every state sync; whatever way
//! one comes, it is taken over by [`Records::offer`], and so all nodes end
//! with the same ones.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foca::{BroadcastHandler, Invalidates};

use super::identity::Id;
use crate::membership::{Intent, Name, Version, Wish};

/// The most records that are kept; beyond, the oldest go. Everyone drops the
/// same ones, so it does not matter which way they came.
pub(super) const MAX_RECORDS: usize = 4096;
/// The longest record as a broadcast: what does not fit a packet beside its
/// header would wait there for ever.
pub(super) const MAX_ENCODED: usize = 200;
/// A clock may be wrong by this much, in milliseconds. A version that is
/// further ahead is refused, or its writer would have the last word for ever.
const MAX_AHEAD: u64 = 3600 * 1000;
/// The heaviest weight in `HAProxy`'s words.
const MAX_WEIGHT: u16 = 256;

const RECORD_VERSION: u8 = 1;

/// What a record is about: two with the same key replace each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    service: Name,
    server: Name,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    State,
    Weight,
}

impl Key {
    pub(super) fn of(intent: &Intent) -> Self {
        Self {
            service: intent.service.clone(),
            server: intent.server.clone(),
            kind: match intent.wish {
                Wish::State(_) => Kind::State,
                Wish::Weight(_) => Kind::Weight,
            },
        }
    }
}

/// The records that a node keeps.
#[derive(Debug, Default)]
pub(super) struct Records {
    kept: BTreeMap<Key, Intent>,
    /// Taken over, and not told to the outside yet.
    news: VecDeque<Intent>,
    /// The latest version ever taken over.
    highest: u64,
    /// Of all records, in whatever order they came.
    digest: u64,
    /// Wall clock, unix milliseconds.
    clock: u64,
}

impl Records {
    /// Tells what time it is; to be called before anything is offered.
    pub(super) fn set_clock(&mut self, unix_ms: u64) {
        self.clock = unix_ms;
    }

    /// The next version: later than all that have been seen.
    pub(super) fn next_clock(&self) -> u64 {
        self.clock.max(self.highest.saturating_add(1))
    }

    /// Takes a record over if it says something new; tells whether it did.
    pub(super) fn offer(&mut self, intent: Intent) -> bool {
        let key = Key::of(&intent);
        let known = self.kept.get(&key).map(|known| known.version);
        let newer = known.is_none_or(|known| intent.version > known);
        if !newer || !self.credible(&intent) || (known.is_none() && !self.make_room(intent.version))
        {
            return false;
        }
        self.highest = self.highest.max(intent.version.clock);
        self.digest ^= fingerprint(&intent);
        self.news.push_back(intent.clone());
        if let Some(older) = self.kept.insert(key, intent) {
            self.digest ^= fingerprint(&older);
        }
        true
    }

    fn credible(&self, intent: &Intent) -> bool {
        let sane = !matches!(intent.wish, Wish::Weight(Some(weight)) if weight > MAX_WEIGHT);
        sane && intent.version.clock <= self.clock.saturating_add(MAX_AHEAD)
    }

    /// Drops the oldest record for a later one where all places are taken.
    fn make_room(&mut self, version: Version) -> bool {
        if self.kept.len() < MAX_RECORDS {
            return true;
        }
        let oldest = self.kept.iter().min_by_key(|(_, record)| record.version);
        let Some(key) = oldest
            .filter(|(_, record)| record.version < version)
            .map(|(key, _)| key.clone())
        else {
            return false;
        };
        if let Some(dropped) = self.kept.remove(&key) {
            self.digest ^= fingerprint(&dropped);
        }
        true
    }

    pub(super) fn pop_news(&mut self) -> Option<Intent> {
        self.news.pop_front()
    }

    pub(super) fn all(&self) -> Vec<Intent> {
        self.kept.values().cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The same for all who keep the same records.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }
}

/// Not a secret and not a check: should two tables ever have the same digest
/// by chance, the periodic sync finds out.
fn fingerprint(intent: &Intent) -> u64 {
    encode(intent)
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// A record as a broadcast.
pub(super) fn encode(intent: &Intent) -> Vec<u8> {
    postcard::to_extend(intent, vec![RECORD_VERSION]).unwrap_or_default()
}

fn decode(data: &[u8]) -> Option<Intent> {
    let (&RECORD_VERSION, encoded) = data.split_first()? else {
        return None;
    };
    if data.len() > MAX_ENCODED {
        return None;
    }
    postcard::from_bytes(encoded).ok()
}

/// The records, shared by the core and by foca, which the broadcasts go
/// through. Both run on one task: the lock is never waited for.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Records>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BroadcastHandler<Id> for Shared {
    type Key = Key;
    type Error = Infallible;

    /// A record that cannot be read is not an error: the rest of the packet
    /// is worth hearing, and a later version of the program may have sent it.
    fn receive_item(&mut self, data: &[u8], _: Option<&Id>) -> Result<Option<Key>, Infallible> {
        Ok(decode(data).and_then(|intent| {
            let key = Key::of(&intent);
            self.lock().offer(intent).then_some(key)
        }))
    }
}

impl Invalidates for Key {
    /// Only what is newer is ever broadcast, so the same key suffices.
    fn invalidates(&self, other: &Self) -> bool {
        self == other
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::membership::Admin;

    const NOW: u64 = 1_700_000_000_000;

    fn intent(server: &str, wish: Wish, clock: u64) -> Intent {
        Intent {
            service: "nodes".parse().unwrap(),
            server: server.parse().unwrap(),
            wish,
            version: Version {
                clock,
                writer: "10.0.0.1:7946".parse().unwrap(),
            },
        }
    }

    fn records() -> Records {
        let mut records = Records::default();
        records.set_clock(NOW);
        records
    }

    #[test]
    fn the_latest_word_counts_and_is_told_once() {
        let mut records = records();
        let drain = intent("s1", Wish::State(Admin::Drain), NOW);
        let ready = intent("s1", Wish::State(Admin::Ready), NOW + 1);
        let weight = intent("s1", Wish::Weight(None), NOW - 1);
        assert!(records.offer(ready.clone()));
        assert!(!records.offer(ready.clone()));
        assert!(!records.offer(drain));
        assert!(records.offer(weight.clone()));
        let told: Vec<_> = std::iter::from_fn(|| records.pop_news()).collect();
        assert_eq!(told, [ready, weight]);
    }

    #[test]
    fn a_broken_clock_does_not_win_for_ever() {
        let mut records = records();
        let wish = Wish::State(Admin::Maint);
        assert!(!records.offer(intent("s1", wish, NOW + MAX_AHEAD + 1)));
        assert!(records.offer(intent("s1", wish, NOW + MAX_AHEAD)));
        // The next word, said a millisecond later by a sound clock.
        records.set_clock(NOW + 1);
        let next = records.next_clock();
        assert!(records.offer(intent("s1", Wish::State(Admin::Ready), next)));
    }

    #[test]
    fn a_weight_that_cannot_be_is_refused() {
        assert!(!records().offer(intent("s1", Wish::Weight(Some(257)), NOW)));
        assert!(records().offer(intent("s1", Wish::Weight(Some(256)), NOW)));
    }

    #[test]
    fn the_longest_record_is_short_enough_for_a_broadcast() {
        let name: Name = "x".repeat(Name::MAX_LEN).parse().unwrap();
        let longest = Intent {
            service: name.clone(),
            server: name,
            wish: Wish::Weight(Some(u16::MAX)),
            version: Version {
                clock: u64::MAX,
                writer: "[ff::1]:65535".parse().unwrap(),
            },
        };
        let encoded = encode(&longest);
        assert!(encoded.len() <= MAX_ENCODED, "{}", encoded.len());
        assert_eq!(decode(&encoded), Some(longest));
    }

    #[test]
    fn beyond_the_bound_the_oldest_go_whichever_way_they_came() {
        let some: Vec<_> = (0..MAX_RECORDS as u64 + 10)
            .map(|n| intent(&format!("s{n}"), Wish::Weight(None), NOW + n))
            .collect();
        let (mut forward, mut backward) = (records(), records());
        for record in &some {
            forward.offer(record.clone());
        }
        for record in some.iter().rev() {
            backward.offer(record.clone());
        }
        assert_eq!(forward.all().len(), MAX_RECORDS);
        assert_eq!(forward.digest(), backward.digest());
        assert_eq!(forward.all(), backward.all());
    }

    fn any_intent() -> impl Strategy<Value = Intent> {
        let wish = prop_oneof![
            Just(Wish::State(Admin::Ready)),
            Just(Wish::State(Admin::Drain)),
            (0..300u16).prop_map(|weight| Wish::Weight(Some(weight))),
        ];
        (0..3u8, wish, 0..5u64, 0..3u16).prop_map(|(server, wish, clock, writer)| Intent {
            version: Version {
                clock: NOW + clock,
                // A writer never uses one version for two wishes.
                writer: ([10, 0, 0, server], 1 + writer).into(),
            },
            ..intent(&format!("s{server}"), wish, NOW)
        })
    }

    proptest! {
        #[test]
        fn in_whatever_order_they_come_the_same_records_are_kept(
            some in prop::collection::vec(any_intent(), 0..20).prop_map(|some| {
                let versions: BTreeMap<_, _> = some.into_iter().map(|i| (i.version, i)).collect();
                versions.into_values().collect::<Vec<_>>()
            }),
            shuffled: prop::sample::Index,
        ) {
            let mut rotated = some.clone();
            if !rotated.is_empty() {
                let by = shuffled.index(rotated.len());
                rotated.rotate_left(by);
            }
            rotated.extend(some.iter().rev().cloned());
            let (mut one, mut other) = (records(), records());
            for intent in some { one.offer(intent); }
            for intent in rotated { other.offer(intent); }
            prop_assert_eq!(one.all(), other.all());
            prop_assert_eq!(one.digest(), other.digest());
        }

        #[test]
        fn no_bytes_make_a_record_panic(bytes: Vec<u8>) {
            let mut versioned = vec![RECORD_VERSION];
            versioned.extend(bytes);
            let mut shared = Shared::default();
            prop_assert!(shared.receive_item(&versioned, None).is_ok());
        }
    }
}
