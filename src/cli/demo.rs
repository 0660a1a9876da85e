//! `tidings demo`, and the toy server it runs.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Args;

use super::serve::LogFormat;
use crate::{demo, host, membership::Name};

/// Flags of `tidings demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Take requests here
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,
    /// Show the statistics here
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:1936")]
    pub stats: SocketAddr,
    /// Take HAProxy's runtime commands here
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9999")]
    pub admin: SocketAddr,
    /// Speak gossip here; the servers do at 127.0.0.11 to 127.0.0.13, same port
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7946")]
    pub gossip: SocketAddr,
    /// Access log on stdout
    #[arg(long, value_name = "FORMAT", default_value = "off")]
    pub access_log: LogFormat,
}

/// Flags of the toy server.
#[derive(Debug, Clone, Args)]
pub struct DemoAppArgs {
    /// Take requests here
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: SocketAddr,
    /// What it calls itself in its answers
    #[arg(long, value_name = "NAME")]
    pub name: Name,
    /// Append the body of each POST to this file, a line each
    #[arg(long, value_name = "PATH")]
    pub record: Option<PathBuf>,
    /// End when the process that started this one ends
    #[arg(long)]
    pub die_with_parent: bool,
}

/// Runs the demo until it is told to end.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    demo::run(demo::Settings {
        http: args.http,
        stats: args.stats,
        admin: args.admin,
        gossip: args.gossip,
        access_log: args.access_log,
    })
    .await
}

/// Runs the toy server until it is told to end.
pub async fn run_app(args: DemoAppArgs) -> anyhow::Result<ExitCode> {
    if args.die_with_parent {
        host::die_with_parent();
    }
    demo::toy::run(args.listen, args.name.to_string(), args.record.as_deref()).await
}
