//! The statistics as JSON, for programs: `/v1/servers` and `/v1/members`.
//! (`/v1/events` is in [`events`](super::events).) Names are stable; a figure that is not measured is `null`.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use super::{
    source::Source,
    view::{Rows, StatRow, Times},
};
use crate::{
    counters::{CLASSES, Distribution},
    membership::{Announcement, MemberState, MemberView, Name, Phase, Role},
    pool::{
        Server, Status,
        server::{CheckReport, Origin},
    },
};

/// The servers, as `/v1/servers` answers.
pub fn servers(source: &Source, rows: &Rows) -> String {
    let servers = rows
        .servers
        .iter()
        .filter_map(|row| Some(ServerJson::of(row, row.server.as_deref()?)))
        .collect();
    to_text(&ServersAnswer {
        service: &source.service,
        balance: source.balance,
        servers,
    })
}

/// The members, as `/v1/members` answers.
pub fn members(members: &[MemberView], now: Instant) -> String {
    let members = members.iter().map(|row| MemberJson::of(row, now)).collect();
    to_text(&MembersAnswer { members })
}

pub(super) fn to_text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structs with text keys always serialise")
}

#[derive(Serialize)]
struct ServersAnswer<'a> {
    service: &'a Name,
    balance: &'a str,
    servers: Vec<ServerJson<'a>>,
}

#[derive(Serialize)]
struct ServerJson<'a> {
    name: &'a str,
    address: Option<SocketAddr>,
    status: &'static str,
    reason: Option<&'a str>,
    weight: u16,
    throttle_percent: Option<u8>,
    since_seconds: Option<u64>,
    origin: &'static str,
    tags: &'a BTreeMap<String, String>,
    active: u32,
    active_max: u32,
    maxconn: Option<u32>,
    waiting: Option<u32>,
    waiting_max: Option<u32>,
    requests: u64,
    requests_per_second: u32,
    balanced: Option<u64>,
    last_request_seconds: Option<u64>,
    responses: Responses,
    bytes_in: u64,
    bytes_out: u64,
    bytes_to_server: u64,
    bytes_from_server: u64,
    latency: BTreeMap<&'static str, LatencyJson>,
    connect_errors: Option<u64>,
    response_errors: Option<u64>,
    internal_errors: u64,
    observed_faults: Option<u64>,
    retries: Option<u64>,
    redispatches: Option<u64>,
    rescues: Option<u64>,
    tunnels_closed: Option<u64>,
    client_aborts: Option<u64>,
    server_aborts: Option<u64>,
    connects: Option<u64>,
    reuses: Option<u64>,
    idle_connections: Option<u32>,
    used_connections: Option<u32>,
    needed_connections: Option<u32>,
    queue_time: Option<TimesJson>,
    connect_time: Option<TimesJson>,
    response_time: Option<TimesJson>,
    total_time: Option<TimesJson>,
    last_check: Option<CheckJson>,
    failed_checks: Option<u64>,
    downs: Option<u64>,
    downtime_seconds: Option<u64>,
}

impl<'a> ServerJson<'a> {
    fn of(row: &'a StatRow, server: &'a Server) -> Self {
        Self {
            name: &row.name,
            address: server.addr,
            status: status(server.status),
            reason: row.reason.as_deref(),
            weight: server.weight,
            throttle_percent: row.throttle,
            since_seconds: row.since.map(|since| since.as_secs()),
            origin: match server.origin {
                Origin::Static => "static",
                Origin::Gossip(_) => "gossip",
            },
            tags: &server.tags,
            active: row.sessions.now,
            active_max: row.sessions.max,
            maxconn: row.sessions_limit,
            waiting: row.queue.map(|queue| queue.now),
            waiting_max: row.queue.map(|queue| queue.max),
            requests: row.requests,
            requests_per_second: row.session_rate.now,
            balanced: row.balanced,
            last_request_seconds: row.last_request,
            responses: row.responses.into(),
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
            bytes_to_server: row.bytes_to_servers,
            bytes_from_server: row.bytes_from_servers,
            latency: latency(row),
            connect_errors: row.connect_errors,
            response_errors: row.response_errors,
            internal_errors: row.internal_errors,
            observed_faults: row.observed_faults,
            retries: row.retries,
            redispatches: row.redispatches,
            rescues: row.rescues,
            tunnels_closed: row.tunnels_closed,
            client_aborts: row.client_aborts,
            server_aborts: row.server_aborts,
            connects: row.connects,
            reuses: row.reuses,
            idle_connections: row.idle_connections,
            used_connections: row.used_connections,
            needed_connections: row.needed_connections,
            queue_time: row.queue_time.map(Into::into),
            connect_time: row.connect_time.map(Into::into),
            response_time: row.response_time.map(Into::into),
            total_time: row.total_time.map(Into::into),
            last_check: server.last_check.as_ref().map(Into::into),
            failed_checks: row.failed_checks,
            downs: row.downs,
            downtime_seconds: row.downtime.map(|downtime| downtime.as_secs()),
        }
    }
}

pub(super) fn status(status: Status) -> &'static str {
    match status {
        Status::Up => "up",
        Status::Suspect => "suspect",
        Status::Drain => "drain",
        Status::Down(_) => "down",
        Status::Maint => "maint",
    }
}

#[derive(Serialize)]
pub(super) struct Responses {
    #[serde(rename = "1xx")]
    informational: u64,
    #[serde(rename = "2xx")]
    success: u64,
    #[serde(rename = "3xx")]
    redirection: u64,
    #[serde(rename = "4xx")]
    client_error: u64,
    #[serde(rename = "5xx")]
    server_error: u64,
    other: u64,
}

impl From<[u64; 6]> for Responses {
    fn from(by_class: [u64; 6]) -> Self {
        let [
            informational,
            success,
            redirection,
            client_error,
            server_error,
            other,
        ] = by_class;
        Self {
            informational,
            success,
            redirection,
            client_error,
            server_error,
            other,
        }
    }
}

/// The classes that have occurred.
fn latency(row: &StatRow) -> BTreeMap<&'static str, LatencyJson> {
    let by_class = row.latency.as_deref().into_iter().flatten();
    let classes = CLASSES.into_iter().zip(by_class);
    let occurred = classes.filter(|(_, latency)| latency.count() > 0);
    occurred.map(|(class, of)| (class, of.into())).collect()
}

/// How long answers took to begin, as counts that only grow: whoever asks
/// twice has the distribution in between.
#[derive(Serialize)]
struct LatencyJson {
    count: u64,
    sum_ms: f64,
    buckets: Vec<BucketJson>,
}

/// How many took no longer than that. Those above the last are in `count`.
#[derive(Serialize)]
struct BucketJson {
    le_ms: f64,
    count: u64,
}

impl From<&Distribution> for LatencyJson {
    fn from(of: &Distribution) -> Self {
        let buckets = of.cumulative().map(|(seconds, count)| BucketJson {
            le_ms: (seconds * 1e6).round() / 1e3,
            count,
        });
        Self {
            count: of.count(),
            sum_ms: millis(of.sum),
            buckets: buckets.collect(),
        }
    }
}

#[derive(Serialize)]
struct TimesJson {
    average_ms: f64,
    max_ms: f64,
}

impl From<Times> for TimesJson {
    fn from(times: Times) -> Self {
        Self {
            average_ms: millis(times.average),
            max_ms: millis(times.max),
        }
    }
}

#[derive(Serialize)]
struct CheckJson {
    code: &'static str,
    description: &'static str,
    http_status: Option<u16>,
    took_ms: f64,
}

impl From<&CheckReport> for CheckJson {
    fn from(report: &CheckReport) -> Self {
        Self {
            code: report.code.as_str(),
            description: report.code.description(),
            http_status: report.http_status,
            took_ms: millis(report.took),
        }
    }
}

pub(super) fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

#[derive(Serialize)]
struct MembersAnswer<'a> {
    members: Vec<MemberJson<'a>>,
}

#[derive(Serialize)]
struct MemberJson<'a> {
    name: Option<&'a Name>,
    state: MemberState,
    role: Option<&'static str>,
    address: SocketAddr,
    epoch: u64,
    generation: u32,
    incarnation: Option<u16>,
    since_seconds: u64,
    local: bool,
    server: Option<AnnouncementJson<'a>>,
}

impl<'a> MemberJson<'a> {
    fn of(row: &'a MemberView, now: Instant) -> Self {
        let role = row.meta.as_ref().map(|meta| &meta.role);
        Self {
            name: row.meta.as_ref().map(|meta| &meta.name),
            state: row.state,
            role: role.map(|role| match role {
                Role::Balancer => "balancer",
                Role::Server(_) => "server",
            }),
            address: row.id.addr,
            epoch: row.id.epoch,
            generation: row.generation,
            incarnation: row.incarnation,
            since_seconds: now.saturating_duration_since(row.since).as_secs(),
            local: row.local,
            server: role.and_then(|role| match role {
                Role::Balancer => None,
                Role::Server(announced) => Some(announced.into()),
            }),
        }
    }
}

#[derive(Serialize)]
struct AnnouncementJson<'a> {
    service: &'a Name,
    address: SocketAddr,
    weight: u16,
    phase: &'static str,
    tags: &'a BTreeMap<String, String>,
}

impl<'a> From<&'a Announcement> for AnnouncementJson<'a> {
    fn from(announced: &'a Announcement) -> Self {
        Self {
            service: &announced.service,
            address: announced.addr,
            weight: announced.weight,
            phase: phase(announced.phase),
            tags: &announced.tags,
        }
    }
}

/// An announced phase in one word.
pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Down => "down",
        Phase::Ready => "ready",
        Phase::Draining => "draining",
        Phase::Leaving => "leaving",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::stats::{fixture, rows};

    fn servers_now() -> Value {
        servers_of(&fixture::source())
    }

    fn servers_of(source: &Source) -> Value {
        let text = servers(source, &rows(source, Instant::now()));
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn servers_are_listed_with_their_service() {
        let answer = servers_now();
        assert_eq!(answer["service"], "nodes");
        assert_eq!(answer["balance"], "roundrobin");
        let names: Vec<&Value> = answer["servers"].as_array().unwrap().iter().collect();
        let names: Vec<&Value> = names.into_iter().map(|server| &server["name"]).collect();
        assert_eq!(names, ["s1", "s2", "s3", "s4", "s5", "t1", "t2"]);
    }

    #[test]
    fn a_server_says_where_it_is_and_how_it_is_doing() {
        let answer = servers_now();
        let s1 = &answer["servers"][0];
        assert_eq!(s1["address"], "10.0.0.49:3000");
        assert_eq!(s1["status"], "up");
        assert_eq!(s1["reason"], Value::Null);
        assert_eq!(s1["origin"], "gossip");
        assert_eq!(s1["tags"], json!({ "note": fixture::HOSTILE }));
        assert_eq!(s1["requests"], 1_234_567);
        assert_eq!(
            s1["responses"],
            json!({ "1xx": 0, "2xx": 1, "3xx": 0, "4xx": 0, "5xx": 1, "other": 0 })
        );
        assert_eq!(
            s1["connect_time"],
            json!({ "average_ms": 3.0, "max_ms": 3.0 })
        );
        assert_eq!(s1["last_check"], Value::Null);
        assert_eq!(s1["queue_time"], Value::Null);
        assert_eq!(
            (&s1["used_connections"], &s1["internal_errors"]),
            (&json!(0), &json!(0))
        );
    }

    #[test]
    fn latency_is_told_by_the_classes_that_have_occurred() {
        let latency = &servers_now()["servers"][0]["latency"];
        let classes: Vec<&String> = latency.as_object().unwrap().keys().collect();
        assert_eq!(classes, ["2xx", "5xx"]);
        let ok = &latency["2xx"];
        assert_eq!((&ok["count"], &ok["sum_ms"]), (&json!(1), &json!(7.0)));
        assert_eq!(ok["buckets"][0], json!({ "le_ms": 0.5, "count": 0 }));
        assert_eq!(ok["buckets"][4], json!({ "le_ms": 10.0, "count": 1 }));
        assert_eq!(ok["buckets"][15], json!({ "le_ms": 60_000.0, "count": 1 }));
    }

    #[test]
    fn a_status_is_one_of_five_words_with_a_reason_beside_it() {
        let answer = servers_now();
        let of = |index: usize| {
            let server = &answer["servers"][index];
            (server["status"].clone(), server["reason"].clone())
        };
        assert_eq!(of(1), (json!("suspect"), json!("gossip suspects it")));
        assert_eq!(of(2), (json!("drain"), Value::Null));
        assert_eq!(of(4), (json!("down"), json!("no answer to gossip")));
        assert_eq!(of(5).0, "up");
        assert_eq!(answer["servers"][5]["origin"], "static");
    }

    #[test]
    fn maintenance_quarantine_and_easing_in_are_told_apart() {
        let answer = servers_of(&fixture::tended());
        let of = |index: usize| {
            let server = &answer["servers"][index];
            json!([
                server["name"],
                server["status"],
                server["reason"],
                server["throttle_percent"]
            ])
        };
        assert_eq!(of(0), json!(["e1", "up", null, 25]));
        assert_eq!(of(1), json!(["m1", "maint", null, null]));
        let kept_out = "it has crashed too often and is kept out for a while";
        assert_eq!(of(2), json!(["q1", "down", kept_out, null]));
        assert_eq!(of(3), json!(["s1", "up", null, null]));
    }

    #[test]
    fn members_are_listed_with_what_they_announce() {
        let source = fixture::source();
        let text = members(&(source.members)(), Instant::now());
        let answer: Value = serde_json::from_str(&text).unwrap();
        let balancer = &answer["members"][0];
        assert_eq!(balancer["name"], "ha");
        assert_eq!(balancer["role"], "balancer");
        assert_eq!(balancer["local"], true);
        assert_eq!(balancer["server"], Value::Null);
        let server = &answer["members"][2];
        assert_eq!(server["state"], "suspect");
        assert_eq!(server["address"], "10.0.0.50:7946");
        assert_eq!(server["server"]["address"], "10.0.0.50:3000");
        assert_eq!(server["server"]["phase"], "ready");
    }
}
