//! `HAProxy`'s columns: one table that CSV, the typed form and its JSON print.

use std::{borrow::Cow, time::Duration};

use super::view::{Kind, StatRow, Times};
use crate::pool::{rise_fall::Health, server::CheckReport};

/// `HAProxy` numbers its processes; there is one here.
pub(super) const PROCESS: u32 = 1;

/// Every server is an active one.
const NO_BACKUPS: u32 = 0;

/// A value of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell<'a> {
    /// It has no meaning for this row, or nobody measures it.
    Empty,
    /// A figure.
    Number(u64),
    /// A figure that may be negative.
    Signed(i64),
    /// A text, not yet quoted.
    Text(Cow<'a, str>),
}

/// A column: its name; where its values come from, of what nature they are
/// and what they are about, in one letter each, and their type, both as
/// `HAProxy`'s typed form has them (management guide, 9.2); and how the value
/// is read from a row.
pub type Column = (
    &'static str,
    &'static str,
    &'static str,
    for<'a> fn(&'a StatRow) -> Cell<'a>,
);

/// The columns in `HAProxy` 3.5's order. Columns were only ever appended, so
/// a client that counts them in an older version finds the same ones.
#[rustfmt::skip]
pub const COLUMNS: &[Column] = &[
    ("pxname", "KNS", "str", |row| text(&row.proxy)),
    ("svname", "KNS", "str", |row| text(&row.name)),
    ("qcur", "MGP", "u32", |row| number(row.queue.map(|queue| queue.now))),
    ("qmax", "MMP", "u32", |row| number(row.queue.map(|queue| queue.max))),
    ("scur", "MGP", "u32", |row| count(row.sessions.now)),
    ("smax", "MMP", "u32", |row| count(row.sessions.max)),
    ("slim", "CLP", "u32", |row| number(row.sessions_limit)),
    ("stot", "MCP", "u64", |row| count(row.sessions_total)),
    ("bin", "MCP", "u64", |row| count(row.bytes_in)),
    ("bout", "MCP", "u64", |row| count(row.bytes_out)),
    ("dreq", "MCP", "u64", |row| number(row.denied_requests)),
    ("dresp", "MCP", "u64", none),
    ("ereq", "MCP", "u64", |row| number(row.request_errors)),
    ("econ", "MCP", "u64", |row| number(row.connect_errors)),
    ("eresp", "MCP", "u64", |row| number(row.response_errors)),
    ("wretr", "MCP", "u64", |row| number(row.retries)),
    ("wredis", "MCP", "u64", |row| number(row.redispatches)),
    ("status", "SGP", "str", |row| Cell::Text(row.status_text().into())),
    ("weight", "MaP", "u32", |row| number(row.effective_weight)),
    ("act", "SGP", "u32", |row| number(row.active)),
    ("bck", "SGP", "u32", |row| number(row.active.map(|_| NO_BACKUPS))),
    ("chkfail", "MCP", "u64", |row| number(row.failed_checks)),
    ("chkdown", "MCP", "u64", |row| number(row.downs)),
    ("lastchg", "MAP", "u32", |row| number(row.since.map(|since| since.as_secs()))),
    ("downtime", "MCP", "u32", |row| number(row.downtime.map(|downtime| downtime.as_secs()))),
    ("qlimit", "CGS", "u32", not_counted),
    ("pid", "KGP", "u32", |_| count(PROCESS)),
    ("iid", "KGS", "u32", |row| count(row.proxy_id)),
    ("sid", "KGS", "u32", |row| count(row.server_id)),
    ("throttle", "MaP", "u32", |row| number(row.throttle)),
    ("lbtot", "MCP", "u64", |row| number(row.balanced)),
    ("tracked", "CNS", "str", not_counted),
    ("type", "CGS", "u32", |row| count(row.kind as u32)),
    ("rate", "MRP", "u32", |row| count(row.session_rate.now)),
    ("rate_lim", "CLP", "u32", |row| none_of(row, &[Kind::Frontend])),
    ("rate_max", "MMP", "u32", |row| count(row.session_rate.max)),
    ("check_status", "MOP", "str", |row| check(row, |report| text(report.code.as_str()))),
    ("check_code", "MOP", "u32", |row| check(row, |report| number(report.http_status))),
    ("check_duration", "MDP", "u64", |row| check(row, |report| millis(report.took))),
    ("hrsp_1xx", "MCP", "u64", |row| responses(row, 0)),
    ("hrsp_2xx", "MCP", "u64", |row| responses(row, 1)),
    ("hrsp_3xx", "MCP", "u64", |row| responses(row, 2)),
    ("hrsp_4xx", "MCP", "u64", |row| responses(row, 3)),
    ("hrsp_5xx", "MCP", "u64", |row| responses(row, 4)),
    ("hrsp_other", "MCP", "u64", |row| responses(row, 5)),
    ("hanafail", "MCP", "u64", |row| number(row.observed_faults)),
    ("req_rate", "MRP", "u32", |row| number(row.request_rate.map(|rate| rate.now))),
    ("req_rate_max", "MMP", "u32", |row| number(row.request_rate.map(|rate| rate.max))),
    ("req_tot", "MCP", "u64", |row| count(row.requests)),
    ("cli_abrt", "MCP", "u64", |row| number(row.client_aborts)),
    ("srv_abrt", "MCP", "u64", |row| number(row.server_aborts)),
    ("comp_in", "MCP", "u64", |row| none_of(row, &[Kind::Frontend, Kind::Backend])),
    ("comp_out", "MCP", "u64", |row| none_of(row, &[Kind::Frontend, Kind::Backend])),
    ("comp_byp", "MCP", "u64", |row| none_of(row, &[Kind::Frontend, Kind::Backend])),
    ("comp_rsp", "MCP", "u64", |row| none_of(row, &[Kind::Frontend, Kind::Backend])),
    ("lastsess", "MAP", "s32", |row| last_session(row)),
    ("last_chk", "MOP", "str", |row| row.reason.as_deref().map_or(Cell::Empty, text)),
    ("last_agt", "MOP", "str", not_counted),
    ("qtime", "MaP", "u32", |row| average(row.queue_time)),
    ("ctime", "MaP", "u32", |row| average(row.connect_time)),
    ("rtime", "MaP", "u32", |row| average(row.response_time)),
    ("ttime", "MaP", "u32", |row| average(row.total_time)),
    ("agent_status", "MOP", "str", not_counted),
    ("agent_code", "MOP", "u32", not_counted),
    ("agent_duration", "MDP", "u64", not_counted),
    ("check_desc", "MOP", "str", |row| check(row, |report| text(report.code.description()))),
    ("agent_desc", "MOP", "str", not_counted),
    ("check_rise", "CGS", "u32", |row| health(row, |health| health.thresholds().rise.get())),
    ("check_fall", "CGS", "u32", |row| health(row, |health| health.thresholds().fall.get())),
    ("check_health", "CGS", "u32", |row| health(row, Health::count)),
    ("agent_rise", "CGS", "u32", not_counted),
    ("agent_fall", "CGS", "u32", not_counted),
    ("agent_health", "CGS", "u32", not_counted),
    ("addr", "CGS", "str", |row| addr(row)),
    ("cookie", "CNS", "str", |row| row.cookie.as_deref().map_or(Cell::Empty, text)),
    ("mode", "CGS", "str", |_| text("http")),
    ("algo", "CGS", "str", |row| row.algorithm.map_or(Cell::Empty, text)),
    ("conn_rate", "MRP", "u32", |row| number(row.connections.map(|c| c.rate.now))),
    ("conn_rate_max", "MMP", "u32", |row| number(row.connections.map(|c| c.rate.max))),
    ("conn_tot", "MCP", "u64", |row| number(row.connections.map(|c| c.total))),
    ("intercepted", "MCP", "u64", |row| none_of(row, &[Kind::Frontend])),
    ("dcon", "MCP", "u64", |row| none_of(row, &[Kind::Frontend])),
    ("dses", "MCP", "u64", |row| none_of(row, &[Kind::Frontend])),
    ("wrew", "MCP", "u64", none),
    ("connect", "MCP", "u64", |row| number(row.connects)),
    ("reuse", "MCP", "u64", |row| number(row.reuses)),
    ("cache_lookups", "MCP", "u64", |row| none_of(row, &[Kind::Frontend, Kind::Backend])),
    ("cache_hits", "MCP", "u64", |row| none_of(row, &[Kind::Frontend, Kind::Backend])),
    ("srv_icur", "MGP", "u32", |row| number(row.idle_connections)),
    ("src_ilim", "MLP", "u32", |row| number(row.idle_limit)),
    ("qtime_max", "MMP", "u32", |row| longest(row.queue_time)),
    ("ctime_max", "MMP", "u32", |row| longest(row.connect_time)),
    ("rtime_max", "MMP", "u32", |row| longest(row.response_time)),
    ("ttime_max", "MMP", "u32", |row| longest(row.total_time)),
    ("eint", "MCP", "u64", |row| count(row.internal_errors)),
    ("idle_conn_cur", "MGP", "u32", |row| none_of(row, &[Kind::Server])),
    ("safe_conn_cur", "MGP", "u32", |row| number(row.idle_connections)),
    ("used_conn_cur", "MGP", "u32", |row| number(row.used_connections)),
    ("need_conn_est", "MGP", "u32", |row| number(row.needed_connections)),
    ("uweight", "MaP", "u32", |row| number(row.weight)),
    ("agg_server_status", "MGP", "u32", not_counted),
    ("agg_server_check_status", "MGP", "u32", not_counted),
    ("agg_check_status", "MGP", "u32", not_counted),
    ("srid", "MGP", "u32", |row| none_of(row, &[Kind::Server])),
    ("sess_other", "MCP", "u64", |row| none_of(row, &[Kind::Frontend])),
    ("h1sess", "MCP", "u64", |row| number(row.connections.map(|c| c.total))),
    ("h2sess", "MCP", "u64", |row| none_of(row, &[Kind::Frontend])),
    ("h3sess", "MCP", "u64", |row| none_of(row, &[Kind::Frontend])),
    ("req_other", "MCP", "u64", |row| none_of(row, &[Kind::Frontend])),
    ("h1req", "MCP", "u64", |row| number(row.connections.map(|_| row.requests))),
    ("h2req", "MCP", "u64", |row| none_of(row, &[Kind::Frontend])),
    ("h3req", "MCP", "u64", |row| none_of(row, &[Kind::Frontend])),
    ("proto", "SGP", "str", not_counted),
    ("priv_idle_cur", "MGP", "u32", |row| none_of(row, &[Kind::Server])),
    ("reqbin", "MCP", "u64", |row| count(row.bytes_in)),
    ("reqbout", "MCP", "u64", |row| count(row.bytes_to_servers)),
    ("resbin", "MCP", "u64", |row| count(row.bytes_from_servers)),
    ("resbout", "MCP", "u64", |row| count(row.bytes_out)),
    ("cache_hint_hits", "MCP", "u64", not_counted),
];

fn not_counted(_: &StatRow) -> Cell<'_> {
    Cell::Empty
}

/// What this balancer never does, or has no limit for, which `HAProxy` prints
/// as zero too.
fn none(_: &StatRow) -> Cell<'_> {
    count(0u32)
}

/// The same, where only rows of some kinds have it.
fn none_of(row: &StatRow, kinds: &[Kind]) -> Cell<'static> {
    if kinds.contains(&row.kind) {
        count(0u32)
    } else {
        Cell::Empty
    }
}

fn text(text: &str) -> Cell<'_> {
    Cell::Text(text.into())
}

fn count(figure: impl Into<u64>) -> Cell<'static> {
    Cell::Number(figure.into())
}

fn number(figure: Option<impl Into<u64>>) -> Cell<'static> {
    figure.map_or(Cell::Empty, count)
}

fn millis(time: Duration) -> Cell<'static> {
    count(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn average(times: Option<Times>) -> Cell<'static> {
    times.map_or(Cell::Empty, |times| millis(times.average))
}

fn longest(times: Option<Times>) -> Cell<'static> {
    times.map_or(Cell::Empty, |times| millis(times.max))
}

fn responses(row: &StatRow, class: usize) -> Cell<'static> {
    number(row.responses.get(class).copied())
}

fn check(row: &StatRow, read: fn(&CheckReport) -> Cell<'static>) -> Cell<'_> {
    row.last_check().map_or(Cell::Empty, read)
}

fn health(row: &StatRow, read: fn(&Health) -> u16) -> Cell<'_> {
    let health = row.server.as_ref().and_then(|server| server.health);
    number(health.as_ref().map(read))
}

fn addr(row: &StatRow) -> Cell<'_> {
    let addr = row.server.as_ref().and_then(|server| server.addr);
    addr.map_or(Cell::Empty, |addr| Cell::Text(addr.to_string().into()))
}

/// `HAProxy` says -1 for a server that has not had a session yet.
fn last_session(row: &StatRow) -> Cell<'_> {
    match (row.kind, row.last_request) {
        (Kind::Frontend, _) => Cell::Empty,
        (_, Some(seconds)) => Cell::Signed(i64::try_from(seconds).unwrap_or(i64::MAX)),
        (_, None) => Cell::Signed(-1),
    }
}
