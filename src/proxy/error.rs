//! What can go wrong with a request, and what the client is told.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

/// Why a request got no answer from a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// The request breaks a rule of HTTP that a server might read differently.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
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
    /// No server is there to take the request.
    #[error("no server available")]
    NoServer,
    /// No server accepted a connection.
    #[error("connection refused")]
    ConnectFailed,
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
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownCoding => StatusCode::UNPROCESSABLE_ENTITY,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::NoServer | Self::ConnectFailed | Self::ConnectTimeout | Self::Exhausted => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::ServerAbort | Self::BadResponse | Self::ServerLost => StatusCode::BAD_GATEWAY,
            Self::ResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// `HAProxy`'s termination state: who ended the exchange, and in which
    /// phase (configuration manual, 8.5).
    pub(super) fn termination(self) -> Termination {
        Termination(match self {
            Self::BadRequest(_)
            | Self::MethodNotAllowed
            | Self::UnknownCoding
            | Self::PayloadTooLarge => *b"PR",
            Self::RequestTimeout => *b"cR",
            Self::ClientAbort => *b"CD",
            Self::NoServer | Self::ConnectFailed => *b"SC",
            Self::ConnectTimeout => *b"sC",
            Self::Exhausted => *b"RC",
            Self::ServerAbort => *b"SH",
            Self::BadResponse => *b"PH",
            Self::ServerLost => *b"DH",
            Self::ResponseTimeout => *b"sH",
        })
    }

    /// The answer, in `HAProxy`'s words.
    pub(super) fn response(self) -> Response<Bytes> {
        let status = self.status();
        let body = body(status);
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
        if self.ends_connection() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self == Self::MethodNotAllowed {
            let allowed = "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, TRACE";
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        response
    }

    /// The answer as bytes, for a connection on which no exchange began.
    pub(super) fn raw_response(self) -> Vec<u8> {
        let status = self.status();
        let body = body(status);
        format!(
            "HTTP/1.1 {} {}\r\ncontent-length: {}\r\ncache-control: no-cache\r\n\
             content-type: text/html\r\nconnection: close\r\n\r\n{body}",
            status.as_u16(),
            reason(status),
            body.len(),
        )
        .into_bytes()
    }

    /// Whether what follows on the connection can no longer be trusted to be
    /// the beginning of a request.
    fn ends_connection(self) -> bool {
        self.status().is_client_error()
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
        StatusCode::REQUEST_TIMEOUT => "Request Time-out",
        StatusCode::GATEWAY_TIMEOUT => "Gateway Time-out",
        _ => status.canonical_reason().unwrap_or("Error"),
    }
}

fn body(status: StatusCode) -> String {
    let text = match status {
        StatusCode::BAD_REQUEST => "Your browser sent an invalid request.",
        StatusCode::METHOD_NOT_ALLOWED => {
            "A request was made of a resource using a request method not supported by that resource"
        }
        StatusCode::REQUEST_TIMEOUT => "Your browser didn't send a complete request in time.",
        StatusCode::PAYLOAD_TOO_LARGE => "The request entity exceeds the maximum allowed.",
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
        let response = Error::NoServer.response();
        assert_eq!(response.status(), 503);
        assert_eq!(
            response.body().as_ref(),
            b"<html><body><h1>503 Service Unavailable</h1>\n\
              No server is available to handle this request.\n</body></html>\n"
        );
    }

    #[test]
    fn a_raw_response_announces_its_length_and_closes() {
        let raw = String::from_utf8(Error::RequestTimeout.raw_response()).unwrap();
        let (head, body) = raw.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 408 Request Time-out\r\n"),
            "{head}"
        );
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert!(head.contains("connection: close"));
    }
}
