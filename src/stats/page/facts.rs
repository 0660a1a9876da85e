//! What stands beside the tables: notes that nobody may overlook, the figures
//! of the whole, and facts of the process.

use std::time::Duration;

use maud::{Markup, html};

use super::{
    cell::Value,
    chart::{self, Scale},
    table::Context,
};
use crate::{
    membership::{MemberState, MemberView},
    stats::{
        source::Source,
        view::{Footing, Rows},
    },
};

/// Each by its name, which is where it stands on the page.
pub(super) fn spots(
    source: &Source,
    rows: &Rows,
    members: &[MemberView],
    context: &Context<'_>,
) -> Vec<(&'static str, Value)> {
    let frontend = &rows.frontend;
    let series = &context.history.all;
    let summary = series.summary();
    let rate = frontend.request_rate.unwrap_or(frontend.session_rate);
    let process = &source.process;
    vec![
        ("notes", notes(source, rows).into()),
        ("rate", Value::Count(rate.now.into())),
        ("rate-max", Value::Count(rate.max.into())),
        (
            "requests",
            chart::requests(series, Scale::own(series)).into(),
        ),
        ("latency", chart::latency(series, &summary).into()),
        (
            "failed",
            chart::errors(series, &summary, Scale::own(series)).into(),
        ),
        ("up", up(rows).into()),
        ("connections", Value::Count(frontend.sessions.now.into())),
        (
            "connections-max",
            Value::Count(frontend.sessions.max.into()),
        ),
        ("alive", alive(members).into()),
        (
            "uptime",
            Value::text(&uptime_text(context.moment.since(process.started))),
        ),
        ("conns", Value::Count(frontend.sessions.now.into())),
        ("conn-rate", Value::Count(frontend.session_rate.now.into())),
        ("req-rate", Value::Count(rate.now.into())),
        ("dropped", Value::Count(source.log_lines_dropped.get())),
    ]
}

fn notes(source: &Source, rows: &Rows) -> Markup {
    html! {
        @if source.is_draining() {
            p.warning role="alert" {
                strong { "Stopping: " }
                "no new connections are accepted, and what is under way is finished."
            }
        } @else if !(source.accepts)() {
            p.warning role="alert" {
                strong { "Paused: " }
                "an operator has disabled the frontend, and no new connections are accepted."
            }
        }
        @if let Some(warning) = rows.footing.warning() {
            p.warning role="alert" {
                strong { (urgency(rows.footing)) ": " } (warning)
            }
        }
        @if !source.gossip_keyed {
            p.warning role="alert" {
                strong { "Gossip is not protected: " }
                "without a key, anyone who reaches the gossip port from an address that it admits can add servers. "
                "Make a key with " code { "tidings keygen" }
                " and give it to every node as " code { "TIDINGS_GOSSIP_KEY" } "."
            }
        }
    }
}

fn urgency(footing: Footing) -> &'static str {
    match footing {
        Footing::Empty => "Empty pool",
        Footing::Nobody => "Nobody serves",
        Footing::Lost | Footing::KeptOut => "Fail-open",
        Footing::Firm | Footing::Suspected => "Attention",
    }
}

fn up(rows: &Rows) -> Markup {
    let count = |is: fn(&crate::stats::view::StatRow) -> bool| {
        rows.servers.iter().filter(|row| is(row)).count()
    };
    let all = rows.servers.len();
    let up = count(|row| !row.status.is_out() && !row.status.is_draining());
    let others = [
        (count(|row| row.status.is_draining()), "draining"),
        (count(|row| row.status.is_down()), "down"),
        (count(|row| row.status.is_maintenance()), "in maintenance"),
    ];
    let others: Vec<String> = others
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, words)| format!("{count} {words}"))
        .collect();
    html! {
        b { (up) span.of { " / " (all) } }
        small { @if others.is_empty() { "all up" } @else { (others.join(", ")) } }
    }
}

fn alive(members: &[MemberView]) -> Markup {
    let count = |state| members.iter().filter(|m| m.state == state).count();
    let others = [
        (MemberState::Suspect, "suspected"),
        (MemberState::Down, "down"),
        (MemberState::Left, "left"),
    ];
    let others: Vec<String> = others
        .into_iter()
        .map(|(state, words)| (count(state), words))
        .filter(|(count, _)| *count > 0)
        .map(|(count, words)| format!("{count} {words}"))
        .collect();
    html! {
        b { (count(MemberState::Alive)) }
        small { @if others.is_empty() { "alive" } @else { "alive, " (others.join(", ")) } }
    }
}

/// `HAProxy`'s way to print an uptime, which monitoring agents look for.
pub(crate) fn uptime_text(uptime: Duration) -> String {
    let seconds = uptime.as_secs();
    format!(
        "{}d {}h{:02}m{:02}s",
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60
    )
}
