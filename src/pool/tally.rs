//! What follows from all servers together, kept in step with each of them, so
//! that a change of one costs no walk along all. Pure.

use std::collections::{BTreeSet, HashMap};

use super::{
    server::{Cause, Life, Status},
    snapshot::Lasting,
};
use crate::membership::Name;

/// What the pool as a whole depends on of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) life: Life,
    pub(super) status: Status,
    /// Its weight and how much of it it gets; `None` has no address.
    pub(super) share: Option<(u16, Option<u8>)>,
    /// Gossip hears its agent.
    pub(super) is_heard: bool,
    /// Time alone may change it.
    pub(super) is_timed: bool,
    /// It takes only so many requests at a time.
    pub(super) is_limited: bool,
}

impl Part {
    fn is_up(&self) -> bool {
        matches!(self.status, Status::Up | Status::Suspect)
    }

    /// It takes whoever comes, as far as gossip says.
    fn is_active(&self) -> bool {
        self.status == Status::Up
    }

    /// Whether it is given requests when no server is up.
    fn is_last_resort(&self) -> bool {
        matches!(self.status, Status::Down(Cause::Quarantine | Cause::Silent))
    }
}

/// The sums over all servers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    lives: HashMap<Life, Name>,
    up: usize,
    active: usize,
    last_resorts: usize,
    heard: usize,
    limited: usize,
    timed: BTreeSet<Name>,
    /// What of the last snapshot still holds.
    pub(super) lasting: Lasting,
}

impl Tally {
    /// A server is what it was not before; `None` is not there.
    pub(super) fn enter(&mut self, name: &Name, before: Option<Part>, after: Option<Part>) {
        if let Some(part) = before {
            self.lives.remove(&part.life);
            self.up -= usize::from(part.is_up());
            self.active -= usize::from(part.is_active());
            self.last_resorts -= usize::from(part.is_last_resort());
            self.heard -= usize::from(part.is_heard);
            self.limited -= usize::from(part.is_limited);
        }
        if let Some(part) = after {
            self.lives.insert(part.life, name.clone());
            self.up += usize::from(part.is_up());
            self.active += usize::from(part.is_active());
            self.last_resorts += usize::from(part.is_last_resort());
            self.heard += usize::from(part.is_heard);
            self.limited += usize::from(part.is_limited);
        }
        if after.is_some_and(|part| part.is_timed) {
            self.timed.insert(name.clone());
        } else {
            self.timed.remove(name);
        }
        match (before, after) {
            (Some(before), Some(after)) => {
                if (before.status, before.share) != (after.status, after.share) {
                    self.lasting.end_schedule();
                }
            }
            _ => self.lasting.end_names(),
        }
    }

    /// Whose life that is.
    pub(super) fn name_of(&self, life: Life) -> Option<&Name> {
        self.lives.get(&life)
    }

    /// Servers that are up, suspected ones among them.
    pub(super) fn up(&self) -> usize {
        self.up
    }

    /// Servers that are up and take new users: gossip suspects none of
    /// them.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Whether any server can be given a request, if only as a last resort.
    pub(super) fn can_serve(&self) -> bool {
        self.up + self.last_resorts > 0
    }

    /// Whether gossip hears the agent of any server.
    pub(super) fn hears(&self) -> bool {
        self.heard > 0
    }

    /// Whether any server takes only so many requests at a time.
    pub(super) fn is_limited(&self) -> bool {
        self.limited > 0
    }

    /// Servers that time alone may change, in the order of names.
    pub(super) fn timed(&self) -> impl Iterator<Item = &Name> {
        self.timed.iter()
    }

    #[cfg(test)]
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let sums = |t: &Self| (t.up, t.active, t.last_resorts, t.heard, t.limited);
        sums(self) == sums(other) && self.lives == other.lives && self.timed == other.timed
    }
}
