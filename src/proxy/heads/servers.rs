//! Heads towards servers.

use http::Method;

use super::{is_nominated, push_field};
use crate::{
    balance::sticky,
    http1::{Field, Known, Length, Request, Target},
    proxy::{ascii::push, forwarded::Origin},
};

/// A request's head for servers.
#[derive(Debug)]
pub(in crate::proxy) struct ForServer {
    /// The head.
    pub(in crate::proxy) head: Vec<u8>,
    /// The sticky cookie's value, which no server gets to see.
    pub(in crate::proxy) cookie: Option<String>,
}

/// Makes a client's head one for a server: origin-form target, no hop-by-hop
/// field, and who asked. `sticky` is the cookie's name.
pub(in crate::proxy) fn for_server(
    request: &Request<'_, '_>,
    origin: &Origin,
    sticky: Option<&str>,
) -> ForServer {
    let mut head = Vec::with_capacity(request.size + origin.size() + 64);
    let mut cookie = None;
    write_request_line(&mut head, request, origin);
    for (known, field) in request.fields.iter() {
        if known != Known::Cookie {
            if goes_on(known, field, request, origin) {
                push_field(&mut head, field.name, field.value);
            }
            continue;
        }
        let rest = match sticky {
            Some(name) => sticky::take(field.value, name, &mut cookie),
            None => Some(field.value.into()),
        };
        if let Some(rest) = rest {
            push_field(&mut head, field.name, &rest);
        }
    }
    write_own_hop(&mut head, request);
    origin.tell(&mut head, request);
    push(&mut head, "\r\n");
    ForServer { head, cookie }
}

/// Whether a field goes on as it is.
fn goes_on(known: Known, field: &Field<'_>, request: &Request<'_, '_>, origin: &Origin) -> bool {
    match known {
        // RFC 9110 §7.6.1: these end here.
        Known::Connection
        | Known::KeepAlive
        | Known::ProxyAuthorization
        | Known::ProxyConnection
        | Known::Te
        | Known::TransferEncoding
        | Known::Upgrade => false,
        // RFC 9112 §3.2.2: the target has said it, whatever this says.
        Known::Host if matches!(request.form, Target::Absolute { .. }) => false,
        // They frame and route the message, and a client that could
        // remove them could make a server read it differently from us.
        Known::Host | Known::ContentLength => true,
        // Nor does a client remove what a proxy before us says of it.
        Known::Forwarded
        | Known::XForwardedFor
        | Known::XForwardedHost
        | Known::XForwardedPort
        | Known::XForwardedProto
        | Known::XRealIp => origin.keeps(known, field.value),
        _ if origin.drops(field.name) => false,
        _ => !request.connection.nominates || !is_nominated(field.name, request.fields),
    }
}

/// Says what holds between us and the server.
fn write_own_hop(head: &mut Vec<u8>, request: &Request<'_, '_>) {
    if request.length == Length::Chunked {
        push(head, "transfer-encoding: chunked\r\n");
    }
    match (request.upgrade, request.takes_trailers) {
        (Some(protocol), _) => {
            push(head, "connection: upgrade\r\n");
            push_field(head, "upgrade", protocol);
        }
        // RFC 9110 §10.1.4: TE goes with its connection option.
        (None, true) => push(head, "connection: te\r\nte: trailers\r\n"),
        (None, false) => {}
    }
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

#[cfg(test)]
mod tests {
    use super::{super::tests::values, *};
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
}
