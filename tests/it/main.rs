//! The whole, as its users meet it: real processes on loopback, real load,
//! every failure counted. One binary, so that it links once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_types, reason = "real time passes here")]

mod support;

mod admin;
mod admin_clients;
mod admin_commands;
mod admin_like_haproxy;
mod balancing;
mod browser;
mod command_line;
mod compression;
mod containers;
mod corpus;
mod crowds;
mod faults;
mod figures;
mod forwarded;
mod framing;
mod gossip_surface;
mod haproxy;
mod http;
mod http2;
mod limits;
mod logs;
mod membership;
mod several;
mod slowstart;
mod tls;
mod top;
mod workers;
