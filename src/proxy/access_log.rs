//! The access log: `HAProxy`'s `option httplog`, line by line. A request never
//! waits for the log; see [`lines`](crate::lines).

use std::{
    fmt::Write as _,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use http::{Uri, Version};
use time::OffsetDateTime;

use super::{
    error::{Error, Termination},
    exchange::Affinity,
};
use crate::lines::Lines;

/// The workers' end of the access log.
#[derive(Debug, Clone)]
pub struct AccessLog(Lines);

/// One exchange as the log shows it.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// The client.
    pub(super) peer: SocketAddr,
    /// The frontend's name.
    pub(super) frontend: &'a str,
    /// The backend's name.
    pub(super) backend: &'a str,
    /// The server's name; none was reached where there is none.
    pub(super) server: Option<&'a str>,
    /// From the request's first byte to the end of its head (`TR`).
    pub(super) head_time: Duration,
    /// To connect to the server (`Tc`).
    pub(super) connect_time: Option<Duration>,
    /// From the request being sent to the response's head (`Tr`).
    pub(super) response_time: Option<Duration>,
    /// From the request's first byte to the response's last (`Ta`).
    pub(super) total_time: Duration,
    /// The status that the client got.
    pub(super) status: Option<u16>,
    /// Bytes sent to the client.
    pub(super) bytes: u64,
    /// Who ended the exchange, and in which phase.
    pub(super) termination: Termination,
    /// What the request's cookie was.
    pub(super) affinity: Affinity,
    /// Whether the response set one.
    pub(super) cookie_inserted: bool,
    /// How busy everything was.
    pub(super) load: ServerLoad,
    /// Attempts after the first.
    pub(super) retries: u32,
    /// Whether one of them went to another server.
    pub(super) redispatched: bool,
    /// The request's method, target and version, where it could be read.
    pub(super) request: Option<(&'a str, &'a Uri, Version)>,
}

/// A request that could not be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct BadRequest {
    /// What the client was told.
    pub(super) status: u16,
    termination: Termination,
}

impl BadRequest {
    /// It broke the rules of HTTP, or was too large; hyper has answered it.
    pub(super) fn unreadable(err: &hyper::Error) -> Self {
        Self {
            status: if err.is_parse_too_large() { 431 } else { 400 },
            termination: Termination(*b"PR"),
        }
    }

    /// It did not arrive in time.
    pub(super) fn too_slow() -> Self {
        let error = Error::RequestTimeout;
        Self {
            status: error.status().as_u16(),
            termination: error.termination(),
        }
    }
}

/// Connections and requests at the moment of logging, the present one included.
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
}

impl AccessLog {
    /// A log that goes out there.
    pub fn new(lines: Lines) -> Self {
        Self(lines)
    }

    /// Logs one exchange.
    pub(super) fn write(&self, entry: &Entry<'_>) {
        self.0.say(httplog(entry, SystemTime::now().into()));
    }

    /// Logs a request that could not be read, as `<BADREQ>`.
    pub(super) fn write_bad_request(
        &self,
        peer: SocketAddr,
        frontend: &str,
        connections: u32,
        what: BadRequest,
    ) {
        self.write(&Entry {
            peer,
            frontend,
            backend: frontend,
            server: None,
            head_time: Duration::ZERO,
            connect_time: None,
            response_time: None,
            total_time: Duration::ZERO,
            status: Some(what.status),
            bytes: 0,
            termination: what.termination,
            affinity: Affinity::Off,
            cookie_inserted: false,
            load: ServerLoad {
                process: connections,
                frontend: connections,
                backend: 0,
                server: 0,
            },
            retries: 0,
            redispatched: false,
            request: None,
        });
    }
}

/// `%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc
/// %ac/%fc/%bc/%sc/%rc %sq/%bq %{+Q}r` (configuration manual, 8.2.3).
fn httplog(entry: &Entry<'_>, now: OffsetDateTime) -> String {
    let mut line = String::with_capacity(256);
    write_client(&mut line, entry, now - entry.total_time)
        .and_then(|()| write_timings(&mut line, entry))
        .and_then(|()| write_state(&mut line, entry))
        .and_then(|()| write_request(&mut line, entry))
        .expect("a String takes whatever is written");
    line
}

fn write_client(line: &mut String, entry: &Entry<'_>, at: OffsetDateTime) -> std::fmt::Result {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = MONTHS.get(at.month() as usize - 1).unwrap_or(&"???");
    write!(
        line,
        "{}:{} [{:02}/{month}/{}:{:02}:{:02}:{:02}.{:03}] {} {}/{} ",
        entry.peer.ip(),
        entry.peer.port(),
        at.day(),
        at.year(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond(),
        entry.frontend,
        entry.backend,
        entry.server.unwrap_or("<NOSRV>"),
    )
}

fn write_timings(line: &mut String, entry: &Entry<'_>) -> std::fmt::Result {
    let phase = |took: Option<Duration>| took.map_or(-1, |took| took.as_millis() as i64);
    write!(
        line,
        "{}/{}/{}/{}/{} {} {} - - ",
        entry.head_time.as_millis(),
        // There is no queue to wait in.
        if entry.server.is_some() { 0 } else { -1 },
        phase(entry.connect_time),
        phase(entry.response_time),
        entry.total_time.as_millis(),
        entry.status.map_or(-1, i32::from),
        entry.bytes,
    )
}

fn write_state(line: &mut String, entry: &Entry<'_>) -> std::fmt::Result {
    let ServerLoad {
        process,
        frontend,
        backend,
        server,
    } = entry.load;
    let asked = match entry.affinity {
        Affinity::New => 'N',
        Affinity::Valid => 'V',
        Affinity::Invalid => 'I',
        Affinity::Down => 'D',
        Affinity::Off => '-',
    };
    let answered = match entry.affinity {
        Affinity::Off => '-',
        _ if entry.cookie_inserted => 'I',
        _ => 'N',
    };
    write!(
        line,
        "{}{asked}{answered} {process}/{frontend}/{backend}/{server}/{}{} 0/0 ",
        entry.termination.as_str(),
        if entry.redispatched { "+" } else { "" },
        entry.retries,
    )
}

fn write_request(line: &mut String, entry: &Entry<'_>) -> std::fmt::Result {
    let Some((method, uri, version)) = entry.request else {
        return writeln!(line, "\"<BADREQ>\"");
    };
    let version = match version {
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    };
    line.push('"');
    write!(line, "{method} ")?;
    // A target holds no control character, but it may hold a quote.
    for part in uri.to_string().split_inclusive('"') {
        match part.strip_suffix('"') {
            Some(part) => write!(line, "{part}#22")?,
            None => line.push_str(part),
        }
    }
    writeln!(line, " {version}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(uri: &Uri) -> Entry<'_> {
        Entry {
            peer: "10.0.1.2:33317".parse().unwrap(),
            frontend: "localnodes",
            backend: "nodes",
            server: Some("s1"),
            head_time: Duration::from_millis(10),
            connect_time: Some(Duration::from_millis(30)),
            response_time: Some(Duration::from_millis(69)),
            total_time: Duration::from_millis(109),
            status: Some(200),
            bytes: 2750,
            termination: Termination::NORMAL,
            affinity: Affinity::New,
            cookie_inserted: true,
            load: ServerLoad {
                process: 1,
                frontend: 1,
                backend: 1,
                server: 1,
            },
            retries: 0,
            redispatched: false,
            request: Some(("GET", uri, Version::HTTP_11)),
        }
    }

    fn at() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(1_233_922_454_764_000_000).unwrap()
    }

    #[test]
    fn a_line_is_haproxys_to_the_letter() {
        let uri = "/index.html?q=1".parse().unwrap();
        assert_eq!(
            httplog(&entry(&uri), at()),
            "10.0.1.2:33317 [06/Feb/2009:12:14:14.655] localnodes nodes/s1 10/0/30/69/109 \
             200 2750 - - --NI 1/1/1/1/0 0/0 \"GET /index.html?q=1 HTTP/1.1\"\n"
        );
    }

    #[test]
    fn a_request_that_reached_no_server_says_so() {
        let uri = "/".parse().unwrap();
        let line = httplog(
            &Entry {
                server: None,
                connect_time: None,
                response_time: None,
                status: Some(503),
                termination: Termination(*b"SC"),
                affinity: Affinity::Off,
                ..entry(&uri)
            },
            at(),
        );
        assert!(
            line.contains(" nodes/<NOSRV> 10/-1/-1/-1/109 503 2750 - - SC-- "),
            "{line}"
        );
    }

    #[test]
    fn a_redispatch_is_marked_with_a_plus() {
        let uri = "/".parse().unwrap();
        let line = httplog(
            &Entry {
                retries: 2,
                redispatched: true,
                ..entry(&uri)
            },
            at(),
        );
        assert!(line.contains(" 1/1/1/1/+2 0/0 "), "{line}");
    }
}
