//! `tidings agent`.

use std::{
    collections::BTreeMap, ffi::OsString, net::IpAddr, net::SocketAddr, process::ExitCode,
    time::Duration,
};

use clap::Args;
use http::{Method, uri::PathAndQuery};

use super::{GossipArgs, duration, seed, socket_address};
use crate::{
    agent::{self, Command, Policy},
    gossip::{self, Seed},
    host,
    membership::Name,
    pool::{
        server::Check,
        transport::Transport,
        warm_up::{SLOWSTART, slowstart},
    },
    syslog::{self, Syslog},
};

/// Flags of `tidings agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Port that the app listens on
    #[arg(long, value_name = "PORT", env = "TIDINGS_PORT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Name of the server, also its cookie's value [default: this host's name]
    #[arg(long, value_name = "NAME", env = "TIDINGS_NAME")]
    pub name: Option<Name>,
    /// Service that the server belongs to; the load balancer must serve the same
    #[arg(
        long,
        value_name = "NAME",
        default_value = "nodes",
        env = "TIDINGS_SERVICE"
    )]
    pub service: Name,
    /// Address where load balancers reach the app [default: the one this host
    /// has towards --join, followed when it changes]
    #[arg(long, value_name = "IP", env = "TIDINGS_ADDRESS")]
    pub address: Option<IpAddr>,
    /// Share of the requests beside the other servers', 0 to 256
    #[arg(long, value_name = "N", default_value_t = 1, env = "TIDINGS_WEIGHT")]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=256))]
    pub weight: u16,
    /// Requests that the app takes at a time; more wait at the load balancer, at
    /// each of them by itself [default: what the load balancer says]
    #[arg(long, value_name = "N", env = "TIDINGS_MAXCONN")]
    pub maxconn: Option<u32>,
    /// How to see that the app is ready: by a connection it accepts, by GET
    /// PATH being answered with 2xx or 3xx, or off: as soon as it runs
    #[arg(long, value_name = "tcp|http:PATH|off", default_value = "tcp")]
    #[arg(env = "TIDINGS_CHECK", value_parser = check)]
    pub check: LocalCheck,
    /// Something else to say of the server, shown by the load balancer;
    /// repeatable. How it is to be reached: tls=1, sni=NAME, proto=h2,
    /// send-proxy=v1|v2; how long it gets a growing share when it comes up:
    /// slowstart=TIME
    #[arg(long = "tag", value_name = "KEY=VALUE", env = "TIDINGS_TAG")]
    #[arg(value_delimiter = ',', value_parser = tag)]
    pub tags: Vec<(String, String)>,
    /// On SIGTERM, longest time for the users' last requests; up to two seconds
    /// of it, at most a quarter, are left for the app's own end
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        env = "TIDINGS_DRAIN"
    )]
    #[arg(value_parser = duration)]
    pub drain: Duration,
    /// What to do when the app ends
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "always",
        env = "TIDINGS_RESTART"
    )]
    pub restart: Policy,
    /// Send what the app says there too, line by line, and what the agent
    /// says: RFC 5424 over UDP [default port: 514]
    #[arg(long, value_name = "udp://HOST:PORT", env = "TIDINGS_SYSLOG")]
    pub syslog: Option<syslog::Target>,
    /// Where to answer over HTTP: /metrics, /healthz (the agent runs), /readyz
    /// (its app takes new users) [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT", env = "TIDINGS_STATS")]
    #[arg(value_parser = socket_address)]
    pub stats: Option<SocketAddr>,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    pub die_with_parent: bool,
    /// Command that runs the app; without one, an app that runs by itself is
    /// announced
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    /// Load balancer or agent to join, every address of the name; repeatable
    #[arg(
        long,
        value_name = "HOST[:PORT]",
        default_value = "ha",
        env = "TIDINGS_JOIN"
    )]
    #[arg(value_delimiter = ',', value_parser = seed, help_heading = "Gossip")]
    pub join: Vec<Seed>,
    /// Where to speak gossip, UDP and TCP [default: 0.0.0.0:7946, or a free
    /// port where that is in use]
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "TIDINGS_GOSSIP",
        help_heading = "Gossip"
    )]
    #[arg(value_parser = socket_address)]
    pub gossip: Option<SocketAddr>,
    /// How to take part in gossip
    #[command(flatten)]
    pub gossip_args: GossipArgs,
}

/// How the agent sees that the app is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalCheck {
    /// It does not look.
    Off,
    /// It looks like this.
    On(Check),
}

/// Runs an agent until its end.
pub async fn run(args: AgentArgs, syslog: Option<Syslog>) -> anyhow::Result<ExitCode> {
    if args.die_with_parent {
        host::die_with_parent();
    }
    let mut command = args.command.into_iter();
    let command = command.next().map(|program| Command {
        program,
        arguments: command.collect(),
    });
    agent::run(agent::Settings {
        name: match args.name {
            Some(name) => name,
            None => host::name().await,
        },
        service: args.service,
        address: args.address,
        port: args.port,
        weight: args.weight,
        check: match args.check {
            LocalCheck::Off => None,
            LocalCheck::On(check) => Some(check),
        },
        tags: tags(args.tags, args.maxconn),
        seeds: args.join,
        gossip: args.gossip,
        stats: args.stats,
        gossip_args: args.gossip_args,
        drain: args.drain,
        restart: args.restart,
        command,
        syslog,
    })
    .await
}

fn check(text: &str) -> Result<LocalCheck, String> {
    match text {
        "off" => Ok(LocalCheck::Off),
        "tcp" => Ok(LocalCheck::On(Check::Tcp)),
        _ => {
            let path = text
                .strip_prefix("http:")
                .filter(|path| path.starts_with('/'));
            let path = path.and_then(|path| path.parse::<PathAndQuery>().ok());
            let path = path.ok_or("expected tcp, http:PATH as in http:/health, or off")?;
            let method = Method::GET;
            Ok(LocalCheck::On(Check::Http { method, path }))
        }
    }
}

/// What is said of the server beside its weight.
fn tags(given: Vec<(String, String)>, maxconn: Option<u32>) -> BTreeMap<String, String> {
    let maxconn = maxconn.map(|limit| ("maxconn".to_owned(), limit.to_string()));
    given.into_iter().chain(maxconn).collect()
}

fn tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    gossip::check_tag(key, value).map_err(|err| err.to_string())?;
    if key == SLOWSTART {
        slowstart(value).map_err(|expected| format!("{key}={value}: {expected}"))?;
    }
    Transport::of(&BTreeMap::from([(key.to_owned(), value.to_owned())]))?;
    Ok((key.into(), value.into()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Agent {
        #[command(flatten)]
        args: AgentArgs,
    }

    fn parse(flags: &[&str]) -> Result<AgentArgs, String> {
        Agent::try_parse_from([&["agent"], flags].concat())
            .map(|agent| agent.args)
            .map_err(|err| err.to_string())
    }

    #[test]
    fn a_port_is_all_it_needs() {
        let args = parse(&["--port", "3000"]).unwrap();
        assert_eq!(args.service.as_str(), "nodes");
        assert_eq!(args.check, LocalCheck::On(Check::Tcp));
        assert_eq!(args.join[0].to_string(), "ha:7946");
        assert_eq!(args.drain, Duration::from_secs(10));
        assert!(args.command.is_empty());
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn how_many_requests_it_takes_is_a_tag() {
        let args = parse(&["--port", "1", "--maxconn", "8", "--tag", "zone=a"]).unwrap();
        let tags = tags(args.tags, args.maxconn);
        assert_eq!(tags["maxconn"], "8");
        assert_eq!(tags["zone"], "a");
    }

    #[test]
    fn what_follows_the_dashes_is_the_apps() {
        let args = parse(&["--port", "3000", "--", "node", "--port", "1", "--", "x"]).unwrap();
        assert_eq!(args.command, ["node", "--port", "1", "--", "x"]);
    }

    #[test]
    fn a_check_has_three_forms() {
        assert_eq!(check("off"), Ok(LocalCheck::Off));
        let Ok(LocalCheck::On(Check::Http { path, .. })) = check("http:/health?x=1") else {
            panic!("it is an HTTP check");
        };
        assert_eq!(path, "/health?x=1");
        for wrong in ["http", "http:", "http:health", "udp", "http:/a b"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_value_is_refused_with_what_would_be_right() {
        let refused = |flags: &[&str]| parse(&[&["--port", "1"], flags].concat()).unwrap_err();
        assert!(refused(&["--weight", "257"]).contains("0..=256"));
        assert!(refused(&["--tag", "zone"]).contains("KEY=VALUE"));
        assert!(refused(&["--tag", "slowstart=soon"]).contains("such as 10s"));
        assert!(refused(&["--tag", "a b=c"]).contains("key must be a name"));
        assert!(refused(&["--tag", "a=b;c"]).contains("printable"));
        assert!(refused(&["--tag", &format!("a={}", "x".repeat(65))]).contains("64"));
        assert!(refused(&["--restart", "maybe"]).contains("always"));
        assert!(parse(&["--port", "0"]).is_err());
    }
}
