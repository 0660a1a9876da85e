//! One row, and what its figures are made of.

use std::{sync::Arc, time::Duration};

use super::RowStatus;
use crate::{
    counters::{
        ByClass, Distribution, Gauge, OwnCounter, Rate, Timing, TotalTally, Totals, Traffic,
    },
    pool::{Server, server::CheckReport},
};

/// What a row is about; the numbers are CSV's `type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// What clients connect to.
    Frontend = 0,
    /// All servers together.
    Backend = 1,
    /// One server.
    #[default]
    Server = 2,
}

/// Responses that were compressed.
#[derive(Debug, Clone, Copy)]
pub struct Compressed {
    /// How many.
    pub responses: u64,
    /// Bytes given to the compressor.
    pub bytes_in: u64,
    /// Bytes taken from it.
    pub bytes_out: u64,
}

impl Compressed {
    pub(super) fn of(totals: &Totals) -> Self {
        let sum = |which: fn(&TotalTally) -> &OwnCounter| {
            totals.tallies().map(|tally| which(tally).get()).sum()
        };
        Self {
            responses: sum(|tally| &tally.compressed),
            bytes_in: sum(|tally| &tally.compressed_in),
            bytes_out: sum(|tally| &tally.compressed_out),
        }
    }
}

/// One row. The default says nothing but zero of what every row has.
#[derive(Debug, Clone, Default)]
pub struct StatRow {
    /// What it is about.
    pub kind: Kind,
    /// The frontend's or the backend's name.
    pub proxy: String,
    /// `FRONTEND`, `BACKEND` or the server's name.
    pub name: String,
    /// The proxy's number.
    pub proxy_id: u32,
    /// The server's number, 0 for a proxy.
    pub server_id: u32,
    /// How it is doing.
    pub status: RowStatus,
    /// Servers that are up, of all: set where the others are hidden.
    pub shown: Option<(usize, usize)>,
    /// Why it is not simply up, in a few words without a comma.
    pub reason: Option<String>,
    /// Time in this status, roughly: one kind of down to another is no change.
    pub since: Option<Duration>,
    /// The server itself, for its description.
    pub server: Option<Arc<Server>>,
    /// The balancing algorithm (backends).
    pub algorithm: Option<&'static str>,
    /// The cookie's name (backends) or value (servers).
    pub cookie: Option<String>,

    /// Client connections (frontends) or requests being served.
    pub sessions: Level,
    /// The most sessions that are allowed.
    pub sessions_limit: Option<u32>,
    /// Sessions there ever were.
    pub sessions_total: u64,
    /// Sessions a second.
    pub session_rate: Level,
    /// Client connections (frontends).
    pub connections: Option<Connections>,
    /// Requests a second (frontends; elsewhere a session is a request).
    pub request_rate: Option<Level>,
    /// Requests there ever were.
    pub requests: u64,
    /// Requests that balancing, not a cookie, decided on.
    pub balanced: Option<u64>,
    /// Seconds since the last request.
    pub last_request: Option<u64>,
    /// Request bytes.
    pub bytes_in: u64,
    /// Response bytes.
    pub bytes_out: u64,
    /// Bytes of answered requests as sent to servers.
    pub bytes_to_servers: u64,
    /// Bytes of responses as received from servers.
    pub bytes_from_servers: u64,
    /// Responses by class: 1xx to 5xx, then everything else. Of a server, those
    /// that it gave; of a proxy, those that clients got, our own included.
    pub responses: ByClass<u64>,
    /// How long the heads of a server's responses took to come, from the
    /// request being sent, by class. The counts go back only when
    /// an operator clears them.
    pub latency: Option<Box<ByClass<Distribution>>>,

    /// Requests that wait: at a server those of its users, at a backend all
    /// others.
    pub queue: Option<Level>,
    /// Requests that may wait (servers that take only so many at a time).
    pub queue_limit: Option<u32>,
    /// Client connections that were closed at once, since their source had as
    /// many as it may (frontends).
    pub denied_connections: Option<u64>,
    /// What was compressed (frontends and backends).
    pub compressed: Option<Compressed>,
    /// Requests that were refused for what they asked for, or since their
    /// source asked too often, and would otherwise
    /// have come here.
    pub denied_requests: Option<u64>,
    /// Requests that could not be read.
    pub request_errors: Option<u64>,
    /// Connections to servers that failed by a fault of our own.
    pub internal_errors: u64,
    /// Connections that could not be made.
    pub connect_errors: Option<u64>,
    /// Responses that were broken off, malformed or never came.
    pub response_errors: Option<u64>,
    /// Attempts after the first.
    pub retries: Option<u64>,
    /// Retries that went to another server.
    pub redispatches: Option<u64>,
    /// Requests taken away from a server that was given up while they waited.
    pub rescues: Option<u64>,
    /// Tunnels closed because their server left.
    pub tunnels_closed: Option<u64>,
    /// Exchanges the client gave up on.
    pub client_aborts: Option<u64>,
    /// Exchanges the server broke off.
    pub server_aborts: Option<u64>,
    /// New connections made.
    pub connects: Option<u64>,
    /// Requests over connections that were already there.
    pub reuses: Option<u64>,
    /// Faults that requests met at a server and the pool was told of.
    pub observed_faults: Option<u64>,
    /// Sticky cookies that named a server that was down and were replaced
    /// (backends).
    pub rebinds: Option<u64>,
    /// Open connections without a request (servers).
    pub idle_connections: Option<u32>,
    /// Open connections with a request or a tunnel (servers).
    pub used_connections: Option<u32>,
    /// Connections that will probably be needed (servers).
    pub needed_connections: Option<u32>,
    /// Connections that may be open without a request (servers).
    pub idle_limit: Option<u32>,
    /// Time until there was a server to take the request.
    pub queue_time: Option<Times>,
    /// Time to connect.
    pub connect_time: Option<Times>,
    /// Time to the response's head.
    pub response_time: Option<Times>,
    /// Time to the response's last byte.
    pub total_time: Option<Times>,

    /// The share of the requests that is wanted; of a backend the sum over
    /// active servers.
    pub weight: Option<u32>,
    /// The share there is at present: less while a server is eased in.
    pub effective_weight: Option<u32>,
    /// How much of its share a server that is eased in gets, in percent.
    pub throttle: Option<u8>,
    /// Servers that can take traffic; 1 for a server.
    pub active: Option<u32>,
    /// Checks that failed while the server was up.
    pub failed_checks: Option<u64>,
    /// Times it went down.
    pub downs: Option<u64>,
    /// Time spent down.
    pub downtime: Option<Duration>,
}

impl StatRow {
    /// The status as `HAProxy` prints it.
    pub fn status_text(&self) -> String {
        match self.shown {
            Some((shown, all)) => format!("{} ({shown}/{all})", self.status),
            None => self.status.to_string(),
        }
    }

    /// How the last probe of the server ended.
    pub fn last_check(&self) -> Option<&CheckReport> {
        self.server.as_ref()?.last_check.as_ref()
    }
}

/// Something now, and the most it ever was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Level {
    /// Now.
    pub now: u32,
    /// The most.
    pub max: u32,
}

impl From<&Gauge> for Level {
    fn from(gauge: &Gauge) -> Self {
        let (now, max) = (gauge.get(), gauge.max());
        Self { now, max }
    }
}

impl From<&Rate> for Level {
    fn from(rate: &Rate) -> Self {
        let (now, max) = (rate.get(), rate.max());
        Self { now, max }
    }
}

/// A frontend's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Connections a second.
    pub rate: Level,
    /// Connections there ever were.
    pub total: u64,
    /// Those of them that spoke HTTP/2.
    pub http2: u64,
    /// Requests that came over those.
    pub http2_requests: u64,
}

/// A duration's average over the last 1,024 requests of each worker, and its
/// maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The average.
    pub average: Duration,
    /// The longest.
    pub max: Duration,
}

impl Times {
    /// `None` before the first entry: no time has been measured then.
    pub(super) fn of(traffic: &[&Traffic], read: fn(&Traffic) -> &Timing) -> Option<Self> {
        let (average, max) = Timing::over(traffic.iter().copied().map(read))?;
        Some(Self { average, max })
    }
}
