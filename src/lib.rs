//! Tidings: an HTTP load balancer that learns its servers by gossip.
pub mod gossip;
pub mod membership;
