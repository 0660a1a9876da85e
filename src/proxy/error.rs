//! What can go wrong with a request, and what the client is told.

use http::StatusCode;

use super::heads::{push_connection, push_hsts};
use crate::http1::{Malformed, Version};

/// Why a request got no answer from a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// The request breaks a rule of HTTP that a server might read differently.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// It came without TLS, and is to come again over it
    /// (`--http-redirect-https`).
    #[error("asked without TLS")]
    NotSecure,
    /// The request's head is larger than anybody here would read.
    #[error("request head too large")]
    HeadTooLarge,
    /// So is its target alone.
    #[error("request target too long")]
    TargetTooLong,
    /// A method that a reverse proxy has no use for.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// A transfer coding that nobody here can undo.
    #[error("unknown transfer coding")]
    UnknownCoding,
    /// A body where HTTP/1.0 has none.
    #[error("payload too large")]
    PayloadTooLarge,
    /// The client took too long to send its request.
    #[error("request time-out")]
    RequestTimeout,
    /// The client broke off while it sent its request's body.
    #[error("the client broke off its request")]
    ClientAbort,
    /// Its source asks more than it may; it may again after so many seconds.
    #[error("too many requests")]
    TooManyRequests(u32),
    /// As many requests wait for a place at a server as may.
    #[error("the queue is full")]
    QueueFull,
    /// It waited for a place at a server for too long.
    #[error("queue time-out")]
    QueueTimeout,
    /// No server is there to take the request.
    #[error("no server available")]
    NoServer,
    /// No server accepted a connection.
    #[error("connection refused")]
    ConnectFailed,
    /// No server could be spoken to over TLS.
    #[error("TLS handshake failed")]
    HandshakeFailed,
    /// No server accepted a connection in time.
    #[error("connect time-out")]
    ConnectTimeout,
    /// There is no descriptor, port or memory left for a connection.
    #[error("out of descriptors, ports or memory")]
    Exhausted,
    /// The server broke the connection before it answered.
    #[error("the server broke off before it answered")]
    ServerAbort,
    /// The server's answer is not HTTP, or not one to this request.
    #[error("bad response")]
    BadResponse,
    /// The server was given up while the request waited for its answer.
    #[error("the server was given up")]
    ServerLost,
    /// The server did not answer in time.
    #[error("response time-out")]
    ResponseTimeout,
}

impl Error {
    /// The status that the client gets, `HAProxy`'s for the same fault.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::ClientAbort => StatusCode::BAD_REQUEST,
            Self::NotSecure => StatusCode::PERMANENT_REDIRECT,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownCoding => StatusCode::UNPROCESSABLE_ENTITY,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::QueueFull
            | Self::QueueTimeout
            | Self::NoServer
            | Self::ConnectFailed
            | Self::HandshakeFailed
            | Self::ConnectTimeout
            | Self::Exhausted => StatusCode::SERVICE_UNAVAILABLE,
            Self::ServerAbort | Self::BadResponse | Self::ServerLost => StatusCode::BAD_GATEWAY,
            Self::ResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// `HAProxy`'s termination state: who ended the exchange, and in which
    /// phase (configuration manual, 8.5).
    pub(super) fn termination(self) -> Termination {
        Termination(match self {
            Self::BadRequest(_)
            | Self::HeadTooLarge
            | Self::TargetTooLong
            | Self::MethodNotAllowed
            | Self::UnknownCoding
            | Self::PayloadTooLarge
            | Self::TooManyRequests(_) => *b"PR",
            Self::NotSecure => *b"LR",
            Self::RequestTimeout => *b"cR",
            Self::ClientAbort => *b"CD",
            Self::QueueFull => *b"SQ",
            Self::QueueTimeout => *b"sQ",
            Self::NoServer | Self::ConnectFailed | Self::HandshakeFailed => *b"SC",
            Self::ConnectTimeout => *b"sC",
            Self::Exhausted => *b"RC",
            Self::ServerAbort => *b"SH",
            Self::BadResponse => *b"PH",
            Self::ServerLost => *b"DH",
            Self::ResponseTimeout => *b"sH",
        })
    }

    /// Appends the answer, in `HAProxy`'s words; gives the size of its head.
    pub(super) fn write(self, answer: &mut Vec<u8>, to: &Asker<'_>) -> usize {
        let (status, before) = (self.status(), answer.len());
        let body = body(status);
        let first = format!(
            "HTTP/1.1 {} {}\r\ncontent-length: {}\r\ncache-control: no-cache\r\n\
             content-type: text/html\r\n",
            status.as_u16(),
            reason(status),
            body.len(),
        );
        answer.extend_from_slice(first.as_bytes());
        if self == Self::MethodNotAllowed {
            let allowed = "allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, TRACE\r\n";
            answer.extend_from_slice(allowed.as_bytes());
        }
        if let Some(seconds) = self.retry_after() {
            answer.extend_from_slice(format!("retry-after: {seconds}\r\n").as_bytes());
        }
        if let Some(location) = to.location {
            answer.extend_from_slice(format!("location: {location}\r\n").as_bytes());
        }
        if let Some(hsts) = to.hsts {
            push_hsts(answer, hsts);
        }
        if let Some(why) = to.why {
            answer.extend_from_slice(format!("x-lb-why: {why}\r\n").as_bytes());
        }
        push_connection(answer, to.version, to.keep_alive);
        answer.extend_from_slice(b"\r\n");
        let head = answer.len() - before;
        if !to.head_only {
            answer.extend_from_slice(body.as_bytes());
        }
        head
    }

    /// The answer where nothing is known of who asked: the connection ends.
    pub(super) fn last_words(self) -> Vec<u8> {
        let mut answer = Vec::new();
        self.write(&mut answer, &Asker::unknown());
        answer
    }

    /// Whether what follows on the connection can no longer be trusted to be
    /// the beginning of a request.
    pub(super) fn ends_connection(self) -> bool {
        self.status().is_client_error() && !matches!(self, Self::TooManyRequests(_))
    }

    /// After how many seconds the client may try again, where there was simply
    /// too much to do (RFC 9110 §10.2.3).
    fn retry_after(self) -> Option<u32> {
        match self {
            Self::TooManyRequests(seconds) => Some(seconds),
            Self::QueueFull | Self::QueueTimeout | Self::Exhausted => Some(1),
            _ => None,
        }
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Rule(rule) => Self::BadRequest(rule),
            Malformed::TooManyFields => Self::HeadTooLarge,
            Malformed::UnknownCoding => Self::UnknownCoding,
        }
    }
}

/// What an answer of our own has to know of the request.
#[derive(Debug)]
pub(super) struct Asker<'a> {
    /// Its version.
    pub(super) version: Version,
    /// Whether it was a HEAD request, whose answer has no body.
    pub(super) head_only: bool,
    /// Whether the client may ask again on its connection.
    pub(super) keep_alive: bool,
    /// Why the request went where it went (`--explain`).
    pub(super) why: Option<&'a str>,
    /// Where to ask again.
    pub(super) location: Option<&'a str>,
    /// How its client is to ask from now on (`--hsts`).
    pub(super) hsts: Option<&'a str>,
}

impl Asker<'_> {
    fn unknown() -> Self {
        Self {
            version: Version::Http11,
            head_only: false,
            keep_alive: false,
            why: None,
            location: None,
            hsts: None,
        }
    }
}

/// The first two characters of `HAProxy`'s termination state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Termination(pub [u8; 2]);

impl Termination {
    /// Nothing went wrong.
    pub(super) const NORMAL: Self = Self(*b"--");
    /// The client gave up in the middle of a request's head.
    pub(super) const CLIENT_GONE_IN_HEAD: Self = Self(*b"CR");
    /// The client gave up before a server was chosen.
    pub(super) const CLIENT_GONE_IN_QUEUE: Self = Self(*b"CQ");
    /// The client gave up before the server accepted the connection.
    pub(super) const CLIENT_GONE_IN_CONNECT: Self = Self(*b"CC");
    /// The client gave up while it waited for the response.
    pub(super) const CLIENT_GONE: Self = Self(*b"CH");
    /// The client gave up while it received the response.
    pub(super) const CLIENT_GONE_IN_DATA: Self = Self(*b"CD");
    /// The server broke off its response.
    pub(super) const SERVER_GONE_IN_DATA: Self = Self(*b"SD");
    /// The server left, and its tunnel was closed.
    pub(super) const SERVER_LEFT: Self = Self(*b"DD");
    /// The server stalled in the middle of its response.
    pub(super) const SERVER_STALLED_IN_DATA: Self = Self(*b"sD");

    /// The same end, where it was a timeout that ended the wait for the client.
    pub(super) fn client_timed_out(self) -> Self {
        match self.0 {
            [b'C', phase] => Self([b'c', phase]),
            _ => self,
        }
    }

    /// The same end, where it was an operator who ended the session.
    pub(super) fn ended_by_operator(self) -> Self {
        Self([b'K', self.0[1]])
    }

    /// The two characters.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("--")
    }
}

fn reason(status: StatusCode) -> &'static str {
    match status {
        // HAProxy's spelling, which monitoring scripts look for.
        StatusCode::BAD_REQUEST => "Bad request",
        StatusCode::REQUEST_TIMEOUT => "Request Time-out",
        StatusCode::GATEWAY_TIMEOUT => "Gateway Time-out",
        _ => status.canonical_reason().unwrap_or("Error"),
    }
}

fn body(status: StatusCode) -> String {
    let text = match status {
        StatusCode::PERMANENT_REDIRECT => "This is given over HTTPS.",
        StatusCode::BAD_REQUEST => "Your browser sent an invalid request.",
        StatusCode::METHOD_NOT_ALLOWED => {
            "A request was made of a resource using a request method not supported by that resource"
        }
        StatusCode::REQUEST_TIMEOUT => "Your browser didn't send a complete request in time.",
        StatusCode::PAYLOAD_TOO_LARGE => "The request entity exceeds the maximum allowed.",
        StatusCode::TOO_MANY_REQUESTS => {
            "You have sent too many requests in a given amount of time."
        }
        StatusCode::UNPROCESSABLE_ENTITY => "The request's transfer coding is not supported.",
        StatusCode::BAD_GATEWAY => "The server returned an invalid or incomplete response.",
        StatusCode::SERVICE_UNAVAILABLE => "No server is available to handle this request.",
        StatusCode::GATEWAY_TIMEOUT => "The server didn't respond in time.",
        _ => "The request could not be handled.",
    };
    format!(
        "<html><body><h1>{} {}</h1>\n{text}\n</body></html>\n",
        status.as_u16(),
        reason(status)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_503_page_is_haproxys_to_the_letter() {
        let answer = String::from_utf8(Error::NoServer.last_words()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
            "{head}"
        );
        assert_eq!(
            body,
            "<html><body><h1>503 Service Unavailable</h1>\n\
             No server is available to handle this request.\n</body></html>\n"
        );
    }

    #[test]
    fn an_answer_announces_its_length_and_what_becomes_of_the_connection() {
        let ask = |keep_alive, head_only| {
            let mut answer = Vec::new();
            let version = Version::Http11;
            let asker = Asker {
                version,
                head_only,
                keep_alive,
                why: Some("because"),
                location: None,
                hsts: None,
            };
            let head = Error::RequestTimeout.write(&mut answer, &asker);
            let answer = String::from_utf8(answer).unwrap();
            let (head, body) = answer.split_at(head);
            (head.to_owned(), body.to_owned())
        };
        let (head, body) = ask(false, false);
        assert!(
            head.starts_with("HTTP/1.1 408 Request Time-out\r\n"),
            "{head}"
        );
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len())),
            "{head}"
        );
        assert!(head.contains("connection: close\r\n") && head.contains("x-lb-why: because\r\n"));
        let (head, body) = ask(true, true);
        assert!(!head.contains("connection:") && body.is_empty());
    }
}
