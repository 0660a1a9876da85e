//! How long a connection may still last.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// A time that runs out unless it is renewed. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    term: Duration,
    until: Arc<watch::Sender<Instant>>,
}

impl Lease {
    /// A lease that runs out after `term`.
    pub(crate) fn new(term: Duration) -> Self {
        let until = Arc::new(watch::Sender::new(Instant::now() + term));
        Self { term, until }
    }

    /// Lets it run for its whole term again, from now on.
    pub(crate) fn renew(&self) {
        self.until.send_replace(Instant::now() + self.term);
    }

    /// Waits until it has run out.
    pub(crate) async fn expired(&self) {
        loop {
            let until = *self.until.borrow();
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Duration = Duration::from_mins(1);

    #[tokio::test(start_paused = true)]
    async fn a_lease_runs_out_a_term_after_it_was_renewed_last() {
        let lease = Lease::new(TERM);
        let begun = Instant::now();
        let renewing = lease.clone();
        let tenant = async move {
            for _ in 0..3 {
                sleep_until(Instant::now() + TERM / 2).await;
                renewing.renew();
            }
        };
        tokio::join!(tenant, lease.expired());
        assert_eq!(begun.elapsed(), TERM / 2 * 3 + TERM);
    }
}
