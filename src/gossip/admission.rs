//! Who may take part, by address: where packets come from, and where the
//! nodes and servers are that they tell of.
//!
//! A source address can be forged, a claim need not be true: only a key keeps
//! out who is bent on it. What this does is that a port which is open to the
//! world by mistake takes in nobody from there, and that a neighbour without
//! a key cannot make a balancer send requests anywhere it likes.

use std::net::IpAddr;

use crate::cidr::{Cidr, any_contains};

/// The addresses that a node hears, and hears of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Every address: what a key admits.
    Everyone,
    /// Private addresses and this node's own: loopback, RFC 1918, link-local
    /// (RFC 3927, RFC 4291), unique local (RFC 4193) and shared (RFC 6598)
    /// ones. The default where there is no key.
    #[default]
    Private,
    /// Addresses in these ranges.
    Only(Vec<Cidr>),
}

impl Admission {
    /// Whether somebody at `ip` is heard by a node that is itself at `own`.
    pub(super) fn admits(&self, ip: IpAddr, own: IpAddr) -> bool {
        match self {
            Self::Everyone => true,
            Self::Private => is_private(ip) || ip.to_canonical() == own.to_canonical(),
            Self::Only(ranges) => any_contains(ranges, ip),
        }
    }

    /// Whether the other nodes admit this one, if they have the same ranges.
    pub(super) fn admits_elsewhere(&self, own: IpAddr) -> bool {
        match self {
            Self::Everyone => true,
            Self::Private => is_private(own),
            Self::Only(ranges) => any_contains(ranges, own),
        }
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && b & 0xc0 == 64;
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "203.0.113.1";

    fn admits(admission: &Admission, ip: &str) -> bool {
        admission.admits(ip.parse().unwrap(), OWN.parse().unwrap())
    }

    #[test]
    fn without_a_key_private_addresses_are_admitted_to_their_very_ends() {
        for inside in [
            "127.0.0.1",
            "127.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.168.0.0",
            "192.168.255.255",
            "169.254.0.0",
            "169.254.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "::1",
            "fe80::",
            "febf:ffff::1",
            "fc00::",
            "fdff:ffff::1",
            "::ffff:10.1.2.3",
        ] {
            assert!(admits(&Admission::Private, inside), "{inside}");
        }
        for outside in [
            "126.255.255.255",
            "128.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "::",
            "::2",
            "fe7f::1",
            "fec0::1",
            "fbff::1",
            "fe00::1",
            "2001:db8::1",
            "::ffff:203.0.113.9",
        ] {
            assert!(!admits(&Admission::Private, outside), "{outside}");
        }
    }

    #[test]
    fn a_node_at_a_public_address_hears_others_of_the_same_host() {
        assert!(admits(&Admission::Private, OWN));
        assert!(!Admission::Private.admits_elsewhere(OWN.parse().unwrap()));
    }

    #[test]
    fn ranges_that_are_given_replace_the_private_ones() {
        let only = Admission::Only(vec!["198.51.100.0/24".parse().unwrap()]);
        assert!(admits(&only, "198.51.100.7"));
        for refused in ["127.0.0.1", "10.0.0.1", OWN] {
            assert!(!admits(&only, refused), "{refused}");
        }
    }

    #[test]
    fn a_key_admits_every_address() {
        assert!(admits(&Admission::Everyone, "2001:db8::1"));
    }
}
