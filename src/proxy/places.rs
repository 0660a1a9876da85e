//! Places at servers that take only so many requests at a time, shared by all
//! workers: the pure [`Queue`] behind a lock, and how those who wait are woken.
//!
//! Only where a server has a `maxconn` does a request come here, and then it
//! holds the lock for a look into a map. Nobody is woken under the lock, and
//! one is woken for one place.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::oneshot;

use crate::pool::{
    Server, Snapshot,
    queue::{Call, Queue, Seat, Takes, Ticket},
    server::Life,
};

/// The places of all servers, and who waits for one. Cloning it is cheap.
#[derive(Clone)]
pub struct Places(Arc<Mutex<Hall>>);

struct Hall {
    queue: Queue<Arc<Server>, oneshot::Sender<Word>>,
    /// The pool as the queue knows it.
    seen: Arc<Snapshot>,
    in_rotation: HashSet<Life>,
}

/// What one who waits is told.
#[derive(Debug)]
enum Word {
    /// It has a place there.
    Place(Place, Arc<Server>),
    /// It is to choose again: there is no server for it any more, or another.
    ChooseAgain,
}

/// A place at a server, given back when this is dropped.
pub(super) struct Place {
    places: Places,
    life: Life,
}

/// One who waits. Dropped, it waits no more, and a place that it was just
/// given goes to the next.
#[derive(Debug)]
pub(super) struct Waiting {
    places: Places,
    pub(super) ticket: Ticket,
    /// So many came before it and wait as well.
    pub(super) ahead: u32,
    bound_to: Option<Life>,
    word: oneshot::Receiver<Word>,
}

/// What became of one who asked for a place.
#[derive(Debug)]
pub(super) enum Asked {
    /// It has one.
    Taken(Place, Arc<Server>),
    /// It is to wait.
    Waits(Waiting),
    /// As many wait as may.
    Full,
    /// It is to choose again.
    Gone,
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").finish_non_exhaustive()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.life).finish()
    }
}

impl Places {
    /// None yet; at most `most` wait in one queue.
    pub fn new(most: u32) -> Self {
        Self(Arc::new(Mutex::new(Hall {
            queue: Queue::new(most as usize),
            seen: Arc::default(),
            in_rotation: HashSet::new(),
        })))
    }

    /// Takes a change in the pool up: those who wait may have a server now, or
    /// none any more.
    pub(super) fn follow(&self, snapshot: &Arc<Snapshot>) {
        self.with(snapshot, |_| ());
    }

    /// A place at that server, which the request's cookie names.
    pub(super) fn at(
        &self,
        server: &Server,
        ticket: Option<Ticket>,
        snapshot: &Arc<Snapshot>,
    ) -> Asked {
        let life = server.life;
        let mut word = None;
        let seat = self.with(snapshot, |queue| {
            queue.bound(life, ticket, || answer_in(&mut word))
        });
        self.asked(seat, Some(life), word)
    }

    /// A place at any server but those that were tried, if possible at the one
    /// whose turn it is.
    pub(super) fn anywhere(
        &self,
        turn: Option<Life>,
        tried: &[Life],
        ticket: Option<Ticket>,
        snapshot: &Arc<Snapshot>,
    ) -> Asked {
        let mut word = None;
        let seat = self.with(snapshot, |queue| {
            queue.anywhere(turn, tried, ticket, || answer_in(&mut word))
        });
        self.asked(seat, None, word)
    }

    fn asked(
        &self,
        seat: Seat<Arc<Server>>,
        bound_to: Option<Life>,
        word: Option<oneshot::Receiver<Word>>,
    ) -> Asked {
        match (seat, word) {
            (Seat::Taken(life, server), _) => Asked::Taken(self.place(life), server),
            (Seat::Waits(ticket, ahead), Some(word)) => Asked::Waits(Waiting {
                places: self.clone(),
                ticket,
                ahead,
                bound_to,
                word,
            }),
            (Seat::Full, _) => Asked::Full,
            (Seat::Gone | Seat::Waits(..), _) => Asked::Gone,
        }
    }

    fn place(&self, life: Life) -> Place {
        let places = self.clone();
        Place { places, life }
    }

    /// Does something under the lock, once the queue knows the pool as whoever
    /// asks knows it, and calls afterwards those whose turn has come by that.
    fn with<T>(
        &self,
        snapshot: &Arc<Snapshot>,
        work: impl FnOnce(&mut Queue<Arc<Server>, oneshot::Sender<Word>>) -> T,
    ) -> T {
        let (calls, done) = {
            let mut hall = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let calls = hall.follow(snapshot);
            (calls, work(&mut hall.queue))
        };
        self.call(calls);
        done
    }

    fn call(&self, calls: Vec<Call<Arc<Server>, oneshot::Sender<Word>>>) {
        for Call { to, place } in calls {
            let word = match place {
                Some((life, server)) => Word::Place(self.place(life), server),
                None => Word::ChooseAgain,
            };
            // Of one who has just gone, the place comes back and is given on.
            to.send(word).ok();
        }
    }
}

/// Makes the way by which one who waits is called.
fn answer_in(word: &mut Option<oneshot::Receiver<Word>>) -> oneshot::Sender<Word> {
    let (sender, receiver) = oneshot::channel();
    *word = Some(receiver);
    sender
}

impl Hall {
    fn follow(
        &mut self,
        snapshot: &Arc<Snapshot>,
    ) -> Vec<Call<Arc<Server>, oneshot::Sender<Word>>> {
        let mut calls = Vec::new();
        // Nobody can be waiting where nothing was limited.
        let matters = snapshot.is_limited || self.seen.is_limited;
        if !matters || snapshot.generation <= self.seen.generation {
            return calls;
        }
        let before = std::mem::replace(&mut self.seen, Arc::clone(snapshot));
        let changed: Vec<_> = snapshot.changed_since(&before).collect();
        for (was, is) in &changed {
            if let Some(was) = was
                && is.is_none_or(|is| is.life != was.life)
            {
                calls.extend(self.queue.remove(was.life));
            }
        }
        let described = if Arc::ptr_eq(&before.schedule, &snapshot.schedule) {
            changed.into_iter().filter_map(|(_, is)| is).collect()
        } else {
            let scheduled = snapshot.schedule.iter();
            let scheduled = scheduled.filter_map(|index| snapshot.get(*index));
            self.in_rotation = scheduled.map(|server| server.life).collect();
            snapshot.servers.iter().collect::<Vec<_>>()
        };
        for server in described {
            let takes = match () {
                () if self.in_rotation.contains(&server.life) => Takes::Everyone,
                () if server.keeps_users() => Takes::ItsUsers,
                () => Takes::Nobody,
            };
            let (life, limit) = (server.life, server.maxconn);
            calls.extend(self.queue.describe(life, Arc::clone(server), limit, takes));
        }
        calls.extend(self.queue.settle());
        calls
    }
}

impl Waiting {
    /// Waits for one's turn; `None` is to choose again.
    ///
    /// Cancel safe: what comes too late goes to the next.
    pub(super) async fn turn(&mut self) -> Option<(Place, Arc<Server>)> {
        match (&mut self.word).await {
            Ok(Word::Place(place, server)) => Some((place, server)),
            Ok(Word::ChooseAgain) | Err(_) => None,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut hall = (self.places.0.lock()).unwrap_or_else(PoisonError::into_inner);
        hall.queue.leave(self.ticket, self.bound_to);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let calls = {
            let mut hall = (self.places.0.lock()).unwrap_or_else(PoisonError::into_inner);
            hall.queue.release(self.life)
        };
        self.places.call(calls);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use tokio::time::Instant;

    use super::*;
    use crate::pool::state::{Input, Order, State, StaticServer};

    /// A pool of one server with so many places.
    fn pool(maxconn: u32) -> State {
        let server = StaticServer {
            name: "s1".parse().unwrap(),
            target: "127.0.0.1:80".to_owned(),
            weight: 1,
            check: None,
            tags: [("maxconn".to_owned(), maxconn.to_string())].into(),
        };
        State::new("nodes".parse().unwrap(), vec![server], Instant::now())
    }

    fn taken(asked: Asked) -> Place {
        match asked {
            Asked::Taken(place, _) => place,
            other => panic!("{other:?}"),
        }
    }

    fn waits(asked: Asked) -> Waiting {
        match asked {
            Asked::Waits(waiting) => waiting,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn whoever_gives_up_or_goes_leaves_its_place_to_the_next() {
        let snapshot = Arc::new(pool(1).snapshot());
        let places = Places::new(9);
        let ask = || places.anywhere(None, &[], None, &snapshot);
        let first = taken(ask());
        let gave_up = waits(ask());
        let called_and_gone = waits(ask());
        let mut last = waits(ask());
        drop(gave_up);
        drop(first);
        // It had been called, and never looked.
        drop(called_and_gone);
        assert!(last.turn().await.is_some());
        drop(last);
        let _free = taken(ask());
    }

    #[tokio::test]
    async fn a_limit_that_is_lifted_frees_all_who_wait() {
        let mut pool = pool(1);
        let snapshot = Arc::new(pool.snapshot());
        let places = Places::new(9);
        let ask = || places.anywhere(None, &[], None, &snapshot);
        let _first = taken(ask());
        let waiting = [waits(ask()), waits(ask())];
        let lifted = Input::Told("s1".parse().unwrap(), Order::Maxconn(None));
        pool.apply(lifted, Instant::now());
        let unlimited = Arc::new(pool.snapshot());
        assert!(snapshot.is_limited && !unlimited.is_limited);
        places.follow(&unlimited);
        for mut waiting in waiting {
            assert!(waiting.turn().await.is_some());
        }
    }

    /// Threads as the workers are, each with tasks that come, wait, give up at
    /// any moment and finish.
    #[test]
    fn across_threads_nobody_is_forgotten_and_there_are_never_too_many() {
        const MAXCONN: u32 = 3;
        let snapshot = Arc::new(pool(MAXCONN).snapshot());
        let places = Places::new(1000);
        let (inside, served) = (AtomicU32::new(0), AtomicU32::new(0));
        let gave_up = AtomicU32::new(0);
        let one = async |number: u32| {
            let place = match places.anywhere(None, &[], None, &snapshot) {
                Asked::Taken(place, _) => place,
                Asked::Waits(mut waiting) if number.is_multiple_of(5) => {
                    tokio::select! {
                        biased;
                        () = tokio::task::yield_now() => {
                            gave_up.fetch_add(1, SeqCst);
                            return;
                        }
                        turn = waiting.turn() => turn.unwrap().0,
                    }
                }
                Asked::Waits(mut waiting) => waiting.turn().await.unwrap().0,
                other => panic!("{other:?}"),
            };
            assert!(inside.fetch_add(1, SeqCst) < MAXCONN);
            tokio::task::yield_now().await;
            inside.fetch_sub(1, SeqCst);
            drop(place);
            served.fetch_add(1, SeqCst);
        };
        let (threads, each) = (4, 2000);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().build();
                    let many = async {
                        for start in (0..each).step_by(50) {
                            let batch = (start..start + 50).map(|number| Box::pin(one(number)));
                            join_all(batch.collect()).await;
                        }
                    };
                    runtime.unwrap().block_on(many);
                });
            }
        });
        let all = served.load(SeqCst) + gave_up.load(SeqCst);
        assert_eq!(all, threads * each);
        assert!(gave_up.load(SeqCst) > 0);
        let _all: Vec<Place> = (0..MAXCONN)
            .map(|_| taken(places.anywhere(None, &[], None, &snapshot)))
            .collect();
    }

    async fn join_all<F: Future<Output = ()> + Unpin>(mut all: Vec<F>) {
        std::future::poll_fn(|cx| {
            all.retain_mut(|one| std::pin::Pin::new(one).poll(cx).is_pending());
            if all.is_empty() {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }
}
