//! Server-Sent Events: a response's body that goes on for as long as somebody
//! follows.
//!
//! Nothing is queued for a follower: its next piece is only asked for when its
//! connection has room. One that does not read stops renewing its
//! connection's lease, and is cut off when that has run out.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};

/// The media type of Server-Sent Events.
pub(super) const CONTENT_TYPE: &str = "text/event-stream";

/// How long a follower hears nothing. Proxies and clients give up on a
/// silent connection after half a minute or more.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A comment, which clients skip.
pub(super) const STILL_HERE: Bytes = Bytes::from_static(b": still here\n\n");

/// Makes a stream's pieces one after another.
pub(super) trait Pieces: Sized + Send + 'static {
    /// Waits for the next piece to send; `None` is the end.
    fn next(self) -> impl Future<Output = Option<(Bytes, Self)>> + Send;
}

type Next<P> = Pin<Box<dyn Future<Output = Option<(Bytes, P)>> + Send>>;

/// A response's body that goes on for as long as there are pieces.
pub(super) struct Stream<P>(Option<Next<P>>);

impl<P: Pieces> Stream<P> {
    /// A stream of these pieces.
    pub(super) fn of(pieces: P) -> Self {
        Self(Some(Box::pin(pieces.next())))
    }
}

impl<P: Pieces> Body for Stream<P> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(next) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let piece = ready!(next.as_mut().poll(context)).map(|(piece, pieces)| {
            self.0 = Some(Box::pin(pieces.next()));
            Ok(Frame::data(piece))
        });
        if piece.is_none() {
            self.0 = None;
        }
        Poll::Ready(piece)
    }
}
