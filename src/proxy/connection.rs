//! One client connection from accept to close.

use std::{
    cell::Cell,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    task::{Poll, ready},
    time::Duration,
};

use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Worker,
    access_log::{BadRequest, RequestLine},
    buffer::Buffer,
    compress::{self, Coding},
    control::Talk,
    error::Error,
    forwarded::{self, Origin},
    heads::{self, ForServer},
    http2, redirect,
    service::{self, After},
    stream::Stream,
    upgrade::{Limits, Tunnel},
    watch::{Expired, Watch},
};
use crate::{
    cidr::any_contains,
    http1::{Known, Length, Request, Version},
    proxy_protocol::Header,
};

/// How long a closed connection is read on, so that a client that is still
/// sending sees our answer and not a reset (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);

/// How long a connection that has asked nothing yet may still begin to, once
/// the word to drain is given: its client has just connected, or never asks.
pub(super) const LAST_CHANCE: Duration = Duration::from_secs(1);

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    /// The client's address.
    pub(super) peer: SocketAddr,
    /// It speaks HTTP/2, and this is one of its streams.
    pub(super) http2: bool,
    /// What servers are told of it.
    pub(super) origin: Rc<Origin>,
}

/// A client connection, as its requests see it.
#[derive(Debug)]
pub(super) struct Client {
    /// The client's address.
    pub(super) peer: SocketAddr,
    /// It speaks HTTP/2, and this is one of its streams.
    pub(super) http2: bool,
    /// What servers are told of it.
    origin: Rc<Origin>,
    /// What the connection waits for.
    pub(super) watch: Watch,
    /// What operators see of it.
    pub(super) talk: Rc<Talk>,
    /// Bytes of the present request's body that have gone to a server.
    pub(super) body_bytes: Cell<u64>,
    /// The present request is the last one: the word to drain was given.
    last: Cell<bool>,
    /// A request has come.
    asked: Cell<bool>,
}

/// The client's end of the connection.
#[derive(Debug)]
pub(super) struct Wire {
    /// The connection.
    pub(super) stream: Stream,
    /// What was read of the request's body, and what the client has sent
    /// ahead.
    pub(super) input: Buffer,
}

/// A request that is to be answered.
#[derive(Debug)]
pub(super) struct Asked {
    /// Its method.
    pub(super) method: Method,
    /// Its version.
    pub(super) version: Version,
    /// Where it is to be asked again, over TLS.
    pub(super) redirect: Option<Box<str>>,
    /// Its head for servers.
    pub(super) head: Vec<u8>,
    /// The value of its sticky cookie.
    pub(super) cookie: Option<String>,
    /// How long its body is.
    pub(super) length: Length,
    /// Whether it waits for 100.
    pub(super) expects_continue: bool,
    /// Whether it takes trailers.
    pub(super) takes_trailers: bool,
    /// Whose it is to limits that hold for each source.
    pub(super) source: IpAddr,
    /// How its response may be compressed.
    pub(super) coding: Option<Coding>,
    /// Whether it asks to switch protocols.
    pub(super) upgrade: bool,
    /// Its first line, for the log.
    pub(super) line: Option<RequestLine>,
    /// Bytes of its head, as it came.
    pub(super) size: usize,
    /// Whether its client wants to ask again.
    pub(super) keeps_alive: bool,
}

/// How a connection came to its end.
enum End {
    /// Nothing more is to be said on it. The client may not know that yet.
    Closed,
    /// The client is gone, or has been told before.
    Gone,
    /// It carries another protocol from here on.
    Tunnel(Box<Tunnel>),
    /// Its client speaks HTTP/2.
    Http2,
    /// It waited too long.
    Expired(Expired),
}

/// Serves requests on a connection until its end. Gives it back where the
/// client turns out to speak HTTP/2, with what was read of it.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    stream: Stream,
    guest: Guest,
    talk: &Rc<Talk>,
) -> Option<(Stream, Buffer)> {
    let client = Rc::new(Client {
        peer: guest.peer,
        http2: guest.http2,
        origin: guest.origin,
        watch: Watch::new(&worker.timeouts, Instant::now()),
        talk: Rc::clone(talk),
        body_bytes: Cell::new(0),
        last: Cell::new(false),
        asked: Cell::new(false),
    });
    let mut wire = Wire {
        stream,
        input: Buffer::new(&worker.buffers),
    };
    let end = drive(worker, &client, &mut wire).await;
    // What comes last is behind a pointer: a connection is idle for longer.
    match end {
        End::Tunnel(tunnel) => {
            let limits = Limits {
                idle: worker.timeouts.tunnel,
                half_closed: worker.timeouts.client,
            };
            Box::pin(tunnel.run((wire.stream, wire.input), limits)).await;
        }
        End::Http2 => return Some((wire.stream, wire.input)),
        End::Gone | End::Expired(Expired::Client) => {}
        End::Closed | End::Expired(_) => {
            let words = worker.last_words(&client, &end, &wire);
            Box::pin(say_goodbye(wire.stream, words)).await;
        }
    }
    None
}

/// Polls the connection and its one timer.
///
/// The timer is only moved when a wait ends before it, or when it fires: most
/// requests come and go without touching it.
async fn drive(worker: &Rc<Worker>, client: &Rc<Client>, wire: &mut Wire) -> End {
    let watch = &client.watch;
    let mut requests = pin!(requests(worker, client, wire));
    let mut timer = pin!(sleep_until(watch.deadline().unwrap_or_else(Instant::now)));
    let mut timer_runs = false;
    let mut bell = pin!(worker.last_orders.bell.notified());
    // Whether it is going to wake this task.
    let mut listens = false;
    let mut told_to_drain = false;
    poll_fn(|cx| {
        watch.wake(Instant::now());
        if !listens {
            listens = bell.as_mut().poll(cx).is_pending();
        }
        if !told_to_drain && worker.last_orders.called.get() {
            told_to_drain = true;
            watch.hurry(LAST_CHANCE, watch.now());
        }
        loop {
            if let Poll::Ready(end) = requests.as_mut().poll(cx) {
                return Poll::Ready(end);
            }
            // Only now has it read what waited in the socket. Told earlier,
            // it would close although a request is there.
            if told_to_drain && !client.last.get() && !watch.expects_first_request() {
                client.last.set(true);
                continue;
            }
            let Some(deadline) = watch.deadline() else {
                return Poll::Pending;
            };
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
                timer_runs = false;
            }
            // It wakes this task, and no other, so it need not be asked before
            // its time.
            if timer_runs && !timer.is_elapsed() {
                return Poll::Pending;
            }
            timer_runs = timer.as_mut().poll(cx).is_pending();
            if timer_runs {
                return Poll::Pending;
            }
            match watch.expire(watch.now()) {
                // The exchange sees it when it is polled, and answers.
                Some(Expired::Server) => {}
                Some(expired) => return Poll::Ready(End::Expired(expired)),
                None => timer.as_mut().reset(deadline),
            }
        }
    })
    .await
}

/// Answers one request after the other.
async fn requests(worker: &Rc<Worker>, client: &Rc<Client>, wire: &mut Wire) -> End {
    loop {
        let next = next(worker, client, wire).await;
        // Behind a pointer: most connections are idle most of the time.
        let after = Box::pin(respond(worker, client, wire, next)).await;
        match after {
            After::Next => {}
            After::Close => return End::Closed,
            After::Gone => return End::Gone,
            After::Tunnel(tunnel) => return End::Tunnel(tunnel),
            After::Http2 => return End::Http2,
        }
    }
}

/// What comes next on a connection.
enum Next {
    /// A request.
    Asked(Asked),
    /// Something that is no request, or none for us.
    Refused(Refused),
    /// Nothing: the client has closed.
    Nothing,
    /// The client has closed in the middle of a head.
    BrokenOff,
    /// Nothing was asked, and nothing more is to be.
    Draining,
    /// The preface of HTTP/2.
    Http2,
}

impl Next {
    fn refused(error: Error) -> Self {
        Self::Refused(Refused {
            error,
            line: None,
            size: 0,
        })
    }
}

/// Why a request is not served.
struct Refused {
    error: Error,
    /// Its first line, for the log, if it could be read.
    line: Option<RequestLine>,
    /// Bytes of its head that are not in the buffer any more.
    size: usize,
}

async fn respond(worker: &Rc<Worker>, client: &Rc<Client>, wire: &mut Wire, next: Next) -> After {
    match next {
        Next::Asked(asked) => service::answer(worker, client, wire, asked).await,
        Next::Refused(refused) => {
            refuse(worker, client, wire, refused).await;
            After::Close
        }
        Next::Nothing => After::Gone,
        Next::BrokenOff => {
            let what = BadRequest::broken_off(wire.input.filled().len() as u64);
            worker.log_bad_request(client, None, what);
            After::Gone
        }
        Next::Draining => After::Close,
        Next::Http2 => After::Http2,
    }
}

async fn next(worker: &Worker, client: &Client, wire: &mut Wire) -> Next {
    let mut looked_at = 0;
    loop {
        skip_empty_lines(&mut wire.input);
        let there = wire.input.filled();
        if !there.is_empty() {
            client.watch.read();
        }
        // A head that dribbles in is not read from its beginning every time.
        if there.len() > looked_at && (looked_at == 0 || may_end_behind(there, looked_at)) {
            let read = Request::read(there, |request| worker.prepare(client, request));
            match read {
                Ok(Some(Ok(asked))) => {
                    wire.input.consume(asked.size);
                    client.asked.set(true);
                    return Next::Asked(asked);
                }
                Ok(Some(Err(refused))) => {
                    wire.input.consume(refused.size);
                    return Next::Refused(refused);
                }
                Ok(None) => {}
                Err(_) if begins_http2(there, client) => {
                    if there.len() >= http2::PREFACE.len() {
                        return Next::Http2;
                    }
                }
                Err(malformed) => return Next::refused(malformed.into()),
            }
        }
        looked_at = there.len();
        if wire.input.is_full() {
            return Next::refused(too_large(wire.input.filled()));
        }
        let Wire { stream, input } = &mut *wire;
        let (mut from, _) = stream.split();
        let read = poll_fn(|cx| {
            if client.last.get() && input.is_empty() {
                return Poll::Ready(None);
            }
            Poll::Ready(Some(ready!(input.poll_fill(&mut from, cx))))
        });
        match read.await {
            None => return Next::Draining,
            Some(Ok(1..)) => {}
            Some(_) if wire.input.is_empty() => return Next::Nothing,
            Some(_) => return Next::BrokenOff,
        }
    }
}

/// RFC 9112 §2.2: empty lines before a request are nothing, such as the one
/// that some clients send behind a body.
fn skip_empty_lines(input: &mut Buffer) {
    while input.filled().starts_with(b"\r\n") {
        input.consume(2);
    }
}

/// Whether it is what HTTP/2 begins with, as far as it is there: with prior
/// knowledge, or because TLS has agreed on it (RFC 9113 §3.2 and §3.3).
fn begins_http2(there: &[u8], client: &Client) -> bool {
    let common = there.len().min(http2::PREFACE.len());
    client.has_asked_nothing() && there.get(..common) == http2::PREFACE.get(..common)
}

/// Whether a head may be complete with what stands behind `seen` bytes of it.
fn may_end_behind(head: &[u8], seen: usize) -> bool {
    let new = head.get(seen.saturating_sub(3)..).unwrap_or_default();
    memchr::memmem::find(new, b"\n\r\n").is_some() || memchr::memmem::find(new, b"\n\n").is_some()
}

/// RFC 9112 §3: of a head that is too large the target may be the part that is.
fn too_large(head: &[u8]) -> Error {
    if memchr::memchr(b'\n', head).is_none() {
        Error::TargetTooLong
    } else {
        Error::HeadTooLarge
    }
}

impl Worker {
    /// Makes a request ready for servers, unless it is to be refused.
    fn prepare(&self, client: &Client, request: &Request<'_, '_>) -> Result<Asked, Refused> {
        let line = self
            .access_log
            .is_some()
            .then(|| RequestLine::new(request, client.http2));
        if let Some(error) = objection(request) {
            return Err(Refused {
                error,
                line,
                size: request.size,
            });
        }
        let sticky = self.settings.cookie.as_deref();
        let https = self.settings.redirect_https;
        let redirect = https.filter(|_| !client.origin.was_asked_securely(request));
        let redirect = redirect.map(|port| redirect::location(request, &client.origin, port));
        let ForServer { head, cookie } = heads::for_server(request, &client.origin, sticky);
        Ok(Asked {
            method: request.method.clone(),
            version: request.version,
            redirect,
            head,
            cookie,
            length: request.length,
            expects_continue: request.expects_continue && request.version == Version::Http11,
            // A reader of HTTP/2 takes them, whether it says so or not.
            takes_trailers: request.takes_trailers || client.http2,
            source: self.source(client, request),
            coding: self.coding(request),
            upgrade: request.upgrade.is_some(),
            line,
            size: request.size,
            keeps_alive: request.keeps_alive(),
        })
    }

    /// Whose a request is: the client's, or where that is a proxy that is
    /// trusted, whose it says it is. Looked for only where it matters.
    fn source(&self, client: &Client, request: &Request<'_, '_>) -> IpAddr {
        let (peer, trusted) = (client.peer.ip(), &self.settings.forwarded.trusted);
        if self.rate_limit.is_none() || !any_contains(trusted, peer) {
            return peer;
        }
        let said: Vec<&[u8]> = request.fields.values(Known::XForwardedFor).collect();
        forwarded::source(peer, said.into_iter(), trusted)
    }

    /// How a response may be compressed, if it may.
    fn coding(&self, request: &Request<'_, '_>) -> Option<Coding> {
        let offered = self.settings.compression.as_slice();
        if offered.is_empty() {
            return None;
        }
        let accepts = request
            .fields
            .iter()
            .filter(|(_, field)| field.name.eq_ignore_ascii_case("accept-encoding"));
        let values: Vec<&str> = accepts
            .filter_map(|(_, field)| std::str::from_utf8(field.value).ok())
            .collect();
        compress::choose(offered, &values.join(","))
    }

    /// What a client is told whose connection ends before its time.
    fn last_words(&self, client: &Client, end: &End, wire: &Wire) -> Vec<u8> {
        let words = || Error::RequestTimeout.last_words();
        match end {
            End::Expired(Expired::Head) => {
                let (read, words) = (wire.input.filled().len(), words());
                self.log_refusal(client, None, Error::RequestTimeout, read, words.len());
                words
            }
            // Its exchange has logged it.
            End::Expired(Expired::Body) => words(),
            _ => Vec::new(),
        }
    }

    fn log_refusal(
        &self,
        client: &Client,
        line: Option<RequestLine>,
        error: Error,
        bytes_in: usize,
        bytes_out: usize,
    ) {
        let what = BadRequest::refused(error, bytes_in as u64, bytes_out as u64);
        self.log_bad_request(client, line, what);
    }

    fn log_bad_request(&self, client: &Client, line: Option<RequestLine>, what: BadRequest) {
        let all = self.ledger.all();
        let status = what.status.as_u16();
        if what.status == http::StatusCode::METHOD_NOT_ALLOWED {
            all.denied(status);
        } else {
            all.unread(status);
        }
        if let Some(log) = &self.access_log {
            let connections = self.ledger.shared().frontend.connections.get();
            // What was sent ahead of its turn has taken no time.
            let took = client
                .watch
                .head_arrives_since()
                .map(|since| client.watch.now() - since);
            log.write_bad_request(
                client.peer,
                took.unwrap_or_default(),
                connections,
                line,
                what,
            );
        }
    }
}

/// What speaks against a request that is well-formed.
fn objection(request: &Request<'_, '_>) -> Option<Error> {
    let bodiless = matches!(request.method, Method::GET | Method::HEAD | Method::DELETE);
    if request.method == Method::CONNECT {
        Some(Error::MethodNotAllowed)
    } else if request.version == Version::Http10 && bodiless && request.has_body() {
        Some(Error::PayloadTooLarge)
    } else {
        None
    }
}

/// Answers what is no request, or none for us.
async fn refuse(worker: &Worker, client: &Client, wire: &mut Wire, refused: Refused) {
    let Refused { error, line, size } = refused;
    let words = error.last_words();
    let read = size + wire.input.filled().len();
    worker.log_refusal(client, line, error, read, words.len());
    let (_, mut to) = wire.stream.split();
    timeout(LINGER, to.write_all(&words)).await.ok();
}

impl Client {
    /// Whether its first request is yet to come.
    fn has_asked_nothing(&self) -> bool {
        !self.http2 && !self.asked.get()
    }

    /// What a server is told of it before anything else (`send-proxy`).
    pub(super) fn introduction(&self) -> Header {
        Header::proxied(self.peer, self.origin.local())
    }

    /// How the client is to ask from now on, where it may be told.
    pub(super) fn hsts<'a>(&self, worker: &'a Worker) -> Option<&'a str> {
        let hsts = worker.settings.hsts.as_deref();
        hsts.filter(|_| self.origin.is_secure())
    }

    /// Whether the client may ask again once this request is answered.
    pub(super) fn may_ask_again(&self, worker: &Worker, asked: &Asked) -> bool {
        // Looked up as late as can be: the end may have come near meanwhile.
        asked.keeps_alive && !self.last.get() && !worker.ending.load(Relaxed)
    }
}

/// Says `words` and goodbye, then reads what the client still sends.
async fn say_goodbye(mut stream: Stream, words: Vec<u8>) {
    let (mut from, mut to) = stream.split();
    let goodbye = async {
        // The client may be gone; there is nobody else to tell.
        if to.write_all(&words).await.is_err() || to.shutdown().await.is_err() {
            return;
        }
        let mut rest = vec![0; 4096];
        while matches!(from.read(&mut rest).await, Ok(read) if read > 0) {}
    };
    timeout(LINGER, goodbye).await.ok();
}
