//! Reads messages by the letter of RFC 9112, so that what a lenient reader
//! would take for another message is seen for what it is, and writes them in
//! one form that can be compared.

/// A whole message.
#[derive(Debug)]
pub(super) struct Message {
    /// The first line as it came.
    pub(super) first_line: Vec<u8>,
    /// The fields in their order, the names in lower case.
    pub(super) fields: Vec<(String, Vec<u8>)>,
    /// The body without its framing.
    pub(super) content: Vec<u8>,
    /// How many bytes it took.
    pub(super) length: usize,
}

/// Why there is no whole message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// So far it is one, and more has to come.
    Incomplete,
    /// It breaks this rule.
    Malformed(&'static str),
}

use Trouble::{Incomplete, Malformed};

/// Where a body ends if no field says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// At once, as a request's does.
    AsFramed,
    /// At once, whatever the fields say.
    Never,
    /// With its connection, which has ended.
    UntilClose,
}

/// Fields that frame or route: in a trailer section they are an attack
/// (RFC 9110 §6.5.1).
const NEVER_TRAILERS: [&str; 4] = ["content-length", "host", "transfer-encoding", "cookie"];

impl Message {
    /// Reads the first message of these bytes.
    pub(super) fn read(bytes: &[u8], body: Body) -> Result<Self, Trouble> {
        let mut rest = bytes;
        let first_line = line(&mut rest)?.to_vec();
        let fields = fields(&mut rest)?;
        let values = |name: &str| -> Vec<&[u8]> {
            let of_name = fields.iter().filter(|(field, _)| field == name);
            of_name.map(|(_, value)| value.as_slice()).collect()
        };
        let content = match (
            body,
            values("transfer-encoding").as_slice(),
            values("content-length").as_slice(),
        ) {
            (Body::Never, _, _) | (Body::AsFramed, [], []) => Vec::new(),
            (_, [coding], []) if coding.eq_ignore_ascii_case(b"chunked") => chunks(&mut rest)?,
            (_, [], [length]) => {
                let length = decimal(length).ok_or(Malformed("not a length"))?;
                take(&mut rest, length)?.to_vec()
            }
            (Body::UntilClose, [], []) => std::mem::take(&mut rest).to_vec(),
            _ => return Err(Malformed("ambiguous framing")),
        };
        Ok(Self {
            first_line,
            fields,
            content,
            length: bytes.len() - rest.len(),
        })
    }

    /// The message as text: its first line, its fields by name, an empty line
    /// and the content. Fields of one name keep their order (RFC 9110 §5.3).
    pub(super) fn text(&self) -> Vec<u8> {
        let mut fields: Vec<&(String, Vec<u8>)> = self.fields.iter().collect();
        fields.sort_by_key(|(name, _)| name);
        let mut text = self.first_line.clone();
        for (name, value) in fields {
            text.extend_from_slice(format!("\n{name}: ").as_bytes());
            text.extend_from_slice(value);
        }
        text.extend_from_slice(b"\n\n");
        text.extend_from_slice(&self.content);
        text
    }

    /// The second word of the first line: a request's target, a response's
    /// status.
    pub(super) fn second_word(&self) -> String {
        let word = self.first_line.split(|byte| *byte == b' ').nth(1);
        String::from_utf8_lossy(word.unwrap_or_default()).into_owned()
    }

    /// The first value of that name.
    pub(super) fn value(&self, name: &str) -> Option<&[u8]> {
        let of_name = self.fields.iter().find(|(field, _)| field == name);
        of_name.map(|(_, value)| value.as_slice())
    }
}

/// Text as a table has it, with its fields in the order of [`Message::text`].
/// An empty line before no content may be left out.
pub(super) fn sorted(text: &[u8]) -> Vec<u8> {
    let (head, content) = match text.windows(2).position(|two| two == b"\n\n") {
        Some(end) => (&text[..end], &text[end + 2..]),
        None => (text, &b""[..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let mut fields: Vec<&[u8]> = lines.collect();
    fields.sort_by_key(|field| field.split(|byte| *byte == b':').next());
    let mut lines = vec![first];
    lines.extend(fields);
    [&lines.join(&b'\n'), &b"\n\n"[..], content].concat()
}

/// A line without its end.
fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Trouble> {
    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let line = &rest[..end.ok_or(Incomplete)?];
    match rest[line.len()..] {
        [b'\r'] => Err(Incomplete),
        [b'\r', b'\n', ref after @ ..] => {
            *rest = after;
            Ok(line)
        }
        _ => Err(Malformed("a CR or LF alone")),
    }
}

/// Fields up to the empty line.
fn fields(rest: &mut &[u8]) -> Result<Vec<(String, Vec<u8>)>, Trouble> {
    let mut fields = Vec::new();
    loop {
        let line = line(rest)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or(Malformed("a field without a colon"))?);
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(Malformed("a field's name"));
        }
        let value = trim(&value[1..]);
        if value.iter().any(|byte| is_control(*byte)) {
            return Err(Malformed("a control byte in a field"));
        }
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        fields.push((name, value.to_vec()));
    }
}

fn chunks(rest: &mut &[u8]) -> Result<Vec<u8>, Trouble> {
    let mut content = Vec::new();
    loop {
        let size = line(rest)?;
        let digits = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit);
        let size = std::str::from_utf8(size).ok().filter(|_| digits);
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.ok_or(Malformed("a chunk's size"))?;
        if size == 0 {
            break;
        }
        content.extend_from_slice(take(rest, size)?);
        if !line(rest)?.is_empty() {
            return Err(Malformed("a chunk longer than its size"));
        }
    }
    let trailers = fields(rest)?;
    let forbidden = |(name, _): &(String, _)| NEVER_TRAILERS.contains(&name.as_str());
    if trailers.iter().any(forbidden) {
        return Err(Malformed("a trailer that frames or routes"));
    }
    Ok(content)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Trouble> {
    let (taken, after) = rest.split_at_checked(length).ok_or(Incomplete)?;
    *rest = after;
    Ok(taken)
}

fn decimal(digits: &[u8]) -> Option<usize> {
    let all_digits = digits.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| all_digits);
    digits?.parse().ok()
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}
