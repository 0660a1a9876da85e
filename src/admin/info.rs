//! `show info`: the process, in `HAProxy`'s lines. Only what is true here.

use std::fmt::{Display, Write};

use tokio::time::Instant;

use super::{
    Controls,
    command::{Format, Listing},
};
use crate::stats::{
    Source, page,
    typed::{Field, Nature},
};

/// The `HAProxy` whose runtime API this is, and its date. Clients read it from
/// `Version` and leave out what an older one could not do, such as draining;
/// they want three numbers.
const HAPROXY: &str = "3.5.0";
const HAPROXY_DATE: &str = "2026/08/21";

/// `HAProxy`'s version that this speaks as, then our own.
pub(super) fn version(source: &Source) -> String {
    format!("{HAPROXY}-tidings-{}", source.process.version)
}

/// The process. As plain lines, up to `Uptime_sec` each has exactly one colon
/// with a blank behind it, which is where monitoring splits them.
pub(super) fn render(controls: &Controls, format: Format, now: Instant) -> String {
    let fields = fields(controls, now);
    let described = format.described;
    let mut out = String::new();
    match format.listing {
        Listing::Json => {
            let fields: Vec<String> = fields.iter().map(|f| f.json("", described)).collect();
            return format!("[{}]", fields.join(","));
        }
        Listing::Typed => fields.iter().for_each(|f| f.line(described, &mut out)),
        Listing::Plain => {
            for field in fields {
                let about = field.nature.about;
                let about = described.then(|| format!(":\"{about}\""));
                let about = about.unwrap_or_default();
                let (name, value) = (field.name, &field.value);
                writeln!(out, "{name}: {value}{about}").expect("a string takes any text");
            }
        }
    }
    out
}

/// Every field that there is a true value for. The numbers are `HAProxy`'s.
#[rustfmt::skip]
fn fields(controls: &Controls, now: Instant) -> Vec<Field<'static>> {
    let source = &*controls.source;
    let process = &source.process;
    let uptime = now.saturating_duration_since(process.started);
    let frontend = &source.totals.frontend;
    let connections = frontend.connections.get();
    let jobs = controls.listeners + connections as usize;
    let mut fields = vec![
        field(0, "Name", "POS", "str", "Product whose runtime API this is", "HAProxy"),
        field(1, "Version", "POS", "str", "Version of that, and of this program", version(source)),
        field(2, "Release_date", "POS", "str", "Date of that product's version", HAPROXY_DATE),
        field(3, "Nbthread", "CGS", "u32", "Threads that serve traffic", process.workers),
        field(4, "Nbproc", "CGS", "u32", "Processes, always 1", 1),
        field(5, "Process_num", "KGP", "u32", "Number of this process, always 1", 1),
        field(6, "Pid", "SGP", "u32", "The system's number of this process", process.pid),
        field(7, "Uptime", "MDP", "str", "Time since it started", page::uptime_text(uptime)),
        field(8, "Uptime_sec", "MDP", "u32", "The same in seconds", uptime.as_secs()),
    ];
    let limit = source.max_connections;
    fields.extend(limit.map(|limit| field(15, "Maxconn", "CLP", "u32", "Most client connections", limit)));
    fields.extend([
        field(17, "CurrConns", "MGP", "u32", "Open client connections", connections),
        field(18, "CumConns", "MCP", "u32", "Client connections so far", frontend.connections_total.get()),
        field(19, "CumReq", "MCP", "u32", "Requests so far", frontend.requests.get()),
        field(26, "ConnRate", "MRP", "u32", "Client connections in the last second", frontend.connection_rate.get()),
        field(27, "ConnRateLimit", "CLP", "u32", "Most of them in a second, 0 for no limit", 0),
        field(28, "MaxConnRate", "MMP", "u32", "Most of them there were in a second", frontend.connection_rate.max()),
        field(29, "SessRate", "MRP", "u32", "Sessions in the last second", frontend.connection_rate.get()),
        field(30, "SessRateLimit", "CLP", "u32", "Most of them in a second, 0 for no limit", 0),
        field(31, "MaxSessRate", "MRP", "u32", "Most of them there were in a second", frontend.connection_rate.max()),
        field(50, "node", "COS", "str", "Name of this node", &process.node),
        field(51, "description", "COS", "str", "What this is", description(process.version)),
        field(52, "Stopping", "MGP", "u32", "1 once it takes no new connections", u8::from(source.is_draining())),
        field(53, "Jobs", "MGP", "u32", "Listeners and client connections", jobs),
        field(55, "Listeners", "MGP", "u32", "Addresses it listens on", controls.listeners),
        field(58, "DroppedLogs", "MGP", "u32", "Log lines that nobody took in time", source.log_lines_dropped.get()),
        field(61, "TotalBytesOut", "MGP", "u64", "Response bytes so far", frontend.bytes_out.get()),
        field(70, "Start_time_sec", "MDP", "u32", "When it started, in Unix seconds", process.started_unix),
    ]);
    fields
}

fn field(
    position: usize,
    name: &'static str,
    tags: &'static str,
    kind: &'static str,
    about: &'static str,
    value: impl Display + Clone,
) -> Field<'static> {
    let (nature, value) = (Nature { tags, kind, about }, value.to_string());
    Field {
        position,
        name,
        nature,
        value,
    }
}

fn description(version: &str) -> String {
    format!("Tidings {version}, which learns its servers by gossip and is steered as HAProxy is")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::stats::fixture;

    fn shown(listing: Listing, described: bool) -> String {
        let controls = Controls::over(fixture::source());
        let format = Format { listing, described };
        render(&controls, format, Instant::now())
    }

    #[test]
    fn monitoring_can_split_every_line_at_its_colon() {
        let info = shown(Listing::Plain, false);
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
        let info = shown(Listing::Plain, false);
        assert_eq!(info.lines().next(), Some("Name: HAProxy"));
        assert!(info.contains("\nVersion: 3.5.0-tidings-0.1.0\n"), "{info}");
        assert!(info.contains("\ndescription: Tidings 0.1.0,"), "{info}");
    }

    #[test]
    fn each_form_has_every_field() {
        let plain = shown(Listing::Plain, true);
        assert!(plain.starts_with("Name: HAProxy:\"Product "), "{plain}");
        let typed = shown(Listing::Typed, false);
        assert!(typed.contains("\n17.CurrConns.1:MGPV:u32:1\n"), "{typed}");
        let json: serde_json::Value = serde_json::from_str(&shown(Listing::Json, false)).unwrap();
        let fields = json.as_array().unwrap();
        assert_eq!(fields.len(), plain.lines().count());
        assert_eq!(fields.len(), typed.lines().count());
        assert_eq!(fields[0]["value"]["value"], "HAProxy");
        assert!(fields.is_sorted_by_key(|field| field["field"]["pos"].as_u64()));
    }
}
