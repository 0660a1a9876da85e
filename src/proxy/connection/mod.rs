//! One client connection from accept to close.

mod next;

use std::{
    cell::Cell, future::poll_fn, net::SocketAddr, pin::pin, rc::Rc,
    sync::atomic::Ordering::Relaxed, task::Poll, time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep_until, timeout},
};

pub(super) use self::next::Asked;
use self::next::{Next, Refused, next};
use super::{
    Worker,
    access_log::{BadRequest, RequestLine},
    buffer::Buffer,
    control::Talk,
    error::Error,
    forwarded::Origin,
    last_orders::LAST_CHANCE,
    service::{self, After},
    stream::Stream,
    upgrade::{Limits, Tunnel},
    watch::{Expired, Watch},
};
use crate::proxy_protocol::Header;

/// How long a closed connection is read on, so that a client that is still
/// sending sees our answer and not a reset (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);

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

impl Worker {
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
