//! What is fuzzed: every parser of bytes from outside, and what has to hold
//! whatever they are. `cargo test` runs the same over `corpus/`.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use http::Method;
use tidings::{
    admin::{
        self, Level,
        command::{self, Refusal},
        line,
    },
    balance::sticky,
    gossip::{self, Keyring, Seed},
    http1::{Length, Malformed, Request, Response, Version, chunked},
    membership::Name,
    proxy::{
        self,
        bench::{self, Origin},
    },
    proxy_protocol,
    stats::{
        self,
        events::Query,
        page::{Kind, Options},
    },
    syslog,
};

/// Takes any bytes, and panics where something does not hold.
pub type Target = fn(&[u8]);

/// The targets by their names, as the folders of the corpus have them.
pub const ALL: &[(&str, Target)] = &[
    ("request", request),
    ("response", response),
    ("chunked", chunked),
    ("cookie", cookie),
    ("command", command),
    ("address", address),
    ("form", form),
    ("names", names),
    ("packet", packet),
    ("frame", frame),
    ("envelope", envelope),
    ("proxy_header", proxy_header),
    ("forwarded_for", forwarded_for),
];

/// The cookie's name, by default.
const COOKIE: &str = "SERVERID";

/// A client's head.
pub fn request(bytes: &[u8]) {
    let read = |input: &[u8]| Request::read(input, |head| format!("{head:?}"));
    whole_or_not_at_all(bytes, read, |input| {
        Request::read(input, |head| head.size).ok().flatten()
    });

    let origin = Origin::new(([192, 0, 2, 7], 50000).into(), ([10, 0, 0, 1], 80).into());
    let Some(anew) = bench::head_for_server(bytes, &origin) else {
        return;
    };
    let seen = |head: &Request<'_, '_>| (head.method.clone(), head.length, head.has_body());
    let before = Request::read(bytes, seen);
    // A server that reads as strictly as we do sees the same request, and
    // nothing behind it.
    let after = Request::read(&anew, |head| {
        assert_eq!(head.size, anew.len(), "{}", anew.escape_ascii());
        assert_eq!(head.version, Version::Http11);
        assert!(head.has_host);
        let is_path = head.target.starts_with('/') || head.target == "*";
        assert!(is_path || head.method == Method::CONNECT);
        seen(head)
    });
    // Ours come on top of as many fields as may be.
    if after != Err(Malformed::TooManyFields) {
        assert_eq!(before, after, "{}", anew.escape_ascii());
    }
}

/// A server's head.
pub fn response(bytes: &[u8]) {
    for method in [Method::GET, Method::HEAD] {
        let read = |input: &[u8]| Response::read(input, &method, |head| format!("{head:?}"));
        whole_or_not_at_all(bytes, read, |input| {
            let size = Response::read(input, &method, |head| head.size);
            size.ok().flatten()
        });
    }

    let mut anew = Vec::new();
    if bench::response_head(bytes, &mut anew).is_none() {
        return;
    }
    let seen = |head: &Response<'_, '_>| (head.status, head.length);
    let before = Response::read(bytes, &Method::GET, seen);
    let after = Response::read(&anew, &Method::GET, |head| {
        assert_eq!(head.size, anew.len(), "{}", anew.escape_ascii());
        seen(head)
    });
    if after == Err(Malformed::TooManyFields) {
        return;
    }
    // What goes to the end of the connection goes on in chunks.
    let before = before.map(|seen| {
        seen.map(|(status, length)| match length {
            Length::UntilClose => (status, Length::Chunked),
            length => (status, length),
        })
    });
    assert_eq!(before, after, "{}", anew.escape_ascii());
}

/// A head is seen when its last byte is there, not before, and what is behind
/// it does not matter.
fn whole_or_not_at_all<T: PartialEq + Debug>(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Result<Option<T>, Malformed>,
    size: impl Fn(&[u8]) -> Option<usize>,
) {
    let Some(size) = size(bytes) else {
        return;
    };
    let head = &bytes[..size];
    assert_eq!(read(head), read(bytes));
    // Long heads at some places only.
    for end in (0..size).step_by(1 + size / 512).chain([size - 1]) {
        assert_eq!(read(&head[..end]), Ok(None), "of {end} bytes");
    }
}

/// A chunked body, and what follows it.
pub fn chunked(bytes: &[u8]) {
    let at_once = decode(bytes, bytes.len().max(1));
    let pieces = bytes.first().map_or(1, |byte| usize::from(*byte % 16) + 2);
    assert_eq!(at_once, decode(bytes, 1));
    assert_eq!(at_once, decode(bytes, pieces));

    let Ok(body) = at_once else { return };
    if !body.ended {
        return;
    }
    let mut anew = Vec::new();
    for piece in body.data.chunks(pieces) {
        let mut room = [0; chunked::SIZE_LINE];
        anew.extend_from_slice(chunked::size_line(piece.len(), &mut room));
        anew.extend_from_slice(piece);
        anew.extend_from_slice(b"\r\n");
    }
    anew.extend_from_slice(chunked::LAST);
    let again = decode(&anew, anew.len()).expect("what we write we read");
    assert!(again.ended && again.taken == anew.len());
    assert_eq!(again.data, body.data);
}

#[derive(Debug, PartialEq, Eq)]
struct Body {
    data: Vec<u8>,
    trailers: Vec<u8>,
    taken: usize,
    ended: bool,
}

/// Decodes it in pieces of that length.
fn decode(wire: &[u8], length: usize) -> Result<Body, chunked::Malformed> {
    let mut decoder = chunked::Decoder::default();
    let (mut data, mut taken, mut ended) = (Vec::new(), 0, false);
    for piece in wire.chunks(length) {
        let mut piece = piece.to_vec();
        let done = decoder.decode(&mut piece)?;
        assert!(done.data <= done.taken && done.taken <= piece.len());
        assert!(done.ended || done.taken == piece.len());
        assert!(!ended || done.taken == 0);
        data.extend_from_slice(&piece[..done.data]);
        taken += done.taken;
        ended = done.ended;
    }
    let trailers = if ended {
        decoder.trailers().to_vec()
    } else {
        Vec::new()
    };
    Ok(Body {
        data,
        trailers,
        taken,
        ended,
    })
}

/// A `Cookie` or a `Set-Cookie` field.
pub fn cookie(bytes: &[u8]) {
    sticky::is_ours(bytes, COOKIE);
    let mut value = None;
    let rest = sticky::take(bytes, COOKIE, &mut value);
    if value.is_none() {
        assert_eq!(rest.as_deref(), Some(bytes), "no cookie of ours, no change");
    }
    let Some(rest) = rest else { return };
    assert!(rest.len() <= bytes.len());
    let mut hidden = None;
    let again = sticky::take(&rest, COOKIE, &mut hidden);
    assert_eq!(hidden, None, "{}", rest.escape_ascii());
    assert_eq!(again.as_deref(), Some(&*rest));
}

/// A line of the runtime API.
pub fn command(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (said, end) = line::payload(text);
    for words in line::commands(said).into_iter().flatten() {
        assert!(!words.is_empty() && words.len() <= line::MOST_WORDS);
        command::list(Level::Admin, &words);
        let read = |level| command::read(&words, end.is_some(), level);
        let admin = read(Level::Admin);
        assert_ne!(admin, Err(Refusal::Denied));
        for lower in [Level::User, Level::Operator].map(read) {
            assert!(lower == Err(Refusal::Denied) || lower == admin, "{words:?}");
        }
        // Escaped, they are the same words.
        let escape = |word: &String| -> String { word.chars().flat_map(|c| ['\\', c]).collect() };
        let escaped: Vec<String> = words.iter().map(escape).collect();
        assert_eq!(line::commands(&escaped.join(" ")), [Some(words)]);
    }
}

/// The address of a request for the statistics.
pub fn address(bytes: &[u8]) {
    let Ok(uri) = std::str::from_utf8(bytes) else {
        return;
    };
    let options = Options::of(uri);
    // The page's link to itself asks for the same page.
    let again = Options::of(&options.link());
    let same = Options {
        kind: Kind::Page,
        since: None,
        ..options.clone()
    };
    assert_eq!(again, same, "{}", options.link());
    if let Ok(query) = Query::of(uri) {
        assert!(query.after.is_none() || uri.contains("after="));
    }
    assert_eq!(options.kind == Kind::Live, uri.contains(";live"));
}

/// A form of the page, and who sends it.
pub fn form(bytes: &[u8]) {
    stats::fuzz::form(bytes);
    stats::fuzz::sender(bytes);
}

/// What is given by name: servers, seeds, where to log and to listen.
pub fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    prints_as_it_reads::<Name>(text);
    prints_as_it_reads::<Seed>(text);
    prints_as_it_reads::<gossip::Key>(text);
    prints_as_it_reads::<syslog::Target>(text);
    prints_as_it_reads::<admin::Address>(text);
    prints_as_it_reads::<admin::client::Target>(text);
    admin::weight(text).ok();
}

fn prints_as_it_reads<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let printed = value.to_string();
        assert!(
            printed.parse().is_ok_and(|again: T| again == value),
            "{printed}"
        );
    }
}

/// A datagram of gossip.
pub fn packet(bytes: &[u8]) {
    gossip::fuzz::packet(bytes);
}

/// A frame of gossip over TCP.
pub fn frame(bytes: &[u8]) {
    gossip::fuzz::frame(bytes);
}

/// What is around a datagram, with a key and without.
pub fn envelope(bytes: &[u8]) {
    let wire = |keyring| gossip::bench::Wire::new("tidings".parse().expect("a name"), keyring);
    let key: gossip::Key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
        .parse()
        .expect("a key");
    let plain = wire(Keyring::default());
    let keyed = wire(std::iter::once(key).collect());
    if let Ok(body) = plain.open(bytes) {
        assert!(keyed.open(bytes).is_err(), "plain where there is a key");
        assert_eq!(plain.seal(&body).len(), bytes.len());
    }
    if bytes.len() > gossip::bench::LARGEST_BODY {
        return;
    }
    let mut sealed = keyed.seal(bytes);
    assert_eq!(keyed.open(&sealed).as_deref(), Ok(bytes));
    // One bit that is not as it was, anywhere.
    let at = bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % sealed.len();
    if let Some(byte) = sealed.get_mut(at) {
        *byte ^= 1;
    }
    assert!(keyed.open(&sealed).is_err());
}

/// What a connection from a proxy begins with.
pub fn proxy_header(bytes: &[u8]) {
    let read = |input: &[u8]| proxy_protocol::read(input);
    let Ok(Some((_, size))) = read(bytes) else {
        assert!(read(bytes) != Ok(None) || bytes.len() < proxy_protocol::MAX);
        return;
    };
    assert!(size <= proxy_protocol::MAX);
    // Seen when its last byte is there, not before, and whatever is behind it.
    assert_eq!(read(&bytes[..size]), read(bytes));
    for end in 0..size {
        assert_eq!(read(&bytes[..end]), Ok(None), "of {end} bytes");
    }
}

/// The X-Forwarded-For fields of a request, a line each.
pub fn forwarded_for(bytes: &[u8]) {
    let peer = [10, 0, 0, 9].into();
    let values = || bytes.split(|byte| *byte == b'\n');
    assert_eq!(
        proxy::source(peer, values(), &[]),
        peer,
        "nobody is believed"
    );
    let trusted = ["10.0.0.0/8", "fc00::/7"].map(|range| range.parse().expect("a range"));
    let source = proxy::source(peer, values(), &trusted);
    // Many values say the same as one with commas.
    let joined = values().collect::<Vec<_>>().join(&b", "[..]);
    assert_eq!(
        proxy::source(peer, [&*joined].into_iter(), &trusted),
        source
    );
}
