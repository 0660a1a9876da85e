//! The record of one request and its response: counted and logged when it is
//! dropped, whichever way the exchange ended.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::{Method, StatusCode, Uri, Version};
use tokio::time::Instant;

use super::{
    Worker,
    access_log::{Entry, ServerLoad},
    error::{Error, Termination},
    watch::Watch,
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

/// One request and its response.
///
/// Purposefully not `Clone`: its drop counts the exchange, exactly once.
pub(super) struct Exchange {
    worker: Rc<Worker>,
    watch: Rc<Watch>,
    peer: SocketAddr,
    begun: Instant,
    head_time: Duration,
    method: Method,
    uri: Uri,
    version: Version,
    server: Option<Arc<Server>>,
    affinity: Affinity,
    cookie_inserted: bool,
    wait_time: Option<Duration>,
    connect_time: Option<Duration>,
    response_time: Option<Duration>,
    status: Option<StatusCode>,
    bytes_in: u64,
    bytes_out: u64,
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
            .field("method", &self.method)
            .field("uri", &self.uri)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// A request whose head has just arrived.
    pub(super) fn begin<B>(
        worker: &Rc<Worker>,
        watch: &Rc<Watch>,
        peer: SocketAddr,
        request: &http::Request<B>,
    ) -> Box<Self> {
        let begun = Instant::now();
        let head_since = watch.begin_exchange(begun);
        worker.ledger.all().traffic.requests.inc();
        worker.ledger.shared().backend.active.inc();
        let first_line = first_line(request.method(), request.uri());
        Box::new(Self {
            worker: Rc::clone(worker),
            watch: Rc::clone(watch),
            peer,
            begun,
            head_time: begun - head_since,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            server: None,
            affinity: Affinity::Off,
            cookie_inserted: false,
            wait_time: None,
            connect_time: None,
            response_time: None,
            status: None,
            bytes_in: super::headers::wire_size(request.headers(), first_line),
            bytes_out: 0,
            request_growth: 0,
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
            self.begun.elapsed()
        } else {
            Duration::ZERO
        });
        if let Some(before) = self.server.take() {
            before.live.counters.active.dec();
            self.retries += 1;
            self.count_at(&before, |traffic| &traffic.retries);
            if before.life != server.life {
                self.redispatched = true;
                self.count_at(&before, |traffic| &traffic.redispatches);
            }
        }
        server.live.counters.active.inc();
        // The totals have it since its head arrived.
        let tally = self.worker.ledger.server(&server.live);
        tally.traffic.requests.inc();
        if balanced {
            self.count_at(server, |traffic| &traffic.balanced);
        }
        self.server = Some(Arc::clone(server));
    }

    /// Its head is ready for servers. Nothing of its body has gone by yet.
    pub(super) fn prepared(&mut self, head: &http::request::Parts) {
        let first_line = first_line(&head.method, &head.uri);
        let size = super::headers::wire_size(&head.headers, first_line);
        self.request_growth = growth(self.bytes_in, size);
    }

    /// What its cookie turned out to be.
    pub(super) fn set_affinity(&mut self, affinity: Affinity) {
        self.affinity = affinity;
    }

    /// The client was given a cookie.
    pub(super) fn set_cookie_inserted(&mut self) {
        self.cookie_inserted = true;
    }

    /// A connection to the server is there; `took` is zero for one that was
    /// there before.
    pub(super) fn connected(&mut self, took: Duration) {
        self.connect_time = Some(took);
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
        self.watch.begin_response();
        self.termination = Termination::CLIENT_GONE_IN_DATA;
    }

    /// The head of an answer of our own goes to the client.
    pub(super) fn begin_own_response(&mut self, head_bytes: u64) {
        self.bytes_out += head_bytes;
        self.watch.begin_response();
    }

    /// Bytes of the request's body went by.
    pub(super) fn add_bytes_in(&mut self, bytes: u64) {
        self.bytes_in += bytes;
    }

    /// Bytes of the response's body went by.
    pub(super) fn add_bytes_out(&mut self, bytes: u64) {
        self.bytes_out += bytes;
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
        if self.termination.0[1] == b'R' {
            match self.status {
                Some(StatusCode::METHOD_NOT_ALLOWED) => all.denied.inc(),
                _ => all.request_errors.inc(),
            }
        }
        if self.affinity == Affinity::Down && self.cookie_inserted {
            all.rebinds.inc();
        }
        if let Some(server) = &self.server {
            server.live.counters.active.dec();
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

    fn log(&self, total: Duration) {
        let Some(log) = &self.worker.access_log else {
            return;
        };
        let totals = self.worker.ledger.shared();
        let connect = self.connect_time;
        let entry = Entry {
            peer: self.peer,
            frontend: &self.worker.settings.frontend,
            backend: &self.worker.settings.backend,
            server: self.server.as_ref().map(|server| server.name.as_str()),
            head_time: self.head_time,
            connect_time: connect,
            response_time: self.response_time,
            total_time: total + self.head_time,
            status: self.status.map(|status| status.as_u16()),
            bytes: self.bytes_out,
            termination: self.termination,
            affinity: self.affinity,
            cookie_inserted: self.cookie_inserted,
            load: ServerLoad {
                process: totals.frontend.connections.get(),
                frontend: totals.frontend.connections.get(),
                backend: totals.backend.active.get(),
                server: self
                    .server
                    .as_ref()
                    .map_or(0, |s| s.live.counters.active.get()),
            },
            retries: self.retries,
            redispatched: self.redispatched,
            request: Some((self.method.as_str(), &self.uri, self.version)),
        };
        log.write(&entry);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        let total = now - self.begun;
        if self.watch.client_expired() {
            self.termination = self.termination.client_timed_out();
            self.status.get_or_insert(Error::RequestTimeout.status());
        }
        self.watch.end_exchange(now);
        self.log(total);
        self.count(total);
    }
}

/// The length of a request's first line, with its end.
fn first_line(method: &Method, uri: &Uri) -> usize {
    let path = uri.path_and_query().map_or(1, |path| path.as_str().len());
    method.as_str().len() + path + "  HTTP/1.1\r\n".len()
}

fn growth(from: u64, to: u64) -> i64 {
    to.cast_signed().wrapping_sub(from.cast_signed())
}
