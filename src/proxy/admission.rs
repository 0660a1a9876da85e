//! How many client connections there may be, of all and of each source: one
//! count for all workers, which whoever accepts asks before it accepts.
//!
//! At the limit nobody accepts, and new connections wait in the backlog. A
//! worker takes a place for the moment in which it looks for a connection, and
//! gives it back if there is none, so no place is kept by one who has no use
//! for it.

use std::{
    fmt,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    pin::pin,
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::Poll,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use super::source::BySource;
use crate::{
    cidr::{Cidr, any_contains},
    counters::Totals,
    net,
};

/// The client connections that there are and may be.
#[derive(Debug)]
pub struct Admission {
    open: AtomicU32,
    /// Those who wait for a connection to end.
    waiting: AtomicU32,
    freed: Notify,
    /// What the descriptors suffice for.
    most: u32,
    /// What was asked for at the start.
    wanted: u32,
    /// `set maxconn global`.
    process: AtomicU32,
    /// `set maxconn frontend`.
    frontend: AtomicU32,
    per_source: Option<(NonZeroU32, BySource<u32>)>,
    /// Whose connections are those of many.
    proxies: Vec<Cidr>,
    totals: Arc<Totals>,
}

/// One connection in the count, for as long as this is there.
pub(super) struct Admitted {
    admission: Arc<Admission>,
    source: Option<IpAddr>,
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").finish_non_exhaustive()
    }
}

impl Admission {
    /// No connections yet. The descriptors suffice for `most` of them, `None`
    /// for any number; `maxconn` is how many are wanted, and `per_source` how
    /// many of one source. Connections that are denied are counted in `totals`.
    pub fn new(
        most: Option<u32>,
        maxconn: Option<NonZeroU32>,
        per_source: Option<NonZeroU32>,
        totals: Arc<Totals>,
    ) -> Self {
        let most = most.unwrap_or(u32::MAX);
        let wanted = maxconn.map_or(most, |wanted| wanted.get().min(most));
        Self {
            open: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            freed: Notify::new(),
            most,
            wanted,
            process: AtomicU32::new(wanted),
            frontend: AtomicU32::new(u32::MAX),
            per_source: per_source.map(|most| (most, BySource::default())),
            proxies: Vec::new(),
            totals,
        }
    }

    /// The limit of a source does not hold for these proxies, which connect
    /// for many.
    #[must_use]
    pub fn but_for(mut self, proxies: Vec<Cidr>) -> Self {
        self.proxies = proxies;
        self
    }

    /// Client connections of the whole process, `None` for any number.
    pub fn of_process(&self) -> Option<u32> {
        limit(self.process.load(Relaxed))
    }

    /// Those of the frontend: never more than of the process.
    pub fn of_frontend(&self) -> Option<u32> {
        limit(self.limit())
    }

    /// What the descriptors suffice for, `None` for any number.
    pub fn most(&self) -> Option<u32> {
        limit(self.most)
    }

    /// Changes how many the process may have; 0 is as many as at the start.
    /// Says whether the descriptors suffice.
    pub fn set_of_process(&self, wanted: u32) -> bool {
        let wanted = if wanted == 0 { self.wanted } else { wanted };
        self.set(&self.process, wanted)
    }

    /// Changes how many the frontend may have; 0 is as many as the process.
    /// Says whether the descriptors suffice.
    pub fn set_of_frontend(&self, wanted: u32) -> bool {
        let wanted = if wanted == 0 { self.most } else { wanted };
        self.set(&self.frontend, wanted)
    }

    fn set(&self, which: &AtomicU32, wanted: u32) -> bool {
        let suffices = wanted <= self.most;
        if suffices {
            which.store(wanted, SeqCst);
            self.freed.notify_waiters();
        }
        suffices
    }

    fn limit(&self) -> u32 {
        self.process.load(SeqCst).min(self.frontend.load(SeqCst))
    }

    /// Accepts the next connection that may come in.
    ///
    /// Cancel safe: no connection is lost.
    pub(super) async fn accept(
        self: &Arc<Self>,
        listener: &TcpListener,
    ) -> (TcpStream, SocketAddr, Admitted) {
        loop {
            let accepted = poll_fn(|cx| {
                let Some(place) = self.enter() else {
                    return Poll::Ready(None);
                };
                let accepted = listener.poll_accept(cx);
                accepted.map(|accepted| Some((accepted, place)))
            });
            match accepted.await {
                None => self.room().await,
                Some((Ok((socket, peer)), place)) => {
                    if let Some(place) = place.of_source(peer.ip()) {
                        return (socket, peer, place);
                    }
                }
                Some((Err(err), place)) => {
                    drop(place);
                    net::rest_after(&err).await;
                }
            }
        }
    }

    /// Accepts a connection that waits in the backlog, if there is one and it
    /// may come in.
    pub(super) fn accept_now(
        self: &Arc<Self>,
        listener: &std::net::TcpListener,
    ) -> Option<(std::net::TcpStream, SocketAddr, Admitted)> {
        loop {
            let place = self.enter()?;
            let (socket, peer) = net::accept_now(listener)?;
            if let Some(place) = place.of_source(peer.ip()) {
                return Some((socket, peer, place));
            }
        }
    }

    /// A place in the count, if there is one.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Admitted> {
        let limit = self.limit();
        let one_more = |open: u32| (open < limit).then(|| open + 1);
        self.open.fetch_update(SeqCst, SeqCst, one_more).ok()?;
        Some(Admitted {
            admission: Arc::clone(self),
            source: None,
        })
    }

    /// Waits until there may be a place. One is woken for each that is freed;
    /// it wakes the next if it finds no use for it.
    async fn room(&self) {
        let _counted = Waits::count(&self.waiting);
        let mut freed = pin!(self.freed.notified());
        freed.as_mut().enable();
        // Freed before it was listened for.
        if self.open.load(SeqCst) >= self.limit() {
            freed.await;
        }
    }
}

fn limit(limit: u32) -> Option<u32> {
    (limit < u32::MAX).then_some(limit)
}

impl Admitted {
    /// Counts it for its source; `None` if that has as many as it may.
    fn of_source(mut self, ip: IpAddr) -> Option<Self> {
        let Some((most, sources)) = &self.admission.per_source else {
            return Some(self);
        };
        if any_contains(&self.admission.proxies, ip) {
            return Some(self);
        }
        let source = net::source(ip);
        let has_room = {
            let mut shard = sources.of(source)?;
            let open = shard.entry(source).or_default();
            let has_room = *open < most.get();
            *open += u32::from(has_room);
            has_room
        };
        if !has_room {
            self.admission.totals.frontend.denied_connections.inc();
            return None;
        }
        self.source = Some(source);
        Some(self)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Admission {
            open,
            waiting,
            freed,
            per_source,
            ..
        } = &*self.admission;
        if let (Some(source), Some((_, sources))) = (self.source, per_source)
            && let Some(mut shard) = sources.of(source)
            && let Some(open) = shard.get_mut(&source)
        {
            *open -= 1;
            // There are as many entries as open connections, at the most.
            if *open == 0 {
                shard.remove(&source);
                let few = shard.len() * 4 < shard.capacity();
                if few {
                    let room = shard.len() * 2;
                    shard.shrink_to(room);
                }
            }
        }
        open.fetch_sub(1, SeqCst);
        if waiting.load(SeqCst) > 0 {
            freed.notify_one();
        }
    }
}

/// Counts one who waits, even if it gives up.
struct Waits<'a>(&'a AtomicU32);

impl<'a> Waits<'a> {
    fn count(waiting: &'a AtomicU32) -> Self {
        waiting.fetch_add(1, SeqCst);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(most: Option<u32>, maxconn: u32, per_source: u32) -> Arc<Admission> {
        let totals = Arc::default();
        let [maxconn, per_source] = [maxconn, per_source].map(NonZeroU32::new);
        Arc::new(Admission::new(most, maxconn, per_source, totals))
    }

    #[test]
    fn there_are_never_more_than_the_lowest_limit() {
        let admission = admission(Some(10), 3, 0);
        let all: Vec<_> = std::iter::from_fn(|| admission.enter()).collect();
        assert_eq!(all.len(), 3);
        assert!(admission.set_of_frontend(2) && admission.enter().is_none());
        assert_eq!(
            (admission.of_frontend(), admission.of_process()),
            (Some(2), Some(3))
        );
        drop(all);
        assert_eq!(count(&admission), 2);
        assert!(!admission.set_of_process(11), "beyond the descriptors");
        assert!(!admission.set_of_frontend(11));
        assert!(admission.set_of_process(0) && admission.set_of_frontend(0));
        assert_eq!(admission.of_frontend(), Some(3), "as at the start");
    }

    /// How many fit in together.
    fn count(admission: &Arc<Admission>) -> usize {
        let all: Vec<_> = std::iter::from_fn(|| admission.enter()).collect();
        all.len()
    }

    #[test]
    fn a_source_has_its_share_and_is_forgotten_with_its_last_connection() {
        let admission = admission(None, 0, 2);
        let from = |ip: &str| admission.enter().unwrap().of_source(ip.parse().unwrap());
        let first = from("10.0.0.1");
        let _second = from("10.0.0.1");
        assert!(from("10.0.0.1").is_none());
        assert!(from("10.0.0.2").is_some());
        assert_eq!(admission.totals.frontend.denied_connections.get(), 1);
        drop(first);
        assert!(from("10.0.0.1").is_some());
        let (_, sources) = admission.per_source.as_ref().unwrap();
        assert_eq!(sources.len(), 1);
        assert_eq!(admission.open.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn at_the_limit_connections_wait_and_come_in_as_others_end() {
        let admission = admission(None, 2, 0);
        // As two workers have them.
        let listeners = [
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        ];
        let [one, other] = listeners
            .each_ref()
            .map(|listener| listener.local_addr().unwrap());
        let mut clients = Vec::new();
        for addr in [one, one, other] {
            clients.push(TcpStream::connect(addr).await.unwrap());
        }
        let first = admission.accept(&listeners[0]).await;
        let _second = admission.accept(&listeners[0]).await;
        let idle = tokio::spawn({
            let admission = Arc::clone(&admission);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            async move { drop(admission.accept(&listener).await) }
        });
        tokio::task::yield_now().await;
        let mut third = pin!(admission.accept(&listeners[1]));
        let now = std::future::ready(());
        tokio::select! {
            biased;
            _ = &mut third => panic!("it is one too many"),
            () = now => {}
        }
        // The idle one is woken first, and wakes the other.
        drop(first);
        third.await;
        idle.abort();
    }
}
