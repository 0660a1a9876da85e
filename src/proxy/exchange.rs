//! The record of one request and its response: counted and logged when it is
//! dropped, whichever way the exchange ended.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::StatusCode;
use tokio::time::Instant;

use super::{
    Worker,
    access_log::{Record, RequestLine, ServerLoad},
    connection::{Asked, Client},
    error::{Error, Termination},
    explain::Why,
    places::Place,
};
use crate::{
    counters::{OwnCounter, Traffic},
    pool::Server,
};

/// What the sticky cookie of a request turned out to be (`HAProxy`'s third
/// termination character).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affinity {
    /// No cookie: a new user.
    New,
    /// It names a server that was there for it.
    Valid,
    /// It names no server that is known.
    Invalid,
    /// It names a server that is down.
    Down,
    /// Stickiness is switched off.
    Off,
}

/// What became of the sticky cookie in a response (the fourth).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CookieSent {
    /// Neither the server nor we sent one.
    None,
    /// We did.
    Inserted,
    /// The server did, and it was taken out.
    Deleted,
}

/// One request and its response.
///
/// Purposefully not `Clone`: its drop counts the exchange, exactly once.
pub(super) struct Exchange {
    worker: Rc<Worker>,
    client: Rc<Client>,
    begun: Instant,
    ended: Option<Instant>,
    head_time: Duration,
    /// For the log, where there is one.
    line: Option<RequestLine>,
    server: Option<Arc<Server>>,
    /// It is at that server now, and counted there.
    is_there: bool,
    /// Its place there, where a server takes only so many requests at a time.
    place: Option<Place>,
    /// Who waited before it, in the queues of the server and of the backend.
    behind: (u32, u32),
    affinity: Affinity,
    cookie_sent: CookieSent,
    why: Option<Box<Why>>,
    wait_time: Option<Duration>,
    connect_time: Option<Duration>,
    response_time: Option<Duration>,
    status: Option<StatusCode>,
    bytes_in: u64,
    bytes_out: u64,
    body_bytes_out: Cell<u64>,
    /// By how much the heads grew on their way through.
    request_growth: i64,
    response_growth: i64,
    retries: u32,
    redispatched: bool,
    termination: Termination,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("line", &self.line)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// A request whose head has just arrived.
    pub(super) fn begin(worker: &Rc<Worker>, client: &Rc<Client>, asked: &mut Asked) -> Box<Self> {
        let begun = client.watch.now();
        let head_since = client.watch.begin_exchange(begun);
        client.talk.begin(begun);
        worker.ledger.all().traffic.requests.inc();
        if client.http2 {
            worker.ledger.all().http2_requests.inc();
        }
        worker.ledger.shared().backend.active.inc();
        let (received, sent) = (asked.size as u64, asked.head.len() as u64);
        Box::new(Self {
            worker: Rc::clone(worker),
            client: Rc::clone(client),
            begun,
            ended: None,
            head_time: begun - head_since,
            line: asked.line.take(),
            server: None,
            is_there: false,
            place: None,
            behind: (0, 0),
            affinity: Affinity::Off,
            cookie_sent: CookieSent::None,
            why: None,
            wait_time: None,
            connect_time: None,
            response_time: None,
            status: None,
            bytes_in: received,
            bytes_out: 0,
            body_bytes_out: Cell::new(0),
            request_growth: growth(received, sent),
            response_growth: 0,
            retries: 0,
            redispatched: false,
            termination: Termination::CLIENT_GONE,
        })
    }

    /// The request goes to `server`, for which it `waited` or not. Ends the
    /// attempt at the one before.
    pub(super) fn attempt(&mut self, server: &Arc<Server>, balanced: bool, waited: bool) {
        self.wait_time = Some(if waited || self.server.is_some() {
            self.client.watch.now() - self.begun
        } else {
            Duration::ZERO
        });
        if let Some(before) = self.server.take() {
            self.retries += 1;
            self.count_at(&before, |traffic| &traffic.retries);
            if before.life != server.life {
                self.redispatched = true;
                self.count_at(&before, |traffic| &traffic.redispatches);
            }
        }
        self.client.talk.goes_to(server.life);
        server.live.counters.active.inc();
        self.is_there = true;
        // The totals have it since its head arrived.
        let tally = self.worker.ledger.server(&server.live);
        tally.traffic.requests.inc();
        if balanced {
            self.count_at(server, |traffic| &traffic.balanced);
        }
        self.server = Some(Arc::clone(server));
    }

    /// It has a place at the server that it goes to, until its end.
    pub(super) fn hold(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// It is at no server until it goes to the next: its place is free, and
    /// what befalls the one before does not concern it.
    pub(super) fn leave(&mut self) {
        self.place = None;
        if let (true, Some(server)) = (self.is_there, &self.server) {
            server.live.counters.active.dec();
            self.client.talk.goes_nowhere();
            self.is_there = false;
        }
    }

    /// It waits for a place, behind so many in the server's queue and in the
    /// backend's.
    pub(super) fn waits_behind(&mut self, at_server: u32, at_backend: u32) {
        self.behind.0 += at_server;
        self.behind.1 += at_backend;
    }

    /// What its cookie turned out to be.
    pub(super) fn set_affinity(&mut self, affinity: Affinity) {
        self.affinity = affinity;
    }

    /// What its cookie turned out to be.
    pub(super) fn affinity(&self) -> Affinity {
        self.affinity
    }

    /// What became of the response's cookie.
    pub(super) fn set_cookie_sent(&mut self, sent: CookieSent) {
        self.cookie_sent = sent;
    }

    /// Why the server was chosen.
    pub(super) fn explain(&mut self, why: Why) {
        self.why = Some(Box::new(why));
    }

    /// Why the server was chosen, where anyone wants to know.
    pub(super) fn why(&self) -> Option<&Why> {
        self.why.as_deref()
    }

    /// Attempts so far.
    pub(super) fn attempts(&self) -> u32 {
        self.retries + u32::from(self.server.is_some())
    }

    /// A connection to the server is there; `took` is zero for one that was
    /// there before.
    pub(super) fn connected(&mut self, took: Duration) {
        self.connect_time = Some(took);
    }

    /// The attempt failed; connecting took that long, if it got so far.
    pub(super) fn not_answered(&mut self, connect_time: Option<Duration>) {
        self.connect_time = connect_time;
    }

    /// The server's response head arrived, `took` after the request was sent.
    pub(super) fn responded(&mut self, status: StatusCode, took: Duration) {
        self.status = Some(status);
        self.response_time = Some(took);
        if let Some(server) = &self.server {
            let tally = self.worker.ledger.server(&server.live);
            tally.response(status.as_u16(), took);
        }
    }

    /// The response's head, which was of `received` bytes, goes to the client.
    /// Until the body's end is reported, an end counts as the client's.
    pub(super) fn begin_response(&mut self, head_bytes: u64, received: u64) {
        self.bytes_out += head_bytes;
        self.response_growth = growth(received, head_bytes);
        self.client.watch.begin_response();
        self.termination = Termination::CLIENT_GONE_IN_DATA;
    }

    /// The head of an answer of our own goes to the client.
    pub(super) fn begin_own_response(&mut self, head_bytes: u64) {
        self.bytes_out += head_bytes;
        self.client.watch.begin_response();
    }

    /// Bytes of the client's went by in a tunnel.
    pub(super) fn add_bytes_in(&mut self, bytes: u64) {
        self.bytes_in += bytes;
    }

    /// Bytes of an answer of our own, or of the server's in a tunnel, went by.
    pub(super) fn add_bytes_out(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// Where bytes of the response's body are counted that go by.
    pub(super) fn body_bytes_out(&self) -> &Cell<u64> {
        &self.body_bytes_out
    }

    /// The balancer answers by itself.
    pub(super) fn fail(&mut self, error: Error) {
        self.termination = error.termination();
        self.status = Some(error.status());
    }

    /// The exchange was a tunnel, closed because its server left.
    pub(super) fn count_closed_tunnel(&self) {
        if let Some(server) = &self.server {
            self.count_at(server, |traffic| &traffic.tunnels_closed);
        }
    }

    /// The whole response has gone to the client.
    pub(super) fn complete(&mut self) {
        self.ended = Some(self.client.watch.now());
        self.termination = Termination::NORMAL;
    }

    /// The exchange ended in this way.
    pub(super) fn finish(&mut self, termination: Termination) {
        self.termination = termination;
    }

    fn count_at(&self, server: &Server, which: fn(&Traffic) -> &OwnCounter) {
        self.worker.ledger.inc(&server.live, which);
    }

    fn count(&self, total: Duration) {
        let ledger = &self.worker.ledger;
        ledger.shared().backend.active.dec();
        let all = ledger.all();
        self.count_traffic(&all.traffic, total);
        if let Some(status) = self.status {
            all.response(status.as_u16());
        }
        if self.affinity == Affinity::Down && self.cookie_sent == CookieSent::Inserted {
            all.rebinds.inc();
        }
        if let Some(server) = &self.server {
            if self.is_there {
                server.live.counters.active.dec();
            }
            self.count_traffic(&ledger.server(&server.live).traffic, total);
        }
    }

    fn count_traffic(&self, traffic: &Traffic, total: Duration) {
        traffic.bytes_in.add(self.bytes_in);
        traffic.bytes_out.add(self.bytes_out);
        if self.response_time.is_some() {
            let to = self.bytes_in.saturating_add_signed(self.request_growth);
            let from = self.bytes_out.saturating_add_signed(-self.response_growth);
            traffic.bytes_to_servers.add(to);
            traffic.bytes_from_servers.add(from);
        }
        if let Some(wait) = self.wait_time {
            traffic.queue_time.enter(wait);
        }
        if let Some(connect) = self.connect_time {
            traffic.connect_time.enter(connect);
        }
        if let Some(response) = self.response_time {
            traffic.response_time.enter(response);
            traffic.total_time.enter(total);
        }
        match self.termination.0 {
            [b'C', _] => traffic.client_aborts.inc(),
            [b's' | b'S', b'D'] => traffic.server_aborts.inc(),
            _ => {}
        }
    }

    /// Hands over what the log is to say of it. Nothing is left of it then.
    fn log(&mut self, total: Duration) {
        let Some(log) = &self.worker.access_log else {
            return;
        };
        let totals = self.worker.ledger.shared();
        let connections = totals.frontend.connections.get();
        let server = self.server.take();
        log.write(Box::new(Record {
            at: SystemTime::now(),
            peer: self.client.peer,
            accepted: true,
            head_time: Some(self.head_time),
            wait_time: self.wait_time,
            connect_time: self.connect_time,
            response_time: self.response_time,
            total_time: total + self.head_time,
            status: self.status.map(|status| status.as_u16()),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            termination: self.termination,
            affinity: self.affinity,
            cookie_sent: self.cookie_sent,
            load: ServerLoad {
                process: connections,
                frontend: connections,
                backend: totals.backend.active.get(),
                server: server.as_ref().map_or(0, |s| s.live.counters.active.get()),
                server_queue: self.behind.0,
                backend_queue: self.behind.1,
            },
            server,
            retries: self.retries,
            redispatched: self.redispatched,
            request: self.line.take(),
            why: self.why.take(),
        }));
    }

    /// Where the client left without an answer: what we were waiting for.
    fn place_client_gone(&mut self) {
        if self.termination == Termination::CLIENT_GONE && !self.client.watch.is_with_server() {
            self.termination = if self.server.is_some() {
                Termination::CLIENT_GONE_IN_CONNECT
            } else {
                Termination::CLIENT_GONE_IN_QUEUE
            };
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Who is ended from outside has not woken up for it.
        let now = self.ended.unwrap_or_else(Instant::now);
        let total = now - self.begun;
        self.place_client_gone();
        if self.client.watch.client_expired() {
            self.termination = self.termination.client_timed_out();
            self.status.get_or_insert(Error::RequestTimeout.status());
        }
        if self.client.talk.ended_by_operator() {
            self.termination = self.termination.ended_by_operator();
        }
        self.bytes_in += self.client.body_bytes.take();
        self.bytes_out += self.body_bytes_out.take();
        self.client.talk.end();
        self.client.watch.end_exchange(now);
        self.count(total);
        self.log(total);
    }
}

fn growth(from: u64, to: u64) -> i64 {
    to.cast_signed().wrapping_sub(from.cast_signed())
}
