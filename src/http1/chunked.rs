//! The chunked transfer coding (RFC 9112 §7.1). Pure.
//!
//! Where a body ends decides where the next message begins, so whoever reads
//! the same bytes otherwise than the other end can be made to take a request
//! for a body, or a body for a request. Reading is therefore strict:
//!
//! - A line ends with CRLF, never with a bare LF; a CR stands nowhere else.
//! - A size has 1 to [`SIZE_DIGITS`] hexadecimal digits and nothing before
//!   or between them. (HAProxy stops at 13 digits.)
//! - Extensions are dropped. They hold no control byte but HTAB and are
//!   bounded, or else they would be a free ride beside every counted byte, as
//!   in CVE-2023-39326.
//! - The trailer section is bounded and made of field lines, none of them
//!   folded.
//!
//! In one point it is more lenient than the grammar, which has blanks only
//! beside extensions: spaces and tabs may follow the size of any chunk. Some
//! old servers pad their sizes with them, and both HAProxy
//! (`h1_parse_chunk_size`, which reads `1*HEXDIGIT *WSP *[ ';' extensions ]
//! CRLF`) and hyper take them. Here they are bounded, and dropped.

/// Digits of a chunk's size at most: those of a `u64`, leading zeros included.
pub const SIZE_DIGITS: u8 = 16;
/// Spaces and tabs behind the size of a chunk at most.
pub const PADDING_LIMIT: usize = 16;
/// Bytes of extensions at most in one chunk, from the first `;` on.
pub const CHUNK_EXTENSIONS_LIMIT: usize = 256;
/// Bytes of extensions at most in one body.
pub const BODY_EXTENSIONS_LIMIT: usize = 4 * 1024;
/// Bytes of the trailer section at most, without the empty line.
pub const TRAILERS_LIMIT: usize = 8 * 1024;
/// Field lines of the trailer section at most; as many as hyper takes.
pub const TRAILERS_LINES: usize = 100;

/// The last chunk and an empty trailer section: the end of a chunked body.
pub const LAST: &[u8] = b"0\r\n\r\n";

/// Bytes that [`size_line`] needs at most.
pub const SIZE_LINE: usize = usize::BITS as usize / 4 + 2;

/// Writes the size line of a chunk: `len` in lower-case hexadecimal digits, and
/// CRLF. Returns the part of `into` that was used.
///
/// `len` is the number of bytes of data, which follow and are themselves
/// followed by CRLF. It is not 0: that chunk ends the body, see [`LAST`].
pub fn size_line(len: usize, into: &mut [u8; SIZE_LINE]) -> &[u8] {
    let [digits @ .., cr, lf] = &mut *into;
    (*cr, *lf) = (b'\r', b'\n');
    let mut start = digits.len();
    let mut rest = len;
    for place in digits.iter_mut().rev() {
        *place = match (rest & 0xf) as u8 {
            digit @ 0..=9 => b'0' + digit,
            letter => b'a' + (letter - 10),
        };
        start -= 1;
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    into.split_at(start).1
}

/// What is wrong with a body. Nothing behind that point can be understood, so
/// the connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the size of a chunk is not 1 to {SIZE_DIGITS} hexadecimal digits")]
    Size,
    #[error("more than {PADDING_LIMIT} blanks follow the size of a chunk")]
    Padding,
    #[error("a chunk extension has a control byte")]
    Extension,
    #[error(
        "chunk extensions are longer than {CHUNK_EXTENSIONS_LIMIT} bytes in a chunk \
         or {BODY_EXTENSIONS_LIMIT} in the body"
    )]
    ExtensionsTooLong,
    #[error("a line of the chunked coding does not end with CRLF")]
    LineEnd,
    #[error("the data of a chunk is not followed by CRLF")]
    DataEnd,
    #[error("the trailer section is longer than {TRAILERS_LIMIT} bytes")]
    TrailersTooLong,
    #[error("the trailer section is not made of field lines: {0}")]
    Trailers(httparse::Error),
}

/// What one call of [`Decoder::decode`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that were taken: all, unless the body ended earlier.
    pub taken: usize,
    /// Bytes of data among them, which now stand at the input's beginning.
    pub data: usize,
    /// The last chunk and the trailer section are behind us.
    pub ended: bool,
}

/// Undoes the coding of one body, in place. A new one stands before the first
/// chunk.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    /// Bytes of extensions in all chunks so far.
    extensions: usize,
    /// The trailer section as far as it was received.
    trailers: Vec<u8>,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy)]
enum State {
    Size {
        size: u64,
        digits: u8,
    },
    Padding {
        size: u64,
        len: usize,
    },
    Extension {
        size: u64,
        len: usize,
    },
    SizeLf {
        size: u64,
    },
    /// `left` is not 0.
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    Trailers,
    TrailersLf,
    Ended,
    Broken(Malformed),
}

impl Decoder {
    /// Takes the next piece of the body, which may have been cut anywhere.
    ///
    /// The data in it is moved to the front of `input`, in order and without
    /// gaps; between it and `taken`, `input` then holds nothing of use. Bytes
    /// behind the end of the body stay where they are and are not taken.
    ///
    /// # Errors
    /// When the body is not well-formed. The data in this piece is lost, and
    /// every further piece is refused for the same reason.
    pub fn decode(&mut self, input: &mut [u8]) -> Result<Decoded, Malformed> {
        let (mut taken, mut data) = (0, 0);
        while let Some(&byte) = input.get(taken) {
            let next = match self.state {
                State::Data { left } => {
                    let run = left.min((input.len() - taken) as u64);
                    self.state = match left - run {
                        0 => State::DataCr,
                        left => State::Data { left },
                    };
                    let run = run as usize;
                    if data < taken {
                        input.copy_within(taken..taken + run, data);
                    }
                    taken += run;
                    data += run;
                    continue;
                }
                State::Ended => break,
                State::Size { size, digits } => self.size(size, digits, byte),
                State::Padding { size, len } => self.after_size(size, len, byte),
                State::Extension { size, len } => self.extension(size, len, byte),
                State::SizeLf { size } => match (byte, size) {
                    (b'\n', 0) => Ok(State::Trailers),
                    (b'\n', left) => Ok(State::Data { left }),
                    _ => Err(Malformed::LineEnd),
                },
                State::DataCr if byte == b'\r' => Ok(State::DataLf),
                State::DataLf if byte == b'\n' => Ok(State::default()),
                State::DataCr | State::DataLf => Err(Malformed::DataEnd),
                State::Trailers => self.trailer(byte),
                State::TrailersLf if byte == b'\n' => self.trailer_ended(),
                State::TrailersLf => Err(Malformed::LineEnd),
                State::Broken(why) => Err(why),
            };
            self.state = next.unwrap_or_else(State::Broken);
            next?;
            taken += 1;
        }
        Ok(Decoded {
            taken,
            data,
            ended: matches!(self.state, State::Ended),
        })
    }

    /// The trailer section as received: field lines with their CRLF, without
    /// the empty line. Complete, and found to be well-formed, once the body
    /// [`ended`](Decoded::ended); empty if there was none.
    ///
    /// Which fields may stand there (RFC 9110 §6.5.1) is not looked at.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    fn size(&mut self, size: u64, digits: u8, byte: u8) -> Result<State, Malformed> {
        match char::from(byte).to_digit(16) {
            Some(digit) if digits < SIZE_DIGITS => Ok(State::Size {
                size: size << 4 | u64::from(digit),
                digits: digits + 1,
            }),
            None if digits > 0 => self.after_size(size, 0, byte),
            _ => Err(Malformed::Size),
        }
    }

    /// Behind the digits of the size and `padding` blanks.
    fn after_size(&mut self, size: u64, padding: usize, byte: u8) -> Result<State, Malformed> {
        match byte {
            b'\r' => Ok(State::SizeLf { size }),
            b'\n' => Err(Malformed::LineEnd),
            b';' => self.extension(size, 0, byte),
            b' ' | b'\t' if padding < PADDING_LIMIT => Ok(State::Padding {
                size,
                len: padding + 1,
            }),
            b' ' | b'\t' => Err(Malformed::Padding),
            _ => Err(Malformed::Size),
        }
    }

    /// Behind `len` bytes of this chunk's extensions.
    fn extension(&mut self, size: u64, len: usize, byte: u8) -> Result<State, Malformed> {
        match byte {
            b'\r' => return Ok(State::SizeLf { size }),
            b'\n' => return Err(Malformed::LineEnd),
            b'\t' => {}
            _ if byte.is_ascii_control() => return Err(Malformed::Extension),
            _ => {}
        }
        if len == CHUNK_EXTENSIONS_LIMIT || self.extensions == BODY_EXTENSIONS_LIMIT {
            return Err(Malformed::ExtensionsTooLong);
        }
        self.extensions += 1;
        Ok(State::Extension { size, len: len + 1 })
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Malformed> {
        match byte {
            b'\r' => Ok(State::TrailersLf),
            b'\n' => Err(Malformed::LineEnd),
            // The line's CRLF has to fit too.
            _ if self.trailers.len() + 3 > TRAILERS_LIMIT => Err(Malformed::TrailersTooLong),
            _ => {
                self.trailers.push(byte);
                Ok(State::Trailers)
            }
        }
    }

    /// At the end of a line of the trailer section; an empty one ends the body.
    fn trailer_ended(&mut self) -> Result<State, Malformed> {
        let fields = self.trailers.len();
        let last = self.trailers.is_empty() || self.trailers.ends_with(b"\r\n");
        self.trailers.extend_from_slice(b"\r\n");
        if !last {
            return Ok(State::Trailers);
        }
        if fields > 0 {
            let mut room = [httparse::EMPTY_HEADER; TRAILERS_LINES];
            httparse::parse_headers(&self.trailers, &mut room).map_err(Malformed::Trailers)?;
        }
        self.trailers.truncate(fields);
        Ok(State::Ended)
    }
}

impl Default for State {
    /// Before the size of a chunk.
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    /// What became of a body.
    #[derive(Debug, PartialEq, Eq)]
    struct Read {
        data: Vec<u8>,
        trailers: Vec<u8>,
        taken: usize,
        ended: bool,
    }

    /// Decodes `wire` in pieces of these lengths, over and over. Whatever comes,
    /// no more is taken than was given, all is taken until the end, and what
    /// stands behind the end is not touched.
    fn read(wire: &[u8], pieces: &[usize]) -> Result<Read, Malformed> {
        let mut decoder = Decoder::default();
        let (mut data, mut taken, mut ended) = (Vec::new(), 0, false);
        let mut pieces = pieces.iter().cycle();
        while taken < wire.len() && !ended {
            let rest = &wire[taken..];
            let given = &rest[..rest.len().min(*pieces.next().unwrap())];
            let mut buffer = given.to_vec();
            let decoded = decoder.decode(&mut buffer)?;
            assert!(decoded.data <= decoded.taken && decoded.taken <= given.len());
            assert!(decoded.ended || decoded.taken == given.len());
            assert_eq!(&buffer[decoded.taken..], &given[decoded.taken..]);
            data.extend_from_slice(&buffer[..decoded.data]);
            taken += decoded.taken;
            ended = decoded.ended;
        }
        let trailers = decoder.trailers().to_vec();
        Ok(Read {
            data,
            trailers,
            taken,
            ended,
        })
    }

    fn whole(wire: &[u8]) -> Result<Read, Malformed> {
        read(wire, &[wire.len().max(1)])
    }

    /// Bodies, their data and their trailer sections.
    const GOOD: &[(&str, &str, &str)] = &[
        ("0\r\n\r\n", "", ""),
        ("000\r\n\r\n", "", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "abc", ""),
        ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789", ""),
        ("a\r\n0123456789\r\n0\r\n\r\n", "0123456789", ""),
        ("0000000000000001\r\na\r\n0\r\n\r\n", "a", ""),
        ("5\r\n\r\n0\r\n\r\n0\r\n\r\n", "\r\n0\r\n", ""),
        ("5;\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("5;a=b\r\nhello\r\n0;c\r\n\r\n", "hello", ""),
        ("5 ;\ta=\"b;é c\"\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("5 \t\r\nhello\r\n0  \r\n\r\n", "hello", ""),
        ("0\r\na: b\r\n\r\n", "", "a: b\r\n"),
        ("1\r\nx\r\n0\r\na:b\r\nc:\r\n\r\n", "x", "a:b\r\nc:\r\n"),
        ("0\r\na: é \t b\r\n\r\n", "", "a: é \t b\r\n"),
    ];

    /// Bodies that end with the byte at which the fault shows.
    const BAD: &[(&str, Malformed)] = &[
        ("\r", Malformed::Size),
        ("\n", Malformed::Size),
        (" ", Malformed::Size),
        ("-", Malformed::Size),
        ("+", Malformed::Size),
        (";", Malformed::Size),
        ("0x", Malformed::Size),
        ("5g", Malformed::Size),
        ("5_", Malformed::Size),
        ("5,", Malformed::Size),
        ("5\0", Malformed::Size),
        ("5\u{b}", Malformed::Size),
        ("5 1", Malformed::Size),
        ("5\t5", Malformed::Size),
        ("5 x", Malformed::Size),
        ("00000000000000000", Malformed::Size),
        ("10000000000000000", Malformed::Size),
        ("5                 ", Malformed::Padding),
        ("5\n", Malformed::LineEnd),
        ("5 \n", Malformed::LineEnd),
        ("5\rh", Malformed::LineEnd),
        ("5\r\r", Malformed::LineEnd),
        ("5;a\n", Malformed::LineEnd),
        ("5;a\rb", Malformed::LineEnd),
        ("5;a\r\r", Malformed::LineEnd),
        ("5;a\0", Malformed::Extension),
        ("5;a\u{1f}", Malformed::Extension),
        ("5;a\u{7f}", Malformed::Extension),
        ("5\r\nhello0", Malformed::DataEnd),
        ("5\r\nhello\n", Malformed::DataEnd),
        ("5\r\nhello\r0", Malformed::DataEnd),
        ("5\r\nhello\r\r", Malformed::DataEnd),
        ("5\r\nhello\r\n\r", Malformed::Size),
        ("1\r\na\r\n1\r\nb\r\n0\n", Malformed::LineEnd),
        ("0\r\n\n", Malformed::LineEnd),
        ("0\r\n\r0", Malformed::LineEnd),
        ("0\r\na: b\n", Malformed::LineEnd),
        ("0\r\na: b\rc", Malformed::LineEnd),
        ("0\r\na: b\r\n\n", Malformed::LineEnd),
        (
            "0\r\na\r\n\r\n",
            Malformed::Trailers(httparse::Error::HeaderName),
        ),
        (
            "0\r\n: b\r\n\r\n",
            Malformed::Trailers(httparse::Error::HeaderName),
        ),
        (
            "0\r\n a: b\r\n\r\n",
            Malformed::Trailers(httparse::Error::HeaderName),
        ),
        (
            "0\r\na : b\r\n\r\n",
            Malformed::Trailers(httparse::Error::HeaderName),
        ),
        (
            "0\r\na: b\r\n c\r\n\r\n",
            Malformed::Trailers(httparse::Error::HeaderName),
        ),
        (
            "0\r\na: b\r\n\tc: d\r\n\r\n",
            Malformed::Trailers(httparse::Error::HeaderName),
        ),
        (
            "0\r\na: b\0c\r\n\r\n",
            Malformed::Trailers(httparse::Error::HeaderValue),
        ),
        (
            "0\r\na\0: b\r\n\r\n",
            Malformed::Trailers(httparse::Error::HeaderName),
        ),
        (
            "0\r\nGET / HTTP/1.1\r\na: b\r\n\r\n",
            Malformed::Trailers(httparse::Error::HeaderName),
        ),
    ];

    #[test]
    fn a_good_body_is_read_up_to_its_end_wherever_it_is_cut() {
        for &(body, data, trailers) in GOOD {
            let wire = [body, "GET / HTTP/1.1\r\n\r\n"].concat();
            let expected = Ok(Read {
                data: data.into(),
                trailers: trailers.into(),
                taken: body.len(),
                ended: true,
            });
            assert_eq!(whole(wire.as_bytes()), expected, "{body:?}");
            for cut in 1..body.len() {
                let read = read(wire.as_bytes(), &[cut, wire.len()]);
                assert_eq!(read, expected, "{body:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_fault_shows_at_its_byte_wherever_the_body_is_cut() {
        for &(body, fault) in BAD {
            let wire = body.as_bytes();
            let before = whole(&wire[..wire.len() - 1]);
            assert!(before.is_ok_and(|read| !read.ended), "{body:?}");
            for cut in 1..=wire.len() {
                let read = read(wire, &[cut, wire.len()]);
                assert_eq!(read, Err(fault), "{body:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_body_cut_short_has_not_ended() {
        for &(body, ..) in GOOD {
            for len in 0..body.len() {
                let read = whole(&body.as_bytes()[..len]).unwrap();
                assert!(!read.ended && read.taken == len, "{body:?} up to {len}");
            }
        }
    }

    #[test]
    fn nothing_is_taken_after_the_end() {
        let mut decoder = Decoder::default();
        assert!(decoder.decode(&mut LAST.to_vec()).unwrap().ended);
        let after = decoder.decode(&mut b"5\r\nhello".to_vec()).unwrap();
        let expected = Decoded {
            taken: 0,
            data: 0,
            ended: true,
        };
        assert_eq!(after, expected);
    }

    #[test]
    fn a_fault_stays() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&mut b"x".to_vec()), Err(Malformed::Size));
        assert_eq!(decoder.decode(&mut LAST.to_vec()), Err(Malformed::Size));
    }

    #[test]
    fn the_greatest_size_is_that_of_a_u64() {
        let mut decoder = Decoder::default();
        let decoded = decoder.decode(&mut b"ffffffffffffffff\r\nhello".to_vec());
        assert!(decoded.is_ok_and(|decoded| decoded.data == 5 && !decoded.ended));
        assert_eq!(whole(b"ffffffffffffffff0"), Err(Malformed::Size));
    }

    #[test]
    fn padding_is_bounded_in_a_chunk() {
        let body = |padding| format!("1{}\r\na\r\n", " ".repeat(padding)).repeat(1000);
        let read = whole(body(PADDING_LIMIT).as_bytes());
        assert!(read.is_ok_and(|read| read.data.len() == 1000));
        assert_eq!(
            whole(body(PADDING_LIMIT + 1).as_bytes()),
            Err(Malformed::Padding)
        );
    }

    #[test]
    fn extensions_are_bounded_in_a_chunk_and_in_a_body() {
        let chunk = |extensions| format!("1;{}\r\na\r\n", "x".repeat(extensions - 1));
        let longest = chunk(CHUNK_EXTENSIONS_LIMIT);
        let most = longest.repeat(BODY_EXTENSIONS_LIMIT / CHUNK_EXTENSIONS_LIMIT);
        assert!(whole(most.as_bytes()).is_ok());
        for body in [chunk(CHUNK_EXTENSIONS_LIMIT + 1), most + &chunk(1)] {
            assert_eq!(whole(body.as_bytes()), Err(Malformed::ExtensionsTooLong));
        }
    }

    #[test]
    fn the_trailer_section_is_bounded() {
        let body = |len: usize| format!("0\r\na:{}\r\n\r\n", "x".repeat(len - 4));
        let read = whole(body(TRAILERS_LIMIT).as_bytes()).unwrap();
        assert_eq!(read.trailers.len(), TRAILERS_LIMIT);
        assert!(read.ended);
        let over = whole(body(TRAILERS_LIMIT + 1).as_bytes());
        assert_eq!(over, Err(Malformed::TrailersTooLong));

        let lines = |count| format!("0\r\n{}\r\n", "a:b\r\n".repeat(count));
        assert!(whole(lines(TRAILERS_LINES).as_bytes()).is_ok_and(|read| read.ended));
        let over = whole(lines(TRAILERS_LINES + 1).as_bytes());
        assert_eq!(
            over,
            Err(Malformed::Trailers(httparse::Error::TooManyHeaders))
        );
    }

    #[test]
    fn a_size_line_has_the_least_digits() {
        for len in [0, 1, 9, 10, 15, 16, 255, 256, 0x00ab_cdef, usize::MAX] {
            let mut room = [0; SIZE_LINE];
            let line = size_line(len, &mut room);
            assert_eq!(line, format!("{len:x}\r\n").as_bytes());
        }
    }

    /// Codes `data` in chunks of these lengths, over and over, without its end.
    /// What stands between size and CRLF is taken from `adornments`.
    fn code(data: &[u8], chunks: &[usize], adornments: &[&str]) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut rest = data;
        let mut room = [0; SIZE_LINE];
        for (&len, adornment) in chunks.iter().cycle().zip(adornments.iter().cycle()) {
            if rest.is_empty() {
                break;
            }
            let (chunk, others) = rest.split_at(len.min(rest.len()));
            let size = size_line(chunk.len(), &mut room).trim_ascii_end();
            for part in [size, adornment.as_bytes(), b"\r\n", chunk, b"\r\n"] {
                wire.extend_from_slice(part);
            }
            rest = others;
        }
        wire
    }

    fn pieces() -> impl Strategy<Value = Vec<usize>> {
        prop_oneof![vec(1..4_usize, 1..20), vec(1..600_usize, 1..20)]
    }

    fn chunks() -> impl Strategy<Value = Vec<usize>> {
        prop_oneof![vec(1..20_usize, 1..8), vec(1..2000_usize, 1..8)]
    }

    proptest! {
        #[test]
        fn any_data_comes_back(
            // So few that extensions of every byte stay within their limit.
            data in vec(any::<u8>(), 0..1300),
            chunks in chunks(),
            adornments in vec(select(&["", " ", "\t ", ";", " ; a"][..]), 1..4),
            trailers in select(&["", "a: b\r\n", "a: b\r\nc: d\r\n"][..]),
            after in vec(any::<u8>(), 0..20),
            pieces in pieces(),
        ) {
            let mut wire = code(&data, &chunks, &adornments);
            for part in ["0\r\n", trailers, "\r\n"] {
                wire.extend_from_slice(part.as_bytes());
            }
            let taken = wire.len();
            wire.extend_from_slice(&after);
            let trailers = trailers.into();
            prop_assert_eq!(
                read(&wire, &pieces),
                Ok(Read { data, trailers, taken, ended: true })
            );
        }

        #[test]
        fn any_bytes_read_the_same_however_they_are_cut(
            wire in prop_oneof![
                vec(any::<u8>(), 0..300),
                vec(select(&b"012aF;= \t\r\n:\0"[..]), 0..60),
                vec(select(&["1", "0", "\r\n", "\r", "\n", "1\r\na\r\n", "0\r\n", ";x", " ", "a: b"][..]), 0..30)
                    .prop_map(|words| words.concat().into_bytes()),
            ],
            pieces in pieces(),
        ) {
            prop_assert_eq!(read(&wire, &pieces), whole(&wire));
        }

        #[test]
        fn any_fault_is_found_behind_any_data(
            data in vec(any::<u8>(), 0..500),
            chunks in chunks(),
            bad in select(BAD),
            after in vec(any::<u8>(), 0..20),
            pieces in pieces(),
        ) {
            let (bad, fault) = bad;
            let wire = [&code(&data, &chunks, &[""]), bad.as_bytes(), &after].concat();
            prop_assert_eq!(read(&wire, &pieces), Err(fault));
        }
    }
}
