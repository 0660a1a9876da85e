//! How a request comes to a place at a server, in a pool where servers take
//! only so many requests at a time.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{
    Worker,
    attempts::{Attempts, Waits},
    error::Error,
    exchange::Exchange,
    places::Asked,
};
use crate::{
    balance,
    pool::{Server, Snapshot, queue::Ticket},
};

/// What a request has of its waits so far. It keeps its turn from one to the
/// next, and has one time for all.
#[derive(Debug, Default)]
pub(super) struct Line {
    ticket: Option<Ticket>,
    give_up: Option<Instant>,
}

impl Line {
    /// Whether it ever had to wait.
    pub(super) fn has_waited(&self) -> bool {
        self.ticket.is_some()
    }
}

/// Where a request goes.
#[derive(Debug)]
pub(super) enum Turn {
    /// To this server, where it has a place.
    To(Arc<Server>),
    /// Nowhere: there is no server for it.
    Nowhere,
    /// It is to choose again.
    ChooseAgain,
}

impl Attempts<'_> {
    /// Takes a place at the server that the cookie names, or else at any, and
    /// waits for one if need be.
    pub(super) async fn take_place(
        &mut self,
        snapshot: &Arc<Snapshot>,
        home: Option<&Arc<Server>>,
        exchange: &mut Exchange,
    ) -> Result<Turn, Error> {
        let worker = self.worker;
        let places = &worker.places;
        let asked = match home {
            Some(server) => places.at(server, self.line.ticket, snapshot),
            None if !self.has_any(snapshot) => return Ok(Turn::Nowhere),
            None => {
                let turn = {
                    let rng = &mut *worker.rng.borrow_mut();
                    let algorithm = worker.settings.balance;
                    balance::pick_with_room(algorithm, snapshot, &self.tried, rng)
                };
                let turn = turn.map(|server| server.life);
                places.anywhere(turn, self.tried.lives(), self.line.ticket, snapshot)
            }
        };
        let mut waiting = match asked {
            Asked::Taken(place, server) => {
                exchange.hold(place);
                return Ok(Turn::To(server));
            }
            Asked::Waits(waiting) => waiting,
            Asked::Full => return Err(worker.turned_away(Error::QueueFull)),
            Asked::Gone => return Ok(Turn::ChooseAgain),
        };
        if home.is_some() {
            exchange.waits_behind(waiting.ahead, 0);
        } else {
            exchange.waits_behind(0, waiting.ahead);
        }
        let totals = worker.ledger.shared();
        let gauge = home.map_or(&totals.backend.waiting, |s| &s.live.counters.waiting);
        let _counted = Waits::count(gauge);
        self.line.ticket = Some(waiting.ticket);
        let limit = worker.settings.timeouts.queue;
        let give_up = *(self.line.give_up).get_or_insert_with(|| Instant::now() + limit);
        match timeout_at(give_up, waiting.turn()).await {
            Ok(Some((place, server))) => {
                exchange.hold(place);
                Ok(Turn::To(server))
            }
            Ok(None) => Ok(Turn::ChooseAgain),
            Err(_) => Err(worker.turned_away(Error::QueueTimeout)),
        }
    }

    /// Whether any server may have the request, with a place or without.
    fn has_any(&self, snapshot: &Snapshot) -> bool {
        let mut turns = snapshot.schedule.iter().filter_map(|i| snapshot.get(*i));
        turns.any(|server| !self.tried.contains(server.life))
    }
}

impl Worker {
    /// Counts a request that got no place (`econ`).
    fn turned_away(&self, error: Error) -> Error {
        self.ledger.all().traffic.connect_errors.inc();
        error
    }
}
