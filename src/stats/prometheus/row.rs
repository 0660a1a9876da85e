//! The families of rows: frontend, backend and servers.

use std::time::Duration;

use prometheus::proto::{Metric, MetricFamily};

use super::family::{family, histogram, histograms, sample};
use crate::{
    counters::CLASSES,
    stats::{
        source::FigureKind::{self, Counter as COUNTER, Gauge as GAUGE},
        view::{Kind, RowStatus, Rows, StatRow, Times},
    },
};

/// What a metric reads from a row; `None` is left out.
type RowMetric = (
    &'static str,
    FigureKind,
    &'static str,
    fn(&StatRow) -> Option<f64>,
);

#[rustfmt::skip]
const ROW: &[RowMetric] = &[
    ("current_queue", GAUGE, "Requests that wait for a server.", |r| r.queue.map(|q| q.now.into())),
    ("max_queue", GAUGE, "Most requests that waited at a time.", |r| r.queue.map(|q| q.max.into())),
    ("queue_limit", GAUGE, "Requests that may wait.", |r| only(Kind::Server, r, Some(r.queue_limit.map_or(f64::NAN, Into::into)))),
    ("current_sessions", GAUGE, "Sessions now.", |r| Some(r.sessions.now.into())),
    ("max_sessions", GAUGE, "Most sessions at a time.", |r| Some(r.sessions.max.into())),
    ("limit_sessions", GAUGE, "Sessions allowed.", |r| Some(limit(r))),
    ("sessions_total", COUNTER, "Sessions.", |r| count(Some(r.sessions_total))),
    ("current_session_rate", GAUGE, "Sessions in the last second.", |r| Some(r.session_rate.now.into())),
    ("max_session_rate", GAUGE, "Most sessions in a second.", |r| Some(r.session_rate.max.into())),
    ("limit_session_rate", GAUGE, "Limit on sessions a second; 0 is none.", |r| only(Kind::Frontend, r, Some(0.0))),
    ("connections_rate_current", GAUGE, "Connections in the last second.", |r| r.connections.map(|c| c.rate.now.into())),
    ("connections_rate_max", GAUGE, "Most connections in a second.", |r| r.connections.map(|c| c.rate.max.into())),
    ("connections_total", COUNTER, "Connections.", |r| count(r.connections.map(|c| c.total))),
    ("http_requests_rate_current", GAUGE, "Requests in the last second.", |r| r.request_rate.map(|rate| rate.now.into())),
    ("http_requests_rate_max", GAUGE, "Most requests in a second.", |r| r.request_rate.map(|rate| rate.max.into())),
    ("http_requests_total", COUNTER, "Requests.", |r| count(Some(r.requests))),
    ("bytes_in_total", COUNTER, "Request bytes.", |r| count(Some(r.bytes_in))),
    ("bytes_out_total", COUNTER, "Response bytes.", |r| count(Some(r.bytes_out))),
    ("requests_denied_total", COUNTER, "Requests refused for what they asked for, or for being too many of one source.", |r| count(r.denied_requests)),
    ("responses_denied_total", COUNTER, "Responses denied; none are.", |_| Some(0.0)),
    ("denied_connections_total", COUNTER, "Connections closed at once, their source having as many as it may.", |r| count(r.denied_connections)),
    ("denied_sessions_total", COUNTER, "Sessions denied; none are.", |r| only(Kind::Frontend, r, Some(0.0))),
    ("intercepted_requests_total", COUNTER, "Requests answered in place of a server; none are here.", |r| only(Kind::Frontend, r, Some(0.0))),
    ("failed_header_rewriting_total", COUNTER, "Header rewrites that failed; none can.", |_| Some(0.0)),
    ("internal_errors_total", COUNTER, "Connections to servers that failed by a fault of our own.", |r| count(Some(r.internal_errors))),
    ("http_comp_bytes_in_total", COUNTER, "Bytes given to the compressor.", |r| count(r.compressed.map(|c| c.bytes_in))),
    ("http_comp_bytes_out_total", COUNTER, "Bytes taken from the compressor.", |r| count(r.compressed.map(|c| c.bytes_out))),
    ("http_comp_bytes_bypassed_total", COUNTER, "Bytes not compressed for want of memory or time; all are.", not_at_servers),
    ("http_comp_responses_total", COUNTER, "Responses compressed.", |r| count(r.compressed.map(|c| c.responses))),
    ("http_cache_lookups_total", COUNTER, "Look-ups in a cache; there is none.", not_at_servers),
    ("http_cache_hits_total", COUNTER, "Hits in a cache; there is none.", not_at_servers),
    ("request_errors_total", COUNTER, "Requests that could not be read.", |r| count(r.request_errors)),
    ("connection_errors_total", COUNTER, "Connections that could not be made.", |r| count(r.connect_errors)),
    ("response_errors_total", COUNTER, "Responses that were broken off, malformed or never came.", |r| count(r.response_errors)),
    ("retry_warnings_total", COUNTER, "Attempts after the first.", |r| count(r.retries)),
    ("redispatch_warnings_total", COUNTER, "Retries that went to another server.", |r| count(r.redispatches)),
    ("client_aborts_total", COUNTER, "Exchanges the client gave up on.", |r| count(r.client_aborts)),
    ("server_aborts_total", COUNTER, "Exchanges the server broke off.", |r| count(r.server_aborts)),
    ("loadbalanced_total", COUNTER, "Requests that balancing gave here.", |r| count(r.balanced)),
    ("connection_attempts_total", COUNTER, "New connections.", |r| count(r.connects)),
    ("connection_reuses_total", COUNTER, "Requests over connections that were already there.", |r| count(r.reuses)),
    ("idle_connections_current", GAUGE, "Open connections without a request.", |r| r.idle_connections.map(Into::into)),
    ("unsafe_idle_connections_current", GAUGE, "Idle connections that may not serve everyone; there are none.", |r| only(Kind::Server, r, Some(0.0))),
    ("safe_idle_connections_current", GAUGE, "Idle connections that may serve everyone.", |r| r.idle_connections.map(Into::into)),
    ("private_idle_connections_current", GAUGE, "Idle connections that belong to one client; there are none.", |r| only(Kind::Server, r, Some(0.0))),
    ("idle_connections_limit", GAUGE, "Connections that may be idle.", |r| r.idle_limit.map(Into::into)),
    ("used_connections_current", GAUGE, "Connections with a request or a tunnel.", |r| r.used_connections.map(Into::into)),
    ("need_connections_current", GAUGE, "Connections that will probably be needed.", |r| r.needed_connections.map(Into::into)),
    ("last_session_seconds", GAUGE, "Time since the last session; -1 if there never was one.", last_session),
    ("queue_time_average_seconds", GAUGE, "Average wait for a server, last 1024.", |r| average(r.queue_time)),
    ("max_queue_time_seconds", GAUGE, "Longest wait for a server.", |r| longest(r.queue_time)),
    ("connect_time_average_seconds", GAUGE, "Average time to connect, last 1024.", |r| average(r.connect_time)),
    ("response_time_average_seconds", GAUGE, "Average time to the response's head, last 1024.", |r| average(r.response_time)),
    ("total_time_average_seconds", GAUGE, "Average time of an exchange, last 1024.", |r| average(r.total_time)),
    ("max_connect_time_seconds", GAUGE, "Longest time to connect.", |r| longest(r.connect_time)),
    ("max_response_time_seconds", GAUGE, "Longest time to the response's head.", |r| longest(r.response_time)),
    ("max_total_time_seconds", GAUGE, "Longest time of an exchange.", |r| longest(r.total_time)),
    ("weight", GAUGE, "Weight that counts.", |r| r.effective_weight.map(Into::into)),
    ("uweight", GAUGE, "Weight as configured.", |r| r.weight.map(Into::into)),
    ("current_throttle", GAUGE, "Percentage of its share that a server gets while it is eased in; no value otherwise.", |r| r.throttle.map(Into::into)),
    ("active_servers", GAUGE, "Servers that can take traffic.", |r| only(Kind::Backend, r, r.active.map(Into::into))),
    ("backup_servers", GAUGE, "Backup servers; there are none.", |r| only(Kind::Backend, r, Some(0.0))),
    ("active", GAUGE, "1 for a server that is no backup.", |r| only(Kind::Server, r, r.active.map(Into::into))),
    ("backup", GAUGE, "1 for a backup; there are none.", |r| only(Kind::Server, r, Some(0.0))),
    ("check_failures_total", COUNTER, "Checks that failed while the server was up.", |r| count(r.failed_checks)),
    ("check_up_down_total", COUNTER, "Times it went down.", |r| count(r.downs)),
    ("check_last_change_seconds", GAUGE, "Time since the last change of status.", |r| seconds(r.since)),
    ("downtime_seconds_total", COUNTER, "Time spent down.", |r| seconds(r.downtime)),
    ("check_code", GAUGE, "Status code of the last check.", |r| r.last_check()?.http_status.map(Into::into)),
    ("check_duration_seconds", GAUGE, "Duration of the last check.", |r| Some(r.last_check()?.took.as_secs_f64())),
];

/// Families of rows of one kind.
pub(super) fn of_rows(rows: &[StatRow]) -> Vec<MetricFamily> {
    let Some(kind) = rows.first().map(|row| row.kind) else {
        return Vec::new();
    };
    let prefix = match kind {
        Kind::Frontend => "haproxy_frontend_",
        Kind::Backend => "haproxy_backend_",
        Kind::Server => "haproxy_server_",
    };
    let figures = ROW.iter().map(|(name, kind, help, read)| {
        let values = rows.iter().filter_map(|row| Some((row, read(row)?)));
        let samples = values.map(|(row, value)| sample(labels(row), *kind, value));
        family(&format!("{prefix}{name}"), *kind, help, samples.collect())
    });
    let responses = rows.iter().flat_map(|row| {
        CLASSES
            .into_iter()
            .zip(row.responses)
            .map(|(code, responses)| {
                let labels = [labels(row), vec![("code", code)]].concat();
                sample(labels, COUNTER, responses as f64)
            })
    });
    let states = rows
        .iter()
        .flat_map(|row| one_hot(row, states_of(row.kind), state(row.status)));
    let checks = rows.iter().filter_map(|row| {
        let last = row.last_check()?.code.as_str();
        Some(one_hot(row, &CHECK_STATES, last))
    });
    let mut families: Vec<MetricFamily> = figures.collect();
    families.extend([
        family(
            &format!("{prefix}http_responses_total"),
            COUNTER,
            "Responses by class.",
            responses.collect(),
        ),
        family(
            &format!("{prefix}status"),
            GAUGE,
            "1 for the status it has.",
            states.collect(),
        ),
        family(
            &format!("{prefix}check_status"),
            GAUGE,
            "1 for the outcome of the last check.",
            checks.flatten().collect(),
        ),
    ]);
    families
}

pub(super) fn labels(row: &StatRow) -> Vec<(&'static str, &str)> {
    let mut labels = vec![("proxy", row.proxy.as_str())];
    if row.kind == Kind::Server {
        labels.push(("server", &row.name));
    }
    labels
}

fn states_of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Frontend | Kind::Backend => &["DOWN", "UP"],
        Kind::Server => &["DOWN", "UP", "MAINT", "DRAIN", "NOLB"],
    }
}

fn state(status: RowStatus) -> &'static str {
    match status {
        RowStatus::Drain => "DRAIN",
        RowStatus::Maint => "MAINT",
        RowStatus::Stop => "DOWN",
        _ if status.is_down() => "DOWN",
        _ => "UP",
    }
}

/// The outcomes of checks in `HAProxy`'s list, though some cannot occur here:
/// dashboards expect every series.
#[rustfmt::skip]
pub(super) const CHECK_STATES: [&str; 16] = [
    "HANA", "SOCKERR", "L4OK", "L4TOUT", "L4CON", "L6OK", "L6TOUT", "L6RSP",
    "L7TOUT", "L7RSP", "L7OK", "L7OKC", "L7STS", "PROCERR", "PROCTOUT", "PROCOK",
];

/// One series for each state: 1 for the one that holds, 0 for the others.
fn one_hot(row: &StatRow, states: &[&str], holds: &str) -> Vec<Metric> {
    let of_state = |state: &&str| {
        let labels = [labels(row), vec![("state", *state)]].concat();
        sample(labels, GAUGE, one_if(*state == holds))
    };
    states.iter().map(of_state).collect()
}

/// A limit that is not set is not a number, as `HAProxy` has it.
pub(super) fn limit(row: &StatRow) -> f64 {
    row.sessions_limit.map_or(f64::NAN, Into::into)
}

fn last_session(row: &StatRow) -> Option<f64> {
    let upstream = row.kind != Kind::Frontend;
    upstream.then(|| count(row.last_request).unwrap_or(-1.0))
}

fn only(kind: Kind, row: &StatRow, figure: Option<f64>) -> Option<f64> {
    figure.filter(|_| row.kind == kind)
}

/// What `HAProxy` counts of proxies, and does not occur here.
fn not_at_servers(row: &StatRow) -> Option<f64> {
    (row.kind != Kind::Server).then_some(0.0)
}

pub(super) fn count(figure: Option<u64>) -> Option<f64> {
    figure.map(|figure| figure as f64)
}

fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs() as f64)
}

fn average(times: Option<Times>) -> Option<f64> {
    times.map(|times| times.average.as_secs_f64())
}

fn longest(times: Option<Times>) -> Option<f64> {
    times.map(|times| times.max.as_secs_f64())
}

pub(super) fn one_if(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// How long servers take to answer. A class has its series from its first
/// response on: eighteen of them for each that never occurs would drown the
/// rest.
pub(super) fn latency(servers: &[StatRow]) -> MetricFamily {
    let mut samples = Vec::new();
    for row in servers {
        for (latency, class) in row.latency.as_deref().into_iter().flatten().zip(CLASSES) {
            if latency.count() > 0 {
                let labels = [labels(row), vec![("code", class)]].concat();
                samples.push(histogram(labels, latency));
            }
        }
    }
    histograms(
        "tidings_server_response_seconds",
        "Time from a request being sent to the head of its response (HAProxy's Tr), by class \
         of status.",
        samples,
    )
}

/// How the backend's servers are doing, by status and by the outcome of their
/// last check.
pub(super) fn aggregates(rows: &Rows) -> [MetricFamily; 2] {
    let backend = &rows.backend;
    let tally = |states: &'static [&'static str], of: fn(&StatRow) -> Option<&'static str>| {
        let samples = states.iter().map(|name| {
            let alike = rows.servers.iter().filter(|row| of(row) == Some(*name));
            let labels = [labels(backend), vec![("state", *name)]].concat();
            sample(labels, GAUGE, alike.count() as f64)
        });
        samples.collect()
    };
    [
        family(
            "haproxy_backend_agg_server_status",
            GAUGE,
            "Servers by status.",
            tally(states_of(Kind::Server), |row| Some(state(row.status))),
        ),
        family(
            "haproxy_backend_agg_check_status",
            GAUGE,
            "Servers by the outcome of their last check.",
            tally(&CHECK_STATES, |row| Some(row.last_check()?.code.as_str())),
        ),
    ]
}
