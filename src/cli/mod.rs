//! The command line: flags, their environment variables and how their values
//! are read. A wrong value is one line that says what would be right.

pub mod admin;
pub mod agent;
pub mod demo;
pub mod desk;
pub mod events;
pub mod health;
pub mod look;
pub mod out;
pub mod serve;
pub mod top;

use std::{net::SocketAddr, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};

use crate::{
    cidr::Cidr,
    gossip::{Admission, Key, Seed},
    membership::Name,
    syslog,
};

/// An HTTP load balancer that learns its servers by gossip.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, args_conflicts_with_subcommands = true)]
#[command(propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What to run; `serve` where nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `serve`, which may be left out as a word.
    #[command(flatten)]
    pub serve: serve::ServeArgs,
}

impl Cli {
    /// The same if what is said fits together; what clap cannot see for itself.
    pub fn checked(self) -> Result<Self, clap::Error> {
        let serve = match &self.command {
            None => &self.serve,
            Some(Command::Serve(args)) => args,
            Some(_) => return Ok(self),
        };
        match serve.check() {
            Ok(()) => Ok(self),
            Err(why) => Err(Self::command().error(ErrorKind::ValueValidation, why)),
        }
    }

    /// Where to send what is said, and the name of the node that says it.
    pub fn syslog(&self) -> Option<(&syslog::Target, Option<&Name>)> {
        match &self.command {
            None => Some((self.serve.syslog.as_ref()?, self.serve.name.as_ref())),
            Some(Command::Serve(args)) => Some((args.syslog.as_ref()?, args.name.as_ref())),
            // An agent's name is its server's: the host has another.
            Some(Command::Agent(args)) => Some((args.syslog.as_ref()?, None)),
            Some(_) => None,
        }
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the load balancer
    Serve(Box<serve::ServeArgs>),
    /// Announce a server, and run it: tidings agent --port 3000 -- node app.js
    Agent(Box<agent::AgentArgs>),
    /// Run a load balancer and three toy servers on this machine
    Demo(demo::DemoArgs),
    /// Let servers keep their users and take no new ones
    Drain(admin::ServersArgs),
    /// Take servers out
    Maint(admin::ServersArgs),
    /// Let servers take traffic again, after drain or maint
    Ready(admin::ServersArgs),
    /// Change a server's share of the requests
    Weight(admin::WeightArgs),
    /// List the servers of a running load balancer
    Servers(look::LookArgs),
    /// List the members of the cluster
    Members(look::LookArgs),
    /// List what happened to servers, or follow it as it happens
    Events(events::EventsArgs),
    /// Watch a running load balancer, and steer it, in a terminal
    Top(top::TopArgs),
    /// Ask a load balancer or agent whether it is well; the exit code says so
    Healthcheck(health::HealthArgs),
    /// Print a new gossip key
    Keygen,
    /// The toy server that `demo` runs.
    #[command(hide = true)]
    DemoApp(demo::DemoAppArgs),
}

/// How to take part in gossip: the same for a balancer and an agent.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Gossip")]
pub struct GossipArgs {
    /// Cluster to take part in; packets of any other are dropped
    #[arg(
        long,
        value_name = "NAME",
        default_value = "tidings",
        env = "TIDINGS_CLUSTER"
    )]
    pub cluster: Name,
    /// Gossip key, 32 bytes in base64; the first given encrypts, all decrypt
    #[arg(
        long,
        value_name = "KEY",
        env = "TIDINGS_GOSSIP_KEY",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub gossip_key: Vec<Key>,
    /// File of gossip keys, one a line, read again when it changes
    #[arg(long, value_name = "PATH", env = "TIDINGS_GOSSIP_KEY_FILE")]
    #[arg(conflicts_with = "gossip_key")]
    pub gossip_key_file: Option<std::path::PathBuf>,
    /// Admit only nodes and servers at these addresses; repeatable [default:
    /// with a key all, without one private addresses]
    #[arg(
        long,
        value_name = "CIDR",
        env = "TIDINGS_GOSSIP_ALLOW",
        value_delimiter = ','
    )]
    pub gossip_allow: Vec<Cidr>,
}

impl GossipArgs {
    /// Who may take part, by address.
    pub fn admission(&self) -> Admission {
        let keyed = !self.gossip_key.is_empty() || self.gossip_key_file.is_some();
        match (self.gossip_allow.is_empty(), keyed) {
            (false, _) => Admission::Only(self.gossip_allow.clone()),
            (true, true) => Admission::Everyone,
            (true, false) => Admission::Private,
        }
    }
}

/// The longest duration that makes sense, and that no clock overflows by.
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// Reads a duration such as `500ms`, `5s` or `1h`, longer than nothing and no
/// longer than a year.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("a duration must be longer than zero"),
        Ok(duration) if duration > LONGEST => Err("a duration may be a year at the most"),
        Ok(duration) => Ok(duration),
        Err(_) => Err("expected a duration such as 500ms, 5s or 1h"),
    }
}

/// Reads a node to join.
pub fn seed(text: &str) -> Result<Seed, String> {
    text.parse().map_err(|err| format!("{err}"))
}

/// Where to listen.
fn socket_address(text: &str) -> Result<SocketAddr, &'static str> {
    let expected = "expected an IP address and a port, such as 0.0.0.0:8080 or [::]:8080";
    text.parse().map_err(|_| expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn where_to_listen_is_an_ip_address_and_a_port() {
        assert!(socket_address("127.0.0.1:80").is_ok() && socket_address("[::]:80").is_ok());
        for wrong in ["8080", ":8080", "localhost:8080", "0.0.0.0", ""] {
            let said = socket_address(wrong).unwrap_err();
            assert!(said.contains("such as 0.0.0.0:8080"), "{wrong}");
        }
    }

    #[test]
    fn a_duration_needs_a_unit_and_a_length() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("5").is_err());
        assert!(duration("0s").is_err());
        assert!(duration("soon").is_err());
        assert!(duration("500000000000y").is_err());
    }
}
