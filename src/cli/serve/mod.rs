//! The flags of `tidings serve`, and what they mean to the rest.

mod balancing;
mod forwarded;
mod limits;
mod servers;
mod timeouts;
mod tls;

use std::{
    net::{IpAddr, SocketAddr},
    num::{NonZeroU16, NonZeroU32},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use clap::{Args, ValueEnum, builder::BoolishValueParser};

pub use self::servers::weight;
use self::{
    balancing::{BalancingArgs, Switch},
    forwarded::ForwardedArgs,
    limits::LimitArgs,
    servers::ServerArgs,
    timeouts::TimeoutArgs,
    tls::TlsArgs,
};
use super::{GossipArgs, duration, seed, socket_address};
use crate::{
    admin::{Address, Level},
    counters::Totals,
    gossip::Seed,
    membership::Name,
    pool::state::StaticServer,
    proxy::{Coding, Format, Limits, Settings},
    syslog,
    tls::Connector,
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
    #[arg(value_delimiter = ',', value_parser = socket_address)]
    pub http: Vec<SocketAddr>,
    /// Show the page, CSV, JSON, /metrics, /healthz and /readyz here
    #[arg(
        long,
        value_name = "ADDR:PORT",
        default_value = "0.0.0.0:1936",
        env = "TIDINGS_STATS"
    )]
    #[arg(value_parser = socket_address)]
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
    #[arg(value_parser = workers, allow_negative_numbers = true)]
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
    /// Compress text for clients that take it: gzip, br, zstd, the preferred
    /// one first [default: none]
    #[arg(long, value_name = "CODING,…", env = "TIDINGS_COMPRESSION")]
    #[arg(value_delimiter = ',')]
    pub compression: Vec<Coding>,
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
    forwarded: ForwardedArgs,
    #[command(flatten)]
    timeouts: TimeoutArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    tls: TlsArgs,

    /// Speak gossip here, UDP and TCP
    #[arg(
        long,
        value_name = "ADDR:PORT",
        default_value = "0.0.0.0:7946",
        env = "TIDINGS_GOSSIP"
    )]
    #[arg(value_parser = socket_address, help_heading = "Gossip")]
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

impl ServeArgs {
    /// Whether what is said fits together; an error is a line.
    pub(super) fn check(&self) -> Result<(), String> {
        self.admin_addresses()?;
        self.settings()?;
        self.static_servers().map(drop)
    }

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

    /// How much is let in, where the descriptors suffice for `most` client
    /// connections; an error says that more are wanted.
    pub fn limits(&self, most: Option<u32>, totals: Arc<Totals>) -> Result<Limits, String> {
        self.limits.limits(most, self.forwarded.proxies(), totals)
    }

    /// Requests that a server takes at a time if it says nothing else.
    pub fn server_maxconn(&self) -> Option<NonZeroU32> {
        self.limits.server_maxconn
    }

    /// How long a server warms up if it says nothing else.
    pub fn slowstart(&self) -> Option<Duration> {
        self.servers.slowstart.0
    }

    /// Requests that wait in a queue, at the most.
    pub fn maxqueue(&self) -> u32 {
        self.limits.maxqueue
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

    /// Where requests are taken over TLS.
    pub fn https(&self) -> &[SocketAddr] {
        &self.tls.https
    }

    /// What takes TLS handshakes is to know; `None` where nobody is to have one.
    pub fn tls(&self) -> Option<crate::tls::Settings> {
        self.tls.server()
    }

    /// What makes connections over TLS to servers; an error is a line.
    pub fn connector(&self) -> Result<Connector, String> {
        self.tls.connector()
    }

    /// What the request path needs to know; an error is a line.
    pub fn settings(&self) -> Result<Settings, &'static str> {
        let BalancingArgs {
            balance,
            cookie,
            retries,
            observe,
        } = &self.balancing;
        Ok(Settings {
            frontend: crate::app::FRONTEND.to_owned(),
            backend: self.servers.service.to_string(),
            balance: *balance,
            cookie: cookie.0.clone(),
            compression: self.compression.clone(),
            forwarded: self.forwarded.policy(),
            accept_proxy: self.forwarded.accept_proxy.clone(),
            retries: *retries,
            explain: self.explain,
            observe: *observe == Switch::On,
            redirect_https: self.tls.redirect()?,
            hsts: self.tls.hsts(),
            timeouts: self.timeouts.timeouts(),
            drain_timeout: self.drain_timeout,
        })
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

/// `USER:PASS`.
#[derive(Clone)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

fn workers(text: &str) -> Result<NonZeroU16, &'static str> {
    let expected = "expected a number of threads, 1 to 65535; leave it out for one a core";
    text.parse().map_err(|_| expected)
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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use http::Method;

    use super::*;
    use crate::pool::server::Check;

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
        let settings = args.settings().unwrap();
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
    fn no_server_warms_up_unless_it_is_asked_for_and_one_may_say_otherwise() {
        assert_eq!(parse(&[]).unwrap().slowstart(), None);
        let flags = ["--slowstart", "20s", "--server", "s1=a:1,slowstart=5s"];
        let args = parse(&flags).unwrap();
        assert_eq!(args.slowstart(), Some(Duration::from_secs(20)));
        assert_eq!(args.static_servers().unwrap()[0].tags["slowstart"], "5s");
    }

    #[test]
    fn the_runtime_api_can_be_switched_off() {
        let of = |flags: &[&str]| parse(flags).unwrap().admin_addresses().map(|all| all.len());
        assert_eq!(of(&["--admin", "off"]), Ok(0));
        assert_eq!(of(&["--admin", "127.0.0.1:1,unix:/run/a.sock"]), Ok(2));
        assert!(of(&["--admin", "off", "--admin", "127.0.0.1:1"]).is_err());
    }

    #[test]
    fn those_who_ask_without_tls_are_sent_to_the_first_port_that_has_it() {
        let of = |flags: &[&str]| {
            parse(flags)
                .unwrap()
                .settings()
                .map(|all| all.redirect_https)
        };
        let https = ["--https", "[::]:8443,[::]:9443", "--tls-cert", "/tls"];
        let with = |flag| of(&[&https[..], &[flag]].concat());
        assert_eq!(of(&https), Ok(None));
        assert_eq!(with("--http-redirect-https"), Ok(Some(8443)));
        assert_eq!(with("--http-redirect-https=443"), Ok(Some(443)));
        assert_eq!(with("--http-redirect-https=off"), Ok(None));
        assert_eq!(of(&["--http-redirect-https=443"]), Ok(Some(443)));
        let why = of(&["--http-redirect-https"]).unwrap_err();
        assert!(why.contains("give --https"), "{why}");
    }

    #[test]
    fn a_server_over_tls_must_have_the_name_that_it_is_reached_by() {
        let sni = |server| {
            let servers = parse(&["--server", server])
                .unwrap()
                .static_servers()
                .unwrap();
            servers[0].tags.get("sni").cloned()
        };
        assert_eq!(sni("s1=app:443,tls=1").as_deref(), Some("app"));
        assert_eq!(
            sni("s1=app:443,tls=1,sni=a.example").as_deref(),
            Some("a.example")
        );
        for none in ["s1=app:443", "s1=10.0.0.5:443,tls=1", "s1=[::1]:443,tls=1"] {
            assert_eq!(sni(none), None, "{none}");
        }
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
    fn authorities_that_nobody_would_look_at_are_refused() {
        let flags = ["--server-ca", "ca.pem", "--server-verify", "none"];
        let why = parse(&flags).unwrap().connector().unwrap_err();
        assert!(why.contains("give one of them"), "{why}");
    }

    #[test]
    fn wrong_values_say_what_would_be_right() {
        for (flag, value, hint) in [
            ("--server", "s1", "such as s1=10.0.0.5:3000"),
            ("--server", "s/1=a:1", "a name is made of letters"),
            ("--server", "s1=a:0", "such as s1="),
            ("--server", "s1=a:1,weight=300", "from 0 to 256"),
            ("--server", "s1=a:1,weight=3,weight=4", "give it once"),
            ("--server", "s1=a:1,wieght=3", "unknown key \"wieght\""),
            ("--server", "s1=a:1,maxconn=x", "0 for as many as come"),
            ("--rate-limit", "20/s", "such as 20 or 20:100"),
            ("--maxconn", "0", "of 1 or more"),
            ("--maxconn-per-source", "-1", "of 1 or more"),
            ("--server-maxconn", "many", "of 1 or more"),
            ("--fall", "0", "from 1 to 65535"),
            ("--slowstart", "10", "such as 10s"),
            ("--server", "s1=a:1,slowstart=0s", "slowstart=0s: expected"),
            ("--check", "http", "such as http:GET:/health"),
            ("--check", "http:get:/", "such as http:GET:/health"),
            ("--cookie", "a b", "such as SERVERID"),
            ("--compression", "deflate", "gzip, br or zstd"),
            ("--forwarded-for", "on", "append, replace, off"),
            ("--trusted-proxy", "10.0.0.0/33", "write 10.0.0.0/8"),
            ("--accept-proxy", "lb1", "write 10.0.0.0/8"),
            ("--timeout-client", "5", "such as 500ms"),
            ("--workers", "0", "1 to 65535"),
            ("--workers", "-2", "1 to 65535"),
            ("--retries", "-1", "0 or more"),
            ("--retries", "some", "0 or more"),
            ("--advertise", "ha", "such as 10.0.0.5"),
            ("--admin", "9999", "unix:/run/tidings.sock"),
            ("--stats-auth", "admin", "such as admin:secret"),
            ("--http", "8080", "such as 0.0.0.0:8080"),
            ("--gossip", "localhost:7946", "such as 0.0.0.0:8080"),
            ("--https", "0.0.0.0:443", "--tls-cert <PATH>"),
            ("--tls-client-verify", "required", "--tls-client-ca <PATH>"),
            ("--tls-cert", "/tls", "--https <ADDR:PORT>"),
            ("--tls-min-version", "1.1", "possible values: 1.2, 1.3"),
            ("--hsts", "365", "such as 365d"),
            ("--syslog", "logs:514", "such as udp://10.0.0.9:514"),
            ("--join", "", "HOST:PORT"),
            ("--gossip-key", "x", "tidings keygen"),
        ] {
            let err = parse(&[flag, value]).unwrap_err();
            assert!(err.contains(hint), "{flag} {value}: {err}");
        }
    }
}
