//! What each host that calls holds of the gossip port: at most half of the
//! places of each kind, so that none keeps all others out.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Weak},
};

use tokio::sync::Semaphore;

use super::port::{EXCHANGES, LIFELINES, STRANGERS};
use crate::net;

/// Hosts beyond which those that have hung up are forgotten: more hold no
/// place at a time.
const MAX_HOSTS: usize = STRANGERS + LIFELINES;

/// The places that one host may take. It is kept by the calls of the host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) strangers: Arc<Semaphore>,
    pub(super) exchanges: Semaphore,
    pub(super) lifelines: Arc<Semaphore>,
}

impl Host {
    fn new() -> Self {
        Self {
            strangers: Arc::new(Semaphore::new(STRANGERS / 2)),
            exchanges: Semaphore::new(EXCHANGES / 2),
            lifelines: Arc::new(Semaphore::new(LIFELINES / 2)),
        }
    }
}

/// The hosts that are connected.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<IpAddr, Weak<Host>>);

impl Hosts {
    /// Those of the host at that address.
    pub(super) fn at(&mut self, ip: IpAddr) -> Arc<Host> {
        let ip = net::source(ip);
        if let Some(host) = self.0.get(&ip).and_then(Weak::upgrade) {
            return host;
        }
        if self.0.len() >= 2 * MAX_HOSTS {
            self.0.retain(|_, host| host.strong_count() > 0);
        }
        let host = Arc::new(Host::new());
        self.0.insert(ip, Arc::downgrade(&host));
        host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_the_same_places_as_long_as_it_holds_one() {
        let mut hosts = Hosts::default();
        let ip = IpAddr::from([10, 0, 0, 1]);
        let host = hosts.at(ip);
        assert!(Arc::ptr_eq(&host, &hosts.at(ip)));
        assert!(!Arc::ptr_eq(&host, &hosts.at([10, 0, 0, 2].into())));
    }

    #[test]
    fn hosts_that_have_hung_up_are_forgotten() {
        let mut hosts = Hosts::default();
        let staying = hosts.at([10, 0, 0, 1].into());
        for n in 0..5 * MAX_HOSTS as u32 {
            hosts.at(IpAddr::from(std::net::Ipv4Addr::from_bits(n << 8)));
            assert!(hosts.0.len() <= 2 * MAX_HOSTS);
        }
        assert!(Arc::ptr_eq(&staying, &hosts.at([10, 0, 0, 1].into())));
    }
}
