//! The statistics in Prometheus' text format, under the names that the
//! exporter of `HAProxy` gives them.
//!
//! Families are built from the rows at each scrape: the crate's own registry
//! would have every request count a second time.

use std::time::Duration;

use prometheus::{
    TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};
use tokio::time::Instant;

use super::{
    source::{
        Figure,
        FigureKind::{self, Counter as COUNTER, Gauge as GAUGE},
        Source,
    },
    view::{Kind, RowStatus, Rows, StatRow, Times},
};
use crate::{
    counters::{CLASSES, Distribution},
    membership::{MemberState, MemberView},
    pool::{Timeline, state::Sign},
};

/// The format's media type.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Everything, in the text format 0.0.4.
pub fn render(source: &Source, rows: &Rows, now: Instant) -> String {
    let mut families = process(source, &rows.frontend, now);
    for of_kind in [
        std::slice::from_ref(&rows.frontend),
        std::slice::from_ref(&rows.backend),
        &rows.servers,
    ] {
        families.extend(of_rows(of_kind));
    }
    families.push(latency(&rows.servers));
    families.extend(given_up(&rows.backend));
    families.extend(cluster(rows, &(source.members)()));
    families.push(detection(source.pool.timeline()));
    families.extend(others(&source.figures));
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new()
        .encode_to_string(&families)
        .expect("every family has a name and a metric")
}

// === of the process ===

/// What the figures of the process are read from.
struct Context<'a> {
    source: &'a Source,
    frontend: &'a StatRow,
    uptime: Duration,
}

type ProcessMetric = (
    &'static str,
    FigureKind,
    &'static str,
    fn(&Context<'_>) -> f64,
);

#[rustfmt::skip]
const PROCESS: &[ProcessMetric] = &[
    ("haproxy_process_nbthread", GAUGE, "Worker threads.", |c| c.source.process.workers as f64),
    ("haproxy_process_nbproc", GAUGE, "Processes.", |_| 1.0),
    ("haproxy_process_relative_process_id", GAUGE, "Number of this process.", |_| 1.0),
    ("haproxy_process_uptime_seconds", GAUGE, "Time since the start.", |c| c.uptime.as_secs() as f64),
    ("haproxy_process_start_time_seconds", GAUGE, "Unix time of the start.", |c| c.source.process.started_unix as f64),
    ("haproxy_process_max_connections", GAUGE, "Client connections allowed.", |c| limit(c.frontend)),
    ("haproxy_process_current_connections", GAUGE, "Client connections that are open.", |c| c.frontend.sessions.now.into()),
    ("haproxy_process_connections_total", COUNTER, "Client connections accepted.", |c| c.frontend.sessions_total as f64),
    ("haproxy_process_current_connection_rate", GAUGE, "Client connections accepted in the last second.", |c| c.frontend.session_rate.now.into()),
    ("haproxy_process_max_connection_rate", GAUGE, "Most client connections accepted in a second.", |c| c.frontend.session_rate.max.into()),
    ("haproxy_process_requests_total", COUNTER, "Requests received.", |c| c.frontend.requests as f64),
    ("haproxy_process_bytes_out_total", COUNTER, "Response bytes sent to clients.", |c| c.frontend.bytes_out as f64),
    ("haproxy_process_stopping", GAUGE, "1 once no new connections are accepted.", |c| one_if(c.source.is_draining())),
    ("haproxy_process_dropped_logs_total", COUNTER, "Log lines dropped.", |c| c.source.log_lines_dropped.get() as f64),
    ("tidings_access_log_dropped_total", COUNTER, "Access log lines dropped because nobody took them.", |c| c.source.log_lines_dropped.get() as f64),
    ("tidings_gossip_keyed", GAUGE, "1 if gossip is encrypted and authenticated.", |c| one_if(c.source.gossip_keyed)),
];

fn process(source: &Source, frontend: &StatRow, now: Instant) -> Vec<MetricFamily> {
    let context = Context {
        source,
        frontend,
        uptime: now.saturating_duration_since(source.process.started),
    };
    let info = |name, help, label| family(name, GAUGE, help, vec![sample(vec![label], GAUGE, 1.0)]);
    let mut families = vec![
        info(
            "haproxy_process_build_info",
            "The version that runs.",
            ("version", source.process.version),
        ),
        info(
            "haproxy_process_node",
            "The node's name.",
            ("node", &source.process.node),
        ),
    ];
    families.extend(PROCESS.iter().map(|(name, kind, help, read)| {
        family(
            name,
            *kind,
            help,
            vec![sample(vec![], *kind, read(&context))],
        )
    }));
    families
}

// === of a row ===

/// What a metric reads from a row; `None` is left out.
type RowMetric = (
    &'static str,
    FigureKind,
    &'static str,
    fn(&StatRow) -> Option<f64>,
);

#[rustfmt::skip]
const ROW: &[RowMetric] = &[
    ("current_sessions", GAUGE, "Sessions now.", |r| Some(r.sessions.now.into())),
    ("max_sessions", GAUGE, "Most sessions at a time.", |r| Some(r.sessions.max.into())),
    ("limit_sessions", GAUGE, "Sessions allowed.", |r| Some(limit(r))),
    ("sessions_total", COUNTER, "Sessions.", |r| count(Some(r.sessions_total))),
    ("current_session_rate", GAUGE, "Sessions in the last second.", |r| Some(r.session_rate.now.into())),
    ("max_session_rate", GAUGE, "Most sessions in a second.", |r| Some(r.session_rate.max.into())),
    ("connections_rate_current", GAUGE, "Connections in the last second.", |r| r.connections.map(|c| c.rate.now.into())),
    ("connections_rate_max", GAUGE, "Most connections in a second.", |r| r.connections.map(|c| c.rate.max.into())),
    ("connections_total", COUNTER, "Connections.", |r| count(r.connections.map(|c| c.total))),
    ("http_requests_rate_current", GAUGE, "Requests in the last second.", |r| r.request_rate.map(|rate| rate.now.into())),
    ("http_requests_rate_max", GAUGE, "Most requests in a second.", |r| r.request_rate.map(|rate| rate.max.into())),
    ("http_requests_total", COUNTER, "Requests.", |r| count(Some(r.requests))),
    ("bytes_in_total", COUNTER, "Request bytes.", |r| count(Some(r.bytes_in))),
    ("bytes_out_total", COUNTER, "Response bytes.", |r| count(Some(r.bytes_out))),
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
    ("last_session_seconds", GAUGE, "Time since the last session; -1 if there never was one.", last_session),
    ("connect_time_average_seconds", GAUGE, "Average time to connect, last 1024.", |r| average(r.connect_time)),
    ("response_time_average_seconds", GAUGE, "Average time to the response's head, last 1024.", |r| average(r.response_time)),
    ("total_time_average_seconds", GAUGE, "Average time of an exchange, last 1024.", |r| average(r.total_time)),
    ("max_connect_time_seconds", GAUGE, "Longest time to connect.", |r| longest(r.connect_time)),
    ("max_response_time_seconds", GAUGE, "Longest time to the response's head.", |r| longest(r.response_time)),
    ("max_total_time_seconds", GAUGE, "Longest time of an exchange.", |r| longest(r.total_time)),
    ("weight", GAUGE, "Weight that counts.", |r| r.effective_weight.map(Into::into)),
    ("uweight", GAUGE, "Weight as configured.", |r| r.weight.map(Into::into)),
    ("current_throttle", GAUGE, "Percentage of its share that a server gets while it is eased in; no value otherwise.", |r| r.throttle.map(Into::into)),
    ("active_servers", GAUGE, "Servers that can take traffic.", |r| only(Kind::Backend, r, r.active)),
    ("backup_servers", GAUGE, "Backup servers; there are none.", |r| only(Kind::Backend, r, Some(0))),
    ("active", GAUGE, "1 for a server that is no backup.", |r| only(Kind::Server, r, r.active)),
    ("backup", GAUGE, "1 for a backup; there are none.", |r| only(Kind::Server, r, Some(0))),
    ("check_failures_total", COUNTER, "Checks that failed while the server was up.", |r| count(r.failed_checks)),
    ("check_up_down_total", COUNTER, "Times it went down.", |r| count(r.downs)),
    ("check_last_change_seconds", GAUGE, "Time since the last change of status.", |r| seconds(r.since)),
    ("downtime_seconds_total", COUNTER, "Time spent down.", |r| seconds(r.downtime)),
    ("check_code", GAUGE, "Status code of the last check.", |r| r.last_check()?.http_status.map(Into::into)),
    ("check_duration_seconds", GAUGE, "Duration of the last check.", |r| Some(r.last_check()?.took.as_secs_f64())),
];

/// Families of rows of one kind.
fn of_rows(rows: &[StatRow]) -> Vec<MetricFamily> {
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

fn labels(row: &StatRow) -> Vec<(&'static str, &str)> {
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
const CHECK_STATES: [&str; 16] = [
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
fn limit(row: &StatRow) -> f64 {
    row.sessions_limit.map_or(f64::NAN, Into::into)
}

fn last_session(row: &StatRow) -> Option<f64> {
    let upstream = row.kind != Kind::Frontend;
    upstream.then(|| count(row.last_request).unwrap_or(-1.0))
}

fn only(kind: Kind, row: &StatRow, figure: Option<u32>) -> Option<f64> {
    figure.filter(|_| row.kind == kind).map(Into::into)
}

fn count(figure: Option<u64>) -> Option<f64> {
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

fn one_if(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

// === of the cluster, and of other parts ===

/// How long servers take to answer. A class has its series from its first
/// response on: eighteen of them for each that never occurs would drown the
/// rest.
fn latency(servers: &[StatRow]) -> MetricFamily {
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

/// What servers that failed or left cost. Of the backend as a whole: when
/// there is something to count, the server's own row is often gone.
fn given_up(backend: &StatRow) -> [MetricFamily; 2] {
    let one = |name, help, figure| {
        let values = count(figure).into_iter();
        let samples = values.map(|value| sample(labels(backend), COUNTER, value));
        family(name, COUNTER, help, samples.collect())
    };
    [
        one(
            "tidings_rescues_total",
            "Requests taken away from a server that was given up while they waited for it.",
            backend.rescues,
        ),
        one(
            "tidings_tunnels_closed_total",
            "Tunnels closed because their server left.",
            backend.tunnels_closed,
        ),
    ]
}

fn cluster(rows: &Rows, members: &[MemberView]) -> Vec<MetricFamily> {
    let states = [
        (MemberState::Alive, "alive"),
        (MemberState::Suspect, "suspect"),
        (MemberState::Down, "down"),
        (MemberState::Left, "left"),
    ];
    let by_state = states.map(|(state, name)| {
        let there = members.iter().filter(|member| member.state == state);
        sample(vec![("state", name)], GAUGE, there.count() as f64)
    });
    let one = |name, help, value| family(name, GAUGE, help, vec![sample(vec![], GAUGE, value)]);
    vec![
        family(
            "tidings_members",
            GAUGE,
            "Members that gossip knows, this node included.",
            by_state.into(),
        ),
        one(
            "tidings_servers",
            "Servers in the pool.",
            rows.servers.len() as f64,
        ),
        one(
            "tidings_pool_generation",
            "Number of the pool's present snapshot.",
            rows.generation as f64,
        ),
    ]
}

/// How fast trouble is found out. Every sign has its series from the start:
/// that it has shown nothing yet is known, not missing.
fn detection(timeline: &Timeline) -> MetricFamily {
    let by_sign = Sign::ALL.map(|sign| {
        let labels = vec![("sign", sign.as_str())];
        histogram(labels, &timeline.detected_by(sign).read())
    });
    histograms(
        "tidings_detection_seconds",
        "Time from the first sign that a server is in trouble until it takes no request.",
        by_sign.into(),
    )
}

/// Figures of one name that stand side by side make one family.
fn others(figures: &[Figure]) -> impl Iterator<Item = MetricFamily> {
    figures
        .chunk_by(|a, b| a.name == b.name)
        .filter_map(|alike| {
            let first = alike.first()?;
            let samples = alike.iter().map(|figure| {
                let label = figure.label.iter();
                let labels = label.map(|(name, value)| (*name, value.as_str()));
                sample(labels.collect(), figure.kind, (figure.read)() as f64)
            });
            Some(family(
                first.name,
                first.kind,
                first.help,
                samples.collect(),
            ))
        })
}

// === the crate's types ===

fn family(name: &str, kind: FigureKind, help: &str, samples: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(match kind {
        FigureKind::Counter => MetricType::COUNTER,
        FigureKind::Gauge => MetricType::GAUGE,
    });
    family.set_metric(samples);
    family
}

fn sample(labels: Vec<(&str, &str)>, kind: FigureKind, value: f64) -> Metric {
    let mut sample = Metric::from_label(labels.into_iter().map(label).collect());
    match kind {
        FigureKind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(value);
            sample.set_counter(counter);
        }
        FigureKind::Gauge => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            sample.set_gauge(gauge);
        }
    }
    sample
}

fn histograms(name: &str, help: &str, histograms: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(MetricType::HISTOGRAM);
    family.set_metric(histograms);
    family
}

/// The bucket without a bound comes from the encoder, which takes the count
/// for it.
fn histogram(labels: Vec<(&str, &str)>, of: &Distribution) -> Metric {
    let buckets = of.cumulative().map(|(bound, entries)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(entries);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(of.count());
    histogram.set_sample_sum(of.sum.as_secs_f64());
    let mut sample = Metric::from_label(labels.into_iter().map(label).collect());
    sample.set_histogram(histogram);
    sample
}

fn label((name, value): (&str, &str)) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.into());
    label.set_value(value.into());
    label
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::stats::{fixture, rows};

    fn scrape() -> String {
        let (source, now) = (fixture::source(), Instant::now());
        render(&source, &rows(&source, now), now)
    }

    /// Every series with its value; the text is checked on the way.
    fn series(text: &str) -> HashMap<&str, f64> {
        let mut series = HashMap::new();
        let mut types = HashMap::new();
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(types.insert(name, kind).is_none(), "{name} comes twice");
            } else if !line.starts_with("# HELP ") {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let family = name.split('{').next().unwrap();
                let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|part| {
                    let whole = family.strip_suffix(part);
                    whole.is_some_and(|whole| types.get(whole) == Some(&"histogram"))
                });
                let has_type = of_histogram || types.contains_key(family);
                assert!(has_type, "{family} has no type");
                let value = value.parse().unwrap();
                assert!(series.insert(name, value).is_none(), "{name} comes twice");
            }
        }
        series
    }

    #[test]
    fn dashboards_find_the_names_and_labels_of_haproxy() {
        let text = scrape();
        let series = series(&text);
        for (name, value) in [
            ("haproxy_process_start_time_seconds", 1_700_000_000.0),
            ("haproxy_process_build_info{version=\"0.1.0\"}", 1.0),
            ("haproxy_process_node{node=\"ha\"}", 1.0),
            ("haproxy_process_nbthread", 2.0),
            ("haproxy_process_requests_total", 1_234_567.0),
            (
                "haproxy_frontend_current_sessions{proxy=\"localnodes\"}",
                1.0,
            ),
            (
                "haproxy_frontend_connections_total{proxy=\"localnodes\"}",
                10.0,
            ),
            (
                "haproxy_frontend_http_requests_total{proxy=\"localnodes\"}",
                1_234_567.0,
            ),
            ("haproxy_backend_active_servers{proxy=\"nodes\"}", 4.0),
            ("haproxy_backend_backup_servers{proxy=\"nodes\"}", 0.0),
            (
                "haproxy_backend_loadbalanced_total{proxy=\"nodes\"}",
                1_234_000.0,
            ),
            (
                "haproxy_server_bytes_in_total{proxy=\"nodes\",server=\"s1\"}",
                2408.0,
            ),
            (
                "haproxy_server_http_responses_total{proxy=\"nodes\",server=\"s1\",code=\"5xx\"}",
                1.0,
            ),
            (
                "haproxy_server_connect_time_average_seconds{proxy=\"nodes\",server=\"s1\"}",
                0.003,
            ),
            (
                "haproxy_server_last_session_seconds{proxy=\"nodes\",server=\"s3\"}",
                -1.0,
            ),
            ("tidings_members{state=\"alive\"}", 4.0),
            ("tidings_servers", 7.0),
            ("tidings_pool_generation", 1.0),
            (
                "tidings_gossip_packets_dropped_total{reason=\"other_cluster\"}",
                4.0,
            ),
        ] {
            assert_eq!(series.get(name), Some(&value), "{name}");
        }
    }

    #[test]
    fn a_status_is_one_series_for_each_state_and_one_of_them_holds() {
        let text = scrape();
        let series = series(&text);
        for (server, holds) in [("s1", "UP"), ("s2", "UP"), ("s3", "DRAIN"), ("s4", "DOWN")] {
            let states = ["DOWN", "UP", "MAINT", "DRAIN", "NOLB"];
            for state in states {
                let name = format!(
                    "haproxy_server_status{{proxy=\"nodes\",server=\"{server}\",state=\"{state}\"}}"
                );
                assert_eq!(
                    series.get(name.as_str()),
                    Some(&one_if(state == holds)),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn how_fast_trouble_is_found_out_is_a_histogram_for_each_sign() {
        let (source, now) = (fixture::source(), Instant::now());
        for millis in [3, 30, 30_000] {
            let took = Duration::from_millis(millis);
            let found = fixture::found_down("s1", Sign::Lifeline, took);
            source.pool.timeline().add(found);
        }
        let text = render(&source, &rows(&source, now), now);
        let series = series(&text);
        let of = |part: &str| series.get(format!("tidings_detection_seconds_{part}").as_str());
        for (part, value) in [
            ("bucket{sign=\"lifeline\",le=\"0.0025\"}", 0.0),
            ("bucket{sign=\"lifeline\",le=\"0.005\"}", 1.0),
            ("bucket{sign=\"lifeline\",le=\"0.05\"}", 2.0),
            ("bucket{sign=\"lifeline\",le=\"5\"}", 2.0),
            ("bucket{sign=\"lifeline\",le=\"+Inf\"}", 3.0),
            ("sum{sign=\"lifeline\"}", 30.033),
            ("count{sign=\"lifeline\"}", 3.0),
            ("bucket{sign=\"gossip\",le=\"+Inf\"}", 0.0),
            ("count{sign=\"gossip\"}", 0.0),
        ] {
            assert_eq!(of(part), Some(&value), "{part}");
        }
    }

    #[test]
    fn maintenance_is_a_state_and_only_easing_in_is_throttled() {
        let (source, now) = (fixture::tended(), Instant::now());
        let text = render(&source, &rows(&source, now), now);
        let series = series(&text);
        let of = |name: &str, labels: &str| {
            let name = format!("haproxy_server_{name}{{proxy=\"nodes\",{labels}}}");
            series.get(name.as_str()).copied()
        };
        for (state, holds) in [("MAINT", 1.0), ("DOWN", 0.0), ("UP", 0.0)] {
            let labels = format!("server=\"m1\",state=\"{state}\"");
            assert_eq!(of("status", &labels), Some(holds), "{state}");
        }
        assert_eq!(of("current_throttle", "server=\"e1\""), Some(25.0));
        assert_eq!(of("current_throttle", "server=\"s1\""), None);
        assert_eq!(of("weight", "server=\"e1\""), Some(2.0));
        assert_eq!(of("uweight", "server=\"e1\""), Some(8.0));
    }

    #[test]
    fn a_limit_that_is_not_set_is_not_a_number() {
        let text = scrape();
        let limits = [
            "haproxy_process_max_connections",
            "haproxy_frontend_limit_sessions{",
        ];
        for limit in limits {
            let line = text.lines().find(|line| line.starts_with(limit)).unwrap();
            assert!(line.ends_with(" NaN"), "{line}");
        }
    }

    #[test]
    fn what_ends_in_total_is_a_counter_and_nothing_else_is() {
        let text = scrape();
        let types: HashSet<&str> = text
            .lines()
            .filter_map(|l| l.strip_prefix("# TYPE "))
            .collect();
        assert!(types.len() > 80, "{}", types.len());
        for line in types {
            let (name, kind) = line.split_once(' ').unwrap();
            let expected = match name {
                "tidings_detection_seconds" | "tidings_server_response_seconds" => "histogram",
                _ if name.ends_with("_total") => "counter",
                _ => "gauge",
            };
            assert_eq!(kind, expected, "{name}");
        }
    }

    #[test]
    fn what_is_not_measured_has_no_series() {
        let text = scrape();
        assert!(!text.contains("check_failures_total{proxy=\"nodes\",server=\"s1\"}"));
        assert!(text.contains("check_failures_total{proxy=\"nodes\",server=\"t1\"}"));
        assert!(!text.contains("current_queue"));
    }

    #[test]
    fn every_outcome_of_a_check_has_a_series() {
        use crate::pool::server::CheckCode::*;
        for code in [
            L4Ok,
            L4Timeout,
            L4Connection,
            L7Ok,
            L7Timeout,
            L7Response,
            L7Status,
        ] {
            assert!(CHECK_STATES.contains(&code.as_str()), "{code:?}");
        }
    }
}
