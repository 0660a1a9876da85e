//! A node whose host gets another address goes on there: a new life under the
//! same name, and the word to everyone that at the old address nobody is left.

use std::{iter, net::IpAddr};

use foca::{Member, State};
use tokio::time::Instant;

use super::{Core, Life, due::Due, protocol, search::KNOCKS_AT_MISSING};
use crate::gossip::identity::{Id, MetaError};

impl Core {
    /// Goes on at another address of this host, where what it announces is
    /// now as well.
    pub(in crate::gossip) fn relocate(
        &mut self,
        ip: IpAddr,
        now: Instant,
    ) -> Result<(), MetaError> {
        self.effects.now = now;
        let own = self.foca.identity();
        if self.life != Life::Running || own.addr().ip() == ip {
            return Ok(());
        }
        // Of two lives under one name the later counts.
        let epoch = self.wall_clock().max(own.epoch() + 1);
        let moved = own.moved(ip, epoch)?;
        // A goodbye: nobody failed.
        let farewell = own.farewell();
        self.begin_anew(moved);
        self.apply(iter::once(Member::down(farewell)), true);
        self.tell_all();
        self.look_for_everyone();
        Ok(())
    }

    /// Begins a new life that knows the members of the one before, but none of
    /// its verdicts: who was silent while this host had no address lives, most
    /// likely, and must not be told to be dead.
    fn begin_anew(&mut self, moved: Id) {
        let addr = moved.addr();
        let members: Vec<_> = self
            .foca
            .iter_members()
            .filter(|known| known.id().addr() != addr)
            .map(|known| Member::new(known.id().clone(), known.incarnation(), State::Alive))
            .collect();
        self.effects
            .timers
            .cancel(|due| matches!(due, Due::Foca(_)));
        self.effects.forget.clear();
        self.foca = protocol(moved, self.size, &mut self.rng, &self.records);
        // Whoever was known at that address has lost it.
        self.table.evict(addr);
        self.apply(members.into_iter(), false);
        self.local_changed = true;
    }

    /// Those that gave us up, or that we did, while we had no address.
    fn look_for_everyone(&mut self) {
        self.alone_since = self.alone_since.and(Some(self.effects.now));
        self.next_sync = self.effects.now;
        self.greet_seeds();
        let missing = self.table.missing().take(KNOCKS_AT_MISSING).cloned();
        for id in missing.collect::<Vec<_>>() {
            self.announce(id);
        }
    }
}
