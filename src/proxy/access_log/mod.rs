//! The access log. A request never waits for the log and does not write it
//! either: it hands over a record, of which the log's thread makes a line.

mod httplog;
mod json;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    error::{Error, Termination},
    exchange::{Affinity, CookieSent},
    explain::Why,
};
use crate::{
    counters::Counter,
    http1::Request,
    lines::{Lines, Out, Text},
    pool::Server,
    syslog::{self, Severity, Syslog},
};
use http::StatusCode;

/// How a request is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `HAProxy`'s `option httplog`.
    Httplog,
    /// One object a line.
    Json,
}

/// The workers' end of the access log.
#[derive(Debug, Clone)]
pub struct AccessLog {
    records: Lines<Box<Record>>,
    format: Format,
}

/// The names that stand in every line.
#[derive(Debug, Clone)]
pub struct Names {
    /// The frontend's.
    pub frontend: String,
    /// The backend's.
    pub backend: String,
}

/// One exchange as the log shows it.
#[derive(Debug)]
pub(super) struct Record {
    /// When it ended.
    pub(super) at: SystemTime,
    /// The client.
    pub(super) peer: SocketAddr,
    /// Whether it got as far as the backend.
    pub(super) accepted: bool,
    /// The server; none was reached where there is none.
    pub(super) server: Option<Arc<Server>>,
    /// From the request's first byte to the end of its head (`TR`).
    pub(super) head_time: Option<Duration>,
    /// Until a server was chosen for the last time (`Tw`).
    pub(super) wait_time: Option<Duration>,
    /// To connect to the server (`Tc`).
    pub(super) connect_time: Option<Duration>,
    /// From the request being sent to the response's head (`Tr`).
    pub(super) response_time: Option<Duration>,
    /// From the request's first byte to the response's last (`Ta`).
    pub(super) total_time: Duration,
    /// The status that the client got.
    pub(super) status: Option<u16>,
    /// Bytes that came from the client.
    pub(super) bytes_in: u64,
    /// Bytes that went to the client.
    pub(super) bytes_out: u64,
    /// Who ended the exchange, and in which phase.
    pub(super) termination: Termination,
    /// What the request's cookie was.
    pub(super) affinity: Affinity,
    /// What became of the response's.
    pub(super) cookie_sent: CookieSent,
    /// How busy everything was.
    pub(super) load: ServerLoad,
    /// Attempts after the first.
    pub(super) retries: u32,
    /// Whether one of them went to another server.
    pub(super) redispatched: bool,
    /// The request's first line, where it could be read.
    pub(super) request: Option<RequestLine>,
    /// Why it went where it went, where that is told.
    pub(super) why: Option<Box<Why>>,
}

/// The first line of a request, as it was sent.
#[derive(Debug)]
pub(super) struct RequestLine {
    text: Box<str>,
    /// How long the method is.
    method: usize,
    version: &'static str,
}

impl RequestLine {
    /// `http2` says that the client speaks that.
    pub(super) fn new(request: &Request<'_, '_>, http2: bool) -> Self {
        let (method, target) = (request.method.as_str(), request.target);
        Self {
            text: [method, target].concat().into(),
            method: method.len(),
            version: if http2 {
                "HTTP/2.0"
            } else {
                request.version.as_str()
            },
        }
    }

    fn method(&self) -> &str {
        self.text.get(..self.method).unwrap_or_default()
    }

    fn target(&self) -> &str {
        self.text.get(self.method..).unwrap_or_default()
    }

    fn version(&self) -> &'static str {
        self.version
    }
}

/// A request that never became an exchange.
#[derive(Debug, Clone, Copy)]
pub(super) struct BadRequest {
    /// What the client was told.
    pub(super) status: StatusCode,
    /// Bytes that came of it.
    pub(super) bytes_in: u64,
    /// Bytes that the client was sent.
    pub(super) bytes_out: u64,
    termination: Termination,
}

impl BadRequest {
    /// It was refused: `bytes` of it were read, and the answer was so long.
    pub(super) fn refused(error: Error, bytes_in: u64, bytes_out: u64) -> Self {
        Self {
            status: error.status(),
            bytes_in,
            bytes_out,
            termination: error.termination(),
        }
    }

    /// The client hung up in the middle of it; nobody was told anything.
    pub(super) fn broken_off(bytes_in: u64) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            bytes_in,
            bytes_out: 0,
            termination: Termination::CLIENT_GONE_IN_HEAD,
        }
    }
}

/// Connections and requests when an exchange ended, without the exchange
/// itself, and with its connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerLoad {
    /// Connections of the process (`actconn`).
    pub(super) process: u32,
    /// Connections of the frontend (`feconn`).
    pub(super) frontend: u32,
    /// Requests of the backend (`beconn`).
    pub(super) backend: u32,
    /// Requests of the server (`srv_conn`).
    pub(super) server: u32,
    /// Requests that waited before this one at the server (`srv_queue`).
    pub(super) server_queue: u32,
    /// The same at the backend (`backend_queue`).
    pub(super) backend_queue: u32,
}

impl AccessLog {
    /// Starts a log that goes to stdout. It ends with its last sender.
    pub fn to_stdout(
        format: Format,
        names: Names,
        dropped: Arc<Counter>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let writer = ToStdout {
            lines: Format::lines(format, names),
            out: Text::to(io::stdout()),
        };
        Self::start(format, writer, dropped)
    }

    /// Starts a log that goes to syslog. It ends with its last sender.
    pub fn to_syslog(
        format: Format,
        names: Names,
        syslog: &Syslog,
        dropped: Arc<Counter>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let writer = ToSyslog {
            lines: Format::lines(format, names),
            sender: syslog::Sender::new(syslog.destination.clone(), Arc::clone(&dropped)),
            origin: syslog.origin.clone(),
        };
        Self::start(format, writer, dropped)
    }

    fn start(
        format: Format,
        out: impl Out<Box<Record>> + Send + 'static,
        dropped: Arc<Counter>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (records, writer) = Lines::start("access-log", out, dropped)?;
        Ok((Self { records, format }, writer))
    }

    /// Whether its records are to say why they went where they went.
    pub(super) fn explains(&self) -> bool {
        self.format == Format::Json
    }

    /// Logs one exchange.
    pub(super) fn write(&self, record: Box<Record>) {
        self.records.say(record);
    }

    /// Logs a request that was refused, as `<BADREQ>`.
    pub(super) fn write_bad_request(
        &self,
        peer: SocketAddr,
        took: Duration,
        connections: u32,
        line: Option<RequestLine>,
        what: BadRequest,
    ) {
        self.write(Box::new(Record {
            at: SystemTime::now(),
            peer,
            accepted: false,
            server: None,
            head_time: None,
            wait_time: None,
            connect_time: None,
            response_time: None,
            total_time: took,
            status: Some(what.status.as_u16()),
            bytes_in: what.bytes_in,
            bytes_out: what.bytes_out,
            termination: what.termination,
            affinity: Affinity::Off,
            cookie_sent: CookieSent::None,
            load: ServerLoad {
                process: connections,
                frontend: connections,
                backend: 0,
                server: 0,
                server_queue: 0,
                backend_queue: 0,
            },
            retries: 0,
            redispatched: false,
            request: line,
            why: None,
        }));
    }
}

/// Makes lines of records, without their ends.
trait Line: Send {
    /// Appends the line of one record.
    fn write(&mut self, line: &mut Vec<u8>, record: &Record);

    /// The same where no more than `most` bytes are of use.
    fn write_short(&mut self, line: &mut Vec<u8>, record: &Record, most: usize);
}

impl Format {
    fn lines(self, names: Names) -> Box<dyn Line> {
        match self {
            Self::Httplog => Box::new(httplog::Httplog::new(names)),
            Self::Json => Box::new(json::Json::new(names)),
        }
    }
}

struct ToStdout {
    lines: Box<dyn Line>,
    out: Text<io::Stdout>,
}

impl Out<Box<Record>> for ToStdout {
    fn take(&mut self, record: Box<Record>) {
        let buffer = self.out.buffer();
        self.lines.write(buffer, &record);
        buffer.push(b'\n');
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

struct ToSyslog {
    lines: Box<dyn Line>,
    sender: syslog::Sender,
    origin: syslog::Origin,
}

impl Out<Box<Record>> for ToSyslog {
    fn take(&mut self, record: Box<Record>) {
        /// What a message's header leaves of the largest datagram, at least.
        const ROOM: usize = syslog::LARGEST - 384;
        let mut text = Vec::with_capacity(256);
        self.lines.write_short(&mut text, &record, ROOM);
        self.sender.send(&syslog::Message {
            origin: self.origin.clone(),
            severity: Severity::Informational,
            kind: "access",
            at: record.at,
            text,
        });
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Record {
    /// When its first byte came, from the beginning of 1970 on.
    fn began(&self) -> Duration {
        let ended = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        ended.saturating_sub(self.total_time)
    }

    fn server(&self) -> Option<&str> {
        self.server.as_ref().map(|server| server.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::pool::state::{State, StaticServer};

    /// An exchange for that target in which everything went well.
    pub(super) fn record(target: &str) -> Record {
        let server = StaticServer {
            name: "s1".parse().unwrap(),
            target: "127.0.0.1:3000".into(),
            weight: 1,
            check: None,
            tags: std::collections::BTreeMap::new(),
        };
        let service = "nodes".parse().unwrap();
        let mut state = State::new(service, vec![server], Instant::now());
        let millis = |millis| Some(Duration::from_millis(millis));
        Record {
            at: UNIX_EPOCH + Duration::from_millis(1_233_922_454_764),
            peer: "10.0.1.2:33317".parse().unwrap(),
            accepted: true,
            server: state.snapshot().by_name("s1").map(Arc::clone),
            head_time: millis(10),
            wait_time: millis(0),
            connect_time: millis(30),
            response_time: millis(69),
            total_time: Duration::from_millis(109),
            status: Some(200),
            bytes_in: 300,
            bytes_out: 2750,
            termination: Termination::NORMAL,
            affinity: Affinity::New,
            cookie_sent: CookieSent::Inserted,
            load: ServerLoad {
                process: 1,
                frontend: 1,
                backend: 0,
                server: 0,
                server_queue: 0,
                backend_queue: 0,
            },
            retries: 0,
            redispatched: false,
            request: Some(RequestLine {
                text: format!("GET{target}").into(),
                method: 3,
                version: "HTTP/1.1",
            }),
            why: None,
        }
    }

    #[test]
    fn a_target_is_logged_as_it_was_asked_for() {
        for target in ["/a?x=1", "http://host:81/a?b", "/"] {
            let head = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
            let line = Request::read(head.as_bytes(), |request| RequestLine::new(request, false));
            let line = line.unwrap().expect("a whole head");
            assert_eq!((line.method(), line.target()), ("GET", target));
            assert_eq!(line.version(), "HTTP/1.1");
        }
    }
}
