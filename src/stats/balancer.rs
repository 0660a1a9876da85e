//! The load balancer itself as JSON: `/v1/balancer`.

use serde::Serialize;
use tokio::time::Instant;

use super::{
    json::{Responses, to_text},
    source::Source,
    view::{Footing, Rows},
};

/// What it is, how it is doing, and what an operator should know of it.
pub fn render(source: &Source, rows: &Rows, now: Instant) -> String {
    let process = &source.process;
    let frontend = &rows.frontend;
    let rate = frontend.request_rate.unwrap_or_default();
    to_text(&BalancerJson {
        version: process.version,
        node: &process.node,
        pid: process.pid,
        started_unix: process.started_unix,
        uptime_seconds: now.saturating_duration_since(process.started).as_secs(),
        service: source.service.as_str(),
        balance: source.balance,
        cookie: source.cookie.as_deref(),
        stopping: source.is_draining(),
        serves: rows.footing.serves(),
        notes: notes(source, rows.footing),
        connections: frontend.sessions.now,
        connections_max: frontend.sessions.max,
        connections_limit: frontend.sessions_limit,
        active: rows.backend.sessions.now,
        requests: frontend.requests,
        requests_per_second: rate.now,
        requests_per_second_max: rate.max,
        responses: frontend.responses.into(),
    })
}

#[derive(Serialize)]
struct BalancerJson<'a> {
    version: &'a str,
    node: &'a str,
    pid: u32,
    started_unix: i64,
    uptime_seconds: u64,
    service: &'a str,
    balance: &'a str,
    cookie: Option<&'a str>,
    stopping: bool,
    serves: bool,
    notes: Vec<Note>,
    connections: u32,
    connections_max: u32,
    connections_limit: Option<u32>,
    active: u32,
    requests: u64,
    requests_per_second: u32,
    requests_per_second_max: u32,
    responses: Responses,
}

/// Something that nobody should overlook; `kind` is stable, `text` is for
/// people.
#[derive(Serialize)]
struct Note {
    kind: &'static str,
    text: &'static str,
}

/// The gravest first.
fn notes(source: &Source, footing: Footing) -> Vec<Note> {
    let stopping = source.is_draining().then_some(Note {
        kind: "stopping",
        text: "No new connections are accepted, and what is under way is finished.",
    });
    let pool = footing.warning().map(|text| Note {
        kind: match footing {
            Footing::Empty => "empty_pool",
            Footing::Nobody => "nobody_serves",
            Footing::Lost | Footing::KeptOut => "fail_open",
            Footing::Firm | Footing::Suspected => "all_suspected",
        },
        text,
    });
    let key = (!source.gossip_keyed).then_some(Note {
        kind: "no_gossip_key",
        text: "Whoever reaches the gossip port from an address it admits can add servers: see tidings keygen.",
    });
    [stopping, pool, key].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use serde_json::{Value, json};

    use super::*;
    use crate::stats::{fixture, rows};

    fn answer(source: &Source) -> Value {
        let now = Instant::now();
        serde_json::from_str(&render(source, &rows(source, now), now)).unwrap()
    }

    #[test]
    fn a_balancer_says_what_it_is_and_how_it_is_doing() {
        let answer = answer(&fixture::source());
        assert_eq!(answer["node"], "ha");
        assert_eq!(answer["service"], "nodes");
        assert_eq!(answer["started_unix"], 1_700_000_000);
        assert_eq!(answer["connections"], 1);
        assert_eq!(answer["requests"], 1_234_567);
        assert_eq!(answer["serves"], true);
        assert_eq!(answer["stopping"], false);
    }

    #[test]
    fn what_nobody_should_overlook_has_a_stable_word_and_a_sentence() {
        let source = fixture::source();
        source.draining.store(true, Relaxed);
        let answer = answer(&source);
        let kinds: Vec<&Value> = answer["notes"].as_array().unwrap().iter().collect();
        let kinds: Vec<&Value> = kinds.into_iter().map(|note| &note["kind"]).collect();
        assert_eq!(json!(kinds), json!(["stopping", "no_gossip_key"]));
        let notes = notes(&source, Footing::Empty);
        assert_eq!(notes[1].kind, "empty_pool");
        assert_eq!(Some(notes[1].text), Footing::Empty.warning());
    }
}
