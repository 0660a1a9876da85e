//! How figures start anew (`clear counters`).
//!
//! A worker's block has one writer, its thread, so each worker clears its own;
//! what all share is cleared once, behind them. What there is at present, such
//! as open connections, is no figure of the past and stays.

use super::{
    Backend, Counters, Frontend, Histogram, OwnCounter, Rate, ServerTally, Slot, Timing,
    TotalTally, Totals, Traffic,
};

/// What of the figures is to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forget {
    /// The maxima.
    Maxima,
    /// Everything.
    Everything,
}

impl Forget {
    fn counters<'a>(self, counters: impl IntoIterator<Item = &'a OwnCounter>) {
        if self == Self::Everything {
            counters.into_iter().for_each(OwnCounter::clear);
        }
    }

    fn timing(self, timing: &Timing) {
        match self {
            Self::Maxima => timing.clear_max(),
            Self::Everything => timing.clear(),
        }
    }

    fn rate(self, rate: &Rate) {
        match self {
            Self::Maxima => rate.clear_max(),
            Self::Everything => rate.restart(),
        }
    }
}

impl Traffic {
    // By name, so that a new figure cannot be left out by mistake.
    fn forget(&self, what: Forget) {
        let Self {
            requests,
            balanced,
            bytes_in,
            bytes_out,
            bytes_to_servers,
            bytes_from_servers,
            connect_errors,
            response_errors,
            internal_errors,
            retries,
            redispatches,
            rescues,
            tunnels_closed,
            client_aborts,
            server_aborts,
            connects,
            reuses,
            queue_time,
            connect_time,
            response_time,
            total_time,
        } = self;
        what.counters([requests, balanced, bytes_in, bytes_out]);
        what.counters([bytes_to_servers, bytes_from_servers]);
        what.counters([connect_errors, response_errors, internal_errors]);
        what.counters([retries, redispatches, rescues, tunnels_closed]);
        what.counters([client_aborts, server_aborts, connects, reuses]);
        for timing in [queue_time, connect_time, response_time, total_time] {
            what.timing(timing);
        }
    }
}

impl ServerTally {
    fn forget(&self, what: Forget) {
        let Self {
            traffic,
            idle: _,
            used: _,
            observed_faults,
            responses,
        } = self;
        traffic.forget(what);
        what.counters([observed_faults]);
        if what == Forget::Everything {
            responses.iter().for_each(Histogram::clear);
        }
    }
}

impl TotalTally {
    fn forget(&self, what: Forget) {
        let Self {
            traffic,
            request_errors,
            denied,
            rebinds,
            http2_connections,
            http2_requests,
            tls_connections,
            compressed,
            compressed_in,
            compressed_out,
            responses,
            unread,
        } = self;
        traffic.forget(what);
        what.counters([request_errors, denied, rebinds]);
        what.counters([http2_connections, http2_requests, tls_connections]);
        what.counters([compressed, compressed_in, compressed_out]);
        what.counters(responses.iter().chain(unread));
    }
}

impl Counters {
    /// Forgets what the worker counted itself; on its own thread only.
    pub fn forget_own(&self, worker: Slot, what: Forget) {
        if let Some(tally) = self.workers.existing(worker) {
            tally.forget(what);
        }
    }

    /// Forgets what is shared, once the workers have done their part.
    pub fn forget_shared(&self, what: Forget) {
        let Self {
            active,
            waiting,
            request_rate,
            needed: _,
            workers: _,
        } = self;
        active.clear_max();
        waiting.clear_max();
        what.rate(request_rate);
    }
}

impl Totals {
    /// Forgets what the worker counted itself; on its own thread only.
    pub fn forget_own(&self, worker: Slot, what: Forget) {
        if let Some(tally) = self.workers.existing(worker) {
            tally.forget(what);
        }
    }

    /// Forgets what is shared, once the workers have done their part.
    pub fn forget_shared(&self, what: Forget) {
        let Self {
            frontend,
            backend: Backend { active, waiting },
            request_rate,
            bytes_out_rate,
            workers: _,
        } = self;
        let Frontend {
            connections,
            tls,
            connections_total,
            connection_rate,
            denied_connections,
        } = frontend;
        for gauge in [active, waiting, connections, tls] {
            gauge.clear_max();
        }
        if what == Forget::Everything {
            connections_total.clear();
            denied_connections.clear();
        }
        for rate in [connection_rate, request_rate, bytes_out_rate] {
            what.rate(rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::counters::Distribution;

    const MINE: Slot = Slot::new(0);
    const OTHERS: Slot = Slot::new(1);

    /// Two workers' figures: three requests each, one of them under way.
    fn counters() -> Counters {
        let counters = Counters::default();
        for worker in [MINE, OTHERS] {
            let tally = counters.of(worker);
            tally.traffic.requests.add(3);
            tally.traffic.total_time.enter(Duration::from_millis(4));
            tally.response(200, Duration::from_millis(3));
            tally.used.inc();
        }
        counters.active.inc();
        counters.active.inc();
        counters.active.dec();
        counters.sample(100);
        counters
    }

    fn times(counters: &Counters) -> Option<(Duration, Duration)> {
        Timing::over(counters.tallies().map(|tally| &tally.traffic.total_time))
    }

    #[test]
    fn maxima_go_and_everything_else_stays() {
        let counters = counters();
        for worker in [MINE, OTHERS] {
            counters.forget_own(worker, Forget::Maxima);
        }
        counters.forget_shared(Forget::Maxima);
        assert_eq!((counters.active.get(), counters.active.max()), (1, 1));
        assert_eq!(counters.request_rate.max(), 0);
        assert_eq!(counters.requests(), 6);
        assert_eq!(
            times(&counters),
            Some((Duration::from_millis(4), Duration::ZERO))
        );
        assert_eq!(counters.responses()[1].count(), 2);
    }

    #[test]
    fn everything_goes_but_what_there_is_now_and_what_others_counted() {
        let counters = counters();
        counters.forget_own(MINE, Forget::Everything);
        assert_eq!(counters.requests(), 3);
        counters.forget_own(OTHERS, Forget::Everything);
        counters.forget_shared(Forget::Everything);
        assert_eq!((counters.requests(), counters.active.get()), (0, 1));
        assert_eq!(times(&counters), None);
        assert_eq!(counters.responses()[1], Distribution::default());
        assert_eq!(counters.of(MINE).used.get(), 1);
        counters.of(MINE).traffic.requests.inc();
        counters.sample(101);
        assert_eq!(counters.request_rate.max(), 1, "a reset is no burst");
    }

    #[test]
    fn totals_start_anew_too() {
        let totals = Totals::default();
        let tally = totals.of(MINE);
        tally.traffic.bytes_out.add(9);
        tally.response(200);
        tally.unread(400);
        totals.frontend.connections_total.inc();
        totals.frontend.connections.inc();
        totals.sample(100);
        totals.forget_own(MINE, Forget::Everything);
        totals.forget_shared(Forget::Everything);
        assert_eq!((totals.bytes_out(), totals.responses()[1]), (0, 0));
        assert_eq!(totals.unread(), [0; 6]);
        assert_eq!(totals.frontend.connections_total.get(), 0);
        assert_eq!(totals.frontend.connections.get(), 1);
        assert_eq!(totals.bytes_out_rate.max(), 0);
    }
}
