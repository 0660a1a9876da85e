//! One request and its response over a connection to a server: the request's
//! body goes one way while the response comes the other.

mod download;
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
    task::{Poll, ready},
};

use http::StatusCode;
use tokio::io::AsyncWrite;

pub(super) use self::listen::gone;
use self::{
    download::Download,
    listen::{Heard, Listener, Upload},
    patience::{Patience, Silence},
    response::{Answered, ForThisRequest},
};
use super::{
    Worker,
    attempts::Forwarded,
    body::{Body, Broken},
    connection::{Asked, Client, Wire},
    error::{Error, Termination},
    exchange::Exchange,
    pieces::{self, Taker},
    retry::Sent,
    service::After,
    stream::WriteHalf,
    upstream::{Failure, FailureKind, Lease},
};

/// What a request has while a server answers it.
pub(super) struct Conversation<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) client: &'a Rc<Client>,
    pub(super) asked: &'a Asked,
    pub(super) wire: &'a mut Wire,
    pub(super) body: &'a mut Body,
    pub(super) exchange: &'a mut Exchange,
    /// What was said of the request to a server that did nothing with it.
    pub(super) again: Vec<u8>,
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
            Err(Silence::Failed(kind, sent)) => {
                let undone = kind == FailureKind::Broken && self.take_back(&mut lease);
                let sent = if undone { Sent::Nothing } else { sent };
                return Ok(Err(Failure::on(&lease, kind, sent)));
            }
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

    /// Takes back what was said, to say it to another server, if this one did
    /// nothing with it.
    fn take_back(&mut self, lease: &mut Lease) -> bool {
        match lease.parts().0.unprocessed() {
            Some(said) if !self.body.is_torn() => {
                self.again = said;
                true
            }
            _ => false,
        }
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
        let (server_in, mut server_out) = stream.split();
        let watch = &self.client.watch;
        let patience = Patience { wait, watch };
        self.exchange.connected(connect_time);
        let sent_at = watch.now();
        wait.begin(repeatable, sent_at);
        self.send_head(&mut server_out, &patience).await?;
        let invited = self.invite().await?;

        let upload = Cell::new(Upload::new(self.body));
        let (client_in, client_out) = self.wire.stream.split();
        let listener = Listener {
            client: self.client,
            asked: self.asked,
            body: self.body,
            input: &mut self.wire.input,
            from: client_in,
            to: server_out,
            upload: &upload,
        };
        let mut client = pin!(listener.listen());
        let head = ForThisRequest {
            worker: self.worker,
            client: self.client,
            asked: self.asked,
            server: &server,
            exchange: self.exchange,
            upload: &upload,
            invited,
        };
        let mut download = Download::new(head, patience, (answer, server_in), client_out);
        let answered = download.head(&mut client).await?;
        download.begin(&answered, sent_at);
        download.body(&answered, &mut client).await?;
        Ok((answered, upload.get() == Upload::Done))
    }

    /// Sends the request's head, or what was said of it before, and of its
    /// body what is there.
    async fn send_head(
        &mut self,
        to: &mut WriteHalf<'_>,
        patience: &Patience<'_>,
    ) -> Result<(), Silence> {
        let beginning = self.body.beginning(&self.wire.input);
        let along = beginning.len();
        let head = if self.again.is_empty() {
            &self.asked.head
        } else {
            &self.again
        };
        let mut slices = [IoSlice::new(head), IoSlice::new(beginning)];
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
        let before = self.client.body_bytes.get();
        self.client.body_bytes.set(before + along as u64);
        Ok(())
    }

    /// Tells a client that waits for the word to send its body; says whether
    /// it did (RFC 9110 §10.1.1). The server is there, and need not be asked:
    /// many never answer to it.
    async fn invite(&mut self) -> Result<bool, Stop> {
        let waits = self.asked.expects_continue;
        if !self.again.is_empty() {
            // It was told before.
            return Ok(waits);
        }
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
