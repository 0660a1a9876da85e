//! `tidings healthcheck`: whether the one in the same container is well, for
//! images that have no curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, anyhow};
use clap::Args;
use http::StatusCode;
use tokio::time::timeout;

use super::{
    desk::{address, exchange},
    out::say_if_read,
};

/// How long it may take to answer; orchestrators give up after as long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whom to ask, and what.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// Statistics port of the load balancer or agent; 0.0.0.0 stands for this
    /// host, so that its own flag's value will do
    #[arg(long, value_name = "HOST:PORT", env = "TIDINGS_STATS")]
    #[arg(default_value = "127.0.0.1:1936", value_parser = address)]
    pub stats: String,
    /// Ask whether it takes requests too, not only whether it runs
    #[arg(long)]
    pub ready: bool,
}

/// Prints the answer. The exit code is 0 where it is well, 1 where it is not.
pub async fn run(args: HealthArgs) -> anyhow::Result<ExitCode> {
    let at = reachable(&args.stats);
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let answer = timeout(PATIENCE, exchange(&at, None, path)).await;
    let (status, body) = answer
        .map_err(|_| anyhow!("no answer within {PATIENCE:?}"))
        .flatten()
        .with_context(|| format!("nothing answers at {at}{path}; give its --stats"))?;
    say_if_read(body.trim_end())?;
    Ok(match status {
        StatusCode::OK => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Where to connect for what listens there.
fn reachable(listens: &str) -> String {
    match listens.parse::<SocketAddr>() {
        Ok(mut addr) if addr.ip().is_unspecified() => {
            addr.set_ip(match addr.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
            addr.to_string()
        }
        _ => listens.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_asked_here() {
        assert_eq!(reachable("0.0.0.0:1936"), "127.0.0.1:1936");
        assert_eq!(reachable("[::]:1936"), "[::1]:1936");
        assert_eq!(reachable("ha:1936"), "ha:1936");
        assert_eq!(reachable("10.0.0.1:1937"), "10.0.0.1:1937");
    }
}
