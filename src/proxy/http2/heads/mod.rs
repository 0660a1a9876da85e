//! Heads from HTTP/2 to HTTP/1.1 and back (RFC 9113 §8). Pure.

mod clients;
mod servers;

use http::{HeaderMap, HeaderName, HeaderValue, header};

pub(super) use self::{
    clients::{request_text, response_parts},
    servers::{request_parts, response_text},
};
use crate::http1::{Fields, Known};

/// Trailers, one a line.
pub(super) fn trailers_text(trailers: &HeaderMap) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in trailers {
        push(&mut lines, name.as_str().as_bytes(), value.as_bytes());
    }
    lines
}

/// Trailers that stand one a line.
pub(super) fn trailers(lines: &[u8]) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let name = halves.next().unwrap_or_default();
        let value = halves.next().unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            trailers.append(name, value);
        }
    }
    trailers
}

/// RFC 9113 §8.2.2: what is about one connection has no place in HTTP/2.
fn fields(all: Fields<'_, '_>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    for (known, field) in all.iter() {
        let ends_here = matches!(
            known,
            Known::Connection
                | Known::Expect
                | Known::Host
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::Te
                | Known::TransferEncoding
                | Known::Upgrade
        );
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        if let (false, Ok(name), Ok(value)) = (ends_here, name, value) {
            headers.append(name, value);
        }
    }
    headers
}

fn push_fields(head: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        let left_out = matches!(
            *name,
            header::CONNECTION
                | header::COOKIE
                | header::EXPECT
                | header::HOST
                | header::TE
                | header::TRANSFER_ENCODING
                | header::UPGRADE
                | header::SEC_WEBSOCKET_KEY
        ) || matches!(
            name.as_str(),
            "keep-alive" | "proxy-connection" | "http2-settings"
        );
        if !left_out {
            push(head, name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

fn push(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_survive_both_ways() {
        let mut map = HeaderMap::new();
        map.append("grpc-status", HeaderValue::from_static("0"));
        map.append("x", HeaderValue::from_static("1"));
        map.append("x", HeaderValue::from_static("2: 3"));
        let text = trailers_text(&map);
        assert_eq!(text, b"grpc-status: 0\r\nx: 1\r\nx: 2: 3\r\n");
        assert_eq!(trailers(&text), map);
    }
}
