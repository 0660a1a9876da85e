//! How packets leave: sealed, from the one socket, and counted.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::net::UdpSocket;

use super::{
    core::Outgoing,
    wire::{Counters, Envelope},
};

/// The socket, and what it shares with the other ways in and out.
pub(super) struct Transport {
    pub(super) socket: UdpSocket,
    pub(super) envelope: Arc<Envelope>,
    pub(super) counters: Arc<Counters>,
}

impl Transport {
    pub(super) fn new(socket: UdpSocket, envelope: Envelope) -> Self {
        Self {
            socket,
            envelope: Arc::new(envelope),
            counters: Arc::default(),
        }
    }

    pub(super) fn send(&self, outgoing: &Outgoing) {
        let packet = self.envelope.seal(outgoing.kind, &outgoing.body);
        let to = self.reachable_from_here(outgoing.to);
        // A full buffer or an unreachable host is loss like any other.
        let counter = match self.socket.try_send_to(&packet, to) {
            Ok(_) => &self.counters.sent,
            Err(_) => &self.counters.unsent,
        };
        Counters::add(counter);
    }

    /// A socket bound to an IPv6 address reaches IPv4 in its mapped form.
    fn reachable_from_here(&self, to: SocketAddr) -> SocketAddr {
        let bound_to_v6 = self.socket.local_addr().is_ok_and(|addr| addr.is_ipv6());
        match to.ip() {
            IpAddr::V4(ip) if bound_to_v6 => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            _ => to,
        }
    }
}
