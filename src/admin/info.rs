//! `show info`: the process, in `HAProxy`'s lines. Only what is true here.

use std::fmt::Write;

use tokio::time::Instant;

use super::command::{Format, Listing};
use crate::{
    membership::MemberState,
    stats::{
        Source,
        columns::{Cell, count, number, text},
        page,
        typed::{self, Field},
    },
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
pub(super) fn render(source: &Source, format: Format, now: Instant) -> String {
    let fields = fields(source, now);
    let described = format.described;
    let mut out = String::new();
    match format.listing {
        Listing::Json => return typed::json_of(fields),
        Listing::Typed => fields.for_each(|field| field.line(described, &mut out)),
        Listing::Plain => fields.for_each(|field| line(&field, described, &mut out)),
    }
    out
}

fn line(field: &Field<'_>, described: bool, out: &mut String) {
    let about = described.then(|| format!(":\"{}\"", field.about));
    let about = about.unwrap_or_default();
    writeln!(out, "{}: {}{about}", field.name, field.value).expect("a string takes any text");
}

/// Every field that there is a true value for.
fn fields(source: &Source, now: Instant) -> impl Iterator<Item = Field<'_>> {
    let fields = INFO
        .iter()
        .map(move |(position, name, tags, kind, about, value)| Field {
            position: *position,
            name,
            tags,
            kind,
            about,
            value: value(source, now),
        });
    fields.filter(|field| field.value != Cell::Empty)
}

/// A field: its number, name, tags, type and description as those of a
/// [column](crate::stats::columns::Column), and how its value is read.
type Info = (
    usize,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    for<'a> fn(&'a Source, Instant) -> Cell<'a>,
);

/// The fields with `HAProxy`'s numbers. Rates are those of the last second.
#[rustfmt::skip]
const INFO: &[Info] = &[
    (0, "Name", "POS", "str", "Product whose runtime API this is", |_, _| text("HAProxy")),
    (1, "Version", "POS", "str", "Version of that, and of this program", |s, _| own(version(s))),
    (2, "Release_date", "POS", "str", "Date of that product's version", |_, _| text(HAPROXY_DATE)),
    (3, "Nbthread", "CGS", "u32", "Threads that serve traffic", |s, _| amount(s.process.workers)),
    (4, "Nbproc", "CGS", "u32", "Processes, always 1", |_, _| count(1u32)),
    (5, "Process_num", "KGP", "u32", "Number of this process, always 1", |_, _| count(1u32)),
    (6, "Pid", "SGP", "u32", "The system's number of this process", |s, _| count(s.process.pid)),
    (7, "Uptime", "MDP", "str", "Time since it started", |s, now| own(page::uptime_text(now.saturating_duration_since(s.process.started)))),
    (8, "Uptime_sec", "MDP", "u32", "The same in seconds", |s, now| count(now.saturating_duration_since(s.process.started).as_secs())),
    (13, "Ulimit-n", "CLP", "u32", "Most file descriptors", |s, _| number(s.process.max_descriptors)),
    (14, "Maxsock", "CLP", "u32", "Most sockets: as many as descriptors", |s, _| number(s.process.max_descriptors)),
    (15, "Maxconn", "CLP", "u32", "Client connections that there may be", |s, _| number(s.admission.of_process())),
    (16, "Hard_maxconn", "CLP", "u32", "Client connections that the descriptors suffice for", |s, _| number(s.admission.most())),
    (17, "CurrConns", "MGP", "u32", "Open client connections", |s, _| count(s.totals.frontend.connections.get())),
    (18, "CumConns", "MCP", "u32", "Client connections so far", |s, _| count(s.totals.frontend.connections_total.get())),
    (19, "CumReq", "MCP", "u32", "Requests so far", |s, _| count(s.totals.requests())),
    (26, "ConnRate", "MRP", "u32", "Client connections in the last second", |s, _| count(s.totals.frontend.connection_rate.get())),
    (27, "ConnRateLimit", "CLP", "u32", "Most of them in a second, 0 for no limit", |_, _| count(0u32)),
    (28, "MaxConnRate", "MMP", "u32", "Most of them there were in a second", |s, _| count(s.totals.frontend.connection_rate.max())),
    (29, "SessRate", "MRP", "u32", "Sessions in the last second", |s, _| count(s.totals.frontend.connection_rate.get())),
    (30, "SessRateLimit", "CLP", "u32", "Most of them in a second, 0 for no limit", |_, _| count(0u32)),
    (31, "MaxSessRate", "MRP", "u32", "Most of them there were in a second", |s, _| count(s.totals.frontend.connection_rate.max())),
    (50, "node", "COS", "str", "Name of this node", |s, _| text(&s.process.node)),
    (51, "description", "COS", "str", "What this is", |s, _| own(description(s.process.version))),
    (52, "Stopping", "MGP", "u32", "1 once it takes no new connections", |s, _| count(u32::from(s.is_draining()))),
    (53, "Jobs", "MGP", "u32", "Listeners and client connections", |s, _| amount(s.process.listeners + s.totals.frontend.connections.get() as usize)),
    (55, "Listeners", "MGP", "u32", "Addresses it listens on", |s, _| amount(s.process.listeners)),
    (56, "ActivePeers", "MGP", "u32", "Other balancers in the cluster", |s, _| amount(s.peers(|_| true))),
    (57, "ConnectedPeers", "MGP", "u32", "Other balancers in the cluster that are alive", |s, _| amount(s.peers(|state| state == MemberState::Alive))),
    (58, "DroppedLogs", "MGP", "u32", "Log lines that nobody took in time", |s, _| count(s.log_lines_dropped.get())),
    (61, "TotalBytesOut", "MGP", "u64", "Response bytes so far", |s, _| count(s.totals.bytes_out())),
    (63, "BytesOutRate", "MRP", "u64", "Response bytes in the last second", |s, _| count(s.totals.bytes_out_rate.get())),
    (70, "Start_time_sec", "MDP", "u32", "When it started, in Unix seconds", |s, _| number(u64::try_from(s.process.started_unix).ok())),
];

fn own(text: String) -> Cell<'static> {
    Cell::Text(text.into())
}

fn amount(figure: usize) -> Cell<'static> {
    count(figure as u64)
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
        let format = Format { listing, described };
        render(&fixture::source(), format, Instant::now())
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
        assert_eq!(pairs["Ulimit-n"], "1024");
        assert_eq!(pairs["Jobs"], "5");
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
