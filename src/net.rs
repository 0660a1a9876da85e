//! Sockets: how listeners are bound, accepted from and connected.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::throttle::Throttle;

/// Connections the kernel keeps for us until they are accepted. `HAProxy` and
/// nginx ask for as much; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long accepting rests when the process has no descriptor left: trying
/// again at once would only burn the CPU that could end a connection.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(20);

/// Binds a listener that shares its address with those of other workers, so
/// that the kernel spreads connections over them.
pub fn bind_shared(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    bind(addr, true)
}

/// Binds a listener that has its address to itself.
pub fn bind_alone(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    bind(addr, false)
}

fn bind(addr: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Without it a restart would have to wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    // Small answers must not wait for an acknowledgement. What is accepted
    // inherits it, which spares a system call a connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts the next connection. Errors that concern one connection or that
/// pass by themselves are waited out.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(err) => rest_after(&err).await,
        }
    }
}

/// Rests after an error of accepting, for as long as that makes sense: not at
/// all where it concerned one connection.
pub async fn rest_after(err: &io::Error) {
    static WARNINGS: Throttle = Throttle::new();
    if !concerns_one_connection(err) {
        if WARNINGS.allows() {
            tracing::warn!("cannot accept connections for now, trying on: {err}");
        }
        tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
    }
}

/// Has the kernel refuse connections to a listener that keeps its address.
pub fn refuse(listener: &std::net::TcpListener) {
    if let Err(err) = SockRef::from(listener).shutdown(Shutdown::Read) {
        tracing::warn!("a listener goes on accepting connections: {err}");
    }
}

/// Has the kernel accept connections to a listener again.
pub fn listen_again(listener: &std::net::TcpListener) {
    if let Err(err) = SockRef::from(listener).listen(BACKLOG) {
        tracing::error!("a listener cannot accept connections again: {err}; restart");
    }
}

/// Takes a connection that waits in the backlog, if there is one.
pub fn accept_now(listener: &std::net::TcpListener) -> Option<(std::net::TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept().ok()?;
    stream.set_nonblocking(true).ok()?;
    Some((stream, peer))
}

/// Connects to a server.
pub async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    // A server's host may vanish without a word while a tunnel is quiet.
    SockRef::from(&stream).set_keepalive(true)?;
    Ok(stream)
}

fn concerns_one_connection(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// Where something comes from, as far as a bound of each source is concerned:
/// an IPv4 address, or the /64 network of an IPv6 address, all of which one
/// host has to itself.
pub fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The address to use: the known one while it is among the answers, since
/// name servers rotate them; else the first of IPv4, else the first.
pub fn choose(answers: &[SocketAddr], known: Option<SocketAddr>) -> Option<SocketAddr> {
    known
        .filter(|known| answers.contains(known))
        .or_else(|| answers.iter().find(|addr| addr.is_ipv4()).copied())
        .or_else(|| answers.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_accepted_does_not_wait_to_send_small_answers() {
        let listener = bind_shared(addr("127.0.0.1:0")).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = accept_now(&listener).unwrap();
        assert!(accepted.nodelay().unwrap());
    }

    #[test]
    fn ipv4_comes_first_and_a_known_address_before_all() {
        let answers = ["[::1]:80", "10.0.0.1:80", "10.0.0.2:80"].map(addr);
        assert_eq!(choose(&answers, None), Some(addr("10.0.0.1:80")));
        let known = Some(addr("10.0.0.2:80"));
        assert_eq!(choose(&answers, known), known);
        let moved = Some(addr("10.0.0.9:80"));
        assert_eq!(choose(&answers, moved), Some(addr("10.0.0.1:80")));
        assert_eq!(choose(&answers[..1], None), Some(addr("[::1]:80")));
        assert_eq!(choose(&[], known), None);
    }

    #[test]
    fn an_address_is_a_host_and_a_host_has_a_64_of_ipv6() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:3:4:5"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
