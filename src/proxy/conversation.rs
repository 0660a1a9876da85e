//! One request and its response over a connection to a server: the request's
//! body goes one way while the response comes the other.

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

use super::{
    Worker,
    body::{Body, Broken, Framing, Relay},
    buffer::Buffer,
    compress::{self, Coded, Coding, Compressor},
    connection::{Asked, Client, Wire},
    error::{Error, Termination},
    exchange::{Affinity, CookieSent, Exchange},
    heads::{self, ForClient, Said},
    pieces::{self, Taker},
    retry::Sent,
    service::{After, Forwarded},
    upstream::{Failure, FailureKind, Lease, Wait},
    watch::{Waiting, Watch},
};
use crate::{
    http1::{Length, Malformed, Response, Version},
    pool::Server,
};

/// The largest response head. nginx and `HAProxy` stop at 16 KiB and less, and
/// applications with long policies and many cookies have run into that.
const MAX_HEAD: usize = 64 * 1024;

/// The most responses that may come before the one that counts: a server that
/// says 102 every second for minutes is heard out, one without an end is not.
const MAX_INTERIM: u32 = 1000;

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

/// Why a server has not answered.
enum Silence {
    /// It is no fault of the server's.
    Stop(Stop),
    /// It is.
    Failed(FailureKind, Sent),
}

impl From<Stop> for Silence {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<FailureKind> for Silence {
    fn from(kind: FailureKind) -> Self {
        Self::Failed(kind, Sent::Perhaps)
    }
}

/// A server's response, whose head has been written anew for the client.
#[derive(Debug, Clone, Copy)]
struct Answered {
    status: StatusCode,
    length: Length,
    framing: Framing,
    /// How it is compressed, if it is.
    coding: Option<Coding>,
    /// Bytes of its head, as it came.
    received: usize,
    /// Whether the server takes another request.
    server_keeps: bool,
    /// Whether the client may ask again.
    client_keeps: bool,
    said: Said,
}

/// What is found where a response's head is to be.
enum Found {
    Answer(Answered),
    /// A response that is not the last one to its request.
    Interim {
        status: StatusCode,
        received: usize,
    },
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

    /// Sends the request's head, or what was said of it before, and of its
    /// body what is there.
    async fn send_head<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
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

/// What a response's head is written anew from.
struct ForThisRequest<'a> {
    worker: &'a Worker,
    client: &'a Client,
    asked: &'a Asked,
    server: &'a Server,
    exchange: &'a mut Exchange,
    upload: &'a Cell<Upload>,
    /// The client was told to send its body.
    invited: bool,
}

impl ForThisRequest<'_> {
    /// Waits for the response's head. It is in `out` then, which goes to the
    /// client; what comes before it is on its way there.
    async fn head<R, W, L>(
        &mut self,
        (input, from): (&mut Buffer, &mut R),
        (out, to): (&mut Vec<u8>, &mut W),
        patience: &Patience<'_>,
        client: &mut Pin<&mut L>,
    ) -> Result<Answered, Silence>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
        L: Future<Output = Heard>,
    {
        let mut interim = 0;
        loop {
            match self.find(input.filled(), out) {
                Ok(Some(Found::Answer(answered))) => return Ok(answered),
                Ok(Some(Found::Interim { .. })) if interim == MAX_INTERIM => {
                    return Err(FailureKind::Malformed.into());
                }
                Ok(Some(Found::Interim { status, received })) => {
                    interim += 1;
                    patience.watch.arrived(Waiting::Server);
                    input.consume(received);
                    let known = self.invited && status == StatusCode::CONTINUE;
                    if known || self.asked.version == Version::Http10 {
                        out.clear();
                    }
                    self.exchange.add_bytes_out(out.len() as u64);
                    let written =
                        pieces::write(to, out, b"", b"", Taker::Client(patience.watch)).await;
                    written.map_err(|_| Stop::ClientGone)?;
                    continue;
                }
                Ok(None) if input.filled().len() > MAX_HEAD => {
                    return Err(FailureKind::Malformed.into());
                }
                Ok(None) if input.is_full() => input.enlarge(),
                Ok(None) => {}
                Err(_) => return Err(FailureKind::Malformed.into()),
            }
            let read = poll_fn(|cx| {
                if let Poll::Ready(heard) = client.as_mut().poll(cx) {
                    return Poll::Ready(Err(Silence::Stop(heard.into())));
                }
                patience.poll(cx, |cx| input.poll_fill(from, cx))
            });
            if !matches!(read.await?, Ok(1..)) {
                return Err(FailureKind::Broken.into());
            }
        }
    }

    /// Finds a head in what has come of the response, and appends to `out`
    /// what it is to the client.
    fn find(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<Found>, Malformed> {
        if input.is_empty() {
            return Ok(None);
        }
        let found = Response::read(input, &self.asked.method, |response| {
            if response.size > MAX_HEAD {
                return Err(Malformed::Rule("too large a head"));
            }
            if response.is_interim() {
                heads::write_interim(response, out);
                return Ok(Found::Interim {
                    status: response.status,
                    received: response.size,
                });
            }
            if response.status == StatusCode::SWITCHING_PROTOCOLS && !self.asked.upgrade {
                return Err(Malformed::Rule("a switch that nobody asked for"));
            }
            Ok(Found::Answer(self.write(response, out)))
        })?;
        found.transpose()
    }

    /// What becomes of the response's content.
    fn coded(&self, response: &Response<'_, '_>) -> Coded {
        let offered = !self.worker.settings.compression.is_empty();
        let asked = self.asked;
        if !offered || asked.version == Version::Http10 {
            return Coded::AsItIs;
        }
        match asked.coding {
            _ if !compress::is_worth_it(response, &asked.method) => Coded::AsItIs,
            None => Coded::ForOthers,
            Some(coding) => Coded::By(coding),
        }
    }

    fn write(&mut self, response: &Response<'_, '_>, out: &mut Vec<u8>) -> Answered {
        let asked = self.asked;
        let server_keeps = response.keeps_alive();
        let stays_open = self.upload.get() == Upload::Done || server_keeps;
        let mut for_client = ForClient {
            version: asked.version,
            keep_alive: stays_open && self.client.may_ask_again(self.worker, asked),
            sticky: None,
            method: &asked.method,
            date: &|| self.worker.date.now(),
            why: None,
            coded: self.coded(response),
            hsts: self.client.hsts(self.worker),
        };
        let recoded = for_client.recodes(response.length);
        for_client.keep_alive &=
            recoded || matches!(response.length, Length::None | Length::Exact(_));
        let why = self.worker.why(self.exchange);
        for_client.why = why.as_deref();
        let binds = self.exchange.affinity() != Affinity::Valid;
        if let Some(cookie) = self.worker.settings.cookie.as_deref() {
            for_client.sticky = Some((cookie, binds.then_some(self.server.name.as_str())));
        }
        let said = for_client.write(response, out);
        if for_client.sticky.is_some() && binds {
            self.exchange.set_cookie_sent(CookieSent::Inserted);
        } else if said.cookie_taken {
            self.exchange.set_cookie_sent(CookieSent::Deleted);
        }
        let trailers = asked.takes_trailers;
        Answered {
            status: response.status,
            length: response.length,
            framing: if recoded {
                Framing::Chunks { trailers }
            } else {
                Framing::Plain
            },
            coding: match for_client.coded {
                Coded::By(coding) => Some(coding),
                Coded::AsItIs | Coded::ForOthers => None,
            },
            received: response.size,
            server_keeps,
            client_keeps: for_client.keep_alive,
            said,
        }
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

/// For how long a server is waited for.
struct Patience<'a> {
    wait: &'a Wait,
    watch: &'a Watch,
}

impl Patience<'_> {
    /// Polls what the server is to do, unless there is no hope any more.
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        what: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, Silence>> {
        if self.wait.is_abandoned(cx) {
            return Poll::Ready(Err(FailureKind::Abandoned.into()));
        }
        match what(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if self.watch.server_expired() => {
                Poll::Ready(Err(FailureKind::ResponseTimeout.into()))
            }
            Poll::Pending => {
                self.watch.wait_for_server();
                Poll::Pending
            }
        }
    }
}

/// How far a request's body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upload {
    /// It is on its way.
    Going,
    /// The server has all of it.
    Done,
    /// The server takes no more of it.
    Refused,
}

impl Upload {
    fn new(body: &Body) -> Self {
        if body.is_over() {
            Self::Done
        } else {
            Self::Going
        }
    }
}

/// What is heard of the client while the server answers.
enum Heard {
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
async fn listen<R, W>(
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
pub(super) async fn gone<R: AsyncRead + Unpin>(from: &mut R, input: &mut Buffer) {
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
