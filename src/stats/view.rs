//! The rows of the statistics: one for the frontend, one for each server and
//! one for the backend. Each figure is a typed field that every surface
//! prints; `None` is what has no meaning for the row, or is not measured.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::source::Source;
use crate::{
    counters::{
        ByClass, Distribution, Gauge, OwnCounter, Rate, Timing, TotalTally, Totals, Traffic,
        unix_seconds,
    },
    pool::{
        Server, Snapshot, Status,
        server::{Cause, CheckReport, Origin},
    },
    proxy::IDLE_PER_SERVER,
};

/// The frontend's name, which scripts and dashboards know.
pub const FRONTEND: &str = "localnodes";

/// The frontend's number; 1 and 2 are what `HAProxy` keeps for itself and for
/// its statistics.
const FRONTEND_ID: u32 = 3;

/// The backend's number.
pub(super) const BACKEND_ID: u32 = 4;

/// All rows at one moment.
#[derive(Debug)]
pub struct Rows {
    /// What came in from clients.
    pub frontend: StatRow,
    /// The servers, in the order of names.
    pub servers: Vec<StatRow>,
    /// What was to be given to servers.
    pub backend: StatRow,
    /// What the traffic stands on.
    pub footing: Footing,
    /// The number of the snapshot they come from.
    pub generation: u64,
}

impl Rows {
    /// Every row, in `HAProxy`'s order.
    pub fn iter(&self) -> impl Iterator<Item = &StatRow> {
        std::iter::once(&self.frontend)
            .chain(&self.servers)
            .chain(std::iter::once(&self.backend))
    }

    /// Leaves out the servers in a status that is to be hidden; the backend
    /// then says how many of how many are up, as `HAProxy`'s does.
    pub fn hide(&mut self, is_hidden: impl Fn(RowStatus) -> bool) {
        let up = self.servers.iter().filter(|row| !row.status.is_out());
        self.backend.shown = Some((up.count(), self.servers.len()));
        self.servers.retain(|row| !is_hidden(row.status));
    }
}

/// What the traffic stands on: the best kind of server there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Footing {
    /// At least one server is up.
    Firm,
    /// No server is up; those that gossip suspects take the traffic.
    Suspected,
    /// Those that are well have crashed too often of late; they take the
    /// traffic all the same.
    KeptOut,
    /// Gossip has lost every server; they take the traffic all the same.
    Lost,
    /// There are servers, and none can take traffic.
    Nobody,
    /// There is no server.
    Empty,
}

impl Footing {
    fn of(snapshot: &Snapshot) -> Self {
        let has = |status| {
            let usable = |s: &Server| s.addr.is_some() && s.weight > 0 && s.status == status;
            snapshot.servers.iter().any(|server| usable(server))
        };
        match () {
            () if snapshot.servers.is_empty() => Self::Empty,
            () if !snapshot.can_serve() => Self::Nobody,
            () if has(Status::Up) => Self::Firm,
            () if has(Status::Suspect) => Self::Suspected,
            () if has(Status::Down(Cause::Quarantine)) => Self::KeptOut,
            () => Self::Lost,
        }
    }

    /// Whether a request finds a server.
    pub fn serves(self) -> bool {
        !matches!(self, Self::Nobody | Self::Empty)
    }

    /// What an operator should know, if anything.
    pub fn warning(self) -> Option<&'static str> {
        match self {
            Self::Firm => None,
            Self::Suspected => Some(
                "No server is surely up: gossip suspects every one that could take traffic, \
                 so the suspected ones take it.",
            ),
            Self::KeptOut => Some(
                "No server is up: those that are well have crashed too often and were to be kept \
                 out for a while, but there is nobody else to take the traffic.",
            ),
            Self::Lost => Some(
                "Gossip has lost every server. Traffic still goes to those that accept \
                 connections: this node may be the one that is cut off.",
            ),
            Self::Nobody => Some("No server can take traffic: every request gets a 503."),
            Self::Empty => Some("There are no servers: every request gets a 503."),
        }
    }
}

/// What a row is about; the numbers are CSV's `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What clients connect to.
    Frontend = 0,
    /// All servers together.
    Backend = 1,
    /// One server.
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
    fn of(totals: &Totals) -> Self {
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

/// One row.
#[derive(Debug, Clone)]
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
    fn of(traffic: &[&Traffic], read: fn(&Traffic) -> &Timing) -> Option<Self> {
        let (average, max) = Timing::over(traffic.iter().copied().map(read))?;
        Some(Self { average, max })
    }
}

/// How a row is doing, in `HAProxy`'s terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowStatus {
    /// The frontend accepts connections.
    Open,
    /// The frontend accepts no more.
    Stop,
    /// Up.
    Up,
    /// Up, but gossip suspects it.
    Suspect,
    /// Up, with `n` failed checks to go of `fall`.
    GoingDown(u16, u16),
    /// Down.
    Down,
    /// Down by its agent's word.
    DownByAgent,
    /// Down, with `n` good checks of `rise`.
    GoingUp(u16, u16),
    /// Keeps its users and takes no new ones.
    Drain,
    /// Taken out by an operator.
    Maint,
    /// In use, and nobody checks it.
    NoCheck,
}

impl RowStatus {
    fn of(server: &Server) -> Self {
        let progress = server.health.and_then(|health| health.progress());
        let failing = server.health.is_some_and(|health| !health.is_up());
        let unwatched = server.origin == Origin::Static && server.health.is_none();
        match (server.status, progress) {
            (Status::Drain, _) => Self::Drain,
            (Status::Suspect, _) => Self::Suspect,
            (Status::Up, Some((n, fall))) => Self::GoingDown(n, fall),
            (Status::Up, None) if unwatched => Self::NoCheck,
            (Status::Up, None) => Self::Up,
            (Status::Down(Cause::Agent), _) => Self::DownByAgent,
            (Status::Down(_), Some((n, rise))) if failing => Self::GoingUp(n, rise),
            (Status::Down(_), _) => Self::Down,
            (Status::Maint, _) => Self::Maint,
        }
    }

    /// Whether it takes no request for want of health.
    pub fn is_down(self) -> bool {
        matches!(self, Self::Down | Self::DownByAgent | Self::GoingUp(..))
    }

    /// Whether it takes no request, by fault or by an operator's wish.
    pub fn is_out(self) -> bool {
        self.is_down() || self == Self::Maint
    }

    /// Whether it only keeps the users it has.
    pub fn is_draining(self) -> bool {
        self == Self::Drain
    }

    /// Whether an operator has taken it out.
    pub fn is_maintenance(self) -> bool {
        self == Self::Maint
    }
}

impl fmt::Display for RowStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("OPEN"),
            Self::Stop => f.write_str("STOP"),
            Self::Up | Self::Suspect => f.write_str("UP"),
            Self::GoingDown(n, fall) => write!(f, "UP {n}/{fall}"),
            Self::Down => f.write_str("DOWN"),
            Self::DownByAgent => f.write_str("DOWN (agent)"),
            Self::GoingUp(n, rise) => write!(f, "DOWN {n}/{rise}"),
            Self::Drain => f.write_str("DRAIN"),
            Self::Maint => f.write_str("MAINT"),
            Self::NoCheck => f.write_str("no check"),
        }
    }
}

/// Reads every row as it is `now`.
pub fn rows(source: &Source, now: Instant) -> Rows {
    let snapshot = source.pool.load();
    let servers: Vec<StatRow> = snapshot
        .servers
        .iter()
        .map(|server| server_row(source, server, now))
        .collect();
    let footing = Footing::of(&snapshot);
    Rows {
        frontend: frontend_row(source),
        backend: backend_row(source, &snapshot, footing, now),
        servers,
        footing,
        generation: snapshot.generation,
    }
}

fn frontend_row(source: &Source) -> StatRow {
    let totals = &source.totals;
    let counters = &totals.frontend;
    let status = if source.is_draining() || !(source.accepts)() {
        RowStatus::Stop
    } else {
        RowStatus::Open
    };
    let mut responses = totals.responses();
    for (all, unread) in responses.iter_mut().zip(totals.unread()) {
        *all += unread;
    }
    let errors = totals.tallies().map(|tally| tally.request_errors.get());
    StatRow {
        kind: Kind::Frontend,
        proxy: FRONTEND.into(),
        name: "FRONTEND".into(),
        proxy_id: FRONTEND_ID,
        // To a frontend a session is a connection, which carries many requests.
        sessions: (&counters.connections).into(),
        sessions_limit: source.admission.of_frontend(),
        sessions_total: counters.connections_total.get(),
        session_rate: (&counters.connection_rate).into(),
        connections: Some(Connections {
            rate: (&counters.connection_rate).into(),
            total: counters.connections_total.get(),
            http2: totals.tallies().map(|t| t.http2_connections.get()).sum(),
            http2_requests: totals.tallies().map(|t| t.http2_requests.get()).sum(),
        }),
        request_rate: Some((&totals.request_rate).into()),
        responses,
        denied_requests: Some(totals.tallies().map(|tally| tally.denied.get()).sum()),
        request_errors: Some(errors.sum()),
        denied_connections: Some(counters.denied_connections.get()),
        compressed: Some(Compressed::of(totals)),
        ..common(&traffic_of_all(source), status)
    }
}

fn traffic_of_all(source: &Source) -> Vec<&Traffic> {
    let tallies = source.totals.tallies();
    tallies.map(|tally| &tally.traffic).collect()
}

fn backend_row(source: &Source, snapshot: &Snapshot, footing: Footing, now: Instant) -> StatRow {
    let standing = snapshot.standing;
    let totals = &source.totals;
    let status = if footing.serves() {
        RowStatus::Up
    } else {
        RowStatus::Down
    };
    let active = || {
        let takes_traffic = |s: &&Arc<Server>| matches!(s.status, Status::Up | Status::Suspect);
        let usable = |s: &&Arc<Server>| s.addr.is_some() && s.weight > 0;
        let servers = snapshot.servers.iter();
        servers.filter(takes_traffic).filter(usable)
    };
    StatRow {
        kind: Kind::Backend,
        proxy: source.service.to_string(),
        name: "BACKEND".into(),
        proxy_id: BACKEND_ID,
        reason: footing.warning().map(|_| footing_in_words(footing).into()),
        algorithm: Some(source.balance),
        cookie: source.cookie.clone(),
        weight: Some(active().map(|server| u32::from(server.weight)).sum()),
        effective_weight: Some(active().map(|server| effective_weight(server)).sum()),
        active: Some(active().count() as u32),
        since: standing.map(|standing| now.saturating_duration_since(standing.since)),
        downs: standing.map(|standing| standing.downs),
        downtime: standing.map(|standing| standing.downtime(now)),
        queue: Some((&totals.backend.waiting).into()),
        // What is refused does not come so far.
        denied_requests: Some(0),
        compressed: Some(Compressed::of(totals)),
        rebinds: Some(totals.tallies().map(|tally| tally.rebinds.get()).sum()),
        sessions: (&totals.backend.active).into(),
        session_rate: (&totals.request_rate).into(),
        last_request: last_request(&totals.request_rate, totals.requests()),
        responses: totals.responses(),
        ..upstream(&traffic_of_all(source), status)
    }
}

fn footing_in_words(footing: Footing) -> &'static str {
    match footing {
        Footing::Firm => "a server is up",
        Footing::Suspected => "every server is suspected by gossip",
        Footing::KeptOut => "every server that is well has crashed too often",
        Footing::Lost => "every server is lost to gossip",
        Footing::Nobody => "no server can take traffic",
        Footing::Empty => "there are no servers",
    }
}

fn server_row(source: &Source, server: &Arc<Server>, now: Instant) -> StatRow {
    let counters = &server.live.counters;
    let traffic: Vec<&Traffic> = counters.tallies().map(|tally| &tally.traffic).collect();
    let latency = counters.responses();
    StatRow {
        kind: Kind::Server,
        proxy: source.service.to_string(),
        name: server.name.to_string(),
        proxy_id: BACKEND_ID,
        server_id: server.sid,
        reason: reason(server.status),
        since: Some(now.saturating_duration_since(server.since)),
        server: Some(Arc::clone(server)),
        cookie: source.cookie.as_ref().map(|_| server.name.to_string()),
        sessions: (&counters.active).into(),
        session_rate: (&counters.request_rate).into(),
        last_request: last_request(&counters.request_rate, counters.requests()),
        responses: latency.each_ref().map(Distribution::count),
        latency: Some(Box::new(latency)),
        queue: Some((&counters.waiting).into()),
        queue_limit: server.maxconn.map(|_| source.maxqueue),
        sessions_limit: server.maxconn.map(Into::into),
        observed_faults: Some(counters.tallies().map(|t| t.observed_faults.get()).sum()),
        needed_connections: Some(counters.needed.get()),
        idle_limit: Some((IDLE_PER_SERVER * source.process.workers) as u32),
        idle_connections: Some(counters.idle()),
        used_connections: Some(counters.used()),
        weight: Some(server.weight.into()),
        effective_weight: Some(effective_weight(server)),
        throttle: throttle(server),
        active: Some(1),
        failed_checks: server.health.map(|_| server.failed_checks),
        downs: Some(server.downs),
        downtime: Some(server.downtime(now)),
        ..upstream(&traffic, RowStatus::of(server))
    }
}

/// A server that takes no traffic is not being eased in, whatever it was
/// before.
fn throttle(server: &Server) -> Option<u8> {
    let takes_traffic = matches!(server.status, Status::Up | Status::Suspect);
    server.throttle.filter(|_| takes_traffic)
}

/// The weight after throttling, rounded up as `HAProxy` does: a server that
/// takes requests shows no zero.
fn effective_weight(server: &Server) -> u32 {
    let percent = u32::from(throttle(server).unwrap_or(100));
    (u32::from(server.weight) * percent).div_ceil(100)
}

/// Why a server is not simply up, in a few words without a comma.
pub(super) fn reason(status: Status) -> Option<String> {
    match status {
        Status::Up | Status::Drain | Status::Maint => None,
        Status::Suspect => Some("gossip suspects it".into()),
        // The log's wording has a comma and quotes, which a cell must not.
        Status::Down(Cause::Refused) => Some("connection refused".into()),
        Status::Down(cause) => Some(cause.to_string()),
    }
}

fn last_request(rate: &Rate, requests: u64) -> Option<u64> {
    rate.seconds_since_last(requests, unix_seconds())
}

/// What backends and servers have in common.
fn upstream(traffic: &[&Traffic], status: RowStatus) -> StatRow {
    let some = |read: fn(&Traffic) -> &OwnCounter| Some(sum(traffic, read));
    StatRow {
        balanced: some(|t| &t.balanced),
        connect_errors: some(|t| &t.connect_errors),
        response_errors: some(|t| &t.response_errors),
        retries: some(|t| &t.retries),
        redispatches: some(|t| &t.redispatches),
        rescues: some(|t| &t.rescues),
        tunnels_closed: some(|t| &t.tunnels_closed),
        client_aborts: some(|t| &t.client_aborts),
        server_aborts: some(|t| &t.server_aborts),
        connects: some(|t| &t.connects),
        reuses: some(|t| &t.reuses),
        queue_time: Times::of(traffic, |t| &t.queue_time),
        connect_time: Times::of(traffic, |t| &t.connect_time),
        response_time: Times::of(traffic, |t| &t.response_time),
        total_time: Times::of(traffic, |t| &t.total_time),
        ..common(traffic, status)
    }
}

/// A figure over all workers.
fn sum(traffic: &[&Traffic], read: fn(&Traffic) -> &OwnCounter) -> u64 {
    traffic.iter().map(|own| read(own).get()).sum()
}

/// What all rows have in common, and nothing else filled in.
fn common(traffic: &[&Traffic], status: RowStatus) -> StatRow {
    let requests = sum(traffic, |t| &t.requests);
    StatRow {
        kind: Kind::Server,
        proxy: String::new(),
        name: String::new(),
        proxy_id: 0,
        server_id: 0,
        status,
        shown: None,
        reason: None,
        since: None,
        server: None,
        algorithm: None,
        cookie: None,
        sessions: Level::default(),
        sessions_limit: None,
        sessions_total: requests,
        session_rate: Level::default(),
        connections: None,
        request_rate: None,
        requests,
        balanced: None,
        last_request: None,
        bytes_in: sum(traffic, |t| &t.bytes_in),
        bytes_out: sum(traffic, |t| &t.bytes_out),
        bytes_to_servers: sum(traffic, |t| &t.bytes_to_servers),
        bytes_from_servers: sum(traffic, |t| &t.bytes_from_servers),
        internal_errors: sum(traffic, |t| &t.internal_errors),
        responses: ByClass::default(),
        latency: None,
        queue: None,
        queue_limit: None,
        denied_connections: None,
        compressed: None,
        denied_requests: None,
        request_errors: None,
        connect_errors: None,
        response_errors: None,
        retries: None,
        redispatches: None,
        rescues: None,
        tunnels_closed: None,
        client_aborts: None,
        server_aborts: None,
        connects: None,
        reuses: None,
        observed_faults: None,
        rebinds: None,
        idle_connections: None,
        used_connections: None,
        needed_connections: None,
        idle_limit: None,
        queue_time: None,
        connect_time: None,
        response_time: None,
        total_time: None,
        weight: None,
        effective_weight: None,
        throttle: None,
        active: None,
        failed_checks: None,
        downs: None,
        downtime: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture;

    #[test]
    fn a_pool_that_stands_on_quarantined_servers_says_so_and_serves() {
        let rows = rows(&fixture::kept_out(), Instant::now());
        assert_eq!(rows.footing, Footing::KeptOut);
        assert_eq!(rows.backend.status, RowStatus::Up);
        let reason = "every server that is well has crashed too often";
        assert_eq!(rows.backend.reason.as_deref(), Some(reason));
    }
}
