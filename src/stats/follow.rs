//! Events as they happen, as Server-Sent Events.
//!
//! Nothing is queued for a follower: it reads from the timeline, which keeps
//! the latest events anyway, whenever its connection has room for more. One
//! that does not read stops renewing its connection's lease, and is cut off
//! when that has run out.

use std::{
    convert::Infallible,
    fmt::Write as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body, Frame};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    events::{self, Query},
    lease::Lease,
};
use crate::pool::{Timeline, timeline::Entry};

/// The media type of Server-Sent Events.
pub(super) const CONTENT_TYPE: &str = "text/event-stream";

/// Followers at a time: some dashboards and scripts, and the statistics keep
/// most of their connections for others.
pub(super) const MOST_FOLLOWERS: usize = 32;

/// How long a follower hears nothing. Proxies and clients give up on a
/// silent connection after half a minute or more.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A comment, which clients skip.
const STILL_HERE: &str = ": still here\n\n";

/// Events that are sent in one piece, some 20 KB: a connection holds a few
/// pieces that its client has not taken yet.
const MOST_AT_ONCE: usize = 64;

/// Whether a request wants to be told of events as they happen.
pub(super) fn is_asked_for(query: Query, headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter();
    let mut types = accepts
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|kind| kind.split(';').next());
    query.follow || types.any(|kind| kind.trim().eq_ignore_ascii_case(CONTENT_TYPE))
}

/// The number of the last event that a follower has: what it says as it comes
/// back counts more than the address it came with at first.
pub(super) fn last_seen(query: Query, headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    match headers.get("last-event-id") {
        Some(id) => events::event_number(id.to_str().unwrap_or_default()).map(Some),
        None => Ok(query.after),
    }
}

/// The places that followers share, and the end of them all.
#[derive(Debug, Clone)]
pub(super) struct Followers {
    places: Arc<Semaphore>,
    ending: CancellationToken,
}

impl Followers {
    /// As many places as there are, until `ending`.
    pub(super) fn new(ending: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(MOST_FOLLOWERS));
        Self { places, ending }
    }

    /// Begins to follow after the event `last_seen`, or from now on; `None`
    /// if every place is taken.
    pub(super) fn begin(
        &self,
        timeline: &Arc<Timeline>,
        last_seen: Option<u64>,
        lease: &Lease,
    ) -> Option<Stream> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let news = timeline.follow();
        let newest = *news.borrow();
        // A number that is yet to come is that of an earlier process, before
        // numbers began anew: everything here is news to this follower.
        let after = match last_seen {
            Some(seen) if seen > newest => 0,
            Some(seen) => seen,
            None => newest,
        };
        let follower = Follower {
            timeline: Arc::clone(timeline),
            after,
            news,
            lease: lease.clone(),
            ending: self.ending.clone(),
            _place: place,
        };
        Some(Stream(Some(Box::pin(follower.next()))))
    }
}

/// One who follows the timeline.
struct Follower {
    timeline: Arc<Timeline>,
    /// The number of the last event that was sent.
    after: u64,
    news: watch::Receiver<u64>,
    lease: Lease,
    ending: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// Waits for the next piece to send; `None` is the end.
    ///
    /// It is only asked for when the connection has room, so whoever does not
    /// read does not get here and renews nothing.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        self.lease.renew();
        loop {
            // Before it looks: what comes meanwhile wakes it again.
            self.news.mark_unchanged();
            if let Some(piece) = self.piece() {
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

    /// The events that it does not have yet, or the first of them.
    fn piece(&mut self) -> Option<Bytes> {
        let mut entries = self.timeline.since(self.after);
        entries.truncate(MOST_AT_ONCE);
        self.after = entries.last()?.number;
        Some(entries.iter().map(message).collect::<String>().into())
    }
}

/// An event as a message of the stream.
fn message(entry: &Entry) -> String {
    let mut message = String::new();
    write!(
        message,
        "id: {}\nevent: {}\ndata: {}\n\n",
        entry.number,
        entry.event.what.as_str(),
        events::one(entry),
    )
    .expect("a string takes any text");
    message
}

type Next = Pin<Box<dyn Future<Output = Option<(Bytes, Follower)>> + Send>>;

/// A response's body that goes on for as long as its follower follows.
pub(super) struct Stream(Option<Next>);

impl Body for Stream {
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
