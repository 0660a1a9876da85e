//! The end of the pipe by which a request reaches its stream to a server. It
//! holds what was said there for as long as it may have to be said again.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::oneshot,
};

use super::PIPE;

/// The near end. Tells the far one when it is dropped.
pub(in crate::proxy) struct Near {
    end: DuplexStream,
    held: Rc<Held>,
    _dropped: oneshot::Sender<()>,
}

/// What was said of a request, up to its response or to what the pipe holds.
/// Less than that the pipe takes at once, and so what is held is whole pieces.
pub(super) struct Held {
    said: RefCell<Option<Vec<u8>>>,
    unprocessed: Cell<bool>,
}

impl Near {
    /// The end, what it holds, and what comes to an error when it is dropped.
    pub(super) fn new(end: DuplexStream) -> (Self, Rc<Held>, oneshot::Receiver<()>) {
        let (sender, dropped) = oneshot::channel();
        let held = Rc::new(Held {
            said: RefCell::new(Some(Vec::new())),
            unprocessed: Cell::new(false),
        });
        let near = Self {
            end,
            held: Rc::clone(&held),
            _dropped: sender,
        };
        (near, held, dropped)
    }

    /// All that was said, if the server did nothing with it and it is still
    /// there.
    pub(in crate::proxy) fn unprocessed(&self) -> Option<Vec<u8>> {
        let said = self.held.said.take();
        said.filter(|_| self.held.unprocessed.get())
    }
}

impl Held {
    /// The server has not processed the request, and never will.
    pub(super) fn is_unprocessed(&self) {
        self.unprocessed.set(true);
    }

    /// Says whether all that was said is still held.
    fn add(&self, bytes: &[u8]) -> bool {
        let mut said = self.said.borrow_mut();
        *said = said.take().filter(|said| said.len() + bytes.len() < PIPE);
        if let Some(said) = &mut *said {
            said.extend_from_slice(bytes);
        }
        said.is_some()
    }

    fn let_go(&self) {
        self.said.take();
    }
}

impl AsyncRead for Near {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = room.filled().len();
        ready!(Pin::new(&mut this.end).poll_read(cx, room))?;
        if room.filled().len() > before {
            this.held.let_go();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Near {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.end).poll_write(cx, bytes));
        Poll::Ready(match written {
            Ok(written) => {
                this.held.add(bytes.get(..written).unwrap_or_default());
                Ok(written)
            }
            // The stream has ended, as is told where its response is read.
            // Until then this is a part of what is to be said again.
            Err(_) if this.held.add(bytes) => Ok(bytes.len()),
            Err(err) => Err(err),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().end).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().end).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn the_far_end_is_told_when_the_near_one_goes() {
        let (near, _far) = duplex(16);
        let (near, _, mut dropped) = Near::new(near);
        assert_eq!(dropped.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(near);
        assert!(dropped.await.is_err());
    }

    #[tokio::test]
    async fn what_was_said_in_vain_comes_back_whole_even_what_nobody_read() {
        let (near, far) = duplex(PIPE);
        let (mut near, held, _dropped) = Near::new(near);
        near.write_all(b"head ").await.unwrap();
        held.is_unprocessed();
        drop(far);
        near.write_all(b"body").await.unwrap();
        assert_eq!(near.unprocessed().as_deref(), Some(&b"head body"[..]));
    }

    #[tokio::test]
    async fn what_a_server_may_have_acted_on_does_not_come_back() {
        let (near, _far) = duplex(PIPE);
        let (mut near, _held, _dropped) = Near::new(near);
        near.write_all(b"head").await.unwrap();
        assert_eq!(near.unprocessed(), None);
    }

    #[tokio::test]
    async fn what_is_being_answered_does_not_come_back() {
        let (near, mut far) = duplex(PIPE);
        let (mut near, held, _dropped) = Near::new(near);
        near.write_all(b"head").await.unwrap();
        far.write_all(b"HTTP/1.1 200").await.unwrap();
        near.read_exact(&mut [0]).await.unwrap();
        held.is_unprocessed();
        assert_eq!(near.unprocessed(), None);
    }

    #[tokio::test]
    async fn more_than_a_pipe_of_it_is_not_held() {
        let (near, mut far) = duplex(PIPE);
        let (mut near, held, _dropped) = Near::new(near);
        near.write_all(&vec![7; PIPE - 1]).await.unwrap();
        far.read_exact(&mut vec![0; PIPE - 1]).await.unwrap();
        near.write_all(&[7]).await.unwrap();
        held.is_unprocessed();
        assert_eq!(near.unprocessed(), None);
        drop(far);
        assert!(near.write_all(&[7]).await.is_err(), "and it is said again");
    }
}
