//! The rows of the statistics: one for the frontend, one for each server and
//! one for the backend. Each figure is a typed field that every surface
//! prints; `None` is what has no meaning for the row, or is not measured.

mod footing;
mod row;
mod status;

use std::sync::Arc;

use tokio::time::Instant;

use self::footing::footing_in_words;
pub use self::{
    footing::Footing,
    row::{Compressed, Connections, Kind, Level, StatRow, Times},
    status::RowStatus,
};
use super::source::Source;
use crate::{
    counters::{Distribution, OwnCounter, Rate, Traffic, unix_seconds},
    pool::{Server, Snapshot, Status, server::Cause},
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
        status,
        sessions_total: requests,
        requests,
        bytes_in: sum(traffic, |t| &t.bytes_in),
        bytes_out: sum(traffic, |t| &t.bytes_out),
        bytes_to_servers: sum(traffic, |t| &t.bytes_to_servers),
        bytes_from_servers: sum(traffic, |t| &t.bytes_from_servers),
        internal_errors: sum(traffic, |t| &t.internal_errors),
        ..StatRow::default()
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
