//! Requests that would be two, or another, if they were written down as
//! HTTP/1.1 without care (RFC 9113 §8.2.1, §8.3 and §10.3).

use std::collections::BTreeMap;

use super::{
    before,
    frames::{
        DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Raw, STATUS_200, field, frame,
    },
};
use crate::support::origin::Origin;

/// What it would be to get through.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: test\r\nx-smuggled: 1\r\n\r\n";

/// A request, and how it is to end.
struct Row {
    what: &'static str,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Option<Vec<u8>>,
    passes: bool,
}

impl Row {
    fn new(what: &'static str) -> Self {
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/row"),
            (":authority", "test"),
        ];
        let bytes = |text: &str| text.as_bytes().to_vec();
        Self {
            what,
            fields: fields
                .map(|(name, value)| (bytes(name), bytes(value)))
                .into(),
            body: None,
            passes: false,
        }
    }

    fn passes(mut self) -> Self {
        self.passes = true;
        self
    }

    fn field(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.fields
            .push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let of_name = |field: &&mut (Vec<u8>, Vec<u8>)| field.0 == name.as_bytes();
        self.fields.iter_mut().find(of_name).unwrap().1 = value.as_ref().to_vec();
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.fields.retain(|field| field.0 != name.as_bytes());
        self
    }

    fn post(self, body: impl AsRef<[u8]>) -> Self {
        let mut row = self.with(":method", "POST");
        row.body = Some(body.as_ref().to_vec());
        row
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn rows() -> Vec<Row> {
    let split = |before: &str| format!("{before}\r\nx-smuggled: 1");
    let two = |before: &str| format!("{before} HTTP/1.1\r\nhost: test\r\n\r\n{SMUGGLED}");
    let mut rows = vec![
        Row::new("a plain request").passes(),
        Row::new("a body that looks like a request")
            .post(SMUGGLED)
            .passes(),
        Row::new("a length that is right")
            .field("content-length", SMUGGLED.len().to_string())
            .post(SMUGGLED)
            .passes(),
        Row::new("the host said twice")
            .field("host", "test")
            .passes(),
        Row::new("CR LF in a value").field("x", split("a")),
        Row::new("LF in a value").field("x", "a\nx-smuggled: 1"),
        Row::new("CR in a value").field("x", "a\rx-smuggled: 1"),
        Row::new("NUL in a value").field("x", "a\0b"),
        Row::new("two requests in a value").field("x", format!("a\r\n\r\n{SMUGGLED}")),
        Row::new("CR LF in a cookie").field("cookie", split("a=1")),
        Row::new("CR LF in a name").field("x: 1\r\nx-smuggled", "1"),
        Row::new("a space in a name").field("x smuggled", "1"),
        Row::new("a colon in a name").field("x:smuggled", "1"),
        Row::new("NUL in a name").field("x\0smuggled", "1"),
        Row::new("no name").field("", "1"),
        Row::new("a name in upper case").field("X-Smuggled", "1"),
        Row::new("two requests in the path").with(":path", two("/row")),
        Row::new("CR LF in the path").with(":path", "/row\r\nx-smuggled: 1"),
        Row::new("a space in the path").with(":path", "/row HTTP/1.1"),
        Row::new("NUL in the path").with(":path", "/row\0"),
        Row::new("a path of UTF-8").with(":path", "/row\u{e9}"),
        Row::new("an empty path").with(":path", ""),
        Row::new("a path without a slash").with(":path", "row"),
        Row::new("a path that is a URI").with(":path", "http://evil/row"),
        Row::new("a path of nothing but a query").with(":path", "?row"),
        Row::new("an asterisk for GET").with(":path", "*"),
        Row::new("two paths").field(":path", "/smuggled"),
        Row::new("a path behind fields")
            .without(":path")
            .field("x", "1")
            .field(":path", "/row"),
        Row::new("no path").without(":path"),
        Row::new("no method").without(":method"),
        Row::new("no scheme").without(":scheme"),
        Row::new("no path and no authority")
            .without(":path")
            .without(":authority"),
        Row::new("no host").without(":authority"),
        Row::new("two requests in the method").with(":method", two("GET /row")),
        Row::new("a space in the method").with(":method", "GET /smuggled"),
        Row::new("an empty method").with(":method", ""),
        Row::new("CR LF in the authority").with(":authority", split("test")),
        Row::new("a space in the authority").with(":authority", "test evil"),
        Row::new("a slash in the authority").with(":authority", "test/smuggled"),
        Row::new("a user in the authority").with(":authority", "evil@test"),
        Row::new("a comma in the authority").with(":authority", "test,evil"),
        Row::new("an empty authority").with(":authority", ""),
        Row::new("another host").field("host", "evil"),
        Row::new("the host and another")
            .field("host", "test")
            .field("host", "evil"),
        Row::new("CR LF in the scheme").with(":scheme", split("http")),
        Row::new("two requests in the scheme").with(":scheme", "http://evil/smuggled?"),
        Row::new("a pseudo-field nobody knows").field(":smuggled", "1"),
        Row::new("a status").field(":status", "200"),
        Row::new("a protocol").field(":protocol", "websocket"),
        Row::new("chunked")
            .field("transfer-encoding", "chunked")
            .post(format!("0\r\n\r\n{SMUGGLED}")),
        Row::new("chunked with a length")
            .field("transfer-encoding", "chunked")
            .field("content-length", "5")
            .post("0\r\n\r\n"),
        Row::new("another coding").field("transfer-encoding", "identity"),
        Row::new("a field of the connection").field("connection", "x"),
        Row::new("an upgrade").field("upgrade", "websocket"),
        Row::new("keep-alive").field("keep-alive", "timeout=5"),
        Row::new("proxy-connection").field("proxy-connection", "close"),
        Row::new("te with more than trailers").field("te", "trailers, chunked"),
        Row::new("a body behind no length")
            .field("content-length", "0")
            .post(SMUGGLED),
        Row::new("a body longer than its length")
            .field("content-length", "3")
            .post(SMUGGLED),
        Row::new("a body shorter than its length")
            .field("content-length", "999")
            .post(SMUGGLED),
        Row::new("a length of no body").field("content-length", "5"),
    ];
    for length in [
        "+5",
        "-1",
        "5, 5",
        "0x5",
        " 5",
        "",
        "18446744073709551616",
        "5\r\nx-smuggled: 1",
    ] {
        rows.push(
            Row::new("no length")
                .field("content-length", length)
                .post("abcde"),
        );
    }
    rows.push(
        Row::new("two lengths")
            .field("content-length", "5")
            .field("content-length", "5")
            .post("abcde"),
    );
    rows
}

/// Whether it was answered with 200.
fn ask(row: &Row, raw: &mut Raw) -> bool {
    let block: Vec<u8> = row
        .fields
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect();
    let end = if row.body.is_some() { 0 } else { END_STREAM };
    let mut bytes = frame(HEADERS, END_HEADERS | end, 1, &block);
    if let Some(body) = &row.body {
        bytes.extend(frame(DATA, END_STREAM, 1, body));
    }
    // It may be closed before all is sent.
    raw.send(&bytes).ok();
    loop {
        match raw.next() {
            Ok(frame) if frame.kind == HEADERS => return frame.payload[0] == STATUS_200,
            Ok(frame) if frame.kind == RST_STREAM || frame.kind == GOAWAY => return false,
            Ok(_) => {}
            Err(err) => {
                let waited = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut];
                assert!(!waited.contains(&err.kind()), "{}: no answer", row.what);
                return false;
            }
        }
    }
}

#[test]
fn a_request_reaches_the_server_as_exactly_that_request_or_not_at_all() {
    let origin = Origin::start(|visit| {
        visit.body()?;
        visit.send(crate::support::origin::ok("ok"))
    });
    // No retries: what a server does not get whole it gets once.
    let balancer = before(&origin, &["--retries", "0", "--cookie", "off"]);
    let mut complaints = Vec::new();
    let mut passed = Vec::new();
    for (number, row) in rows().into_iter().enumerate() {
        let row = row.field("x-row", number.to_string());
        let mut raw = Raw::connect(balancer.http, &[]);
        passed.push((ask(&row, &mut raw), row));
        drop(raw);
        // Whoever comes next is who they are.
        let next = balancer.connect().request("GET", "/next", &[]).unwrap();
        assert_eq!(next.status, 200);
    }
    // What was broken off may have come behind its row's end.
    let mut of_row = BTreeMap::<String, usize>::new();
    for seen in origin.seen() {
        let well = match (seen.first_line(), seen.values("x-row").as_slice()) {
            ("GET /next HTTP/1.1", []) => true,
            ("GET /row HTTP/1.1" | "POST /row HTTP/1.1", [row]) => {
                *of_row.entry((*row).to_owned()).or_default() += 1;
                true
            }
            _ => false,
        };
        if !well || seen.head.to_ascii_lowercase().contains("\nx-smuggled") {
            complaints.push(format!("came through: {:?}", seen.head));
        }
    }
    for (number, (passed, row)) in passed.into_iter().enumerate() {
        let seen = of_row.get(&number.to_string()).copied().unwrap_or_default();
        let as_expected = if row.passes {
            passed && seen == 1
        } else {
            !passed && seen <= 1
        };
        if !as_expected {
            complaints.push(format!("{}: passed {passed}, seen {seen}", row.what));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let bodies = origin
        .seen()
        .into_iter()
        .filter(|seen| seen.first_line().starts_with("POST"));
    for seen in bodies.filter(|seen| !seen.values("transfer-encoding").is_empty()) {
        assert_eq!(seen.content(), SMUGGLED.as_bytes(), "a body is a body");
    }
}

#[test]
fn trailers_that_frame_or_break_lines_do_not_pass() {
    let origin = Origin::saying("ok");
    let balancer = before(&origin, &["--retries", "0"]);
    for (name, value) in [
        ("x", "a\r\nx-smuggled: 1"),
        ("x-smuggled\r\n", "1"),
        (":path", "/smuggled"),
        ("transfer-encoding", "chunked"),
        ("content-length", "5"),
        ("host", "evil"),
    ] {
        let mut raw = Raw::connect(balancer.http, &[]);
        let head: Vec<u8> = Row::new("")
            .post("")
            .fields
            .iter()
            .flat_map(|(n, v)| field(n, v))
            .collect();
        let trailers = field(name.as_bytes(), value.as_bytes());
        let bytes = [
            frame(HEADERS, END_HEADERS, 1, &head),
            frame(DATA, 0, 1, b"body"),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
        ];
        raw.send(&bytes.concat()).ok();
        while raw
            .next()
            .is_ok_and(|frame| ![HEADERS, RST_STREAM, GOAWAY].contains(&frame.kind))
        {}
        drop(raw);
        assert_eq!(
            balancer
                .connect()
                .request("GET", "/next", &[])
                .unwrap()
                .status,
            200
        );
        for seen in origin.seen() {
            let body = String::from_utf8_lossy(&seen.body);
            for part in ["smuggled", "transfer-encoding:", "content-length:", "evil"] {
                assert!(!body.contains(part), "{name}: {body}");
            }
        }
    }
}
