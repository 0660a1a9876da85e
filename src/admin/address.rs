//! Where commands are taken: a TCP address or a socket in the file system.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

/// What marks a path.
pub(super) const UNIX: &str = "unix:";

/// `ADDR:PORT` or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// On the network.
    Tcp(SocketAddr),
    /// A file of this machine.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str =
            "expected an address such as 127.0.0.1:9999, or unix:/run/tidings.sock";
        match text.strip_prefix(UNIX) {
            Some("") => Err(EXPECTED),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| EXPECTED),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_as_it_was_given() {
        for text in ["0.0.0.0:9999", "[::1]:9999", "unix:/run/a.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_neither_says_what_would_be() {
        for text in ["", "9999", "ha:9999", "unix:", "/run/a.sock"] {
            let err = text.parse::<Address>().unwrap_err();
            assert!(err.contains("127.0.0.1:9999"), "{text}");
        }
    }
}
