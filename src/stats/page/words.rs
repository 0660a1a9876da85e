//! What a row says in words: `HAProxy`'s, where it has any.

use super::cell::{Cell, Value};
use crate::{
    counters::CLASSES,
    pool::Server,
    stats::{
        json,
        view::{self, Kind, RowStatus, StatRow, Times},
    },
};

/// What a pointer over the name shows.
pub(super) fn about(row: &StatRow, server: &Server) -> String {
    let addr = server.addr.map_or("no address".into(), |a| a.to_string());
    let reason = row.reason.iter().map(|reason| format!("\n{reason}"));
    addr + &reason.chain(tags(server)).collect::<String>()
}

fn tags(server: &Server) -> impl Iterator<Item = String> {
    let tags = server.tags.iter();
    tags.map(|(key, value)| format!("\n{key}={value}"))
}

/// What a filter looks at.
pub(super) fn searched(server: &Server) -> String {
    let status = json::status(server.status);
    let reason = view::reason(server.status).unwrap_or_default();
    let addr = server.addr.map(|addr| addr.to_string()).unwrap_or_default();
    let tags: String = tags(server).collect();
    format!("{} {status} {reason} {addr} {tags}", server.name)
}

/// What a pointer over the present sessions of a server shows.
pub(super) fn connections(row: &StatRow) -> Option<String> {
    let (idle, used) = row.idle_connections.zip(row.used_connections)?;
    let (needed, limit) = row.needed_connections.zip(row.idle_limit)?;
    Some(format!(
        "Current active connections: {}\nCurrent used connections: {used}\n\
         Current idle connections: {idle}\nCurrent estimated need of connections: {needed}\n\
         Idle connections limit: {limit}",
        used + idle
    ))
}

/// What a pointer over the total shows.
pub(super) fn details(row: &StatRow) -> String {
    let percent = |part: u64, all: u64| (part * 100).checked_div(all).unwrap_or(0);
    let mut lines = Vec::new();
    if let Some(connections) = row.connections {
        lines.push(format!("Cum. connections: {}", connections.total));
    }
    lines.push(format!("Cum. sessions: {}", row.sessions_total));
    if let (Some(new), Some(reused)) = (row.connects, row.reuses) {
        let share = percent(reused, new + reused);
        lines.push(format!("New connections: {new}"));
        lines.push(format!("Reused connections: {reused} ({share}%)"));
    }
    lines.push(format!("Cum. HTTP requests: {}", row.requests));
    let all = row.responses.iter().sum();
    lines.extend(CLASSES.iter().zip(row.responses).map(|(class, responses)| {
        let share = percent(responses, all);
        match *class {
            "other" => format!("- other responses: {responses} ({share}%)"),
            class => format!("- HTTP {class} responses: {responses} ({share}%)"),
        }
    }));
    if row.internal_errors > 0 {
        lines.push(format!("Internal errors: {}", row.internal_errors));
    }
    lines.extend(times(row));
    lines.join("\n")
}

fn times(row: &StatRow) -> Vec<String> {
    let times = [
        ("Queue", row.queue_time),
        ("Connect", row.connect_time),
        ("Responses", row.response_time),
        ("Total", row.total_time),
    ];
    let line = |(name, times): (&str, Option<Times>)| {
        let Times { average, max } = times?;
        Some(format!("- {name} time: {max:.1?} / {average:.1?}"))
    };
    let mut lines: Vec<String> = times.into_iter().filter_map(line).collect();
    if !lines.is_empty() {
        lines.insert(0, "Max / Avg over last 1024 success. conn.".into());
    }
    lines
}

/// The status in `HAProxy`'s words, as markup.
pub(super) fn status(row: &StatRow) -> String {
    let arrow = match row.status {
        RowStatus::GoingDown(..) | RowStatus::Suspect => " \u{2193}",
        RowStatus::GoingUp(..) => " \u{2191}",
        _ => "",
    };
    let status = row.status;
    let words = match row.kind {
        Kind::Backend if status.is_down() => format!("<strong class=\"bad\">{status}</strong>"),
        _ if status == RowStatus::NoCheck => format!("<em>{status}</em>"),
        _ => status.to_string(),
    };
    let shown = row.shown.map(|(up, all)| {
        // Only seen where servers are left out.
        format!("<span class=\"shown\"> ({up}/{all})</span>")
    });
    words + arrow + &shown.unwrap_or_default()
}

/// The present reason comes first: an old check that passed explains nothing
/// about a server that is down.
pub(super) fn last_check(row: &StatRow) -> Cell {
    let check = row.last_check().map(|report| {
        let status = report.http_status.map(|status| format!("/{status}"));
        let took = report.took.as_millis();
        format!(
            "{}{} in {took}ms",
            report.code.as_str(),
            status.unwrap_or_default()
        )
    });
    let words = row.last_check().map(|report| report.code.description());
    // A long reason is cut short in the cell, so the pointer shows it whole.
    let whole: Vec<&str> = [row.reason.as_deref(), check.as_deref(), words]
        .into_iter()
        .flatten()
        .collect();
    let text = row.reason.as_deref().or(check.as_deref());
    Cell {
        value: text.map_or(Value::Nothing, Value::text),
        tip: (!whole.is_empty()).then(|| whole.join("\n").into()),
    }
}

/// Checks that failed while the server was up, and what its traffic met.
pub(super) fn checks(row: &StatRow) -> Value {
    match (row.failed_checks, row.observed_faults) {
        (Some(failed), Some(faults)) if faults > 0 => Value::text(&format!("{failed}/{faults}")),
        (failed, _) => Value::count(failed),
    }
}
