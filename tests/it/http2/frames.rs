//! Frames by hand (RFC 9113 §4, RFC 7541), right or wrong.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const ACK: u8 = 1;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first octet of a header block with this status (RFC 7541, A).
pub(super) const STATUS_200: u8 = 0x88;

/// A connection.
#[derive(Debug)]
pub(super) struct Raw {
    stream: TcpStream,
}

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Raw {
    /// Connects and says what comes first, with these settings.
    pub(super) fn connect(addr: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(addr).expect("it accepts");
        stream.set_nodelay(true).expect("a socket");
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).expect("a socket");
        let mut raw = Self { stream };
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        let begin = [PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat();
        raw.send(&begin).expect("it reads");
        raw
    }

    /// The server's end of a connection, with no settings.
    pub(super) fn accepted(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).expect("a socket");
        let mut raw = Self { stream };
        let mut preface = [0; PREFACE.len()];
        raw.stream.read_exact(&mut preface).expect("a preface");
        raw.send(&frame(SETTINGS, 0, 0, b"")).expect("it reads");
        raw
    }

    /// Reads a request's body to its end.
    pub(super) fn body(&mut self, stream: u32) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let data = self.wait_for(DATA, stream)?;
            body.extend(data.payload);
            if data.flags & END_STREAM != 0 {
                return Ok(body);
            }
        }
    }

    /// Sends bytes as they are.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Writes do not wait for longer than this, and little is received that
    /// nobody reads.
    pub(super) fn hurry(&mut self, limit: Duration) {
        let limit = Some(limit);
        self.stream.set_write_timeout(limit).expect("a socket");
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_recv_buffer_size(16 * 1024).expect("a socket");
    }

    /// The next frame. Pings and settings are acknowledged on the way.
    pub(super) fn next(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes(stream);
        if flags & ACK == 0 && (kind == PING || kind == SETTINGS) {
            let payload = if kind == PING { &payload[..] } else { &[] };
            self.send(&frame(kind, ACK, 0, payload)).ok();
        }
        Ok(Frame {
            kind,
            flags,
            stream,
            payload,
        })
    }

    /// Waits for a frame of that kind, on that stream.
    pub(super) fn wait_for(&mut self, kind: u8, stream: u32) -> io::Result<Frame> {
        loop {
            let frame = self.next()?;
            if frame.kind == kind && frame.stream == stream {
                return Ok(frame);
            }
        }
    }

    /// Waits until all that was sent has been read.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.send(&frame(PING, 0, 0, b"are you?"))?;
        loop {
            let frame = self.next()?;
            if frame.kind == PING && frame.flags & ACK != 0 {
                return Ok(());
            }
        }
    }

    /// All frames up to the end of the connection, and whether it came.
    pub(super) fn rest(&mut self) -> (Vec<Frame>, bool) {
        let mut frames = Vec::new();
        loop {
            match self.next() {
                Ok(frame) => frames.push(frame),
                Err(err) => {
                    let waited = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
                    return (frames, !waited.contains(&err.kind()));
                }
            }
        }
    }
}

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let [_, a, b, c] = length.to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field that is neither indexed nor Huffman-coded (RFC 7541 §6.2.2).
pub(super) fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        integer(&mut field, 0x7f, text.len());
        field.extend(text);
    }
    field
}

/// The same, which goes into the dynamic table (RFC 7541 §6.2.1).
pub(super) fn indexed_field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = field(name, value);
    field[0] = 0x40;
    field
}

/// RFC 7541 §5.1.
fn integer(to: &mut Vec<u8>, most: usize, number: usize) {
    if number < most {
        to.push(number as u8);
        return;
    }
    to.push(most as u8);
    let mut rest = number - most;
    while rest >= 128 {
        to.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    to.push(rest as u8);
}

/// The fields of a request.
pub(super) fn request(method: &str, path: &str) -> Vec<u8> {
    let fields = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
    ];
    let fields = fields.map(|(name, value)| field(name.as_bytes(), value.as_bytes()));
    fields.concat()
}
