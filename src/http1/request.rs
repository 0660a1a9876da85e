//! The head of a request (RFC 9112 §3).

use http::Method;

use super::{
    Length, Malformed, Parsed, Version, check_line_ends,
    fields::{self, Connection, Fields, Known, MAX_FIELDS, Survey, tokens},
    malformed,
};

/// A request's head, as it stands in the buffer it was read into.
#[derive(Debug)]
pub struct Request<'h, 'b> {
    /// Its method.
    pub method: Method,
    /// Its target, as it was sent: visible ASCII.
    pub target: &'b str,
    /// What the target means.
    pub form: Target<'b>,
    /// Its version.
    pub version: Version,
    /// Its fields.
    pub fields: Fields<'h, 'b>,
    /// What `Connection` says.
    pub connection: Connection,
    /// How long its body is.
    pub length: Length,
    /// It waits for 100 before it sends its body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// It takes trailers in its response (RFC 9110 §10.1.4).
    pub takes_trailers: bool,
    /// The protocol it asks for, where `Connection` goes with it.
    pub upgrade: Option<&'b [u8]>,
    /// It names its host.
    pub has_host: bool,
    /// Bytes of the head.
    pub size: usize,
}

/// The form of a request's target (RFC 9112 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'b> {
    /// A path, perhaps with a query.
    Origin,
    /// A whole URI: its authority, and its path, which is empty where there is
    /// none but perhaps a query.
    Absolute {
        /// The host, perhaps with a port.
        authority: &'b str,
        /// What stands behind it.
        path: &'b str,
    },
    /// `*`.
    Asterisk,
    /// A host and a port, for CONNECT.
    Authority,
}

impl<'b> Request<'_, 'b> {
    /// Reads the head at the beginning of `input` and hands it to `then`;
    /// `None` where it is not there in whole.
    pub fn read<T>(input: &'b [u8], then: impl FnOnce(&Request<'_, 'b>) -> T) -> Parsed<T> {
        let mut room = fields::room();
        let mut parsed = httparse::Request::new(&mut []);
        let size = match parsed
            .parse_with_uninit_headers(input, &mut room)
            .map_err(malformed)?
        {
            httparse::Status::Complete(size) => size,
            httparse::Status::Partial => return Ok(None),
        };
        check_line_ends(input.get(..size).unwrap_or_default())?;
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
            return Err(Malformed::Rule("no first line"));
        };
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| Malformed::Rule("an invalid method"))?;
        let form = form(&method, target)?;
        let mut known = [Known::Other; MAX_FIELDS];
        let mut request = Request {
            method,
            target,
            form,
            version: Version::new(parsed.version),
            fields: Fields::new(parsed.headers, &mut known),
            connection: Connection::default(),
            length: Length::None,
            expects_continue: false,
            takes_trailers: false,
            upgrade: None,
            has_host: false,
            size,
        };
        request.survey()?;
        Ok(Some(then(&request)))
    }

    fn survey(&mut self) -> Result<(), Malformed> {
        let mut survey = Survey::default();
        let mut upgrade = None;
        for (known, field) in self.fields.iter() {
            match known {
                Known::Host => {
                    if self.has_host {
                        return Err(Malformed::Rule("several Host fields"));
                    }
                    self.has_host = true;
                    let host = std::str::from_utf8(field.value);
                    check_host(host.map_err(|_| Malformed::Rule("an invalid host"))?)?;
                }
                Known::Expect => {
                    self.expects_continue |= field.value.eq_ignore_ascii_case(b"100-continue");
                }
                Known::Te => {
                    let trailers = |token: &[u8]| token.eq_ignore_ascii_case(b"trailers");
                    self.takes_trailers |= tokens(field.value).any(trailers);
                }
                Known::Upgrade => {
                    let h2c = tokens(field.value).any(|token| token.eq_ignore_ascii_case(b"h2c"));
                    // What follows h2c could not be read here any more, and
                    // could be anything: it is not passed on.
                    upgrade = Some(field.value).filter(|_| !h2c && upgrade.is_none());
                }
                _ => survey.note(known, field.value)?,
            }
        }
        self.connection = survey.connection;
        // RFC 9110 §7.8: not in HTTP/1.0.
        let may_upgrade = survey.connection.upgrade && self.version == Version::Http11;
        self.upgrade = upgrade.filter(|_| may_upgrade);
        self.length = survey.length()?.unwrap_or(Length::None);
        if self.length == Length::Chunked {
            if self.version == Version::Http10 {
                return Err(Malformed::Rule("Transfer-Encoding in HTTP/1.0"));
            }
            // RFC 9112 §6.1: may be refused, and no honest client does it.
            if survey.length.is_some() {
                return Err(Malformed::Rule("both a length and a transfer coding"));
            }
        }
        // RFC 9112 §3.2: exactly one in HTTP/1.1.
        if !self.has_host && self.version == Version::Http11 {
            return Err(Malformed::Rule("no Host"));
        }
        Ok(())
    }

    /// Whether something of its body is to come.
    pub fn has_body(&self) -> bool {
        !matches!(self.length, Length::None | Length::Exact(0))
    }

    /// Whether the client wants to ask again on its connection (RFC 9112 §9.3).
    pub fn keeps_alive(&self) -> bool {
        let wanted = match self.version {
            Version::Http11 => true,
            Version::Http10 => self.connection.keep_alive,
        };
        wanted && !self.connection.close
    }
}

fn form<'b>(method: &Method, target: &'b str) -> Result<Target<'b>, Malformed> {
    const INVALID: Malformed = Malformed::Rule("a target that is no path");
    if !target
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        return Err(Malformed::Rule("an invalid target"));
    }
    if *method == Method::CONNECT {
        return Ok(Target::Authority);
    }
    if target.starts_with('/') {
        return Ok(Target::Origin);
    }
    if target == "*" && *method == Method::OPTIONS {
        return Ok(Target::Asterisk);
    }
    let (scheme, rest) = target.split_once("://").ok_or(INVALID)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(INVALID);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).ok_or(INVALID)?;
    if authority.is_empty() {
        return Err(Malformed::Rule("a target without a host"));
    }
    check_host(authority)?;
    Ok(Target::Absolute { authority, path })
}

/// RFC 9110 §7.2: a host, perhaps with a port; RFC 3986 §3.2.2 says what a
/// host is. A comma is refused although it says otherwise: a server could take
/// what is behind it for another host.
fn check_host(host: &str) -> Result<(), Malformed> {
    const INVALID: Malformed = Malformed::Rule("an invalid host");
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, behind) = rest.split_once(']').ok_or(INVALID)?;
            let is_address = |byte: u8| byte.is_ascii_alphanumeric() || b":.".contains(&byte);
            if address.is_empty() || !address.bytes().all(is_address) {
                return Err(INVALID);
            }
            let port = match behind {
                "" => "",
                behind => behind.strip_prefix(':').ok_or(INVALID)?,
            };
            ("", port)
        }
        None if host.starts_with(':') => return Err(INVALID),
        None => host.split_once(':').unwrap_or((host, "")),
    };
    let may_stand = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' | b'%' => true,
        byte => b"!$&'()*+;=".contains(&byte),
    };
    if name.bytes().all(may_stand) && port.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(())
    } else {
        Err(INVALID)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(head: &str, then: impl FnOnce(&Request<'_, '_>) -> T) -> Parsed<T> {
        Request::read(head.as_bytes(), then)
    }

    fn with(fields: &str) -> String {
        format!("POST /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    }

    #[test]
    fn a_head_is_whole_or_is_waited_for() {
        let head = with("a: b\r\n");
        for end in 0..head.len() {
            let part = head.split_at(end).0;
            assert!(matches!(read(part, |_| ()), Ok(None)), "{end}");
        }
        assert_eq!(
            read(&format!("{head}more"), |head| head.size),
            Ok(Some(head.len()))
        );
    }

    #[test]
    fn a_body_is_as_long_as_its_fields_say() {
        for (fields, length) in [
            ("", Length::None),
            ("content-length: 0\r\n", Length::Exact(0)),
            ("Content-Length: 12\r\n", Length::Exact(12)),
            ("transfer-encoding: chunked\r\n", Length::Chunked),
        ] {
            let found = read(&with(fields), |head| head.length);
            assert_eq!(found, Ok(Some(length)), "{fields}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for head in [
            with("content-length: 5\r\ncontent-length: 5\r\n"),
            with("transfer-encoding: chunked\r\ncontent-length: 5\r\n"),
            with("content-length: 5\r\ntransfer-encoding: chunked\r\n"),
            with("content-length: 5, 5\r\n"),
            with("a: b\n"),
            with("a : b\r\n"),
            with("a: b\r\n c\r\n"),
            with("a: b\rc\r\n"),
            with("a: b\0c\r\n"),
            with("host: b\r\n"),
            "GET / HTTP/1.1\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n".to_owned(),
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: ::1\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n".to_owned(),
            "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
        ] {
            assert!(read(&head, |_| ()).is_err(), "{head:?}");
        }
    }

    #[test]
    fn a_host_may_have_any_of_its_forms() {
        for host in [
            "",
            "a",
            "a.b:80",
            "a:",
            "[::1]",
            "[::1]:81",
            "10.0.0.1:8080",
            "a_b-c~%20",
        ] {
            assert_eq!(check_host(host), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_whole_uri_is_an_authority_and_a_path() {
        for (target, authority, path) in [
            ("http://a/b?c", "a", "/b?c"),
            ("HTTPS://a:81", "a:81", ""),
            ("http://[::1]?d", "[::1]", "?d"),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
            let form = read(&head, |head| {
                head.form == Target::Absolute { authority, path }
            });
            assert_eq!(form, Ok(Some(true)), "{target}");
        }
    }

    #[test]
    fn a_protocol_is_asked_for_in_two_fields() {
        let upgrade = |fields: &str| {
            let found = read(&with(fields), |head| head.upgrade.map(<[u8]>::to_vec));
            found.unwrap().unwrap()
        };
        let asked = upgrade("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n");
        assert_eq!(asked.as_deref(), Some(&b"websocket"[..]));
        assert_eq!(upgrade("Upgrade: websocket\r\n"), None);
        assert_eq!(upgrade("Connection: upgrade\r\nUpgrade: h2c\r\n"), None);
    }

    #[test]
    fn a_connection_is_kept_as_the_versions_have_it() {
        for (head, kept) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n",
                false,
            ),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ] {
            let seen = read(head, |request| (request.keeps_alive(), request.size));
            assert_eq!(seen, Ok(Some((kept, head.len()))), "{head}");
        }
    }
}
