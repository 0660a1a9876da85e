//! What a client connection is waiting for, and when it has waited too long.
//!
//! One set of cells a connection, written by the parts that wait and read by
//! the one timer of the connection: a request neither creates nor moves a
//! timer.
//!
//! The clock is read once for each time the connection's task wakes up: all
//! that is done until it waits again takes microseconds, and limits are longer.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::time::Instant;

/// The timeouts of a client connection (`HAProxy`'s `timeout …`).
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// To connect to a server.
    pub connect: Duration,
    /// For a place at a server, where it takes only so many requests.
    pub queue: Duration,
    /// For the client to send or take the next bytes.
    pub client: Duration,
    /// For the server to answer, or to send or take the next bytes.
    pub server: Duration,
    /// For a whole request head to arrive.
    pub http_request: Duration,
    /// For the next request to begin.
    pub keep_alive: Duration,
    /// For a byte in either direction of a tunnel.
    pub tunnel: Duration,
}

/// What the connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// For the first byte of the first request.
    FirstRequest,
    /// For the first byte of a request after the first.
    NextRequest,
    /// For the rest of a request's head.
    Head,
    /// For nothing that has a limit here, such as a place at a server.
    Nothing,
    /// For the server: its response's head, or the next bytes of its body.
    Server,
    /// For the next bytes of the request's body.
    Body,
}

/// What to do about a wait that took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// Close without a word: nothing was asked.
    Silently,
    /// Tell the client that its request's head took too long (408).
    Head,
    /// Tell the client that its request's body took too long (408); the
    /// exchange, which has begun, logs it.
    Body,
    /// Let the exchange answer for the server (504), or break its body off.
    Server,
    /// Close: the client does not take its response.
    Client,
}

/// The connection's state as seen by its timer.
#[derive(Debug)]
pub(super) struct Watch {
    timeouts: Rc<Timeouts>,
    now: Cell<Instant>,
    first_request: Cell<Duration>,
    waiting: Cell<Waiting>,
    since: Cell<Instant>,
    write_blocked: Cell<Option<Instant>>,
    response_begun: Cell<bool>,
    server_expired: Cell<bool>,
    client_expired: Cell<bool>,
}

impl Watch {
    /// A connection that was just accepted.
    pub(super) fn new(timeouts: &Rc<Timeouts>, now: Instant) -> Self {
        Self {
            timeouts: Rc::clone(timeouts),
            now: Cell::new(now),
            first_request: Cell::new(timeouts.http_request),
            waiting: Cell::new(Waiting::FirstRequest),
            since: Cell::new(now),
            write_blocked: Cell::new(None),
            response_begun: Cell::new(false),
            server_expired: Cell::new(false),
            client_expired: Cell::new(false),
        }
    }

    /// The connection's task has woken up.
    pub(super) fn wake(&self, now: Instant) {
        self.now.set(now);
    }

    /// The moment it did.
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Since when a request's head has been arriving, if one is.
    pub(super) fn head_arrives_since(&self) -> Option<Instant> {
        (self.waiting.get() == Waiting::Head).then(|| self.since.get())
    }

    /// Whether a server has the request, as far as it is there.
    pub(super) fn is_with_server(&self) -> bool {
        matches!(self.waiting.get(), Waiting::Server | Waiting::Body)
    }

    /// Whether the client has asked nothing yet.
    pub(super) fn expects_first_request(&self) -> bool {
        self.waiting.get() == Waiting::FirstRequest
    }

    /// Waits for a first request for no longer than `limit` from now.
    pub(super) fn hurry(&self, limit: Duration, now: Instant) {
        if self.expects_first_request() && limit < self.first_request.get() {
            self.first_request.set(limit);
            self.since.set(now);
        }
    }

    /// Bytes came from the client.
    pub(super) fn read(&self) {
        match self.waiting.get() {
            Waiting::FirstRequest | Waiting::NextRequest => {
                self.wait_for(Waiting::Head, self.now());
            }
            Waiting::Body => self.waiting.set(Waiting::Nothing),
            _ => {}
        }
    }

    /// The client does not take more bytes for now.
    pub(super) fn write_blocked(&self) {
        if self.write_blocked.get().is_none() {
            self.write_blocked.set(Some(self.now()));
        }
    }

    /// The client took bytes.
    pub(super) fn wrote(&self) {
        self.write_blocked.set(None);
    }

    /// A request's head is there; returns since when it was being received.
    pub(super) fn begin_exchange(&self, now: Instant) -> Instant {
        let since = match self.waiting.get() {
            Waiting::Head => self.since.get(),
            _ => now,
        };
        self.response_begun.set(false);
        self.server_expired.set(false);
        self.wait_for(Waiting::Nothing, now);
        since
    }

    /// The response's last byte was handed over.
    pub(super) fn end_exchange(&self, now: Instant) {
        self.wait_for(Waiting::NextRequest, now);
    }

    /// The response's head was handed over.
    pub(super) fn begin_response(&self) {
        self.response_begun.set(true);
        self.waiting.set(Waiting::Nothing);
    }

    /// Begins a wait for the server, unless one is on already.
    pub(super) fn wait_for_server(&self) {
        if self.waiting.get() == Waiting::Nothing {
            self.wait_for(Waiting::Server, self.now());
        }
    }

    /// Begins a wait for the client's body. Whoever waits for the client does
    /// not wait for the server: its answer comes after the request.
    pub(super) fn wait_for_body(&self) {
        if matches!(self.waiting.get(), Waiting::Nothing | Waiting::Server) {
            self.wait_for(Waiting::Body, self.now());
        }
    }

    /// What was waited for is there.
    pub(super) fn arrived(&self, what: Waiting) {
        if self.waiting.get() == what {
            self.waiting.set(Waiting::Nothing);
        }
    }

    /// Whether the wait for the server took too long. The exchange asks when
    /// it is polled.
    pub(super) fn server_expired(&self) -> bool {
        self.server_expired.get()
    }

    /// Whether a wait for the client took too long, which ends the exchange.
    pub(super) fn client_expired(&self) -> bool {
        self.client_expired.get()
    }

    /// When the present wait will have taken too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let limit = match self.waiting.get() {
            Waiting::FirstRequest => Some(self.first_request.get()),
            Waiting::Head => Some(self.timeouts.http_request),
            Waiting::NextRequest => Some(self.timeouts.keep_alive),
            Waiting::Server => Some(self.timeouts.server),
            Waiting::Body => Some(self.timeouts.client),
            Waiting::Nothing => None,
        };
        let waiting = limit.map(|limit| self.since.get() + limit);
        let blocked = self
            .write_blocked
            .get()
            .map(|since| since + self.timeouts.client);
        match (waiting, blocked) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// What has expired by `now`, if anything.
    pub(super) fn expire(&self, now: Instant) -> Option<Expired> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        if self
            .write_blocked
            .get()
            .is_some_and(|since| since + self.timeouts.client <= now)
        {
            self.client_expired.set(true);
            return Some(Expired::Client);
        }
        match self.waiting.get() {
            Waiting::FirstRequest | Waiting::NextRequest => Some(Expired::Silently),
            Waiting::Head => Some(Expired::Head),
            Waiting::Body => {
                self.client_expired.set(true);
                let begun = self.response_begun.get();
                Some(if begun {
                    Expired::Client
                } else {
                    Expired::Body
                })
            }
            Waiting::Server => {
                self.server_expired.set(true);
                self.waiting.set(Waiting::Nothing);
                Some(Expired::Server)
            }
            Waiting::Nothing => None,
        }
    }

    fn wait_for(&self, what: Waiting, now: Instant) {
        self.waiting.set(what);
        self.since.set(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watch(now: Instant) -> Watch {
        let timeouts = Timeouts {
            connect: 5 * SECOND,
            queue: 5 * SECOND,
            client: 50 * SECOND,
            server: 40 * SECOND,
            http_request: 10 * SECOND,
            keep_alive: 60 * SECOND,
            tunnel: 3600 * SECOND,
        };
        Watch::new(&Rc::new(timeouts), now)
    }

    #[test]
    fn a_connection_that_asks_nothing_is_closed_silently() {
        let start = Instant::now();
        let watch = watch(start);
        assert_eq!(watch.expire(start + 9 * SECOND), None);
        assert_eq!(watch.expire(start + 10 * SECOND), Some(Expired::Silently));
    }

    #[test]
    fn a_connection_that_is_hurried_has_less_time_to_ask_but_not_to_finish() {
        let start = Instant::now();
        let watch = watch(start);
        watch.hurry(SECOND, start + 5 * SECOND);
        assert_eq!(watch.deadline(), Some(start + 6 * SECOND));
        watch.wake(start + 5 * SECOND);
        watch.read();
        watch.hurry(SECOND, start + 5 * SECOND);
        assert_eq!(watch.deadline(), Some(start + 15 * SECOND));
    }

    #[test]
    fn a_head_that_dribbles_in_gets_408_counted_from_its_first_byte() {
        let start = Instant::now();
        let watch = watch(start);
        watch.wake(start + 8 * SECOND);
        watch.read();
        watch.wake(start + 17 * SECOND);
        watch.read();
        assert_eq!(watch.expire(start + 17 * SECOND), None);
        assert_eq!(watch.expire(start + 18 * SECOND), Some(Expired::Head));
    }

    #[test]
    fn between_requests_the_keep_alive_timeout_counts() {
        let start = Instant::now();
        let watch = watch(start);
        watch.begin_exchange(start);
        watch.end_exchange(start);
        assert_eq!(watch.expire(start + 59 * SECOND), None);
        assert_eq!(watch.expire(start + 60 * SECOND), Some(Expired::Silently));
    }

    #[test]
    fn a_silent_server_expires_and_the_exchange_can_tell() {
        let start = Instant::now();
        let watch = watch(start);
        watch.begin_exchange(start);
        watch.wake(start);
        watch.wait_for_server();
        assert_eq!(watch.expire(start + 39 * SECOND), None);
        assert!(!watch.server_expired());
        assert_eq!(watch.expire(start + 40 * SECOND), Some(Expired::Server));
        assert!(watch.server_expired());
    }

    #[test]
    fn a_server_that_waits_for_the_clients_body_is_not_blamed() {
        let start = Instant::now();
        let watch = watch(start);
        watch.begin_exchange(start);
        watch.wake(start);
        watch.wait_for_server();
        watch.wake(start + SECOND);
        watch.wait_for_body();
        assert_eq!(watch.expire(start + 45 * SECOND), None);
        assert_eq!(watch.expire(start + 51 * SECOND), Some(Expired::Body));
        assert!(watch.client_expired() && !watch.server_expired());
    }

    #[test]
    fn a_client_that_does_not_take_its_response_is_cut_off() {
        let start = Instant::now();
        let watch = watch(start);
        watch.begin_exchange(start);
        watch.begin_response();
        watch.wake(start);
        watch.write_blocked();
        watch.wake(start + 30 * SECOND);
        watch.write_blocked();
        assert_eq!(watch.expire(start + 50 * SECOND), Some(Expired::Client));
        watch.wrote();
        assert_eq!(watch.deadline(), None);
    }
}
