//! Heads towards clients.

use std::time::Duration;

use http::{Method, StatusCode};

use super::{is_nominated, push_field};
use crate::{
    balance::sticky,
    http1::{Field, Known, Length, Response, Version},
    proxy::{
        ascii::push,
        compress::{self, Coded},
    },
};

/// Fields that prove a content (RFC 9530, and those before it).
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// The field by which clients are told to ask over TLS alone.
const HSTS: &str = "strict-transport-security";

/// What a response's head becomes for the client.
pub(in crate::proxy) struct ForClient<'a> {
    /// The client's version.
    pub(in crate::proxy) version: Version,
    /// Whether the client may ask again on its connection.
    pub(in crate::proxy) keep_alive: bool,
    /// The sticky cookie's name, and the server that a user is bound to now.
    pub(in crate::proxy) sticky: Option<(&'a str, Option<&'a str>)>,
    /// The method that is answered.
    pub(in crate::proxy) method: &'a Method,
    /// The time, as `Date` has it, for a server that does not tell.
    pub(in crate::proxy) date: &'a dyn Fn() -> [u8; 29],
    /// Why the request went where it went (`--explain`).
    pub(in crate::proxy) why: Option<&'a str>,
    /// What becomes of its content.
    pub(in crate::proxy) coded: Coded,
    /// How the client is to ask from now on (`--hsts`), over TLS alone
    /// (RFC 6797 §7.2).
    pub(in crate::proxy) hsts: Option<&'a str>,
}

/// What a head said that was for us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Said {
    /// How long the server keeps the connection (`Keep-Alive: timeout=5`,
    /// which Node.js and Apache send).
    pub(in crate::proxy) timeout: Option<Duration>,
    /// The server set a cookie of our name, which was taken out.
    pub(in crate::proxy) cookie_taken: bool,
}

impl ForClient<'_> {
    /// Appends the head of the response to `head`.
    pub(in crate::proxy) fn write(&self, response: &Response<'_, '_>, head: &mut Vec<u8>) -> Said {
        let mut said = Said::default();
        let (mut has_date, mut varies) = (false, false);
        let cookie = self.sticky.map(|(name, _)| name);
        head.reserve(response.size + 256);
        write_status_line(head, response);
        for (known, field) in response.fields.iter() {
            match known {
                Known::Connection
                | Known::ProxyConnection
                | Known::Te
                | Known::TransferEncoding
                | Known::Upgrade => {}
                Known::KeepAlive => said.timeout = keep_alive_timeout(field.value),
                // RFC 9110 §8.6: there is none.
                Known::ContentLength if response.status == StatusCode::NO_CONTENT => {}
                // It is another, and not known yet.
                Known::ContentLength if self.is_compressed() => {}
                Known::ContentLength => push_field(head, field.name, field.value),
                Known::SetCookie
                    if cookie.is_some_and(|name| sticky::is_ours(field.value, name)) =>
                {
                    said.cookie_taken = true;
                }
                _ if response.connection.nominates && is_nominated(field.name, response.fields) => {
                }
                // RFC 6797 §7.1: once, and it is ours to say.
                Known::Other if self.hsts.is_some() && field.name.eq_ignore_ascii_case(HSTS) => {}
                Known::Date => {
                    has_date = true;
                    push_field(head, field.name, field.value);
                }
                Known::Other if self.coded != Coded::AsItIs => {
                    varies |= self.write_coded(field, head);
                }
                _ => push_field(head, field.name, field.value),
            }
        }
        self.write_own(response, (has_date, varies), head);
        self.write_framing(response, head);
        push(head, "\r\n");
        said
    }

    /// Says what the server has not: whether it said the time, and that the
    /// response varies, is known.
    fn write_own(
        &self,
        response: &Response<'_, '_>,
        (has_date, varies): (bool, bool),
        head: &mut Vec<u8>,
    ) {
        if let Coded::By(coding) = self.coded {
            push_field(head, "content-encoding", coding.as_str().as_bytes());
        }
        if self.coded != Coded::AsItIs && !varies {
            // RFC 9110 §12.5.5: caches must not give it to everybody.
            push(head, "vary: accept-encoding\r\n");
        }
        if !has_date {
            // RFC 9110 §6.6.1.
            push_field(head, "date", &(self.date)());
        }
        if let Some((name, Some(server))) = self.sticky {
            sticky::insert(head, name, server, self.method, response.status);
        }
        if let Some(hsts) = self.hsts {
            push_hsts(head, hsts);
        }
        if let Some(why) = self.why {
            push_field(head, "x-lb-why", why.as_bytes());
        }
    }

    fn write_framing(&self, response: &Response<'_, '_>, head: &mut Vec<u8>) {
        if self.recodes(response.length) {
            push(head, "transfer-encoding: chunked\r\n");
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            push(head, "connection: upgrade\r\n");
            for protocol in response.fields.values(Known::Upgrade) {
                push_field(head, "upgrade", protocol);
            }
        } else {
            push_connection(head, self.version, self.keep_alive);
        }
    }

    /// Whether the body goes out in chunks: HTTP/1.0 knows none, and gets a
    /// body of unknown length up to the end of its connection.
    pub(in crate::proxy) fn recodes(&self, length: Length) -> bool {
        let unknown = matches!(length, Length::Chunked | Length::UntilClose);
        self.version == Version::Http11 && (unknown || self.is_compressed())
    }

    fn is_compressed(&self) -> bool {
        matches!(self.coded, Coded::By(_))
    }

    /// A field that may mean something else where content is compressed. Says
    /// whether it tells caches that it may be.
    fn write_coded(&self, field: &Field<'_>, head: &mut Vec<u8>) -> bool {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("vary") {
            push_field(head, field.name, field.value);
            let mut names = field
                .value
                .split(|byte| *byte == b',')
                .map(<[u8]>::trim_ascii);
            return names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"));
        }
        if !self.is_compressed() {
            push_field(head, field.name, field.value);
        } else if is("etag") {
            push_field(head, field.name, &compress::weak(field.value));
        } else if !is("accept-ranges") && !DIGESTS.iter().any(|name| is(name)) {
            // These are of the content as its server has it.
            push_field(head, field.name, field.value);
        }
        false
    }
}

/// Appends the head of a response that is not the last one to its request
/// (RFC 9110 §15.2).
pub(in crate::proxy) fn write_interim(response: &Response<'_, '_>, head: &mut Vec<u8>) {
    write_status_line(head, response);
    for (known, field) in response.fields.iter() {
        match known {
            Known::Other | Known::Date
                if !response.connection.nominates || !is_nominated(field.name, response.fields) =>
            {
                push_field(head, field.name, field.value);
            }
            _ => {}
        }
    }
    push(head, "\r\n");
}

/// Says what becomes of the client's connection, where it is not what the
/// version has it anyway (RFC 9112 §9.3).
pub(in crate::proxy) fn push_connection(head: &mut Vec<u8>, version: Version, keep_alive: bool) {
    match (version, keep_alive) {
        (_, false) => push(head, "connection: close\r\n"),
        (Version::Http10, true) => push(head, "connection: keep-alive\r\n"),
        (Version::Http11, true) => {}
    }
}

/// Says how long the client is to ask over TLS alone (RFC 6797 §6.1).
pub(in crate::proxy) fn push_hsts(head: &mut Vec<u8>, hsts: &str) {
    push_field(head, HSTS, hsts.as_bytes());
}

fn write_status_line(head: &mut Vec<u8>, response: &Response<'_, '_>) {
    push(head, "HTTP/1.1 ");
    push(head, response.status.as_str());
    push(head, " ");
    push(head, response.reason);
    push(head, "\r\n");
}

fn keep_alive_timeout(value: &[u8]) -> Option<Duration> {
    let value = std::str::from_utf8(value).ok()?;
    let seconds = value
        .split(',')
        .find_map(|token| token.trim().strip_prefix("timeout=")?.parse().ok())?;
    // A server may say anything; nobody keeps a connection for longer.
    Some(Duration::from_secs(seconds).min(Duration::from_hours(1)))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::values, *};

    fn answer(version: Version, keep_alive: bool, head: &str) -> (String, Said) {
        let for_client = ForClient {
            version,
            keep_alive,
            sticky: Some(("SERVERID", Some("s1"))),
            method: &Method::GET,
            date: &|| *b"Sun, 06 Nov 1994 08:49:37 GMT",
            why: None,
            coded: Coded::AsItIs,
            hsts: None,
        };
        let mut made = Vec::new();
        let head = format!("HTTP/1.1 {head}\r\n");
        let said = Response::read(head.as_bytes(), &Method::GET, |response| {
            for_client.write(response, &mut made)
        });
        (String::from_utf8(made).unwrap(), said.unwrap().unwrap())
    }

    #[test]
    fn a_response_loses_its_hop_by_hop_fields_and_tells_its_keep_alive() {
        let (head, said) = answer(
            Version::Http11,
            true,
            "200 OK\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\n\
             keep-alive: timeout=5, max=100\r\ncontent-length: 5\r\nSet-Cookie: SERVERID=x\r\n",
        );
        assert_eq!(said.timeout, Some(Duration::from_secs(5)));
        assert!(said.cookie_taken);
        for gone in ["connection", "x-hop", "keep-alive"] {
            assert!(values(&head, gone).is_empty(), "{gone}");
        }
        assert_eq!(values(&head, "content-length"), ["5"]);
        assert_eq!(values(&head, "set-cookie"), ["SERVERID=s1; Path=/"]);
        assert_eq!(values(&head, "date"), ["Sun, 06 Nov 1994 08:49:37 GMT"]);
    }

    #[test]
    fn nobody_keeps_a_connection_for_as_long_as_a_server_may_say() {
        let timeout = keep_alive_timeout(b"timeout=18446744073709551615");
        assert_eq!(timeout, Some(Duration::from_hours(1)));
        assert_eq!(keep_alive_timeout(b"max=5"), None);
    }

    #[test]
    fn a_client_is_told_where_the_body_ends_in_its_versions_words() {
        let chunked = "200 OK\r\ntransfer-encoding: chunked\r\n";
        let unknown = "200 OK\r\n";
        for (version, keep_alive, head, coding, connection) in [
            (Version::Http11, true, chunked, &["chunked"][..], &[][..]),
            (Version::Http11, false, unknown, &["chunked"], &["close"]),
            (Version::Http10, false, chunked, &[], &["close"]),
            (
                Version::Http10,
                true,
                "204 No Content\r\ncontent-length: 5\r\n",
                &[],
                &["keep-alive"],
            ),
        ] {
            let (head, _) = answer(version, keep_alive, head);
            assert_eq!(values(&head, "transfer-encoding"), coding, "{head}");
            assert_eq!(values(&head, "connection"), connection, "{head}");
            assert!(values(&head, "content-length").is_empty(), "{head}");
        }
    }

    #[test]
    fn a_101_keeps_its_upgrade() {
        let (head, _) = answer(
            Version::Http11,
            true,
            "101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n",
        );
        assert_eq!(values(&head, "upgrade"), ["websocket"]);
        assert_eq!(values(&head, "connection"), ["upgrade"]);
    }
}
