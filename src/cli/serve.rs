//! The flags of `tidings serve`, and what they mean to the rest.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    str::FromStr,
    time::Duration,
};

use clap::{Args, ValueEnum, builder::BoolishValueParser};
use http::{Method, uri::PathAndQuery};

use super::{GossipArgs, duration, seed};
use crate::{
    admin::{Address, Level},
    balance::Algorithm,
    gossip::Seed,
    membership::Name,
    pool::{
        rise_fall::Thresholds,
        server::Check,
        state::{CheckPlan, StaticServer},
    },
    proxy::{Format, Settings, Timeouts},
    syslog,
};

/// Flags of the load balancer.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Take requests here; repeatable
    #[arg(
        long,
        value_name = "ADDR:PORT",
        default_value = "0.0.0.0:80",
        env = "TIDINGS_HTTP"
    )]
    #[arg(value_delimiter = ',')]
    pub http: Vec<SocketAddr>,
    /// Show the page, CSV, JSON, /metrics, /healthz and /readyz here
    #[arg(
        long,
        value_name = "ADDR:PORT",
        default_value = "0.0.0.0:1936",
        env = "TIDINGS_STATS"
    )]
    pub stats: SocketAddr,
    /// Ask for this user and password on the statistics port
    #[arg(
        long,
        value_name = "USER:PASS",
        env = "TIDINGS_STATS_AUTH",
        hide_env_values = true
    )]
    pub stats_auth: Option<Credentials>,
    /// Let the page drain servers, take them out and change their weights
    #[arg(long, env = "TIDINGS_STATS_ADMIN")]
    pub stats_admin: bool,
    /// Take HAProxy's runtime commands here, or off; repeatable
    #[arg(
        long,
        value_name = "ADDR:PORT|unix:PATH|off",
        default_value = "0.0.0.0:9999",
        env = "TIDINGS_ADMIN"
    )]
    #[arg(value_delimiter = ',')]
    admin: Vec<AdminArg>,
    /// What those commands may do [default: user over the network, admin from
    /// this machine]
    #[arg(long, value_name = "LEVEL", env = "TIDINGS_ADMIN_LEVEL")]
    pub admin_level: Option<Level>,
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME", env = "TIDINGS_NAME")]
    pub name: Option<Name>,
    /// Worker threads that serve traffic [default: one a core]
    #[arg(long, value_name = "N", env = "TIDINGS_WORKERS")]
    pub workers: Option<NonZeroU16>,
    /// What is logged of each request, on stdout or to --syslog
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "httplog",
        env = "TIDINGS_ACCESS_LOG"
    )]
    pub access_log: LogFormat,
    /// Send the access log there instead of to stdout, and what is said on
    /// stderr there as well: RFC 5424 over UDP [default port: 514]
    #[arg(long, value_name = "udp://HOST:PORT", env = "TIDINGS_SYSLOG")]
    pub syslog: Option<syslog::Target>,
    /// Say in each response why its request went where it went (X-LB-Why)
    #[arg(long, env = "TIDINGS_EXPLAIN", value_parser = BoolishValueParser::new())]
    pub explain: bool,
    /// On SIGTERM, let open requests finish for this long
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30s",
        env = "TIDINGS_DRAIN_TIMEOUT"
    )]
    #[arg(value_parser = duration)]
    pub drain_timeout: Duration,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    pub die_with_parent: bool,

    #[command(flatten)]
    servers: ServerArgs,
    #[command(flatten)]
    balancing: BalancingArgs,
    #[command(flatten)]
    timeouts: TimeoutArgs,

    /// Speak gossip here, UDP and TCP
    #[arg(
        long,
        value_name = "ADDR:PORT",
        default_value = "0.0.0.0:7946",
        env = "TIDINGS_GOSSIP"
    )]
    #[arg(help_heading = "Gossip")]
    pub gossip: SocketAddr,
    /// Address that others reach this node's gossip at [default: found, and
    /// followed when it changes]
    #[arg(
        long,
        value_name = "IP[:PORT]",
        env = "TIDINGS_ADVERTISE",
        help_heading = "Gossip"
    )]
    pub advertise: Option<Advertise>,
    /// Node of the cluster to join; repeatable. None is needed where agents join this one
    #[arg(
        long,
        value_name = "HOST[:PORT]",
        env = "TIDINGS_JOIN",
        help_heading = "Gossip"
    )]
    #[arg(value_parser = seed, value_delimiter = ',')]
    pub join: Vec<Seed>,
    /// Cluster, keys.
    #[command(flatten)]
    pub gossip_args: GossipArgs,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Servers")]
struct ServerArgs {
    /// Service to balance: servers of this one are used; also the backend's name
    #[arg(
        long,
        value_name = "NAME",
        default_value = "nodes",
        env = "TIDINGS_SERVICE"
    )]
    service: Name,
    /// Server without an agent; repeatable. Keys: weight, check, check-interval, rise, fall
    #[arg(
        long,
        value_name = "NAME=HOST:PORT[,KEY=VALUE…]",
        env = "TIDINGS_SERVER"
    )]
    #[arg(value_delimiter = ' ')]
    server: Vec<ServerArg>,
    /// How servers without an agent are checked: tcp, http:METHOD:PATH or off
    #[arg(
        long,
        value_name = "CHECK",
        default_value = "tcp",
        env = "TIDINGS_CHECK"
    )]
    check: CheckArg,
    /// Time from one check to the next
    #[arg(
        long,
        value_name = "TIME",
        default_value = "2s",
        env = "TIDINGS_CHECK_INTERVAL"
    )]
    #[arg(value_parser = duration)]
    check_interval: Duration,
    /// Good checks in a row that bring a server up
    #[arg(long, value_name = "N", default_value = "2", env = "TIDINGS_RISE")]
    rise: NonZeroU16,
    /// Failed checks in a row that take a server down
    #[arg(long, value_name = "N", default_value = "3", env = "TIDINGS_FALL")]
    fall: NonZeroU16,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Balancing")]
struct BalancingArgs {
    /// How servers take turns
    #[arg(
        long,
        value_name = "HOW",
        default_value = "roundrobin",
        env = "TIDINGS_BALANCE"
    )]
    balance: Algorithm,
    /// Cookie that keeps a user at a server, or off
    #[arg(
        long,
        value_name = "NAME|off",
        default_value = "SERVERID",
        env = "TIDINGS_COOKIE"
    )]
    cookie: CookieArg,
    /// Attempts after the first, each at another server
    #[arg(long, value_name = "N", default_value = "3", env = "TIDINGS_RETRIES")]
    retries: u32,
    /// Whether a refused connection takes a server out until it accepts again
    #[arg(
        long,
        value_name = "on|off",
        default_value = "on",
        env = "TIDINGS_OBSERVE"
    )]
    observe: Switch,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Timeouts")]
#[expect(clippy::struct_field_names, reason = "they are named as the flags are")]
struct TimeoutArgs {
    /// To connect to a server
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        env = "TIDINGS_TIMEOUT_CONNECT"
    )]
    #[arg(value_parser = duration)]
    timeout_connect: Duration,
    /// For a client to send or take the next bytes
    #[arg(
        long,
        value_name = "TIME",
        default_value = "50s",
        env = "TIDINGS_TIMEOUT_CLIENT"
    )]
    #[arg(value_parser = duration)]
    timeout_client: Duration,
    /// For a server to answer, or to send the next bytes
    #[arg(
        long,
        value_name = "TIME",
        default_value = "50s",
        env = "TIDINGS_TIMEOUT_SERVER"
    )]
    #[arg(value_parser = duration)]
    timeout_server: Duration,
    /// For a whole request head to arrive
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        env = "TIDINGS_TIMEOUT_HTTP_REQUEST"
    )]
    #[arg(value_parser = duration)]
    timeout_http_request: Duration,
    /// For a kept connection's next request to begin
    #[arg(
        long,
        value_name = "TIME",
        default_value = "60s",
        env = "TIDINGS_TIMEOUT_KEEP_ALIVE"
    )]
    #[arg(value_parser = duration)]
    timeout_keep_alive: Duration,
    /// For a byte to pass through a tunnel (WebSocket) in either direction
    #[arg(
        long,
        value_name = "TIME",
        default_value = "1h",
        env = "TIDINGS_TIMEOUT_TUNNEL"
    )]
    #[arg(value_parser = duration)]
    timeout_tunnel: Duration,
}

impl ServeArgs {
    /// The service whose servers are used.
    pub fn service(&self) -> &Name {
        &self.servers.service
    }

    /// Where commands are taken; none for `off`, and an error for both.
    pub fn admin_addresses(&self) -> Result<Vec<&Address>, &'static str> {
        let addresses: Vec<&Address> = self.admin.iter().filter_map(AdminArg::address).collect();
        match addresses.len() {
            given if given == self.admin.len() || given == 0 => Ok(addresses),
            _ => Err("--admin off and an address exclude each other: give one of them"),
        }
    }

    /// The servers that the command line names; an error names one twice.
    pub fn static_servers(&self) -> Result<Vec<StaticServer>, String> {
        let servers: Vec<StaticServer> = self
            .servers
            .server
            .iter()
            .map(|server| server.with_defaults(&self.servers))
            .collect();
        let mut names = std::collections::HashSet::new();
        match servers.iter().find(|server| !names.insert(&server.name)) {
            Some(twice) => Err(format!(
                "--server names {} twice: give each its own name",
                twice.name
            )),
            None => Ok(servers),
        }
    }

    /// What the request path needs to know.
    pub fn settings(&self) -> Settings {
        let BalancingArgs {
            balance,
            cookie,
            retries,
            observe,
        } = &self.balancing;
        Settings {
            frontend: crate::app::FRONTEND.to_owned(),
            backend: self.servers.service.to_string(),
            balance: *balance,
            cookie: cookie.0.clone(),
            retries: *retries,
            explain: self.explain,
            observe: *observe == Switch::On,
            timeouts: Timeouts {
                connect: self.timeouts.timeout_connect,
                client: self.timeouts.timeout_client,
                server: self.timeouts.timeout_server,
                http_request: self.timeouts.timeout_http_request,
                keep_alive: self.timeouts.timeout_keep_alive,
                tunnel: self.timeouts.timeout_tunnel,
            },
            drain_timeout: self.drain_timeout,
        }
    }
}

/// What is logged of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// HAProxy's `option httplog`
    Httplog,
    /// One JSON object a line
    Json,
    /// Nothing
    Off,
}

/// `ADDR:PORT`, `unix:PATH` or `off`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AdminArg {
    Off,
    At(Address),
}

impl AdminArg {
    fn address(&self) -> Option<&Address> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl FromStr for AdminArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At),
        }
    }
}

impl LogFormat {
    /// How requests are written down, if they are.
    pub fn format(self) -> Option<Format> {
        match self {
            Self::Httplog => Some(Format::Httplog),
            Self::Json => Some(Format::Json),
            Self::Off => None,
        }
    }
}

/// A switch on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// `USER:PASS`.
#[derive(Clone)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({}:…)", self.user)
    }
}

impl FromStr for Credentials {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(Self {
                user: user.to_owned(),
                password: password.to_owned(),
            }),
            _ => Err("expected a user and a password, such as admin:secret"),
        }
    }
}

/// `IP[:PORT]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertise {
    /// The address.
    pub ip: IpAddr,
    /// The port, where it is not the one that gossip is bound to.
    pub port: Option<u16>,
}

impl FromStr for Advertise {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ip, port): (IpAddr, _) = match (text.parse(), text.parse::<SocketAddr>()) {
            (Ok(ip), _) => (ip, None),
            (_, Ok(addr)) => (addr.ip(), Some(addr.port())),
            _ => return Err("expected an address such as 10.0.0.5 or 10.0.0.5:7946"),
        };
        if ip.is_unspecified() || ip.is_multicast() {
            return Err("expected an address that others can send to, such as 10.0.0.5");
        }
        Ok(Self { ip, port })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct CookieArg(Option<String>);

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

/// `tcp`, `http:METHOD:PATH` or `off`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CheckArg(Option<Check>);

impl FromStr for CheckArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected tcp, off or a request such as http:GET:/health";
        match text.split(':').collect::<Vec<_>>().as_slice() {
            ["off"] => Ok(Self(None)),
            ["tcp"] => Ok(Self(Some(Check::Tcp))),
            ["http", method, path @ ..] if !path.is_empty() => {
                let path = path.join(":");
                let method = Method::from_bytes(method.as_bytes()).map_err(|_| EXPECTED)?;
                let path = PathAndQuery::try_from(path).map_err(|_| EXPECTED)?;
                let usual = method.as_str().bytes().all(|c| c.is_ascii_uppercase());
                if !usual || !path.as_str().starts_with('/') {
                    return Err(EXPECTED);
                }
                Ok(Self(Some(Check::Http { method, path })))
            }
            _ => Err(EXPECTED),
        }
    }
}

/// `NAME=HOST:PORT[,key=value…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ServerArg {
    name: Name,
    target: String,
    weight: u16,
    check: Option<CheckArg>,
    check_interval: Option<Duration>,
    rise: Option<NonZeroU16>,
    fall: Option<NonZeroU16>,
}

impl ServerArg {
    /// The server's own keys win over the flags for all.
    fn with_defaults(&self, defaults: &ServerArgs) -> StaticServer {
        let CheckArg(check) = self.check.as_ref().unwrap_or(&defaults.check).clone();
        StaticServer {
            name: self.name.clone(),
            target: self.target.clone(),
            weight: self.weight,
            check: check.map(|check| CheckPlan {
                check,
                interval: self.check_interval.unwrap_or(defaults.check_interval),
                thresholds: Thresholds {
                    rise: self.rise.unwrap_or(defaults.rise),
                    fall: self.fall.unwrap_or(defaults.fall),
                },
            }),
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let wrong = |why: &'static str| format!("{key}={value}: {why}");
        match key {
            "weight" => self.weight = weight(value).map_err(wrong)?,
            "check" => self.check = Some(value.parse().map_err(wrong)?),
            "check-interval" => {
                self.check_interval = Some(duration(value).map_err(wrong)?);
            }
            "rise" => self.rise = Some(count(value).map_err(wrong)?),
            "fall" => self.fall = Some(count(value).map_err(wrong)?),
            _ => {
                let known = "weight, check, check-interval, rise and fall";
                return Err(format!("unknown key {key:?}: a server has {known}"));
            }
        }
        Ok(())
    }
}

impl FromStr for ServerArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected a server such as s1=10.0.0.5:3000 or s1=app:3000,weight=2";
        let mut parts = text.split(',');
        let (name, target) = parts
            .next()
            .and_then(|p| p.split_once('='))
            .ok_or(EXPECTED)?;
        let (host, port) = target.rsplit_once(':').ok_or(EXPECTED)?;
        if host.is_empty() || port.parse::<NonZeroU16>().is_err() {
            return Err(EXPECTED.into());
        }
        let mut server = Self {
            name: name.parse().map_err(|err| format!("{name:?}: {err}"))?,
            target: target.to_owned(),
            weight: 1,
            check: None,
            check_interval: None,
            rise: None,
            fall: None,
        };
        for pair in parts {
            let (key, value) = pair.split_once('=').ok_or(EXPECTED)?;
            server.set(key, value)?;
        }
        Ok(server)
    }
}

/// Reads a weight: `HAProxy`'s 0 to 256, where 0 takes no new users.
pub fn weight(text: &str) -> Result<u16, &'static str> {
    match text.parse() {
        Ok(weight) if weight <= 256 => Ok(weight),
        _ => Err("expected a weight from 0 to 256"),
    }
}

fn count(text: &str) -> Result<NonZeroU16, &'static str> {
    text.parse()
        .map_err(|_| "expected a number from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Serve {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn parse(flags: &[&str]) -> Result<ServeArgs, String> {
        let line = ["serve"].iter().chain(flags);
        match Serve::try_parse_from(line) {
            Ok(serve) => Ok(serve.args),
            Err(err) => Err(err.to_string()),
        }
    }

    #[test]
    fn the_defaults_are_those_that_people_script_against() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.http, ["0.0.0.0:80".parse().unwrap()]);
        assert_eq!(args.stats, "0.0.0.0:1936".parse().unwrap());
        let admin = args.admin_addresses().unwrap();
        assert_eq!(admin, [&"0.0.0.0:9999".parse().unwrap()]);
        assert_eq!(args.admin_level, None, "each peer has its own");
        assert_eq!(args.gossip, "0.0.0.0:7946".parse().unwrap());
        let settings = args.settings();
        assert_eq!(settings.frontend, "localnodes");
        assert_eq!(settings.backend, "nodes");
        assert_eq!(settings.cookie.as_deref(), Some("SERVERID"));
        assert_eq!(settings.retries, 3);
    }

    #[test]
    fn a_servers_own_keys_win() {
        let flags = [
            "--rise",
            "4",
            "--server",
            "s1=app:3000,weight=2,check=http:HEAD:/,fall=1",
        ];
        let servers = parse(&flags).unwrap().static_servers().unwrap();
        let [server] = servers.as_slice() else {
            panic!("{servers:?}")
        };
        assert_eq!((server.target.as_str(), server.weight), ("app:3000", 2));
        let plan = server.check.as_ref().unwrap();
        assert!(matches!(&plan.check, Check::Http { method, .. } if method == Method::HEAD));
        assert_eq!(
            (plan.thresholds.rise.get(), plan.thresholds.fall.get()),
            (4, 1)
        );
    }

    #[test]
    fn the_runtime_api_can_be_switched_off() {
        let of = |flags: &[&str]| parse(flags).unwrap().admin_addresses().map(|all| all.len());
        assert_eq!(of(&["--admin", "off"]), Ok(0));
        assert_eq!(of(&["--admin", "127.0.0.1:1,unix:/run/a.sock"]), Ok(2));
        assert!(of(&["--admin", "off", "--admin", "127.0.0.1:1"]).is_err());
    }

    #[test]
    fn one_name_cannot_be_two_servers() {
        let args = parse(&["--server", "s1=a:1", "--server", "s1=b:2"]).unwrap();
        assert!(
            args.static_servers()
                .unwrap_err()
                .contains("names s1 twice")
        );
    }

    #[test]
    fn wrong_values_say_what_would_be_right() {
        for (flag, value, hint) in [
            ("--server", "s1", "such as s1=10.0.0.5:3000"),
            ("--server", "s/1=a:1", "a name is made of letters"),
            ("--server", "s1=a:0", "such as s1="),
            ("--server", "s1=a:1,weight=300", "from 0 to 256"),
            ("--server", "s1=a:1,wieght=3", "unknown key \"wieght\""),
            ("--check", "http", "such as http:GET:/health"),
            ("--check", "http:get:/", "such as http:GET:/health"),
            ("--cookie", "a b", "such as SERVERID"),
            ("--timeout-client", "5", "such as 500ms"),
            ("--advertise", "ha", "such as 10.0.0.5"),
            ("--admin", "9999", "unix:/run/tidings.sock"),
            ("--stats-auth", "admin", "such as admin:secret"),
            ("--syslog", "logs:514", "such as udp://10.0.0.9:514"),
            ("--join", "", "HOST:PORT"),
            ("--gossip-key", "x", "tidings keygen"),
        ] {
            let err = parse(&[flag, value]).unwrap_err();
            assert!(err.contains(hint), "{flag} {value}: {err}");
        }
    }
}
