//! `show info`: the process, in `HAProxy`'s lines. Only what is true here.

use tokio::time::Instant;

use crate::stats::{Source, page};

/// The `HAProxy` whose runtime API this is. Clients read it from `Version` and
/// leave out what an older one could not do, such as draining.
const HAPROXY: &str = "3.5";

/// `HAProxy`'s version that this speaks as, then our own.
pub(super) fn version(source: &Source) -> String {
    format!("{HAPROXY}-tidings-{}", source.process.version)
}

/// The lines. Up to `Uptime_sec` each has exactly one colon with a blank
/// behind it, which is where monitoring splits them.
pub(super) fn render(source: &Source, now: Instant) -> String {
    let process = &source.process;
    let uptime = now.saturating_duration_since(process.started);
    let frontend = &source.totals.frontend;
    let mut lines = vec![
        ("Name", "HAProxy".to_owned()),
        ("Version", version(source)),
        ("Nbthread", process.workers.to_string()),
        ("Nbproc", "1".to_owned()),
        ("Process_num", "1".to_owned()),
        ("Pid", process.pid.to_string()),
        ("Uptime", page::uptime_text(uptime)),
        ("Uptime_sec", uptime.as_secs().to_string()),
    ];
    let limit = source.max_connections;
    lines.extend(limit.map(|limit| ("Maxconn", limit.to_string())));
    lines.extend([
        ("CurrConns", frontend.connections.get().to_string()),
        ("CumConns", frontend.connections_total.get().to_string()),
        ("CumReq", source.totals.requests().to_string()),
        ("ConnRate", frontend.connection_rate.get().to_string()),
        ("MaxConnRate", frontend.connection_rate.max().to_string()),
        ("SessRate", frontend.connection_rate.get().to_string()),
        ("MaxSessRate", frontend.connection_rate.max().to_string()),
        ("node", process.node.clone()),
        ("Stopping", u8::from(source.is_draining()).to_string()),
        ("description", description(process.version)),
    ]);
    let lines: Vec<String> = lines
        .into_iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    lines.join("\n")
}

fn description(version: &str) -> String {
    format!("Tidings {version}, which learns its servers by gossip and is steered as HAProxy is")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::stats::fixture;

    #[test]
    fn monitoring_can_split_every_line_at_its_colon() {
        let info = render(&fixture::source(), Instant::now());
        for line in info.lines() {
            assert_eq!(line.matches(':').count(), 1, "{line}");
        }
        let pairs: HashMap<&str, &str> = info
            .lines()
            .filter_map(|line| line.split_once(": "))
            .collect();
        assert_eq!(pairs["Process_num"], "1");
        assert_eq!(pairs["CurrConns"], "1");
        assert_eq!(pairs["CumConns"], "10");
        assert_eq!(pairs["CumReq"], "1234567");
        assert!(!pairs.contains_key("Maxconn"), "there is no limit");
    }

    #[test]
    fn it_says_that_it_is_haproxy_first_and_the_truth_later() {
        let info = render(&fixture::source(), Instant::now());
        assert_eq!(info.lines().next(), Some("Name: HAProxy"));
        assert!(info.contains("\nVersion: 3.5-tidings-0.1.0\n"), "{info}");
        assert!(info.contains("\ndescription: Tidings 0.1.0,"), "{info}");
    }
}
