//! The protocol's timings, for a load balancer's cluster.

use std::{
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

use foca::{Config, PeriodicParams};

use super::wire::MAX_BODY;

/// How long a probed member has to answer before others are asked to try.
pub(super) const PROBE_RTT: Duration = Duration::from_millis(80);

const PROBE_PERIOD: Duration = Duration::from_millis(250);
const GOSSIP_PERIOD: Duration = Duration::from_millis(50);
const ANNOUNCE_PERIOD: Duration = Duration::from_secs(10);
const FORGET_DOWN: Duration = Duration::from_hours(24);

/// The settings for a cluster of `size` nodes, this one included.
pub(super) fn running(size: usize) -> Config {
    Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_RTT,
        num_indirect_probes: count(3),
        max_transmissions: transmissions(size),
        suspect_to_down_after: suspicion(size),
        remove_down_after: Some(FORGET_DOWN),
        max_packet_size: count(MAX_BODY),
        notify_down_members: true,
        periodic_announce: Some(every(ANNOUNCE_PERIOD, 1)),
        periodic_announce_to_down_members: Some(every(ANNOUNCE_PERIOD, 3)),
        periodic_gossip: Some(every(GOSSIP_PERIOD, 3)),
    }
}

/// The settings for a word about ourselves: it goes to everyone at once, in
/// all but the largest clusters.
pub(super) fn loud(size: usize) -> Config {
    Config {
        num_indirect_probes: count(64),
        ..running(size)
    }
}

/// The settings for saying goodbye: loud, and every later message repeats it.
pub(super) fn leaving(size: usize) -> Config {
    Config {
        max_transmissions: NonZeroU8::MAX,
        ..loud(size)
    }
}

/// At least ten: with foca's own formula small clusters lose updates.
fn transmissions(size: usize) -> NonZeroU8 {
    let wanted = 4.0 * (size as f64 + 1.0).log10().ceil();
    NonZeroU8::new(wanted.clamp(10.0, 255.0) as u8).unwrap_or(NonZeroU8::MAX)
}

/// A second is what a host may stall without its members being declared down.
fn suspicion(size: usize) -> Duration {
    Duration::from_secs(1).mul_f64((size as f64).log10().max(1.0))
}

fn every(frequency: Duration, members: usize) -> PeriodicParams {
    PeriodicParams {
        frequency,
        num_members: count(members),
    }
}

fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_sent_often_enough_in_any_cluster() {
        let sent = |size| transmissions(size).get();
        assert_eq!((sent(1), sent(11), sent(999), sent(1000)), (10, 10, 12, 16));
    }

    #[test]
    fn a_suspect_has_a_second_or_more_to_refute() {
        assert_eq!(suspicion(1), Duration::from_secs(1));
        assert_eq!(suspicion(10), Duration::from_secs(1));
        assert_eq!(suspicion(100), Duration::from_secs(2));
    }
}
