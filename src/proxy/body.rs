//! Bodies on their way through: framed anew, counted, never held.

use std::{
    borrow::Cow,
    cell::Cell,
    future::poll_fn,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

use super::{
    buffer::{Buffer, SMALL},
    heads, pieces,
    watch::Watch,
};
use crate::http1::{
    Length,
    chunked::{self, Decoder, SIZE_LINE},
};

/// A body that is read, and how far it has come.
#[derive(Debug)]
pub(super) struct Body {
    rest: Rest,
    over: bool,
}

#[derive(Debug)]
enum Rest {
    /// So many bytes are to come.
    Exact(u64),
    /// The coding tells.
    Chunks(Box<Decoder>),
    /// All that comes belongs to it.
    UntilClose,
}

/// The part of a body that stands at the beginning of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    /// Bytes of the body.
    data: usize,
    /// Bytes that are used up with them.
    taken: usize,
}

impl Body {
    /// A body that has not begun.
    pub(super) fn new(length: Length) -> Self {
        let rest = match length {
            Length::None => Rest::Exact(0),
            Length::Exact(bytes) => Rest::Exact(bytes),
            Length::Chunked => Rest::Chunks(Box::default()),
            Length::UntilClose => Rest::UntilClose,
        };
        let over = matches!(rest, Rest::Exact(0));
        Self { rest, over }
    }

    /// Whether it has been read to its end.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Reads over what is there of it. Says whether it ends there.
    pub(super) fn skip(&mut self, input: &mut Buffer) -> bool {
        while !self.over && !input.is_empty() {
            match self.next(input) {
                Ok(piece) => input.consume(piece.taken),
                Err(_) => return false,
            }
        }
        self.over
    }

    /// What is there of it and can go along with its head: of a body with a
    /// length, which need not be decoded.
    pub(super) fn beginning<'b>(&self, input: &'b Buffer) -> &'b [u8] {
        match self.rest {
            Rest::Exact(left) => {
                let there = input.filled();
                there.get(..at_most(left)).unwrap_or(there)
            }
            Rest::Chunks(_) | Rest::UntilClose => &[],
        }
    }

    /// So much of the beginning has gone along.
    pub(super) fn begun(&mut self, input: &mut Buffer, bytes: usize) {
        if let Rest::Exact(left) = &mut self.rest {
            *left = left.saturating_sub(bytes as u64);
            self.over = *left == 0;
            input.consume(bytes);
        }
    }

    /// Finds the piece at the beginning of what is there, and counts it read.
    fn next(&mut self, input: &mut Buffer) -> Result<Piece, chunked::Malformed> {
        let there = input.filled().len();
        match &mut self.rest {
            Rest::Exact(left) => {
                let data = at_most(*left).min(there);
                *left -= data as u64;
                self.over = *left == 0;
                Ok(Piece { data, taken: data })
            }
            Rest::UntilClose => Ok(Piece {
                data: there,
                taken: there,
            }),
            Rest::Chunks(decoder) => {
                let decoded = decoder.decode(input.filled_mut())?;
                self.over = decoded.ended;
                Ok(Piece {
                    data: decoded.data,
                    taken: decoded.taken,
                })
            }
        }
    }

    /// Whether the end of the connection is its end.
    fn ends_with_connection(&self) -> bool {
        matches!(self.rest, Rest::UntilClose)
    }

    /// Whether more is to come than a small buffer holds.
    fn is_large(&self) -> bool {
        matches!(self.rest, Rest::Exact(left) if left > SMALL as u64)
    }

    fn trailers(&self) -> &[u8] {
        match &self.rest {
            Rest::Chunks(decoder) => decoder.trailers(),
            Rest::Exact(_) | Rest::UntilClose => &[],
        }
    }
}

fn at_most(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX)
}

/// How a body is framed on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// As it is: its length was told, or the connection's end will tell.
    Plain,
    /// In chunks; whether trailers may follow.
    Chunks { trailers: bool },
}

/// Why a body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Whoever sends it is gone.
    Sender,
    /// Whoever is to get it is gone.
    Receiver,
    /// It is not coded as it says.
    Malformed,
    /// Its sender said nothing for too long.
    Stalled,
}

/// A body's way from one connection to the other.
#[derive(Debug)]
pub(super) struct Relay<'a, W> {
    /// The body.
    pub(super) body: &'a mut Body,
    /// What was read of it, and of what is behind it.
    pub(super) input: &'a mut Buffer,
    /// Where it goes.
    pub(super) to: &'a mut W,
    /// How it is framed there.
    pub(super) framing: Framing,
    /// What goes out before it: a head, or nothing.
    pub(super) first: &'a mut Vec<u8>,
    /// Bytes of it that have gone out.
    pub(super) count: &'a Cell<u64>,
    /// The client's watch, where it is the client that gets it.
    pub(super) watch: Option<&'a Watch>,
}

impl<W: AsyncWrite + Unpin> Relay<'_, W> {
    /// Passes on what is there, then what `read` brings, to the end.
    pub(super) async fn run(
        &mut self,
        mut read: impl FnMut(&mut Context<'_>, &mut Buffer) -> Poll<Result<usize, Broken>>,
    ) -> Result<(), Broken> {
        // So much came at a time that more is to be expected.
        let mut comes_in_bulk = false;
        loop {
            if self.body.over || !self.input.is_empty() {
                self.pass_on().await?;
                if self.body.over {
                    self.input.settle();
                    return Ok(());
                }
            } else if !self.first.is_empty() {
                self.write(0, b"").await?;
            }
            if comes_in_bulk || self.body.is_large() {
                self.input.enlarge();
            }
            let input = &mut *self.input;
            if poll_fn(|cx| read(cx, input)).await? == 0 {
                return self.end_with_connection().await;
            }
            comes_in_bulk = self.input.is_full();
        }
    }

    async fn pass_on(&mut self) -> Result<(), Broken> {
        if self.body.over {
            return self.write(0, b"").await;
        }
        let piece = self.body.next(self.input).map_err(|_| Broken::Malformed)?;
        let behind = self.behind(piece);
        if self.framing != Framing::Plain && piece.data > 0 {
            let mut line = [0; SIZE_LINE];
            let line = chunked::size_line(piece.data, &mut line);
            self.first.extend_from_slice(line);
        }
        self.write(piece.data, &behind).await?;
        self.input.consume(piece.taken);
        Ok(())
    }

    /// What the framing puts behind a piece.
    fn behind(&self, piece: Piece) -> Cow<'static, [u8]> {
        let Framing::Chunks { trailers } = self.framing else {
            return Cow::Borrowed(b"");
        };
        let end: &[u8] = if piece.data > 0 { b"\r\n" } else { b"" };
        match (self.body.over, trailers && !self.body.trailers().is_empty()) {
            (false, _) if piece.data > 0 => Cow::Borrowed(b"\r\n"),
            (false, _) => Cow::Borrowed(b""),
            (true, false) if piece.data > 0 => Cow::Borrowed(b"\r\n0\r\n\r\n"),
            (true, false) => Cow::Borrowed(chunked::LAST),
            (true, true) => {
                let mut behind = [end, b"0\r\n"].concat();
                heads::write_trailers(self.body.trailers(), &mut behind);
                behind.extend_from_slice(b"\r\n");
                Cow::Owned(behind)
            }
        }
    }

    /// Nothing more comes.
    async fn end_with_connection(&mut self) -> Result<(), Broken> {
        if !self.body.ends_with_connection() {
            return Err(Broken::Sender);
        }
        self.body.over = true;
        if self.framing != Framing::Plain {
            self.first.extend_from_slice(chunked::LAST);
        }
        self.write(0, b"").await
    }

    async fn write(&mut self, data: usize, behind: &[u8]) -> Result<(), Broken> {
        let piece = self.input.filled().get(..data).unwrap_or_default();
        let written = pieces::write(self.to, self.first, piece, behind, self.watch).await;
        written.map_err(|_| Broken::Receiver)?;
        self.count.set(self.count.get() + data as u64);
        Ok(())
    }
}
