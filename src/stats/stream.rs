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
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::desk::{lease::Lease, seats::Seat};

/// The media type of Server-Sent Events.
pub(super) const CONTENT_TYPE: &str = "text/event-stream";

/// How long a follower hears nothing. Proxies and clients give up on a
/// silent connection after half a minute or more.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A comment, which clients skip.
pub(super) const STILL_HERE: &str = ": still here\n\n";

/// Something that goes on, as one follower has seen it so far.
pub(super) trait Course: Send + 'static {
    /// What the follower does not have yet, or the first of it.
    fn piece(&mut self) -> Option<Bytes>;
}

/// One who follows a course.
pub(super) struct Follower<C> {
    /// What it follows.
    pub(super) course: C,
    /// Changes when there may be another piece.
    pub(super) news: watch::Receiver<u64>,
    /// Its connection's.
    pub(super) lease: Lease,
    /// The end of all.
    pub(super) ending: CancellationToken,
    /// One of the seats that followers share.
    pub(super) _seat: Seat,
}

impl<C: Course> Follower<C> {
    /// Waits for the next piece to send; `None` is the end.
    ///
    /// It is only asked for when the connection has room, so whoever does not
    /// read does not get here and renews nothing.
    pub(super) async fn next(mut self) -> Option<(Bytes, Self)> {
        self.lease.renew();
        loop {
            // Before it looks: what comes meanwhile wakes it again.
            self.news.mark_unchanged();
            if let Some(piece) = self.course.piece() {
                return Some((piece, self));
            }
            tokio::select! {
                () = self.ending.cancelled() => return None,
                changed = self.news.changed() => changed.ok()?,
                () = sleep(KEEP_ALIVE) => {
                    return Some((Bytes::from_static(STILL_HERE.as_bytes()), self));
                }
            }
        }
    }
}

type Next<C> = Pin<Box<dyn Future<Output = Option<(Bytes, Follower<C>)>> + Send>>;

/// A response's body that goes on for as long as its follower follows.
pub(super) struct Stream<C>(Option<Next<C>>);

impl<C: Course> From<Follower<C>> for Stream<C> {
    fn from(follower: Follower<C>) -> Self {
        Self(Some(Box::pin(follower.next())))
    }
}

impl<C: Course> Body for Stream<C> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(next) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let piece = ready!(next.as_mut().poll(context)).map(|(piece, follower)| {
            self.0 = Some(Box::pin(follower.next()));
            Ok(Frame::data(piece))
        });
        if piece.is_none() {
            self.0 = None;
        }
        Poll::Ready(piece)
    }
}
