//! Responses compressed for clients that want it (`--compression`): text
//! alone, and never what is encoded already. What is left as it is, and what a
//! response says instead, follows RFC 9110 §8.4 and §12.5 and the rules of
//! `HAProxy` (`compression`) and tower-http.

use std::{
    fmt,
    io::{self, Write},
    str::FromStr,
};

use brotli::CompressorWriter;
use flate2::write::GzEncoder;
use http::{Method, StatusCode};

use super::ledger::Ledger;
use crate::http1::{Known, Length, Response};

/// Below this it is not worth it: a packet is sent all the same.
const WORTH_IT: u64 = 1024;

/// How hard they try. A proxy compresses the same page for everybody anew:
/// these cost about as much time as gzip's 6, where nginx has 1.
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: u32 = 4;
const ZSTD_LEVEL: i32 = 3;

/// The windows, as powers of two: they are what a response costs in memory.
const BROTLI_WINDOW: u32 = 18;
const ZSTD_WINDOW: u32 = 18;

/// A way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// As in `Accept-Encoding` and `Content-Encoding`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

impl FromStr for Coding {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "gzip" => Ok(Self::Gzip),
            "br" => Ok(Self::Brotli),
            "zstd" => Ok(Self::Zstd),
            _ => Err("expected gzip, br or zstd, or several as in zstd,br,gzip"),
        }
    }
}

/// What becomes of a response's content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Coded {
    /// Nothing.
    #[default]
    AsItIs,
    /// Nothing for this client, and something for others.
    ForOthers,
    /// It is compressed.
    By(Coding),
}

/// The one of `offered` that the client likes best (RFC 9110 §12.5.3); among
/// equals the first that is offered.
pub(super) fn choose(offered: &[Coding], accepted: &str) -> Option<Coding> {
    let mut best = None;
    for coding in offered {
        let weight = weight(accepted, coding.as_str());
        if weight > best.map_or(0, |(_, best)| best) {
            best = Some((*coding, weight));
        }
    }
    best.map(|(coding, _)| coding)
}

/// A coding's weight, in thousandths. One that is not named has that of `*`.
fn weight(accepted: &str, coding: &str) -> u16 {
    let mut any = 0;
    for member in accepted.split(',') {
        let mut parts = member.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts
            .find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")))
            .map_or(Some(1.0), |weight| weight.parse::<f32>().ok());
        let weight = weight.filter(|weight| (0.0..=1.0).contains(weight));
        let weight = (weight.unwrap_or(0.0) * 1000.0) as u16;
        if name.eq_ignore_ascii_case(coding) {
            return weight;
        }
        if name == "*" {
            any = weight;
        }
    }
    any
}

/// Whether a response can be compressed: it is text, whole, and as its server
/// made it.
pub(super) fn is_worth_it(response: &Response<'_, '_>, method: &Method) -> bool {
    let long_enough = match response.length {
        Length::None => false,
        Length::Exact(bytes) => bytes >= WORTH_IT,
        Length::Chunked | Length::UntilClose => true,
    };
    let whole = matches!(
        response.status,
        // HAProxy's: what else there is is small or about a part.
        StatusCode::OK
            | StatusCode::CREATED
            | StatusCode::ACCEPTED
            | StatusCode::NON_AUTHORITATIVE_INFORMATION
    );
    let mut text = false;
    for (known, field) in response.fields.iter() {
        if known != Known::Other {
            continue;
        }
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("content-encoding") || is("content-range") {
            return false;
        }
        // RFC 9110 §7.7.
        if is("cache-control") && contains(field.value, "no-transform") {
            return false;
        }
        if is("content-type") {
            text = is_text(field.value);
        }
    }
    text && long_enough && whole && *method != Method::HEAD
}

/// Media types that shrink. Streams of events are left alone: each is to
/// arrive at once.
fn is_text(content_type: &[u8]) -> bool {
    let media_type = content_type.split(|byte| *byte == b';').next();
    let media_type = media_type.unwrap_or_default().trim_ascii();
    let media_type = media_type.to_ascii_lowercase();
    let Ok(media_type) = std::str::from_utf8(&media_type) else {
        return false;
    };
    if media_type == "text/event-stream" {
        return false;
    }
    let textual = [
        "application/json",
        "application/javascript",
        "application/xml",
        "application/wasm",
        "application/manifest+json",
        "image/svg+xml",
    ];
    media_type.starts_with("text/")
        || textual.contains(&media_type)
        || media_type.ends_with("+json")
        || media_type.ends_with("+xml")
}

fn contains(value: &[u8], token: &str) -> bool {
    let mut tokens = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    tokens.any(|found| found.eq_ignore_ascii_case(token.as_bytes()))
}

/// RFC 9110 §8.8.1: another form of the same is equal, and not the same.
pub(super) fn weak(etag: &[u8]) -> Vec<u8> {
    if etag.starts_with(b"W/") {
        etag.to_vec()
    } else {
        [b"W/", etag].concat()
    }
}

/// A response's body on its way through a compressor.
pub(super) struct Compressor {
    to: Encoder,
    ledger: Ledger,
    /// Something went in that has not come out yet.
    holds: bool,
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    /// Nothing has gone in. It is counted in the ledger.
    pub(super) fn new(coding: Coding, ledger: &Ledger) -> io::Result<Self> {
        let out = Vec::new();
        let to = match coding {
            Coding::Gzip => {
                Encoder::Gzip(GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL)))
            }
            Coding::Brotli => {
                let writer = CompressorWriter::new(out, 4096, BROTLI_QUALITY, BROTLI_WINDOW);
                Encoder::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
                encoder.window_log(ZSTD_WINDOW)?;
                Encoder::Zstd(encoder)
            }
        };
        ledger.all().compressed.inc();
        Ok(Self {
            to,
            ledger: ledger.clone(),
            holds: false,
        })
    }

    /// Takes a piece of the body; gives what comes out of it, if anything does.
    pub(super) fn write(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        self.holds |= !piece.is_empty();
        self.ledger.all().compressed_in.add(piece.len() as u64);
        self.writer().write_all(piece)?;
        Ok(self.take())
    }

    /// Gives all that is to be had of what went in: whoever waits for it waits
    /// for nothing more.
    pub(super) fn flush(&mut self) -> io::Result<Vec<u8>> {
        self.holds = false;
        self.writer().flush()?;
        Ok(self.take())
    }

    /// Whether a flush would bring something.
    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// The end.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        let rest = match self.to {
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Brotli(writer) => Ok(writer.into_inner()),
            Encoder::Zstd(encoder) => encoder.finish(),
        }?;
        self.ledger.all().compressed_out.add(rest.len() as u64);
        Ok(rest)
    }

    fn writer(&mut self) -> &mut dyn Write {
        match &mut self.to {
            Encoder::Gzip(encoder) => encoder,
            Encoder::Brotli(writer) => writer,
            Encoder::Zstd(encoder) => encoder,
        }
    }

    fn take(&mut self) -> Vec<u8> {
        let out = std::mem::take(match &mut self.to {
            Encoder::Gzip(encoder) => encoder.get_mut(),
            Encoder::Brotli(writer) => writer.get_mut(),
            Encoder::Zstd(encoder) => encoder.get_mut(),
        });
        self.ledger.all().compressed_out.add(out.len() as u64);
        out
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, sync::Arc};

    use super::*;
    use crate::counters::Slot;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    #[test]
    fn a_client_gets_what_it_likes_best_and_the_first_among_equals() {
        for (accepted, coding) in [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip;q=1.0, zstd;q=0.5", Some(Coding::Gzip)),
            ("GZIP", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("zstd;q=0, *;q=0.1", Some(Coding::Brotli)),
            ("identity", None),
            ("gzip;q=0", None),
            ("br;q=2, gzip;q=x", None),
            ("", None),
        ] {
            assert_eq!(choose(&ALL, accepted), coding, "{accepted}");
        }
    }

    #[test]
    fn only_whole_text_that_is_not_encoded_is_worth_it() {
        let is_worth_it = |first: &str, fields: &str, method| {
            let head = format!("HTTP/1.1 {first}\r\n{fields}\r\n\r\n");
            let read = Response::read(head.as_bytes(), &method, |response| {
                is_worth_it(response, &method)
            });
            read.unwrap().expect("a whole head")
        };
        let html = "content-length: 5000\r\ncontent-type: text/html; charset=utf-8";
        assert!(is_worth_it("200 OK", html, Method::GET));
        assert!(!is_worth_it("200 OK", html, Method::HEAD));
        assert!(!is_worth_it("206 Partial Content", html, Method::GET));
        assert!(!is_worth_it("404 Not Found", html, Method::GET));
        for no in [
            "content-encoding: gzip",
            "content-range: bytes 0-1/2",
            "cache-control: public, no-transform",
        ] {
            assert!(
                !is_worth_it("200 OK", &format!("{html}\r\n{no}"), Method::GET),
                "{no}"
            );
        }
        for (fields, worth) in [
            ("content-length: 1023\r\ncontent-type: text/html", false),
            (
                "transfer-encoding: chunked\r\ncontent-type: text/html",
                true,
            ),
            (
                "content-length: 5000\r\ncontent-type: application/ld+json",
                true,
            ),
            (
                "content-length: 5000\r\ncontent-type: text/event-stream",
                false,
            ),
            ("content-length: 5000\r\ncontent-type: image/png", false),
            ("content-length: 5000", false),
        ] {
            assert_eq!(
                is_worth_it("200 OK", fields, Method::GET),
                worth,
                "{fields}"
            );
        }
    }

    #[test]
    fn what_comes_out_is_what_went_in_and_a_flush_holds_nothing_back() {
        for coding in ALL {
            let ledger = Ledger::new(Slot::new(0), Arc::default());
            let mut compressor = Compressor::new(coding, &ledger).unwrap();
            let text = "the same line again and again\n".repeat(500);
            let mut out = compressor.write(text.as_bytes()).unwrap();
            assert!(compressor.holds());
            out.extend(compressor.flush().unwrap());
            assert!(!compressor.holds());
            let mut early = vec![0; text.len()];
            let read = decoder(coding, &out).read_exact(&mut early);
            assert!(
                read.is_ok() && early == text.as_bytes(),
                "{coding:?}: flushed"
            );
            out.extend(compressor.write(b"the end").unwrap());
            out.extend(compressor.finish().unwrap());
            let mut whole = String::new();
            decoder(coding, &out).read_to_string(&mut whole).unwrap();
            assert_eq!(whole, format!("{text}the end"), "{coding:?}");
            assert!(out.len() < text.len() / 5, "{coding:?}: {}", out.len());
            let counted = ledger.all();
            assert_eq!(counted.compressed.get(), 1);
            assert_eq!(counted.compressed_in.get(), whole.len() as u64);
            assert_eq!(counted.compressed_out.get(), out.len() as u64);
        }
    }

    fn decoder<'a>(coding: Coding, bytes: &'a [u8]) -> Box<dyn Read + 'a> {
        match coding {
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            Coding::Brotli => Box::new(brotli::Decompressor::new(bytes, 4096)),
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        }
    }
}
