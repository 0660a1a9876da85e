//! Warnings about packets that were dropped.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use tokio::time::Instant;
use tracing::{field::display, warn};

use super::wire::DropReason;

/// Of warnings about packets for the same reason, at most one in this time.
const WARNING_PAUSE: Duration = Duration::from_mins(1);

/// Warnings about packets, for each reason: whoever can send one must not fill
/// the log.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    /// By reason, when the next may be told, and how many have not been.
    told: HashMap<DropReason, (Instant, u64)>,
}

impl Warnings {
    pub(super) fn dropped(
        &mut self,
        from: SocketAddr,
        reason: DropReason,
        about: Option<SocketAddr>,
        now: Instant,
    ) {
        let about = about.map(display);
        match self.count(reason, now) {
            Some(1) => warn!(%from, about, %reason, "dropped a gossip packet"),
            Some(packets) => {
                warn!(%from, about, %reason, packets, "dropped gossip packets, the last one from there");
            }
            None => {}
        }
    }

    /// Counts a packet; how many there are to tell of, if it is time to.
    fn count(&mut self, reason: DropReason, now: Instant) -> Option<u64> {
        let (next, untold) = self.told.entry(reason).or_insert((now, 0));
        *untold += 1;
        if now < *next {
            return None;
        }
        *next = now + WARNING_PAUSE;
        Some(std::mem::take(untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_reason_the_first_packet_is_told_and_once_a_minute_how_many_more() {
        let (mut warnings, start) = (Warnings::default(), Instant::now());
        let mut told = |reason, seconds| {
            let now = start + Duration::from_secs(seconds);
            warnings.count(reason, now)
        };
        let (key, foreign) = (DropReason::BadKey, DropReason::Foreign);
        assert_eq!(told(key, 0), Some(1));
        assert_eq!(told(foreign, 1), Some(1));
        let quiet = (1..60).filter_map(|second| told(key, second));
        assert_eq!(quiet.count(), 0);
        assert_eq!(told(key, 60), Some(60));
        assert_eq!(told(key, 61), None);
        assert_eq!(told(foreign, 1000), Some(1));
    }
}
