//! Tidings: an HTTP load balancer that learns its servers by gossip.
pub mod balance;
pub mod counters;
pub mod gossip;
pub mod membership;
pub mod net;
pub mod pool;
pub mod proxy;
