//! Flags about who clients are: what servers are told of them, and who is
//! believed what he says of them.

use clap::{Args, builder::BoolishValueParser};

use crate::{
    cidr::Cidr,
    proxy::{ForwardedFor, Policy},
};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Clients")]
pub(super) struct ForwardedArgs {
    /// What becomes of X-Forwarded-For, -Port and -Proto
    #[arg(
        long,
        value_name = "append|replace|off",
        default_value = "append",
        hide_possible_values = true,
        env = "TIDINGS_FORWARDED_FOR"
    )]
    forwarded_for: ForwardedFor,
    /// Proxy in front of this one; repeatable. What anyone else claims of
    /// clients is dropped, but for --forwarded-for off [default: everyone's
    /// X-Forwarded-For goes on]
    #[arg(long, value_name = "CIDR", env = "TIDINGS_TRUSTED_PROXY")]
    #[arg(value_delimiter = ',')]
    trusted_proxy: Vec<Cidr>,
    /// Say it as Forwarded too (RFC 7239)
    #[arg(long, env = "TIDINGS_FORWARDED", value_parser = BoolishValueParser::new())]
    forwarded: bool,
    /// Whose connections begin with a PROXY header; repeatable
    #[arg(long, value_name = "CIDR", env = "TIDINGS_ACCEPT_PROXY")]
    #[arg(value_delimiter = ',')]
    pub(super) accept_proxy: Vec<Cidr>,
}

impl ForwardedArgs {
    /// Those who connect for others.
    pub(super) fn proxies(&self) -> Vec<Cidr> {
        [self.trusted_proxy.as_slice(), &self.accept_proxy].concat()
    }

    /// What servers are told.
    pub(super) fn policy(&self) -> Policy {
        Policy {
            forwarded_for: self.forwarded_for,
            trusted: self.trusted_proxy.clone(),
            forwarded: self.forwarded,
        }
    }
}
