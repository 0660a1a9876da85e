//! HTTP/1.1 on the wire (RFC 9112): heads, the length of messages, chunks.
//! Pure, and strict: what two readers could read differently is refused.
//! Tokens are found by `httparse`; what they mean is decided here.

pub mod chunked;
mod fields;
mod request;
mod response;

pub use self::{
    fields::{Connection, Field, Fields, Known, MAX_FIELDS},
    request::{Request, Target},
    response::Response,
};

/// The minor version of a message; the major one is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0, whose connections end with their response unless asked.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl Version {
    fn new(minor: Option<u8>) -> Self {
        match minor {
            Some(0) => Self::Http10,
            _ => Self::Http11,
        }
    }

    /// As in a message's first line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}

/// How far a message's body goes (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// There is none, whatever the fields say.
    None,
    /// So many bytes.
    Exact(u64),
    /// Chunks tell.
    Chunked,
    /// To the end of the connection; responses only.
    UntilClose,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It breaks a rule.
    #[error("{0}")]
    Rule(&'static str),
    /// It has more than [`MAX_FIELDS`] fields.
    #[error("too many fields")]
    TooManyFields,
    /// Its body is coded in a way that nobody here can undo.
    #[error("unknown transfer coding")]
    UnknownCoding,
}

/// A head that is not there in whole yet, or is.
type Parsed<T> = Result<Option<T>, Malformed>;

fn malformed(error: httparse::Error) -> Malformed {
    Malformed::Rule(match error {
        httparse::Error::TooManyHeaders => return Malformed::TooManyFields,
        httparse::Error::HeaderName => "an invalid field name",
        httparse::Error::HeaderValue => "an invalid field value",
        httparse::Error::NewLine => "an invalid line end",
        httparse::Error::Status => "an invalid status",
        httparse::Error::Token => "an invalid first line",
        httparse::Error::Version => "an unknown version",
    })
}

/// RFC 9112 §2.2 lets a recipient take a bare LF for the end of a line. One
/// that does not may see another message: none is passed on.
fn check_line_ends(head: &[u8]) -> Result<(), Malformed> {
    let mut ends = memchr::memchr_iter(b'\n', head);
    let is_whole =
        |at: usize| at.checked_sub(1).and_then(|before| head.get(before)) == Some(&b'\r');
    if ends.all(is_whole) {
        Ok(())
    } else {
        Err(Malformed::Rule("a line that ends in LF alone"))
    }
}
