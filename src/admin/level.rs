//! How much say a connection has.

use std::{fmt, net::IpAddr};

use clap::ValueEnum;

/// `HAProxy`'s levels; a higher one may do what the lower ones may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Level {
    /// Looks at what is no secret
    User,
    /// Looks at everything
    Operator,
    /// Changes things
    Admin,
}

impl Level {
    /// The level of a peer where none is given to all: who is on this machine
    /// could do worse, and who is not may only look.
    pub fn of(peer: IpAddr) -> Self {
        if peer.to_canonical().is_loopback() {
            Self::Admin
        } else {
            Self::User
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_change_things() {
        let of = |peer: &str| Level::of(peer.parse().unwrap());
        assert_eq!(of("127.0.0.1"), Level::Admin);
        assert_eq!(of("::1"), Level::Admin);
        assert_eq!(of("::ffff:127.0.0.1"), Level::Admin);
        assert_eq!(of("172.17.0.1"), Level::User);
        assert_eq!(of("::ffff:10.0.0.1"), Level::User);
    }
}
