//! The access log as JSON, one object a line; docs/logs.md has its fields.

use std::{net::IpAddr, time::Duration};

use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use super::{Line, Names, Record, RequestLine};
use crate::{
    proxy::exchange::{Affinity, CookieSent},
    rfc3339,
    syslog::whole_characters,
};

#[derive(Debug)]
pub(super) struct Json {
    names: Names,
}

#[derive(Serialize)]
struct Object<'a> {
    time: String,
    client: IpAddr,
    client_port: u16,
    frontend: &'a str,
    backend: Option<&'a str>,
    server: Option<&'a str>,
    method: Option<&'a str>,
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    path_cut: bool,
    protocol: Option<&'static str>,
    status: Option<u16>,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(serialize_with = "millis")]
    head_ms: Option<Duration>,
    #[serde(serialize_with = "millis")]
    wait_ms: Option<Duration>,
    #[serde(serialize_with = "millis")]
    connect_ms: Option<Duration>,
    #[serde(serialize_with = "millis")]
    response_ms: Option<Duration>,
    #[serde(serialize_with = "millis")]
    total_ms: Option<Duration>,
    termination: &'a str,
    retries: u32,
    redispatched: bool,
    sticky: Option<&'static str>,
    cookie: Option<&'static str>,
    why: Option<String>,
}

impl Json {
    pub(super) fn new(names: Names) -> Self {
        Self { names }
    }

    fn object<'a>(&'a self, record: &'a Record) -> Object<'a> {
        let request = record.request.as_ref();
        Object {
            time: rfc3339::millis(OffsetDateTime::UNIX_EPOCH + record.began()),
            client: record.peer.ip(),
            client_port: record.peer.port(),
            frontend: &self.names.frontend,
            backend: record.accepted.then_some(&self.names.backend),
            server: record.server(),
            method: request.map(RequestLine::method),
            path: request.map(RequestLine::target),
            path_cut: false,
            protocol: request.map(RequestLine::version),
            status: record.status,
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            head_ms: record.head_time,
            wait_ms: record.wait_time,
            connect_ms: record.connect_time,
            response_ms: record.response_time,
            total_ms: Some(record.total_time),
            termination: record.termination.as_str(),
            retries: record.retries,
            redispatched: record.redispatched,
            sticky: sticky(record.affinity),
            cookie: cookie(record.cookie_sent),
            why: record.why.as_ref().map(ToString::to_string),
        }
    }
}

impl Line for Json {
    fn write(&mut self, line: &mut Vec<u8>, record: &Record) {
        append(line, &self.object(record));
    }

    /// Half an object is none: what is cut is the path, and that is said.
    fn write_short(&mut self, line: &mut Vec<u8>, record: &Record, most: usize) {
        let start = line.len();
        let mut object = self.object(record);
        append(line, &object);
        while line.len() - start > most
            && let Some(path) = object.path.filter(|path| !path.is_empty())
        {
            // Written down, a byte may be six.
            let end = whole_characters(path.as_bytes(), path.len() / 2);
            object.path = path.get(..end);
            object.path_cut = true;
            line.truncate(start);
            append(line, &object);
        }
    }
}

fn append(line: &mut Vec<u8>, object: &Object<'_>) {
    serde_json::to_writer(line, object).expect("a Vec takes whatever is written");
}

fn sticky(affinity: Affinity) -> Option<&'static str> {
    match affinity {
        Affinity::Off => None,
        Affinity::New => Some("new"),
        Affinity::Valid => Some("valid"),
        Affinity::Invalid => Some("unknown"),
        Affinity::Down => Some("down"),
    }
}

fn cookie(sent: CookieSent) -> Option<&'static str> {
    match sent {
        CookieSent::None => None,
        CookieSent::Inserted => Some("inserted"),
        CookieSent::Deleted => Some("deleted"),
    }
}

/// In milliseconds, to the microsecond.
#[expect(clippy::ref_option, reason = "what serde calls it with")]
fn millis<S: Serializer>(took: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    match took {
        Some(took) => to.serialize_f64(took.as_micros() as f64 / 1000.0),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::tests::record, *};

    fn names() -> Names {
        Names {
            frontend: "localnodes".into(),
            backend: "nodes".into(),
        }
    }

    fn parsed(record: &Record) -> Value {
        let mut line = Vec::new();
        Json::new(names()).write(&mut line, record);
        assert!(!line.contains(&b'\n'));
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn an_exchange_is_one_object_with_all_that_is_known_of_it() {
        assert_eq!(
            parsed(&record("/index.html?q=1")),
            json!({
                "time": "2009-02-06T12:14:14.655Z",
                "client": "10.0.1.2",
                "client_port": 33317,
                "frontend": "localnodes",
                "backend": "nodes",
                "server": "s1",
                "method": "GET",
                "path": "/index.html?q=1",
                "protocol": "HTTP/1.1",
                "status": 200,
                "bytes_in": 300,
                "bytes_out": 2750,
                "head_ms": 10.0,
                "wait_ms": 0.0,
                "connect_ms": 30.0,
                "response_ms": 69.0,
                "total_ms": 109.0,
                "termination": "--",
                "retries": 0,
                "redispatched": false,
                "sticky": "new",
                "cookie": "inserted",
                "why": null,
            })
        );
    }

    #[test]
    fn any_target_is_escaped() {
        for target in ["/a\"b\\c", "/\u{e9}\u{1F600}", "/\u{7f}"] {
            assert_eq!(parsed(&record(target))["path"], target);
        }
    }

    #[test]
    fn a_request_that_could_not_be_read_has_no_path_and_no_backend() {
        let bad = parsed(&Record {
            accepted: false,
            server: None,
            request: None,
            head_time: None,
            affinity: Affinity::Off,
            ..record("/")
        });
        for unknown in [
            "backend", "server", "method", "path", "protocol", "head_ms", "sticky",
        ] {
            assert_eq!(bad[unknown], Value::Null, "{unknown}");
        }
    }

    #[test]
    fn a_line_for_a_datagram_is_cut_in_its_path_and_stays_an_object() {
        for target in ["x".repeat(16_000), "\"".repeat(8_000), "é".repeat(8_000)] {
            let target = format!("/{target}");
            let mut line = b"before".to_vec();
            Json::new(names()).write_short(&mut line, &record(&target), 1024);
            assert!(line.len() <= 6 + 1024);
            let object: Value = serde_json::from_slice(&line[6..]).unwrap();
            assert_eq!(object["path_cut"], true);
            assert!(target.starts_with(object["path"].as_str().unwrap()));
        }
    }
}
