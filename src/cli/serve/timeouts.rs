//! Flags about how long to wait for what.

use std::time::Duration;

use clap::Args;

use super::super::duration;
use crate::proxy::Timeouts;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Timeouts")]
#[expect(clippy::struct_field_names, reason = "they are named as the flags are")]
pub(super) struct TimeoutArgs {
    /// To connect to a server
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        env = "TIDINGS_TIMEOUT_CONNECT"
    )]
    #[arg(value_parser = duration)]
    pub(super) timeout_connect: Duration,
    /// For a place at a server, where it takes only so many requests at a time
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        env = "TIDINGS_TIMEOUT_QUEUE"
    )]
    #[arg(value_parser = duration)]
    pub(super) timeout_queue: Duration,
    /// For a client to send or take the next bytes
    #[arg(
        long,
        value_name = "TIME",
        default_value = "50s",
        env = "TIDINGS_TIMEOUT_CLIENT"
    )]
    #[arg(value_parser = duration)]
    pub(super) timeout_client: Duration,
    /// For a server to answer, or to send the next bytes
    #[arg(
        long,
        value_name = "TIME",
        default_value = "50s",
        env = "TIDINGS_TIMEOUT_SERVER"
    )]
    #[arg(value_parser = duration)]
    pub(super) timeout_server: Duration,
    /// For a whole request head to arrive
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        env = "TIDINGS_TIMEOUT_HTTP_REQUEST"
    )]
    #[arg(value_parser = duration)]
    pub(super) timeout_http_request: Duration,
    /// For a kept connection's next request to begin
    #[arg(
        long,
        value_name = "TIME",
        default_value = "60s",
        env = "TIDINGS_TIMEOUT_KEEP_ALIVE"
    )]
    #[arg(value_parser = duration)]
    pub(super) timeout_keep_alive: Duration,
    /// For a byte to pass through a tunnel (WebSocket) in either direction
    #[arg(
        long,
        value_name = "TIME",
        default_value = "1h",
        env = "TIDINGS_TIMEOUT_TUNNEL"
    )]
    #[arg(value_parser = duration)]
    pub(super) timeout_tunnel: Duration,
}

impl TimeoutArgs {
    /// What the request path needs to know.
    pub(super) fn timeouts(&self) -> Timeouts {
        Timeouts {
            connect: self.timeout_connect,
            queue: self.timeout_queue,
            client: self.timeout_client,
            server: self.timeout_server,
            http_request: self.timeout_http_request,
            keep_alive: self.timeout_keep_alive,
            tunnel: self.timeout_tunnel,
        }
    }
}
