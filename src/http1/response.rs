//! The head of a response (RFC 9112 §4).

use http::{Method, StatusCode};

use super::{
    Length, Malformed, Parsed, Version, check_line_ends,
    fields::{self, Connection, Fields, Known, MAX_FIELDS, Survey},
    malformed,
};

/// A response's head, as it stands in the buffer it was read into.
#[derive(Debug)]
pub struct Response<'h, 'b> {
    /// Its status.
    pub status: StatusCode,
    /// Its words for the status; empty where they are not ASCII.
    pub reason: &'b str,
    /// Its version.
    pub version: Version,
    /// Its fields.
    pub fields: Fields<'h, 'b>,
    /// What `Connection` says.
    pub connection: Connection,
    /// How long its body is.
    pub length: Length,
    /// It can have no body and announces one all the same. Should the server
    /// send it, it would be taken for the next response.
    pub doubtful: bool,
    /// Bytes of the head.
    pub size: usize,
}

impl<'b> Response<'_, 'b> {
    /// Reads the head at the beginning of `input`, which answers a request
    /// with that method, and hands it to `then`; `None` where it is not there
    /// in whole.
    pub fn read<T>(
        input: &'b [u8],
        method: &Method,
        then: impl FnOnce(&Response<'_, 'b>) -> T,
    ) -> Parsed<T> {
        let mut room = fields::room();
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let size = config
            .parse_response_with_uninit_headers(&mut parsed, input, &mut room)
            .map_err(malformed)?;
        let httparse::Status::Complete(size) = size else {
            return Ok(None);
        };
        check_line_ends(input.get(..size).unwrap_or_default())?;
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(Malformed::Rule("an invalid status"))?;
        let mut survey = Survey::default();
        let mut known = [Known::Other; MAX_FIELDS];
        let fields = Fields::new(parsed.headers, &mut known);
        for (known, field) in fields.iter() {
            survey.note(known, field.value)?;
        }
        let version = Version::new(parsed.version);
        let length = survey.length()?;
        if length == Some(Length::Chunked) {
            // RFC 9112 §6.3: a sign of smuggling.
            if survey.length.is_some() {
                return Err(Malformed::Rule("both a length and a transfer coding"));
            }
            if version == Version::Http10 {
                return Err(Malformed::Rule("Transfer-Encoding in HTTP/1.0"));
            }
        }
        let doubtful = match (status, length) {
            (StatusCode::NO_CONTENT, Some(length)) => length != Length::Exact(0),
            (StatusCode::NOT_MODIFIED, Some(length)) => length == Length::Chunked,
            _ => false,
        };
        let response = Response {
            status,
            reason: parsed.reason.unwrap_or_default(),
            version,
            fields,
            connection: survey.connection,
            length: of_body(method, status, length),
            doubtful,
            size,
        };
        Ok(Some(then(&response)))
    }

    /// Whether another response follows it (RFC 9110 §15.2).
    pub fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// Whether the server takes another request on its connection.
    pub fn keeps_alive(&self) -> bool {
        let wanted = match self.version {
            Version::Http11 => true,
            Version::Http10 => self.connection.keep_alive,
        };
        let ends = self.connection.close || self.length == Length::UntilClose;
        wanted && !ends && !self.doubtful
    }
}

/// RFC 9112 §6.3.
fn of_body(method: &Method, status: StatusCode, told: Option<Length>) -> Length {
    let bodiless = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodiless || *method == Method::HEAD {
        return Length::None;
    }
    told.unwrap_or(Length::UntilClose)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(method: &Method, head: &str) -> Parsed<(Length, bool)> {
        let seen = |head: &Response<'_, '_>| (head.length, head.keeps_alive());
        Response::read(format!("HTTP/1.{head}\r\n\r\n").as_bytes(), method, seen)
    }

    #[test]
    fn a_response_ends_where_its_head_and_its_request_say() {
        for (method, head, expected) in [
            (
                Method::GET,
                "1 200 OK\r\ncontent-length: 5",
                (Length::Exact(5), true),
            ),
            (
                Method::HEAD,
                "1 200 OK\r\ncontent-length: 5",
                (Length::None, true),
            ),
            (
                Method::GET,
                "1 204 x\r\ncontent-length: 5",
                (Length::None, false),
            ),
            (
                Method::GET,
                "1 304 x\r\ntransfer-encoding: chunked",
                (Length::None, false),
            ),
            (
                Method::GET,
                "1 200 x\r\ntransfer-encoding: chunked",
                (Length::Chunked, true),
            ),
            (Method::GET, "1 200", (Length::UntilClose, false)),
            (
                Method::GET,
                "0 200 OK\r\ncontent-length: 5",
                (Length::Exact(5), false),
            ),
            (
                Method::GET,
                "0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive",
                (Length::Exact(5), true),
            ),
        ] {
            assert_eq!(length(&method, head), Ok(Some(expected)), "{method} {head}");
        }
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for head in [
            "1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1",
            "1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked",
            "1 200 OK\r\ntransfer-encoding: gzip, chunked",
            "1 200 OK\r\na: b\n",
            "1 200 OK\r\na : b",
            "1 200 OK\r\na: b\r\n c: d",
            "1 20 OK",
            "1 2000 OK",
            "2 200 OK",
            "1 099 OK",
        ] {
            assert!(length(&Method::GET, head).is_err(), "{head:?}");
        }
    }
}
