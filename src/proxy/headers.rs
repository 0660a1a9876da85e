//! What a proxy does to a message's head (RFC 9110 §7.6, RFC 9112 §3). Pure.

use std::{net::SocketAddr, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, request, response,
    uri::PathAndQuery,
};

use super::error::Error;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Fields that `Connection` may name without effect: they frame or route the
/// message, and a client that could remove them could make a server read the
/// message differently from us.
static NEVER_NOMINATED: [HeaderName; 4] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::COOKIE,
];

/// What `Connection` says that names no field, or one that ends here anyway.
static OPTIONS: [&str; 3] = ["keep-alive", "close", "upgrade"];

/// Refuses a request that is ambiguous or not for a reverse proxy.
pub(super) fn check(head: &request::Parts, has_body: bool) -> Result<(), Error> {
    if head.method == Method::CONNECT {
        return Err(Error::MethodNotAllowed);
    }
    let hosts = head.headers.get_all(header::HOST).iter().count();
    match hosts {
        // RFC 9112 §3.2: exactly one in HTTP/1.1.
        0 if head.version == Version::HTTP_11 => return Err(Error::BadRequest("no Host")),
        0 | 1 => {}
        _ => return Err(Error::BadRequest("several Host fields")),
    }
    check_target(head)?;
    check_coding(&head.headers)?;
    let bodiless = matches!(head.method, Method::GET | Method::HEAD | Method::DELETE);
    if head.version == Version::HTTP_10 && bodiless && has_body {
        return Err(Error::PayloadTooLarge);
    }
    Ok(())
}

/// RFC 9112 §3.2: the authority form is for CONNECT and the asterisk for
/// OPTIONS. Anything else that is no path would become another one here.
fn check_target(head: &request::Parts) -> Result<(), Error> {
    let authority_form = head.uri.scheme().is_none() && head.uri.authority().is_some();
    let asterisk_form = head.uri.path() == "*" && head.method != Method::OPTIONS;
    if authority_form || asterisk_form {
        return Err(Error::BadRequest("a target that is no path"));
    }
    Ok(())
}

/// Refuses a message whose body is coded in a way that is lost here: only
/// `chunked` is undone and done again, and only once.
pub(super) fn check_coding(headers: &HeaderMap) -> Result<(), Error> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let mut fields = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (fields.next(), fields.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if is_chunked(only.as_bytes()) => Ok(()),
        _ if tokens(headers, &header::TRANSFER_ENCODING)
            .all(|coding| is_chunked(coding.as_bytes())) =>
        {
            Err(Error::BadRequest("chunked twice"))
        }
        _ => Err(Error::UnknownCoding),
    }
}

/// What a server is told of the client of a connection: made once, and told
/// with every request on it.
#[derive(Debug)]
pub(super) struct Origin {
    local: SocketAddr,
    forwarded_for: Option<HeaderValue>,
    forwarded_port: HeaderValue,
}

impl Origin {
    pub(super) fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        let peer = peer.ip().to_canonical().to_string();
        Self {
            local,
            // ASCII digits, dots and colons always are a header value.
            forwarded_for: HeaderValue::try_from(peer).ok(),
            forwarded_port: HeaderValue::from(local.port()),
        }
    }
}

/// Makes a client's head one for a server: origin-form target, no hop-by-hop
/// field, and who asked.
///
/// Returns whether the request asks to switch protocols, which it is then
/// still allowed to.
pub(super) fn prepare_request(head: &mut request::Parts, origin: &Origin) -> bool {
    let found = HopByHop::of(&head.headers);
    let upgrade = if found.connection && found.upgrade {
        upgrade_wanted(&head.headers)
    } else {
        None
    };
    let trailers_wanted = found.te && te_has_trailers(&head.headers);
    strip_hop_by_hop(&mut head.headers, found);
    if let Some(protocol) = &upgrade {
        let connection = HeaderValue::from_static("upgrade");
        head.headers.insert(header::CONNECTION, connection);
        head.headers.insert(header::UPGRADE, protocol.clone());
    }
    if found.transfer_encoding {
        // hyper would send a GET without its body if it were not told.
        let coding = HeaderValue::from_static("chunked");
        head.headers.insert(header::TRANSFER_ENCODING, coding);
    }
    if trailers_wanted {
        head.headers
            .insert(header::TE, HeaderValue::from_static("trailers"));
    }
    to_origin_form(head);
    name_a_host(head, origin.local);
    say_who_asked(&mut head.headers, origin);
    head.version = Version::HTTP_11;
    upgrade.is_some()
}

/// Makes a server's head one for the client. Returns how long the server says
/// it will keep the connection, if it does.
pub(super) fn prepare_response(head: &mut response::Parts) -> Option<Duration> {
    let found = HopByHop::of(&head.headers);
    let keep_alive = if found.keep_alive {
        keep_alive_timeout(&head.headers)
    } else {
        None
    };
    let upgrade = (head.status == http::StatusCode::SWITCHING_PROTOCOLS)
        .then(|| head.headers.get(header::UPGRADE).cloned())
        .flatten();
    strip_hop_by_hop(&mut head.headers, found);
    if let Some(protocol) = upgrade {
        let connection = HeaderValue::from_static("upgrade");
        head.headers.insert(header::CONNECTION, connection);
        head.headers.insert(header::UPGRADE, protocol);
    }
    head.version = Version::HTTP_11;
    keep_alive
}

/// Which fields a head has that concern one connection only.
///
/// Found in one pass: a head has one or two of them, and to look for each by
/// its name would cost more than all the rest that is done to it.
#[derive(Debug, Clone, Copy, Default)]
struct HopByHop {
    connection: bool,
    keep_alive: bool,
    proxy_authorization: bool,
    proxy_connection: bool,
    te: bool,
    transfer_encoding: bool,
    upgrade: bool,
}

impl HopByHop {
    fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "connection" => found.connection = true,
                "keep-alive" => found.keep_alive = true,
                "proxy-authorization" => found.proxy_authorization = true,
                "proxy-connection" => found.proxy_connection = true,
                "te" => found.te = true,
                "transfer-encoding" => found.transfer_encoding = true,
                "upgrade" => found.upgrade = true,
                _ => {}
            }
        }
        found
    }
}

/// The size of a head on the wire, give or take what hyper adds. The first
/// line's is with its end.
pub(super) fn wire_size(headers: &HeaderMap, first_line: usize) -> u64 {
    let fields: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum();
    (first_line + fields + "\r\n".len()) as u64
}

/// The protocol of an `Upgrade` that the request's `Connection` goes with.
///
/// `h2c` is not passed on: what follows it could not be read here any more,
/// and could be anything (request smuggling).
fn upgrade_wanted(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = tokens(headers, &header::CONNECTION).any(|t| t.eq_ignore_ascii_case("upgrade"));
    let protocol = headers.get(header::UPGRADE).filter(|_| asked)?;
    let h2c = tokens(headers, &header::UPGRADE).any(|t| t.eq_ignore_ascii_case("h2c"));
    (!h2c).then(|| protocol.clone())
}

fn te_has_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"))
}

/// RFC 9110 §7.6.1: fields about this connection end here, and so do those
/// that `Connection` names.
fn strip_hop_by_hop(headers: &mut HeaderMap, found: HopByHop) {
    if found.connection && !says_one_option(headers) {
        let nominated: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
            .filter(|token| !OPTIONS.iter().any(|word| token.eq_ignore_ascii_case(word)))
            .filter_map(|token| HeaderName::try_from(token).ok())
            .filter(|name| !NEVER_NOMINATED.contains(name))
            .collect();
        for name in nominated {
            headers.remove(name);
        }
    }
    for (there, name) in [
        (found.connection, &header::CONNECTION),
        (found.keep_alive, &KEEP_ALIVE),
        (found.proxy_connection, &PROXY_CONNECTION),
        (found.proxy_authorization, &header::PROXY_AUTHORIZATION),
        (found.te, &header::TE),
        (found.upgrade, &header::UPGRADE),
    ] {
        if there {
            headers.remove(name);
        }
    }
    // RFC 9112 §6.1: beside a transfer coding a length means nothing.
    if found.transfer_encoding {
        headers.remove(header::TRANSFER_ENCODING);
        headers.remove(header::CONTENT_LENGTH);
    }
}

/// Whether `Connection` is a single word that nominates nothing, as it nearly
/// always is.
fn says_one_option(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONNECTION).iter();
    let (Some(only), None) = (values.next(), values.next()) else {
        return false;
    };
    let said = only.as_bytes();
    OPTIONS
        .iter()
        .any(|word| said.eq_ignore_ascii_case(word.as_bytes()))
}

/// RFC 9112 §3.2.2: of an absolute-form target the authority is the host,
/// whatever `Host` says, and the server gets the origin form.
fn to_origin_form(head: &mut request::Parts) {
    let Some(authority) = head.uri.authority() else {
        return;
    };
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    if let Ok(host) = HeaderValue::try_from(host) {
        head.headers.insert(header::HOST, host);
    }
    let path = head.uri.path_and_query().cloned();
    head.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
}

/// HTTP/1.0 has no `Host`, and HTTP/1.1 must have one: the address that was
/// asked.
fn name_a_host(head: &mut request::Parts, local: SocketAddr) {
    if !head.headers.contains_key(header::HOST)
        && let Ok(host) = HeaderValue::try_from(local.to_string())
    {
        head.headers.insert(header::HOST, host);
    }
}

fn say_who_asked(headers: &mut HeaderMap, origin: &Origin) {
    if let Some(address) = &origin.forwarded_for {
        headers.append(&X_FORWARDED_FOR, address.clone());
    }
    headers.insert(&X_FORWARDED_PORT, origin.forwarded_port.clone());
    headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static("http"));
}

/// `Keep-Alive: timeout=5`, which Node.js and Apache send.
fn keep_alive_timeout(headers: &HeaderMap) -> Option<Duration> {
    let seconds = tokens(headers, &KEEP_ALIVE)
        .find_map(|token| token.strip_prefix("timeout=")?.parse().ok())?;
    // A server may say anything; nobody keeps a connection for longer.
    Some(Duration::from_secs(seconds).min(Duration::from_hours(1)))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use http::{Request, Response, StatusCode};

    use super::*;

    const PEER: &str = "192.0.2.7:50000";
    const LOCAL: &str = "10.0.0.1:80";

    fn request(target: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn prepared(target: &str, fields: &[(&str, &str)]) -> (request::Parts, bool) {
        let mut head = request(target, fields);
        let upgrade = prepare_request(
            &mut head,
            &Origin::new(PEER.parse().unwrap(), LOCAL.parse().unwrap()),
        );
        (head, upgrade)
    }

    fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        headers
            .get_all(name)
            .iter()
            .map(|v| v.to_str().unwrap())
            .collect()
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let (head, _) = prepared(
            "/",
            &[
                ("host", "a"),
                ("connection", "keep-alive, X-Private"),
                ("x-private", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("te", "gzip, trailers"),
                ("accept", "*/*"),
            ],
        );
        for gone in ["connection", "x-private", "keep-alive", "proxy-connection"] {
            assert!(!head.headers.contains_key(gone), "{gone}");
        }
        assert_eq!(values(&head.headers, "te"), ["trailers"]);
        assert_eq!(values(&head.headers, "accept"), ["*/*"]);
    }

    #[test]
    fn connection_cannot_take_away_what_frames_or_routes() {
        let (head, _) = prepared(
            "/",
            &[
                ("host", "a"),
                (
                    "connection",
                    "host, content-length, cookie, x-forwarded-for",
                ),
                ("content-length", "3"),
                ("cookie", "a=b"),
            ],
        );
        for kept in ["host", "content-length", "cookie"] {
            assert!(head.headers.contains_key(kept), "{kept}");
        }
        assert_eq!(values(&head.headers, "x-forwarded-for"), ["192.0.2.7"]);
    }

    #[test]
    fn forwarded_for_is_appended_and_port_and_proto_are_set() {
        let (head, _) = prepared(
            "/",
            &[
                ("x-forwarded-for", "203.0.113.1"),
                ("x-forwarded-port", "1"),
                ("x-forwarded-proto", "https"),
            ],
        );
        assert_eq!(
            values(&head.headers, "x-forwarded-for"),
            ["203.0.113.1", "192.0.2.7"]
        );
        assert_eq!(values(&head.headers, "x-forwarded-port"), ["80"]);
        assert_eq!(values(&head.headers, "x-forwarded-proto"), ["http"]);
    }

    #[test]
    fn a_length_beside_a_transfer_coding_is_dropped() {
        let (head, _) = prepared(
            "/",
            &[
                ("host", "a"),
                ("transfer-encoding", "chunked"),
                ("content-length", "5"),
            ],
        );
        assert!(!head.headers.contains_key("content-length"));
        assert_eq!(values(&head.headers, "transfer-encoding"), ["chunked"]);
    }

    #[test]
    fn chunked_once_is_the_only_coding() {
        let check = |codings: &[&str]| {
            let fields: Vec<_> = codings.iter().map(|c| ("transfer-encoding", *c)).collect();
            check_coding(&request("/", &fields).headers)
        };
        let twice = Err(Error::BadRequest("chunked twice"));
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&["Chunked"]), Ok(()));
        assert_eq!(check(&["chunked, chunked"]), twice);
        assert_eq!(check(&["chunked", "chunked"]), twice);
        assert_eq!(check(&["gzip, chunked"]), Err(Error::UnknownCoding));
        assert_eq!(check(&["gzip", "chunked"]), Err(Error::UnknownCoding));
    }

    #[test]
    fn a_target_is_a_path_unless_the_method_has_another_form() {
        let ask = |method: &str, target: &str| {
            let mut head = request(target, &[("host", "a")]);
            head.method = method.parse().unwrap();
            check(&head, false)
        };
        for target in ["/", "http://a", "http://a/b"] {
            assert_eq!(ask("GET", target), Ok(()), "{target}");
        }
        assert_eq!(ask("OPTIONS", "*"), Ok(()));
        assert!(ask("GET", "*").is_err());
        assert!(ask("GET", "admin").is_err());
    }

    #[test]
    fn a_websocket_upgrade_is_passed_on_and_h2c_is_not() {
        let ask = |protocol| prepared("/", &[("connection", "Upgrade"), ("upgrade", protocol)]);
        let (head, upgrade) = ask("websocket");
        assert!(upgrade);
        assert_eq!(values(&head.headers, "connection"), ["upgrade"]);
        assert_eq!(values(&head.headers, "upgrade"), ["websocket"]);
        let (head, upgrade) = ask("h2c");
        assert!(!upgrade);
        assert!(!head.headers.contains_key("upgrade"));
        assert!(!head.headers.contains_key("connection"));
    }

    #[test]
    fn an_upgrade_that_connection_does_not_name_is_none() {
        let (head, upgrade) = prepared("/", &[("upgrade", "websocket")]);
        assert!(!upgrade);
        assert!(!head.headers.contains_key("upgrade"));
    }

    #[test]
    fn absolute_form_becomes_origin_form_and_its_authority_the_host() {
        let (head, _) = prepared("http://user@real.example:81/p?q", &[("host", "other")]);
        assert_eq!(head.uri, "/p?q");
        assert_eq!(values(&head.headers, "host"), ["real.example:81"]);
        let (head, _) = prepared("http://real.example", &[]);
        assert_eq!(head.uri, "/");
    }

    #[test]
    fn a_request_without_a_host_gets_the_address_it_came_to() {
        let (head, _) = prepared("/", &[]);
        assert_eq!(values(&head.headers, "host"), [LOCAL]);
    }

    #[test]
    fn host_must_be_there_once() {
        let bad = |fields: &[(&str, &str)]| check(&request("/", fields), false);
        assert!(bad(&[]).is_err());
        assert!(bad(&[("host", "a"), ("host", "b")]).is_err());
        assert_eq!(bad(&[("host", "a")]), Ok(()));
    }

    #[test]
    fn http_1_0_has_no_body_on_get() {
        let mut head = request("/", &[]);
        head.version = Version::HTTP_10;
        assert_eq!(check(&head, false), Ok(()));
        assert_eq!(check(&head, true), Err(Error::PayloadTooLarge));
    }

    #[test]
    fn a_response_loses_its_hop_by_hop_fields_and_tells_its_keep_alive() {
        let mut head = Response::builder()
            .header("connection", "keep-alive")
            .header("keep-alive", "timeout=5, max=100")
            .header("transfer-encoding", "chunked")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        assert_eq!(prepare_response(&mut head), Some(Duration::from_secs(5)));
        let keep_alive = HeaderValue::from_static("timeout=18446744073709551615");
        head.headers.insert("keep-alive", keep_alive);
        assert_eq!(prepare_response(&mut head), Some(Duration::from_hours(1)));
        assert!(head.headers.is_empty());
    }

    #[test]
    fn a_101_keeps_its_upgrade() {
        let mut head = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        prepare_response(&mut head);
        assert_eq!(values(&head.headers, "upgrade"), ["websocket"]);
    }
}
