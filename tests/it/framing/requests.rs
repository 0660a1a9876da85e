//! What clients send.

use super::{
    Delivery, PROBE, Received, Stage, bystander, complaint, is_interim,
    message::{Message, Trouble, sorted},
    recorder::{Fragment, Request},
    shown,
};

/// Bytes on a connection, and what comes of them.
#[derive(Debug, Clone)]
pub(super) struct Row {
    clause: &'static str,
    sends: Vec<u8>,
    /// The requests that reach the server, as [`sorted`] text, each answered
    /// with 200.
    arrives: Vec<Vec<u8>>,
    end: End,
}

/// What happens behind the last request that reaches the server.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The connection takes the next request.
    Kept,
    /// The connection is closed.
    Closed,
    /// One of these statuses, and the connection is closed.
    Refused(&'static [u16]),
    /// As [`End::Refused`] or without a word; and the server may have seen a
    /// part of a request, whose connection ends then.
    BrokenOff,
    /// The same, and it is the client that ends it.
    HungUp,
}

/// Runs a row.
pub(super) fn run(stage: &Stage, row: &Row, delivery: Delivery) -> Result<(), String> {
    stage.server.begin(None);
    let hangs_up = matches!(row.end, End::HungUp);
    let mut sends = row.sends.clone();
    if !hangs_up {
        sends.extend_from_slice(PROBE.as_bytes());
    }
    let mut received = Received::from(&stage.balancer, &sends, delivery, hangs_up);
    // A client may be asked for a body that is on its way.
    received.answers.retain(|answer| !is_interim(answer));
    let others = bystander(stage);
    let (requests, parts) = stage.server.settle();

    let kept = matches!(row.end, End::Kept);
    let mut arrived: Vec<Vec<u8>> = requests.iter().map(|seen| normal(seen, stage)).collect();
    let probe = kept.then_some(&b"GET /probe HTTP/1.1\nhost: probe"[..]);
    let bystander = &b"GET /bystander HTTP/1.1\nhost: other"[..];
    let mut arrives: Vec<Vec<u8>> = row.arrives.clone();
    arrives.extend(probe.into_iter().chain([bystander]).map(sorted));
    // A connection of its own, so perhaps a place of its own.
    for requests in [&mut arrived, &mut arrives] {
        requests.sort_by_key(|text| text.starts_with(b"GET /bystander "));
    }

    let good = others.is_ok()
        && arrived == arrives
        && row.end.allows_parts(&parts)
        && row.is_answered(&received)
        && received.rest.is_empty()
        && received.closed;
    if good {
        return Ok(());
    }
    let list = |requests: &[Vec<u8>]| {
        let shown: Vec<String> = requests.iter().map(|text| shown(text)).collect();
        shown.join(", ")
    };
    let parts: Vec<String> = parts.iter().map(part).collect();
    let mut about = vec![
        ("sent", shown(&row.sends)),
        ("expected", format!("{:?} {:?}", row.answers(), row.end)),
        ("got", received.shown()),
    ];
    if arrived != arrives {
        about.push(("arrives", list(&arrives)));
        about.push(("arrived", list(&arrived)));
    }
    if !parts.is_empty() {
        about.push(("in part", parts.join(", ")));
    }
    if let Err(others) = others {
        about.push(("bystander", others));
    }
    Err(complaint(row.clause, &about))
}

fn part(part: &Fragment) -> String {
    let bytes = shown(&part.bytes);
    format!("{bytes} {:?}, ended: {}", part.trouble, part.ended)
}

impl Row {
    /// The answers that are sure, as [`super::status`] has them.
    fn answers(&self) -> Vec<String> {
        let targets = self.arrives.iter().map(|text| {
            let target = text.split(|byte| *byte == b' ').nth(1);
            format!("200 {}", target.unwrap_or_default().escape_ascii())
        });
        let probe = matches!(self.end, End::Kept).then(|| "200 /probe".to_owned());
        targets.chain(probe).collect()
    }

    fn is_answered(&self, received: &Received) -> bool {
        let got = received.statuses();
        let sure = self.answers();
        let Some((first, behind)) = got.split_at_checked(sure.len()) else {
            return false;
        };
        let behind: Vec<u16> = behind.iter().filter_map(|word| word.parse().ok()).collect();
        first == sure
            && got.len() == first.len() + behind.len()
            && match (self.end, behind.as_slice()) {
                (End::Kept | End::Closed | End::BrokenOff | End::HungUp, []) => true,
                (End::Refused(statuses), [status]) => statuses.contains(status),
                (End::BrokenOff | End::HungUp, [status]) => (400..500).contains(status),
                _ => false,
            }
    }
}

impl End {
    fn allows_parts(self, parts: &[Fragment]) -> bool {
        match self {
            Self::BrokenOff | Self::HungUp => parts
                .iter()
                .all(|part| part.ended && part.trouble == Trouble::Incomplete),
            Self::Kept | Self::Closed | Self::Refused(_) => parts.is_empty(),
        }
    }
}

/// A request as the tables have it: without what the balancer says of itself
/// and of its own connections, as long as it is true.
fn normal(request: &Request, stage: &Stage) -> Vec<u8> {
    let message = &request.message;
    let address = stage.balancer.http.to_string();
    let port = stage.balancer.http.port().to_string();
    let last_sender = message
        .fields
        .iter()
        .rposition(|(name, _)| name == "x-forwarded-for");
    let ours = |at: usize, name: &str, value: &[u8]| match name {
        "x-forwarded-for" => Some(at) == last_sender && value == b"127.0.0.1",
        "x-forwarded-port" => value == port.as_bytes(),
        "x-forwarded-proto" => value == b"http",
        _ => false,
    };
    let mut fields = message.fields.clone();
    let mut at = 0;
    let mut said = 0;
    fields.retain_mut(|(name, value)| {
        let ours = ours(at, name, value);
        said += usize::from(ours);
        at += 1;
        match name.as_str() {
            "connection" => !matches!(
                value.to_ascii_lowercase().as_slice(),
                b"keep-alive" | b"close" | b"te"
            ),
            "content-length" => {
                let zeros = value.iter().take_while(|digit| **digit == b'0').count();
                value.drain(..zeros);
                // Without a body it may be there or not (RFC 9110 §8.6).
                !value.is_empty()
            }
            "host" if *value == address.as_bytes() => {
                *value = b"ADDRESS".to_vec();
                true
            }
            _ => !ours,
        }
    });
    if said != 3 {
        fields.push((
            "who asked".to_owned(),
            b"is missing, doubled or wrong".to_vec(),
        ));
    }
    let message = Message {
        first_line: message.first_line.clone(),
        fields,
        content: message.content.clone(),
        length: message.length,
    };
    message.text()
}

/// The rows in their order.
#[derive(Debug, Default)]
struct Table(Vec<Row>);

impl Table {
    fn add(
        &mut self,
        clause: &'static str,
        sends: impl Into<Vec<u8>>,
        arrives: &[&[u8]],
        end: End,
    ) {
        self.0.push(Row {
            clause,
            sends: sends.into(),
            arrives: arrives.iter().map(|text| sorted(text)).collect(),
            end,
        });
    }

    /// One request that passes, on a connection that is kept.
    fn passes<T: AsRef<[u8]> + ?Sized>(
        &mut self,
        clause: &'static str,
        sends: impl Into<Vec<u8>>,
        arrives: &T,
    ) {
        self.add(clause, sends, &[arrives.as_ref()], End::Kept);
    }

    /// A row for each, of which nothing passes.
    fn refused<S: Into<Vec<u8>>>(
        &mut self,
        statuses: &'static [u16],
        clause: &'static str,
        sends: impl IntoIterator<Item = S>,
    ) {
        for sends in sends {
            self.add(clause, sends, &[], End::Refused(statuses));
        }
    }

    /// A row for each chunked body, of which no whole request passes.
    fn broken_off<S: AsRef<[u8]>>(
        &mut self,
        clause: &'static str,
        bodies: impl IntoIterator<Item = S>,
    ) {
        for body in bodies {
            self.add(clause, chunked(body), &[], End::BrokenOff);
        }
    }
}

/// Every row.
pub(super) fn table() -> Vec<Row> {
    let mut table = Table::default();
    message_parsing(&mut table);
    versions(&mut table);
    request_lines(&mut table);
    targets(&mut table);
    absolute_forms(&mut table);
    hosts(&mut table);
    fields(&mut table);
    transfer_codings(&mut table);
    codings_out_of_place(&mut table);
    lengths(&mut table);
    chunked_bodies(&mut table);
    broken_chunks(&mut table);
    trailers(&mut table);
    connection_options(&mut table);
    claims(&mut table);
    sizes(&mut table);
    several_requests(&mut table);
    hang_ups(&mut table);
    table.0
}

const BAD: &[u16] = &[400];
/// A version that nobody here speaks.
const BAD_VERSION: &[u16] = &[400, 505];
/// A transfer coding that is broken rather than unknown, or both.
const BAD_CODING: &[u16] = &[400, 422];
const UNKNOWN_CODING: &[u16] = &[422];
const TARGET_TOO_LONG: &[u16] = &[414];
const HEAD_TOO_LARGE: &[u16] = &[431];

const ARRIVED: &str = "GET / HTTP/1.1\nhost: test";

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A GET with these lines behind its Host.
fn get(lines: impl AsRef<[u8]>) -> Vec<u8> {
    let start = b"GET / HTTP/1.1\r\nhost: test\r\n";
    join(&[start, lines.as_ref(), b"\r\n\r\n"])
}

/// A POST with these lines behind its Host, and what follows its head.
fn post(lines: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    let start = b"POST / HTTP/1.1\r\nhost: test\r\n";
    join(&[start, lines.as_ref(), b"\r\n\r\n", body.as_ref()])
}

/// A POST with that body, which has its framing.
fn chunked(body: impl AsRef<[u8]>) -> Vec<u8> {
    post("transfer-encoding: chunked", body)
}

/// A request of that first line, for `test`.
fn asking(line: impl AsRef<[u8]>) -> Vec<u8> {
    join(&[line.as_ref(), b"\r\nhost: test\r\n\r\n"])
}

fn message_parsing(table: &mut Table) {
    table.passes(
        "9112 §2.2: an empty line before a request is ignored",
        format!("\r\n{}", "GET / HTTP/1.1\r\nhost: test\r\n\r\n"),
        ARRIVED,
    );
    table.refused(
        BAD,
        "9112 §2.2: a line ends with CRLF (HAProxy takes LF; strict here)",
        [
            "GET / HTTP/1.1\nhost: test\n\n",
            "GET / HTTP/1.1\nhost: test\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: test\n\r\n",
            "GET / HTTP/1.1\r\nhost: test\na: b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: test\r\n\n",
            "GET / HTTP/1.1\r\nhost: test\r\na: b\n\n",
        ],
    );
    table.refused(
        BAD,
        "9112 §2.2: a CR alone is invalid",
        [
            "GET / HTTP/1.1\r\nhost: test\r\na: b\rc\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: test\r\na: b\rc: d\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: test\r\na\r: b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: test\r\na: b\r\r\n\r\n",
            "GET / HTTP/1.1\rhost: test\r\n\r\n",
            "GET / HTTP/1.1\r\r\nhost: test\r\n\r\n",
            "GET /\rx HTTP/1.1\r\nhost: test\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: test\r\n\r\r\n",
        ],
    );
    table.refused(
        BAD,
        "9112 §2.2: no whitespace before the first field",
        [
            "GET / HTTP/1.1\r\n host: test\r\n\r\n",
            "GET / HTTP/1.1\r\n\thost: test\r\n\r\n",
            "GET / HTTP/1.1\r\n x: y\r\nhost: test\r\n\r\n",
            "GET / HTTP/1.1\r\n \r\nhost: test\r\n\r\n",
        ],
    );
    table.refused(
        BAD,
        "9112 §2.2: what is no HTTP at all",
        [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
            b"\0\r\n\r\n",
            b"{}\r\n\r\n",
        ],
    );
}

fn versions(table: &mut Table) {
    table.refused(
        BAD,
        "9112 §2.3: HTTP-version = \"HTTP\" \"/\" DIGIT \".\" DIGIT, and 1.0 or 1.1 here",
        [
            "GET / http/1.1",
            "GET / Http/1.1",
            "GET / HTTP/1",
            "GET / HTTP/1.",
            "GET / HTTP/.1",
            "GET / HTTP/11",
            "GET / HTTP/1,1",
            "GET / HTTP/1.10",
            "GET / HTTP/01.1",
            "GET / HTTP/1.1x",
            "GET / HTTP/1.x",
            "GET / HTTP/1.1;a=b",
            "GET / HTTP /1.1",
            "GET / HTTP/ 1.1",
            "GET / HTTP/+1.1",
            "GET / HTTP/1.2",
            "GET / HTTPS/1.1",
            "GET / ICY/1.1",
        ]
        .map(asking),
    );
    table.refused(
        BAD_VERSION,
        "9112 §2.3: another major version",
        ["GET / HTTP/0.9", "GET / HTTP/2.0", "GET / HTTP/3.0"].map(asking),
    );
    table.refused(
        BAD,
        "9112 §2.3: HTTP/0.9 has no version",
        ["GET /\r\n", "GET /\r\n\r\n", "GET / \r\n\r\n"],
    );
    table.add(
        "9112 §2.3: a request of HTTP/1.0 is one of 1.1 to a server, and the last (§9.3)",
        "GET / HTTP/1.0\r\nhost: test\r\n\r\n",
        &[ARRIVED.as_bytes()],
        End::Closed,
    );
    table.passes(
        "9112 §9.3: unless HTTP/1.0 asks to keep the connection",
        "GET / HTTP/1.0\r\nhost: test\r\nconnection: keep-alive\r\n\r\n",
        ARRIVED,
    );
    table.add(
        "9112 §9.6: a client that closes is asked nothing more",
        get("connection: close"),
        &[ARRIVED.as_bytes()],
        End::Closed,
    );
}

fn request_lines(table: &mut Table) {
    table.refused(
        BAD,
        "9112 §3: request-line = method SP request-target SP HTTP-version",
        [
            &b" GET / HTTP/1.1"[..],
            b"\tGET / HTTP/1.1",
            b"GET  / HTTP/1.1",
            b"GET /  HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"GET / HTTP/1.1\t",
            b"GET\t/ HTTP/1.1",
            b"GET /\tHTTP/1.1",
            b"GET\x0b/ HTTP/1.1",
            b"GET /\x0cHTTP/1.1",
            b"GET HTTP/1.1",
            b"GET  HTTP/1.1",
            b"GET",
            b"GET / / HTTP/1.1",
            b"GET / HTTP/1.1 HTTP/1.1",
            b"GET / HTTP/1.1\0",
            b"/ HTTP/1.1",
        ]
        .map(asking),
    );
    table.refused(
        BAD,
        "9112 §3.1: a method is a token",
        [
            &b"G@T / HTTP/1.1"[..],
            b"GE(T / HTTP/1.1",
            b"\"GET\" / HTTP/1.1",
            b"GET: / HTTP/1.1",
            b"GET, / HTTP/1.1",
            b"G\0T / HTTP/1.1",
            b"G\x7fT / HTTP/1.1",
            b"G\xc3\x8bT / HTTP/1.1",
            b" / HTTP/1.1",
        ]
        .map(asking),
    );
    for line in [
        "FROB / HTTP/1.1",
        "get / HTTP/1.1",
        "M-SEARCH / HTTP/1.1",
        "A!#$%&'*+-.^_`|~09 / HTTP/1.1",
    ] {
        table.passes(
            "9110 §9.1: a method is whatever the server makes of it, in its case",
            asking(line),
            &format!("{line}\nhost: test"),
        );
    }
}

fn targets(table: &mut Table) {
    for target in [
        "/a%2F..%2fb/%00?c=%0d%0a",
        "//double//slash",
        "/../x/./y",
        "/?",
        "/a;b=c,d:e@f!$&'()*+~?g=h/i?j",
        "/?http://other.example/",
        "/http://other.example/",
    ] {
        table.passes(
            "9112 §3.2.1: an origin-form is passed on to the byte",
            asking(format!("GET {target} HTTP/1.1")),
            &format!("GET {target} HTTP/1.1\nhost: test"),
        );
    }
    table.refused(
        BAD,
        "9112 §3.2: a target has no spaces, no control bytes, nothing but ASCII",
        [
            &b"GET /a b HTTP/1.1"[..],
            b"GET /a\tb HTTP/1.1",
            b"GET /a\0b HTTP/1.1",
            b"GET /a\x01b HTTP/1.1",
            b"GET /a\x0bb HTTP/1.1",
            b"GET /a\x1fb HTTP/1.1",
            b"GET /a\x7fb HTTP/1.1",
            b"GET /\xc3\xa4 HTTP/1.1",
            b"GET /\xff HTTP/1.1",
            b"GET /?\x80 HTTP/1.1",
        ]
        .map(asking),
    );
    table.refused(
        BAD,
        "9112 §3.2.1: a target has no fragment (HAProxy: 400)",
        [
            "GET /#a HTTP/1.1",
            "GET /?a#b HTTP/1.1",
            "GET http://test/#a HTTP/1.1",
        ]
        .map(asking),
    );
    table.refused(
        BAD,
        "9112 §3.2: a target that is none of the four forms, or the wrong one",
        [
            "GET admin HTTP/1.1",
            "GET ?a=b HTTP/1.1",
            "GET ../x HTTP/1.1",
            "GET test:80 HTTP/1.1",
            "GET test HTTP/1.1",
            "POST test:80 HTTP/1.1",
            "OPTIONS test:80 HTTP/1.1",
            "GET * HTTP/1.1",
            "POST * HTTP/1.1",
            "OPTIONS *x HTTP/1.1",
            "OPTIONS ** HTTP/1.1",
            "OPTIONS */ HTTP/1.1",
        ]
        .map(asking),
    );
    table.passes(
        "9112 §3.2.4: the asterisk-form",
        asking("OPTIONS * HTTP/1.1"),
        "OPTIONS * HTTP/1.1\nhost: test",
    );
    table.passes(
        "9112 §3.2.4: OPTIONS of no path is the asterisk-form for the server",
        asking("OPTIONS http://shop.example HTTP/1.1"),
        "OPTIONS * HTTP/1.1\nhost: shop.example",
    );
    table.refused(
        &[405],
        "9112 §3.2.3: the authority-form is for CONNECT, which is not for servers",
        ["CONNECT test:443 HTTP/1.1", "CONNECT / HTTP/1.1"].map(asking),
    );
}

fn absolute_forms(table: &mut Table) {
    for (target, path, host) in [
        ("http://shop.example/a?b", "/a?b", "shop.example"),
        ("http://shop.example", "/", "shop.example"),
        ("http://shop.example?q", "/?q", "shop.example"),
        ("HTTP://shop.example:8080/", "/", "shop.example:8080"),
        ("https://shop.example/x", "/x", "shop.example"),
        ("http://[::1]:80/x", "/x", "[::1]:80"),
        (
            "http://shop.example/http://other/",
            "/http://other/",
            "shop.example",
        ),
    ] {
        table.passes(
            "9112 §3.2.2: an absolute-form names the host, whatever Host says",
            asking(format!("GET {target} HTTP/1.1")),
            &format!("GET {path} HTTP/1.1\nhost: {host}"),
        );
    }
    table.add(
        "9112 §3.2.2: and does without Host in HTTP/1.0",
        "GET http://shop.example/ HTTP/1.0\r\n\r\n",
        &[b"GET / HTTP/1.1\nhost: shop.example"],
        End::Closed,
    );
    table.refused(
        BAD,
        "9110 §4.2: an absolute-form with a scheme, a host, no user (§4.2.4)",
        [
            "GET http://user@test/ HTTP/1.1",
            "GET http://user:pass@test/ HTTP/1.1",
            "GET http://other@test:80/ HTTP/1.1",
            "GET http://@test/ HTTP/1.1",
            "GET http:///x HTTP/1.1",
            "GET http://:80/ HTTP/1.1",
            "GET http:// HTTP/1.1",
            "GET http:/x HTTP/1.1",
            "GET http:x HTTP/1.1",
            "GET http: HTTP/1.1",
            "GET ://test/ HTTP/1.1",
            "GET ftp://test/ HTTP/1.1",
            "GET file:///etc/passwd HTTP/1.1",
            "GET httpx://test/ HTTP/1.1",
            "GET http://test:8x/ HTTP/1.1",
            "GET http://a,b/ HTTP/1.1",
            "GET http://a\\b/ HTTP/1.1",
            "GET http://[::1/ HTTP/1.1",
        ]
        .map(asking),
    );
}

fn hosts(table: &mut Table) {
    table.refused(
        BAD,
        "9112 §3.2: exactly one Host in HTTP/1.1",
        [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\r\n\r\n",
            "GET http://test/ HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\nhost:\r\n\r\n",
            "GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n",
        ],
    );
    let host = |value: &[u8]| join(&[b"GET / HTTP/1.1\r\nhost: ", value, b"\r\n\r\n"]);
    table.refused(
        BAD,
        "9112 §3.2: Host = uri-host [ \":\" port ], and a comma is two of them",
        [
            &b"a b"[..],
            b"a\tb",
            b"a,b",
            b"a, b",
            b"user@a",
            b"a/b",
            b"a/",
            b"a?b",
            b"a#b",
            b"a\\b",
            b"http://a",
            b"a:8x",
            b"a:-1",
            b"a:80:80",
            b":80",
            b"[::1",
            b"::1",
            b"[::1]x",
            b"\"a\"",
            b"<a>",
            b"a\0b",
            b"a\x01b",
            b"a\x0bb",
            b"a\x7fb",
            b"\xc3\xa4",
        ]
        .map(host),
    );
    for value in [
        "test:8080",
        "[::1]:8080",
        "127.0.0.1",
        "a_b-c.example",
        "Shop.Example",
        "",
    ] {
        table.passes(
            "9112 §3.2: a good Host is passed on as it is, an empty one too",
            host(value.as_bytes()),
            &format!("GET / HTTP/1.1\nhost: {value}"),
        );
    }
    table.passes(
        "9112 §5.1: whitespace around Host's value is no part of it",
        "GET / HTTP/1.1\r\nHost: \t test \t \r\n\r\n",
        ARRIVED,
    );
    table.add(
        "9112 §3.2: HTTP/1.0 may do without, and the server gets the address",
        "GET / HTTP/1.0\r\n\r\n",
        &[b"GET / HTTP/1.1\nhost: ADDRESS"],
        End::Closed,
    );
}

fn fields(table: &mut Table) {
    table.refused(
        BAD,
        "9112 §5.1: no whitespace between a field's name and its colon",
        ["a : b", "a\t: b", "a b: c", " : b"].map(get),
    );
    table.refused(
        BAD,
        "9110 §5.1: a field's name is a token, and a colon follows",
        [
            &b"a"[..],
            b"a b",
            b": b",
            b":",
            b"a(b): c",
            b"a,b: c",
            b"a/b: c",
            b"a;b: c",
            b"a=b: c",
            b"a?b: c",
            b"a@b: c",
            b"[a]: b",
            b"{a}: b",
            b"a\\b: c",
            b"\"a\": b",
            b"a\0b: c",
            b"a\x01: b",
            b"a\x0b: b",
            b"a\x7f: b",
            b"\xc3\xa4: b",
            b"a\xff: b",
        ]
        .map(get),
    );
    table.refused(
        BAD,
        "9112 §5.2: obs-fold",
        ["a: b\r\n c", "a: b\r\n\tc", "a: b\r\n ", "a:\r\n b"].map(get),
    );
    table.refused(
        BAD,
        "9110 §5.5: no control bytes in a value",
        [
            &b"a: b\0c"[..],
            b"a: \0",
            b"a:\0b",
            b"a: b\x01",
            b"a: \x08b",
            b"a: b\x0bc",
            b"a:\x0bb",
            b"a: b\x0cc",
            b"a: b\x1bc",
            b"a: b\x1fc",
            b"a: b\x7fc",
        ]
        .map(get),
    );
    for (line, arrives) in [
        (&b"a:b"[..], &b"a: b"[..]),
        (b"a: \t b \t ", b"a: b"),
        (b"a:", b"a: "),
        (b"a: ", b"a: "),
        (b"a: b\tc  d", b"a: b\tc  d"),
        (b"a: \x80\xe9\xff", b"a: \x80\xe9\xff"),
        (b"a: b: c,;\"\\", b"a: b: c,;\"\\"),
        (b"A!#$%&'*+-.^_`|~09: b", b"a!#$%&'*+-.^_`|~09: b"),
        (b"a: 1\r\nb: 2\r\nA: 3\r\na: 1", b"a: 1\na: 3\na: 1\nb: 2"),
    ] {
        table.passes(
            "9110 §5.5, §5.3: a value is passed on to the byte, in its order",
            get(line),
            &join(&[ARRIVED.as_bytes(), b"\n", arrives]),
        );
    }
}

fn transfer_codings(table: &mut Table) {
    for line in [
        "transfer-encoding: chunked",
        "Transfer-Encoding: CHUNKED",
        "transfer-encoding:chunked",
        "transfer-encoding: \t chunked \t ",
    ] {
        table.passes(
            "9112 §7, §5.1: chunked is chunked in any case, whatever is around it",
            post(line, "5\r\nhello\r\n0\r\n\r\n"),
            "POST / HTTP/1.1\nhost: test\ntransfer-encoding: chunked\n\nhello",
        );
    }
    let coded = |line: &&[u8]| post(line, "0\r\n\r\n");
    table.refused(
        BAD,
        "9112 §6.1, §11.2: Transfer-Encoding in disguise",
        [
            &b"transfer-encoding : chunked"[..],
            b"transfer-encoding\t: chunked",
            b"transfer-encoding:\x0bchunked",
            b"transfer-encoding: \x0cchunked",
            b"transfer-encoding: chunked\x0b",
            b"transfer-encoding: chunked\0",
            b"transfer-encoding: chun\0ked",
            b"transfer-encoding: chunked\r",
            b"transfer-encoding:\r\n chunked",
            b"a: b\r\n transfer-encoding: chunked",
            b"a: b\r\n\ttransfer-encoding: chunked",
            b"a: b\rtransfer-encoding: chunked",
            b"a: b\ntransfer-encoding: chunked",
            b" transfer-encoding: chunked",
            b"transfer-encoding\0: chunked",
            b"\x00transfer-encoding: chunked",
        ]
        .iter()
        .map(coded),
    );
    table.refused(
        BAD,
        "9112 §6.3: chunked is not the last coding",
        [
            &b"transfer-encoding: gzip"[..],
            b"transfer-encoding: identity",
            b"transfer-encoding: chunked, gzip",
            b"transfer-encoding: chunked, identity",
            b"transfer-encoding: chunked\r\ntransfer-encoding: gzip",
            b"transfer-encoding: chunked\r\ntransfer-encoding: identity",
            b"transfer-encoding: xchunked",
            b"transfer-encoding: chunkedx",
            b"transfer-encoding: chunked x",
            b"transfer-encoding: x chunked",
            b"transfer-encoding: chunked chunked",
            b"transfer-encoding: \"chunked\"",
            b"transfer-encoding: 'chunked'",
            b"transfer-encoding: chunked;a=b",
            b"transfer-encoding: chunked\xa0",
            b"transfer-encoding: \xc4\x8bhunked",
        ]
        .iter()
        .map(coded),
    );
    table.refused(
        BAD,
        "9112 §7: chunked is applied once",
        [
            &b"transfer-encoding: chunked, chunked"[..],
            b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        ]
        .iter()
        .map(coded),
    );
    table.refused(
        UNKNOWN_CODING,
        "9112 §6.1: a coding that nobody here undoes (HAProxy: 422)",
        [
            &b"transfer-encoding: gzip, chunked"[..],
            b"transfer-encoding: identity, chunked",
            b"transfer-encoding: gzip\r\ntransfer-encoding: chunked",
            b"transfer-encoding: x, chunked",
        ]
        .iter()
        .map(coded),
    );
    table.refused(
        BAD_CODING,
        "9112 §6.1: a list with nothing in it, or nothing in one of its places",
        [
            &b"transfer-encoding:"[..],
            b"transfer-encoding: ,",
            b"transfer-encoding: chunked,",
            b"transfer-encoding: , chunked",
            b"transfer-encoding: chunked\r\ntransfer-encoding:",
            b"transfer-encoding:\r\ntransfer-encoding: chunked",
        ]
        .iter()
        .map(coded),
    );
}

fn codings_out_of_place(table: &mut Table) {
    table.refused(
        BAD,
        "9112 §6.1: HTTP/1.0 has no Transfer-Encoding",
        [
            "POST / HTTP/1.0\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.0\r\nhost: test\r\ntransfer-encoding: chunked\r\n\
             content-length: 5\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.0\r\nhost: test\r\nconnection: keep-alive\r\n\
             transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ],
    );
    table.refused(
        BAD,
        "9112 §6.1: both a length and a coding",
        [
            "content-length: 5\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 5",
            "content-length: 0\r\ntransfer-encoding: chunked",
        ]
        .map(|lines| post(lines, "2\r\nhi\r\n0\r\n\r\n")),
    );
    table.refused(
        BAD,
        "9112 §6.3: beside chunked a length that is none",
        [
            &b"transfer-encoding: chunked\r\ncontent-length: x"[..],
            b"transfer-encoding: chunked\r\ncontent-length: 5\r\ncontent-length: 6",
            b"content-length: +5\r\ntransfer-encoding: chunked",
        ]
        .map(|lines| post(lines, "0\r\n\r\n")),
    );
}

fn lengths(table: &mut Table) {
    for line in [
        "content-length: 5",
        "Content-Length:5",
        "content-length: \t5 \t",
        "content-length: 005",
    ] {
        table.passes(
            "9110 §8.6: Content-Length = 1*DIGIT",
            post(line, "hello"),
            "POST / HTTP/1.1\nhost: test\ncontent-length: 5\n\nhello",
        );
    }
    table.passes(
        "9112 §6.3: without a length there is no body",
        "POST / HTTP/1.1\r\nhost: test\r\n\r\n",
        "POST / HTTP/1.1\nhost: test",
    );
    table.passes(
        "9112 §6.3: a length of nothing",
        post("content-length: 0", ""),
        "POST / HTTP/1.1\nhost: test",
    );
    table.passes(
        "9110 §9.3.1: a GET may have a body, and what looks like a request is none",
        get("content-length: 28\r\n\r\nGET /b HTTP/1.1\r\nhost: b"),
        "GET / HTTP/1.1\nhost: test\ncontent-length: 28\n\nGET /b HTTP/1.1\r\nhost: b\r\n\r\n",
    );
    table.refused(
        BAD,
        "9112 §6.3, 9110 §8.6: a length that is no decimal number",
        [
            &b"content-length:"[..],
            b"content-length: ",
            b"content-length: +5",
            b"content-length: -5",
            b"content-length: -0",
            b"content-length: 0x5",
            b"content-length: 5.0",
            b"content-length: 5e0",
            b"content-length: 5_0",
            b"content-length: 5 5",
            b"content-length: 5\t5",
            b"content-length: 5;",
            b"content-length: five",
            b"content-length: 5a",
            b"content-length: \"5\"",
            b"content-length: 5\0",
            b"content-length: \x0b5",
            b"content-length: 5\x0c",
            b"content-length: \xd9\xa5",
            b"content-length: 5\r\n 5",
            b"content-length:\r\n 5",
            b"content-length : 5",
            b"content-length\t: 5",
        ]
        .map(|line| post(line, "hello")),
    );
    table.refused(
        BAD,
        "9110 §8.6: a length that no counter holds",
        [
            "content-length: 18446744073709551616",
            "content-length: 18446744073709551621",
            "content-length: 99999999999999999999",
            "content-length: 340282366920938463463374607431768211461",
        ]
        .map(|line| post(line, "hello")),
    );
    table.refused(
        BAD,
        "9112 §6.3, §11.2: one length, even if all are equal",
        [
            "content-length: 5\r\ncontent-length: 6",
            "content-length: 6\r\ncontent-length: 5",
            "content-length: 5\r\ncontent-length: 5",
            "content-length: 5, 5",
            "content-length: 5,5",
            "content-length: 5, 6",
            "content-length: 5,",
            "content-length: ,5",
            "content-length: 5\r\ncontent-length:",
            "content-length: 0\r\ncontent-length: 5",
        ]
        .map(|line| post(line, "hello")),
    );
    table.refused(
        &[413],
        "1945 §D.1.1: a GET of HTTP/1.0 with a body (HAProxy: 413)",
        ["GET / HTTP/1.0\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello"],
    );
}

fn chunked_bodies(table: &mut Table) {
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
        "005\r\nhello\r\n000\r\n\r\n",
        "5;a=b\r\nhello\r\n0;c\r\n\r\n",
        "5;a=\"b;c\\\"d\";e\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\na: b\r\nc: d\r\n\r\n",
    ] {
        table.passes(
            "9112 §7.1: a chunked body, its extensions dropped",
            chunked(body),
            "POST / HTTP/1.1\nhost: test\ntransfer-encoding: chunked\n\nhello",
        );
    }
    for size in ["a", "A", "0a"] {
        table.passes(
            "9112 §7.1: a size is hexadecimal in either case",
            chunked(format!("{size}\r\nhellohello\r\n0\r\n\r\n")),
            "POST / HTTP/1.1\nhost: test\ntransfer-encoding: chunked\n\nhellohello",
        );
    }
    table.passes(
        "9112 §7.1: what is in a chunk is no framing",
        chunked("17\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n0\r\n\r\n"),
        "POST / HTTP/1.1\nhost: test\ntransfer-encoding: chunked\n\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    );
    table.passes(
        "9112 §6.1: a GET with chunks",
        get("transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0"),
        "GET / HTTP/1.1\nhost: test\ntransfer-encoding: chunked\n\nhello",
    );
}

fn broken_chunks(table: &mut Table) {
    table.broken_off(
        "9112 §7.1: chunk-size = 1*HEXDIG",
        [
            &b"\r\nhello\r\n0\r\n\r\n"[..],
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"5h\r\nhello\r\n0\r\n\r\n",
            b"g\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"\t5\r\nhello\r\n0\r\n\r\n",
            b"5 5\r\nhello\r\n0\r\n\r\n",
            b"5,\r\nhello\r\n0\r\n\r\n",
            b"5.0\r\nhello\r\n0\r\n\r\n",
            b"5_0\r\nhello\r\n0\r\n\r\n",
            b"\"5\"\r\nhello\r\n0\r\n\r\n",
            b";a=b\r\nhello\r\n0\r\n\r\n",
            b"5\0\r\nhello\r\n0\r\n\r\n",
            b"5\x0b\r\nhello\r\n0\r\n\r\n",
            b"\xd9\xa5\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n-0\r\n\r\n",
            b"5\r\nhello\r\n+0\r\n\r\n",
            b"5\r\nhello\r\n0x0\r\n\r\n",
            b"5\r\nhello\r\n\r\n\r\n",
        ],
    );
    table.broken_off(
        "9112 §7.1: a size that no counter holds",
        [
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
            "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            "100000000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
        ],
    );
    table.broken_off(
        "9112 §7.1: CRLF behind a size, and behind a chunk",
        [
            "5\nhello\r\n0\r\n\r\n",
            "5\rhello\r\n0\r\n\r\n",
            "5\r\rhello\r\n0\r\n\r\n",
            "5\n\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\r0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\r\r\n0\r\n\r\n",
            "5\r\nhellox\r\n0\r\n\r\n",
            "4\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello  \r\n0\r\n\r\n",
            "5\r\nhello\r\n0\n\r\n",
            "5\r\nhello\r\n0\r\n\n",
            "5\r\nhello\r\n0\n\n",
            "5\r\nhello\r\n0\r\r\n\r\n",
        ],
    );
    table.broken_off(
        "9112 §7.1.1: no control bytes in an extension, no end of a line (§11.2)",
        [
            &b"5;a\nb\r\nhello\r\n0\r\n\r\n"[..],
            b"5;\nhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"5;a=\"\rb\"\r\nhello\r\n0\r\n\r\n",
            b"5;a=\"\nb\"\r\nhello\r\n0\r\n\r\n",
            b"5;a\0\r\nhello\r\n0\r\n\r\n",
            b"5;a=\x01\r\nhello\r\n0\r\n\r\n",
            b"5;a=\x0b\r\nhello\r\n0\r\n\r\n",
            b"5;a=\x7f\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0;\n\r\n\r\n",
            b"5\r\nhello\r\n0;a\0\r\n\r\n",
        ],
    );
    let long = "x".repeat(64 * 1024);
    table.broken_off(
        "9112 §7.1.1: extensions have a limit, one by one and together",
        [
            format!("5;{long}\r\nhello\r\n0\r\n\r\n"),
            format!("{}0\r\n\r\n", "1;xxxxxxxxxxxxxxx\r\nx\r\n".repeat(4096)),
        ],
    );
}

fn trailers(table: &mut Table) {
    let long = "x".repeat(64 * 1024);
    table.broken_off(
        "9112 §7.1.2, §5: a trailer is a field",
        [
            &b"5\r\nhello\r\n0\r\na\r\n\r\n"[..],
            b"5\r\nhello\r\n0\r\n: b\r\n\r\n",
            b"5\r\nhello\r\n0\r\na : b\r\n\r\n",
            b"5\r\nhello\r\n0\r\n a: b\r\n\r\n",
            b"5\r\nhello\r\n0\r\na: b\r\n c\r\n\r\n",
            b"5\r\nhello\r\n0\r\na(: b\r\n\r\n",
            b"5\r\nhello\r\n0\r\na: b\nc: d\r\n\r\n",
            b"5\r\nhello\r\n0\r\na: b\rc\r\n\r\n",
            b"5\r\nhello\r\n0\r\na: b\0\r\n\r\n",
            b"5\r\nhello\r\n0\r\na: b\x7f\r\n\r\n",
            b"5\r\nhello\r\n0\r\na: b\n\n",
            b"5\r\nhello\r\n0\r\na: b\r\n\n",
            b"5\r\nhello\r\n0\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        ],
    );
    table.broken_off(
        "9112 §7.1.2: trailers have a limit",
        [
            format!("5\r\nhello\r\n0\r\na: {long}\r\n\r\n"),
            format!("5\r\nhello\r\n0\r\n{}\r\n", "a: b\r\n".repeat(8192)),
        ],
    );
    for line in ["content-length: 9", "host: other", "Transfer-Encoding: x"] {
        table.passes(
            "9110 §6.5.1: no trailer frames or routes",
            chunked(format!("5\r\nhello\r\n0\r\n{line}\r\n\r\n")),
            "POST / HTTP/1.1\nhost: test\ntransfer-encoding: chunked\n\nhello",
        );
    }
}

fn connection_options(table: &mut Table) {
    for lines in [
        "connection: x-a\r\nx-a: 1",
        "x-a: 1\r\nConnection: X-A",
        "connection: keep-alive, x-a\r\nx-a: 1\r\nX-A: 2",
        "connection: ,, \tx-a\t ,\r\nx-a: 1",
        "connection: x-b\r\nconnection: x-a\r\nx-a: 1\r\nx-b: 2",
        "connection: keep-alive\r\nkeep-alive: timeout=5",
        "keep-alive: timeout=5",
        "proxy-connection: keep-alive",
        "te: gzip",
        "connection: te\r\nte: gzip;q=1",
        "upgrade: websocket",
        "upgrade: h2c",
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQ",
        "connection: upgrade\r\nupgrade: H2C",
        "connection: upgrade\r\nupgrade: websocket, h2c",
        "connection: upgrade\r\nupgrade: websocket\r\nupgrade: h2c",
    ] {
        table.passes(
            "9110 §7.6.1: what is about the client's connection ends here",
            get(lines),
            ARRIVED,
        );
    }
    table.add(
        "9110 §7.6.1: and a field named beside close",
        get("x-a: 1\r\nconnection: close, x-a"),
        &[ARRIVED.as_bytes()],
        End::Closed,
    );
    table.passes(
        "9110 §7.6.1: what frames, routes or says who asked is not about a connection",
        post(
            "connection: content-length, host, cookie, x-forwarded-for, x-forwarded-port, \
             x-forwarded-proto\r\ncookie: a=b\r\ncontent-length: 5",
            "hello",
        ),
        "POST / HTTP/1.1\nhost: test\ncookie: a=b\ncontent-length: 5\n\nhello",
    );
    table.passes(
        "9110 §7.6.1: nor is Transfer-Encoding",
        post(
            "Connection: Transfer-Encoding\r\ntransfer-encoding: chunked",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        "POST / HTTP/1.1\nhost: test\ntransfer-encoding: chunked\n\nhello",
    );
    for line in ["te: trailers", "te: deflate, Trailers\r\nconnection: te"] {
        table.passes(
            "9110 §10.1.4: of TE only trailers passes",
            get(line),
            "GET / HTTP/1.1\nhost: test\nte: trailers",
        );
    }
    table.passes(
        "9110 §7.8: an Upgrade that Connection goes with passes, and a server may ignore it",
        get("connection: keep-alive, Upgrade\r\nupgrade: websocket"),
        "GET / HTTP/1.1\nhost: test\nconnection: upgrade\nupgrade: websocket",
    );
    table.add(
        "9110 §7.8: HTTP/1.0 cannot upgrade",
        "GET / HTTP/1.0\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        &[ARRIVED.as_bytes()],
        End::Closed,
    );
    table.passes(
        "design: who asked is added to, what we know better is replaced",
        get("x-forwarded-for: 203.0.113.1\r\nx-forwarded-proto: https\r\nx-forwarded-port: 1"),
        "GET / HTTP/1.1\nhost: test\nx-forwarded-for: 203.0.113.1",
    );
}

/// What a client says of itself, or of another, in every shape.
fn claims(table: &mut Table) {
    const CLAUSE: &str = "design: what servers are told of a client no client takes away";
    table.passes(
        CLAUSE,
        get(
            "Connection: X-Forwarded-For, Forwarded, X-Forwarded-Proto, X-Real-IP\r\n\
             x-forwarded-for: 203.0.113.1\r\nforwarded: for=203.0.113.1\r\n\
             x-forwarded-proto: https\r\nx-real-ip: 203.0.113.1",
        ),
        "GET / HTTP/1.1\nhost: test\nx-forwarded-for: 203.0.113.1\n\
         forwarded: for=203.0.113.1\nx-real-ip: 203.0.113.1",
    );
    let long = vec![b"203.0.113.1".as_slice(); 1200].join(&b", "[..]);
    for value in [
        &b"203.0.113.1\r\nx-forwarded-for: 203.0.113.2"[..],
        b"203.0.113.1\r\nx-forwarded-for: 203.0.113.1",
        b"127.0.0.1",
        b"",
        b",",
        b"unknown, \xe4\xff, \"",
        &long,
    ] {
        let field = join(&[b"x-forwarded-for: ", value]);
        let mut arrives = join(&[ARRIVED.as_bytes(), b"\n", &field]);
        arrives.retain(|byte| *byte != b'\r');
        table.passes(CLAUSE, get(&field), &arrives);
    }
}

fn sizes(table: &mut Table) {
    let long = "x".repeat(17 * 1024);
    let value = "x".repeat(15 * 1024);
    table.passes(
        "design: a head of nearly 16 KiB passes",
        get(format!("a: {value}")),
        &format!("{ARRIVED}\na: {value}"),
    );
    table.passes(
        "design: a hundred fields pass",
        get("a: b\r\n".repeat(99).trim_end()),
        &format!("{ARRIVED}{}", "\na: b".repeat(99)),
    );
    table.refused(
        HEAD_TOO_LARGE,
        "6585 §5: a head of more than 16 KiB, or of more than a hundred fields",
        [
            format!("a: {long}"),
            format!("{long}: a"),
            "a: b\r\n".repeat(100).trim_end().to_owned(),
            "a: b\r\n".repeat(10_000).trim_end().to_owned(),
        ]
        .map(get),
    );
    table.refused(
        TARGET_TOO_LONG,
        "9112 §3: a request-line of more than 16 KiB",
        [
            format!("GET /{long} HTTP/1.1"),
            format!("GET /?{}", "x".repeat(70 * 1024)),
        ]
        .map(asking),
    );
    table.refused(
        &[400, 414, 431],
        "9112 §3: a line without end",
        ["A".repeat(64 * 1024)],
    );
}

fn several_requests(table: &mut Table) {
    let a = b"GET /a HTTP/1.1\nhost: a";
    table.add(
        "9112 §9.3.2: what follows a request is the next, however the first ends",
        "GET / HTTP/1.1\r\nhost: test\r\n\r\nGET /a HTTP/1.1\r\nhost: a\r\n\r\n",
        &[ARRIVED.as_bytes(), a],
        End::Kept,
    );
    table.add(
        "9112 §9.3.2: behind a length",
        post(
            "content-length: 5",
            "helloGET /a HTTP/1.1\r\nhost: a\r\n\r\n",
        ),
        &[
            b"POST / HTTP/1.1\nhost: test\ncontent-length: 5\n\nhello",
            a,
        ],
        End::Kept,
    );
    table.add(
        "9112 §9.3.2: behind the last chunk",
        chunked("5\r\nhello\r\n0\r\n\r\nGET /a HTTP/1.1\r\nhost: a\r\n\r\n"),
        &[
            b"POST / HTTP/1.1\nhost: test\ntransfer-encoding: chunked\n\nhello",
            a,
        ],
        End::Kept,
    );
    table.add(
        "9112 §2.2: old clients send a CRLF behind a POST",
        post(
            "content-length: 5",
            "hello\r\nGET /a HTTP/1.1\r\nhost: a\r\n\r\n",
        ),
        &[
            b"POST / HTTP/1.1\nhost: test\ncontent-length: 5\n\nhello",
            a,
        ],
        End::Kept,
    );
    for surplus in ["garbage\r\n\r\n", "GET /a HTTP/1.1\r\n\r\n", "\0"] {
        table.add(
            "9112 §9.3.2: what follows a request and is none is refused",
            format!("GET / HTTP/1.1\r\nhost: test\r\n\r\n{surplus}"),
            &[ARRIVED.as_bytes()],
            End::Refused(BAD),
        );
    }
    table.add(
        "9112 §9.6: what follows the last request is none",
        "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n\
         GET /a HTTP/1.1\r\nhost: a\r\n\r\n",
        &[ARRIVED.as_bytes()],
        End::Closed,
    );
}

fn hang_ups(table: &mut Table) {
    for sends in [
        post("content-length: 10", ""),
        post("content-length: 10", "hello"),
        chunked(""),
        chunked("5"),
        chunked("5\r\nhel"),
        chunked("5\r\nhello"),
        chunked("5\r\nhello\r\n"),
        chunked("5\r\nhello\r\n0\r\n"),
        chunked("5\r\nhello\r\n0\r\na: b\r\n"),
        b"GET / HTTP/1.1\r\nhost: test\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nhost: te".to_vec(),
        b"GET /".to_vec(),
    ] {
        table.add(
            "9112 §8: a request that breaks off is none",
            sends,
            &[],
            End::HungUp,
        );
    }
}

/// Rows that hold, to see that none is complained about without a reason.
pub(super) fn right_rows() -> Vec<Row> {
    let mut table = Table::default();
    table.passes("right", asking("GET / HTTP/1.1"), ARRIVED);
    table.refused(BAD, "right", [asking("GET  HTTP/1.1")]);
    table.0
}

/// Rows that do not hold, each in a way of its own.
pub(super) fn wrong_rows() -> Vec<Row> {
    let mut table = Table::default();
    let sends = || asking("GET / HTTP/1.1");
    let arrives = &[ARRIVED.as_bytes()];
    table.refused(BAD, "it is not refused", [sends()]);
    table.refused(&[431], "for another reason", [asking("GET  HTTP/1.1")]);
    table.passes("it is", asking("GET  HTTP/1.1"), ARRIVED);
    table.passes("another Host", sends(), "GET / HTTP/1.1\nhost: other");
    table.passes("another target", sends(), "GET /x HTTP/1.1\nhost: test");
    table.passes("a field more", sends(), "GET / HTTP/1.1\nhost: test\na: b");
    table.passes("a field less", get("a: b"), ARRIVED);
    table.passes(
        "another body",
        post("content-length: 5", "hello"),
        "POST / HTTP/1.1\nhost: test\ncontent-length: 5\n\nHello",
    );
    table.add("it is kept", sends(), arrives, End::Closed);
    table.add("it is closed", get("connection: close"), arrives, End::Kept);
    table.add(
        "one is enough",
        sends(),
        &[arrives[0], arrives[0]],
        End::Kept,
    );
    table.add(
        "two are seen",
        join(&[&sends(), &sends()]),
        arrives,
        End::Kept,
    );
    table.add("it is whole", sends(), &[], End::BrokenOff);
    table.0
}
