//! A connection to a server in use.

use std::{fmt, rc::Rc, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Upstreams, rescue::Wait};
use crate::{
    counters::ServerTally,
    pool::{Server, server::Live},
    proxy::{buffer::Buffer, ledger::Ledger, stream::Stream},
};

/// A connection in use. Given back when its response has been read whole;
/// dropped, it closes.
pub(in crate::proxy) struct Lease {
    link: Link,
    server: Arc<Server>,
    home: Rc<Upstreams>,
    connect_time: Duration,
}

/// A connection.
pub(super) struct Link {
    pub(super) stream: Stream,
    /// What was read and not been used yet.
    pub(super) input: Buffer,
    pub(super) wait: Rc<Wait>,
    pub(super) counted: Counted,
    /// Whether another request may follow on it.
    pub(super) reusable: bool,
}

/// Counts a connection to a server for as long as it is open, as idle or as
/// in use.
#[derive(Debug)]
pub(in crate::proxy) struct Counted {
    live: Arc<Live>,
    ledger: Ledger,
    idle: bool,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("server", &self.server.name)
            .finish_non_exhaustive()
    }
}

impl Lease {
    pub(super) fn new(
        link: Link,
        server: &Arc<Server>,
        home: &Rc<Upstreams>,
        connect_time: Duration,
    ) -> Self {
        Self {
            link,
            server: Arc::clone(server),
            home: Rc::clone(home),
            connect_time,
        }
    }

    /// The connection, what was read from it, and who waits for it.
    pub(in crate::proxy) fn parts(&mut self) -> (&mut Stream, &mut Buffer, &Wait) {
        let Link {
            stream,
            input,
            wait,
            ..
        } = &mut self.link;
        (stream, input, wait)
    }

    /// The server.
    pub(in crate::proxy) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// How long connecting took; zero for a connection that was there before.
    pub(in crate::proxy) fn connect_time(&self) -> Duration {
        self.connect_time
    }

    /// Leaves the connection to a tunnel, and counts as used until the last
    /// value goes.
    pub(in crate::proxy) fn give_away(self) -> ((Stream, Buffer), Counted) {
        let Link {
            stream,
            input,
            counted,
            ..
        } = self.link;
        ((stream, input), counted)
    }

    /// Puts the connection back for the next request, for as long as the
    /// server says it keeps it.
    pub(in crate::proxy) fn give_back(self, keep_alive: Option<Duration>, now: Instant) {
        // More than was asked for is nobody's answer.
        if self.link.reusable && self.link.input.is_empty() {
            let idle = &self.home.idle;
            idle.put(self.link, &self.server, keep_alive, now);
        }
    }
}

impl Counted {
    pub(super) fn new(live: &Arc<Live>, ledger: &Ledger) -> Self {
        ledger.server(live).used.inc();
        Self {
            live: Arc::clone(live),
            ledger: ledger.clone(),
            idle: false,
        }
    }

    pub(super) fn set_idle(&mut self, idle: bool) {
        let tally = self.tally();
        let (from, to) = if idle {
            (&tally.used, &tally.idle)
        } else {
            (&tally.idle, &tally.used)
        };
        from.dec();
        to.inc();
        self.idle = idle;
    }

    fn tally(&self) -> &ServerTally {
        self.ledger.server(&self.live)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let tally = self.tally();
        let level = if self.idle { &tally.idle } else { &tally.used };
        level.dec();
    }
}
