//! Reads what follows the commands about one server. Pure.
//!
//! Where `HAProxy` looks for the server before it looks at the rest, so does
//! this: what is wrong with the rest is then carried along, and told only if
//! the server is there.

use std::{
    net::{IpAddr, SocketAddr},
    num::{NonZeroU16, NonZeroU32},
    time::Duration,
};

use super::{
    arguments::{Arguments, OUT_OF_RANGE},
    command::{Change, Command, Target, Tell, Weight},
    number::{leading_number, time},
};
use crate::{
    membership::Admin,
    pool::{
        rise_fall::Thresholds,
        server::Check,
        state::{CheckPlan, StaticServer, Verdict},
    },
};

/// What a server's checks do unless it is told otherwise, as in `HAProxy`.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
const RISE: NonZeroU16 = NonZeroU16::new(2).expect("two is not zero");
const FALL: NonZeroU16 = NonZeroU16::new(3).expect("three is not zero");

pub(super) fn set_state(args: &Arguments<'_>, state: Admin) -> Result<Command, String> {
    Ok(Command::Set(args.target()?, Change::State(state)))
}

pub(super) fn get_weight(args: &Arguments<'_>) -> Result<Command, String> {
    Ok(Command::GetWeight(args.target()?))
}

pub(super) fn set_weight(args: &Arguments<'_>) -> Result<Command, String> {
    Ok(with_weight(args.target()?, args.get(1)))
}

fn with_weight(target: Target, text: &str) -> Command {
    match weight(text) {
        Ok(weight) => Command::Set(target, Change::Weight(weight)),
        Err(why) => Command::Tell(target, Tell::Refused(why)),
    }
}

pub(super) fn checks(args: &Arguments<'_>, on: bool) -> Result<Command, String> {
    Ok(Command::Tell(args.target()?, Tell::Checks(on)))
}

pub(super) fn agent(args: &Arguments<'_>, on: bool) -> Result<Command, String> {
    let target = args.target()?;
    Ok(Command::Tell(target, Tell::AgentChecks(on)))
}

pub(super) fn set_server(args: &Arguments<'_>) -> Result<Command, String> {
    let target = args.target()?;
    if args.get(1) == "weight" {
        return Ok(with_weight(target, args.get(2)));
    }
    let state = match (args.get(1), args.get(2)) {
        ("state", "ready") => Some(Admin::Ready),
        ("state", "drain") => Some(Admin::Drain),
        ("state", "maint") => Some(Admin::Maint),
        _ => None,
    };
    Ok(match state {
        Some(state) => Command::Set(target, Change::State(state)),
        None => Command::Tell(target, tell(args).unwrap_or_else(Tell::Refused)),
    })
}

/// What `set server` tells one load balancer alone.
fn tell(args: &Arguments<'_>) -> Result<Tell, String> {
    const NO_AGENT: &str = "agent checks are not enabled on this server.";
    const USAGE: &str = "usage: set server <backend>/<server> addr | agent | agent-addr | \
                         agent-port | agent-send | check-addr | check-port | fqdn | health | \
                         name | ssl | state | weight";
    let why = match (args.get(1), args.get(2)) {
        ("health", "up") => return Ok(Tell::Health(Verdict::Up)),
        ("health", "stopping") => return Ok(Tell::Health(Verdict::Stopping)),
        ("health", "down") => return Ok(Tell::Health(Verdict::Down)),
        ("health", _) => "'set server <srv> health' expects 'up', 'stopping', or 'down'.",
        ("state", _) => "'set server <srv> state' expects 'ready', 'drain' and 'maint'.",
        ("addr", "") => "set server <b>/<s> addr requires an address and optionally a port.",
        ("addr", addr) => return address(args, &format!("Invalid addr '{addr}'")).map(Tell::addr),
        ("check-addr", "") => {
            "set server <b>/<s> check-addr requires an address and optionally a port."
        }
        ("check-addr", addr) => {
            return address(args, &format!("invalid addr '{addr}'")).map(Tell::check_addr);
        }
        ("check-port", "") => "set server <b>/<s> check-port requires a port.",
        ("check-port", port) => match port.parse::<i64>().map(u16::try_from) {
            Ok(Ok(port)) => return Ok(Tell::CheckPort(port)),
            Ok(Err(_)) => "provided port is invalid",
            Err(_) => "provided port is not an integer",
        },
        ("agent" | "agent-send", _) => NO_AGENT,
        ("agent-addr" | "agent-port", _) => "agent checks are not enabled on this server",
        ("fqdn", "") => "set server <b>/<s> fqdn requires a FQDN.",
        ("fqdn", _) => "set server <b>/<s> fqdn failed because no resolution is configured.",
        ("ssl", _) => {
            "'set server <srv> ssl' cannot be set.  default-server should define ssl settings"
        }
        ("name", _) => {
            "A server's name cannot be changed: gossip, cookies and statistics know it by it."
        }
        _ => USAGE,
    };
    Err(why.to_owned())
}

/// `ADDR [port PORT]` from the third word on.
fn address(args: &Arguments<'_>, invalid: &str) -> Result<(IpAddr, Option<u16>), String> {
    let ip = args.get(2).parse().map_err(|_| invalid.to_owned())?;
    if args.get(3) != "port" {
        return Ok((ip, None));
    }
    match args.get(4).parse() {
        Ok(port) if port > 0 => Ok((ip, Some(port))),
        _ => Err(format!(
            "problem converting port '{}' to an int",
            args.get(4)
        )),
    }
}

/// Reads a weight, and finds the fault that `HAProxy` would find first.
pub fn weight(text: &str) -> Result<Weight, String> {
    if text.is_empty() {
        return Err("Require <weight> or <weight%>.".to_owned());
    }
    let Some((number, rest)) = leading_number(text) else {
        return Err("Empty weight string empty or preceded by garbage".to_owned());
    };
    match (u16::try_from(number), rest) {
        (_, "%") if number < 0 => Err("Relative weight must be positive.".to_owned()),
        (_, "%") => Ok(Weight::Percent(u32::try_from(number).unwrap_or(u32::MAX))),
        (Ok(weight @ 0..=256), "") => Ok(Weight::Absolute(weight)),
        (Ok(0..=256), _) => Err("Trailing garbage in weight string".to_owned()),
        _ => Err("Absolute weight can only be between 0 and 256 inclusive.".to_owned()),
    }
}

pub(super) fn set_maxconn_server(args: &Arguments<'_>) -> Result<Command, String> {
    let target = args.target()?;
    let why = match (args.get(1), leading_number(args.get(1))) {
        ("", _) => "Require <maxconn>.",
        (_, None) => "maxconn string empty or preceded by garbage",
        (_, Some((_, rest))) if !rest.is_empty() => "Trailing garbage in maxconn string",
        (_, Some((limit, _))) => match u32::try_from(limit) {
            Ok(limit) => return Ok(Command::Tell(target, Tell::Maxconn(NonZeroU32::new(limit)))),
            Err(_) => OUT_OF_RANGE,
        },
    };
    Ok(Command::Tell(target, Tell::Refused(why.to_owned())))
}

pub(super) fn add_server(args: &Arguments<'_>) -> Result<Command, String> {
    let target = args.target()?;
    let server = new_server(&target.server, args);
    Ok(Command::Add(target, server.map(Box::new)))
}

fn new_server(name: &str, args: &Arguments<'_>) -> Result<StaticServer, String> {
    const USAGE: &str = "'server' expects <name> and <addr>[:<port>] as arguments.";
    let target = args.get(1);
    if target.is_empty() {
        return Err(USAGE.to_owned());
    }
    let addr: SocketAddr = target.parse().map_err(|_| {
        format!(
            "invalid address '{target}': expected an IP address and a port, such as 10.0.0.5:80"
        )
    })?;
    let mut server = StaticServer {
        name: name.parse().map_err(|why| format!("'{name}': {why}"))?,
        target: addr.to_string(),
        weight: 1,
        check: None,
        tags: std::collections::BTreeMap::new(),
    };
    let (mut checked, mut plan) = (false, default_plan());
    let mut words = args.rest(2).iter();
    while let Some(key) = words.next() {
        match key.as_str() {
            "check" => checked = true,
            // It begins in maintenance in any case.
            "disabled" => {}
            _ => {
                let value = words.next().map_or("", String::as_str);
                set_keyword(&mut server, &mut plan, key, value)?;
            }
        }
    }
    server.check = checked.then_some(plan);
    Ok(server)
}

fn default_plan() -> CheckPlan {
    CheckPlan {
        check: Check::Tcp,
        interval: CHECK_INTERVAL,
        thresholds: Thresholds {
            rise: RISE,
            fall: FALL,
        },
    }
}

fn set_keyword(
    server: &mut StaticServer,
    plan: &mut CheckPlan,
    key: &str,
    value: &str,
) -> Result<(), String> {
    let count = || {
        value
            .parse()
            .map_err(|_| format!("'{key}' has to be an integer from 1 to 65535."))
    };
    match key {
        "weight" => {
            let weight = value.parse().ok().filter(|weight| *weight <= 256);
            server.weight = weight.ok_or_else(|| {
                let name = &server.name;
                format!("weight of server {name} is not within 0 and 256 ({value}).")
            })?;
        }
        "maxconn" => {
            let limit: u32 = value
                .parse()
                .map_err(|_| format!("'{key}' has to be a number, 0 for no limit."))?;
            server.tags.insert(key.to_owned(), limit.to_string());
        }
        "inter" => {
            let unit = Duration::from_millis(1);
            plan.interval =
                time(value, unit).ok_or_else(|| format!("'inter': invalid time '{value}'."))?;
        }
        "rise" => plan.thresholds.rise = count()?,
        "fall" => plan.thresholds.fall = count()?,
        _ => return Err(format!("unknown keyword '{key}'")),
    }
    Ok(())
}

pub(super) fn del_server(args: &Arguments<'_>) -> Result<Command, String> {
    Ok(Command::Delete(args.target()?))
}
