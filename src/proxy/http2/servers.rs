//! Connections to servers that speak HTTP/2: many requests share one.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    error::Error,
    fmt,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    time::Duration,
};

use h2::Reason;
use http::uri::Scheme;
use hyper::client::conn::{
    TrySendError,
    http2::{Builder, Connection, SendRequest},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex, split},
    sync::oneshot,
    task::{AbortHandle, spawn_local},
    time::{Instant, timeout},
};

use super::{
    Here, PIPE, SERVER_STREAM_WINDOW, SERVER_WINDOW, STREAMS,
    clients::Begun,
    heads,
    near::{Held, Near},
    opening::{Bell, Opener, Openings},
    pipe::{From, PipeBody, pump},
};
use crate::{
    http1::{Length, Request},
    pool::server::Life,
    proxy::{
        buffer::{Buffer, Buffers},
        stream::Stream,
        upstream::FailureKind,
    },
};

/// How long a connection may be without a request.
const IDLE: Duration = Duration::from_mins(1);

/// How often a server with requests is asked whether it is still there, and
/// how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of a stream is waited for whose response is not.
const LAST_FRAME: Duration = Duration::from_millis(100);

/// The answer to a request that HTTP/2 cannot carry, such as one whose target
/// has `<` in it. It is no fault of the server's.
const UNSAYABLE: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// What a server takes at a time, before it has said so.
const UNTOLD: usize = usize::MAX - 1;

/// One worker's connections to servers that speak HTTP/2.
#[derive(Default)]
pub(in crate::proxy) struct Multiplexed(RefCell<HashMap<Life, Shared>>);

/// Those to one server.
#[derive(Default)]
struct Shared {
    links: Vec<Link>,
    openings: Openings,
}

/// What there is for a request.
pub(in crate::proxy) enum Found {
    Link(Link),
    /// Nothing: it is to open a connection.
    Opens(Opener),
}

/// A connection to a server.
#[derive(Clone)]
pub(in crate::proxy) struct Link {
    sender: SendRequest<PipeBody>,
    scheme: Scheme,
    open: Rc<Cell<u32>>,
    /// A request was not answered on it: others had better take another.
    failed: Rc<Cell<bool>>,
    /// As many as the server takes at a time.
    most: Rc<Cell<usize>>,
    used: Rc<Cell<Instant>>,
    _driver: Rc<Driver>,
}

/// The task that has the connection, which ends with the last who uses it.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Multiplexed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multiplexed").finish_non_exhaustive()
    }
}

impl Multiplexed {
    /// A connection to that life of a server that takes another request.
    pub(in crate::proxy) fn find(&self, life: Life) -> Option<Link> {
        self.0.borrow_mut().get_mut(&life)?.find()
    }

    /// The same, once one is there that is being opened.
    pub(in crate::proxy) async fn wait(&self, life: Life) -> Result<Found, FailureKind> {
        loop {
            let waiter = {
                let mut all = self.0.borrow_mut();
                let shared = all.entry(life).or_default();
                if let Some(link) = shared.find() {
                    return Ok(Found::Link(link));
                }
                let Some(waiter) = shared.openings.wait() else {
                    let most = shared.links.iter().rev().find_map(Link::told);
                    let most = most.unwrap_or(STREAMS as usize);
                    return Ok(Found::Opens(shared.openings.begin(most)));
                };
                waiter
            };
            waiter.over().await?;
        }
    }

    /// Another one is there.
    pub(in crate::proxy) fn add(&self, life: Life, link: Link) {
        let mut all = self.0.borrow_mut();
        all.entry(life).or_default().links.push(link);
    }

    /// Keeps those that have been used lately, for as long as `limit` says
    /// of a server's at the most. What is in use goes on until its requests
    /// are answered.
    pub(in crate::proxy) fn keep(&self, limit: impl Fn(Life) -> Option<Duration>, now: Instant) {
        self.0
            .borrow_mut()
            .retain(|life, Shared { links, openings }| {
                let limit = limit(*life).unwrap_or_default().min(IDLE);
                links.retain(|link| {
                    let idle = link.open.get() == 0
                        && (link.failed.get() || now - link.used.get() >= limit);
                    !idle && !link.sender.is_closed()
                });
                !links.is_empty() || !openings.is_empty()
            });
    }
}

impl Shared {
    fn find(&mut self) -> Option<Link> {
        self.links.retain(|link| !link.sender.is_closed());
        let free = self.links.iter().find(|link| link.is_free());
        free.cloned()
    }
}

impl Link {
    /// Begins HTTP/2 on a connection, with prior knowledge (RFC 9113 §3.3) or
    /// after TLS has agreed on it. It is open for others once the server has
    /// said how many requests it takes.
    pub(in crate::proxy) async fn begin(
        stream: Stream,
        tls: bool,
        opener: Option<Opener>,
    ) -> io::Result<Self> {
        let looked = Rc::<Bell>::default();
        let io = TokioIo::new(Begun::whole(stream, &looked));
        let begun = Builder::new(Here)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(SERVER_STREAM_WINDOW)
            .initial_connection_window_size(SERVER_WINDOW)
            .initial_max_send_streams(UNTOLD)
            .handshake(io)
            .await;
        let (sender, connection) = begun.map_err(io::Error::other)?;
        let most = Rc::new(Cell::new(UNTOLD));
        let driver = drive(connection, Rc::clone(&most), looked, opener);
        let driver = spawn_local(driver);
        let mut link = Self {
            sender,
            scheme: if tls { Scheme::HTTPS } else { Scheme::HTTP },
            open: Rc::default(),
            failed: Rc::default(),
            most,
            used: Rc::new(Cell::new(Instant::now())),
            _driver: Rc::new(Driver(driver.abort_handle())),
        };
        link.sender.ready().await.map_err(io::Error::other)?;
        Ok(link)
    }

    /// How many requests it takes at a time.
    fn most(&self) -> usize {
        // Whoever has opened it has sent one.
        self.told().unwrap_or(1)
    }

    /// The same, once the server has said so.
    fn told(&self) -> Option<usize> {
        let most = Some(self.most.get()).filter(|most| *most != UNTOLD);
        most.map(|most| most.min(STREAMS as usize))
    }

    fn is_free(&self) -> bool {
        let usable = self.sender.is_ready() && !self.failed.get();
        usable && (self.open.get() as usize) < self.most()
    }

    /// A connection of HTTP/1.1, of which the first request becomes a stream.
    pub(in crate::proxy) fn open(self, buffers: &Rc<Buffers>) -> Stream {
        let (near, far) = duplex(PIPE);
        let (near, held, hung_up) = Near::new(near);
        self.open.set(self.open.get() + 1);
        let input = Buffer::new(buffers);
        spawn_local(async move {
            // Who waits sees the pipe end.
            self.carry(far, input, &held, hung_up).await.ok();
            self.open.set(self.open.get() - 1);
            self.used.set(Instant::now());
        });
        Stream::Http2(Box::new(RefCell::new(near)))
    }

    /// Carries one request and its response. Ends early, which resets the
    /// stream, once nobody waits for the response any more.
    async fn carry(
        &self,
        far: DuplexStream,
        input: Buffer,
        held: &Held,
        hung_up: oneshot::Receiver<()>,
    ) -> io::Result<()> {
        let (mut from, mut to) = split(far);
        let (input, request) = self.read_head(&mut from, input).await?;
        let Some((made, length)) = request else {
            return to.write_all(UNSAYABLE).await;
        };
        let method = made.method().clone();
        let answered = Cell::new(false);
        let exchange = async {
            let body = PipeBody::new(length, input, from, None);
            let mut sender = self.sender.clone();
            let response = sender.try_send_request(made.map(|()| body)).await;
            if let Err(failure) = &response {
                self.failed.set(true);
                if is_unprocessed(failure) {
                    held.is_unprocessed();
                }
            }
            let response = response.map_err(|failure| io::Error::other(failure.into_error()));
            let (parts, body) = response?.into_parts();
            if parts.status.is_informational() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            answered.set(true);
            let ended = hyper::body::Body::is_end_stream(&body);
            let (head, chunked) = heads::response_text(&parts, &method, ended);
            to.write_all(&head).await?;
            if ended {
                return Ok(());
            }
            pump(body, &mut to, chunked).await
        };
        let mut exchange = pin!(exchange);
        tokio::select! {
            carried = &mut exchange => return carried,
            _ = hung_up => {}
        }
        if answered.get() {
            // It may have all it wants, with the end of the stream to come.
            timeout(LAST_FRAME, exchange).await.ok();
        }
        Ok(())
    }

    async fn read_head(
        &self,
        from: &mut From,
        mut input: Buffer,
    ) -> io::Result<(Buffer, Option<(http::Request<()>, Length)>)> {
        loop {
            let read = Request::read(input.filled(), |request| {
                let made = heads::request_parts(request, self.scheme.clone());
                (request.size, made.ok().map(|made| (made, request.length)))
            });
            if let Some((size, made)) = read.map_err(io::Error::other)? {
                input.consume(size);
                return Ok((input, made));
            }
            if input.is_full() {
                input.enlarge();
            }
            if input.fill(from).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Runs a connection to its end.
async fn drive(
    mut connection: Connection<TokioIo<Begun>, PipeBody, Here>,
    most: Rc<Cell<usize>>,
    looked: Rc<Bell>,
    mut opener: Option<Opener>,
) {
    let driven = poll_fn(|cx| {
        let driven = Pin::new(&mut connection).poll(cx);
        most.set(connection.current_max_send_streams());
        if most.get() == UNTOLD {
            looked.set(cx);
        } else {
            opener = None;
        }
        driven
    });
    // Its requests are told when it breaks.
    driven.await.ok();
    if let Some(opener) = opener {
        opener.fail(FailureKind::Broken);
    }
}

/// Whether it is certain that the server has not acted on the request, and
/// that it never will (RFC 9113 §8.7): it has said so, or has not got it.
fn is_unprocessed<T>(failure: &TrySendError<T>) -> bool {
    if failure.message().is_some() {
        return true;
    }
    let cause = failure.error().source();
    let cause = cause.and_then(|cause| cause.downcast_ref::<h2::Error>());
    // A stream fails with the server's GOAWAY only if that says that it was
    // not processed; others go on, or fail with the connection.
    cause.is_some_and(|err| {
        err.is_remote() && (err.is_go_away() || err.reason() == Some(Reason::REFUSED_STREAM))
    })
}
