//! How many packets are looked into, before any of them is decrypted.
//!
//! Each source has a bucket, and there is one for all. A member's own gossip
//! address has a bucket to itself, so that a stranger on the same host, or
//! behind the same NAT, does not use up what is the member's. Whoever forges
//! a member's address can use up that member's: what keeps such packets away
//! is a network that does not carry forged sources (BCP 38).

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::time::Instant;

use super::wire::DropReason;
use crate::net;

/// What one member may send: SWIM at its busiest sends 76 packets a second,
/// and to one node rarely more than 30.
const OF_MEMBER: Allowance = Allowance::per_second(500);
/// What the strangers at one IP address may send: after a balancer's restart
/// each of its agents greets it seven times a second, and 700 of them may
/// share a host or a NAT.
const OF_ADDRESS: Allowance = Allowance::per_second(5_000);
/// What all may send: as much as takes a third of a core at the most, with
/// some 5 µs to unseal and 10 µs to follow a packet, and three times what
/// 1,000 agents send that greet a restarted balancer.
const OF_ALL: Allowance = Allowance::per_second(20_000);
/// Strangers leave as much of it to members.
const RESERVE: Duration = Duration::from_millis(500);
/// Sources that are told apart: as many as there can be members, and as many
/// strangers. 400 kB at the most.
const MAX_SOURCES: usize = 8192;

/// A rate, of which a second's worth may come at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// In how long one packet is earned.
    each: Duration,
}

impl Allowance {
    /// A second's worth is what a full bucket holds.
    const BURST: Duration = Duration::from_secs(1);

    pub(super) const fn per_second(packets: u32) -> Self {
        Self {
            each: Duration::from_nanos(1_000_000_000 / packets as u64),
        }
    }
}

/// A token bucket, kept as the moment at which it is full again (the generic
/// cell rate algorithm, ITU-T I.371: the same thing in one number).
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    full_at: Instant,
}

impl Bucket {
    pub(super) fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes a packet's worth out, if that leaves `reserve` in.
    pub(super) fn take(&mut self, allowance: Allowance, reserve: Duration, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + allowance.each;
        let fits = full_at + reserve <= now + Allowance::BURST;
        if fits {
            self.full_at = full_at;
        }
        fits
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    Member(SocketAddr),
    Stranger(IpAddr),
}

/// Who sent how much of late.
#[derive(Debug)]
pub(super) struct Rates {
    all: Bucket,
    of: HashMap<Source, Bucket>,
}

impl Rates {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            all: Bucket::full(now),
            of: HashMap::new(),
        }
    }

    /// Whether to look into a packet from `from`, which may be a member's
    /// gossip address.
    pub(super) fn admit(
        &mut self,
        from: SocketAddr,
        member: bool,
        now: Instant,
    ) -> Result<(), DropReason> {
        let (source, allowance, reserve) = if member {
            (Source::Member(from), OF_MEMBER, Duration::ZERO)
        } else {
            (
                Source::Stranger(net::source(from.ip())),
                OF_ADDRESS,
                RESERVE,
            )
        };
        if !self
            .bucket(source, now)
            .take(allowance, Duration::ZERO, now)
        {
            return Err(DropReason::SourceRate);
        }
        if !self.all.take(OF_ALL, reserve, now) {
            return Err(DropReason::TotalRate);
        }
        Ok(())
    }

    fn bucket(&mut self, source: Source, now: Instant) -> &mut Bucket {
        if self.of.len() >= MAX_SOURCES && !self.of.contains_key(&source) {
            // A full bucket says the same as none.
            self.of.retain(|_, bucket| bucket.full_at > now);
            if self.of.len() >= MAX_SOURCES {
                // So many busy sources are forged ones: what bounds them is
                // the bucket for all.
                self.of.clear();
            }
        }
        self.of.entry(source).or_insert(Bucket::full(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stranger(n: u32) -> SocketAddr {
        (std::net::Ipv4Addr::from_bits(0x0a00_0000 + n), 7946).into()
    }

    /// How many of `packets` are admitted that come evenly over `time`.
    fn admitted(
        rates: &mut Rates,
        start: Instant,
        time: Duration,
        packets: u32,
        from: impl Fn(u32) -> (SocketAddr, bool),
    ) -> u32 {
        let passes = |n: &u32| {
            let (from, member) = from(*n);
            let now = start + time * *n / packets;
            rates.admit(from, member, now).is_ok()
        };
        (0..packets).filter(passes).count() as u32
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_stranger_gets_a_seconds_worth_at_once_and_then_its_rate() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        let one = |_| (stranger(1), false);
        assert_eq!(
            admitted(&mut rates, start, Duration::ZERO, 6_000, one),
            5_000
        );
        let later = start + Duration::from_nanos(1);
        assert!(rates.admit(stranger(1), false, later).is_err());
        let flood = admitted(&mut rates, start, 4 * SECOND, 100_000, one);
        assert!((19_000..=20_001).contains(&flood), "{flood}");
    }

    #[test]
    fn another_port_of_the_same_address_gets_nothing_more_but_a_member_does() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        let ports = |n: u32| (SocketAddr::new(stranger(1).ip(), n as u16), false);
        assert_eq!(
            admitted(&mut rates, start, Duration::ZERO, 60_000, ports),
            5_000
        );
        let member = |_| (stranger(1), true);
        assert_eq!(
            admitted(&mut rates, start, Duration::ZERO, 600, member),
            500
        );
    }

    #[test]
    fn a_flood_from_forged_addresses_leaves_room_for_members() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        let forged = |n| (stranger(n), false);
        let flood = admitted(&mut rates, start, 2 * SECOND, 400_000, forged);
        assert!((45_000..=50_001).contains(&flood), "{flood}");
        let now = start + 2 * SECOND;
        assert_eq!(
            rates.admit(stranger(500_000), false, now + Duration::from_nanos(1)),
            Ok(()),
            "some pass at any time"
        );
        let members = |n| (stranger(1_000_000 + n % 100), true);
        assert_eq!(admitted(&mut rates, now, SECOND, 8_000, members), 8_000);
    }

    #[test]
    fn however_many_sources_there_are_the_memory_is_bounded() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        for n in 0..3 * MAX_SOURCES as u32 {
            rates.admit(stranger(n), n % 2 == 0, start).ok();
            assert!(rates.of.len() <= MAX_SOURCES);
        }
    }

    #[test]
    fn what_swim_sends_at_its_busiest_is_never_dropped() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        // A restarted balancer that knows nobody: 1,000 agents greet it every
        // 150 ms, a tenth of them from one address, for ten seconds.
        let agents = |n: u32| {
            let agent = n % 1_000;
            (stranger(if agent < 100 { 0 } else { agent }), false)
        };
        assert_eq!(
            admitted(&mut rates, start, 10 * SECOND, 66_667, agents),
            66_667
        );
        // And members say what they ever can at once.
        let now = start + 10 * SECOND;
        let members = |n: u32| (stranger(n % 100), true);
        assert_eq!(admitted(&mut rates, now, SECOND, 7_600, members), 7_600);
    }
}
