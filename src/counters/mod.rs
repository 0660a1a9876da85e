//! Live figures of a frontend, a backend or a server: the one place where a
//! number is counted. Every surface (page, CSV, Prometheus, JSON) prints from
//! here. A leaf: it knows nothing of the pool or of HTTP types.
//!
//! A worker counts into blocks of its own ([`PerWorker`]), which are added up
//! when somebody asks. Shared by all workers are only the gauges whose present
//! value decides something or whose peak is to be exact.

mod cell;
mod forget;
mod histogram;
mod per_worker;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use self::{
    cell::{Counter, Estimate, Gauge, OwnCounter, OwnLevel, Rate, Timing},
    forget::Forget,
    histogram::{Distribution, Histogram},
    per_worker::{PerWorker, Slot},
};

/// The classes of responses, in the order in which they are counted.
pub const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// Responses by class: 1xx to 5xx, then everything else.
pub type ByClass<T> = [T; CLASSES.len()];

/// What one worker counts of the requests it carries, to one server or to all.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Requests (`stot`, `req_tot`).
    pub requests: OwnCounter,
    /// Requests that balancing, not a cookie, gave to a server (`lbtot`).
    pub balanced: OwnCounter,
    /// Request bytes, bodies and heads as received (`bin`).
    pub bytes_in: OwnCounter,
    /// Response bytes, bodies and heads as sent (`bout`).
    pub bytes_out: OwnCounter,
    /// Bytes of answered requests as sent to servers (`reqbout`).
    pub bytes_to_servers: OwnCounter,
    /// Bytes of responses as received from servers (`resbin`).
    pub bytes_from_servers: OwnCounter,
    /// Connections to a server that could not be made (`econ`).
    pub connect_errors: OwnCounter,
    /// Responses that were broken off, malformed or never came (`eresp`).
    pub response_errors: OwnCounter,
    /// Connections that could not be made for a fault of our own, such as no
    /// descriptor being left (`eint`).
    pub internal_errors: OwnCounter,
    /// Attempts after the first (`wretr`).
    pub retries: OwnCounter,
    /// Retries that went to another server (`wredis`).
    pub redispatches: OwnCounter,
    /// Requests that were taken away from a server because it was given up
    /// while they waited for it.
    pub rescues: OwnCounter,
    /// Tunnels that were closed because the server left.
    pub tunnels_closed: OwnCounter,
    /// Exchanges the client gave up on (`cli_abrt`).
    pub client_aborts: OwnCounter,
    /// Exchanges the server broke off after its response began (`srv_abrt`).
    pub server_aborts: OwnCounter,
    /// New connections made to a server (`connect`).
    pub connects: OwnCounter,
    /// Requests sent over a connection that was already there (`reuse`).
    pub reuses: OwnCounter,
    /// Time until there was a server to take the request; zero where there was
    /// one at once.
    pub queue_time: Timing,
    /// Time to connect; zero over a connection that was already there.
    pub connect_time: Timing,
    /// From the request being sent to the response's head.
    pub response_time: Timing,
    /// From the request's head to the response's last byte.
    pub total_time: Timing,
}

/// What one worker counts of one server.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ServerTally {
    /// Its requests.
    pub traffic: Traffic,
    /// Connections that are open and unused (`srv_icur`).
    pub idle: OwnLevel,
    /// Connections that a request or a tunnel uses (`used_conn_cur`).
    pub used: OwnLevel,
    /// Faults of the server that requests met and told the pool (`hanafail`).
    pub observed_faults: OwnCounter,
    responses: ByClass<Histogram>,
}

impl ServerTally {
    /// Enters a response of the server, whose head took that long to come.
    pub fn response(&self, status: u16, took: Duration) {
        if let Some(histogram) = self.responses.get(class(status)) {
            histogram.enter(took);
        }
    }
}

/// Figures of one server, from life to life.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests being served now (`scur`, `smax`); least-conn decides by it.
    pub active: Gauge,
    /// Requests of its users that wait for a place (`qcur`, `qmax`).
    pub waiting: Gauge,
    /// Requests a second.
    pub request_rate: Rate,
    /// Connections that will be needed.
    pub needed: Estimate,
    workers: PerWorker<ServerTally>,
}

impl Counters {
    /// What the worker counts itself.
    pub fn of(&self, worker: Slot) -> &ServerTally {
        self.workers.of(worker)
    }

    /// What all workers count together.
    pub fn tallies(&self) -> impl Iterator<Item = &ServerTally> {
        self.workers.iter()
    }

    /// Requests there ever were.
    pub fn requests(&self) -> u64 {
        let requests = self.tallies().map(|tally| tally.traffic.requests.get());
        requests.sum()
    }

    /// Connections that are open and unused (`srv_icur`).
    pub fn idle(&self) -> u32 {
        self.tallies().map(|tally| tally.idle.get()).sum()
    }

    /// Connections that a request or a tunnel uses (`used_conn_cur`).
    pub fn used(&self) -> u32 {
        self.tallies().map(|tally| tally.used.get()).sum()
    }

    /// The server's responses, and how long their heads took to come, from the
    /// request being sent (`HAProxy`'s `Tr`).
    pub fn responses(&self) -> ByClass<Distribution> {
        let mut responses = ByClass::<Distribution>::default();
        for tally in self.tallies() {
            for (sum, own) in responses.iter_mut().zip(&tally.responses) {
                *sum += own.read();
            }
        }
        responses
    }

    /// Closes a second: takes the rate. The sampler calls it once a second.
    pub fn sample(&self, now: i64) {
        self.request_rate.sample(self.requests(), now);
        self.needed.sample(self.active.get());
    }
}

/// What one worker counts of all requests.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct TotalTally {
    /// The requests, which went through the frontend and the backend both.
    pub traffic: Traffic,
    /// Requests that could not be read: malformed, too large, too slow.
    pub request_errors: OwnCounter,
    /// Requests that were refused for what they asked for (`dreq`).
    pub denied: OwnCounter,
    /// Sticky cookies that named a server that was down and were replaced.
    pub rebinds: OwnCounter,
    /// Client connections that turned out to speak HTTP/2 (`h2sess`).
    pub http2_connections: OwnCounter,
    /// Requests that came over them (`h2req`).
    pub http2_requests: OwnCounter,
    /// Client connections that took a TLS handshake.
    pub tls_connections: OwnCounter,
    /// Responses that were compressed (`comp_rsp`).
    pub compressed: OwnCounter,
    /// Bytes given to the compressor (`comp_in`).
    pub compressed_in: OwnCounter,
    /// Bytes taken from it (`comp_out`).
    pub compressed_out: OwnCounter,
    responses: ByClass<OwnCounter>,
    unread: ByClass<OwnCounter>,
}

impl TotalTally {
    /// Enters the status that a client was answered with.
    pub fn response(&self, status: u16) {
        if let Some(counter) = self.responses.get(class(status)) {
            counter.inc();
        }
    }

    /// Enters the status of an answer to something that never became a
    /// request, and so never came to the backend.
    pub fn unread(&self, status: u16) {
        self.request_errors.inc();
        self.enter_unread(status);
    }

    /// Enters the status of the refusal of something that is not served here.
    pub fn denied(&self, status: u16) {
        self.denied.inc();
        self.enter_unread(status);
    }

    fn enter_unread(&self, status: u16) {
        if let Some(counter) = self.unread.get(class(status)) {
            counter.inc();
        }
    }
}

/// The figures of a frontend and of the backend behind it. Requests are
/// counted once for both.
#[derive(Debug, Default)]
pub struct Totals {
    /// What only the frontend has.
    pub frontend: Frontend,
    /// What only the backend has.
    pub backend: Backend,
    /// Requests a second.
    pub request_rate: Rate,
    /// Response bytes a second.
    pub bytes_out_rate: Rate,
    workers: PerWorker<TotalTally>,
}

/// What is counted of client connections.
#[derive(Debug, Default)]
pub struct Frontend {
    /// Open client connections.
    pub connections: Gauge,
    /// Those of them that are over TLS.
    pub tls: Gauge,
    /// Client connections ever accepted.
    pub connections_total: Counter,
    /// Connections a second.
    pub connection_rate: Rate,
    /// Client connections that were closed at once because their source had as
    /// many as it may (`dcon`).
    pub denied_connections: Counter,
}

/// What is counted of the backend as a whole.
#[derive(Debug, Default)]
pub struct Backend {
    /// Requests being served now (`scur`, `smax`).
    pub active: Gauge,
    /// Requests that wait for any server (`qcur`, `qmax`): for a place, or for
    /// one to come back.
    pub waiting: Gauge,
}

impl Totals {
    /// What the worker counts itself.
    pub fn of(&self, worker: Slot) -> &TotalTally {
        self.workers.of(worker)
    }

    /// What all workers count together.
    pub fn tallies(&self) -> impl Iterator<Item = &TotalTally> {
        self.workers.iter()
    }

    /// Requests there ever were.
    pub fn requests(&self) -> u64 {
        let requests = self.tallies().map(|tally| tally.traffic.requests.get());
        requests.sum()
    }

    /// Response bytes there ever were.
    pub fn bytes_out(&self) -> u64 {
        let bytes = self.tallies().map(|tally| tally.traffic.bytes_out.get());
        bytes.sum()
    }

    /// Answers to requests, of servers and our own.
    pub fn responses(&self) -> ByClass<u64> {
        self.sum_by_class(|tally| &tally.responses)
    }

    /// Answers to what never became a request; only the frontend gave them.
    pub fn unread(&self) -> ByClass<u64> {
        self.sum_by_class(|tally| &tally.unread)
    }

    fn sum_by_class(&self, read: fn(&TotalTally) -> &ByClass<OwnCounter>) -> ByClass<u64> {
        let mut sums = ByClass::default();
        for tally in self.tallies() {
            for (sum, own) in sums.iter_mut().zip(read(tally)) {
                *sum += own.get();
            }
        }
        sums
    }

    /// Closes a second: takes the rates. The sampler calls it once a second.
    pub fn sample(&self, now: i64) {
        let Frontend {
            connections_total,
            connection_rate,
            ..
        } = &self.frontend;
        self.request_rate.sample(self.requests(), now);
        self.bytes_out_rate.sample(self.bytes_out(), now);
        connection_rate.sample(connections_total.get(), now);
    }
}

/// The place of a status among the classes.
fn class(status: u16) -> usize {
    match status {
        100..=599 => usize::from(status / 100 - 1),
        _ => 5,
    }
}

/// The wall clock in seconds.
pub fn unix_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_class_and_unread_ones_apart() {
        let totals = Totals::default();
        let (one, other) = (totals.of(Slot::new(0)), totals.of(Slot::new(9)));
        for status in [200, 204, 404, 503, 999] {
            one.response(status);
            other.response(status);
        }
        other.unread(400);
        assert_eq!(totals.responses(), [0, 4, 0, 2, 2, 2]);
        assert_eq!(totals.unread(), [0, 0, 0, 1, 0, 0]);
        let errors = totals.tallies().map(|tally| tally.request_errors.get());
        assert_eq!(errors.sum::<u64>(), 1);
    }

    #[test]
    fn a_servers_responses_are_summed_over_the_workers() {
        let counters = Counters::default();
        for worker in [0, 1] {
            let tally = counters.of(Slot::new(worker));
            tally.response(200, Duration::from_millis(3));
            tally.response(503, Duration::from_millis(7));
        }
        let responses = counters.responses();
        let counts = responses.map(|class| class.count());
        assert_eq!(counts, [0, 2, 0, 0, 2, 0]);
        assert_eq!(responses[4].sum, Duration::from_millis(14));
    }
}
