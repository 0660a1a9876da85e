//! The address of this host that the others reach it at.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use tokio::time::{Instant, sleep};

use super::seeds::{DEFAULT_PORT, Seed, Watched, pause_alone, resolve_all};

/// The address to tell the others, where none is set: the one the kernel
/// would send from towards the first seed that resolves, waiting until one
/// does; without seeds, from which it would reach the world, or what the own
/// name resolves to, or loopback.
pub async fn local_address(seeds: &[Seed]) -> IpAddr {
    if seeds.is_empty() {
        return lonely_address().await;
    }
    let start = Instant::now();
    let mut seeds: Vec<_> = seeds.iter().cloned().map(Watched::new).collect();
    loop {
        let addresses = resolve_all(&mut seeds).await;
        if let Some(ip) = addresses.into_iter().find_map(source_towards) {
            return ip;
        }
        sleep(pause_alone(start.elapsed())).await;
    }
}

async fn lonely_address() -> IpAddr {
    // An address of documentation: no packet goes there, only its route counts.
    let outside = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), DEFAULT_PORT));
    if let Some(ip) = source_towards(outside) {
        return ip;
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let own = Seed::at_default_port(name.trim());
    let found = own.resolve().await.unwrap_or_default();
    found
        .first()
        .map_or(Ipv4Addr::LOCALHOST.into(), SocketAddr::ip)
}

/// Connecting a UDP socket sends nothing: it only picks the way.
fn source_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if target.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn towards_loopback_the_address_is_loopback() {
        let seed = "127.0.0.1:9".parse().unwrap();
        assert_eq!(local_address(&[seed]).await, Ipv4Addr::LOCALHOST);
    }
}
