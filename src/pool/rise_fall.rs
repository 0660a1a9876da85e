//! `HAProxy`'s health counter: a server goes down after `fall` failed checks
//! in a row and comes back after `rise` good ones. Pure.

use std::num::NonZeroU16;

/// How many checks in a row change a server's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Good checks that bring a server up.
    pub rise: NonZeroU16,
    /// Failed checks that take a server down.
    pub fall: NonZeroU16,
}

/// Where a server stands between its thresholds.
///
/// `HAProxy` counts from 0 to `rise + fall - 1`; at `rise` and above the
/// server is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    thresholds: Thresholds,
    count: u16,
}

impl Health {
    /// A server before its first check: up, and down at the first failure,
    /// which is how `HAProxy` starts one.
    pub fn unproven(thresholds: Thresholds) -> Self {
        let count = thresholds.rise.get();
        Self { thresholds, count }
    }

    /// Enters a check's outcome.
    pub fn enter(&mut self, passed: bool) {
        let rise = self.thresholds.rise.get();
        self.count = match (passed, self.is_up()) {
            (true, true) => self.top(),
            (true, false) if self.count + 1 >= rise => self.top(),
            (true, false) => self.count + 1,
            (false, true) if self.count > rise => self.count - 1,
            (false, _) => 0,
        };
    }

    /// Takes the server down whatever its checks said.
    pub fn fail(&mut self) {
        self.count = 0;
    }

    /// Brings the server wholly up whatever its checks said.
    pub fn restore(&mut self) {
        self.count = self.top();
    }

    /// Whether the server counts as healthy.
    pub fn is_up(&self) -> bool {
        self.count >= self.thresholds.rise.get()
    }

    /// Whether the next checks may change the verdict.
    pub fn in_transition(&self) -> bool {
        self.count != 0 && self.count != self.top()
    }

    /// `n/of` as `HAProxy` prints it in a status such as `UP 1/3`, or `None`
    /// when the server is wholly up or wholly down.
    pub fn progress(&self) -> Option<(u16, u16)> {
        if !self.in_transition() {
            return None;
        }
        let Thresholds { rise, fall } = self.thresholds;
        Some(if self.is_up() {
            (self.count - rise.get() + 1, fall.get())
        } else {
            (self.count, rise.get())
        })
    }

    /// The raw counter, CSV's `check_health`.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The thresholds it runs between.
    pub fn thresholds(&self) -> Thresholds {
        self.thresholds
    }

    fn top(self) -> u16 {
        self.thresholds.rise.get() + self.thresholds.fall.get() - 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn health(rise: u16, fall: u16) -> Health {
        Health::unproven(Thresholds {
            rise: NonZeroU16::new(rise).unwrap(),
            fall: NonZeroU16::new(fall).unwrap(),
        })
    }

    fn after(mut health: Health, outcomes: &[bool]) -> Health {
        for passed in outcomes {
            health.enter(*passed);
        }
        health
    }

    #[test]
    fn a_new_server_is_up_and_its_first_failure_takes_it_down() {
        let new = health(2, 3);
        assert!(new.is_up());
        assert_eq!(new.progress(), Some((1, 3)));
        assert!(!after(new, &[false]).is_up());
    }

    #[test]
    fn a_proven_server_goes_down_at_the_third_failure_in_a_row() {
        let proven = after(health(2, 3), &[true, true]);
        assert_eq!(proven.progress(), None);
        assert_eq!(after(proven, &[false]).progress(), Some((2, 3)));
        assert!(after(proven, &[false, false]).is_up());
        assert!(!after(proven, &[false, false, false]).is_up());
        assert!(after(proven, &[false, false, true, false, false]).is_up());
    }

    #[test]
    fn a_down_server_comes_back_at_the_second_success_in_a_row() {
        let down = after(health(2, 3), &[false]);
        let half = after(down, &[true]);
        assert!(!half.is_up());
        assert_eq!(half.progress(), Some((1, 2)));
        assert!(!after(half, &[false, true]).is_up());
        assert_eq!(after(half, &[true]).progress(), None);
        assert!(after(half, &[true]).is_up());
    }

    proptest! {
        #[test]
        fn enough_equal_outcomes_always_decide(
            rise in 1u16..10,
            fall in 1u16..10,
            history in proptest::collection::vec(any::<bool>(), 0..50),
            last in any::<bool>(),
        ) {
            let mut health = after(health(rise, fall), &history);
            for _ in 0..rise.max(fall) {
                health.enter(last);
            }
            prop_assert_eq!(health.is_up(), last);
        }
    }
}
