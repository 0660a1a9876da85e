//! The client while a server answers it: it sends the rest of its request's
//! body, and may go.

use std::{
    cell::Cell,
    future::poll_fn,
    task::{Poll, ready},
};

use tokio::io::AsyncRead;

use super::Stop;
use crate::{
    http1::Length,
    proxy::{
        body::{Body, Broken, Framing, Relay},
        buffer::Buffer,
        connection::{Asked, Client},
        error::Error,
        pieces::Taker,
        stream::{ReadHalf, WriteHalf},
    },
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

/// The client's side of a conversation.
pub(super) struct Listener<'a> {
    pub(super) client: &'a Client,
    pub(super) asked: &'a Asked,
    /// What is still to come of the request's body.
    pub(super) body: &'a mut Body,
    /// What was read of it, and what the client has sent ahead.
    pub(super) input: &'a mut Buffer,
    pub(super) from: ReadHalf<'a>,
    /// The server.
    pub(super) to: WriteHalf<'a>,
    /// Says how far the body has come.
    pub(super) upload: &'a Cell<Upload>,
}

impl Listener<'_> {
    /// Sends the request's body to its end, then waits for the client's.
    pub(super) async fn listen(mut self) -> Heard {
        if self.upload.get() == Upload::Going {
            match self.send_body().await {
                Ok(()) => self.upload.set(Upload::Done),
                Err(Broken::Sender | Broken::Stalled) => return Heard::BrokenOff,
                // The server may have said why, and is heard.
                Err(Broken::Receiver) => self.upload.set(Upload::Refused),
                Err(Broken::Malformed) => return Heard::Malformed,
            }
        }
        gone(&mut self.from, self.input).await;
        Heard::Gone
    }

    async fn send_body(&mut self) -> Result<(), Broken> {
        let watch = &self.client.watch;
        let mut relay = Relay {
            body: self.body,
            input: self.input,
            to: &mut self.to,
            framing: match self.asked.length {
                Length::Chunked => Framing::Chunks { trailers: true },
                _ => Framing::Plain,
            },
            first: &mut Vec::new(),
            count: &self.client.body_bytes,
            taker: Taker::Server(watch),
            compressor: None,
        };
        let sent = relay.run(|cx, input| match input.poll_fill(&mut self.from, cx) {
            Poll::Pending => {
                watch.wait_for_body();
                Poll::Pending
            }
            Poll::Ready(read) => {
                watch.read();
                Poll::Ready(read.map_err(|_| Broken::Sender))
            }
        });
        sent.await
    }
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
