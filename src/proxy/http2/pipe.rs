//! Bodies between HTTP/2's frames and a connection of HTTP/1.1 inside the
//! process.

use std::{
    any::Any,
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf},
    task::AbortHandle,
};

use super::heads;
use crate::{
    http1::{
        Length,
        chunked::{self, SIZE_LINE},
    },
    proxy::{body::Body, buffer::Buffer},
};

/// The end of the pipe that is read.
pub(super) type From = ReadHalf<DuplexStream>;

/// A body that comes out of the pipe.
pub(super) struct PipeBody {
    body: Body,
    input: Buffer,
    from: From,
    trailers_told: bool,
    /// How many pieces of it were taken.
    taken: Rc<Cell<u64>>,
    _along: Option<Box<dyn Any>>,
}

/// A task that ends with what it goes along with.
#[derive(Debug)]
pub(super) struct Along(pub(super) AbortHandle);

impl Drop for Along {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl PipeBody {
    /// What of it was read already is in `input`. What goes `along` is dropped
    /// with it.
    pub(super) fn new(
        length: Length,
        input: Buffer,
        from: From,
        along: Option<Box<dyn Any>>,
    ) -> Self {
        Self {
            body: Body::new(length),
            input,
            from,
            trailers_told: false,
            taken: Rc::default(),
            _along: along,
        }
    }

    /// The same, which counts there how many pieces of it were taken.
    pub(super) fn counting(mut self, taken: Rc<Cell<u64>>) -> Self {
        self.taken = taken;
        self
    }

    fn trailers(&mut self) -> Option<HeaderMap> {
        if std::mem::replace(&mut self.trailers_told, true) {
            return None;
        }
        let trailers = heads::trailers(self.body.trailers());
        (!trailers.is_empty()).then_some(trailers)
    }
}

impl hyper::body::Body for PipeBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        loop {
            if this.body.is_over() {
                return Poll::Ready(this.trailers().map(Frame::trailers).map(Ok));
            }
            if !this.input.is_empty() {
                let piece = this.body.take_out(&mut this.input);
                let piece = piece.map_err(|_| io::ErrorKind::InvalidData)?;
                if !piece.is_empty() {
                    this.taken.set(this.taken.get() + 1);
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                continue;
            }
            if ready!(this.input.poll_fill(&mut this.from, cx))? == 0 {
                return Poll::Ready(if this.body.ends_with_connection() {
                    None
                } else {
                    Some(Err(io::ErrorKind::UnexpectedEof.into()))
                });
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_over() && (self.trailers_told || self.body.trailers().is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        // The fields tell the length, where it is known.
        SizeHint::default()
    }
}

/// Sends a body that comes in frames down the pipe, in chunks or as it is. One
/// that breaks off ends the pipe before its time, so that the other end sees
/// that it did.
pub(super) async fn pump<B, W>(mut body: B, to: &mut W, chunked: bool) -> io::Result<()>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    W: AsyncWrite + Unpin,
{
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return to.shutdown().await;
        };
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) if chunked => {
                let mut line = [0; SIZE_LINE];
                to.write_all(chunked::size_line(data.len(), &mut line))
                    .await?;
                to.write_all(&data).await?;
                to.write_all(b"\r\n").await?;
            }
            Ok(data) => to.write_all(&data).await?,
            Err(frame) if chunked => {
                let trailers = frame.into_trailers().unwrap_or_default();
                let lines = heads::trailers_text(&trailers);
                return to
                    .write_all(&[b"0\r\n", lines.as_slice(), b"\r\n"].concat())
                    .await;
            }
            // A body with a length has no place for them.
            Err(_) => {}
        }
    }
    // A reset that gives no error as its reason is no end either.
    if !body.is_end_stream() {
        return to.shutdown().await;
    }
    if chunked {
        to.write_all(chunked::LAST).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http::HeaderValue;
    use tokio::io::{AsyncReadExt, duplex, split};

    use super::*;
    use crate::proxy::buffer::Buffers;

    /// A body of these frames; without a last one it just stops.
    struct Frames(VecDeque<Option<io::Result<Frame<Bytes>>>>);

    impl hyper::body::Body for Frames {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            Poll::Ready(match self.0.front() {
                Some(None) | None => None,
                Some(Some(_)) => self.get_mut().0.pop_front().flatten(),
            })
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as frames come")]
    fn data(text: &'static str) -> io::Result<Frame<Bytes>> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    fn trailers() -> HeaderMap {
        let sum = http::HeaderName::from_static("x-sum");
        HeaderMap::from_iter([(sum, HeaderValue::from_static("7"))])
    }

    /// What the pipe's other end gets, and whether the pipe has ended there.
    async fn pumped<const N: usize>(
        frames: [io::Result<Frame<Bytes>>; N],
        chunked: bool,
    ) -> (String, bool) {
        pumped_from(Frames(frames.map(Some).into()), chunked).await
    }

    async fn pumped_from(body: Frames, chunked: bool) -> (String, bool) {
        let (near, mut far) = duplex(1024);
        let (_from, mut to) = split(near);
        pump(body, &mut to, chunked).await.unwrap();
        let mut got = Vec::new();
        let mut rest = [0; 256];
        let read = async {
            loop {
                match far.read(&mut rest).await.unwrap() {
                    0 => return,
                    read => got.extend_from_slice(&rest[..read]),
                }
            }
        };
        let patience = std::time::Duration::from_millis(1);
        let ended = tokio::time::timeout(patience, read).await.is_ok();
        (String::from_utf8(got).unwrap(), ended)
    }

    #[tokio::test(start_paused = true)]
    async fn frames_go_in_chunks_where_no_length_was_told() {
        let frames = [data("hello"), data(""), data(" you")];
        let chunks = "5\r\nhello\r\n4\r\n you\r\n0\r\n\r\n";
        assert_eq!(pumped(frames, true).await, (chunks.to_owned(), false));
        let frames = [data("hello"), data(""), data(" you")];
        assert_eq!(pumped(frames, false).await, ("hello you".into(), false));
    }

    #[tokio::test(start_paused = true)]
    async fn trailers_follow_the_last_chunk_and_nothing_else() {
        let chunks = "1\r\na\r\n0\r\nx-sum: 7\r\n\r\n";
        let frames = || [data("a"), Ok(Frame::trailers(trailers()))];
        assert_eq!(pumped(frames(), true).await, (chunks.to_owned(), false));
        assert_eq!(pumped(frames(), false).await, ("a".into(), false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_breaks_off_ends_the_pipe_without_a_last_chunk() {
        let broken = [data("a"), Err(io::ErrorKind::ConnectionReset.into())];
        let (got, ended) = pumped(broken, true).await;
        assert_eq!((got.as_str(), ended), ("1\r\na\r\n", true));
        // As hyper has a reset without an error.
        let stops = Frames([data("a")].map(Some).into_iter().chain([None]).collect());
        let (got, ended) = pumped_from(stops, true).await;
        assert_eq!((got.as_str(), ended), ("1\r\na\r\n", true));
    }

    /// The body that `bytes` and then the pipe's end make.
    async fn read(length: Length, bytes: &str) -> io::Result<(String, Option<HeaderMap>)> {
        let (near, mut far) = duplex(1024);
        far.write_all(bytes.as_bytes()).await?;
        drop(far);
        let (from, _to) = split(near);
        let input = Buffer::new(&Rc::new(Buffers::default()));
        let body = PipeBody::new(length, input, from, None);
        let body = body.collect().await?;
        let trailers = body.trailers().cloned();
        let content = String::from_utf8(body.to_bytes().to_vec()).unwrap();
        Ok((content, trailers))
    }

    #[tokio::test]
    async fn a_body_comes_out_of_the_pipe_as_it_was_with_its_trailers() {
        let content = |text: &str| (text.to_owned(), None);
        let exact = read(Length::Exact(2), "abc").await.unwrap();
        assert_eq!(exact, content("ab"));
        let none = read(Length::None, "").await.unwrap();
        assert_eq!(none, content(""));
        let until_close = read(Length::UntilClose, "abc").await.unwrap();
        assert_eq!(until_close, content("abc"));
        let chunks = "2\r\nab\r\n1\r\nc\r\n0\r\nx-sum: 7\r\n\r\n";
        let chunked = read(Length::Chunked, chunks).await.unwrap();
        assert_eq!(chunked, ("abc".to_owned(), Some(trailers())));
    }

    #[tokio::test]
    async fn a_body_that_ends_before_its_time_is_an_error_and_not_a_shorter_one() {
        for (length, bytes) in [
            (Length::Exact(3), "ab"),
            (Length::Chunked, "2\r\nab\r\n"),
            (Length::Chunked, "2\r\nab\r\n0\r\n"),
            (Length::Chunked, "zz\r\n"),
        ] {
            assert!(read(length, bytes).await.is_err(), "{bytes:?}");
        }
    }
}
