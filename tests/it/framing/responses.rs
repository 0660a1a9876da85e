//! What servers send.

use super::{
    Delivery, PROBE, Received, Stage, bystander, complaint,
    message::{Message, sorted},
    recorder::Answer,
    shown,
};

/// An answer to `/`, and what comes of it.
#[derive(Debug, Clone)]
pub(super) struct Row {
    clause: &'static str,
    request: &'static str,
    sends: Vec<u8>,
    /// What the server sends once its answer is with the client.
    blurts: Vec<u8>,
    /// Whether the server closes behind its answer.
    closes: bool,
    /// Whether the order of what arrives where is settled by one write only.
    at_once: bool,
    gets: Gets,
    /// Whether the balancer may go on with the server's connection.
    trusted: bool,
}

/// What the client gets.
#[derive(Debug, Clone)]
enum Gets {
    /// These answers, as [`sorted`] text, and then the probe's.
    Answers(Vec<Vec<u8>>),
    /// These answers, and then the end.
    AnswersAndEnd(Vec<Vec<u8>>),
    /// The answer without what does not belong to it, or 502.
    AnswerOrBadGateway(Vec<u8>),
    /// 502, perhaps behind interim answers.
    BadGateway,
    /// An answer that breaks off, be it before its first byte, or 502.
    CutOff,
}

/// Runs a row.
pub(super) fn run(stage: &Stage, row: &Row, delivery: Delivery) -> Result<(), String> {
    let delivery = if row.at_once {
        Delivery::Whole
    } else {
        delivery
    };
    stage.server.begin(Some(Answer {
        bytes: row.sends.clone(),
        closes: row.closes,
        delivery,
    }));
    let request = row.request.as_bytes();
    let received = if row.blurts.is_empty() {
        let sends = [request, PROBE.as_bytes()].concat();
        Received::from(&stage.balancer, &sends, Delivery::Whole, false)
    } else {
        let request = row
            .request
            .replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        let sends = request.as_bytes();
        let received = Received::from(&stage.balancer, sends, Delivery::Whole, false);
        stage.server.blurt(&row.blurts);
        received
    };
    let others = bystander(stage);
    let (requests, parts) = stage.server.settle();
    let trusted = row.trusted || stage.server.ended_with_root(&requests);
    let asked = requests.iter().filter(|request| request.is_root()).count();
    if others.is_ok()
        && parts.is_empty()
        && asked == 1
        && trusted
        && received.closed
        && row.is_answered(&received)
    {
        return Ok(());
    }
    let texts: Vec<String> = received.answers.iter().map(|a| shown(&normal(a))).collect();
    let mut about = vec![
        ("asked", shown(request)),
        ("sent", shown(&row.sends)),
        ("expected", row.gets.shown()),
        ("got", received.shown()),
        ("in full", texts.join(", ")),
    ];
    if !row.blurts.is_empty() {
        about.insert(2, ("sent later", shown(&row.blurts)));
    }
    if asked != 1 {
        about.push(("asked", format!("{asked} times")));
    }
    if !trusted {
        let why = "the server's connection went on".to_owned();
        about.push(("trusted", why));
    }
    if !parts.is_empty() {
        about.push(("in part", format!("{parts:?}")));
    }
    if let Err(others) = others {
        about.push(("bystander", others));
    }
    Err(complaint(row.clause, &about))
}

impl Row {
    fn is_answered(&self, received: &Received) -> bool {
        let texts: Vec<Vec<u8>> = received.answers.iter().map(normal).collect();
        let statuses = received.statuses();
        let statuses: Vec<&str> = statuses.iter().map(String::as_str).collect();
        // The connection of a row that blurts is the row's alone.
        let probed = self.blurts.is_empty();
        let ends = |behind: &[&str], kept: bool| match behind {
            ["200 /probe"] => probed && kept,
            [] => !(probed && kept),
            _ => false,
        };
        let whole = received.rest.is_empty();
        let bad_gateway = || {
            let all = statuses.iter().copied();
            let last: Vec<&str> = all.skip_while(|status| status.starts_with('1')).collect();
            match last.as_slice() {
                // Its connection may be kept or not.
                ["502", behind @ ..] => ends(behind, true) || ends(behind, false),
                _ => false,
            }
        };
        let are = |answers: &[Vec<u8>], kept: bool| {
            texts.starts_with(answers) && ends(&statuses[answers.len()..], kept)
        };
        match &self.gets {
            Gets::Answers(answers) => whole && are(answers, true),
            Gets::AnswersAndEnd(answers) => whole && are(answers, false),
            Gets::AnswerOrBadGateway(answer) => {
                whole && (are(std::slice::from_ref(answer), true) || bad_gateway())
            }
            Gets::BadGateway => whole && bad_gateway(),
            Gets::CutOff => statuses.is_empty() || whole && bad_gateway(),
        }
    }
}

impl Gets {
    fn shown(&self) -> String {
        let list = |answers: &[Vec<u8>]| {
            let shown: Vec<String> = answers.iter().map(|text| shown(text)).collect();
            shown.join(", ")
        };
        match self {
            Self::Answers(answers) => format!("{}, then the probe's", list(answers)),
            Self::AnswersAndEnd(answers) => format!("{}, then the end", list(answers)),
            Self::AnswerOrBadGateway(answer) => format!("{} or 502", shown(answer)),
            Self::BadGateway => "502".to_owned(),
            Self::CutOff => "an answer that breaks off, or 502".to_owned(),
        }
    }
}

/// An answer as the tables have it: without what a balancer may add, or say
/// of the client's connection.
fn normal(answer: &Message) -> Vec<u8> {
    let mut fields = answer.fields.clone();
    fields.retain(|(name, value)| match name.as_str() {
        "date" => false,
        "connection" => {
            !value.eq_ignore_ascii_case(b"close") && !value.eq_ignore_ascii_case(b"keep-alive")
        }
        _ => true,
    });
    // A client of HTTP/1.0 may be answered in its own version (RFC 9110 §6.2).
    let status = answer.first_line.strip_prefix(b"HTTP/1.0 ");
    let first_line = status.map(|status| [b"HTTP/1.1 ", status].concat());
    let message = Message {
        first_line: first_line.unwrap_or_else(|| answer.first_line.clone()),
        fields,
        content: answer.content.clone(),
        length: answer.length,
    };
    message.text()
}

const GET: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nhost: test\r\n\r\n";
const OLD_GET: &str = "GET / HTTP/1.0\r\nhost: test\r\n\r\n";

/// An answer that must not reach anybody, as a smuggler would word it.
const SURPLUS: &str = "HTTP/1.1 200 OK\r\nx-target: surplus\r\ncontent-length: 0\r\n\r\n";

/// The rows in their order.
#[derive(Debug, Default)]
struct Table(Vec<Row>);

impl Table {
    fn add(&mut self, clause: &'static str, sends: impl Into<Vec<u8>>, gets: Gets) -> &mut Row {
        let row = Row {
            clause,
            request: GET,
            sends: sends.into(),
            blurts: Vec::new(),
            closes: false,
            at_once: false,
            gets,
            trusted: true,
        };
        self.0.push(row);
        self.0.last_mut().expect("it was just added")
    }

    /// One answer that passes as this.
    fn passes<T: AsRef<[u8]> + ?Sized>(
        &mut self,
        clause: &'static str,
        sends: impl Into<Vec<u8>>,
        gets: &T,
    ) -> &mut Row {
        self.add(clause, sends, Gets::Answers(vec![sorted(gets.as_ref())]))
    }

    /// A row for each head, which is 502.
    fn refused<S: AsRef<[u8]>>(
        &mut self,
        clause: &'static str,
        answers: impl IntoIterator<Item = S>,
    ) {
        for answer in answers {
            let row = self.add(clause, answer.as_ref(), Gets::BadGateway);
            row.trusted = false;
        }
    }

    /// A row for each chunked body, which breaks off.
    fn cut_off<S: AsRef<[u8]>>(
        &mut self,
        clause: &'static str,
        bodies: impl IntoIterator<Item = S>,
    ) {
        for body in bodies {
            let row = self.add(clause, chunked(body), Gets::CutOff);
            row.trusted = false;
        }
    }
}

/// Every row.
pub(super) fn table() -> Vec<Row> {
    let mut table = Table::default();
    good_answers(&mut table);
    no_bodies(&mut table);
    interim_answers(&mut table);
    status_lines(&mut table);
    fields(&mut table);
    framing(&mut table);
    chunked_bodies(&mut table);
    early_ends(&mut table);
    surpluses(&mut table);
    table.0
}

/// 200 with these lines, and what follows the head.
fn ok(lines: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    let (lines, body) = (lines.as_ref(), body.as_ref());
    [b"HTTP/1.1 200 OK\r\n", lines, b"\r\n\r\n", body].concat()
}

/// 200 with that body, which has its framing.
fn chunked(body: impl AsRef<[u8]>) -> Vec<u8> {
    ok("transfer-encoding: chunked", body)
}

const HELLO: &str = "HTTP/1.1 200 OK\ncontent-length: 5\n\nhello";
const HELLO_CHUNKED: &str = "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\nhello";

fn good_answers(table: &mut Table) {
    table.passes(
        "9112 §6.3: a length",
        ok("Content-Length:\t5 ", "hello"),
        HELLO,
    );
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "01\r\nh\r\n4;a=b\r\nello\r\n00;c=\"d;e\"\r\n\r\n",
        "5\r\nhello\r\n0\r\na: b\r\n\r\n",
    ] {
        table.passes("9112 §7.1: chunks", chunked(body), HELLO_CHUNKED);
    }
    for line in ["Transfer-Encoding: Chunked", "transfer-encoding:\tchunked"] {
        table.passes(
            "9112 §7: chunked in any case",
            ok(line, "5\r\nhello\r\n0\r\n\r\n"),
            HELLO_CHUNKED,
        );
    }
    let row = table.passes(
        "9112 §6.3: until the end, which HTTP/1.1 is told by chunks",
        ok("a: b", "hello"),
        "HTTP/1.1 200 OK\na: b\ntransfer-encoding: chunked\n\nhello",
    );
    row.closes = true;
    row.trusted = false;
    let row = table.passes(
        "9112 §2.3: a server of HTTP/1.0 ends its connection",
        "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        HELLO,
    );
    row.trusted = false;
    let row = table.passes(
        "9112 §9.6: and so does one that says so",
        ok("connection: close\r\ncontent-length: 5", "hello"),
        HELLO,
    );
    row.trusted = false;
    for (answer, closes) in [
        (chunked("5\r\nhello\r\n0\r\n\r\n"), false),
        (ok("a: b", "hello"), true),
    ] {
        let lines = if closes { "\na: b" } else { "" };
        let text = format!("HTTP/1.1 200 OK{lines}\n\nhello");
        let gets = Gets::AnswersAndEnd(vec![sorted(text.as_bytes())]);
        let row = table.add("9112 §7: HTTP/1.0 is told no chunks", answer, gets);
        row.request = OLD_GET;
        row.closes = closes;
        row.trusted = !closes;
    }
    for line in [
        "HTTP/1.1 200 ",
        "HTTP/1.1 299 Rather\tGood",
        "HTTP/1.1 200 \"O:K\"",
        "HTTP/1.1 404 Not Found",
        "HTTP/1.1 500 No",
        "HTTP/1.1 599 Never Heard Of",
    ] {
        table.passes(
            "9112 §4: the status line is passed on",
            format!("{line}\r\ncontent-length: 0\r\n\r\n"),
            &format!("{line}\ncontent-length: 0"),
        );
    }
    for (lines, gets) in [
        (&b"a:b"[..], &b"a: b"[..]),
        (b"a: \t b\tc \t", b"a: b\tc"),
        (b"a:", b"a: "),
        (b"a: \x80\xe9\xff", b"a: \x80\xe9\xff"),
        (
            b"set-cookie: a=1\r\nb: 2\r\nSet-Cookie: b=2\r\nset-cookie: a=1",
            b"set-cookie: a=1\nset-cookie: b=2\nset-cookie: a=1\nb: 2",
        ),
        (b"connection: x-a\r\nx-a: 1\r\nX-A: 2\r\nb: 3", b"b: 3"),
        (b"keep-alive: timeout=5\r\nb: 3", b"b: 3"),
        (b"proxy-connection: keep-alive\r\nb: 3", b"b: 3"),
        (b"connection: upgrade\r\nupgrade: h2c\r\nb: 3", b"b: 3"),
        (b"connection: content-length\r\nb: 3", b"b: 3"),
    ] {
        table.passes(
            "9110 §5.5, §5.3, §7.6.1: fields are passed on to the byte, unless they end here",
            ok([lines, b"\r\ncontent-length: 0"].concat(), ""),
            &[b"HTTP/1.1 200 OK\ncontent-length: 0\n", gets].concat(),
        );
    }
    let value = "x".repeat(60 * 1024);
    table.passes(
        "design: a head of nearly 64 KiB passes",
        ok(format!("a: {value}\r\ncontent-length: 5"), "hello"),
        &format!("HTTP/1.1 200 OK\na: {value}\ncontent-length: 5\n\nhello"),
    );
}

fn no_bodies(table: &mut Table) {
    for (request, sends, gets) in [
        (
            GET,
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 204 No Content",
        ),
        (
            GET,
            "HTTP/1.1 304 Not Modified\r\n\r\n",
            "HTTP/1.1 304 Not Modified",
        ),
        (
            HEAD,
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\ncontent-length: 5",
        ),
        (
            HEAD,
            "HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\n",
            "HTTP/1.1 404 Not Found\ncontent-length: 5",
        ),
        (HEAD, "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK"),
    ] {
        let row = table.passes("9112 §6.3: no body, whatever the head says", sends, gets);
        row.request = request;
    }
    for (request, sends, gets) in [
        (
            GET,
            "HTTP/1.1 204 No Content\r\n\r\nhello",
            "HTTP/1.1 204 No Content",
        ),
        (
            GET,
            "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 204 No Content",
        ),
        (
            GET,
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content",
        ),
        (
            GET,
            "HTTP/1.1 304 Not Modified\r\n\r\nhello",
            "HTTP/1.1 304 Not Modified",
        ),
        (
            HEAD,
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\ncontent-length: 5",
        ),
    ] {
        let gets = Gets::AnswerOrBadGateway(sorted(gets.as_bytes()));
        let row = table.add("9112 §6.3: a body where there is none", sends, gets);
        row.request = request;
        row.at_once = true;
        row.trusted = false;
    }
}

fn interim_answers(table: &mut Table) {
    let hello = ok("content-length: 5", "hello");
    let texts = |texts: &[&str]| texts.iter().map(|text| sorted(text.as_bytes())).collect();
    for (sends, gets) in [
        ("HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100 Continue"),
        (
            "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\nconnection: x-a\r\nx-a: 1\r\n\r\n",
            "HTTP/1.1 103 Early Hints\nlink: </a>; rel=preload",
        ),
    ] {
        let sends = [sends.as_bytes(), &hello].concat();
        let clause = "9110 §15.2: interim answers are passed on to HTTP/1.1";
        table.add(clause, sends.clone(), Gets::Answers(texts(&[gets, HELLO])));
        let clause = "9110 §15.2: and not to HTTP/1.0";
        let row = table.add(clause, sends, Gets::AnswersAndEnd(texts(&[HELLO])));
        row.request = OLD_GET;
    }
    let sends = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\na: b\r\n\r\n";
    table.add(
        "9110 §15.2: however many there are",
        [sends.as_bytes(), &hello].concat(),
        Gets::Answers(texts(&[
            "HTTP/1.1 102 Processing",
            "HTTP/1.1 103 Early Hints\na: b",
            HELLO,
        ])),
    );
    table.refused(
        "9110 §15.2.2: a switch that nobody asked for",
        [
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        ],
    );
}

fn status_lines(table: &mut Table) {
    table.refused(
        "9112 §4: status-line = HTTP-version SP status-code SP [ reason-phrase ]",
        [
            &b"HTTP/2.0 200 OK"[..],
            b"HTTP/0.9 200 OK",
            b"HTTP/1.2 200 OK",
            b"HTTP/1.1x 200 OK",
            b"HTTP/1 200 OK",
            b"http/1.1 200 OK",
            b"ICY 200 OK",
            b"200 OK",
            b"hello",
            b"HTTP/1.1",
            b"HTTP/1.1 ",
            b"HTTP/1.1 OK",
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1\t200 OK",
            b" HTTP/1.1 200 OK",
            b"HTTP/1.1 20 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 +20 OK",
            b"HTTP/1.1 2x0 OK",
            b"HTTP/1.1 20\0 OK",
            b"HTTP/1.1 000 OK",
            b"HTTP/1.1 099 OK",
            b"HTTP/1.1 200OK",
            b"HTTP/1.1 200 O\0K",
            b"HTTP/1.1 200 O\x01K",
            b"HTTP/1.1 200 O\x7fK",
            b"HTTP/1.1 200 O\rK",
            b"HTTP/1.1 200 OK\r",
        ]
        .map(|line| [line, b"\r\ncontent-length: 5\r\n\r\nhello"].concat()),
    );
}

fn fields(table: &mut Table) {
    let with = |line: &[u8]| ok([line, b"\r\ncontent-length: 5"].concat(), "hello");
    table.refused(
        "9112 §5.2: obs-fold",
        [&b"a: b\r\n c"[..], b"a: b\r\n\tc", b"a:\r\n b"].map(with),
    );
    table.refused(
        "9112 §2.2: no whitespace before the first field",
        [&b" a: b"[..], b"\ta: b", b" "].map(with),
    );
    table.refused(
        "9112 §2.2, 9110 §5.5: a CR alone, or another control byte",
        [
            &b"a: b\rc"[..],
            b"a: b\rc: d",
            b"a: b\r",
            b"a: b\0c",
            b"a: \0",
            b"a: b\x01",
            b"a: b\x0bc",
            b"a:\x0cb",
            b"a: b\x1fc",
            b"a: b\x7fc",
        ]
        .map(with),
    );
    table.refused(
        "9110 §5.1: a field's name is a token, and a colon follows (HAProxy is strict here)",
        [
            &b"a : b"[..],
            b"a\t: b",
            b"a b: c",
            b"a",
            b": b",
            b":",
            b"a(b): c",
            b"a@b: c",
            b"\"a\": b",
            b"a\0: b",
            b"a\x7f: b",
            b"\xc3\xa4: b",
        ]
        .map(with),
    );
    let long = "x".repeat(70 * 1024);
    table.refused(
        "design: a head of more than 64 KiB",
        [
            with(format!("a: {long}").as_bytes()),
            with("a: b\r\n".repeat(20_000).trim_end().as_bytes()),
            format!("HTTP/1.1 200 {long}\r\n\r\n").into_bytes(),
        ],
    );
}

fn framing(table: &mut Table) {
    table.refused(
        "9112 §6.3: a length beside chunked may be a smuggler's",
        [
            "content-length: 5\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 5",
            "transfer-encoding: chunked\r\ncontent-length: 0",
        ]
        .map(|lines| ok(lines, "5\r\nhello\r\n0\r\n\r\n")),
    );
    table.refused(
        "9112 §6.3: one length, even if all are equal",
        [
            "content-length: 5\r\ncontent-length: 6",
            "content-length: 6\r\ncontent-length: 5",
            "content-length: 5\r\ncontent-length: 5",
            "content-length: 5, 5",
            "content-length: 5,6",
            "content-length: 5\r\ncontent-length:",
        ]
        .map(|lines| ok(lines, "hello")),
    );
    table.refused(
        "9112 §6.3, 9110 §8.6: a length that is no decimal number, or too large",
        [
            &b"content-length:"[..],
            b"content-length: +5",
            b"content-length: -5",
            b"content-length: 0x5",
            b"content-length: 5 5",
            b"content-length: 5.0",
            b"content-length: 5;",
            b"content-length: 5a",
            b"content-length: \"5\"",
            b"content-length: 5\0",
            b"content-length: 18446744073709551616",
            b"content-length: 18446744073709551621",
            b"content-length: 99999999999999999999",
            b"content-length : 5",
        ]
        .map(|lines| ok(lines, "hello")),
    );
    table.refused(
        "9112 §6.1, §6.3: a coding that nobody here undoes, or that is in disguise",
        [
            &b"transfer-encoding: gzip"[..],
            b"transfer-encoding: identity",
            b"transfer-encoding: gzip, chunked",
            b"transfer-encoding: chunked, gzip",
            b"transfer-encoding: chunked, identity",
            b"transfer-encoding: chunked, chunked",
            b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            b"transfer-encoding: gzip\r\ntransfer-encoding: chunked",
            b"transfer-encoding: chunked\r\ntransfer-encoding: gzip",
            b"transfer-encoding: xchunked",
            b"transfer-encoding: \"chunked\"",
            b"transfer-encoding: chunked;a=b",
            b"transfer-encoding:",
            b"transfer-encoding: chunked,",
            b"transfer-encoding:\x0bchunked",
            b"transfer-encoding: chunked\0",
            b"transfer-encoding : chunked",
            b"transfer-encoding:\r\n chunked",
            b"a: b\r\n transfer-encoding: chunked",
        ]
        .map(|lines| ok(lines, "5\r\nhello\r\n0\r\n\r\n")),
    );
    table.refused(
        "9112 §6.1: HTTP/1.0 has no Transfer-Encoding",
        ["HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
    );
}

fn chunked_bodies(table: &mut Table) {
    table.cut_off(
        "9112 §7.1: chunk-size = 1*HEXDIG",
        [
            &b"\r\nhello\r\n0\r\n\r\n"[..],
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"5h\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 5\r\nhello\r\n0\r\n\r\n",
            b";a=b\r\nhello\r\n0\r\n\r\n",
            b"5\0\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n-0\r\n\r\n",
            b"5\r\nhello\r\n\r\n\r\n",
            b"5\r\nhello\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"10000000000000005\r\nhello\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        ],
    );
    table.cut_off(
        "9112 §7.1: CRLF behind a size, and behind a chunk",
        [
            "5\nhello\r\n0\r\n\r\n",
            "5\rhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhellox\r\n0\r\n\r\n",
            "4\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\n\r\n",
            "5\r\nhello\r\n0\r\n\n",
        ],
    );
    let long = "x".repeat(64 * 1024);
    table.cut_off(
        "9112 §7.1.1: no control bytes in an extension, and not too much of it",
        [
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
            "5;a\0\r\nhello\r\n0\r\n\r\n",
            "5;a=\"\nb\"\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0;\n\r\n\r\n",
            &format!("5;{long}\r\nhello\r\n0\r\n\r\n"),
        ],
    );
    table.cut_off(
        "9112 §7.1.2, §5: a trailer is a field, and they are not too large",
        [
            "5\r\nhello\r\n0\r\na\r\n\r\n",
            "5\r\nhello\r\n0\r\n: b\r\n\r\n",
            "5\r\nhello\r\n0\r\na : b\r\n\r\n",
            "5\r\nhello\r\n0\r\na: b\r\n c\r\n\r\n",
            "5\r\nhello\r\n0\r\na: b\nc: d\r\n\r\n",
            "5\r\nhello\r\n0\r\na: b\rc\r\n\r\n",
            "5\r\nhello\r\n0\r\na: b\0\r\n\r\n",
            "5\r\nhello\r\n0\r\na: b\r\n\n",
            "5\r\nhello\r\n0\r\nHTTP/1.1 200 OK\r\n\r\n",
            &format!("5\r\nhello\r\n0\r\na: {long}\r\n\r\n"),
        ],
    );
    for line in ["content-length: 9", "transfer-encoding: x", "host: a"] {
        let sends = chunked(format!("5\r\nhello\r\n0\r\n{line}\r\n\r\n"));
        let row = table.passes("9110 §6.5.1: no trailer frames", sends, HELLO_CHUNKED);
        row.request = "GET / HTTP/1.1\r\nhost: test\r\nte: trailers\r\n\r\n";
    }
}

fn early_ends(table: &mut Table) {
    for sends in [
        ok("content-length: 10", ""),
        ok("content-length: 10", "hello"),
        chunked(""),
        chunked("5"),
        chunked("5\r\nhel"),
        chunked("5\r\nhello"),
        chunked("5\r\nhello\r\n"),
        chunked("5\r\nhello\r\n0\r\n"),
        chunked("5\r\nhello\r\n0\r\na: b\r\n"),
    ] {
        let clause = "9112 §8: an answer that breaks off is not completed";
        let row = table.add(clause, sends, Gets::CutOff);
        row.closes = true;
        row.trusted = false;
    }
    let row = table.add(
        "9112 §8: nor is it for HTTP/1.0 with a length",
        ok("content-length: 10", "hello"),
        Gets::CutOff,
    );
    row.request = OLD_GET;
    row.closes = true;
    row.trusted = false;
    for sends in [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\na: b\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP",
    ] {
        let clause = "9112 §8: a head that breaks off is none";
        let row = table.add(clause, sends, Gets::BadGateway);
        row.closes = true;
        row.trusted = false;
    }
}

fn surpluses(table: &mut Table) {
    let answers = [
        (GET, ok("content-length: 5", "hello"), HELLO),
        (GET, chunked("5\r\nhello\r\n0\r\n\r\n"), HELLO_CHUNKED),
        (
            GET,
            b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            "HTTP/1.1 204 No Content",
        ),
        (
            GET,
            b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec(),
            "HTTP/1.1 304 Not Modified",
        ),
        (
            HEAD,
            ok("content-length: 5", ""),
            "HTTP/1.1 200 OK\ncontent-length: 5",
        ),
    ];
    for (request, sends, gets) in answers {
        for surplus in [SURPLUS, "hello", "\r\n"] {
            let all = [&sends, surplus.as_bytes()].concat();
            let row = table.passes(
                "9112 §9.2, §11.1: what follows an answer is nobody's answer",
                all,
                gets,
            );
            row.request = request;
            row.at_once = true;
            row.trusted = false;
            let row = table.passes(
                "9112 §9.2, §11.1: nor is what comes while nobody has asked",
                sends.clone(),
                gets,
            );
            row.request = request;
            row.blurts = surplus.as_bytes().to_vec();
            row.trusted = false;
        }
    }
}

/// Rows that hold, to see that none is complained about without a reason.
pub(super) fn right_rows() -> Vec<Row> {
    let mut table = Table::default();
    table.passes("right", ok("content-length: 5", "hello"), HELLO);
    table.refused("right", ["hello\r\n\r\n"]);
    table.0
}

/// Rows that do not hold, each in a way of its own.
pub(super) fn wrong_rows() -> Vec<Row> {
    let mut table = Table::default();
    let hello = || ok("content-length: 5", "hello");
    table.refused("it passes", [hello()]);
    table.passes("it is 502", "hello\r\n\r\n", HELLO);
    table.passes("another body", ok("content-length: 5", "Hello"), HELLO);
    table.passes(
        "a field less",
        ok("content-length: 5\r\na: b", "hello"),
        HELLO,
    );
    table.add("it is whole", hello(), Gets::CutOff);
    let gets = vec![sorted(HELLO.as_bytes())];
    table.add("it is kept", hello(), Gets::AnswersAndEnd(gets));
    let row = table.passes("it is trusted", hello(), HELLO);
    row.trusted = false;
    table.0
}
