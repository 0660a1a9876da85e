//! Tidings: an HTTP load balancer that learns its servers by gossip.
//!
//! In reading order: what nodes say of themselves ([`membership`]) travels by
//! [`gossip`]; the [`pool`] turns it, together with what [`health`] probes
//! and traffic find out, into an immutable snapshot; [`balance`] picks a
//! server from it for each request that the [`proxy`] carries, over [`tls`] where that is asked for; [`stats`] shows
//! what happens, [`admin`] steers it, and [`top`] does both in a terminal. [`app`] wires a load
//! balancer, [`agent`] announces a server, [`demo`] runs both. ARCHITECTURE.md has the flows and the invariants.

pub mod cidr;
pub mod counters;
pub mod host;
pub mod http1;
pub mod lines;
pub mod membership;
pub mod net;
pub mod proxy_protocol;
pub mod rfc3339;
pub mod syslog;
mod throttle;

pub mod gossip;

pub mod tls;

pub mod pool;

pub mod health;

pub mod balance;

pub mod proxy;

mod desk;

pub mod stats;

pub mod admin;

pub mod top;

pub mod cli;
pub mod keys;

pub mod app;

pub mod agent;

pub mod demo;
