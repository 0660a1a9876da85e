//! The sockets of a node.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

/// How often a port free for UDP may turn out taken for TCP.
const BIND_ATTEMPTS: usize = 16;

/// The sockets of a node: UDP and TCP on one port.
#[derive(Debug)]
pub struct Sockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
}

impl Sockets {
    /// Binds both; with port 0 to one that is free for both.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let mut attempt = 1;
        loop {
            let udp = UdpSocket::bind(addr)?;
            match TcpListener::bind(udp.local_addr()?) {
                Ok(tcp) => return Self::new(udp, tcp),
                Err(error) if addr.port() != 0 || attempt == BIND_ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    fn new(udp: UdpSocket, tcp: TcpListener) -> io::Result<Self> {
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp })
    }

    /// The address both are bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }
}
