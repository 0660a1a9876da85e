//! A proxy's table: `HAProxy`'s thirty columns, in its order and its colours.

use maud::{Markup, html};

use super::age;
use crate::stats::view::{Kind, RowStatus, StatRow, Times};

/// Groups of columns, as the table's head shows them.
pub(super) const HEAD: [(&str, &[&str]); 8] = [
    ("Queue", &["Cur", "Max", "Limit"]),
    ("Session rate", &["Cur", "Max", "Limit"]),
    (
        "Sessions",
        &["Cur", "Max", "Limit", "Total", "LbTot", "Last"],
    ),
    ("Bytes", &["In", "Out"]),
    ("Denied", &["Req", "Resp"]),
    ("Errors", &["Req", "Conn", "Resp"]),
    ("Warnings", &["Retr", "Redis"]),
    (
        "Server",
        &[
            "Status", "LastChk", "Wght", "Act", "Bck", "Chk", "Dwn", "Dwntme", "Thrtle",
        ],
    ),
];

/// The table of one proxy.
pub(super) fn proxy<'a>(
    name: &str,
    words: &str,
    rows: impl Iterator<Item = &'a StatRow>,
) -> Markup {
    html! {
        div.proxy id=(name) {
            h3.name { a href=(format!("#{name}")) { (name) } span { (words) } }
            div.scroll tabindex="0" role="region" aria-label=(name) {
                table {
                    thead {
                        tr.titre {
                            th rowspan="2" {}
                            @for (group, columns) in HEAD {
                                th colspan=(columns.len()) scope="colgroup" { (group) }
                            }
                        }
                        tr.titre {
                            @for column in HEAD.iter().flat_map(|(_, columns)| *columns) {
                                th scope="col" { (column) }
                            }
                        }
                    }
                    tbody { @for row in rows { (line(row)) } }
                }
            }
        }
    }
}

fn line(row: &StatRow) -> Markup {
    let anchor = format!("{}/{}", row.proxy, row.name);
    html! {
        tr class=(class(row)) {
            th.ac scope="row" id=(anchor) title=[about(row)] {
                a href=(format!("#{anchor}")) { (title(row)) }
            }
            // Nobody waits in a queue of a server's own, so there is none to show.
            td {} td {} td {}
            (session_rate(row))
            (sessions(row))
            td { (grouped(row.bytes_in)) }
            td { (grouped(row.bytes_out)) }
            // Nothing is ever denied: there are no rules that could.
            td {} td {}
            (errors(row))
            (server(row))
        }
    }
}

fn title(row: &StatRow) -> &str {
    match row.kind {
        Kind::Frontend => "Frontend",
        Kind::Backend => "Backend",
        Kind::Server => &row.name,
    }
}

/// What a pointer over the name shows.
fn about(row: &StatRow) -> Option<String> {
    let server = row.server.as_ref()?;
    let addr = server
        .addr
        .map_or("no address".into(), |addr| addr.to_string());
    let tags = server
        .tags
        .iter()
        .map(|(key, value)| format!("\n{key}={value}"));
    Some(addr + &tags.collect::<String>())
}

fn session_rate(row: &StatRow) -> Markup {
    let requests = row
        .request_rate
        .map(|rate| format!("Requests a second: {}, at most {}", rate.now, rate.max));
    html! {
        td { span title=[requests] { (grouped(row.session_rate.now)) } }
        td { (grouped(row.session_rate.max)) }
        td {}
    }
}

fn sessions(row: &StatRow) -> Markup {
    let idle = row
        .idle_connections
        .map(|idle| format!("Idle connections: {idle}"));
    html! {
        td { span title=[idle] { (grouped(row.sessions.now)) } }
        td { (grouped(row.sessions.max)) }
        td { (figure(row.sessions_limit)) }
        td { span title=(details(row)) { (grouped(row.sessions_total)) } }
        td { (figure(row.balanced)) }
        td {
            @match (row.kind, row.last_request) {
                (Kind::Frontend, _) => "",
                (_, Some(seconds)) => (age(std::time::Duration::from_secs(seconds))),
                (_, None) => "?",
            }
        }
    }
}

/// What a pointer over the total shows.
fn details(row: &StatRow) -> String {
    let mut lines = vec![format!("Requests: {}", row.requests)];
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];
    let responses = classes.iter().zip(row.responses);
    lines.extend(responses.map(|(class, responses)| format!("HTTP {class}: {responses}")));
    if let (Some(connects), Some(reuses)) = (row.connects, row.reuses) {
        lines.push(format!("New connections: {connects}, reused: {reuses}"));
    }
    let times = [
        ("Connect", row.connect_time),
        ("Response", row.response_time),
        ("Total", row.total_time),
    ];
    lines.extend(times.into_iter().filter_map(|(name, times)| {
        let Times { average, max } = times?;
        Some(format!(
            "{name} time: {average:.1?} on average over the last 1024, at most {max:.1?}"
        ))
    }));
    lines.join("\n")
}

fn errors(row: &StatRow) -> Markup {
    let aborts = row
        .client_aborts
        .zip(row.server_aborts)
        .map(|(client, server)| {
            format!("Connection resets during transfers: {client} client, {server} server")
        });
    html! {
        td { (figure(row.request_errors)) }
        td { (figure(row.connect_errors)) }
        td { span title=[aborts] { (figure(row.response_errors)) } }
        td { (figure(row.retries)) }
        td { (figure(row.redispatches)) }
    }
}

fn server(row: &StatRow) -> Markup {
    html! {
        td.ac { (status(row)) }
        (last_check(row))
        td.ac {
            @if let (Some(effective), Some(weight)) = (row.effective_weight, row.weight) {
                (effective) "/" (weight)
            }
        }
        td.ac { (active(row)) }
        td.ac {
            @match row.kind {
                Kind::Frontend => "",
                Kind::Backend => "0",
                Kind::Server => "-",
            }
        }
        td { (figure(row.failed_checks)) }
        td { (figure(row.downs)) }
        td { @if let Some(downtime) = row.downtime { (age(downtime)) } }
        td { (throttle(row)) }
    }
}

fn status(row: &StatRow) -> Markup {
    let arrow = match row.status {
        RowStatus::GoingDown(..) | RowStatus::Suspect => " \u{2193}",
        RowStatus::GoingUp(..) => " \u{2191}",
        _ => "",
    };
    let bad = row.kind == Kind::Backend && row.status.is_down();
    html! {
        @if let Some(since) = row.since { (age(since)) " " }
        @if bad { strong.bad { (row.status_text()) } }
        @else if row.status == RowStatus::NoCheck { em { (row.status_text()) } }
        @else { (row.status_text()) }
        (arrow)
    }
}

/// The present reason comes first: an old check that passed explains nothing
/// about a server that is down.
fn last_check(row: &StatRow) -> Markup {
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
    let title = (!whole.is_empty()).then(|| whole.join("\n"));
    html! {
        td.ac.check title=[title] {
            @match (&row.reason, &check) {
                (Some(reason), _) => (reason),
                (None, Some(check)) => (check),
                (None, None) => "",
            }
        }
    }
}

fn active(row: &StatRow) -> String {
    match (row.kind, row.active) {
        (Kind::Server, Some(_)) => "Y".into(),
        (_, Some(active)) => active.to_string(),
        (_, None) => String::new(),
    }
}

fn throttle(row: &StatRow) -> String {
    match (row.kind, row.throttle) {
        (Kind::Server, Some(percent)) => format!("{percent} %"),
        (Kind::Server, None) => "-".into(),
        _ => String::new(),
    }
}

fn class(row: &StatRow) -> &'static str {
    match (row.kind, row.status) {
        (Kind::Frontend, _) => "frontend",
        (Kind::Backend, _) => "backend",
        (Kind::Server, RowStatus::GoingDown(..) | RowStatus::Suspect) => "active_going_down",
        (Kind::Server, RowStatus::Down | RowStatus::DownByAgent) => "active_down",
        (Kind::Server, RowStatus::GoingUp(..)) => "active_going_up",
        (Kind::Server, RowStatus::Drain) => "active_draining",
        (Kind::Server, RowStatus::Maint) => "maintain",
        (Kind::Server, RowStatus::NoCheck) => "active_no_check",
        (Kind::Server, RowStatus::Up | RowStatus::Open | RowStatus::Stop) => "active_up",
    }
}

fn figure(figure: Option<impl Into<u64>>) -> Markup {
    html! { @if let Some(figure) = figure { (grouped(figure)) } }
}

/// A number in groups of three digits, set apart by space alone, so that it
/// is copied as it is.
fn grouped(number: impl Into<u64>) -> Markup {
    let digits = number.into().to_string();
    let first = (digits.len() + 2) % 3 + 1;
    let (head, tail) = digits.split_at(first);
    html! {
        (head)
        @for group in tail.as_bytes().chunks(3) {
            span.group { (String::from_utf8_lossy(group)) }
        }
    }
}
