//! What a load balancer answers, as far as it is shown here. What an older
//! one does not tell yet is left empty.

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::cli::desk::printable;

/// Reads an answer. No text in it can steer the terminal any more.
pub fn read<T: DeserializeOwned>(answer: &str) -> serde_json::Result<T> {
    serde_json::from_value(cleaned(serde_json::from_str(answer)?))
}

fn cleaned(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(printable(&text)),
        Value::Array(list) => list.into_iter().map(cleaned).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            let fields: Map<_, _> = fields
                .map(|(name, value)| (printable(&name), cleaned(value)))
                .collect();
            Value::Object(fields)
        }
        other => other,
    }
}

/// All answers of one moment.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// `/v1/balancer`.
    pub balancer: Balancer,
    /// `/v1/servers`.
    pub servers: Vec<Server>,
    /// `/v1/members`.
    pub members: Vec<Member>,
    /// `/v1/events`: those that are new.
    pub events: Vec<Event>,
}

/// `/v1/balancer`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Balancer {
    pub version: String,
    pub node: String,
    #[serde(flatten)]
    pub life: Life,
    pub uptime_seconds: u64,
    pub service: String,
    pub balance: String,
    pub cookie: Option<String>,
    pub serves: bool,
    pub notes: Vec<Note>,
    pub connections: u64,
    pub active: u64,
    pub requests_per_second: u64,
    pub responses: Responses,
}

/// What tells one start of a load balancer from the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Life {
    pub pid: u32,
    pub started_unix: i64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Note {
    pub kind: String,
    pub text: String,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct Responses {
    #[serde(rename = "5xx")]
    pub server_error: u64,
}

/// `/v1/servers`.
#[derive(Debug, Deserialize)]
pub struct Servers {
    pub servers: Vec<Server>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Server {
    pub name: String,
    pub address: Option<String>,
    pub status: Status,
    pub reason: Option<String>,
    pub weight: u16,
    pub throttle_percent: Option<u8>,
    pub since_seconds: Option<u64>,
    pub origin: String,
    pub tags: BTreeMap<String, String>,
    pub active: u64,
    pub requests: u64,
    pub requests_per_second: u64,
    pub responses: Responses,
    pub connect_errors: Option<u64>,
    pub response_errors: Option<u64>,
    pub latency: BTreeMap<String, Latency>,
    pub last_check: Option<Check>,
}

impl Server {
    /// Requests that it answered with 5xx, broke off, or refused.
    pub fn errors(&self) -> u64 {
        let broken = self.connect_errors.unwrap_or(0) + self.response_errors.unwrap_or(0);
        self.responses.server_error + broken
    }

    /// Whether it takes users that have no server yet.
    pub fn takes_new(&self) -> bool {
        matches!(self.status, Status::Up | Status::Suspect) && self.weight > 0
    }
}

/// In the order of what needs a look first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Down,
    Suspect,
    Maint,
    Drain,
    Up,
    /// A word of a later version.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Down => "DOWN",
            Self::Suspect => "SUSPECT",
            Self::Maint => "MAINT",
            Self::Drain => "DRAIN",
            Self::Up => "UP",
            Self::Unknown => "?",
        }
    }
}

/// Response times of one class: counts that only grow.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Latency {
    pub count: u64,
    pub buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Bucket {
    pub le_ms: f64,
    pub count: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Check {
    pub code: String,
    pub description: String,
    pub took_ms: f64,
}

/// `/v1/members`.
#[derive(Debug, Deserialize)]
pub struct Members {
    pub members: Vec<Member>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Member {
    pub name: Option<String>,
    pub state: String,
    pub role: Option<String>,
    pub address: String,
    pub since_seconds: u64,
    pub local: bool,
    pub server: Option<Announced>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Announced {
    pub service: String,
    pub address: String,
    pub phase: String,
}

/// `/v1/events`.
#[derive(Debug, Deserialize)]
pub struct Events {
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Event {
    pub number: u64,
    pub time: String,
    pub event: String,
    pub text: String,
    pub sign: Option<String>,
    pub detection_ms: Option<f64>,
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::stats::{self, fixture, rows};

    #[test]
    fn what_the_statistics_answer_is_understood() {
        let (source, now) = (fixture::source(), Instant::now());
        let rows = rows(&source, now);
        let list: Servers = read(&stats::json::servers(&source, &rows)).unwrap();
        let s1 = &list.servers[0];
        assert_eq!((s1.name.as_str(), s1.status), ("s1", Status::Up));
        assert_eq!(s1.address.as_deref(), Some("10.0.0.49:3000"));
        assert_eq!((s1.requests, s1.responses.server_error), (1_234_567, 1));
        assert_eq!(list.servers[1].status, Status::Suspect);
        assert_eq!(list.servers[2].status, Status::Drain);
        let balancer: Balancer = read(&stats::balancer::render(&source, &rows, now)).unwrap();
        assert_eq!((balancer.node.as_str(), balancer.serves), ("ha", true));
        assert_eq!(balancer.notes[0].kind, "no_gossip_key");
        let list: Members = read(&stats::json::members(&(source.members)(), now)).unwrap();
        assert_eq!(list.members[0].role.as_deref(), Some("balancer"));
        assert_eq!(list.members[2].state, "suspect");
    }

    #[test]
    fn a_later_version_may_say_more() {
        let text = r#"{"servers":[{"name":"s1","status":"dozing","x":[1]}]}"#;
        let list: Servers = read(text).unwrap();
        assert_eq!(list.servers[0].status, Status::Unknown);
    }

    #[test]
    fn no_text_can_steer_the_terminal() {
        let text = r#"{"servers":[{"name":"s\u001b[2J1","tags":{"a\u0007":"b\r\u202e"}}]}"#;
        let list: Servers = read(text).unwrap();
        assert_eq!(list.servers[0].name, "s[2J1");
        assert_eq!(list.servers[0].tags["a"], "b");
    }
}
