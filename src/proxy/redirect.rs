//! Where a client that asks without TLS is to ask again. Pure.

use std::net::IpAddr;

use super::forwarded::Origin;
use crate::http1::{Known, Request, Target};

/// The port of `https` that need not be said (RFC 9110 §4.2.2).
const HTTPS: u16 = 443;

/// The URL over TLS of what `request` asks for, at `port` of the same host.
pub(super) fn location(request: &Request<'_, '_>, origin: &Origin, port: u16) -> Box<str> {
    let named = request.fields.values(Known::Host).next();
    let named = named.and_then(|host| std::str::from_utf8(host).ok());
    let (host, path) = match request.form {
        Target::Absolute { authority, path } => (Some(authority), path),
        _ => (named, request.target),
    };
    let host = match host.map(without_port) {
        Some(host) if !host.is_empty() => host.to_owned(),
        // HTTP/1.0 need not name a host.
        _ => match origin.local().ip().to_canonical() {
            IpAddr::V6(ip) => format!("[{ip}]"),
            IpAddr::V4(ip) => ip.to_string(),
        },
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    let path = if path == "*" { "" } else { path };
    let port = match port {
        HTTPS => String::new(),
        port => format!(":{port}"),
    };
    format!("https://{host}{port}{slash}{path}").into()
}

/// `[::1]` of `[::1]:80`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Policy;

    fn redirected(head: &str, port: u16) -> String {
        let origin = Origin::new(
            &Policy::default(),
            "http",
            "192.0.2.7:50000".parse().unwrap(),
            "10.0.0.1:80".parse().unwrap(),
        );
        let head = format!("{head}\r\n\r\n");
        let read = Request::read(head.as_bytes(), |request| location(request, &origin, port));
        read.unwrap().expect("a whole head").into()
    }

    #[test]
    fn a_client_is_sent_to_the_same_path_of_the_same_host() {
        for (head, port, expected) in [
            (
                "GET /a?b=c HTTP/1.1\r\nHost: a.example",
                443,
                "https://a.example/a?b=c",
            ),
            (
                "GET / HTTP/1.1\r\nHost: a.example:8080",
                443,
                "https://a.example/",
            ),
            (
                "GET / HTTP/1.1\r\nHost: a.example:80",
                8443,
                "https://a.example:8443/",
            ),
            (
                "GET / HTTP/1.1\r\nHost: [::1]:80",
                8443,
                "https://[::1]:8443/",
            ),
            ("GET / HTTP/1.1\r\nHost: [::1]", 443, "https://[::1]/"),
            (
                "GET http://b.example?q HTTP/1.1\r\nHost: b.example",
                443,
                "https://b.example/?q",
            ),
            (
                "OPTIONS * HTTP/1.1\r\nHost: a.example",
                443,
                "https://a.example/",
            ),
            ("GET /x HTTP/1.0", 443, "https://10.0.0.1/x"),
            ("GET /x HTTP/1.1\r\nHost:", 443, "https://10.0.0.1/x"),
        ] {
            assert_eq!(redirected(head, port), expected, "{head}");
        }
    }
}
