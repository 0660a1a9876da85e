//! `tidings servers` and `members`: what a running load balancer knows, as a
//! table or as JSON.

use std::{process::ExitCode, time::Duration};

use anyhow::anyhow;
use clap::Args;
use serde_json::Value;

use super::{
    desk::{Desk, printable},
    out::say,
};

/// Where to look, and how to show it.
#[derive(Debug, Clone, Args)]
pub struct LookArgs {
    /// The load balancer.
    #[command(flatten)]
    pub desk: Desk,
    /// As JSON, with everything there is to know
    #[arg(long)]
    pub json: bool,
}
/// Lists the servers.
pub async fn servers(args: LookArgs) -> anyhow::Result<ExitCode> {
    show(&args, "servers", SERVERS).await
}

/// Lists the members of the cluster.
pub async fn members(args: LookArgs) -> anyhow::Result<ExitCode> {
    show(&args, "members", MEMBERS).await
}

/// A column: its heading, where its value is in one of the list, and how
/// that is shown.
type Column = (&'static str, &'static str, fn(&Value) -> String);

const SERVERS: &[Column] = &[
    ("NAME", "/name", text),
    ("ADDRESS", "/address", text),
    ("STATUS", "/status", text),
    ("WEIGHT", "/weight", text),
    ("THROTTLE", "/throttle_percent", percent),
    ("ACTIVE", "/active", text),
    ("REQUESTS", "/requests", text),
    ("PER SECOND", "/requests_per_second", text),
    ("SINCE", "/since_seconds", ago),
    ("REASON", "/reason", text),
];

const MEMBERS: &[Column] = &[
    ("NAME", "/name", text),
    ("ROLE", "/role", text),
    ("STATE", "/state", text),
    ("ADDRESS", "/address", text),
    ("SINCE", "/since_seconds", ago),
    ("SERVES", "/server/service", text),
    ("AT", "/server/address", text),
];

async fn show(args: &LookArgs, what: &str, columns: &[Column]) -> anyhow::Result<ExitCode> {
    let answer = args.desk.get(&format!("/v1/{what}")).await?;
    let shown = if args.json {
        answer
    } else {
        let no_list = || anyhow!("{} answers, but not with {what}", args.desk.stats);
        let answer: Value = serde_json::from_str(&answer).map_err(|_| no_list())?;
        table(
            columns,
            answer
                .get(what)
                .and_then(Value::as_array)
                .ok_or_else(no_list)?,
        )
    };
    say(shown.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Rows under headings, each column as wide as its widest cell.
fn table(columns: &[Column], list: &[Value]) -> String {
    let headings = columns.iter().map(|(heading, ..)| (*heading).to_owned());
    let cells = |row: &Value| columns.iter().map(|column| cell(column, row)).collect();
    let rows: Vec<Vec<String>> = std::iter::once(headings.collect())
        .chain(list.iter().map(cells))
        .collect();
    let width = |index: usize| {
        let cells = rows.iter().filter_map(|row| row.get(index));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let lines = rows.iter().map(|row| {
        let padded = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn cell((_, path, show): &Column, row: &Value) -> String {
    row.pointer(path).map_or_else(|| text(&Value::Null), show)
}

/// A value as a cell.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

fn percent(value: &Value) -> String {
    value
        .as_u64()
        .map_or_else(|| text(value), |percent| format!("{percent}%"))
}

fn ago(seconds: &Value) -> String {
    let Some(seconds) = seconds.as_u64() else {
        return text(seconds);
    };
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let list = [
            json!({ "name": "s1", "role": "server", "state": "alive", "address": "10.0.0.1:7946",
                "since_seconds": 61, "server": { "service": "nodes", "address": "10.0.0.1:3000" } }),
            json!({ "name": "balancer", "role": "balancer", "state": "down", "address": "10.0.0.2:7946",
                "since_seconds": 0, "server": null }),
        ];
        assert_eq!(
            table(MEMBERS, &list),
            "NAME      ROLE      STATE  ADDRESS        SINCE  SERVES  AT\n\
             s1        server    alive  10.0.0.1:7946  1m 1s  nodes   10.0.0.1:3000\n\
             balancer  balancer  down   10.0.0.2:7946  0s     -       -"
        );
    }

    #[test]
    fn a_server_that_warms_up_says_how_far_it_is() {
        let list = [
            json!({ "name": "s1", "throttle_percent": 5 }),
            json!({ "name": "s2" }),
        ];
        let table = table(SERVERS, &list);
        let rows: Vec<&str> = table.lines().collect();
        assert!(rows[0].contains("THROTTLE"), "{table}");
        assert!(rows[1].contains("5%") && !rows[2].contains('%'), "{table}");
    }

    #[test]
    fn a_cell_cannot_steer_the_terminal() {
        assert_eq!(text(&json!("a\u{1b}[2Jb")), "a[2Jb");
    }
}
