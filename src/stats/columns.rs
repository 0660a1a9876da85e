//! `HAProxy`'s columns: one table that CSV, the typed form and its JSON print.

use std::{borrow::Cow, fmt, time::Duration};

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

/// As figures are written everywhere; a text is not quoted.
impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => Ok(()),
            Self::Number(number) => number.fmt(f),
            Self::Signed(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// A column: its name; where its values come from, of what nature they are
/// and what they are about, in one letter each, and their type, both as
/// `HAProxy`'s typed form has them (management guide, 9.2); what it says, in a
/// few words; and how the value is read from a row.
///
/// Rates are of a second, ages in seconds, other times in milliseconds.
pub type Column = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    for<'a> fn(&'a StatRow) -> Cell<'a>,
);

/// The columns in `HAProxy` 3.5's order. Columns were only ever appended, so
/// a client that counts them in an older version finds the same ones.
#[rustfmt::skip]
pub const COLUMNS: &[Column] = &[
    ("pxname", "KNS", "str", "Name of the frontend or backend", |row| text(&row.proxy)),
    ("svname", "KNS", "str", "Name of the server, FRONTEND or BACKEND", |row| text(&row.name)),
    ("qcur", "MGP", "u32", "Requests that wait for a server", |row| number(row.queue.map(|queue| queue.now))),
    ("qmax", "MMP", "u32", "Most requests that waited for a server", |row| number(row.queue.map(|queue| queue.max))),
    ("scur", "MGP", "u32", "Sessions now", |row| count(row.sessions.now)),
    ("smax", "MMP", "u32", "Most sessions at a time", |row| count(row.sessions.max)),
    ("slim", "CLP", "u32", "Most sessions allowed at a time", |row| number(row.sessions_limit)),
    ("stot", "MCP", "u64", "Sessions so far", |row| count(row.sessions_total)),
    ("bin", "MCP", "u64", "Request bytes so far", |row| count(row.bytes_in)),
    ("bout", "MCP", "u64", "Response bytes so far", |row| count(row.bytes_out)),
    ("dreq", "MCP", "u64", "Requests denied", |row| number(row.denied_requests)),
    ("dresp", "MCP", "u64", "Responses denied", none),
    ("ereq", "MCP", "u64", "Requests that could not be read", |row| number(row.request_errors)),
    ("econ", "MCP", "u64", "Connections to servers that could not be made", |row| number(row.connect_errors)),
    ("eresp", "MCP", "u64", "Responses that never came, broke off or could not be read", |row| number(row.response_errors)),
    ("wretr", "MCP", "u64", "Attempts after the first", |row| number(row.retries)),
    ("wredis", "MCP", "u64", "Retries that went to another server", |row| number(row.redispatches)),
    ("status", "SGP", "str", "How it is doing", |row| Cell::Text(row.status_text().into())),
    ("weight", "MaP", "u32", "Share of the requests that it gets now", |row| number(row.effective_weight)),
    ("act", "SGP", "u32", "Active servers that take traffic", |row| number(row.active)),
    ("bck", "SGP", "u32", "Backup servers that take traffic", |row| number(row.active.map(|_| NO_BACKUPS))),
    ("chkfail", "MCP", "u64", "Checks that failed while the server was up", |row| number(row.failed_checks)),
    ("chkdown", "MCP", "u64", "Times it went down", |row| number(row.downs)),
    ("lastchg", "MAP", "u32", "Time since its status changed", |row| number(row.since.map(|since| since.as_secs()))),
    ("downtime", "MCP", "u32", "Time it was down", |row| number(row.downtime.map(|downtime| downtime.as_secs()))),
    ("qlimit", "CGS", "u32", "Most requests that may wait for the server", |row| number(row.queue_limit)),
    ("pid", "KGP", "u32", "Number of the process, always 1", |_| count(PROCESS)),
    ("iid", "KGS", "u32", "Number of the frontend or backend", |row| count(row.proxy_id)),
    ("sid", "KGS", "u32", "Number of the server", |row| count(row.server_id)),
    ("throttle", "MaP", "u32", "Percentage of its weight that it gets while it is eased in", |row| number(row.throttle)),
    ("lbtot", "MCP", "u64", "Requests that balancing, not a cookie, gave to it", |row| number(row.balanced)),
    ("tracked", "CNS", "str", "Server whose state it follows", not_counted),
    ("type", "CGS", "u32", "0 frontend, 1 backend, 2 server", |row| count(row.kind as u32)),
    ("rate", "MRP", "u32", "Sessions in the last second", |row| count(row.session_rate.now)),
    ("rate_lim", "CLP", "u32", "Most sessions allowed in a second", |row| none_of(row, &[Kind::Frontend])),
    ("rate_max", "MMP", "u32", "Most sessions in a second", |row| count(row.session_rate.max)),
    ("check_status", "MOP", "str", "Code of the last check's outcome", |row| check(row, |report| text(report.code.as_str()))),
    ("check_code", "MOP", "u32", "Status code of the last check's response", |row| check(row, |report| number(report.http_status))),
    ("check_duration", "MDP", "u64", "Time that the last check took", |row| check(row, |report| millis(report.took))),
    ("hrsp_1xx", "MCP", "u64", "Responses with a status of 1xx", |row| responses(row, 0)),
    ("hrsp_2xx", "MCP", "u64", "Responses with a status of 2xx", |row| responses(row, 1)),
    ("hrsp_3xx", "MCP", "u64", "Responses with a status of 3xx", |row| responses(row, 2)),
    ("hrsp_4xx", "MCP", "u64", "Responses with a status of 4xx", |row| responses(row, 3)),
    ("hrsp_5xx", "MCP", "u64", "Responses with a status of 5xx", |row| responses(row, 4)),
    ("hrsp_other", "MCP", "u64", "Responses with any other status", |row| responses(row, 5)),
    ("hanafail", "MCP", "u64", "Faults that traffic met and the pool was told of", |row| number(row.observed_faults)),
    ("req_rate", "MRP", "u32", "Requests in the last second", |row| number(row.request_rate.map(|rate| rate.now))),
    ("req_rate_max", "MMP", "u32", "Most requests in a second", |row| number(row.request_rate.map(|rate| rate.max))),
    ("req_tot", "MCP", "u64", "Requests so far", |row| count(row.requests)),
    ("cli_abrt", "MCP", "u64", "Exchanges that the client gave up", |row| number(row.client_aborts)),
    ("srv_abrt", "MCP", "u64", "Exchanges that the server broke off", |row| number(row.server_aborts)),
    ("comp_in", "MCP", "u64", "Bytes given to the compressor", |row| number(row.compressed.map(|c| c.bytes_in))),
    ("comp_out", "MCP", "u64", "Bytes taken from the compressor", |row| number(row.compressed.map(|c| c.bytes_out))),
    ("comp_byp", "MCP", "u64", "Bytes that went by the compressor", |row| none_of(row, &[Kind::Frontend, Kind::Backend])),
    ("comp_rsp", "MCP", "u64", "Responses compressed", |row| number(row.compressed.map(|c| c.responses))),
    ("lastsess", "MAP", "s32", "Time since the last session, -1 for never", |row| last_session(row)),
    ("last_chk", "MOP", "str", "What the last check said, or why it is not simply up", |row| row.reason.as_deref().map_or(Cell::Empty, text)),
    ("last_agt", "MOP", "str", "What the last agent check said", not_counted),
    ("qtime", "MaP", "u32", "Time requests waited for a server, of late", |row| average(row.queue_time)),
    ("ctime", "MaP", "u32", "Time to connect, of late", |row| average(row.connect_time)),
    ("rtime", "MaP", "u32", "Time to a response's head, of late", |row| average(row.response_time)),
    ("ttime", "MaP", "u32", "Time of a whole exchange, of late", |row| average(row.total_time)),
    ("agent_status", "MOP", "str", "Code of the last agent check's outcome", not_counted),
    ("agent_code", "MOP", "u32", "Status code of the last agent check", not_counted),
    ("agent_duration", "MDP", "u64", "Time that the last agent check took", not_counted),
    ("check_desc", "MOP", "str", "The last check's outcome in words", |row| check(row, |report| text(report.code.description()))),
    ("agent_desc", "MOP", "str", "The last agent check's outcome in words", not_counted),
    ("check_rise", "CGS", "u32", "Good checks that bring the server up", |row| health(row, |health| health.thresholds().rise.get())),
    ("check_fall", "CGS", "u32", "Failed checks that take the server down", |row| health(row, |health| health.thresholds().fall.get())),
    ("check_health", "CGS", "u32", "Where the server stands between the two", |row| health(row, Health::count)),
    ("agent_rise", "CGS", "u32", "Good agent checks that bring the server up", not_counted),
    ("agent_fall", "CGS", "u32", "Failed agent checks that take the server down", not_counted),
    ("agent_health", "CGS", "u32", "Where the server stands between the two", not_counted),
    ("addr", "CGS", "str", "Where the server takes requests", |row| addr(row)),
    ("cookie", "CNS", "str", "Name of the backend's cookie, or the server's value of it", |row| row.cookie.as_deref().map_or(Cell::Empty, text)),
    ("mode", "CGS", "str", "Always http", |_| text("http")),
    ("algo", "CGS", "str", "How servers take turns", |row| row.algorithm.map_or(Cell::Empty, text)),
    ("conn_rate", "MRP", "u32", "Connections in the last second", |row| number(row.connections.map(|c| c.rate.now))),
    ("conn_rate_max", "MMP", "u32", "Most connections in a second", |row| number(row.connections.map(|c| c.rate.max))),
    ("conn_tot", "MCP", "u64", "Connections so far", |row| number(row.connections.map(|c| c.total))),
    ("intercepted", "MCP", "u64", "Requests that were answered here", |row| none_of(row, &[Kind::Frontend])),
    ("dcon", "MCP", "u64", "Connections denied", |row| number(row.denied_connections)),
    ("dses", "MCP", "u64", "Sessions denied", |row| none_of(row, &[Kind::Frontend])),
    ("wrew", "MCP", "u64", "Headers that could not be rewritten", none),
    ("connect", "MCP", "u64", "Connections made to servers", |row| number(row.connects)),
    ("reuse", "MCP", "u64", "Requests over connections that were there already", |row| number(row.reuses)),
    ("cache_lookups", "MCP", "u64", "Requests looked up in a cache", |row| none_of(row, &[Kind::Frontend, Kind::Backend])),
    ("cache_hits", "MCP", "u64", "Requests found in a cache", |row| none_of(row, &[Kind::Frontend, Kind::Backend])),
    ("srv_icur", "MGP", "u32", "Open connections to the server without a request", |row| number(row.idle_connections)),
    ("src_ilim", "MLP", "u32", "Most such connections that are kept", |row| number(row.idle_limit)),
    ("qtime_max", "MMP", "u32", "Longest time a request waited for a server", |row| longest(row.queue_time)),
    ("ctime_max", "MMP", "u32", "Longest time to connect", |row| longest(row.connect_time)),
    ("rtime_max", "MMP", "u32", "Longest time to a response's head", |row| longest(row.response_time)),
    ("ttime_max", "MMP", "u32", "Longest time of a whole exchange", |row| longest(row.total_time)),
    ("eint", "MCP", "u64", "Internal errors", |row| count(row.internal_errors)),
    ("idle_conn_cur", "MGP", "u32", "Idle connections that have not proved to be kept open", |row| none_of(row, &[Kind::Server])),
    ("safe_conn_cur", "MGP", "u32", "Idle connections that have", |row| number(row.idle_connections)),
    ("used_conn_cur", "MGP", "u32", "Connections in use", |row| number(row.used_connections)),
    ("need_conn_est", "MGP", "u32", "Connections that are likely to be needed", |row| number(row.needed_connections)),
    ("uweight", "MaP", "u32", "Share of the requests that is wanted", |row| number(row.weight)),
    ("agg_server_status", "MGP", "u32", "Servers by status", not_counted),
    ("agg_server_check_status", "MGP", "u32", "Servers by their checks' state", not_counted),
    ("agg_check_status", "MGP", "u32", "Checks by outcome", not_counted),
    ("srid", "MGP", "u32", "How often the server's number was given anew", |row| none_of(row, &[Kind::Server])),
    ("sess_other", "MCP", "u64", "Sessions of another protocol than HTTP", |row| none_of(row, &[Kind::Frontend])),
    ("h1sess", "MCP", "u64", "HTTP/1 sessions", |row| number(row.connections.map(|c| c.total.saturating_sub(c.http2)))),
    ("h2sess", "MCP", "u64", "HTTP/2 sessions", |row| number(row.connections.map(|c| c.http2))),
    ("h3sess", "MCP", "u64", "HTTP/3 sessions", |row| none_of(row, &[Kind::Frontend])),
    ("req_other", "MCP", "u64", "Requests of another protocol than HTTP", |row| none_of(row, &[Kind::Frontend])),
    ("h1req", "MCP", "u64", "HTTP/1 requests", |row| number(row.connections.map(|c| row.requests.saturating_sub(c.http2_requests)))),
    ("h2req", "MCP", "u64", "HTTP/2 requests", |row| number(row.connections.map(|c| c.http2_requests))),
    ("h3req", "MCP", "u64", "HTTP/3 requests", |row| none_of(row, &[Kind::Frontend])),
    ("proto", "SGP", "str", "Protocol of the listener", not_counted),
    ("priv_idle_cur", "MGP", "u32", "Idle connections that belong to one client", |row| none_of(row, &[Kind::Server])),
    ("reqbin", "MCP", "u64", "Request bytes that came in", |row| count(row.bytes_in)),
    ("reqbout", "MCP", "u64", "Request bytes that went out", |row| count(row.bytes_to_servers)),
    ("resbin", "MCP", "u64", "Response bytes that came in", |row| count(row.bytes_from_servers)),
    ("resbout", "MCP", "u64", "Response bytes that went out", |row| count(row.bytes_out)),
    ("cache_hint_hits", "MCP", "u64", "Requests that a hint found in a cache", not_counted),
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

pub(crate) fn text(text: &str) -> Cell<'_> {
    Cell::Text(text.into())
}

pub(crate) fn count(figure: impl Into<u64>) -> Cell<'static> {
    Cell::Number(figure.into())
}

pub(crate) fn number(figure: Option<impl Into<u64>>) -> Cell<'static> {
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
