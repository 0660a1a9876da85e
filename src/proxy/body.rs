//! Bodies on their way through: framed anew, counted, never held.

use std::{
    borrow::Cow,
    cell::Cell,
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::{
    buffer::{Buffer, SMALL},
    compress::Compressor,
    heads,
    pieces::{self, Taker},
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
    /// A piece was taken and is still in the buffer: what stands there must
    /// not be read as anything else, should its way end here.
    torn: bool,
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
        Self {
            rest,
            over,
            torn: false,
        }
    }

    /// Whether it has been read to its end.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether a piece of it has gone out in part.
    pub(super) fn is_torn(&self) -> bool {
        self.torn
    }

    /// Reads over what is there of it. Says whether it ends there, and what is
    /// behind it can be the next request.
    pub(super) fn skip(&mut self, input: &mut Buffer) -> bool {
        if self.torn {
            return false;
        }
        while !self.over && !input.is_empty() {
            match self.take(input) {
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

    /// Takes the piece at the beginning of what is there; it counts as read.
    fn take(&mut self, input: &mut Buffer) -> Result<Piece, chunked::Malformed> {
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

    /// Takes out the piece at the beginning of what is there.
    pub(super) fn take_out(&mut self, input: &mut Buffer) -> Result<Bytes, chunked::Malformed> {
        let piece = self.take(input)?;
        let there = input.filled().get(..piece.data).unwrap_or_default();
        let data = Bytes::copy_from_slice(there);
        input.consume(piece.taken);
        Ok(data)
    }

    /// Whether the end of the connection is its end.
    pub(super) fn ends_with_connection(&self) -> bool {
        matches!(self.rest, Rest::UntilClose)
    }

    /// Whether more is to come than a small buffer holds.
    fn is_large(&self) -> bool {
        matches!(self.rest, Rest::Exact(left) if left > SMALL as u64)
    }

    /// The trailers that came, once it is over.
    pub(super) fn trailers(&self) -> &[u8] {
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
    /// Who gets it.
    pub(super) taker: Taker<'a>,
    /// What it goes through on its way, if anything; it is in chunks then.
    pub(super) compressor: Option<Compressor>,
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
            if self.next(&mut read).await? == 0 {
                return self.end_with_connection().await;
            }
            comes_in_bulk = self.input.is_full();
        }
    }

    /// Reads more. Before it has to wait for that, the receiver gets what is
    /// still in the compressor.
    async fn next(
        &mut self,
        read: &mut impl FnMut(&mut Context<'_>, &mut Buffer) -> Poll<Result<usize, Broken>>,
    ) -> Result<usize, Broken> {
        if self.compressor.as_ref().is_some_and(Compressor::holds) {
            let input = &mut *self.input;
            if let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(read(cx, input))).await {
                return read;
            }
            let flushed = self.compressor.as_mut().map(Compressor::flush);
            self.write_compressed(flushed.transpose()).await?;
        }
        let input = &mut *self.input;
        poll_fn(|cx| read(cx, input)).await
    }

    async fn pass_on(&mut self) -> Result<(), Broken> {
        if self.body.over && self.compressor.is_none() {
            return self.write(0, b"").await;
        }
        self.body.torn = true;
        let piece = self.body.take(self.input).map_err(|_| Broken::Malformed)?;
        if self.compressor.is_some() {
            return self.pass_on_compressed(piece).await;
        }
        let behind = self.behind(piece);
        if self.framing != Framing::Plain && piece.data > 0 {
            let mut line = [0; SIZE_LINE];
            let line = chunked::size_line(piece.data, &mut line);
            self.first.extend_from_slice(line);
        }
        self.write(piece.data, &behind).await?;
        self.input.consume(piece.taken);
        self.body.torn = false;
        Ok(())
    }

    async fn pass_on_compressed(&mut self, piece: Piece) -> Result<(), Broken> {
        let data = self.input.filled().get(..piece.data).unwrap_or_default();
        let out = self.compressor.as_mut().map(|through| through.write(data));
        self.input.consume(piece.taken);
        self.body.torn = false;
        self.write_compressed(out.transpose()).await?;
        if self.body.over {
            self.finish_compressed().await?;
        }
        Ok(())
    }

    /// Sends what the compressor still has, and the end.
    async fn finish_compressed(&mut self) -> Result<(), Broken> {
        let rest = self.compressor.take().map(Compressor::finish);
        self.write_compressed(rest.transpose()).await?;
        let end = self.behind(Piece { data: 0, taken: 0 });
        self.write(0, &end).await
    }

    /// Sends what has come out of the compressor, if anything has.
    async fn write_compressed(&mut self, out: io::Result<Option<Vec<u8>>>) -> Result<(), Broken> {
        // It writes to memory, which does not fail.
        let out = out.ok().flatten().unwrap_or_default();
        if out.is_empty() {
            return Ok(());
        }
        let mut line = [0; SIZE_LINE];
        self.first
            .extend_from_slice(chunked::size_line(out.len(), &mut line));
        let written = pieces::write(self.to, self.first, &out, b"\r\n", self.taker).await;
        written.map_err(|_| Broken::Receiver)?;
        self.count.set(self.count.get() + out.len() as u64);
        Ok(())
    }

    /// What the framing puts behind a piece.
    fn behind(&self, piece: Piece) -> Cow<'static, [u8]> {
        let Framing::Chunks { trailers } = self.framing else {
            return Cow::Borrowed(b"");
        };
        let end: &[u8] = if piece.data > 0 { b"\r\n" } else { b"" };
        if !self.body.over {
            return Cow::Borrowed(end);
        }
        let mut behind = [end, b"0\r\n"].concat();
        if trailers {
            heads::write_trailers(self.body.trailers(), &mut behind);
        }
        behind.extend_from_slice(b"\r\n");
        Cow::Owned(behind)
    }

    /// Nothing more comes.
    async fn end_with_connection(&mut self) -> Result<(), Broken> {
        if !self.body.ends_with_connection() {
            return Err(Broken::Sender);
        }
        self.body.over = true;
        if self.compressor.is_some() {
            return self.finish_compressed().await;
        }
        if self.framing != Framing::Plain {
            self.first.extend_from_slice(chunked::LAST);
        }
        self.write(0, b"").await
    }

    async fn write(&mut self, data: usize, behind: &[u8]) -> Result<(), Broken> {
        let piece = self.input.filled().get(..data).unwrap_or_default();
        let written = pieces::write(self.to, self.first, piece, behind, self.taker).await;
        written.map_err(|_| Broken::Receiver)?;
        self.count.set(self.count.get() + data as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::{Pin, pin},
        rc::Rc,
        task::Waker,
        time::Duration,
    };

    use tokio::time::Instant;

    use super::*;
    use crate::proxy::{
        buffer::Buffers,
        watch::{Timeouts, Watch},
    };

    /// Takes so many bytes, and then none, or breaks.
    struct Sink {
        taken: Vec<u8>,
        room: usize,
        breaks: bool,
    }

    impl AsyncWrite for Sink {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            self.taken.extend_from_slice(&bytes[..taken]);
            match taken {
                0 if self.breaks => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                0 => Poll::Pending,
                taken => Poll::Ready(Ok(taken)),
            }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn watch() -> Watch {
        let long = Duration::from_mins(1);
        let timeouts = Timeouts {
            connect: long,
            queue: long,
            client: long,
            server: long,
            http_request: long,
            keep_alive: long,
            tunnel: long,
        };
        Watch::new(&Rc::new(timeouts), Instant::now())
    }

    fn buffer(text: &str) -> Buffer {
        let mut buffer = Buffer::new(&Rc::new(Buffers::default()));
        let mut from = text.as_bytes();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(buffer.poll_fill(&mut from, &mut cx).is_ready());
        buffer
    }

    /// Polls the relay once, drops it, and says how it was and what went out.
    fn relay(
        body: &mut Body,
        input: &mut Buffer,
        framing: Framing,
        (room, breaks): (usize, bool),
    ) -> (Poll<Result<(), Broken>>, String) {
        let mut to = Sink {
            taken: Vec::new(),
            room,
            breaks,
        };
        let watch = watch();
        let polled = {
            let mut first = Vec::new();
            let mut relay = Relay {
                body,
                input,
                to: &mut to,
                framing,
                first: &mut first,
                count: &Cell::new(0),
                taker: Taker::Server(&watch),
                compressor: None,
            };
            let mut run = pin!(relay.run(|_, _| Poll::Pending));
            run.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        (polled, String::from_utf8(to.taken).unwrap())
    }

    #[test]
    fn a_body_is_framed_anew_and_what_is_behind_it_stays() {
        let chunks = "3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 1\r\n\r\nGET";
        for (length, text, framing, out) in [
            (Length::Exact(5), "abcdeGET", Framing::Plain, "abcde"),
            (Length::Chunked, chunks, Framing::Plain, "abcde"),
            (
                Length::Chunked,
                chunks,
                Framing::Chunks { trailers: false },
                "5\r\nabcde\r\n0\r\n\r\n",
            ),
            (
                Length::Chunked,
                chunks,
                Framing::Chunks { trailers: true },
                "5\r\nabcde\r\n0\r\nx-sum: 1\r\n\r\n",
            ),
        ] {
            let (mut body, mut input) = (Body::new(length), buffer(text));
            let went = relay(&mut body, &mut input, framing, (usize::MAX, false));
            assert_eq!(went, (Poll::Ready(Ok(())), out.to_owned()));
            assert_eq!(input.filled(), b"GET");
            assert!(body.skip(&mut input), "it is over");
        }
    }

    #[test]
    fn what_was_not_taken_of_a_body_is_never_what_comes_behind_it() {
        let coded = "5\r\nGET /\r\n0\r\n\r\n";
        for (length, text) in [(Length::Exact(5), "GET /"), (Length::Chunked, coded)] {
            for breaks in [true, false] {
                let (mut body, mut input) = (Body::new(length), buffer(text));
                let (polled, _) = relay(&mut body, &mut input, Framing::Plain, (2, breaks));
                assert_eq!(polled.is_ready(), breaks);
                assert!(!body.skip(&mut input), "{length:?}, {breaks}");
            }
        }
    }
}
