//! What servers are told of a client (X-Forwarded-For and its kin, RFC 7239's
//! Forwarded), whose word about clients counts, and what a client's own
//! address is behind proxies that are trusted. Pure.

use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;

use super::{
    ascii::{push, push_address, push_number},
    heads::push_field,
};
use crate::{
    cidr::{Cidr, any_contains},
    http1::{Known, Request, Target},
};

/// What servers are told of clients, and who is believed.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// What becomes of X-Forwarded-For and its kin.
    pub forwarded_for: ForwardedFor,
    /// The proxies that are believed what they say of their clients. Where
    /// none is named, everyone's X-Forwarded-For goes on, and nobody's
    /// X-Forwarded-Port and -Proto.
    pub trusted: Vec<Cidr>,
    /// Whether it is said as `Forwarded` too.
    pub forwarded: bool,
}

/// What becomes of X-Forwarded-For and its kin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ForwardedFor {
    /// The client's address is added to what came
    #[default]
    Append,
    /// What came is dropped
    Replace,
    /// None is added, and what came goes on as it is
    Off,
}

/// Room for the field lines of an IPv6 client over `https`.
const MOST_OF_FIELDS: usize = 112;

/// What a server is told of the client of a connection: made once, and told
/// with every request on it.
#[derive(Debug)]
pub(super) struct Origin {
    local: SocketAddr,
    scheme: &'static str,
    claims: Claims,
    /// It is a proxy whose word on its clients counts.
    is_trusted: bool,
    /// The field lines that go with every request.
    fields: Box<[u8]>,
    /// The beginning of a `Forwarded` line; empty where there is none to be.
    forwarded: Box<str>,
}

/// What becomes of what a peer claims about clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claims {
    /// It goes on, but for what we know better: the port and the scheme.
    Added,
    /// It goes on, and we say what is missing.
    Believed,
    /// It is dropped.
    Dropped,
    /// It goes on, and we say nothing.
    Untouched,
}

impl Origin {
    /// Of a connection that `peer` made to `local`, over `http` or `https`.
    pub(super) fn new(
        policy: &Policy,
        scheme: &'static str,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Self {
        let client = peer.ip().to_canonical();
        let claims = policy.claims(client);
        let mut fields = Vec::with_capacity(MOST_OF_FIELDS);
        if claims != Claims::Untouched {
            push(&mut fields, "x-forwarded-for: ");
            push_address(&mut fields, client);
            push(&mut fields, "\r\n");
        }
        if matches!(claims, Claims::Added | Claims::Dropped) {
            push(&mut fields, "x-forwarded-port: ");
            push_number(&mut fields, local.port());
            push(&mut fields, "\r\nx-forwarded-proto: ");
            push(&mut fields, scheme);
            push(&mut fields, "\r\n");
        }
        // RFC 7239 §6: IPv6 in brackets, and those in quotes.
        let forwarded = match client {
            _ if !policy.forwarded => String::new(),
            IpAddr::V4(client) => format!("forwarded: for={client};proto={scheme}"),
            IpAddr::V6(client) => format!("forwarded: for=\"[{client}]\";proto={scheme}"),
        };
        Self {
            local,
            scheme,
            claims,
            is_trusted: any_contains(&policy.trusted, client),
            fields: fields.into(),
            forwarded: forwarded.into(),
        }
    }

    /// Where the client connected to.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether the connection is over TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.scheme == "https"
    }

    /// Whether the client asked over TLS: here, or in front of a proxy whose
    /// word on it is believed.
    pub(super) fn was_asked_securely(&self, request: &Request<'_, '_>) -> bool {
        let said = || request.fields.values(Known::XForwardedProto).next();
        // Of several, the first is the client's.
        let first = |value: &[u8]| {
            let mut members = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            members
                .next()
                .is_some_and(|said| said.eq_ignore_ascii_case(b"https"))
        };
        self.is_secure() || (self.is_trusted && said().is_some_and(first))
    }

    /// Bytes that the fields take, or nearly.
    pub(super) fn size(&self) -> usize {
        self.fields.len() + self.forwarded.len()
    }

    /// Whether a field that says something of the client goes on.
    pub(super) fn keeps(&self, known: Known, value: &[u8]) -> bool {
        let believed = match self.claims {
            Claims::Believed | Claims::Untouched => true,
            Claims::Dropped => false,
            Claims::Added => !matches!(known, Known::XForwardedPort | Known::XForwardedProto),
        };
        // Behind a quote that is never closed ours would be a part of it.
        let would_hide_ours = known == Known::Forwarded && !self.forwarded.is_empty();
        believed && (!would_hide_ours || is_forwarded(value))
    }

    /// Whether a field that is not known is dropped, because servers may take
    /// it for one about the client.
    pub(super) fn drops(&self, name: &str) -> bool {
        self.claims == Claims::Dropped && is_claim(name)
    }

    /// Appends what is told with this request.
    pub(super) fn tell(&self, head: &mut Vec<u8>, request: &Request<'_, '_>) {
        head.extend_from_slice(&self.fields);
        if self.claims == Claims::Believed {
            self.tell_what_is_missing(head, request);
        }
        if !self.forwarded.is_empty() {
            push(head, &self.forwarded);
            push_host(head, request);
            push(head, "\r\n");
        }
    }

    /// A proxy that has said the scheme and not the port means the scheme's
    /// own, which need not be ours.
    fn tell_what_is_missing(&self, head: &mut Vec<u8>, request: &Request<'_, '_>) {
        let says = |known| request.fields.values(known).next().is_some();
        if says(Known::XForwardedProto) {
            return;
        }
        push_field(head, "x-forwarded-proto", self.scheme.as_bytes());
        if !says(Known::XForwardedPort) {
            let port = self.local.port().to_string();
            push_field(head, "x-forwarded-port", port.as_bytes());
        }
    }
}

impl Policy {
    fn claims(&self, peer: IpAddr) -> Claims {
        match self.forwarded_for {
            ForwardedFor::Off => Claims::Untouched,
            ForwardedFor::Append if self.trusted.is_empty() => Claims::Added,
            ForwardedFor::Append if any_contains(&self.trusted, peer) => Claims::Believed,
            ForwardedFor::Append | ForwardedFor::Replace => Claims::Dropped,
        }
    }
}

/// Appends the host that was asked for, as a parameter of `Forwarded`.
fn push_host(head: &mut Vec<u8>, request: &Request<'_, '_>) {
    let host = match request.form {
        Target::Absolute { authority, .. } => Some(authority.as_bytes()),
        _ => request.fields.values(Known::Host).next(),
    };
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        return;
    };
    push(head, ";host=");
    if host.iter().copied().all(is_token) {
        head.extend_from_slice(host);
        return;
    }
    head.push(b'"');
    for byte in host {
        if matches!(byte, b'"' | b'\\') {
            head.push(b'\\');
        }
        head.push(*byte);
    }
    head.push(b'"');
}

/// Whether a server may take a field of that name for one about the client:
/// many take `_` for `-`, as CGI does.
fn is_claim(name: &str) -> bool {
    let is = |like: &str| {
        let same = |(byte, like): (u8, u8)| byte.eq_ignore_ascii_case(&like);
        let dashed = name
            .bytes()
            .map(|byte| if byte == b'_' { b'-' } else { byte });
        name.len() >= like.len() && dashed.zip(like.bytes()).all(same)
    };
    is("x-forwarded-") || is("x-real-ip") && name.len() == "x-real-ip".len()
}

/// Whether it is a list of elements as RFC 7239 §4 has them. White space
/// around a semicolon, which some send, is taken.
fn is_forwarded(value: &[u8]) -> bool {
    let mut rest = value;
    loop {
        rest = rest.trim_ascii_start();
        // Elements and pairs may be empty.
        if !matches!(rest.first(), None | Some(b',' | b';')) {
            let Some(behind) = behind_pair(rest) else {
                return false;
            };
            rest = behind.trim_ascii_start();
        }
        match rest.split_first() {
            None => return true,
            Some((b',' | b';', behind)) => rest = behind,
            Some(_) => return false,
        }
    }
}

/// What stands behind a parameter.
fn behind_pair(text: &[u8]) -> Option<&[u8]> {
    let value = behind_token(text)?.strip_prefix(b"=")?;
    match value.strip_prefix(b"\"") {
        Some(quoted) => behind_quote(quoted),
        None => behind_token(value),
    }
}

fn behind_token(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|byte| !is_token(*byte));
    let (token, rest) = text.split_at_checked(end.unwrap_or(text.len()))?;
    (!token.is_empty()).then_some(rest)
}

/// What stands behind the quote that closes (RFC 9110 §5.6.4).
fn behind_quote(mut text: &[u8]) -> Option<&[u8]> {
    let may_stand = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', escaped, rest @ ..] if may_stand(escaped) => rest,
            [b'\\', ..] => return None,
            [byte, rest @ ..] if may_stand(byte) => rest,
            _ => return None,
        };
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The client's own address, as limits count it: the right-most one in
/// X-Forwarded-For that is not a trusted proxy's, if it is one that has
/// connected. As nginx has it (`real_ip_recursive`): something that is no
/// address ends the search, and where all are trusted it is the first.
pub fn source<'v>(
    peer: IpAddr,
    forwarded_for: impl DoubleEndedIterator<Item = &'v [u8]>,
    trusted: &[Cidr],
) -> IpAddr {
    let mut source = peer.to_canonical();
    let said = forwarded_for
        .rev()
        .flat_map(|value| value.rsplit(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|said| !said.is_empty());
    for said in said {
        if !any_contains(trusted, source) {
            break;
        }
        let Some(before) = address(said) else {
            break;
        };
        source = before.to_canonical();
    }
    source
}

/// An address, perhaps with a port, as some proxies have it.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|addr| addr.ip());
    text.parse().ok().or_else(with_port).or_else(bare)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::heads;

    const PROXY: &str = "10.0.0.9:50000";
    const CLIENT: &str = "192.0.2.7:50000";

    fn policy(forwarded_for: ForwardedFor, trusted: &[&str], forwarded: bool) -> Policy {
        Policy {
            forwarded_for,
            trusted: trusted.iter().map(|range| range.parse().unwrap()).collect(),
            forwarded,
        }
    }

    /// The fields about the client that a server gets, sorted by their names.
    fn told(policy: &Policy, peer: &str, fields: &str) -> Vec<String> {
        let local = "10.0.0.1:80".parse().unwrap();
        let origin = Origin::new(policy, "http", peer.parse().unwrap(), local);
        let head = format!("GET / HTTP/1.1\r\nhost: a:8080\r\n{fields}\r\n");
        let made = Request::read(head.as_bytes(), |request| {
            heads::for_server(request, &origin, None).head
        });
        let made = String::from_utf8(made.unwrap().expect("a whole head")).unwrap();
        let fields = made.lines().skip(1).filter(|line| !line.is_empty());
        let mut fields: Vec<String> = fields
            .filter(|line| !line.starts_with("host: "))
            .map(|line| {
                let (name, value) = line.split_once(": ").unwrap();
                let name = name.to_ascii_lowercase();
                format!("{}: {value}", name.replace("x-forwarded-", ""))
            })
            .collect();
        fields.sort_by_key(|line| line.split(':').next().unwrap().to_owned());
        fields
    }

    const CLAIMS: &str = "X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-Host: h\r\n\
        X-Forwarded-Port: 1\r\nX-Forwarded-Proto: https\r\nForwarded: for=203.0.113.1\r\n\
        X-Real-IP: 203.0.113.1\r\n";

    #[test]
    fn by_default_what_came_goes_on_but_for_what_we_know_better() {
        assert_eq!(
            told(&Policy::default(), CLIENT, CLAIMS),
            [
                "for: 203.0.113.1",
                "for: 192.0.2.7",
                "forwarded: for=203.0.113.1",
                "host: h",
                "port: 80",
                "proto: http",
                "x-real-ip: 203.0.113.1",
            ]
        );
    }

    #[test]
    fn what_is_replaced_and_what_a_stranger_claims_is_dropped() {
        let more = "X-Forwarded-User: root\r\nx_forwarded_for: 1\r\nX-REAL_IP: 1\r\n\
            x-real-ipv6: kept\r\nx-forwarded: kept\r\n";
        let fields = format!("{CLAIMS}{more}");
        let ours = [
            "for: 192.0.2.7",
            "port: 80",
            "proto: http",
            "x-forwarded: kept",
            "x-real-ipv6: kept",
        ];
        let replace = policy(ForwardedFor::Replace, &[], false);
        assert_eq!(told(&replace, CLIENT, &fields), ours);
        let strangers = policy(ForwardedFor::Append, &["10.0.0.0/8"], false);
        assert_eq!(told(&strangers, CLIENT, &fields), ours);
    }

    #[test]
    fn whatever_becomes_of_the_fields_a_trusted_proxy_knows_how_it_was_asked() {
        let head = b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-proto: https\r\n\r\n";
        for how in [
            ForwardedFor::Append,
            ForwardedFor::Replace,
            ForwardedFor::Off,
        ] {
            let policy = policy(how, &["10.0.0.0/8"], false);
            let asked_securely = |peer: &str| {
                let local = "10.0.0.1:80".parse().unwrap();
                let origin = Origin::new(&policy, "http", peer.parse().unwrap(), local);
                let asked = Request::read(head, |request| origin.was_asked_securely(request));
                asked.unwrap().unwrap()
            };
            assert!(asked_securely(PROXY), "{how:?}");
            assert!(!asked_securely(CLIENT), "{how:?}");
        }
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_what_it_does_not_say_is_said() {
        let append = policy(ForwardedFor::Append, &["10.0.0.0/8"], false);
        assert_eq!(
            told(&append, PROXY, CLAIMS),
            [
                "for: 203.0.113.1",
                "for: 10.0.0.9",
                "forwarded: for=203.0.113.1",
                "host: h",
                "port: 1",
                "proto: https",
                "x-real-ip: 203.0.113.1",
            ]
        );
        let for_and = |line: &str| told(&append, PROXY, &format!("{line}\r\n"));
        assert_eq!(
            for_and("a: b"),
            ["a: b", "for: 10.0.0.9", "port: 80", "proto: http"]
        );
        assert_eq!(
            for_and("x-forwarded-proto: https"),
            ["for: 10.0.0.9", "proto: https"]
        );
        assert_eq!(
            for_and("x-forwarded-port: 81"),
            ["for: 10.0.0.9", "port: 81", "proto: http"]
        );
    }

    #[test]
    fn off_adds_nothing_and_takes_nothing() {
        let off = policy(ForwardedFor::Off, &["10.0.0.0/8"], false);
        assert_eq!(told(&off, CLIENT, CLAIMS).len(), 6);
        assert_eq!(told(&off, CLIENT, "a: b\r\n"), ["a: b"]);
    }

    #[test]
    fn connection_takes_no_claim_away() {
        let names = "Connection: X-Forwarded-For, x-forwarded-proto, X-FORWARDED-PORT, \
            x-forwarded-host, Forwarded, X-Real-IP\r\n";
        let fields = format!("{names}{CLAIMS}");
        for forwarded_for in [
            ForwardedFor::Append,
            ForwardedFor::Replace,
            ForwardedFor::Off,
        ] {
            for (peer, trusted) in [(PROXY, &["10.0.0.0/8"][..]), (CLIENT, &[])] {
                let policy = policy(forwarded_for, trusted, true);
                assert_eq!(told(&policy, peer, &fields), told(&policy, peer, CLAIMS));
            }
        }
    }

    #[test]
    fn forwarded_says_who_asked_for_what_and_how() {
        let said = |peer: &str, fields: &str| {
            let append = policy(ForwardedFor::Append, &["10.0.0.0/8"], true);
            let mut told = told(&append, peer, fields);
            told.retain(|line| line.starts_with("forwarded: "));
            told
        };
        let ours = "forwarded: for=192.0.2.7;proto=http;host=\"a:8080\"";
        assert_eq!(said(CLIENT, "forwarded: for=1.2.3.4\r\n"), [ours]);
        assert_eq!(
            said("[2001:db8::1]:5", ""),
            ["forwarded: for=\"[2001:db8::1]\";proto=http;host=\"a:8080\""]
        );
        let by_proxy = "forwarded: for=10.0.0.9;proto=http;host=\"a:8080\"";
        assert_eq!(
            said(PROXY, "Forwarded: for=1.2.3.4;By=_x\r\n"),
            ["forwarded: for=1.2.3.4;By=_x", by_proxy]
        );
        assert_eq!(said(PROXY, "forwarded: for=\"1.2.3.4\r\n"), [by_proxy]);
    }

    #[test]
    fn forwarded_is_read_as_its_grammar_has_it() {
        for good in [
            "for=1.2.3.4",
            "for=\"[2001:db8::1]:5\" , for=_hidden;By=unknown",
            "For=\"a\\\"b\\\\,;\";proto=https;host=a,for=b",
            "for=a; proto=http",
            ", for=a ,, ;for=b;",
            "ext=\"\"",
            "",
        ] {
            assert!(is_forwarded(good.as_bytes()), "{good}");
        }
        assert!(is_forwarded(b"for=\"\xe4\""), "obs-text");
        for bad in [
            "for",
            "for=",
            "=a",
            "for=\"a",
            "for=\"a\\\"",
            "for=\"a\"b",
            "for = a",
            "for=a b",
            "for=[::1]",
            "for=1.2.3.4:5",
            "for=a\"b\"",
            "for=a:",
        ] {
            assert!(!is_forwarded(bad.as_bytes()), "{bad}");
        }
        assert!(!is_forwarded(b"for=\xe4"), "only in quotes");
    }

    #[test]
    fn the_source_is_the_last_that_no_trusted_proxy_is() {
        let trusted = ["10.0.0.0/8", "fc00::/7"].map(|range| range.parse().unwrap());
        let source = |peer: &str, values: &[&str]| {
            let values = values.iter().map(|value| value.as_bytes());
            source(peer.parse().unwrap(), values, &trusted).to_string()
        };
        for (peer, values, expected) in [
            ("192.0.2.7", &["203.0.113.1"][..], "192.0.2.7"),
            ("10.0.0.9", &["203.0.113.1"], "203.0.113.1"),
            ("::ffff:10.0.0.9", &["203.0.113.1"], "203.0.113.1"),
            ("10.0.0.9", &["1.1.1.1, 203.0.113.1"], "203.0.113.1"),
            ("10.0.0.9", &["1.1.1.1", "203.0.113.1"], "203.0.113.1"),
            (
                "10.0.0.9",
                &["203.0.113.1, 10.0.0.1", "fc00::1"],
                "203.0.113.1",
            ),
            ("10.0.0.9", &["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
            ("10.0.0.9", &[], "10.0.0.9"),
            ("10.0.0.9", &["", " , ,"], "10.0.0.9"),
            ("10.0.0.9", &["1.1.1.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.9", &["203.0.113.1:4711"], "203.0.113.1"),
            ("10.0.0.9", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.9", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.9", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.9", &["::ffff:203.0.113.1"], "203.0.113.1"),
        ] {
            assert_eq!(source(peer, values), expected, "{peer} {values:?}");
        }
        let obs_text = [&b"1.1.1.1, \xe4"[..]].into_iter();
        let peer = IpAddr::from([10, 0, 0, 9]);
        assert_eq!(super::source(peer, obs_text, &trusted), peer);
    }
}
