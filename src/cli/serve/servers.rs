//! Flags about servers, and servers that are named there.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU16, str::FromStr, time::Duration};

use clap::Args;
use http::{Method, uri::PathAndQuery};

use super::super::duration;
use crate::{
    membership::Name,
    pool::{
        rise_fall::Thresholds,
        server::Check,
        state::{CheckPlan, StaticServer},
        transport::Transport,
        warm_up::{SLOWSTART, slowstart},
    },
};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Servers")]
pub(super) struct ServerArgs {
    /// Service to balance: servers of this one are used; also the backend's name
    #[arg(
        long,
        value_name = "NAME",
        default_value = "nodes",
        env = "TIDINGS_SERVICE"
    )]
    pub(super) service: Name,
    /// Server without an agent; repeatable. Keys: weight, maxconn, slowstart, check,
    /// check-interval, rise, fall, tls, sni, proto, send-proxy
    #[arg(
        long,
        value_name = "NAME=HOST:PORT[,KEY=VALUE…]",
        env = "TIDINGS_SERVER"
    )]
    #[arg(value_delimiter = ' ')]
    pub(super) server: Vec<ServerArg>,
    /// How servers without an agent are checked: tcp, http:METHOD:PATH or off
    #[arg(
        long,
        value_name = "CHECK",
        default_value = "tcp",
        env = "TIDINGS_CHECK"
    )]
    pub(super) check: CheckArg,
    /// Time from one check to the next
    #[arg(
        long,
        value_name = "TIME",
        default_value = "2s",
        env = "TIDINGS_CHECK_INTERVAL"
    )]
    #[arg(value_parser = duration)]
    pub(super) check_interval: Duration,
    /// Good checks in a row that bring a server up
    #[arg(long, value_name = "N", default_value = "2", env = "TIDINGS_RISE")]
    #[arg(value_parser = count)]
    pub(super) rise: NonZeroU16,
    /// Failed checks in a row that take a server down
    #[arg(long, value_name = "N", default_value = "3", env = "TIDINGS_FALL")]
    #[arg(value_parser = count)]
    pub(super) fall: NonZeroU16,
    /// How long a server that comes up gets a growing share, until it has all
    /// of it: it has crashed, was taken out, or is new beside others
    #[arg(
        long,
        value_name = "TIME|off",
        default_value = "off",
        env = "TIDINGS_SLOWSTART"
    )]
    pub(super) slowstart: SlowstartArg,
}

/// A time or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlowstartArg(pub(super) Option<Duration>);

impl FromStr for SlowstartArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        slowstart(text).map(Self)
    }
}

/// `tcp`, `http:METHOD:PATH` or `off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CheckArg(Option<Check>);

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
pub(super) struct ServerArg {
    pub(super) name: Name,
    pub(super) target: String,
    pub(super) weight: u16,
    pub(super) check: Option<CheckArg>,
    pub(super) check_interval: Option<Duration>,
    pub(super) rise: Option<NonZeroU16>,
    pub(super) fall: Option<NonZeroU16>,
    pub(super) tags: BTreeMap<String, String>,
}

impl ServerArg {
    /// The server's own keys win over the flags for all.
    pub(super) fn with_defaults(&self, defaults: &ServerArgs) -> StaticServer {
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
            tags: self.tags(),
        }
    }

    /// What is said of it. Over TLS it must have the name that it is reached
    /// by, if that is one.
    fn tags(&self) -> BTreeMap<String, String> {
        let mut tags = self.tags.clone();
        let host = self.target.rsplit_once(':').map_or("", |(host, _)| host);
        let is_address = host.parse::<IpAddr>().is_ok() || host.starts_with('[');
        if !is_address && tags.get("tls").is_some_and(|tls| tls == "1") {
            let sni = tags.entry("sni".to_owned());
            sni.or_insert_with(|| host.to_owned());
        }
        tags
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let wrong = |why: &'static str| format!("{key}={value}: {why}");
        match key {
            "weight" => self.weight = weight(value).map_err(wrong)?,
            "check" => self.check = Some(value.parse().map_err(wrong)?),
            "check-interval" => {
                self.check_interval = Some(duration(value).map_err(wrong)?);
            }
            "maxconn" => {
                let limit: u32 = value.parse().map_err(|_| {
                    wrong("expected how many requests it takes at a time, 0 for as many as come")
                })?;
                self.tags.insert(key.to_owned(), limit.to_string());
            }
            SLOWSTART => {
                slowstart(value).map_err(wrong)?;
                self.tags.insert(key.to_owned(), value.to_owned());
            }
            "rise" => self.rise = Some(count(value).map_err(wrong)?),
            "fall" => self.fall = Some(count(value).map_err(wrong)?),
            _ if Transport::TAGS.contains(&key) => {
                let tag = BTreeMap::from([(key.to_owned(), value.to_owned())]);
                Transport::of(&tag)?;
                self.tags.extend(tag);
            }
            _ => {
                let known = "weight, maxconn, slowstart, check, check-interval, rise, fall, tls, \
                             sni, proto and send-proxy";
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
            tags: BTreeMap::new(),
        };
        let mut given = Vec::new();
        for pair in parts {
            let (key, value) = pair.split_once('=').ok_or(EXPECTED)?;
            if given.contains(&key) {
                return Err(format!("{key} is there twice: give it once"));
            }
            given.push(key);
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
