//! Frames on a TCP connection: a length, then an envelope as over UDP.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::wire::{DropReason, Envelope, Kind, MAX_FRAME, Opened};

/// The largest frame that is read without asking what it is for: it has room
/// for the greeting of a lifeline, and nobody fills the memory with these.
pub(super) const SMALL: usize = 512;

/// The bytes of a frame's length, which are sealed with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix([u8; 4]);

impl Prefix {
    pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Self> {
        let mut prefix = [0; 4];
        stream.read_exact(&mut prefix).await?;
        Ok(Self(prefix))
    }

    pub(super) fn length(self) -> usize {
        u32::from_be_bytes(self.0) as usize
    }
}

/// Reads a frame of at most `limit` bytes.
pub(super) async fn read(
    stream: &mut TcpStream,
    envelope: &Envelope,
    limit: usize,
) -> io::Result<Opened> {
    let prefix = Prefix::read(stream).await?;
    if prefix.length() > limit {
        return Err(refused(DropReason::Oversized));
    }
    read_rest(stream, envelope, prefix).await
}

/// Reads what follows the length.
pub(super) async fn read_rest(
    stream: &mut TcpStream,
    envelope: &Envelope,
    prefix: Prefix,
) -> io::Result<Opened> {
    let length = prefix.length();
    if length > MAX_FRAME {
        return Err(refused(DropReason::Oversized));
    }
    // Grows with what arrives, not with what the length claims.
    let mut frame = Vec::new();
    stream.take(length as u64).read_to_end(&mut frame).await?;
    if frame.len() != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    envelope.open_frame(prefix.0, &frame).map_err(refused)
}

pub(super) async fn write(
    stream: &mut TcpStream,
    envelope: &Envelope,
    kind: Kind,
    body: &[u8],
) -> io::Result<()> {
    let frame = envelope
        .seal_frame(kind, body)
        .ok_or_else(|| io::Error::other("the frame is too large"))?;
    stream.write_all(&frame).await
}

/// What arrived is dropped.
pub(super) fn refused(reason: DropReason) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Why what arrived was dropped; `None` where the connection failed.
pub(super) fn why_refused(error: &io::Error) -> Option<DropReason> {
    error.get_ref()?.downcast_ref().copied()
}
