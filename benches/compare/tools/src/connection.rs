//! One connection that never blocks.

use std::{
    borrow::Cow,
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
};

/// How much is read at once.
pub const BUFFER: usize = 64 * 1024;

/// What a read gave.
#[derive(Debug)]
pub enum Received {
    /// So many bytes, and there may be more.
    More(usize),
    /// So many bytes, and that was all: an edge will tell of the next.
    Last(usize),
    /// Nothing.
    Nothing,
    /// The other end has closed.
    Closed,
}

/// A connection, and what the kernel did not yet take of what is sent on it.
#[derive(Debug)]
pub struct Connection {
    pub stream: TcpStream,
    rest: Cow<'static, [u8]>,
    sent: usize,
}

impl Connection {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            rest: Cow::Borrowed(&[]),
            sent: 0,
        })
    }

    /// Sends what lives as long as the program; nothing is copied.
    pub fn send(&mut self, bytes: &'static [u8]) -> io::Result<()> {
        let written = self.write(bytes)?;
        self.keep(Cow::Borrowed(&bytes[written..]));
        Ok(())
    }

    /// Sends anything; what the kernel does not take at once is copied.
    pub fn relay(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.write(bytes)?;
        if written < bytes.len() {
            self.keep(Cow::Owned(bytes[written..].to_vec()));
        }
        Ok(())
    }

    fn keep(&mut self, rest: Cow<'static, [u8]>) {
        assert!(!self.is_waiting(), "sent before the last was out");
        self.rest = rest;
        self.sent = 0;
    }

    /// Whether something still waits for the kernel to take it.
    pub fn is_waiting(&self) -> bool {
        self.sent < self.rest.len()
    }

    /// Goes on sending; true when all is out.
    pub fn flush(&mut self) -> io::Result<bool> {
        if self.is_waiting() {
            let rest = std::mem::take(&mut self.rest);
            let written = self.write(&rest[self.sent..]);
            self.rest = rest;
            self.sent += written?;
        }
        Ok(!self.is_waiting())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        match self.stream.read(buffer) {
            Ok(0) => Ok(Received::Closed),
            Ok(count) if count == buffer.len() => Ok(Received::More(count)),
            Ok(count) => Ok(Received::Last(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(error) => Err(error),
        }
    }
}
