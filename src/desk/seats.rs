//! Seats for those who follow a stream: fewer than there are places, so that
//! followers never fill a port, and half of them for one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::places::{Following, Place};

/// The seats of one kind of stream.
#[derive(Debug)]
pub(crate) struct Seats {
    most: usize,
    taken: Mutex<HashMap<Option<IpAddr>, usize>>,
}

impl Seats {
    /// As many seats as `most`, half of them for one address.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let taken = Mutex::default();
        Arc::new(Self { most, taken })
    }

    /// A seat for a connection; `None` if all are taken that it could have.
    ///
    /// Nobody makes room here: whoever follows would come back at once.
    pub(crate) fn take(self: &Arc<Self>, place: &Place) -> Option<Seat> {
        let from = place.from();
        let mut taken = self.taken();
        let own = taken.get(&from).copied().unwrap_or_default();
        if own >= self.most.div_ceil(2) || taken.values().sum::<usize>() >= self.most {
            return None;
        }
        taken.insert(from, own + 1);
        drop(taken);
        Some(Seat {
            seats: Arc::clone(self),
            from,
            _following: place.follow(),
        })
    }

    /// Whether nobody follows.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken().is_empty()
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Option<IpAddr>, usize>> {
        // No step in between leaves it half done.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A seat, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    from: Option<IpAddr>,
    _following: Following,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if let Some(own) = taken.get_mut(&self.from) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::places::Places;

    #[tokio::test]
    async fn one_address_has_half_of_the_seats_and_a_seat_that_is_left_is_free() {
        let places = Places::new(100);
        let seats = Seats::new(4);
        let take = async |from: &str| {
            let place = places.admit(Some(from.parse().unwrap())).await;
            seats.take(&place)
        };
        let mut first = vec![take("10.0.0.1").await.unwrap()];
        first.push(take("10.0.0.1").await.unwrap());
        assert!(take("10.0.0.1").await.is_none());
        let _second = [
            take("10.0.0.2").await.unwrap(),
            take("10.0.0.3").await.unwrap(),
        ];
        assert!(take("10.0.0.4").await.is_none());
        first.pop();
        assert!(take("10.0.0.4").await.is_some());
        assert!(!seats.is_empty());
    }
}
