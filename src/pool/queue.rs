//! Who has a place at which server, and who waits for one, where servers take
//! only so many requests at a time (`HAProxy`'s server `maxconn`). Pure: whoever
//! holds it calls those whose turn has come.
//!
//! A place that is given back goes straight to the one who has waited longest
//! among those who may have it, so nobody overtakes, and one is called for one
//! place. It follows that where a place is free, nobody waits who may have it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU32,
};

use super::server::Life;

/// When somebody began to wait: the lower, the longer ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Whose requests a server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Everyone's.
    Everyone,
    /// Those of the users that it has.
    ItsUsers,
    /// Nobody's.
    Nobody,
}

/// What becomes of one who asks for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat<S> {
    /// It has one, at this server.
    Taken(Life, S),
    /// It waits, with so many ahead of it in its queue, and will be called.
    Waits(Ticket, u32),
    /// As many wait as may.
    Full,
    /// There is no server for it: it is to choose again.
    Gone,
}

/// One whose wait has come to its end.
#[derive(Debug)]
pub struct Call<S, W> {
    /// Who it is.
    pub to: W,
    /// The place that it has now; `None` for one who is to choose again.
    pub place: Option<(Life, S)>,
}

/// Places and queues: each server's own for those who are bound to it, and one
/// for everyone else. `S` stands for a server, `W` for one who waits.
#[derive(Debug)]
pub struct Queue<S, W> {
    servers: HashMap<Life, Places<S, W>>,
    /// Servers that take everyone.
    open: BTreeSet<Life>,
    /// Those of them that have a free place.
    free: BTreeSet<Life>,
    common: BTreeMap<Ticket, Waiter<W>>,
    next: u64,
    /// The most who wait in one queue.
    most: usize,
}

#[derive(Debug)]
struct Places<S, W> {
    server: S,
    limit: Option<NonZeroU32>,
    takes: Takes,
    taken: u32,
    bound: BTreeMap<Ticket, W>,
}

/// One who waits for any server but those that have failed it.
#[derive(Debug)]
struct Waiter<W> {
    tried: Box<[Life]>,
    call: W,
}

impl<S, W> Places<S, W> {
    fn has_room(&self) -> bool {
        self.limit.is_none_or(|limit| self.taken < limit.get())
    }
}

impl<S: Clone, W> Queue<S, W> {
    /// No servers yet; at most `most` wait in one queue.
    pub fn new(most: usize) -> Self {
        Self {
            servers: HashMap::new(),
            open: BTreeSet::new(),
            free: BTreeSet::new(),
            common: BTreeMap::new(),
            next: 0,
            most,
        }
    }

    /// A server is there, or is not as it was. Places are given to those who
    /// wait as far as there are more of them now; where it takes nobody any
    /// more, those bound to it are to choose again.
    pub fn describe(
        &mut self,
        life: Life,
        server: S,
        limit: Option<NonZeroU32>,
        takes: Takes,
    ) -> Vec<Call<S, W>> {
        let known = self.servers.remove(&life);
        let (taken, bound) = known.map_or((0, BTreeMap::new()), |known| (known.taken, known.bound));
        let (bound, sent_away) = match takes {
            Takes::Nobody => (BTreeMap::new(), bound),
            Takes::Everyone | Takes::ItsUsers => (bound, BTreeMap::new()),
        };
        let places = Places {
            server,
            limit,
            takes,
            taken,
            bound,
        };
        self.servers.insert(life, places);
        if takes == Takes::Everyone {
            self.open.insert(life);
        } else {
            self.open.remove(&life);
        }
        let mut calls: Vec<_> = sent_away.into_values().map(choose_again).collect();
        self.serve(life, &mut calls);
        calls
    }

    /// A server has left: those bound to it are to choose again.
    pub fn remove(&mut self, life: Life) -> Vec<Call<S, W>> {
        self.open.remove(&life);
        self.free.remove(&life);
        let gone = self.servers.remove(&life);
        let bound = gone.into_iter().flat_map(|gone| gone.bound.into_values());
        bound.map(choose_again).collect()
    }

    /// Those who wait for any server, and for whom there is none any more, are
    /// to choose again. To be called once the servers have been described.
    pub fn settle(&mut self) -> Vec<Call<S, W>> {
        let open = &self.open;
        let hopeless = |waiter: &Waiter<W>| open.iter().all(|life| waiter.tried.contains(life));
        let hopeless = self.common.extract_if(.., |_, waiter| hopeless(waiter));
        hopeless
            .map(|(_, waiter)| choose_again(waiter.call))
            .collect()
    }

    /// Asks for a place at that server. One who has waited before keeps its
    /// `ticket`, and finds its queue never full.
    pub fn bound(
        &mut self,
        life: Life,
        ticket: Option<Ticket>,
        call: impl FnOnce() -> W,
    ) -> Seat<S> {
        let (most, fresh) = (self.most, Ticket(self.next));
        let Some(places) = self.servers.get_mut(&life) else {
            return Seat::Gone;
        };
        if places.takes == Takes::Nobody {
            return Seat::Gone;
        }
        if places.has_room() {
            return self.take(life);
        }
        if ticket.is_none() && places.bound.len() >= most {
            return Seat::Full;
        }
        let ticket = ticket.unwrap_or(fresh);
        let ahead = places.bound.range(..ticket).count() as u32;
        places.bound.insert(ticket, call());
        self.next += u64::from(ticket == fresh);
        Seat::Waits(ticket, ahead)
    }

    /// Asks for a place at any server but those that were `tried`, if possible
    /// at the one `wanted`.
    pub fn anywhere(
        &mut self,
        wanted: Option<Life>,
        tried: &[Life],
        ticket: Option<Ticket>,
        call: impl FnOnce() -> W,
    ) -> Seat<S> {
        let wanted = wanted.filter(|life| self.free.contains(life));
        let untried = |life: &&Life| !tried.contains(life);
        if let Some(life) = wanted.or_else(|| self.free.iter().find(untried).copied()) {
            return self.take(life);
        }
        if !self.open.iter().any(|life| !tried.contains(life)) {
            return Seat::Gone;
        }
        if ticket.is_none() && self.common.len() >= self.most {
            return Seat::Full;
        }
        let fresh = Ticket(self.next);
        let ticket = ticket.unwrap_or(fresh);
        let ahead = self.common.range(..ticket).count() as u32;
        let waiter = Waiter {
            tried: tried.into(),
            call: call(),
        };
        self.common.insert(ticket, waiter);
        self.next += u64::from(ticket == fresh);
        Seat::Waits(ticket, ahead)
    }

    /// Somebody does not wait any more, for that server or for any. Whoever
    /// was called already has what it was called for.
    pub fn leave(&mut self, ticket: Ticket, bound_to: Option<Life>) {
        match bound_to {
            None => drop(self.common.remove(&ticket)),
            Some(life) => {
                if let Some(places) = self.servers.get_mut(&life) {
                    places.bound.remove(&ticket);
                }
            }
        }
    }

    /// A place is given back.
    pub fn release(&mut self, life: Life) -> Vec<Call<S, W>> {
        let mut calls = Vec::new();
        if let Some(places) = self.servers.get_mut(&life) {
            places.taken = places.taken.saturating_sub(1);
            self.serve(life, &mut calls);
        }
        calls
    }

    /// Takes a place that is free.
    fn take(&mut self, life: Life) -> Seat<S> {
        let Some(places) = self.servers.get_mut(&life) else {
            return Seat::Gone;
        };
        places.taken += 1;
        let server = places.server.clone();
        if !places.has_room() {
            self.free.remove(&life);
        }
        Seat::Taken(life, server)
    }

    /// Gives the server's free places to those who have waited longest.
    fn serve(&mut self, life: Life, calls: &mut Vec<Call<S, W>>) {
        let Some(places) = self.servers.get_mut(&life) else {
            return;
        };
        while places.has_room() {
            let bound = places.bound.first_key_value().map(|(ticket, _)| *ticket);
            let mut others = self
                .common
                .iter()
                .filter(|_| places.takes == Takes::Everyone);
            let other = others.find(|(_, waiter)| !waiter.tried.contains(&life));
            let other = other.map(|(ticket, _)| *ticket);
            let to = match (bound, other) {
                (Some(bound), other) if other.is_none_or(|other| bound < other) => {
                    places.bound.remove(&bound)
                }
                (_, Some(other)) => self.common.remove(&other).map(|waiter| waiter.call),
                (_, None) => None,
            };
            let Some(to) = to else {
                break;
            };
            places.taken += 1;
            let place = Some((life, places.server.clone()));
            calls.push(Call { to, place });
        }
        if places.takes == Takes::Everyone && places.has_room() {
            self.free.insert(life);
        } else {
            self.free.remove(&life);
        }
    }
}

fn choose_again<S, W>(to: W) -> Call<S, W> {
    Call { to, place: None }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const A: Life = Life(1);
    const B: Life = Life(2);

    type Line = Queue<(), u32>;

    fn limit(places: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(places)
    }

    /// One server with so many places, at most `most` waiting.
    fn one(places: u32, most: usize) -> Line {
        let mut line = Line::new(most);
        assert!(
            line.describe(A, (), limit(places), Takes::Everyone)
                .is_empty()
        );
        line
    }

    /// Who was called, and where to; `None` is to choose again.
    fn called(calls: Vec<Call<(), u32>>) -> Vec<(u32, Option<Life>)> {
        let call = |call: Call<(), u32>| (call.to, call.place.map(|(life, ())| life));
        calls.into_iter().map(call).collect()
    }

    fn ask(line: &mut Line, who: u32) -> Seat<()> {
        line.anywhere(None, &[], None, || who)
    }

    fn ask_bound(line: &mut Line, who: u32) -> Seat<()> {
        line.bound(A, None, || who)
    }

    #[test]
    fn places_go_to_those_who_have_waited_longest_whichever_queue_they_wait_in() {
        let mut line = one(1, 9);
        assert_eq!(ask(&mut line, 0), Seat::Taken(A, ()));
        assert_eq!(ask_bound(&mut line, 1), Seat::Waits(Ticket(0), 0));
        assert_eq!(ask(&mut line, 2), Seat::Waits(Ticket(1), 0));
        assert_eq!(ask(&mut line, 3), Seat::Waits(Ticket(2), 1));
        assert_eq!(ask_bound(&mut line, 4), Seat::Waits(Ticket(3), 1));
        let order: Vec<_> = (0..5).flat_map(|_| called(line.release(A))).collect();
        assert_eq!(order, [1, 2, 3, 4].map(|who| (who, Some(A))));
    }

    #[test]
    fn a_server_that_joins_takes_from_the_queue_and_no_more_than_it_has_places() {
        let mut line = one(1, 9);
        for who in 0..5 {
            ask(&mut line, who);
        }
        let calls = line.describe(B, (), limit(2), Takes::Everyone);
        assert_eq!(called(calls), [(1, Some(B)), (2, Some(B))]);
        let calls = line.describe(B, (), None, Takes::Everyone);
        assert_eq!(called(calls), [(3, Some(B)), (4, Some(B))]);
    }

    #[test]
    fn a_full_queue_takes_nobody_but_those_who_have_waited_before() {
        let mut line = one(1, 1);
        line.describe(B, (), limit(1), Takes::ItsUsers);
        assert_eq!(ask(&mut line, 0), Seat::Taken(A, ()));
        assert_eq!(ask(&mut line, 1), Seat::Waits(Ticket(0), 0));
        assert_eq!(ask(&mut line, 2), Seat::Full);
        assert_eq!(line.bound(B, None, || 3), Seat::Taken(B, ()));
        assert_eq!(line.bound(B, None, || 4), Seat::Waits(Ticket(1), 0));
        assert_eq!(line.bound(B, None, || 5), Seat::Full);
        assert_eq!(called(line.remove(B)), [(4, None)]);
        let again = line.anywhere(None, &[], Some(Ticket(1)), || 4);
        assert_eq!(again, Seat::Waits(Ticket(1), 1));
        line.leave(Ticket(0), None);
        assert_eq!(called(line.release(A)), [(4, Some(A))]);
    }

    #[test]
    fn a_server_that_drains_keeps_those_who_are_bound_to_it_and_takes_no_others() {
        let mut line = one(1, 9);
        assert_eq!(ask(&mut line, 0), Seat::Taken(A, ()));
        assert!(matches!(ask(&mut line, 1), Seat::Waits(..)));
        assert!(matches!(ask_bound(&mut line, 2), Seat::Waits(..)));
        assert!(line.describe(A, (), limit(1), Takes::ItsUsers).is_empty());
        assert_eq!(called(line.settle()), [(1, None)]);
        assert_eq!(called(line.release(A)), [(2, Some(A))]);
        assert_eq!(ask(&mut line, 3), Seat::Gone);
    }

    #[test]
    fn a_server_that_goes_down_sends_its_own_away() {
        let mut line = one(1, 9);
        line.describe(B, (), limit(1), Takes::Everyone);
        assert_eq!(ask_bound(&mut line, 0), Seat::Taken(A, ()));
        assert!(matches!(ask_bound(&mut line, 1), Seat::Waits(..)));
        let calls = line.describe(A, (), limit(1), Takes::Nobody);
        assert_eq!(called(calls), [(1, None)]);
        assert_eq!(ask_bound(&mut line, 1), Seat::Gone);
        assert_eq!(ask(&mut line, 1), Seat::Taken(B, ()));
        // What it had counts when it is back.
        line.describe(A, (), limit(1), Takes::Everyone);
        assert!(matches!(ask(&mut line, 2), Seat::Waits(..)));
        assert_eq!(called(line.release(A)), [(2, Some(A))]);
    }

    #[test]
    fn nobody_is_sent_back_to_a_server_that_failed_it() {
        let mut line = one(1, 9);
        line.describe(B, (), limit(1), Takes::Everyone);
        assert_eq!(ask(&mut line, 0), Seat::Taken(A, ()));
        assert_eq!(line.anywhere(Some(B), &[A], None, || 1), Seat::Taken(B, ()));
        assert!(matches!(
            line.anywhere(None, &[A], None, || 2),
            Seat::Waits(..)
        ));
        assert!(matches!(ask(&mut line, 3), Seat::Waits(..)));
        assert_eq!(called(line.release(A)), [(3, Some(A))]);
        assert_eq!(line.anywhere(None, &[A, B], None, || 4), Seat::Gone);
        line.remove(B);
        assert_eq!(called(line.settle()), [(2, None)]);
    }

    #[test]
    fn fewer_places_are_waited_for_and_more_are_filled_at_once() {
        let mut line = one(3, 9);
        for who in 0..5 {
            ask(&mut line, who);
        }
        assert!(line.describe(A, (), limit(1), Takes::Everyone).is_empty());
        assert!(line.release(A).is_empty() && line.release(A).is_empty());
        let calls = line.describe(A, (), limit(2), Takes::Everyone);
        assert_eq!(called(calls), [(3, Some(A))]);
        assert_eq!(called(line.release(A)), [(4, Some(A))]);
    }

    /// What the test knows of one request.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Request {
        Waits(Ticket, Option<Life>, Vec<Life>),
        Has(Life),
        Over,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Ask { bound: Option<u64>, tried: Vec<u64> },
        Finish(prop::sample::Index),
        GiveUp(prop::sample::Index),
        Describe(u64, Option<u32>, u8),
        Remove(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let life = || 1u64..4;
        let tried = proptest::collection::vec(1u64..4, 0..2);
        prop_oneof![
            4 => (proptest::option::of(life()), tried)
                .prop_map(|(bound, tried)| Step::Ask { bound, tried }),
            4 => any::<prop::sample::Index>().prop_map(Step::Finish),
            1 => any::<prop::sample::Index>().prop_map(Step::GiveUp),
            1 => (life(), proptest::option::weighted(0.9, 1u32..4), 0u8..3)
                .prop_map(|(life, limit, takes)| Step::Describe(life, limit, takes)),
            1 => life().prop_map(Step::Remove),
        ]
    }

    /// A pool as the test knows it, beside the queue.
    struct Model {
        line: Line,
        servers: BTreeMap<Life, (Option<u32>, Takes, u32)>,
        requests: Vec<Request>,
        /// Calls of those who gave up meanwhile must not be made.
        again: VecDeque<u32>,
    }

    const MOST: usize = 4;

    impl Model {
        fn seated(&mut self, who: u32, seat: Seat<()>, bound: Option<Life>, tried: &[Life]) {
            self.requests[who as usize] = match seat {
                Seat::Taken(life, ()) => {
                    self.count(life);
                    Request::Has(life)
                }
                Seat::Waits(ticket, _) => Request::Waits(ticket, bound, tried.to_vec()),
                Seat::Full | Seat::Gone => Request::Over,
            };
        }

        fn count(&mut self, life: Life) {
            let (limit, takes, taken) = self.servers.get_mut(&life).unwrap();
            assert_ne!(*takes, Takes::Nobody);
            assert!(
                limit.is_none_or(|limit| *taken < limit),
                "more than maxconn"
            );
            *taken += 1;
        }

        /// The tickets of those who may have a place at the server.
        fn may_have(&self, life: Life) -> impl Iterator<Item = Ticket> {
            let takes_all = self.servers[&life].1 == Takes::Everyone;
            self.requests
                .iter()
                .filter_map(move |request| match request {
                    Request::Waits(ticket, Some(bound), _) => (*bound == life).then_some(*ticket),
                    Request::Waits(ticket, None, tried) => {
                        (takes_all && !tried.contains(&life)).then_some(*ticket)
                    }
                    _ => None,
                })
        }

        fn called(&mut self, calls: Vec<Call<(), u32>>) {
            for call in calls {
                let Request::Waits(ticket, ..) = self.requests[call.to as usize].clone() else {
                    panic!("{} does not wait", call.to);
                };
                if let Some((life, ())) = call.place {
                    let first = self.may_have(life).min();
                    assert_eq!(first, Some(ticket), "somebody has waited longer");
                    self.count(life);
                    self.requests[call.to as usize] = Request::Has(life);
                } else {
                    self.again.push_back(call.to);
                }
            }
        }

        /// Those who were told to choose again do so, and keep their turn.
        fn choose_again(&mut self) {
            while let Some(who) = self.again.pop_front() {
                let Request::Waits(ticket, ..) = self.requests[who as usize] else {
                    continue;
                };
                let seat = self.line.anywhere(None, &[], Some(ticket), || who);
                assert_ne!(seat, Seat::Full);
                self.seated(who, seat, None, &[]);
            }
        }

        fn step(&mut self, step: &Step) {
            match step {
                Step::Ask { bound, tried } => {
                    let who = self.requests.len() as u32;
                    self.requests.push(Request::Over);
                    let bound = bound.map(Life);
                    let tried: Vec<Life> = tried.iter().copied().map(Life).collect();
                    let seat = match bound {
                        Some(life) => self.line.bound(life, None, || who),
                        None => self.line.anywhere(None, &tried, None, || who),
                    };
                    self.seated(who, seat, bound, &tried);
                }
                Step::Finish(which) => {
                    self.finish(|request| matches!(request, Request::Has(_)), *which);
                }
                Step::GiveUp(which) => {
                    self.finish(|request| matches!(request, Request::Waits(..)), *which);
                }
                Step::Describe(life, places, takes) => {
                    let takes =
                        [Takes::Everyone, Takes::ItsUsers, Takes::Nobody][usize::from(*takes)];
                    let life = Life(*life);
                    let taken = self.servers.get(&life).map_or(0, |server| server.2);
                    self.servers.insert(life, (*places, takes, taken));
                    let calls = self.line.describe(life, (), places.and_then(limit), takes);
                    self.called(calls);
                }
                Step::Remove(life) => {
                    let life = Life(*life);
                    let calls = self.line.remove(life);
                    self.called(calls);
                    self.servers.remove(&life);
                    for request in &mut self.requests {
                        if *request == Request::Has(life) {
                            *request = Request::Over;
                        }
                    }
                }
            }
            let calls = self.line.settle();
            self.called(calls);
            self.choose_again();
        }

        fn finish(&mut self, is_one: fn(&Request) -> bool, which: prop::sample::Index) {
            let all: Vec<usize> = (0..self.requests.len())
                .filter(|i| is_one(&self.requests[*i]))
                .collect();
            if all.is_empty() {
                return;
            }
            let request = &mut self.requests[all[which.index(all.len())]];
            match std::mem::replace(request, Request::Over) {
                Request::Has(life) => {
                    self.servers.get_mut(&life).unwrap().2 -= 1;
                    let calls = self.line.release(life);
                    self.called(calls);
                }
                Request::Waits(ticket, bound, _) => self.line.leave(ticket, bound),
                Request::Over => {}
            }
        }

        /// Nobody waits who may have a place that is free, nor for what will
        /// never be.
        fn check(&self) {
            for (life, (limit, takes, taken)) in &self.servers {
                let free = limit.is_none_or(|limit| *taken < limit) && *takes != Takes::Nobody;
                assert!(
                    !free || self.may_have(*life).next().is_none(),
                    "{life:?} is free"
                );
            }
            for request in &self.requests {
                if let Request::Waits(_, bound, tried) = request {
                    let serves = |life: &Life, takes: Takes| match bound {
                        Some(bound) => bound == life && takes != Takes::Nobody,
                        None => takes == Takes::Everyone && !tried.contains(life),
                    };
                    let hope = self
                        .servers
                        .iter()
                        .any(|(life, server)| serves(life, server.1));
                    assert!(hope, "{request:?} waits for nothing");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn never_more_than_maxconn_in_turn_and_nobody_forgotten(
            steps in proptest::collection::vec(step(), 1..200)
        ) {
            let mut model = Model {
                line: Line::new(MOST),
                servers: BTreeMap::new(),
                requests: Vec::new(),
                again: VecDeque::new(),
            };
            for life in 1..3 {
                model.step(&Step::Describe(life, Some(2), 0));
            }
            for step in &steps {
                model.step(step);
                model.check();
            }
            // Once all servers are there and requests end, the last one waits
            // no more.
            for life in 1..4 {
                model.step(&Step::Describe(life, Some(1), 0));
            }
            for _ in 0..model.requests.len() {
                model.finish(|request| matches!(request, Request::Has(_)), any_index());
                model.check();
            }
            let waits = |request: &&Request| matches!(request, Request::Waits(..));
            prop_assert_eq!(model.requests.iter().find(waits), None);
        }
    }

    fn any_index() -> prop::sample::Index {
        use proptest::{strategy::ValueTree, test_runner::TestRunner};
        let mut runner = TestRunner::deterministic();
        any::<prop::sample::Index>()
            .new_tree(&mut runner)
            .unwrap()
            .current()
    }
}
