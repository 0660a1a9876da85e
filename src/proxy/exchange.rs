//! The record of one request and its response: counted and logged when it is
//! dropped, whichever way the exchange ended.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::{Method, StatusCode, Uri, Version};
use tokio::time::Instant;

use super::{
    Worker,
    access_log::{Entry, ServerLoad},
    control::Talk,
    error::{Error, Termination},
    service::Client,
    watch::Watch,
};
use crate::{
    counters::{Counters, unix_seconds},
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
    talk: Rc<Talk>,
    peer: SocketAddr,
    begun: Instant,
    head_time: Duration,
    method: Method,
    uri: Uri,
    version: Version,
    server: Option<Arc<Server>>,
    affinity: Affinity,
    cookie_inserted: bool,
    connect_time: Option<Duration>,
    response_time: Option<Duration>,
    status: Option<StatusCode>,
    bytes_in: u64,
    bytes_out: u64,
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
        client: &Client,
        request: &http::Request<B>,
    ) -> Box<Self> {
        let begun = Instant::now();
        let head_since = client.watch.begin_exchange(begun);
        client.talk.begin(begun);
        let totals = &worker.totals;
        for counters in [&totals.frontend, &totals.backend] {
            counters.requests.inc();
            counters.active.inc();
        }
        let first_line = request.method().as_str().len() + uri_len(request.uri()) + 12;
        Box::new(Self {
            worker: Rc::clone(worker),
            watch: Rc::clone(&client.watch),
            talk: Rc::clone(&client.talk),
            peer: client.peer,
            begun,
            head_time: begun - head_since,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            server: None,
            affinity: Affinity::Off,
            cookie_inserted: false,
            connect_time: None,
            response_time: None,
            status: None,
            bytes_in: super::headers::wire_size(request.headers(), first_line),
            bytes_out: 0,
            retries: 0,
            redispatched: false,
            termination: Termination::CLIENT_GONE,
        })
    }

    /// The request goes to `server`. Ends the attempt at the one before.
    pub(super) fn attempt(&mut self, server: &Arc<Server>, balanced: bool) {
        if let Some(before) = self.server.take() {
            before.live.counters.active.dec();
            self.retries += 1;
            before.live.counters.retries.inc();
            self.worker.totals.backend.retries.inc();
            if before.life != server.life {
                self.redispatched = true;
                before.live.counters.redispatches.inc();
                self.worker.totals.backend.redispatches.inc();
            }
        }
        self.talk.goes_to(server.life);
        let counters = &server.live.counters;
        counters.requests.inc();
        counters.active.inc();
        counters.touch(unix_seconds());
        if balanced {
            counters.balanced.inc();
            self.worker.totals.backend.balanced.inc();
        }
        self.server = Some(Arc::clone(server));
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
    }

    /// The response's head goes to the client. Until the body's end is
    /// reported, an end counts as the client's.
    pub(super) fn begin_response(&mut self, head_bytes: u64) {
        self.bytes_out += head_bytes;
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
            server.live.counters.tunnels_closed.inc();
        }
        self.worker.totals.backend.tunnels_closed.inc();
    }

    /// The exchange ended in this way.
    pub(super) fn finish(&mut self, termination: Termination) {
        self.termination = termination;
    }

    fn count(&self, total: Duration) {
        let totals = &self.worker.totals;
        let server = self.server.as_ref().map(|server| &server.live.counters);
        for counters in [Some(&totals.frontend), Some(&totals.backend), server] {
            let Some(counters) = counters else { continue };
            counters.active.dec();
            counters.bytes_in.add(self.bytes_in);
            counters.bytes_out.add(self.bytes_out);
            if let Some(status) = self.status {
                counters.response(status.as_u16());
            }
        }
        for counters in [Some(&totals.backend), server] {
            let Some(counters) = counters else { continue };
            self.count_times(counters, total);
            self.count_end(counters);
        }
        totals.backend.touch(unix_seconds());
        if self.termination.0[1] == b'R' {
            totals.frontend.request_errors.inc();
        }
    }

    fn count_times(&self, counters: &Counters, total: Duration) {
        if let Some(connect) = self.connect_time {
            counters.connect_time.enter(connect);
        }
        if let Some(response) = self.response_time {
            counters.response_time.enter(response);
            counters.total_time.enter(total);
        }
    }

    fn count_end(&self, counters: &Counters) {
        match self.termination.0 {
            [b'C', _] => counters.client_aborts.inc(),
            [b's' | b'S', b'D'] => counters.server_aborts.inc(),
            _ => {}
        }
    }

    fn log(&self, total: Duration) {
        let Some(log) = &self.worker.access_log else {
            return;
        };
        let totals = &self.worker.totals;
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
        if self.talk.ended_by_operator() {
            self.termination = self.termination.ended_by_operator();
        }
        self.talk.end();
        self.watch.end_exchange(now);
        self.log(total);
        self.count(total);
    }
}

fn uri_len(uri: &Uri) -> usize {
    uri.path_and_query().map_or(1, |path| path.as_str().len())
}
