//! A load balancer's answers, for tests.

use std::time::Duration;

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    answer::{self, Answers, Events, Members, Servers},
    input::{self, Effect},
    model::Model,
};

/// A server that is up, but for what `but` says.
pub(super) fn server(name: &str, but: &Value) -> Value {
    let mut server = json!({
        "name": name, "address": "10.0.0.1:3000", "status": "up", "reason": null, "weight": 1,
        "throttle_percent": null, "since_seconds": 61, "origin": "gossip", "tags": {},
        "active": 0, "requests": 0, "requests_per_second": 0, "responses": { "5xx": 0 },
        "connect_errors": 0, "response_errors": 0, "last_check": null,
    });
    for (field, value) in but.as_object().unwrap() {
        server[field] = value.clone();
    }
    server
}

/// Answers with these servers.
pub(super) fn answers(servers: &[Value]) -> Answers {
    let Servers { servers } = answer::read(&json!({ "servers": servers }).to_string()).unwrap();
    let balancer = json!({
        "version": "0.1.0", "node": "ha", "pid": 1, "started_unix": 1_700_000_000, "uptime_seconds": 312,
        "service": "nodes", "balance": "roundrobin", "cookie": "SERVERID", "serves": true,
        "notes": [], "connections": 56, "active": 12, "requests_per_second": 1234,
        "responses": { "5xx": 3 },
    });
    let members = json!({ "members": [
        { "name": "ha", "role": "balancer", "state": "alive", "address": "10.0.0.9:7946",
          "since_seconds": 312, "local": true, "server": null },
        { "name": "s1", "role": "server", "state": "suspect", "address": "10.0.0.1:7946",
          "since_seconds": 61, "local": false,
          "server": { "service": "nodes", "address": "10.0.0.1:3000", "phase": "ready" } },
    ] });
    let events = json!({ "events": [
        { "number": 1, "time": "2026-11-22T13:41:14.000Z", "event": "joined",
          "text": "s2 joined and is UP" },
        { "number": 2, "time": "2026-11-22T13:41:15.823Z", "event": "down", "sign": "lifeline",
          "detection_ms": 3.2, "text": "s2 is DOWN, reason: connection refused" },
    ] });
    let Members { members } = answer::read(&members.to_string()).unwrap();
    let Events { events } = answer::read(&events.to_string()).unwrap();
    Answers {
        balancer: answer::read(&balancer.to_string()).unwrap(),
        servers,
        members,
        events,
    }
}

/// A model that has been answered with these servers a second ago.
pub(super) fn model(servers: &[Value]) -> Model {
    let mut model = Model::default();
    let now = Instant::now();
    model.answered(
        answers(servers),
        now.checked_sub(Duration::from_secs(1)).unwrap(),
    );
    model
}

/// Servers s1 to s3, all up.
pub(super) fn three() -> Model {
    model(&["s1", "s2", "s3"].map(|name| server(name, &json!({}))))
}

/// Presses a key.
pub(super) fn press(model: &mut Model, code: KeyCode) -> Effect {
    let event = Event::Key(KeyEvent::new(code, KeyModifiers::NONE));
    input::handle(model, &event, Instant::now())
}

/// Types a text, and returns what the last key did.
pub(super) fn type_in(model: &mut Model, text: &str) -> Effect {
    let effects = text.chars().map(|c| press(model, KeyCode::Char(c)));
    effects.last().unwrap()
}
