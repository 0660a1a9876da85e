//! What a proxy does to a message's head (RFC 9110 §7.6, RFC 9112 §3): the
//! head that was read is written anew for the other side. Pure.

use std::time::Duration;

use http::{Method, StatusCode};

use super::{
    compress::{self, Coded},
    forwarded::Origin,
};
use crate::{
    balance::sticky,
    http1::{Field, Fields, Known, Length, Request, Response, Target, Version},
};

/// Fields that prove a content (RFC 9530, and those before it).
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// The field by which clients are told to ask over TLS alone.
const HSTS: &str = "strict-transport-security";

/// A request's head for servers.
#[derive(Debug)]
pub(super) struct ForServer {
    /// The head.
    pub(super) head: Vec<u8>,
    /// The sticky cookie's value, which no server gets to see.
    pub(super) cookie: Option<String>,
}

/// Makes a client's head one for a server: origin-form target, no hop-by-hop
/// field, and who asked. `sticky` is the cookie's name.
pub(super) fn for_server(
    request: &Request<'_, '_>,
    origin: &Origin,
    sticky: Option<&str>,
) -> ForServer {
    let mut head = Vec::with_capacity(request.size + origin.size() + 64);
    let mut cookie = None;
    write_request_line(&mut head, request, origin);
    for (known, field) in request.fields.iter() {
        match known {
            // RFC 9110 §7.6.1: these end here.
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyAuthorization
            | Known::ProxyConnection
            | Known::Te
            | Known::TransferEncoding
            | Known::Upgrade => {}
            // RFC 9112 §3.2.2: the target has said it, whatever this says.
            Known::Host if matches!(request.form, Target::Absolute { .. }) => {}
            Known::Cookie => {
                let rest = match sticky {
                    Some(name) => sticky::take(field.value, name, &mut cookie),
                    None => Some(field.value.into()),
                };
                if let Some(rest) = rest {
                    push_field(&mut head, field.name, &rest);
                }
            }
            // They frame and route the message, and a client that could
            // remove them could make a server read it differently from us.
            Known::Host | Known::ContentLength => push_field(&mut head, field.name, field.value),
            // Nor does a client remove what a proxy before us says of it.
            Known::Forwarded
            | Known::XForwardedFor
            | Known::XForwardedHost
            | Known::XForwardedPort
            | Known::XForwardedProto
            | Known::XRealIp => {
                if origin.keeps(known, field.value) {
                    push_field(&mut head, field.name, field.value);
                }
            }
            _ if origin.drops(field.name) => {}
            _ if request.connection.nominates && is_nominated(field.name, request.fields) => {}
            _ => push_field(&mut head, field.name, field.value),
        }
    }
    if request.length == Length::Chunked {
        push(&mut head, "transfer-encoding: chunked\r\n");
    }
    match (request.upgrade, request.takes_trailers) {
        (Some(protocol), _) => {
            push(&mut head, "connection: upgrade\r\n");
            push_field(&mut head, "upgrade", protocol);
        }
        // RFC 9110 §10.1.4: TE goes with its connection option.
        (None, true) => push(&mut head, "connection: te\r\nte: trailers\r\n"),
        (None, false) => {}
    }
    origin.tell(&mut head, request);
    push(&mut head, "\r\n");
    ForServer { head, cookie }
}

fn write_request_line(head: &mut Vec<u8>, request: &Request<'_, '_>, origin: &Origin) {
    push(head, request.method.as_str());
    push(head, " ");
    if let Target::Absolute { authority, path } = request.form {
        // RFC 9112 §3.2.1 and §3.2.4: without a path it is `/`, or `*`.
        if path.is_empty() && request.method == Method::OPTIONS {
            push(head, "*");
        } else if !path.starts_with('/') {
            push(head, "/");
        }
        push(head, path);
        push(head, " HTTP/1.1\r\n");
        push_field(head, "host", authority.as_bytes());
        return;
    }
    push(head, request.target);
    push(head, " HTTP/1.1\r\n");
    if !request.has_host {
        // HTTP/1.0 need not name a host, and HTTP/1.1 must: what was asked.
        push_field(head, "host", origin.local().to_string().as_bytes());
    }
}

/// What a response's head becomes for the client.
pub(super) struct ForClient<'a> {
    /// The client's version.
    pub(super) version: Version,
    /// Whether the client may ask again on its connection.
    pub(super) keep_alive: bool,
    /// The sticky cookie's name, and the server that a user is bound to now.
    pub(super) sticky: Option<(&'a str, Option<&'a str>)>,
    /// The method that is answered.
    pub(super) method: &'a Method,
    /// The time, as `Date` has it, for a server that does not tell.
    pub(super) date: &'a dyn Fn() -> [u8; 29],
    /// Why the request went where it went (`--explain`).
    pub(super) why: Option<&'a str>,
    /// What becomes of its content.
    pub(super) coded: Coded,
    /// How the client is to ask from now on (`--hsts`), over TLS alone
    /// (RFC 6797 §7.2).
    pub(super) hsts: Option<&'a str>,
}

/// What a head said that was for us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// How long the server keeps the connection (`Keep-Alive: timeout=5`,
    /// which Node.js and Apache send).
    pub(super) timeout: Option<Duration>,
    /// The server set a cookie of our name, which was taken out.
    pub(super) cookie_taken: bool,
}

impl ForClient<'_> {
    /// Appends the head of the response to `head`.
    pub(super) fn write(&self, response: &Response<'_, '_>, head: &mut Vec<u8>) -> Said {
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
        self.write_framing(response, head);
        push(head, "\r\n");
        said
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
    pub(super) fn recodes(&self, length: Length) -> bool {
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
pub(super) fn write_interim(response: &Response<'_, '_>, head: &mut Vec<u8>) {
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
pub(super) fn push_connection(head: &mut Vec<u8>, version: Version, keep_alive: bool) {
    match (version, keep_alive) {
        (_, false) => push(head, "connection: close\r\n"),
        (Version::Http10, true) => push(head, "connection: keep-alive\r\n"),
        (Version::Http11, true) => {}
    }
}

/// Says how long the client is to ask over TLS alone (RFC 6797 §6.1).
pub(super) fn push_hsts(head: &mut Vec<u8>, hsts: &str) {
    push_field(head, HSTS, hsts.as_bytes());
}

fn write_status_line(head: &mut Vec<u8>, response: &Response<'_, '_>) {
    push(head, "HTTP/1.1 ");
    push(head, response.status.as_str());
    push(head, " ");
    push(head, response.reason);
    push(head, "\r\n");
}

/// Appends the fields of a trailer section that may go on (RFC 9110 §6.5.1):
/// none that frames, routes or identifies, since the head has said it.
pub(super) fn write_trailers(trailers: &[u8], to: &mut Vec<u8>) {
    for line in trailers.split_inclusive(|byte| *byte == b'\n') {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let name = std::str::from_utf8(name).unwrap_or_default();
        let may_follow = Known::of(name) == Known::Other
            && !["authorization", "trailer"]
                .iter()
                .any(|refused| name.eq_ignore_ascii_case(refused));
        if may_follow {
            to.extend_from_slice(line);
        }
    }
}

/// Whether a `Connection` field names it.
fn is_nominated(name: &str, fields: Fields<'_, '_>) -> bool {
    let mut named = fields
        .values(Known::Connection)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    named.any(|named| named.eq_ignore_ascii_case(name.as_bytes()))
}

fn keep_alive_timeout(value: &[u8]) -> Option<Duration> {
    let value = std::str::from_utf8(value).ok()?;
    let seconds = value
        .split(',')
        .find_map(|token| token.trim().strip_prefix("timeout=")?.parse().ok())?;
    // A server may say anything; nobody keeps a connection for longer.
    Some(Duration::from_secs(seconds).min(Duration::from_hours(1)))
}

pub(super) fn push(head: &mut Vec<u8>, text: &str) {
    head.extend_from_slice(text.as_bytes());
}

pub(super) fn push_field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.reserve(name.len() + value.len() + ": \r\n".len());
    push(head, name);
    push(head, ": ");
    head.extend_from_slice(value);
    push(head, "\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::forwarded::Policy;

    const PEER: &str = "192.0.2.7:50000";
    const LOCAL: &str = "10.0.0.1:80";

    /// The head for servers of a request with that first line and fields.
    fn asked(first: &str, fields: &str) -> (String, Option<String>) {
        let [peer, local] = [PEER, LOCAL].map(|addr| addr.parse().unwrap());
        let origin = Origin::new(&Policy::default(), "http", peer, local);
        let head = format!("{first}\r\n{fields}\r\n");
        let made = Request::read(head.as_bytes(), |request| {
            for_server(request, &origin, Some("SERVERID"))
        });
        let made = made.unwrap().expect("a whole head");
        (String::from_utf8(made.head).unwrap(), made.cookie)
    }

    fn get(fields: &str) -> String {
        asked("GET / HTTP/1.1", &format!("Host: a\r\n{fields}")).0
    }

    fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
        let fields = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        let of_name = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        of_name.map(|(_, value)| value).collect()
    }

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
    fn hop_by_hop_fields_end_here() {
        let head = get("connection: keep-alive, X-Private\r\nx-private: 1\r\n\
             keep-alive: timeout=5\r\nproxy-connection: keep-alive\r\n\
             proxy-authorization: x\r\nte: gzip, trailers\r\naccept: */*\r\n");
        for gone in [
            "x-private",
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
        ] {
            assert!(values(&head, gone).is_empty(), "{gone}");
        }
        assert_eq!(values(&head, "te"), ["trailers"]);
        assert_eq!(values(&head, "connection"), ["te"]);
        assert_eq!(values(&head, "accept"), ["*/*"]);
    }

    #[test]
    fn connection_cannot_take_away_what_frames_or_routes() {
        let head = get(
            "connection: host, content-length, cookie, x-forwarded-for\r\n\
             content-length: 3\r\ncookie: a=b\r\n",
        );
        for kept in ["host", "content-length", "cookie"] {
            assert_eq!(values(&head, kept).len(), 1, "{kept}");
        }
        assert_eq!(values(&head, "x-forwarded-for"), ["192.0.2.7"]);
    }

    #[test]
    fn the_sticky_cookie_is_kept_from_servers() {
        let (head, cookie) = asked(
            "GET / HTTP/1.1",
            "host: a\r\nCookie: x=1; SERVERID=s2; y=2\r\ncookie: SERVERID=s3\r\n",
        );
        assert_eq!(cookie.as_deref(), Some("s2"));
        assert_eq!(values(&head, "cookie"), ["x=1; y=2"]);
    }

    #[test]
    fn a_websocket_upgrade_is_passed_on_and_h2c_is_not() {
        let head = get("Connection: Upgrade\r\nUpgrade: websocket\r\n");
        assert_eq!(values(&head, "connection"), ["upgrade"]);
        assert_eq!(values(&head, "upgrade"), ["websocket"]);
        let head = get("Connection: Upgrade\r\nUpgrade: h2c\r\n");
        assert!(values(&head, "upgrade").is_empty() && values(&head, "connection").is_empty());
    }

    #[test]
    fn absolute_form_becomes_origin_form_and_its_authority_the_host() {
        for (target, path, host) in [
            ("http://real.example:81/p?q", "/p?q", "real.example:81"),
            ("http://real.example", "/", "real.example"),
            ("http://real.example?q", "/?q", "real.example"),
        ] {
            let (head, _) = asked(&format!("GET {target} HTTP/1.1"), "host: other\r\n");
            assert!(
                head.starts_with(&format!("GET {path} HTTP/1.1\r\n")),
                "{head}"
            );
            assert_eq!(values(&head, "host"), [host]);
        }
    }

    #[test]
    fn a_request_without_a_host_gets_the_address_it_came_to() {
        let (head, _) = asked("GET / HTTP/1.0", "");
        assert!(head.starts_with("GET / HTTP/1.1\r\n"));
        assert_eq!(values(&head, "host"), [LOCAL]);
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

    #[test]
    fn trailers_that_frame_route_or_identify_are_dropped() {
        let mut kept = Vec::new();
        write_trailers(
            b"X-Sum: 1\r\nContent-Length: 5\r\nHost: a\r\nAuthorization: x\r\nForwarded: x\r\n\
              X-Forwarded-For: x\r\ny: 2\r\n",
            &mut kept,
        );
        assert_eq!(kept, b"X-Sum: 1\r\ny: 2\r\n");
    }
}
