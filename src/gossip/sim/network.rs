//! The network between the nodes: which packets arrive, when and how often.

use std::{collections::BTreeSet, time::Duration};

use rand::{RngExt as _, rngs::StdRng};

/// What becomes of a packet.
pub(super) struct Network {
    /// Of every packet, how likely it is to get lost,
    pub(super) loss: f64,
    /// to be held up, so that later ones overtake it,
    pub(super) reorder: f64,
    /// to arrive twice.
    pub(super) duplicate: f64,
    /// These do not reach the others, nor the others them.
    pub(super) island: BTreeSet<usize>,
}

impl Network {
    pub(super) fn new(loss: f64) -> Self {
        Self {
            loss,
            reorder: 0.0,
            duplicate: 0.0,
            island: BTreeSet::new(),
        }
    }

    pub(super) fn connects(&self, a: usize, b: usize) -> bool {
        self.island.contains(&a) == self.island.contains(&b)
    }

    /// After how long a packet arrives, each time that it does.
    pub(super) fn fate(&self, rng: &mut StdRng) -> Vec<Duration> {
        if rng.random_bool(self.loss) {
            return Vec::new();
        }
        let copies = if rng.random_bool(self.duplicate) {
            2
        } else {
            1
        };
        let mut delay = || {
            let held_up = if rng.random_bool(self.reorder) {
                rng.random_range(1..20_000)
            } else {
                0
            };
            Duration::from_micros(rng.random_range(200..400) + held_up)
        };
        (0..copies).map(|_| delay()).collect()
    }
}
