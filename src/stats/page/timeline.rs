//! What happened lately: to which server, when, and how it was found out.

use std::sync::Arc;

use maud::{Markup, html};

use super::{
    cell::Value,
    scene::{Row, Shape, Table},
};
use crate::{
    pool::{
        Status, Timeline,
        state::{Change, Detection, Sign},
        timeline::Entry,
    },
    stats::events::rfc3339,
};

/// Events on the page; `/v1/events` has more.
const SHOWN: usize = 20;

/// The latest events, the newest first. `before` is the same a moment ago.
pub(super) fn table(timeline: &Timeline, before: Option<&Table>) -> Table {
    let newest = *timeline.follow().borrow();
    let first = before.and_then(|table| table.rows.first());
    match before {
        Some(before) if first.is_some_and(|row| row.key == newest.to_string()) => before.clone(),
        _ => Table {
            id: "server-events".into(),
            shape: Shape::Items,
            rows: rows(timeline, newest),
        },
    }
}

fn rows(timeline: &Timeline, newest: u64) -> Vec<Arc<Row>> {
    let entries = timeline.since(newest.saturating_sub(SHOWN as u64));
    let rows = entries.iter().rev().map(|entry| Row {
        key: entry.number.to_string(),
        class: class(&entry.event.what),
        cells: vec![Value::from(line(entry)).into()],
        server: None,
    });
    rows.map(Arc::new).collect()
}

fn line(entry: &Entry) -> Markup {
    let event = &entry.event;
    let at = rfc3339(entry.at);
    html! {
        time datetime=(at) { (at.replace('T', " ").trim_end_matches('Z')) }
        span { b { (event.server) } " " (event.what) }
        @if let Some(detected) = event.detected {
            span.found { (found_out(detected)) }
        }
    }
}

/// The line's colour: that of the server's row from then on.
fn class(change: &Change) -> &'static str {
    match change {
        Change::Joined(status) | Change::Became(status) => match status {
            Status::Up => "active_up",
            Status::Suspect => "active_going_down",
            Status::Drain => "active_draining",
            Status::Down(_) => "active_down",
            Status::Maint => "maintain",
        },
        Change::Clash | Change::Refused => "active_down",
        Change::Left | Change::Removed | Change::Replaced => "active_no_check",
    }
}

fn found_out(Detection { sign, took }: Detection) -> String {
    let by = match sign {
        Sign::Agent => "its agent",
        Sign::Lifeline => "its lifeline",
        Sign::Traffic => "a request",
        Sign::Check => "a check",
        Sign::Gossip => "gossip",
    };
    if took.is_zero() {
        format!("found out by {by} at once")
    } else {
        format!("found out by {by} in {took:.1?}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stats::{fixture, page::patch};

    fn page_of(events: impl IntoIterator<Item = (Sign, u64)>) -> String {
        let timeline = Timeline::default();
        for ((sign, millis), number) in events.into_iter().zip(1..) {
            let took = Duration::from_millis(millis);
            timeline.add(fixture::found_down(&format!("s{number}"), sign, took));
        }
        printed(&timeline)
    }

    fn printed(timeline: &Timeline) -> String {
        let table = table(timeline, None);
        let rows = table.rows.iter();
        rows.map(|row| patch::markup(row, table.shape, 0)).collect()
    }

    #[test]
    fn an_event_says_how_it_was_found_out_and_how_fast() {
        let page = page_of([(Sign::Lifeline, 3), (Sign::Gossip, 1400), (Sign::Agent, 0)]);
        assert!(page.contains("<b>s1</b> is DOWN, reason: no answer to gossip"));
        assert!(page.contains("found out by its lifeline in 3.0ms"));
        assert!(page.contains("found out by gossip in 1.4s"));
        assert!(page.contains("found out by its agent at once"));
        assert!(page.contains("<li class=\"active_down\" data-k=\"3\"><time datetime=\""));
    }

    #[test]
    fn the_newest_comes_first_and_old_ones_make_room() {
        let page = page_of([(Sign::Traffic, 1); SHOWN + 5]);
        assert_eq!(page.matches("<li").count(), SHOWN);
        let newest = page.find("<b>s25</b>").unwrap();
        assert!(newest < page.find("<b>s24</b>").unwrap());
        assert!(page.contains("<b>s6</b>") && !page.contains("<b>s5</b>"));
    }

    #[test]
    fn a_reason_cannot_put_anything_into_the_page() {
        use crate::pool::{server::Cause, state::Event};
        let timeline = Timeline::default();
        timeline.add(Event {
            server: "s1".parse().unwrap(),
            what: Change::Became(Status::Down(Cause::Refused)),
            detected: None,
        });
        let page = printed(&timeline);
        assert!(page.contains("info: &quot;Connection refused&quot;"));
        assert!(!page.contains("found out"));
    }
}
