//! The client while a server answers it: it sends the rest of its request's
//! body, and may go.

use std::{
    cell::Cell,
    future::poll_fn,
    task::{Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::Stop;
use crate::proxy::{
    body::{Body, Broken, Relay},
    buffer::Buffer,
    error::Error,
    watch::Watch,
};

/// How far a request's body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upload {
    /// It is on its way.
    Going,
    /// The server has all of it.
    Done,
    /// The server takes no more of it.
    Refused,
}

impl Upload {
    pub(super) fn new(body: &Body) -> Self {
        if body.is_over() {
            Self::Done
        } else {
            Self::Going
        }
    }
}

/// What is heard of the client while the server answers.
pub(super) enum Heard {
    /// It has gone.
    Gone,
    /// It has gone in the middle of its body.
    BrokenOff,
    /// Its body is not coded as it says.
    Malformed,
}

impl From<Heard> for Stop {
    fn from(heard: Heard) -> Self {
        match heard {
            Heard::Gone => Self::ClientGone,
            Heard::BrokenOff => Self::Error(Error::ClientAbort),
            Heard::Malformed => Self::Error(Error::BadRequest("an invalid chunk")),
        }
    }
}

/// Sends the request's body to its end, then waits for the client's.
pub(super) async fn listen<R, W>(
    mut upload: Relay<'_, W>,
    from: &mut R,
    watch: &Watch,
    progress: &Cell<Upload>,
) -> Heard
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    if progress.get() == Upload::Going {
        let sent = upload.run(|cx, input| match input.poll_fill(from, cx) {
            Poll::Pending => {
                watch.wait_for_body();
                Poll::Pending
            }
            Poll::Ready(read) => {
                watch.read();
                Poll::Ready(read.map_err(|_| Broken::Sender))
            }
        });
        match sent.await {
            Ok(()) => progress.set(Upload::Done),
            Err(Broken::Sender | Broken::Stalled) => return Heard::BrokenOff,
            // The server may have said why, and is heard.
            Err(Broken::Receiver) => progress.set(Upload::Refused),
            Err(Broken::Malformed) => return Heard::Malformed,
        }
    }
    gone(from, upload.input).await;
    Heard::Gone
}

/// Waits until the client has closed its end. What it sends ahead is kept, as
/// far as there is room.
pub(in crate::proxy) async fn gone<R: AsyncRead + Unpin>(from: &mut R, input: &mut Buffer) {
    poll_fn(|cx| {
        while !input.is_full() {
            match ready!(input.poll_fill(from, cx)) {
                Ok(1..) => {}
                Ok(_) | Err(_) => return Poll::Ready(()),
            }
        }
        // It is read on behind this request.
        Poll::Pending
    })
    .await;
}
