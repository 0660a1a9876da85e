//! `tidings drain`, `ready`, `maint` and `weight`: steer a running load
//! balancer from a shell or a script.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;

use super::out::say_if_read;
use crate::admin::client::{self, Steered, Target};

/// Servers to steer.
#[derive(Debug, Clone, Args)]
pub struct ServersArgs {
    /// Server; s1 or nodes/s1
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// The load balancer.
    #[command(flatten)]
    pub balancer: BalancerArg,
}

/// A server's new weight.
#[derive(Debug, Clone, Args)]
pub struct WeightArgs {
    /// Server; s1 or nodes/s1
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Share of the requests: 0 to 256, or in percent of what the server
    /// announces, so that 100% is as it was
    #[arg(value_name = "WEIGHT", value_parser = weight)]
    pub weight: String,
    /// The load balancer.
    #[command(flatten)]
    pub balancer: BalancerArg,
}

/// Which load balancer takes the command.
#[derive(Debug, Clone, Args)]
pub struct BalancerArg {
    /// Load balancer to tell; the others hear of it by gossip
    #[arg(
        long,
        value_name = "HOST:PORT|unix:PATH",
        default_value = "127.0.0.1:9999",
        env = "TIDINGS_ADMIN_ADDR"
    )]
    pub admin: Target,
    /// Say what was done as JSON
    #[arg(long)]
    pub json: bool,
}

/// What a subcommand does to its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It takes what its health allows.
    Ready,
    /// It keeps its users and takes no new ones.
    Drain,
    /// It takes nothing.
    Maint,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// Puts servers in a state.
pub async fn set_state(args: ServersArgs, state: State) -> anyhow::Result<ExitCode> {
    let change = Change {
        what: "state",
        to: state.as_str(),
    };
    steer(&args.balancer, &args.names, change).await
}

/// Gives a server a weight.
pub async fn set_weight(args: WeightArgs) -> anyhow::Result<ExitCode> {
    let change = Change {
        what: "weight",
        to: &args.weight,
    };
    steer(&args.balancer, &[args.name], change).await
}

/// What is changed of servers.
#[derive(Debug, Clone, Copy)]
struct Change<'a> {
    what: &'static str,
    to: &'a str,
}

impl Change<'_> {
    /// The servers with what they have now.
    fn json(self, servers: &[&str]) -> serde_json::Value {
        let changed = |server: &&str| serde_json::json!({ "server": server, self.what: self.to });
        let servers: Vec<_> = servers.iter().map(changed).collect();
        serde_json::json!({ "servers": servers })
    }
}

/// Changes every server, or none where one of the names is wrong.
async fn steer(
    arg: &BalancerArg,
    names: &[String],
    change: Change<'_>,
) -> anyhow::Result<ExitCode> {
    let balancer = &arg.admin;
    let known = client::servers(balancer).await?;
    let servers: Vec<&str> = names
        .iter()
        .map(|name| find(name, &known))
        .collect::<Result<_, _>>()?;
    for server in &servers {
        let said = format!("{} {}", change.what, change.to);
        client::set(balancer, server, &said).await?;
        if !arg.json {
            say_if_read(&format!("{server}: {said}"))?;
        }
    }
    if arg.json {
        say_if_read(&change.json(&servers).to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn find<'a>(name: &str, known: &'a [Steered]) -> anyhow::Result<&'a str> {
    let found = known.iter().find(|server| server.is_called(name));
    found.map(|server| server.path.as_str()).ok_or_else(|| {
        if known.is_empty() {
            return anyhow!("no server is called {name}: there are none");
        }
        let paths: Vec<&str> = known.iter().map(|server| server.path.as_str()).collect();
        anyhow!(
            "no server is called {name}; there are: {}",
            paths.join(", ")
        )
    })
}

/// Reads a weight as the load balancer does.
pub(crate) fn weight(text: &str) -> Result<String, &'static str> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse::<u16>() {
        Ok(percent) if number != text && percent <= 25_600 => Ok(text.to_owned()),
        Ok(0..=256) => Ok(text.to_owned()),
        _ => Err("expected a weight from 0 to 256, or a percentage such as 50%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_found_with_or_without_its_backend() {
        let known = ["nodes/s1", "nodes/s2"].map(|path| Steered {
            path: path.to_owned(),
            state: "ready",
            weight: 1,
            announced_weight: 1,
        });
        assert_eq!(find("s2", &known).unwrap(), "nodes/s2");
        assert_eq!(find("nodes/s1", &known).unwrap(), "nodes/s1");
        let err = find("s3", &known).unwrap_err().to_string();
        assert_eq!(err, "no server is called s3; there are: nodes/s1, nodes/s2");
        assert!(find("s", &known).is_err());
    }

    #[test]
    fn a_weight_is_a_number_or_a_percentage() {
        for good in ["0", "256", "50%", "300%"] {
            assert_eq!(weight(good).as_deref(), Ok(good));
        }
        for bad in ["", "%", "257", "-1", "1.5", "x"] {
            assert!(weight(bad).is_err(), "{bad}");
        }
    }
}
