//! Ranges of IP addresses in CIDR notation (RFC 4632, RFC 4291 section 2.3).

use std::{fmt, net::IpAddr, str::FromStr};

/// A range of addresses, such as `10.0.0.0/8` or `fc00::/7`; a bare address is
/// a range of one.
///
/// An IPv4 range holds IPv4 addresses, also in their IPv6 form
/// (`::ffff:10.0.0.1`), and an IPv6 range IPv6 addresses: `0.0.0.0/0,::/0` is
/// everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The first address; its host bits are zero.
    network: IpAddr,
    /// How many of its first bits count: at most 32 or 128.
    prefix: u8,
}

/// A text that is not a [`Cidr`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no range of addresses; write 10.0.0.0/8, fc00::/7 or a bare address")]
pub struct CidrError(String);

impl Cidr {
    /// The range of all addresses whose first `prefix` bits are those of `ip`;
    /// `None` where it has fewer bits.
    pub fn new(ip: IpAddr, prefix: u8) -> Option<Self> {
        let (ip, prefix) = match ip.to_canonical() {
            // The prefix counted the 96 bits that the IPv6 form begins with.
            canonical if canonical.is_ipv4() && ip.is_ipv6() => {
                (canonical, prefix.checked_sub(96)?)
            }
            canonical => (canonical, prefix),
        };
        (prefix <= bits(ip)).then(|| Self {
            network: masked(ip, prefix),
            prefix,
        })
    }

    /// Whether `ip` is in the range.
    pub fn contains(self, ip: IpAddr) -> bool {
        masked(ip.to_canonical(), self.prefix) == self.network
    }
}

/// Whether `ip` is in any of the ranges.
pub fn any_contains(ranges: &[Cidr], ip: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(ip))
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// `ip` with all but its first `prefix` bits zero.
fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    let host_bits = u32::from(bits(ip).saturating_sub(prefix));
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & mask).into())
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let parse = || {
            let Some((ip, prefix)) = text.split_once('/') else {
                let ip: IpAddr = text.parse().ok()?;
                return Self::new(ip, bits(ip));
            };
            let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
            let prefix = digits.then(|| prefix.parse().ok())??;
            Self::new(ip.parse().ok()?, prefix)
        };
        parse().ok_or_else(|| CidrError(text.to_owned()))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn holds(range: &str, ip: &str) -> bool {
        self::range(range).contains(ip.parse().unwrap())
    }

    #[test]
    fn a_range_holds_the_addresses_that_begin_like_it() {
        assert!(holds("10.0.0.0/8", "10.255.0.1"));
        assert!(!holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("172.16.0.0/12", "172.31.255.255"));
        assert!(!holds("172.16.0.0/12", "172.32.0.0"));
        assert!(holds("fc00::/7", "fdff::1"));
        assert!(!holds("fc00::/7", "fe80::1"));
        assert!(holds("::1/128", "::1"));
        assert!(!holds("::1/128", "::2"));
    }

    #[test]
    fn a_bare_address_is_a_range_of_one() {
        assert_eq!(range("192.0.2.1"), range("192.0.2.1/32"));
        assert_eq!(range("2001:db8::1"), range("2001:db8::1/128"));
        assert!(!holds("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn the_widest_ranges_hold_all_of_their_family_and_none_of_the_other() {
        assert!(holds("0.0.0.0/0", "203.0.113.7") && holds("::/0", "2001:db8::"));
        assert!(!holds("0.0.0.0/0", "2001:db8::") && !holds("::/0", "203.0.113.7"));
        assert!(!holds("::/8", "0.0.0.0"));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_form_counts_as_ipv4() {
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert_eq!(range("::ffff:10.0.0.0/104"), range("10.0.0.0/8"));
        assert_eq!(range("::ffff:10.0.0.1"), range("10.0.0.1"));
    }

    #[test]
    fn host_bits_do_not_count() {
        assert_eq!(range("10.1.2.3/8").to_string(), "10.0.0.0/8");
    }

    #[test]
    fn what_is_no_range_is_refused_with_an_example() {
        let wrong = [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10/8",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
            "::ffff:10.0.0.0/95",
            "localhost",
            "10.0.0.0/256",
        ];
        for text in wrong {
            let error = text.parse::<Cidr>().unwrap_err().to_string();
            assert!(error.contains("10.0.0.0/8"), "{error}");
        }
    }

    #[test]
    fn of_several_ranges_one_is_enough() {
        let ranges = [range("10.0.0.0/8"), range("fe80::/10")];
        assert!(any_contains(&ranges, "fe80::1".parse().unwrap()));
        assert!(!any_contains(&ranges, "192.0.2.1".parse().unwrap()));
        assert!(!any_contains(&[], "10.0.0.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn a_range_survives_its_text_and_holds_what_it_was_made_of(
            ip: IpAddr, prefix in 0..=128_u8
        ) {
            if let Some(range) = Cidr::new(ip, prefix) {
                prop_assert_eq!(range.to_string().parse(), Ok(range));
                prop_assert!(range.contains(ip));
            }
        }

        #[test]
        fn no_text_is_too_strange(text: String) {
            text.parse::<Cidr>().ok();
        }
    }
}
