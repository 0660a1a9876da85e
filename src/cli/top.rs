//! `tidings top`: flags, and whether there is a terminal at all.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use anyhow::bail;
use clap::Args;

use super::{desk::Desk, duration};
use crate::{
    admin::client::Target,
    top::{self, Theme},
};

/// The port that takes commands, where nothing else is said.
const ADMIN_PORT: u16 = 9999;

/// The shortest time from one look to the next.
const SHORTEST: Duration = Duration::from_millis(100);

/// What to watch, and how.
#[derive(Debug, Clone, Args)]
pub struct TopArgs {
    /// The load balancer.
    #[command(flatten)]
    pub desk: Desk,
    /// Where it takes commands [default: port 9999 of the same host]
    #[arg(long, value_name = "HOST:PORT|unix:PATH", env = "TIDINGS_ADMIN_ADDR")]
    pub admin: Option<Target>,
    /// Time from one look to the next
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    #[arg(env = "TIDINGS_INTERVAL", value_parser = interval)]
    pub interval: Duration,
}

impl TopArgs {
    /// Where commands go: to the load balancer that is watched, and never by
    /// default to another one.
    fn admin(&self) -> Target {
        let host = self.desk.stats.rsplit_once(':').map(|(host, _)| host);
        let same_host = || Target::Tcp(format!("{}:{ADMIN_PORT}", host.unwrap_or("127.0.0.1")));
        self.admin.clone().unwrap_or_else(same_host)
    }
}

/// Watches until `q` or a signal; the exit code is 0, or the signal's as a
/// shell counts it.
pub async fn run(args: TopArgs) -> anyhow::Result<ExitCode> {
    let is_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if !is_terminal || is_dumb {
        bail!("tidings top needs a terminal; for scripts there is `tidings servers --json`");
    }
    // https://no-color.org: any value but an empty one.
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let admin = args.admin();
    top::run(args.desk, admin, args.interval, Theme::new(!no_colour)).await
}

fn interval(text: &str) -> Result<Duration, &'static str> {
    match duration(text)? {
        short if short < SHORTEST => Err("an interval is 100ms at the least"),
        interval => Ok(interval),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        top: TopArgs,
    }

    fn admin_of(flags: &[&str]) -> String {
        let line = Line::parse_from([&["top"], flags].concat());
        line.top.admin().to_string()
    }

    #[test]
    fn commands_go_to_the_balancer_that_is_watched() {
        assert_eq!(admin_of(&["--stats", "ha:1936"]), "ha:9999");
        assert_eq!(admin_of(&["--stats", "[::1]:1936"]), "[::1]:9999");
        let said = ["--stats", "ha:1936", "--admin", "unix:/run/t.sock"];
        assert_eq!(admin_of(&said), "unix:/run/t.sock");
    }

    #[test]
    fn an_interval_is_no_busy_loop() {
        assert_eq!(interval("100ms"), Ok(SHORTEST));
        assert!(interval("99ms").is_err());
    }
}
