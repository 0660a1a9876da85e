//! A connection's bytes, whatever carries them.

use std::{
    cell::RefCell,
    fmt, io,
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, tcp},
};

use super::http2::Near;

/// A connection to a client or to a server.
///
/// What is written to one that is not a bare socket may wait in it until it is
/// flushed.
pub(super) enum Stream {
    /// A bare socket.
    Tcp(TcpStream),
    /// A layer over one, such as TLS, or a part of one. Both directions go
    /// through it, and never at the same moment: a connection is one task.
    Layered(Box<RefCell<dyn Duplex>>),
    /// A stream of a connection that many share.
    Http2(Box<RefCell<Near>>),
}

/// Bytes both ways.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// What comes from the other end.
pub(super) enum ReadHalf<'a> {
    Tcp(tcp::ReadHalf<'a>),
    Layered(&'a RefCell<dyn Duplex>),
}

/// What goes to the other end.
pub(super) enum WriteHalf<'a> {
    Tcp(tcp::WriteHalf<'a>),
    Layered(&'a RefCell<dyn Duplex>),
}

impl Stream {
    /// Bytes that go through a layer.
    pub(super) fn layered(layer: impl Duplex + 'static) -> Self {
        Self::Layered(Box::new(RefCell::new(layer)))
    }

    /// The two directions.
    pub(super) fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match self {
            Self::Tcp(socket) => {
                let (from, to) = socket.split();
                (ReadHalf::Tcp(from), WriteHalf::Tcp(to))
            }
            Self::Layered(layer) => (ReadHalf::Layered(layer), WriteHalf::Layered(layer)),
            Self::Http2(near) => {
                let near: &RefCell<dyn Duplex> = &**near;
                (ReadHalf::Layered(near), WriteHalf::Layered(near))
            }
        }
    }

    /// What was said to a server, if it is certain that it did nothing with it
    /// and never will.
    pub(super) fn unprocessed(&self) -> Option<Vec<u8>> {
        match self {
            Self::Http2(near) => near.borrow().unprocessed(),
            Self::Tcp(_) | Self::Layered(_) => None,
        }
    }

    /// Whether the other end has neither closed nor said anything that nobody
    /// asked for. Asks the kernel only if there was word of either.
    pub(super) fn is_silent(&self) -> bool {
        match self {
            Self::Tcp(socket) => {
                let said = socket.try_read(&mut [0]);
                said.is_err_and(|err| err.kind() == io::ErrorKind::WouldBlock)
            }
            // A layer may have words of its own, such as TLS's tickets.
            Self::Layered(layer) => {
                let mut cx = Context::from_waker(Waker::noop());
                let (mut byte, layer) = ([0], &mut *layer.borrow_mut());
                let said = Pin::new(layer).poll_read(&mut cx, &mut ReadBuf::new(&mut byte));
                said.is_pending()
            }
            // It is one request's.
            Self::Http2(_) => false,
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self::Tcp(socket)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(socket) => f.debug_tuple("Tcp").field(socket).finish(),
            Self::Layered(_) => f.debug_tuple("Layered").finish_non_exhaustive(),
            Self::Http2(_) => f.debug_tuple("Http2").finish_non_exhaustive(),
        }
    }
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, room),
            Self::Layered(layer) => Pin::new(&mut *layer.borrow_mut()).poll_read(cx, room),
        }
    }
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_write(cx, bytes),
            Self::Layered(layer) => Pin::new(&mut *layer.borrow_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_write_vectored(cx, slices),
            Self::Layered(layer) => {
                Pin::new(&mut *layer.borrow_mut()).poll_write_vectored(cx, slices)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Layered(layer) => Pin::new(&mut *layer.borrow_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_shutdown(cx),
            Self::Layered(layer) => Pin::new(&mut *layer.borrow_mut()).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_layer_carries_both_ways_and_says_when_it_is_silent() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = Stream::layered(near);
        assert!(stream.is_silent());
        let (mut from, mut to) = stream.split();
        to.write_all(b"ping").await.unwrap();
        far.write_all(b"pong!").await.unwrap();
        let (mut here, mut there) = ([0; 4], [0; 4]);
        from.read_exact(&mut here).await.unwrap();
        far.read_exact(&mut there).await.unwrap();
        assert_eq!((&here, &there), (b"pong", b"ping"));
        assert!(!stream.is_silent(), "a byte is left that nobody asked for");
        drop(far);
        assert!(!stream.is_silent(), "it is closed");
    }
}
