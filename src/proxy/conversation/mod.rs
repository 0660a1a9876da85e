//! One request and its response over a connection to a server: the request's
//! body goes one way while the response comes the other.

mod listen;
mod patience;
mod response;

use std::{
    cell::Cell,
    future::poll_fn,
    io::IoSlice,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite};

pub(super) use self::listen::gone;
use self::{
    listen::{Heard, Upload, listen},
    patience::{Patience, Silence},
    response::{Answered, ForThisRequest},
};
use super::{
    Worker,
    attempts::Forwarded,
    body::{Body, Broken, Framing, Relay},
    buffer::Buffer,
    compress::Compressor,
    connection::{Asked, Client, Wire},
    error::{Error, Termination},
    exchange::Exchange,
    pieces::{self, Taker},
    retry::Sent,
    service::After,
    upstream::{Failure, FailureKind, Lease},
    watch::{Waiting, Watch},
};
use crate::http1::Length;

/// What a request has while a server answers it.
pub(super) struct Conversation<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) client: &'a Rc<Client>,
    pub(super) asked: &'a Asked,
    pub(super) wire: &'a mut Wire,
    pub(super) body: &'a mut Body,
    pub(super) exchange: &'a mut Exchange,
}

/// Why no server is to be tried any more.
#[derive(Debug)]
pub(super) enum Stop {
    /// The client is told.
    Error(Error),
    /// There is nobody to tell.
    ClientGone,
    /// The client has got a part of a response, and its connection ends there.
    BrokenOff(Termination),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// How a response that breaks off is logged.
impl From<Broken> for Termination {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Receiver => Self::CLIENT_GONE_IN_DATA,
            Broken::Stalled => Self::SERVER_STALLED_IN_DATA,
            Broken::Sender | Broken::Malformed => Self::SERVER_GONE_IN_DATA,
        }
    }
}

impl Conversation<'_> {
    /// Sends the request over the connection and passes the response on. A
    /// failure says that there is no response yet.
    pub(super) async fn hold(
        &mut self,
        mut lease: Lease,
        repeatable: bool,
    ) -> Result<Result<Forwarded, Failure>, Stop> {
        let (answered, uploaded) = match self.speak(&mut lease, repeatable).await {
            Ok(spoken) => spoken,
            Err(Silence::Stop(stop)) => return Err(stop),
            Err(Silence::Failed(kind, sent)) => return Ok(Err(Failure::on(&lease, kind, sent))),
        };
        if answered.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Ok(Forwarded::Switched(lease)));
        }
        self.exchange.complete();
        if answered.server_keeps && uploaded {
            lease.give_back(answered.said.timeout, self.client.watch.now());
        }
        Ok(Ok(Forwarded::Whole(if answered.client_keeps && uploaded {
            After::Next
        } else if self.asked.keeps_alive || !uploaded || !self.wire.input.is_empty() {
            After::Close
        } else {
            After::Gone
        })))
    }

    /// The whole exchange of words. Says whether the request was sent to its
    /// end.
    async fn speak(
        &mut self,
        lease: &mut Lease,
        repeatable: bool,
    ) -> Result<(Answered, bool), Silence> {
        let (server, connect_time) = (Arc::clone(lease.server()), lease.connect_time());
        let (stream, answer, wait) = lease.parts();
        let (mut server_in, mut server_out) = stream.split();
        let watch = &self.client.watch;
        let patience = Patience { wait, watch };
        self.exchange.connected(connect_time);
        let sent_at = watch.now();
        wait.begin(repeatable, sent_at);
        self.send_head(&mut server_out, &patience).await?;
        let invited = self.invite().await?;

        let (mut client_in, mut client_out) = self.wire.stream.split();
        let upload = Cell::new(Upload::new(self.body));
        let mut nothing = Vec::new();
        let relay = Relay {
            body: self.body,
            input: &mut self.wire.input,
            to: &mut server_out,
            framing: match self.asked.length {
                Length::Chunked => Framing::Chunks { trailers: true },
                _ => Framing::Plain,
            },
            first: &mut nothing,
            count: &self.client.body_bytes,
            taker: Taker::Server(watch),
            compressor: None,
        };
        let mut client = pin!(listen(relay, &mut client_in, watch, &upload));
        let mut out = Vec::new();
        let answered = ForThisRequest {
            worker: self.worker,
            client: self.client,
            asked: self.asked,
            server: &server,
            exchange: &mut *self.exchange,
            upload: &upload,
            invited,
        }
        .head(
            (answer, &mut server_in),
            (&mut out, &mut client_out),
            &patience,
            &mut client,
        )
        .await?;
        wait.end();
        watch.arrived(Waiting::Server);
        answer.consume(answered.received);
        let exchange = &mut *self.exchange;
        exchange.responded(answered.status, watch.now() - sent_at);
        exchange.begin_response(out.len() as u64, answered.received as u64);

        let compressor = answered.coding.map(|coding| {
            let compressor = Compressor::new(coding, &self.worker.ledger);
            // It can fail for want of memory alone.
            compressor.map_err(|_| FailureKind::Exhausted)
        });
        let compressor = compressor.transpose()?;
        let mut body = Body::new(answered.length);
        let mut relay = Relay {
            body: &mut body,
            input: answer,
            to: &mut client_out,
            framing: answered.framing,
            first: &mut out,
            count: exchange.body_bytes_out(),
            taker: Taker::Client(watch),
            compressor,
        };
        let download = relay.run(|cx, input| read_body(&mut server_in, input, watch, cx));
        let download = pin!(download);
        match both_ways(download, &mut client, &upload, &answered, watch).await {
            Ok(()) => Ok((answered, upload.get() == Upload::Done)),
            Err(how) => Err(Stop::BrokenOff(how).into()),
        }
    }

    /// Sends the request's head, and of its body what is there.
    async fn send_head<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        patience: &Patience<'_>,
    ) -> Result<(), Silence> {
        let beginning = self.body.beginning(&self.wire.input);
        let along = beginning.len();
        let mut slices = [IoSlice::new(&self.asked.head), IoSlice::new(beginning)];
        let mut left = slices.as_mut_slice();
        let mut sent = Sent::Nothing;
        IoSlice::advance_slices(&mut left, 0);
        poll_fn(|cx| {
            while let [first, more @ ..] = &*left {
                let written = ready!(patience.poll(cx, |cx| if more.is_empty() || along == 0 {
                    Pin::new(&mut *to).poll_write(cx, first)
                } else {
                    Pin::new(&mut *to).poll_write_vectored(cx, left)
                }))?;
                match written {
                    Ok(written @ 1..) => {
                        sent = Sent::Perhaps;
                        IoSlice::advance_slices(&mut left, written);
                    }
                    // Of what the kernel has not taken no server can know.
                    _ => return Poll::Ready(Err(Silence::Failed(FailureKind::Broken, sent))),
                }
            }
            ready!(patience.poll(cx, |cx| Pin::new(&mut *to).poll_flush(cx)))?
                .map_err(|_| Silence::Failed(FailureKind::Broken, sent))?;
            Poll::Ready(Ok(()))
        })
        .await?;
        self.body.begun(&mut self.wire.input, along);
        self.client.body_bytes.set(along as u64);
        Ok(())
    }

    /// Tells a client that waits for the word to send its body; says whether
    /// it did (RFC 9110 §10.1.1). The server is there, and need not be asked:
    /// many never answer to it.
    async fn invite(&mut self) -> Result<bool, Stop> {
        let waits = self.asked.expects_continue;
        if !waits || self.body.is_over() || !self.wire.input.is_empty() {
            return Ok(false);
        }
        let mut word = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
        let (_, mut to) = self.wire.stream.split();
        let watch = Taker::Client(&self.client.watch);
        let written = pieces::write(&mut to, &mut word, b"", b"", watch).await;
        written.map(|()| true).map_err(|_| Stop::ClientGone)
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
fn read_body<R: AsyncRead + Unpin>(
    from: &mut R,
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
