//! A client's connection that speaks HTTP/2.

use std::{
    cell::Cell,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, Request, Response, StatusCode, header};
use hyper::{
    body::{Body, Incoming},
    ext::Protocol,
    server::conn::http2::Builder,
    service::service_fn,
    upgrade::{OnUpgrade, on},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::RngExt;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, WriteHalf, copy_bidirectional, split},
    io::{DuplexStream, duplex},
    sync::{Notify, Semaphore},
    task::spawn_local,
    time::{Instant, sleep, sleep_until},
};

use super::{
    CONNECTION_WINDOW, PIPE, STREAM_WINDOW, STREAMS, heads,
    opening::Bell,
    pipe::{Along, From, PipeBody, pump},
};
use crate::{
    http1::{self, Length},
    proxy::{
        Worker,
        buffer::{Buffer, SMALL},
        connection::{self, Guest},
        control::Talk,
        door::Known,
        stream::{ReadHalf, Stream, WriteHalf as StreamWriter},
    },
};

/// What a client that speaks HTTP/2 says first (RFC 9113 §3.4).
pub(in crate::proxy) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest list of fields that is taken, in octets as RFC 9113 §10.5.1
/// counts them.
const MAX_FIELDS: u32 = SMALL as u32;

/// What waits to be sent on a stream before its writer has to wait.
const SEND_BUFFER: usize = 64 * 1024;

/// How often a client with open streams is asked whether it is still there,
/// and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a connection without streams may take to say goodbye. Its client
/// may still be receiving what it was sent last.
const GOODBYE: Duration = Duration::from_secs(5);

/// The most requests that a client may take back before they are answered,
/// within so long a time. A browser that leaves a page takes back all of its
/// up to 100; who goes on and on has us and the servers work for nothing
/// (CVE-2023-44487, "rapid reset"; `HAProxy` counts glitches).
const TAKEN_BACK: u32 = 500;
const TAKEN_BACK_WITHIN: Duration = Duration::from_secs(10);

/// Serves the streams of a connection until its end. `input` is what was read
/// of it: the preface, and what came with it.
pub(in crate::proxy) async fn serve(
    worker: &Rc<Worker>,
    stream: Stream,
    input: Buffer,
    guest: Guest,
) {
    let guest = Guest {
        http2: true,
        ..guest
    };
    worker.ledger.all().http2_connections.inc();
    let streams = Rc::new(Streams::new(Instant::now()));
    let service = service_fn(|request| {
        let open = Open::count(&streams);
        answer(Rc::clone(worker), guest.clone(), open, request)
    });
    let input = Some(input);
    let looked = None;
    let io = TokioIo::new(Begun {
        stream,
        input,
        looked,
    });
    let runner = Runner {
        streams: Rc::clone(&streams),
        patience: worker.timeouts.client,
    };
    let serving = Builder::new(runner)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_FIELDS)
        .max_send_buf_size(SEND_BUFFER)
        .enable_connect_protocol()
        .auto_date_header(false)
        .serve_connection(io, service);
    let mut serving = pin!(serving);
    tokio::select! {
        // The client is gone, or broke a rule of the protocol.
        _ = &mut serving => return,
        () = worker.draining.cancelled() => {}
        () = streams.idle_for_too_long(worker) => {}
        () = streams.abused() => return,
    }
    serving.as_mut().graceful_shutdown();
    tokio::select! {
        _ = &mut serving => {}
        () = streams.gone() => {}
        () = streams.abused() => {}
    }
}

/// How many streams of a connection are open, and since when none is.
struct Streams {
    open: Cell<u32>,
    any: Cell<bool>,
    idle_since: Cell<Instant>,
    /// One permit for each that may be a request at the same time. A stream
    /// that its client has reset counts for the protocol no longer, and for a
    /// server until it has noticed.
    requests: Arc<Semaphore>,
    /// How many were taken back since then.
    taken_back: Cell<(u32, Instant)>,
    abused: Notify,
    /// The stream that has just been opened, for who is going to run it.
    newest: Cell<Option<Rc<Open>>>,
}

impl Streams {
    fn new(now: Instant) -> Self {
        Self {
            open: Cell::new(0),
            any: Cell::new(false),
            idle_since: Cell::new(now),
            requests: Arc::new(Semaphore::new(STREAMS as usize)),
            taken_back: Cell::new((0, now)),
            abused: Notify::new(),
            newest: Cell::new(None),
        }
    }

    /// A client has reset a stream that was not answered.
    fn take_back(&self, now: Instant) {
        let (count, since) = self.taken_back.get();
        let (count, since) = if now - since < TAKEN_BACK_WITHIN {
            (count + 1, since)
        } else {
            (1, now)
        };
        self.taken_back.set((count, since));
        if count > TAKEN_BACK {
            self.abused.notify_one();
        }
    }

    /// Waits until the client has taken back too much.
    async fn abused(&self) {
        self.abused.notified().await;
    }

    /// Waits until none has been open for longer than a connection is kept.
    async fn idle_for_too_long(&self, worker: &Worker) {
        loop {
            let limit = if self.any.get() {
                worker.timeouts.keep_alive
            } else {
                worker.timeouts.http_request
            };
            if self.open.get() > 0 {
                sleep(limit).await;
                continue;
            }
            let deadline = self.idle_since.get() + limit;
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }

    /// Waits until none has been open for as long as a goodbye may take.
    async fn gone(&self) {
        const LOOK: Duration = Duration::from_millis(100);
        let begun = Instant::now();
        loop {
            if self.open.get() > 0 {
                sleep(LOOK).await;
                continue;
            }
            let deadline = self.idle_since.get().max(begun) + GOODBYE;
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}

/// Counts a stream for as long as it is open.
struct Open {
    streams: Rc<Streams>,
    /// Pieces of its response that its client had room for.
    taken: Rc<Cell<u64>>,
    /// The connection inside has ended.
    ended: Notify,
}

impl Open {
    fn count(streams: &Rc<Streams>) -> Rc<Self> {
        streams.open.set(streams.open.get() + 1);
        streams.any.set(true);
        let open = Rc::new(Self {
            streams: Rc::clone(streams),
            taken: Rc::default(),
            ended: Notify::new(),
        });
        streams.newest.set(Some(Rc::clone(&open)));
        open
    }

    /// Waits until the connection inside has ended, and the client has taken
    /// nothing of what is left of the response for as long as `patience`.
    async fn forgotten(&self, patience: Duration) {
        self.ended.notified().await;
        let mut taken = None;
        while taken.replace(self.taken.get()) != Some(self.taken.get()) {
            sleep(patience).await;
        }
    }
}

/// Runs streams, each until its end or until it is forgotten: nothing polls a
/// body that its client gives no room, and so nothing sees that it has ended.
#[derive(Clone)]
struct Runner {
    streams: Rc<Streams>,
    patience: Duration,
}

impl<F> hyper::rt::Executor<F> for Runner
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        let (open, patience) = (self.streams.newest.take(), self.patience);
        spawn_local(async move {
            let Some(open) = open else {
                // A stream that has switched protocols, and has limits inside.
                return task.await;
            };
            tokio::select! {
                () = task => {}
                // Which resets it.
                () = open.forgotten(patience) => {}
            }
        });
    }
}

/// Says that the connection inside a stream has ended.
struct Inside(Rc<Open>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.ended.notify_one();
    }
}

/// A request that has not been answered. Dropped, it was taken back.
struct Unanswered(Option<Rc<Open>>);

impl Unanswered {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.streams.take_back(Instant::now());
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let streams = &self.streams;
        streams.open.set(streams.open.get() - 1);
        streams.idle_since.set(Instant::now());
    }
}

/// Why a stream is reset.
#[derive(Debug, thiserror::Error)]
enum Reset {
    #[error("the connection inside ended")]
    Inside(#[from] io::Error),
    #[error("no response: {0}")]
    Response(#[from] http1::Malformed),
}

/// Has one request answered by a connection of HTTP/1.1 that has its stream's
/// other end.
async fn answer(
    worker: Rc<Worker>,
    guest: Guest,
    open: Rc<Open>,
    request: Request<Incoming>,
) -> Result<Response<PipeBody>, Reset> {
    let unanswered = Unanswered(Some(Rc::clone(&open)));
    let answered = converse(&worker, guest, open, request).await;
    unanswered.answered();
    answered
}

async fn converse(
    worker: &Rc<Worker>,
    guest: Guest,
    open: Rc<Open>,
    mut request: Request<Incoming>,
) -> Result<Response<PipeBody>, Reset> {
    let protocol = request.extensions().get::<Protocol>().cloned();
    let upgrade = protocol.is_some().then(|| on(&mut request));
    let (parts, body) = request.into_parts();
    let has_body = upgrade.is_none() && !body.is_end_stream();
    let key = STANDARD.encode(rand::rng().random::<[u8; 16]>());
    let asked = protocol.as_ref().map(|name| (name.as_str(), key.as_str()));
    let head = heads::request_text(&parts, has_body, asked);
    let method = match asked {
        Some(_) => Method::GET,
        None => parts.method,
    };

    let (near, far) = duplex(PIPE);
    begin(worker, near, guest, &open).await;
    let (mut from, mut to) = split(far);
    to.write_all(&head).await?;
    let chunked = !parts.headers.contains_key(header::CONTENT_LENGTH);
    let upload = async move {
        if has_body && pump(body, &mut to, chunked).await.is_err() {
            // It is not read any more, and the response may say why.
        }
        to
    };
    if let Some(upgrade) = upgrade {
        let to = upload.await;
        let (input, (status, fields, length)) = read_head(worker, &mut from, &method).await?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            spawn_local(tunnel(upgrade, input, from, to));
            return Ok(respond(StatusCode::OK, fields, nothing(worker)));
        }
        if status.is_success() {
            // It did not switch, which success would say (RFC 8441 §5).
            let none = http::HeaderMap::new();
            return Ok(respond(StatusCode::BAD_GATEWAY, none, nothing(worker)));
        }
        let taken = Rc::clone(&open.taken);
        let body = PipeBody::new(length, input, from, Some(Box::new(open)));
        return Ok(respond(status, fields, body.counting(taken)));
    }
    let upload = Along(spawn_local(upload).abort_handle());
    let (input, (status, fields, length)) = read_head(worker, &mut from, &method).await?;
    let taken = Rc::clone(&open.taken);
    let along = Some(Box::new((upload, open)) as Box<_>);
    let body = PipeBody::new(length, input, from, along);
    Ok(respond(status, fields, body.counting(taken)))
}

/// Serves the near end of the pipe as any other connection, once there is room
/// for another request.
async fn begin(worker: &Rc<Worker>, near: DuplexStream, guest: Guest, open: &Rc<Open>) {
    let room = Arc::clone(&open.streams.requests).acquire_owned().await;
    let talk = Talk::new(&worker.control, guest.peer);
    let (serves, known) = (Rc::clone(worker), Rc::clone(&talk));
    let inside = Inside(Rc::clone(open));
    let serving = async move {
        let _counted = (inside, room);
        let _known = Known(&serves, &known);
        connection::serve(&serves, Stream::layered(near), guest, &known).await;
    };
    let task = spawn_local(worker.connections.track_future(serving));
    worker.known.add(talk, task.abort_handle());
}

type Head = (StatusCode, http::HeaderMap, Length);

/// Waits for the head of the response that counts.
async fn read_head(
    worker: &Worker,
    from: &mut From,
    method: &Method,
) -> Result<(Buffer, Head), Reset> {
    let mut input = Buffer::new(&worker.buffers);
    loop {
        let read = http1::Response::read(input.filled(), method, |response| {
            let (status, fields) = heads::response_parts(response);
            (
                response.is_interim(),
                response.size,
                (status, fields, response.length),
            )
        });
        match read? {
            Some((interim, size, head)) => {
                input.consume(size);
                if !interim {
                    return Ok((input, head));
                }
                continue;
            }
            None if input.is_full() => input.enlarge(),
            None => {}
        }
        if input.fill(from).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

fn respond(status: StatusCode, fields: http::HeaderMap, body: PipeBody) -> Response<PipeBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}

fn nothing(worker: &Worker) -> PipeBody {
    let (from, _) = split(duplex(1).0);
    PipeBody::new(Length::None, Buffer::new(&worker.buffers), from, None)
}

/// Carries bytes between a stream that switched protocols (RFC 8441) and the
/// tunnel that its other end has become, whose limits end both.
async fn tunnel(upgrade: OnUpgrade, input: Buffer, from: From, to: WriteHalf<DuplexStream>) {
    let Ok(upgraded) = upgrade.await else {
        return;
    };
    let (mut client, mut inside) = (TokioIo::new(upgraded), from.unsplit(to));
    let carried = async {
        client.write_all(input.filled()).await?;
        drop(input);
        copy_bidirectional(&mut client, &mut inside).await
    };
    // Whoever broke off knows.
    carried.await.ok();
}

/// A connection of which something may have been read already.
pub(super) struct Begun {
    stream: Stream,
    input: Option<Buffer>,
    /// Told whenever more is looked for.
    looked: Option<Rc<Bell>>,
}

impl Begun {
    /// Nothing was read.
    pub(super) fn whole(stream: Stream, looked: &Rc<Bell>) -> Self {
        Self {
            stream,
            input: None,
            looked: Some(Rc::clone(looked)),
        }
    }

    fn halves(&mut self) -> (ReadHalf<'_>, StreamWriter<'_>) {
        self.stream.split()
    }
}

impl AsyncRead for Begun {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(looked) = &this.looked {
            looked.ring();
        }
        let Some(input) = &mut this.input else {
            return Pin::new(&mut this.halves().0).poll_read(cx, room);
        };
        let there = input.filled();
        let taken = there.len().min(room.remaining());
        room.put_slice(there.get(..taken).unwrap_or_default());
        input.consume(taken);
        if input.is_empty() {
            this.input = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().halves().1).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().halves().1).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().halves().1).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().halves().1).poll_shutdown(cx)
    }
}
