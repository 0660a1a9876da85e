//! RFC 9112 clause by clause, in raw bytes on both sides: what may pass, in
//! which form, and what must not. Where the RFC leaves a choice, the tables
//! take the stricter side, at times one stricter than `HAProxy` 2.6.
//!
//! Every row is run as one write and byte by byte, and is followed by two
//! requests: a probe right behind it on its own connection, and then a bystander
//! on another. Nobody but the probe may notice the row.

mod message;
mod recorder;
mod requests;
mod responses;

use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
};

use super::support::{client::Client, cluster::Balancer};
use message::{Body, Message};
use recorder::{PATIENCE, Recorder};

const PROBE: &str = "GET /probe HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n";
const BYSTANDER: &str = "GET /bystander HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n";

/// A balancer that alters as little as it can, and the one server behind it.
#[derive(Debug)]
struct Stage {
    server: Recorder,
    balancer: Balancer,
}

impl Stage {
    fn set() -> Self {
        let server = Recorder::start();
        let named = format!("s1={},check=off", server.addr);
        let flags = "--workers 1 --cookie off --observe off --retries 0 --access-log off --server";
        let mut flags: Vec<&str> = flags.split(' ').collect();
        flags.push(&named);
        let balancer = Balancer::start(&flags);
        Self { server, balancer }
    }
}

/// How bytes are handed to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// In one write.
    Whole,
    /// Byte by byte, or in a hundred pieces if they are many.
    InPieces,
}

impl Delivery {
    fn send(self, mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        let size = match self {
            Self::Whole => bytes.len(),
            Self::InPieces if bytes.len() < 2048 => 1,
            Self::InPieces => bytes.len() / 100,
        };
        let mut pieces = bytes.chunks(size.max(1));
        pieces.try_for_each(|piece| stream.write_all(piece))
    }
}

/// Runs each row both ways and lists all that went wrong. The stage is set
/// anew behind a failure, so that it spoils no other row.
fn complaints<Row>(
    rows: &[Row],
    run: impl Fn(&Stage, &Row, Delivery) -> Result<(), String>,
) -> Vec<String> {
    let mut complaints: Vec<String> = Vec::new();
    let mut stage = Stage::set();
    for row in rows {
        let both = [Delivery::Whole, Delivery::InPieces].map(|delivery| {
            let complaint = run(&stage, row, delivery).err();
            if complaint.is_some() {
                stage = Stage::set();
            }
            complaint.map(|complaint| (delivery, complaint))
        });
        match both {
            [Some((_, whole)), Some((_, in_pieces))] if whole == in_pieces => {
                complaints.push(format!("Both ways: {whole}"));
            }
            both => complaints.extend(
                both.into_iter()
                    .flatten()
                    .map(|(delivery, complaint)| format!("{delivery:?}: {complaint}")),
            ),
        }
    }
    complaints
}

#[track_caller]
fn assert_none(complaints: &[String], rows: usize) {
    assert!(
        complaints.is_empty(),
        "{}\n\n{} complaints about {rows} rows, each run twice",
        complaints.join("\n"),
        complaints.len(),
    );
}

/// One complaint.
fn complaint(clause: &str, parts: &[(&str, String)]) -> String {
    let mut text = format!("{clause}\n");
    for (name, value) in parts {
        writeln!(text, "  {name:<10}{value}").expect("a string takes all");
    }
    text
}

/// Bytes for a reader, cut where nobody reads on.
fn shown(bytes: &[u8]) -> String {
    let start = bytes.get(..400).unwrap_or(bytes).escape_ascii();
    let cut = if bytes.len() > 400 { "..." } else { "" };
    format!("\"{start}\"{cut} ({} bytes)", bytes.len())
}

/// What a client got on a connection.
#[derive(Debug, Default)]
struct Received {
    answers: Vec<Message>,
    /// What came behind the last whole answer.
    rest: Vec<u8>,
    /// Whether the connection was closed.
    closed: bool,
}

impl Received {
    /// Sends all this on a new connection, and reads until its end.
    fn from(balancer: &Balancer, sends: &[u8], delivery: Delivery, hangs_up: bool) -> Self {
        let mut client = balancer.connect();
        // An answer may come, and the end with it, before all is sent.
        delivery.send(client.stream(), sends).ok();
        if hangs_up {
            client.stream().shutdown(Shutdown::Write).ok();
        }
        Self::until_end(&mut client, sends.starts_with(b"HEAD "))
    }

    fn until_end(client: &mut Client, to_head: bool) -> Self {
        let mut stream = client.stream();
        stream.set_read_timeout(Some(PATIENCE)).ok();
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes);
        // A reset is an end as well.
        let waited = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
        let closed = !end.is_err_and(|err| waited.contains(&err.kind()));
        let mut received = Self {
            closed,
            ..Self::default()
        };
        received.read(&bytes, to_head);
        received
    }

    fn read(&mut self, mut bytes: &[u8], to_head: bool) {
        while !bytes.is_empty() {
            let interim = bytes.starts_with(b"HTTP/1.1 1");
            let bodiless = [&b"HTTP/1.1 204 "[..], b"HTTP/1.1 304 "];
            let bodiless = interim || bodiless.iter().any(|start| bytes.starts_with(start));
            let body = match self.answers.iter().all(is_interim) {
                _ if bodiless => Body::Never,
                true if to_head => Body::Never,
                _ if self.closed => Body::UntilClose,
                _ => Body::AsFramed,
            };
            let Ok(answer) = Message::read(bytes, body) else {
                break;
            };
            bytes = &bytes[answer.length..];
            self.answers.push(answer);
        }
        self.rest = bytes.to_vec();
    }

    /// Statuses, with the targets that the server names.
    fn statuses(&self) -> Vec<String> {
        self.answers.iter().map(status).collect()
    }

    fn shown(&self) -> String {
        let closed = if self.closed {
            "closed"
        } else {
            "open after all"
        };
        let rest = match self.rest.as_slice() {
            [] => String::new(),
            rest => format!(", in part {}", shown(rest)),
        };
        format!("{:?}{rest}, {closed}", self.statuses())
    }
}

fn is_interim(answer: &Message) -> bool {
    answer.second_word().starts_with('1')
}

/// An answer's status, and the target that the server says it is for.
fn status(answer: &Message) -> String {
    let status = answer.second_word();
    match answer.value("x-target") {
        Some(target) => format!("{status} {}", target.escape_ascii()),
        None => status,
    }
}

/// Asks on a connection of its own, as somebody who has nothing to do with
/// the row.
fn bystander(stage: &Stage) -> Result<(), String> {
    let received = Received::from(
        &stage.balancer,
        BYSTANDER.as_bytes(),
        Delivery::Whole,
        false,
    );
    if received.statuses() == ["200 /bystander"] && received.rest.is_empty() {
        return Ok(());
    }
    Err(received.shown())
}

#[test]
fn a_request_passes_as_the_clauses_have_it_or_not_at_all() {
    let rows = requests::table();
    assert_none(&complaints(&rows, requests::run), rows.len());
}

#[test]
fn an_answer_passes_as_the_clauses_have_it_or_not_at_all() {
    let rows = responses::table();
    assert_none(&complaints(&rows, responses::run), rows.len());
}

#[test]
fn a_row_that_is_not_so_is_complained_about() {
    for row in requests::right_rows() {
        assert_eq!(complaints(&[row], requests::run), [""; 0]);
    }
    for row in responses::right_rows() {
        assert_eq!(complaints(&[row], responses::run), [""; 0]);
    }
    for row in requests::wrong_rows() {
        let shown = format!("{row:?}");
        assert_eq!(complaints(&[row], requests::run).len(), 1, "{shown}");
    }
    for row in responses::wrong_rows() {
        let shown = format!("{row:?}");
        assert_eq!(complaints(&[row], responses::run).len(), 1, "{shown}");
    }
}
