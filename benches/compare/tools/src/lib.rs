//! What stands round the proxies in `benches/compare`: `origin` answers,
//! `load` asks, `floor` relays without being a proxy, `sink` takes the logs.
//!
//! All are single-threaded and edge-triggered, and do as little as they can:
//! `load` and `origin` share a core.

pub mod args;
pub mod arrivals;
pub mod connection;
pub mod histogram;
pub mod message;
pub mod poll;
pub mod slots;
pub mod work;
