//! Whom a limit that holds for each source address holds for, and the tables
//! that keep count of them, shared by all workers.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Parts of a table, each behind a lock of its own: workers meet at one only
/// if two sources of the same part ask in the same microsecond.
const SHARDS: usize = 64;

/// Something of each source (`net::source`), in parts by a hash that nobody outside can
/// foresee.
#[derive(Debug)]
pub(super) struct BySource<T> {
    shards: Box<[Mutex<HashMap<IpAddr, T>>]>,
    key: RandomState,
}

impl<T> Default for BySource<T> {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            key: RandomState::new(),
        }
    }
}

impl<T> BySource<T> {
    /// How many parts there are.
    pub(super) const SHARDS: usize = SHARDS;

    /// The part that has the source.
    pub(super) fn of(&self, source: IpAddr) -> Option<MutexGuard<'_, HashMap<IpAddr, T>>> {
        let part = self.key.hash_one(source) as usize % self.shards.len().max(1);
        let shard = self.shards.get(part)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| shard.lock().unwrap().len()).sum()
    }
}
