//! The PROXY protocol, versions 1 and 2: how a proxy tells whom a connection
//! comes from, before the first byte of what it carries
//! (<https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt>, whose
//! sections are named here). Pure.

use std::net::{IpAddr, SocketAddr};

/// The longest header of version 1, with its line end (§2.1).
pub const MAX_V1: usize = 107;

/// The longest header of version 2 that is taken: 16 bytes and 4 KiB of
/// addresses and TLVs, where the format knows 64 KiB. The largest that are
/// known of are a tenth of that.
pub const MAX_V2: usize = V2_FIXED + 4096;

/// The longest header.
pub const MAX: usize = MAX_V2;

/// What version 2 begins with (§2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const V1_BEGINNING: &[u8] = b"PROXY ";
/// Bytes of version 2 before its addresses.
const V2_FIXED: usize = 16;
/// The TLV that has the header's checksum, `PP2_TYPE_CRC32C` (§2.2.3).
const CRC32C: u8 = 0x03;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The socket's own addresses count: the proxy speaks for itself (`LOCAL`,
    /// as health checks do), or does not know, or for a family that is no IP.
    Local,
    /// Somebody's connection that the proxy passes on.
    Proxied {
        /// Who connected to the proxy.
        source: SocketAddr,
        /// Where to.
        destination: SocketAddr,
    },
}

/// The versions of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// Bytes.
    V2,
}

/// Why something is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

/// Reads the header at the beginning of `input`, and says how many bytes it
/// has; `None` where more of it has to come. What can be no header is told as
/// soon as it can be seen, so `None` is only ever said of fewer than [`MAX`]
/// bytes.
pub fn read(input: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    if begins(input, V1_BEGINNING) {
        read_v1(input)
    } else if begins(input, &SIGNATURE) {
        read_v2(input)
    } else {
        Err(Malformed("no PROXY header"))
    }
}

/// Whether `input` begins like this, as far as it goes.
fn begins(input: &[u8], like: &[u8]) -> bool {
    input.iter().zip(like).all(|(byte, like)| byte == like)
}

fn read_v1(input: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let there = input.get(..MAX_V1).unwrap_or(input);
    let end = there.iter().position(|byte| !matches!(byte, b' '..=b'~'));
    let Some(end) = end else {
        return if there.len() == MAX_V1 {
            Err(Malformed("a line of more than 107 bytes"))
        } else {
            Ok(None)
        };
    };
    let (line, rest) = there.split_at(end);
    match rest {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if there.len() < MAX_V1 => return Ok(None),
        _ => return Err(Malformed("a line that does not end with CR LF")),
    }
    let line = line.strip_prefix(V1_BEGINNING);
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let header = line.and_then(line_v1);
    let header = header.ok_or(Malformed("a line that is not as version 1 has it"))?;
    Ok(Some((header, end + 2)))
}

/// What stands behind `PROXY` in version 1.
fn line_v1(line: &str) -> Option<Header> {
    // What stands behind UNKNOWN means nothing (§2.1).
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Some(Header::Local);
    }
    let mut words = line.split(' ');
    let family = words.next()?;
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse().ok().map(IpAddr::V4),
            "TCP6" => word.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (address()?, address()?);
    let (from, to) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then_some(Header::Proxied {
        source: (source, from).into(),
        destination: (destination, to).into(),
    })
}

/// Digits without a sign and without a zero in front.
fn port(word: &str) -> Option<u16> {
    let canonical = word == "0" || word.starts_with(|first| matches!(first, '1'..='9'));
    word.parse().ok().filter(|_| canonical)
}

fn read_v2(input: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let Some(behind) = input.get(SIGNATURE.len()..) else {
        return Ok(None);
    };
    // Each is looked at as soon as it is there.
    let command = match behind.first() {
        None => return Ok(None),
        Some(0x20) => Command::Local,
        Some(0x21) => Command::Proxy,
        Some(_) => return Err(Malformed("an unknown version or command")),
    };
    let Some((fixed, _)) = behind.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let [_, family, high, low] = *fixed;
    let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_V2 {
        return Err(Malformed("more than 4 KiB of addresses and TLVs"));
    }
    let Some(whole) = input.get(..length) else {
        return Ok(None);
    };
    let header = match command {
        // §2.2: the block is discarded, its family ignored.
        Command::Local => Header::Local,
        Command::Proxy => proxied_v2(whole, family)?,
    };
    Ok(Some((header, length)))
}

/// The commands of version 2.
#[derive(Clone, Copy)]
enum Command {
    Local,
    Proxy,
}

/// The addresses of a whole header of version 2 that was sent for somebody.
fn proxied_v2(whole: &[u8], family: u8) -> Result<Header, Malformed> {
    const SHORT: Malformed = Malformed("too few bytes for the addresses");
    let block = whole.get(V2_FIXED..).ok_or(SHORT)?;
    let (header, tlvs) = match family {
        0x11 => addresses::<4>(block).ok_or(SHORT)?,
        0x21 => addresses::<16>(block).ok_or(SHORT)?,
        // Datagrams over IP, whose addresses are as long: no stream has them.
        0x12 => (Header::Local, block.get(12..).ok_or(SHORT)?),
        0x22 => (Header::Local, block.get(36..).ok_or(SHORT)?),
        // Unix sockets have no address that anyone here could use.
        0x31 | 0x32 => (Header::Local, block.get(216..).ok_or(SHORT)?),
        // Unspecified: how long the addresses are nobody knows.
        0x00 => return Ok(Header::Local),
        _ => return Err(Malformed("an unknown family or protocol")),
    };
    check_tlvs(whole, tlvs)?;
    Ok(header)
}

/// Two addresses of `N` bytes and two ports, and what stands behind them.
fn addresses<const N: usize>(block: &[u8]) -> Option<(Header, &[u8])>
where
    IpAddr: From<[u8; N]>,
{
    let (source, block) = block.split_first_chunk::<N>()?;
    let (destination, block) = block.split_first_chunk::<N>()?;
    let (from, block) = block.split_first_chunk()?;
    let (to, tlvs) = block.split_first_chunk()?;
    let header = Header::Proxied {
        source: (IpAddr::from(*source), u16::from_be_bytes(*from)).into(),
        destination: (IpAddr::from(*destination), u16::from_be_bytes(*to)).into(),
    };
    Some((header, tlvs))
}

/// Type, length, value, to the last byte; and the checksum, if there is one
/// (§2.2.3 has whoever reads it check it).
fn check_tlvs(whole: &[u8], mut tlvs: &[u8]) -> Result<(), Malformed> {
    while !tlvs.is_empty() {
        const SHORT: Malformed = Malformed("a TLV that is longer than the header");
        let (&[kind, high, low], rest) = tlvs.split_first_chunk::<3>().ok_or(SHORT)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest.split_at_checked(length).ok_or(SHORT)?;
        if kind == CRC32C {
            let behind = value.len() + rest.len();
            check_sum(whole, value, whole.len() - behind)?;
        }
        tlvs = rest;
    }
    Ok(())
}

/// Checks the sum that stands at an index of the header: it was made with
/// zeros in its own place.
fn check_sum(whole: &[u8], said: &[u8], at: usize) -> Result<(), Malformed> {
    const WRONG: Malformed = Malformed("a wrong checksum");
    let said: [u8; 4] = said.try_into().map_err(|_| WRONG)?;
    let place = at..at + said.len();
    let blanked = whole.iter().enumerate();
    let blanked = blanked.map(|(at, byte)| if place.contains(&at) { 0 } else { *byte });
    let sum = crc32c(blanked);
    (sum == u32::from_be_bytes(said)).then_some(()).ok_or(WRONG)
}

/// CRC-32C (RFC 3720 §B.4), bit by bit: it is asked for once a connection, of
/// some hundred bytes, and by few.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let sum = bytes.fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            let odd = sum & 1 == 1;
            (sum >> 1) ^ if odd { 0x82f6_3b78 } else { 0 }
        })
    });
    !sum
}

impl Header {
    /// The header for somebody's connection. Both addresses are of one family
    /// in it: IPv4 where both are, in whichever notation, and IPv6 otherwise.
    pub fn proxied(source: SocketAddr, destination: SocketAddr) -> Self {
        let [from, to] = [source, destination].map(|addr| addr.ip().to_canonical());
        let [from, to] = match (from, to) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => [from, to],
            (from, to) => [from, to].map(|ip| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
                ip @ IpAddr::V6(_) => ip,
            }),
        };
        Self::Proxied {
            source: (from, source.port()).into(),
            destination: (to, destination.port()).into(),
        }
    }

    /// Its bytes in that version.
    pub fn write(self, version: Version) -> Vec<u8> {
        match version {
            Version::V1 => self.write_v1(),
            Version::V2 => self.write_v2(),
        }
    }

    fn write_v1(self) -> Vec<u8> {
        let Self::Proxied {
            source,
            destination,
        } = self
        else {
            return b"PROXY UNKNOWN\r\n".to_vec();
        };
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to) = (source.ip(), destination.ip());
        let ports = (source.port(), destination.port());
        format!("PROXY {family} {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes()
    }

    fn write_v2(self) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        let Self::Proxied {
            source,
            destination,
        } = self
        else {
            bytes.extend([0x20, 0, 0, 0]);
            return bytes;
        };
        let fixed = if source.is_ipv4() {
            [0x21, 0x11, 0, 12]
        } else {
            [0x21, 0x21, 0, 36]
        };
        bytes.extend(fixed);
        for addr in [source, destination] {
            match addr.ip() {
                IpAddr::V4(ip) => bytes.extend(ip.octets()),
                IpAddr::V6(ip) => bytes.extend(ip.octets()),
            }
        }
        bytes.extend(source.port().to_be_bytes());
        bytes.extend(destination.port().to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests;
