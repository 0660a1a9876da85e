//! What happened to servers, as JSON: `/v1/events`, which can also be followed
//! as it happens.

use serde::Serialize;

use super::{
    json::{millis, to_text},
    view,
};
use crate::pool::{
    Timeline,
    state::{Change, Sign},
    timeline::Entry,
};
pub(super) use crate::rfc3339::millis as rfc3339;

/// The events after number `after`, oldest first, as `/v1/events` answers.
pub fn render(timeline: &Timeline, after: u64) -> String {
    let entries = timeline.since(after);
    let events = entries.iter().map(EventJson::of).collect();
    to_text(&EventsAnswer { events })
}

/// One event, in one line.
pub fn one(entry: &Entry) -> String {
    to_text(&EventJson::of(entry))
}

/// What the query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Query {
    /// `after=N`: only events later than that number.
    pub after: Option<u64>,
    /// `follow`: also those to come.
    pub follow: bool,
}

impl Query {
    /// Reads a query; an error is a line that says what is wrong with it.
    pub fn of(query: &str) -> Result<Self, &'static str> {
        let mut asked = Self::default();
        for part in query.split('&') {
            match part.split_once('=').unwrap_or((part, "")) {
                ("after", number) => asked.after = Some(event_number(number)?),
                ("follow", _) => asked.follow = true,
                _ => {}
            }
        }
        Ok(asked)
    }
}

/// Reads the number of an event.
pub(super) fn event_number(text: &str) -> Result<u64, &'static str> {
    text.parse()
        .map_err(|_| "an event's number is a whole number, such as after=12\n")
}

#[derive(Serialize)]
struct EventsAnswer<'a> {
    events: Vec<EventJson<'a>>,
}

#[derive(Serialize)]
struct EventJson<'a> {
    number: u64,
    time: String,
    server: &'a str,
    event: &'static str,
    reason: Option<String>,
    sign: Option<&'static str>,
    detection_ms: Option<f64>,
    text: String,
}

impl<'a> EventJson<'a> {
    fn of(entry: &'a Entry) -> Self {
        let event = &entry.event;
        let sign = event.detected.map(|detected| detected.sign);
        Self {
            number: entry.number,
            time: rfc3339(entry.at),
            server: event.server.as_str(),
            event: event.what.as_str(),
            reason: reason(&event.what),
            sign: sign.map(Sign::as_str),
            detection_ms: event.detected.map(|detected| millis(detected.took)),
            text: event.to_string(),
        }
    }
}

/// The reason in the words that `/v1/servers` has for it.
fn reason(change: &Change) -> Option<String> {
    match change {
        Change::Joined(status) | Change::Became(status) => view::reason(*status),
        Change::Left | Change::Removed | Change::Replaced | Change::Clash | Change::Refused => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::{pool::state::Event, stats::fixture};

    fn timeline() -> Timeline {
        let timeline = Timeline::default();
        timeline.add(Event {
            server: "s1".parse().unwrap(),
            what: Change::Left,
            detected: None,
        });
        let took = Duration::from_micros(3_200);
        timeline.add(fixture::found_down("s2", Sign::Lifeline, took));
        timeline
    }

    fn answer(after: u64) -> Vec<Value> {
        let mut answer: Value = serde_json::from_str(&render(&timeline(), after)).unwrap();
        let Value::Array(events) = answer["events"].take() else {
            panic!("a list of events");
        };
        events
    }

    #[test]
    fn an_event_says_what_happened_and_how_it_was_found_out() {
        let [left, down] = answer(0).try_into().unwrap();
        assert_eq!(left["number"], 1);
        assert_eq!(left["event"], "left");
        assert_eq!(left["text"], "s1 left");
        for nothing in ["reason", "sign", "detection_ms"] {
            assert_eq!(left[nothing], Value::Null, "{nothing}");
        }
        assert_eq!(down["number"], 2);
        assert_eq!(down["server"], "s2");
        assert_eq!(down["event"], "down");
        assert_eq!(down["reason"], "no answer to gossip");
        assert_eq!(down["sign"], "lifeline");
        assert_eq!(down["detection_ms"], json!(3.2));
        let text = down["text"].as_str().unwrap();
        assert!(text.starts_with("s2 is DOWN, reason: no answer to gossip"));
    }

    #[test]
    fn only_later_events_are_told_where_that_is_asked() {
        assert_eq!(answer(1).len(), 1);
        assert_eq!(answer(1)[0]["number"], 2);
        assert!(answer(2).is_empty());
    }

    #[test]
    fn a_query_is_read_and_a_number_that_is_none_is_told_of() {
        let asked = |after, follow| Ok(Query { after, follow });
        assert_eq!(Query::of(""), asked(None, false));
        assert_eq!(Query::of("after=12"), asked(Some(12), false));
        assert_eq!(Query::of("follow"), asked(None, true));
        assert_eq!(Query::of("x&follow=1&after=0"), asked(Some(0), true));
        for bad in ["after", "after=", "after=-1", "after=1x"] {
            let line = Query::of(bad).unwrap_err();
            assert_eq!(line.lines().count(), 1);
            assert!(line.ends_with('\n'));
        }
    }
}
