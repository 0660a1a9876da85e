//! The statistics in Prometheus' text format, under the names that the
//! exporter of `HAProxy` gives them.
//!
//! Families are built from the rows at each scrape: the crate's own registry
//! would have every request count a second time.

mod family;
mod process;
mod row;

use prometheus::{TextEncoder, proto::MetricFamily};
use tokio::time::Instant;

use self::{
    family::{family, histogram, histograms, sample},
    process::process,
    row::{aggregates, count, labels, latency, of_rows},
};
use super::{
    source::{
        Figure,
        FigureKind::{Counter as COUNTER, Gauge as GAUGE},
        Source,
    },
    view::{Rows, StatRow},
};
use crate::{
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
    families.extend(aggregates(rows));
    families.extend(trouble(&rows.backend));
    families.extend(cluster(rows, &(source.members)()));
    families.push(detection(source.pool.timeline()));
    families.extend(others(&source.figures));
    for now in &source.figures_of_the_moment {
        families.extend(others(&now()));
    }
    families.retain(|family| !family.get_metric().is_empty());
    encode(&families)
}

/// Figures alone, of a process that is no load balancer.
pub fn render_figures(figures: &[Figure]) -> String {
    encode(&others(figures).collect::<Vec<_>>())
}

fn encode(families: &[MetricFamily]) -> String {
    TextEncoder::new()
        .encode_to_string(families)
        .expect("every family has a name and a metric")
}

/// What servers that failed or left cost. Of the backend as a whole: when
/// there is something to count, the server's own row is often gone.
fn trouble(backend: &StatRow) -> [MetricFamily; 4] {
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
        one(
            "tidings_retries_total",
            "Attempts at a request after the first.",
            backend.retries,
        ),
        one(
            "tidings_rebinds_total",
            "Sticky cookies that named a server that was down, and were replaced.",
            backend.rebinds,
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
                let labels = figure.labels.iter();
                let labels = labels.map(|(name, value)| (*name, value.as_str()));
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

#[cfg(test)]
mod tests {
    use std::{
        collections::{HashMap, HashSet},
        time::Duration,
    };

    use super::{
        row::{CHECK_STATES, one_if},
        *,
    };
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
        assert!(!text.contains("total_time_average_seconds{proxy=\"nodes\",server=\"s2\"}"));
    }

    #[test]
    fn every_outcome_of_a_check_has_a_series() {
        use crate::pool::server::CheckCode::*;
        for code in [
            L4Ok,
            L4Timeout,
            L4Connection,
            L6Ok,
            L6Timeout,
            L6Response,
            L7Ok,
            L7Timeout,
            L7Response,
            L7Status,
        ] {
            assert!(CHECK_STATES.contains(&code.as_str()), "{code:?}");
        }
    }
}
