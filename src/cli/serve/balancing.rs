//! Flags about how requests are spread.

use std::str::FromStr;

use clap::{Args, ValueEnum};

use crate::balance::Algorithm;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Balancing")]
pub(super) struct BalancingArgs {
    /// How servers take turns
    #[arg(
        long,
        value_name = "HOW",
        default_value = "roundrobin",
        env = "TIDINGS_BALANCE"
    )]
    pub(super) balance: Algorithm,
    /// Cookie that keeps a user at a server, or off
    #[arg(
        long,
        value_name = "NAME|off",
        default_value = "SERVERID",
        env = "TIDINGS_COOKIE"
    )]
    pub(super) cookie: CookieArg,
    /// Attempts after the first, each at another server; one that is refused
    /// counts where no other server is left, and from the 16th on
    #[arg(long, value_name = "N", default_value = "3", env = "TIDINGS_RETRIES")]
    #[arg(value_parser = retries, allow_negative_numbers = true)]
    pub(super) retries: u32,
    /// Whether a refused connection takes a server out until it accepts again
    #[arg(
        long,
        value_name = "on|off",
        default_value = "on",
        env = "TIDINGS_OBSERVE"
    )]
    pub(super) observe: Switch,
}

fn retries(text: &str) -> Result<u32, &'static str> {
    let expected = "expected how often to try again, 0 or more, such as 3";
    text.parse().map_err(|_| expected)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CookieArg(pub(super) Option<String>);

impl FromStr for CookieArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        match text {
            "off" => Ok(Self(None)),
            _ if !text.is_empty() && text.chars().all(token) => Ok(Self(Some(text.to_owned()))),
            _ => Err("expected a cookie name such as SERVERID, or off"),
        }
    }
}

/// A switch on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}
