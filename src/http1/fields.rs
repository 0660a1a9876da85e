//! Field lines (RFC 9112 §5), and the fields that a relay has to know.

use std::mem::MaybeUninit;

use super::{Length, Malformed};

/// The most fields a head may have. `HAProxy` has 101 (`tune.http.maxhdr`).
pub const MAX_FIELDS: usize = 100;

/// A field's name, as it was sent, and its value, without the space around it.
pub type Field<'b> = httparse::Header<'b>;

/// Room for the fields of a head.
pub(super) type Room<'b> = [MaybeUninit<Field<'b>>; MAX_FIELDS];

/// Makes such room: on the stack, untouched.
pub(super) const fn room<'b>() -> Room<'b> {
    [const { MaybeUninit::uninit() }; MAX_FIELDS]
}

/// The fields that mean something to whoever passes a message on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the field names")]
pub enum Known {
    Connection,
    ContentLength,
    Cookie,
    Date,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    ProxyAuthorization,
    ProxyConnection,
    SetCookie,
    Te,
    TransferEncoding,
    Upgrade,
    XForwardedFor,
    XForwardedHost,
    XForwardedPort,
    XForwardedProto,
    XRealIp,
    /// None of them.
    Other,
}

impl Known {
    /// Which field a name is. Names have no case (RFC 9110 §5.1).
    pub fn of(name: &str) -> Self {
        // The length tells nearly all of them apart from what is not known.
        let candidates: &[(&str, Self)] = match name.len() {
            2 => &[("te", Self::Te)],
            4 => &[("host", Self::Host), ("date", Self::Date)],
            6 => &[("cookie", Self::Cookie), ("expect", Self::Expect)],
            7 => &[("upgrade", Self::Upgrade)],
            9 => &[("forwarded", Self::Forwarded), ("x-real-ip", Self::XRealIp)],
            10 => &[
                ("connection", Self::Connection),
                ("set-cookie", Self::SetCookie),
                ("keep-alive", Self::KeepAlive),
            ],
            14 => &[("content-length", Self::ContentLength)],
            15 => &[("x-forwarded-for", Self::XForwardedFor)],
            16 => &[
                ("x-forwarded-port", Self::XForwardedPort),
                ("x-forwarded-host", Self::XForwardedHost),
                ("proxy-connection", Self::ProxyConnection),
            ],
            17 => &[
                ("transfer-encoding", Self::TransferEncoding),
                ("x-forwarded-proto", Self::XForwardedProto),
            ],
            19 => &[("proxy-authorization", Self::ProxyAuthorization)],
            _ => &[],
        };
        // The first letter nearly always tells the rest.
        let first = |name: &str| name.as_bytes().first().map(u8::to_ascii_lowercase);
        let found = candidates
            .iter()
            .filter(|(known, _)| first(known) == first(name))
            .find(|(known, _)| name.eq_ignore_ascii_case(known));
        found.map_or(Self::Other, |(_, known)| *known)
    }
}

/// A head's fields, and which of them are known.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'h, 'b> {
    all: &'h [Field<'b>],
    known: &'h [Known],
}

impl<'h, 'b> Fields<'h, 'b> {
    /// Finds out which are known; `room` is for the answer.
    pub(super) fn new(all: &'h [Field<'b>], room: &'h mut [Known; MAX_FIELDS]) -> Self {
        for (known, field) in room.iter_mut().zip(all) {
            *known = Known::of(field.name);
        }
        Self { all, known: room }
    }

    /// One after the other, as they came.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = (Known, &'h Field<'b>)> {
        self.known.iter().copied().zip(self.all)
    }

    /// The values of a known field.
    pub fn values(self, known: Known) -> impl DoubleEndedIterator<Item = &'b [u8]> + use<'h, 'b> {
        let of_name = self.iter().filter(move |(which, _)| *which == known);
        of_name.map(|(_, field)| field.value)
    }
}

/// What the `Connection` fields of a head say (RFC 9110 §7.6.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connection {
    /// The connection ends with this exchange.
    pub close: bool,
    /// HTTP/1.0: it shall not.
    pub keep_alive: bool,
    /// `Upgrade` is meant for us.
    pub upgrade: bool,
    /// Fields are named that go no further.
    pub nominates: bool,
}

impl Connection {
    /// Adds what one field says.
    fn read(&mut self, value: &[u8]) {
        for option in tokens(value) {
            match option {
                option if option.eq_ignore_ascii_case(b"close") => self.close = true,
                option if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                option if option.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                _ => self.nominates = true,
            }
        }
    }
}

/// The members of a list (RFC 9110 §5.6.1), the empty ones left out.
pub(super) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    all.filter(|token| !token.is_empty())
}

/// What all heads have in common: how long the body is, and what becomes of
/// the connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Survey {
    pub(super) connection: Connection,
    pub(super) coding: Coding,
    pub(super) length: Option<u64>,
}

/// What the `Transfer-Encoding` fields say, all of them together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Coding {
    /// There is none.
    #[default]
    None,
    /// `chunked`, alone.
    Chunked,
    /// `chunked` last, and other codings before it.
    ManyThenChunked,
    /// Others, which have no end that could be found (RFC 9112 §6.3).
    Endless,
    /// `chunked`, and something behind it.
    Broken,
}

impl Coding {
    /// With another one put on.
    fn and(self, coding: &[u8]) -> Self {
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        match self {
            Self::None if is_chunked => Self::Chunked,
            Self::None => Self::Endless,
            // Chunks in chunks.
            Self::Chunked | Self::ManyThenChunked => Self::Broken,
            Self::Endless if is_chunked => Self::ManyThenChunked,
            other => other,
        }
    }
}

impl Survey {
    /// Takes note of one field.
    pub(super) fn note(&mut self, known: Known, value: &[u8]) -> Result<(), Malformed> {
        match known {
            Known::Connection => self.connection.read(value),
            Known::TransferEncoding => self.note_coding(value),
            Known::ContentLength => {
                let before = self.length.replace(decimal(value)?);
                return match before {
                    Some(_) => Err(Malformed::Rule("several Content-Length fields")),
                    None => Ok(()),
                };
            }
            _ => {}
        }
        Ok(())
    }

    fn note_coding(&mut self, value: &[u8]) {
        // A place with nothing in it may hide something from other readers.
        let codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        self.coding = codings.fold(self.coding, Coding::and);
    }

    /// The length that the fields give, if they give any.
    pub(super) fn length(&self) -> Result<Option<Length>, Malformed> {
        match self.coding {
            Coding::None => Ok(self.length.map(Length::Exact)),
            // RFC 9112 §6.1: beside a transfer coding a length means nothing.
            Coding::Chunked => Ok(Some(Length::Chunked)),
            Coding::ManyThenChunked => Err(Malformed::UnknownCoding),
            Coding::Endless | Coding::Broken => Err(Malformed::Rule(
                "chunked is not the last coding, or there twice",
            )),
        }
    }
}

/// RFC 9110 §8.6: digits, and nothing else.
fn decimal(value: &[u8]) -> Result<u64, Malformed> {
    const INVALID: Malformed = Malformed::Rule("an invalid Content-Length");
    if value.is_empty() {
        return Err(INVALID);
    }
    value.iter().try_fold(0_u64, |sum, digit| {
        let digit = digit.wrapping_sub(b'0');
        let longer = sum
            .checked_mul(10)
            .and_then(|sum| sum.checked_add(digit.into()));
        longer.filter(|_| digit <= 9).ok_or(INVALID)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_case() {
        for (name, known) in [
            ("Connection", Known::Connection),
            ("CONTENT-LENGTH", Known::ContentLength),
            ("transfer-Encoding", Known::TransferEncoding),
            ("X-Forwarded-Proto", Known::XForwardedProto),
            ("x-forwarded-host", Known::XForwardedHost),
            ("X-Forwarded-Fox", Known::Other),
            ("X-Real-IP", Known::XRealIp),
            ("hosts", Known::Other),
            ("hose", Known::Other),
        ] {
            assert_eq!(Known::of(name), known, "{name}");
        }
    }

    #[test]
    fn a_length_is_digits_and_fits() {
        assert_eq!(decimal(b"0"), Ok(0));
        assert_eq!(decimal(b"00018446744073709551615"), Ok(u64::MAX));
        for bad in ["", "-1", "+1", "1 ", "0x1", "1,1", "18446744073709551616"] {
            assert!(decimal(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_chunked_alone_is_undone() {
        let survey = |values: &[&str]| {
            let mut survey = Survey::default();
            let mut all = values.iter().map(|value| value.as_bytes());
            all.try_for_each(|value| survey.note(Known::TransferEncoding, value))?;
            survey.length()
        };
        assert_eq!(survey(&["Chunked"]), Ok(Some(Length::Chunked)));
        assert_eq!(survey(&["gzip, chunked"]), Err(Malformed::UnknownCoding));
        assert_eq!(survey(&["gzip", "chunked"]), Err(Malformed::UnknownCoding));
        assert_eq!(survey(&[", chunked"]), Err(Malformed::UnknownCoding));
        for bad in [
            &["chunked, chunked"][..],
            &["chunked", "chunked"],
            &["chunked, gzip"],
            &["gzip"],
            &["chunked", "gzip"],
            &["gzip, chunked, gzip"],
            &["gzip, chunked, chunked"],
            &["chunked,"],
            &["\"chunked\""],
            &["xchunked"],
            &[""],
        ] {
            assert!(matches!(survey(bad), Err(Malformed::Rule(_))), "{bad:?}");
        }
    }
}
