//! A response's way from the server to the client, who is listened to meanwhile.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use http::StatusCode;
use tokio::time::Instant;

use super::{
    Answered, ForThisRequest, Heard, Patience, Silence, Stop, Upload,
    response::{Found, MAX_HEAD},
};
use crate::{
    http1::Version,
    proxy::{
        body::{Body, Broken, Relay},
        buffer::Buffer,
        compress::Compressor,
        error::Termination,
        pieces::{self, Taker},
        stream::{ReadHalf, WriteHalf},
        upstream::FailureKind,
        watch::{Waiting, Watch},
    },
};

/// The most responses that may come before the one that counts: a server that
/// says 102 every second for minutes is heard out, one without an end is not.
const MAX_INTERIM: u32 = 1000;

/// A response, and what it comes and goes by.
pub(super) struct Download<'a> {
    head: ForThisRequest<'a>,
    patience: Patience<'a>,
    /// What was read from the server.
    input: &'a mut Buffer,
    from: ReadHalf<'a>,
    /// What goes to the client next.
    out: Vec<u8>,
    to: WriteHalf<'a>,
}

impl<'a> Download<'a> {
    /// Nothing has come yet, unless the server said it before it was asked.
    pub(super) fn new(
        head: ForThisRequest<'a>,
        patience: Patience<'a>,
        (input, from): (&'a mut Buffer, ReadHalf<'a>),
        to: WriteHalf<'a>,
    ) -> Self {
        Self {
            head,
            patience,
            input,
            from,
            out: Vec::new(),
            to,
        }
    }

    /// Waits for the response's head, which goes out with the beginning of its
    /// body; what comes before it is on its way to the client then.
    pub(super) async fn head<L>(&mut self, client: &mut Pin<&mut L>) -> Result<Answered, Silence>
    where
        L: Future<Output = Heard>,
    {
        let mut interim = 0;
        loop {
            match self.head.find(self.input.filled(), &mut self.out) {
                Ok(Some(Found::Answer(answered))) => return Ok(answered),
                Ok(Some(Found::Interim { status, received })) if interim < MAX_INTERIM => {
                    interim += 1;
                    self.pass_on(status, received).await?;
                }
                Ok(None) if self.input.filled().len() <= MAX_HEAD => self.read(client).await?,
                _ => return Err(FailureKind::Malformed.into()),
            }
        }
    }

    /// Passes on a response that is not the last one, or drops it where the
    /// client knows it or cannot.
    async fn pass_on(&mut self, status: StatusCode, received: usize) -> Result<(), Stop> {
        let watch = self.patience.watch;
        watch.arrived(Waiting::Server);
        self.input.consume(received);
        let known = self.head.invited && status == StatusCode::CONTINUE;
        if known || self.head.asked.version == Version::Http10 {
            self.out.clear();
        }
        self.head.exchange.add_bytes_out(self.out.len() as u64);
        let taker = Taker::Client(watch);
        let written = pieces::write(&mut self.to, &mut self.out, b"", b"", taker).await;
        written.map_err(|_| Stop::ClientGone)
    }

    /// Reads more of the head.
    async fn read<L>(&mut self, client: &mut Pin<&mut L>) -> Result<(), Silence>
    where
        L: Future<Output = Heard>,
    {
        if self.input.is_full() {
            self.input.enlarge();
        }
        let read = poll_fn(|cx| {
            if let Poll::Ready(heard) = client.as_mut().poll(cx) {
                return Poll::Ready(Err(Silence::Stop(heard.into())));
            }
            let poll_fill = |cx: &mut Context<'_>| self.input.poll_fill(&mut self.from, cx);
            self.patience.poll(cx, poll_fill)
        });
        match read.await? {
            Ok(1..) => Ok(()),
            Ok(_) | Err(_) => Err(FailureKind::Broken.into()),
        }
    }

    /// The head is there: nobody else is to be asked any more.
    pub(super) fn begin(&mut self, answered: &Answered, sent_at: Instant) {
        let Patience { wait, watch } = self.patience;
        wait.end();
        watch.arrived(Waiting::Server);
        self.input.consume(answered.received);
        let exchange = &mut *self.head.exchange;
        exchange.responded(answered.status, watch.now() - sent_at);
        exchange.begin_response(self.out.len() as u64, answered.received as u64);
    }

    /// Passes the response on, while the rest of the request may still go the
    /// other way.
    pub(super) async fn body<L>(
        &mut self,
        answered: &Answered,
        client: &mut Pin<&mut L>,
    ) -> Result<(), Silence>
    where
        L: Future<Output = Heard>,
    {
        let compressor = answered.coding.map(|coding| {
            let compressor = Compressor::new(coding, &self.head.worker.ledger);
            // It can fail for want of memory alone.
            compressor.map_err(|_| FailureKind::Exhausted)
        });
        let compressor = compressor.transpose()?;
        let watch = self.patience.watch;
        let mut body = Body::new(answered.length);
        let mut relay = Relay {
            body: &mut body,
            input: self.input,
            to: &mut self.to,
            framing: answered.framing,
            first: &mut self.out,
            count: self.head.exchange.body_bytes_out(),
            taker: Taker::Client(watch),
            compressor,
        };
        let download = pin!(relay.run(|cx, input| read_body(&mut self.from, input, watch, cx)));
        let both = both_ways(download, client, self.head.upload, answered, watch);
        both.await.map_err(|how| Stop::BrokenOff(how).into())
    }
}

/// Polls the response on its way to the client, and the rest of the request on
/// its way to the server. An error says how the response ended before its time.
async fn both_ways<D, L>(
    mut download: Pin<&mut D>,
    client: &mut Pin<&mut L>,
    upload: &Cell<Upload>,
    answered: &Answered,
    watch: &Watch,
) -> Result<(), Termination>
where
    D: Future<Output = Result<(), Broken>>,
    L: Future<Output = Heard>,
{
    let switches = answered.status == StatusCode::SWITCHING_PROTOCOLS;
    let mut downloaded = false;
    poll_fn(|cx| {
        if !downloaded {
            downloaded = is_done(download.as_mut().poll(cx))?;
        }
        // A server that answers early may still read the rest of the
        // request, and then takes another.
        if downloaded {
            let over = match upload.get() {
                Upload::Done | Upload::Refused => true,
                Upload::Going => !answered.server_keeps || switches || watch.server_expired(),
            };
            if over {
                return Poll::Ready(Ok(()));
            }
        }
        let heard = client.as_mut().poll(cx);
        if downloaded && heard.is_pending() {
            if upload.get() != Upload::Going {
                return Poll::Ready(Ok(()));
            }
            watch.wait_for_server();
        }
        heard.map(|_| {
            Err(if downloaded {
                Termination::NORMAL
            } else {
                Broken::Receiver.into()
            })
        })
    })
    .await
}

/// Reads more of a response's body.
fn read_body(
    from: &mut ReadHalf<'_>,
    input: &mut Buffer,
    watch: &Watch,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, Broken>> {
    match input.poll_fill(from, cx) {
        Poll::Pending if watch.server_expired() => Poll::Ready(Err(Broken::Stalled)),
        Poll::Pending => {
            watch.wait_for_server();
            Poll::Pending
        }
        Poll::Ready(read) => {
            watch.arrived(Waiting::Server);
            Poll::Ready(read.map_err(|_| Broken::Sender))
        }
    }
}

/// Whether it is done; not yet is no error.
fn is_done<E>(polled: Poll<Result<(), E>>) -> Result<bool, E> {
    match polled {
        Poll::Ready(done) => done.map(|()| true),
        Poll::Pending => Ok(false),
    }
}
