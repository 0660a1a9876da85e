//! What the statistics read: handles to live figures and facts that hold for
//! the life of the process.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::history::{self, History};
use crate::{
    admin::Declare,
    counters::{Counter, Totals, unix_seconds},
    membership::{MemberState, MemberView, Name, Role},
    pool::Reader,
    proxy::Admission,
};

/// Everything that the surfaces read from.
pub struct Source {
    /// The servers.
    pub pool: Reader,
    /// Figures of the frontend and of the backend.
    pub totals: Arc<Totals>,
    /// The backend's name.
    pub service: Name,
    /// The balancing algorithm, in `HAProxy`'s word for it.
    pub balance: &'static str,
    /// The sticky cookie's name, where there is one.
    pub cookie: Option<String>,
    /// Client connections that there may be.
    pub admission: Arc<Admission>,
    /// Requests that wait in a queue, at the most.
    pub maxqueue: u32,
    /// Facts of the process.
    pub process: Process,
    /// Lists the members that gossip knows.
    pub members: Members,
    /// Figures of other parts, such as gossip's; only `/metrics` prints them.
    pub figures: Vec<Figure>,
    /// More of them, which come and go, such as one for each certificate.
    pub figures_of_the_moment: Vec<FiguresNow>,
    /// Whether gossip is encrypted and authenticated.
    pub gossip_keyed: bool,
    /// The last minutes of every row.
    pub history: History,
    /// Access log lines that were dropped because nobody took them.
    pub log_lines_dropped: Arc<Counter>,
    /// Set once the process takes no new connections.
    pub draining: Arc<AtomicBool>,
    /// Whether client connections are accepted, as far as operators want that.
    pub accepts: Accepts,
    /// Records what an operator wants; `None` where the page only shows.
    pub declare: Option<Declare>,
    /// User and password, where the page asks for them.
    pub auth: Option<(String, String)>,
}

impl Source {
    /// Whether the process takes no new connections any more.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// The other balancers in the cluster in a state that `is_meant`.
    pub fn peers(&self, is_meant: fn(MemberState) -> bool) -> usize {
        let members = (self.members)();
        let peers = members.iter().filter(|member| {
            let role = member.meta.as_ref().map(|meta| &meta.role);
            !member.local && role == Some(&Role::Balancer) && is_meant(member.state)
        });
        peers.count()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password has no place in a log.
        f.debug_struct("Source")
            .field("service", &self.service)
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

/// Whether client connections are accepted.
pub type Accepts = Box<dyn Fn() -> bool + Send + Sync>;

/// Lists the members that gossip knows now.
pub type Members = Box<dyn Fn() -> Arc<Vec<MemberView>> + Send + Sync>;

/// Facts of the process.
#[derive(Debug, Clone)]
pub struct Process {
    /// The program's version.
    pub version: &'static str,
    /// The node's name.
    pub node: String,
    /// The process id.
    pub pid: u32,
    /// Worker threads that serve traffic.
    pub workers: usize,
    /// File descriptors it may have, where there is a limit.
    pub max_descriptors: Option<u64>,
    /// When it started.
    pub started: Instant,
    /// The same moment on the wall clock, in Unix seconds.
    pub started_unix: i64,
    /// Where it takes traffic.
    pub http: Vec<SocketAddr>,
    /// Addresses that it listens on, for whatever.
    pub listeners: usize,
}

/// Lists the figures that there are now.
pub type FiguresNow = Box<dyn Fn() -> Vec<Figure> + Send + Sync>;

/// A figure that another part of the process counts.
pub struct Figure {
    /// The metric's whole name, such as `tidings_gossip_packets_received_total`.
    pub name: &'static str,
    /// One line on what it says.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: FigureKind,
    /// Tell it apart from others of the same name, which must stand beside it
    /// in the list.
    pub labels: Vec<(&'static str, String)>,
    /// Reads it.
    pub read: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figure")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

/// What kind of figure one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FigureKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// Closes a second of every rate, once a second, and a period of the history,
/// once a period, for ever.
pub async fn sample(source: Arc<Source>) {
    let mut seconds = interval(Duration::from_secs(1));
    // After a stall, one long second: several at once would show as zero.
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for second in 0u64.. {
        seconds.tick().await;
        let (now, pool) = (unix_seconds(), source.pool.load());
        source.totals.sample(now);
        for server in &pool.servers {
            server.live.counters.sample(now);
        }
        if second % u64::from(history::PERIOD) == 0 {
            source.history.sample(&source.totals, &pool);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{counters::Slot, stats::fixture};

    #[tokio::test(start_paused = true)]
    async fn rates_are_those_of_the_last_second() {
        let source = fixture::source();
        let server = Arc::clone(source.pool.load().by_name("s1").unwrap());
        let tally = server.live.counters.of(Slot::new(0));
        let sampler = tokio::spawn(sample(Arc::clone(&source)));
        tokio::time::sleep(Duration::from_millis(500)).await;
        tally.traffic.requests.add(7);
        source.totals.frontend.connections_total.inc();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(server.live.counters.request_rate.get(), 7);
        assert_eq!(source.totals.frontend.connection_rate.get(), 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(server.live.counters.request_rate.get(), 0);
        sampler.abort();
    }
}
