//! Who is connected, and who makes room.
//!
//! The number of connections is bounded, and that of one address to half of
//! it. A newcomer is let in all the same: of those it competes with, whoever
//! has been silent longest is closed. Whoever follows a stream is silent by
//! nature, and goes after all others.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::net;

/// The places of one listener.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    opened: Instant,
    guests: Mutex<Guests>,
    /// Somebody has gone.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Guests {
    number: u64,
    /// In the order in which they came.
    present: BTreeMap<u64, Arc<Guest>>,
}

#[derive(Debug)]
struct Guest {
    from: Option<IpAddr>,
    /// When it was heard of last, in nanoseconds since the places opened.
    heard: AtomicU64,
    /// Streams that it follows.
    follows: AtomicUsize,
    told_to_go: CancellationToken,
}

impl Guest {
    /// Who makes room before whom: who is on the way out does already.
    fn turn(&self) -> impl Ord {
        let stays = !self.told_to_go.is_cancelled();
        let follows = self.follows.load(Relaxed) > 0;
        (stays, follows, self.heard.load(Relaxed))
    }
}

impl Places {
    /// As many places as `most`, half of them for one address.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            opened: Instant::now(),
            guests: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Lets a connection in as soon as whoever makes room for it has gone.
    /// One without an address has no bound but that of all.
    ///
    /// Whoever has a [`Place`] drops it, and its connection, once
    /// [`told_to_go`](Place::told_to_go).
    pub(crate) async fn admit(self: &Arc<Self>, peer: Option<IpAddr>) -> Place {
        let from = peer.map(net::source);
        loop {
            // Before it looks: who goes meanwhile wakes it.
            let freed = self.freed.notified();
            if let Some(place) = self.take(from) {
                return place;
            }
            freed.await;
        }
    }

    /// A place, if there is one; if not, somebody is told to go.
    fn take(self: &Arc<Self>, from: Option<IpAddr>) -> Option<Place> {
        let mut guests = self.guests();
        let own = guests.of(from).count();
        let is_crowd = from.is_some() && own >= self.most.div_ceil(2);
        if is_crowd || guests.present.len() >= self.most {
            let rivals = guests.present.values();
            let rivals = rivals.filter(|guest| !is_crowd || guest.from == from);
            if let Some(next) = rivals.min_by_key(|guest| guest.turn()) {
                next.told_to_go.cancel();
            }
            return None;
        }
        guests.number += 1;
        let number = guests.number;
        let guest = Arc::new(Guest {
            from,
            heard: AtomicU64::new(self.now()),
            follows: AtomicUsize::new(0),
            told_to_go: CancellationToken::new(),
        });
        guests.present.insert(number, Arc::clone(&guest));
        let places = Arc::clone(self);
        let held = Held { places, number };
        let held = Arc::new(held);
        Some(Place { guest, held })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        // No step in between leaves it half done.
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guests {
    fn of(&self, from: Option<IpAddr>) -> impl Iterator<Item = &Arc<Guest>> {
        let guests = self.present.values();
        guests.filter(move |guest| guest.from == from)
    }
}

/// A connection's place, until the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    guest: Arc<Guest>,
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    places: Arc<Places>,
    number: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.places.guests().present.remove(&self.number);
        self.places.freed.notify_one();
    }
}

impl Place {
    /// It asked for something, or took some of its answer: it is not silent.
    pub(crate) fn heard(&self) {
        self.guest.heard.store(self.held.places.now(), Relaxed);
    }

    /// Where it comes from; `None` is this machine by a socket in its files.
    pub(crate) fn from(&self) -> Option<IpAddr> {
        self.guest.from
    }

    /// It follows a stream until what is returned is dropped.
    pub(crate) fn follow(&self) -> Following {
        self.guest.follows.fetch_add(1, Relaxed);
        Following(Arc::clone(&self.guest))
    }

    /// Waits until another one needs the place.
    pub(crate) async fn told_to_go(&self) {
        self.guest.told_to_go.cancelled().await;
    }
}

/// A stream that somebody follows.
#[derive(Debug)]
pub(crate) struct Following(Arc<Guest>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.follows.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{advance, timeout};

    use super::*;

    const MOST: usize = 4;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A connection that goes when it is told to.
    async fn guest(places: &Arc<Places>, from: &str) -> Place {
        let entered = timeout(Duration::from_secs(1), places.admit(Some(ip(from)))).await;
        let place = entered.expect("a newcomer gets in");
        advance(Duration::from_millis(1)).await;
        place
    }

    fn goes_when_told(place: Place) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move { place.told_to_go().await })
    }

    fn present(places: &Places) -> Vec<u64> {
        places.guests().present.keys().copied().collect()
    }

    /// The numbers of those that are left of four, `a`, `b`, `a`, `b`, after
    /// one more, from `newcomer`, where some do something first.
    async fn left_after(
        newcomer: &str,
        before: impl Fn(&[Place]) -> Option<Following>,
    ) -> Vec<u64> {
        let places = Places::new(MOST);
        let mut all = Vec::new();
        for from in ["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2"] {
            all.push(guest(&places, from).await);
        }
        let _following = before(&all);
        for place in all {
            drop(goes_when_told(place));
        }
        let _newcomer = guest(&places, newcomer).await;
        present(&places)
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_been_silent_longest_makes_room() {
        assert_eq!(left_after("10.0.0.9", |_| None).await, [2, 3, 4, 5]);
        let first_speaks = |all: &[Place]| {
            all[0].heard();
            None
        };
        assert_eq!(left_after("10.0.0.9", first_speaks).await, [1, 3, 4, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_follows_a_stream_goes_after_all_others() {
        let follows = |all: &[Place]| Some(all[0].follow());
        assert_eq!(left_after("10.0.0.9", follows).await, [1, 3, 4, 5]);
        let followed = |all: &[Place]| {
            drop(all[0].follow());
            None
        };
        assert_eq!(left_after("10.0.0.9", followed).await, [2, 3, 4, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_half_and_makes_room_for_itself_alone() {
        assert_eq!(left_after("10.0.0.2", |_| None).await, [1, 3, 4, 5]);
        let places = Places::new(MOST);
        let mut own = Vec::new();
        for _ in 0..50 {
            own.push(goes_when_told(guest(&places, "10.0.0.1").await));
        }
        assert_eq!(present(&places), [49, 50]);
        // Whoever has no address is not one of a crowd.
        let here: Vec<Place> = [places.admit(None).await, places.admit(None).await].into();
        assert_eq!(present(&places).len(), MOST);
        drop(here);
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_waits_until_the_one_who_makes_room_has_gone() {
        let places = Places::new(1);
        let first = guest(&places, "10.0.0.1").await;
        let second = places.admit(Some(ip("10.0.0.2")));
        tokio::pin!(second);
        let pause = Duration::from_millis(1);
        assert!(timeout(pause, second.as_mut()).await.is_err());
        assert_eq!(present(&places), [1]);
        first.told_to_go().await;
        drop(first);
        timeout(pause, second).await.unwrap();
    }
}
