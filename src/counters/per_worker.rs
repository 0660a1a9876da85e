//! One block of figures a worker: each adds to its own without a locked
//! instruction and without ever waiting for another CPU's cache, and whoever
//! asks adds the blocks up.

use std::{marker::PhantomData, sync::OnceLock};

/// A worker's place among the blocks.
///
/// It stays on the thread that made it: a block has one writer.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    index: usize,
    stays_here: PhantomData<*const ()>,
}

impl Slot {
    /// The place of worker number `index`, which no other thread may claim.
    pub const fn new(index: usize) -> Self {
        Self {
            index,
            stays_here: PhantomData,
        }
    }
}

/// A block of type `T` for each worker that has ever asked for its own; how
/// many workers there are need not be known.
///
/// `T` should be aligned to two cache lines (128 bytes), so that no two
/// workers' blocks share one.
#[derive(Debug)]
pub struct PerWorker<T> {
    blocks: [OnceLock<Box<T>>; WIDTH],
    more: OnceLock<Box<Self>>,
}

/// Blocks before the search for one's own goes on behind a pointer.
const WIDTH: usize = 8;

impl<T: Default> PerWorker<T> {
    /// The worker's own block. Its first call allocates it.
    pub fn of(&self, worker: Slot) -> &T {
        let (mut here, mut index) = (self, worker.index);
        loop {
            if let Some(block) = here.blocks.get(index) {
                return block.get_or_init(Box::default);
            }
            index -= WIDTH;
            here = here.more.get_or_init(Box::default);
        }
    }
}

impl<T> PerWorker<T> {
    /// The worker's own block, if it has ever asked for it.
    pub fn existing(&self, worker: Slot) -> Option<&T> {
        let (mut here, mut index) = (self, worker.index);
        while index >= WIDTH {
            index -= WIDTH;
            here = here.more.get()?;
        }
        here.blocks.get(index)?.get().map(Box::as_ref)
    }

    /// Every block there is.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let all = std::iter::successors(Some(self), |here| here.more.get().map(Box::as_ref));
        let blocks = all.flat_map(|here| &here.blocks);
        blocks.filter_map(|block| block.get().map(Box::as_ref))
    }
}

impl<T> Default for PerWorker<T> {
    fn default() -> Self {
        Self {
            blocks: [const { OnceLock::new() }; WIDTH],
            more: OnceLock::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::OwnCounter;

    #[test]
    fn every_worker_counts_for_itself_and_nothing_is_lost() {
        let all = PerWorker::<OwnCounter>::default();
        let workers = 3 * WIDTH;
        std::thread::scope(|scope| {
            for index in 0..workers {
                let all = &all;
                scope.spawn(move || {
                    let own = all.of(Slot::new(index));
                    (0..1000).for_each(|_| own.inc());
                });
            }
        });
        let counts: Vec<u64> = all.iter().map(OwnCounter::get).collect();
        assert_eq!(counts, vec![1000; workers]);
    }

    #[test]
    fn a_look_at_ones_own_block_does_not_make_one() {
        let all = PerWorker::<OwnCounter>::default();
        let far = Slot::new(2 * WIDTH + 1);
        assert!(all.existing(far).is_none());
        all.of(far).inc();
        assert_eq!(all.existing(far).map(OwnCounter::get), Some(1));
        assert!(all.existing(Slot::new(1)).is_none());
        assert_eq!(all.iter().count(), 1);
    }
}
