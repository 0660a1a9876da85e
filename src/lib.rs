//! Tidings: an HTTP load balancer that learns its servers by gossip.
pub mod counters;
pub mod gossip;
pub mod membership;
pub mod pool;
