//! The process's families.

use std::time::Duration;

use prometheus::proto::MetricFamily;
use tokio::time::Instant;

use super::{
    family::{family, sample},
    row::one_if,
};
use crate::{
    membership::MemberState,
    stats::{
        source::{
            FigureKind::{self, Counter as COUNTER, Gauge as GAUGE},
            Source,
        },
        usage,
        view::StatRow,
    },
};

/// What the figures of the process are read from.
struct Context<'a> {
    source: &'a Source,
    frontend: &'a StatRow,
    uptime: Duration,
}

fn fds(source: &Source) -> f64 {
    source
        .process
        .max_descriptors
        .map_or(f64::NAN, |n| n as f64)
}

/// What `HAProxy` counts or limits and this balancer has none of. Dashboards
/// draw these too, and `HAProxy` gives zero for what is not configured.
#[rustfmt::skip]
const NONE: &[(&str, FigureKind, &str)] = &[
    ("haproxy_process_max_memory_bytes", GAUGE, "Limit on memory; 0 is none."),
    ("haproxy_process_pool_allocated_bytes", GAUGE, "Memory in pools; there are none."),
    ("haproxy_process_pool_used_bytes", GAUGE, "Memory used in pools; there are none."),
    ("haproxy_process_pool_failures_total", COUNTER, "Failures of pools; there are none."),
    ("haproxy_process_max_ssl_connections", GAUGE, "Limit on TLS connections; 0 is none."),
    ("haproxy_process_limit_ssl_rate", GAUGE, "Limit on TLS sessions a second; 0 is none."),
    ("haproxy_process_ssl_cache_lookups_total", COUNTER, "Look-ups of TLS sessions; tickets need none."),
    ("haproxy_process_ssl_cache_misses_total", COUNTER, "TLS sessions not found; tickets need none."),
    ("haproxy_process_max_pipes", GAUGE, "Limit on pipes; none are used."),
    ("haproxy_process_pipes_used_total", COUNTER, "Pipes used; none are."),
    ("haproxy_process_pipes_free_total", COUNTER, "Pipes free; none are used."),
    ("haproxy_process_limit_connection_rate", GAUGE, "Limit on connections a second; 0 is none."),
    ("haproxy_process_limit_session_rate", GAUGE, "Limit on sessions a second; 0 is none."),
    ("haproxy_process_limit_http_comp", GAUGE, "Limit on compressed bytes a second; 0 is none."),
    ("haproxy_process_max_zlib_memory", GAUGE, "Limit on memory for compression; 0 is none."),
    ("haproxy_process_unstoppable_jobs", GAUGE, "What cannot be stopped; there is nothing."),
    ("haproxy_process_recv_logs_total", COUNTER, "Log lines received from others; none are taken."),
];

/// What there is here too, and nobody counts.
#[rustfmt::skip]
const NOT_COUNTED: &[(&str, FigureKind, &str)] = &[
    ("haproxy_process_current_ssl_rate", GAUGE, "TLS sessions in the last second; not counted."),
    ("haproxy_process_max_ssl_rate", GAUGE, "Most TLS sessions in a second; not counted."),
    ("haproxy_process_current_frontend_ssl_key_rate", GAUGE, "TLS keys computed; not counted."),
    ("haproxy_process_max_frontend_ssl_key_rate", GAUGE, "Most TLS keys computed in a second; not counted."),
    ("haproxy_process_frontend_ssl_reuse", GAUGE, "TLS sessions taken up again, in percent; not counted."),
    ("haproxy_process_current_backend_ssl_key_rate", GAUGE, "TLS keys computed; not counted."),
    ("haproxy_process_max_backend_ssl_key_rate", GAUGE, "Most TLS keys computed in a second; not counted."),
    ("haproxy_process_current_zlib_memory", GAUGE, "Memory for compression; not counted."),
];

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
    ("haproxy_process_max_fds", GAUGE, "File descriptors allowed.", |c| fds(c.source)),
    ("haproxy_process_max_sockets", GAUGE, "Sockets allowed: as many as descriptors.", |c| fds(c.source)),
    ("haproxy_process_max_connections", GAUGE, "Client connections that there may be.", |c| c.source.admission.of_process().map_or(f64::NAN, Into::into)),
    ("haproxy_process_hard_max_connections", GAUGE, "Client connections that the descriptors suffice for.", |c| c.source.admission.most().map_or(f64::NAN, Into::into)),
    ("haproxy_process_current_connections", GAUGE, "Client connections that are open.", |c| c.frontend.sessions.now.into()),
    ("haproxy_process_connections_total", COUNTER, "Client connections accepted.", |c| c.frontend.sessions_total as f64),
    ("haproxy_process_current_ssl_connections", GAUGE, "Client connections that are over TLS.", |c| c.source.totals.frontend.tls.get().into()),
    ("haproxy_process_ssl_connections_total", COUNTER, "Client connections that took a TLS handshake.", |c| c.source.totals.tallies().map(|tally| tally.tls_connections.get()).sum::<u64>() as f64),
    ("haproxy_process_http_comp_bytes_in_total", COUNTER, "Bytes given to the compressor.", |c| c.frontend.compressed.map_or(0, |c| c.bytes_in) as f64),
    ("haproxy_process_http_comp_bytes_out_total", COUNTER, "Bytes taken from the compressor.", |c| c.frontend.compressed.map_or(0, |c| c.bytes_out) as f64),
    ("haproxy_process_current_connection_rate", GAUGE, "Client connections accepted in the last second.", |c| c.frontend.session_rate.now.into()),
    ("haproxy_process_max_connection_rate", GAUGE, "Most client connections accepted in a second.", |c| c.frontend.session_rate.max.into()),
    ("haproxy_process_current_session_rate", GAUGE, "Client connections accepted in the last second.", |c| c.frontend.session_rate.now.into()),
    ("haproxy_process_max_session_rate", GAUGE, "Most client connections accepted in a second.", |c| c.frontend.session_rate.max.into()),
    ("haproxy_process_listeners", GAUGE, "Addresses that it listens on.", |c| c.source.process.listeners as f64),
    ("haproxy_process_jobs", GAUGE, "Client connections that are open and addresses that it listens on.", |c| f64::from(c.frontend.sessions.now) + c.source.process.listeners as f64),
    ("haproxy_process_active_peers", GAUGE, "Other balancers in the cluster.", |c| c.source.peers(|_| true) as f64),
    ("haproxy_process_connected_peers", GAUGE, "Other balancers in the cluster that are alive.", |c| c.source.peers(|state| state == MemberState::Alive) as f64),
    ("haproxy_process_bytes_out_rate", GAUGE, "Response bytes sent to clients in the last second.", |c| c.source.totals.bytes_out_rate.get().into()),
    ("haproxy_process_requests_total", COUNTER, "Requests received.", |c| c.frontend.requests as f64),
    ("haproxy_process_bytes_out_total", COUNTER, "Response bytes sent to clients.", |c| c.frontend.bytes_out as f64),
    ("haproxy_process_stopping", GAUGE, "1 once no new connections are accepted.", |c| one_if(c.source.is_draining())),
    ("haproxy_process_dropped_logs_total", COUNTER, "Log lines dropped.", |c| c.source.log_lines_dropped.get() as f64),
    ("tidings_access_log_dropped_total", COUNTER, "Access log lines dropped because nobody took them.", |c| c.source.log_lines_dropped.get() as f64),
    ("tidings_gossip_keyed", GAUGE, "1 if gossip is encrypted and authenticated.", |c| one_if(c.source.gossip_keyed)),
];

pub(super) fn process(source: &Source, frontend: &StatRow, now: Instant) -> Vec<MetricFamily> {
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
        info(
            "haproxy_process_description",
            "What this is.",
            ("desc", "Tidings"),
        ),
    ];
    families.extend(NONE.iter().map(|(name, kind, help)| {
        let none = sample(vec![], *kind, 0.0);
        family(name, *kind, help, vec![none])
    }));
    families.extend(NOT_COUNTED.iter().map(|(name, kind, help)| {
        let unknown = sample(vec![], *kind, f64::NAN);
        family(name, *kind, help, vec![unknown])
    }));
    families.extend(PROCESS.iter().map(|(name, kind, help, read)| {
        family(
            name,
            *kind,
            help,
            vec![sample(vec![], *kind, read(&context))],
        )
    }));
    families.extend(cost());
    families
}

/// Under the names that Prometheus' own client libraries give them.
fn cost() -> [MetricFamily; 2] {
    let one = |name, kind, help, value: Option<f64>| {
        let value = value.map(|value| sample(vec![], kind, value));
        family(name, kind, help, value.into_iter().collect())
    };
    [
        one(
            "process_cpu_seconds_total",
            COUNTER,
            "Time on the processors, user and system.",
            Some(usage::cpu().as_secs_f64()),
        ),
        one(
            "process_resident_memory_bytes",
            GAUGE,
            "Memory in use.",
            usage::resident().map(|bytes| bytes as f64),
        ),
    ]
}
