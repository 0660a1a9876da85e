//! What clients of HTTP/2 ask, as HTTP/1.1 says it, and what they are answered.

use http::{
    HeaderMap, Method, StatusCode, header, request,
    uri::{Authority, PathAndQuery},
};

use super::{fields, push, push_fields};
use crate::http1::Response;

/// A request's head, as HTTP/1.1 says it. `protocol` is what extended CONNECT
/// asks for (RFC 8441), with the key that HTTP/1.1 wants for it.
///
/// What HTTP/1.1 cannot say is said in a way that its reader refuses, such as
/// two hosts. So it is refused, counted and logged in the one place for that.
pub(in crate::proxy::http2) fn request_text(
    parts: &request::Parts,
    has_body: bool,
    protocol: Option<(&str, &str)>,
) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    let authority = parts.uri.authority().map(Authority::as_str);
    // RFC 8441 §5: what was asked as CONNECT is asked as GET. Nothing but
    // WebSocket is known to go on in the same way in both.
    let protocol = protocol.filter(|(name, _)| *name == "websocket");
    let method = protocol.map_or(&parts.method, |_| &Method::GET);
    let target = if *method == Method::CONNECT {
        authority
    } else {
        parts.uri.path_and_query().map(PathAndQuery::as_str)
    };
    let first_line = [method.as_str(), " ", target.unwrap_or_default()];
    for part in first_line {
        head.extend_from_slice(part.as_bytes());
    }
    head.extend_from_slice(b" HTTP/1.1\r\n");
    push_hosts(&mut head, authority, &parts.headers);
    push_fields(&mut head, &parts.headers);
    push_cookies(&mut head, &parts.headers);
    if parts
        .headers
        .get(header::TE)
        .is_some_and(|te| te == "trailers")
    {
        push(&mut head, b"te", b"trailers");
    }
    push_framing(&mut head, parts, method, has_body, protocol);
    head.extend_from_slice(b"\r\n");
    head
}

/// Says where the message ends, and that nothing follows on the connection.
fn push_framing(
    head: &mut Vec<u8>,
    parts: &request::Parts,
    method: &Method,
    has_body: bool,
    protocol: Option<(&str, &str)>,
) {
    if let Some((name, key)) = protocol {
        push(head, b"connection", b"upgrade, close");
        push(head, b"upgrade", name.as_bytes());
        push(head, b"sec-websocket-key", key.as_bytes());
        return;
    }
    push(head, b"connection", b"close");
    let told = parts.headers.contains_key(header::CONTENT_LENGTH);
    match (has_body, told) {
        (true, false) => push(head, b"transfer-encoding", b"chunked"),
        (false, false) if may_have_body(method) => push(head, b"content-length", b"0"),
        _ => {}
    }
}

/// A response, as HTTP/2 says it. What belongs to one connection stays there.
pub(in crate::proxy::http2) fn response_parts(
    response: &Response<'_, '_>,
) -> (StatusCode, HeaderMap) {
    let mut headers = fields(response.fields);
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        // RFC 8441 §5.1: it is about a key that the client has not sent.
        headers.remove(header::SEC_WEBSOCKET_ACCEPT);
    }
    (response.status, headers)
}

/// RFC 9113 §8.3.1: `:authority` is the host, and a Host field may only say
/// the same again. Where they differ, or there are several, all are said.
fn push_hosts(head: &mut Vec<u8>, authority: Option<&str>, headers: &HeaderMap) {
    if let Some(authority) = authority {
        push(head, b"host", authority.as_bytes());
    }
    for host in headers.get_all(header::HOST) {
        let again = |authority: &str| authority.as_bytes().eq_ignore_ascii_case(host.as_bytes());
        if !authority.is_some_and(again) {
            push(head, b"host", host.as_bytes());
        }
    }
}

/// RFC 9113 §8.2.3: they may come in crumbs, and go on in one piece.
fn push_cookies(head: &mut Vec<u8>, headers: &HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter().peekable();
    if cookies.peek().is_none() {
        return;
    }
    head.extend_from_slice(b"cookie: ");
    while let Some(cookie) = cookies.next() {
        head.extend_from_slice(cookie.as_bytes());
        if cookies.peek().is_some() {
            head.extend_from_slice(b"; ");
        }
    }
    head.extend_from_slice(b"\r\n");
}

/// RFC 9110 §8.6: who could have sent a body says that there is none.
fn may_have_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::{HeaderName, HeaderValue, Uri, uri::Scheme};
    use proptest::prelude::*;

    use super::*;
    use crate::http1::{Known, Length, Request};

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn text(parts: &request::Parts, has_body: bool) -> String {
        String::from_utf8(request_text(parts, has_body, None)).unwrap()
    }

    /// What the reader makes of it.
    fn read<T>(text: &[u8], then: impl FnOnce(&Request<'_, '_>) -> T) -> Option<T> {
        Request::read(text, then).ok().flatten()
    }

    #[test]
    fn a_request_says_the_same_in_http1() {
        let get = parts(
            "GET",
            "https://a.test:8/b?c",
            &[("accept", "*/*"), ("x", "1")],
        );
        let expected = "GET /b?c HTTP/1.1\r\nhost: a.test:8\r\naccept: */*\r\nx: 1\r\n\
                        connection: close\r\n\r\n";
        assert_eq!(text(&get, false), expected);
    }

    #[test]
    fn a_body_has_the_length_that_was_told_or_goes_in_chunks() {
        for (method, fields, has_body, length) in [
            ("POST", &[][..], true, Length::Chunked),
            ("POST", &[], false, Length::Exact(0)),
            ("GET", &[], false, Length::None),
            ("GET", &[], true, Length::Chunked),
            ("POST", &[("content-length", "7")], true, Length::Exact(7)),
            ("DELETE", &[], false, Length::None),
        ] {
            let text = text(&parts(method, "http://a/", fields), has_body);
            let read = read(text.as_bytes(), |request| request.length);
            assert_eq!(read, Some(length), "{text}");
        }
    }

    #[test]
    fn crumbs_of_a_cookie_become_one_field() {
        let crumbs = [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3")];
        let text = text(&parts("GET", "http://a/", &crumbs), false);
        assert!(text.contains("\r\ncookie: a=1; b=2; c=3\r\n"), "{text}");
        assert_eq!(text.matches("cookie").count(), 1);
    }

    #[test]
    fn the_host_is_the_authority_and_may_be_said_twice_but_not_differ() {
        let hosts = |uri: &str, fields: &[(&str, &str)]| {
            let text = text(&parts("GET", uri, fields), false);
            read(text.as_bytes(), |request| {
                let hosts = request.fields.values(Known::Host);
                hosts
                    .map(|host| String::from_utf8(host.to_vec()).unwrap())
                    .collect()
            })
        };
        let some = |host: &str| Some(vec![host.to_owned()]);
        assert_eq!(hosts("http://a/", &[]), some("a"));
        assert_eq!(hosts("http://a/", &[("host", "A")]), some("a"));
        assert_eq!(hosts("/", &[("host", "a")]), some("a"));
        assert_eq!(hosts("http://a/", &[("host", "b")]), None);
        assert_eq!(hosts("http://a/", &[("host", "a"), ("host", "b")]), None);
        assert_eq!(hosts("/", &[("host", "a"), ("host", "a")]), None);
        assert_eq!(hosts("/", &[]), None);
        assert_eq!(hosts("http://u@a/", &[]), None);
    }

    #[test]
    fn what_is_about_one_connection_does_not_pass() {
        let fields = [
            ("connection", "x-own"),
            ("keep-alive", "1"),
            ("proxy-connection", "a"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("http2-settings", "AAMAAABk"),
            ("expect", "100-continue"),
            ("sec-websocket-key", "k"),
            ("te", "trailers"),
        ];
        let text = text(&parts("GET", "http://a/", &fields), false);
        let expected = "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close\r\n\r\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn connect_is_said_as_it_is_and_not_as_a_request_for_a_path() {
        let connect = parts("CONNECT", "a.test:443", &[]);
        let text = text(&connect, false);
        assert!(text.starts_with("CONNECT a.test:443 HTTP/1.1\r\nhost: a.test:443\r\n"));
        let method = read(text.as_bytes(), |request| request.method.clone());
        assert_eq!(method, Some(Method::CONNECT));
    }

    #[test]
    fn extended_connect_for_websocket_becomes_an_upgrade_and_nothing_else_does() {
        let connect = parts(
            "CONNECT",
            "http://a/chat",
            &[("sec-websocket-version", "13")],
        );
        let asked = request_text(&connect, false, Some(("websocket", "k==")));
        let (upgrade, target) = read(&asked, |request| {
            (
                request.upgrade.map(<[u8]>::to_vec),
                request.target.to_owned(),
            )
        })
        .unwrap();
        assert_eq!(upgrade.as_deref(), Some(&b"websocket"[..]));
        assert_eq!(target, "/chat");
        let asked = String::from_utf8(asked).unwrap();
        assert!(
            asked.starts_with("GET /chat HTTP/1.1\r\nhost: a\r\n"),
            "{asked}"
        );
        assert!(
            asked.contains("\r\nsec-websocket-version: 13\r\n"),
            "{asked}"
        );
        assert!(asked.contains("\r\nsec-websocket-key: k==\r\n"), "{asked}");

        let other = request_text(&connect, false, Some(("connect-udp", "k==")));
        let read = read(&other, |request| {
            (request.method.clone(), request.upgrade.is_some())
        });
        assert_eq!(read, Some((Method::CONNECT, false)));
    }

    #[test]
    fn a_response_keeps_its_fields_but_those_of_its_connection() {
        let head = b"HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\
            connection: close\r\nkeep-alive: timeout=5\r\ntransfer-encoding: chunked\r\n\r\n";
        let (status, headers) = Response::read(head, &Method::GET, response_parts)
            .unwrap()
            .unwrap();
        assert_eq!(status, StatusCode::OK);
        let all: Vec<_> = headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_bytes()))
            .collect();
        assert_eq!(all, [("set-cookie", &b"a=1"[..]), ("set-cookie", b"b=2")]);
    }

    fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
        // What could break a message up is likelier than anything else.
        let byte = prop_oneof![
            prop::sample::select(&b"\r\n\0 \t:;,/?#@%\"<>\\[]aZ0"[..]),
            any::<u8>()
        ];
        prop::collection::vec(byte, 0..most)
    }

    fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        prop::sample::select(texts).prop_map(|text| text.as_bytes().to_vec())
    }

    fn field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        const FRAMING: &[&str] = &[
            "content-length",
            "transfer-encoding",
            "host",
            "connection",
            "cookie",
            "te",
            "upgrade",
            "expect",
        ];
        const TELLING: &[&str] = &["chunked", "0", "5", "close", "a"];
        let name = prop_oneof![one_of(FRAMING), bytes(8)];
        let value = prop_oneof![one_of(TELLING), bytes(12)];
        (name, value)
    }

    /// The fields by name, those left out that the two protocols say in ways
    /// of their own.
    fn said<'a>(
        fields: impl Iterator<Item = (String, &'a [u8])>,
    ) -> BTreeMap<String, Vec<Vec<u8>>> {
        const OWN: [&str; 12] = [
            "connection",
            "content-length",
            "cookie",
            "expect",
            "host",
            "http2-settings",
            "keep-alive",
            "proxy-connection",
            "sec-websocket-key",
            "te",
            "transfer-encoding",
            "upgrade",
        ];
        let mut by_name = BTreeMap::<_, Vec<_>>::new();
        for (name, value) in fields {
            if !OWN.contains(&name.as_str()) {
                by_name
                    .entry(name)
                    .or_default()
                    .push(value.trim_ascii().to_vec());
            }
        }
        by_name
    }

    proptest! {
        #[test]
        fn whatever_a_request_holds_is_read_as_it_alone_or_not_at_all(
            method in prop_oneof![
                one_of(&["GET", "POST", "CONNECT", "OPTIONS"]),
                bytes(6),
            ],
            path in bytes(12),
            authority in prop::option::of(bytes(6)),
            fields in prop::collection::vec(field(), 0..6),
            has_body: bool,
            protocol in prop::option::of(prop::sample::select(&["websocket", "other"][..])),
        ) {
            let mut made = parts("GET", "/", &[]);
            let Ok(method) = Method::from_bytes(&method) else {
                return Ok(());
            };
            made.method = method;
            let mut uri = http::uri::Parts::default();
            let path = [&b"/"[..], &path].concat();
            let Ok(path) = PathAndQuery::try_from(path.as_slice()) else {
                return Ok(());
            };
            uri.path_and_query = Some(path.clone());
            let authority = authority.and_then(|it| Authority::try_from(it.as_slice()).ok());
            if let Some(authority) = &authority {
                uri.scheme = Some(Scheme::HTTP);
                uri.authority = Some(authority.clone());
            }
            made.uri = Uri::from_parts(uri).unwrap();
            for (name, value) in &fields {
                let name = HeaderName::from_bytes(name);
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
                    made.headers.append(name, value);
                }
            }
            let websocket = protocol == Some("websocket");
            let has_body = has_body && protocol.is_none();
            let text = request_text(&made, has_body, protocol.map(|name| (name, "k")));
            let read = Request::read(&text, |request| {
                prop_assert_eq!(request.size, text.len());
                let method = if websocket { &Method::GET } else { &made.method };
                prop_assert_eq!(&request.method, method);
                let target = if *method == Method::CONNECT {
                    authority.as_ref().map_or("", Authority::as_str)
                } else {
                    path.as_str()
                };
                prop_assert_eq!(request.target, target);
                prop_assert!(!request.keeps_alive());
                prop_assert_eq!(request.upgrade.is_some(), websocket);
                let sent = made.headers.iter();
                let sent = said(sent.map(|(name, value)| (name.to_string(), value.as_bytes())));
                let got = request.fields.iter();
                let got = got.map(|(_, field)| (field.name.to_ascii_lowercase(), field.value));
                prop_assert_eq!(sent, said(got));
                if let Some(length) = made.headers.get(header::CONTENT_LENGTH) {
                    let length = std::str::from_utf8(length.as_bytes()).unwrap().parse().unwrap();
                    prop_assert_eq!(request.length, Length::Exact(length));
                } else if has_body {
                    prop_assert_eq!(request.length, Length::Chunked);
                } else {
                    prop_assert!(matches!(request.length, Length::None | Length::Exact(0)));
                }
                Ok(())
            });
            match read {
                Ok(Some(same)) => same?,
                // Refused.
                Err(_) => {}
                // Its reader would wait for more, and take what comes next
                // for a part of it.
                Ok(None) => prop_assert!(false, "not a whole head: {:?}", text),
            }
        }
    }
}
