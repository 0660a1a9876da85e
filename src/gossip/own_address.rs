//! The address of this host that the others reach it at.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

use super::seeds::{Company, DEFAULT_PORT, Seed, Watched, pause_alone, resolve_all};

/// How often to look whether the own address is still there.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// How often to look for another one when it is not.
const SEARCH_PERIOD: Duration = Duration::from_millis(250);
/// A question that was asked without a network is asked again, rather than
/// waited for: the network may have come meanwhile.
const NAME_TIMEOUT: Duration = Duration::from_secs(1);

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

/// Follows the address of this host, which was `own` at the start, for as long
/// as somebody hears of it: sends the next one when the one before has gone,
/// as when a container is connected to its network anew, or when nobody is
/// heard and the way to the seeds begins elsewhere.
pub(super) async fn follow(
    mut own: IpAddr,
    seeds: Vec<Seed>,
    company: watch::Receiver<Company>,
    moved: mpsc::Sender<IpAddr>,
) {
    let mut pause = LOOK_PERIOD;
    loop {
        sleep(pause).await;
        let here = is_here(own);
        pause = if here { LOOK_PERIOD } else { SEARCH_PERIOD };
        let alone = *company.borrow() == Company::Alone && !seeds.is_empty();
        if here && !alone {
            continue;
        }
        let next = next_address(own, &seeds).await;
        // It may have come back while names were resolved.
        if let Some(next) = next.filter(|_| alone || !is_here(own)) {
            own = next;
            if moved.send(own).await.is_err() {
                return;
            }
        }
    }
}

/// What [`local_address`] would say now, if it is not `own` any more and can
/// be gone on with.
async fn next_address(own: IpAddr, seeds: &[Seed]) -> Option<IpAddr> {
    let mut found = Vec::new();
    if seeds.is_empty() {
        found.extend(timeout(NAME_TIMEOUT, lonely_address()).await);
    }
    for seed in seeds {
        // That it does not resolve is told by who looks for it anyway.
        let resolved = timeout(NAME_TIMEOUT, seed.resolve()).await;
        let addresses = resolved.ok().and_then(Result::ok).unwrap_or_default();
        found.extend(addresses.into_iter().filter_map(source_towards));
    }
    // The sockets are bound to one family, and without any network loopback
    // is still there.
    found.retain(|ip| ip.is_ipv4() == own.is_ipv4() && !ip.is_loopback() && is_here(*ip));
    let first = found.first().copied();
    first.filter(|_| !found.contains(&own))
}

/// Whether it is an address of this host. What cannot be found out, as when no
/// file is left to open, does not speak against it.
fn is_here(ip: IpAddr) -> bool {
    !matches!(
        UdpSocket::bind((ip, 0)),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable
    )
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

    /// An address that no host has.
    const GONE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn an_address_is_here_or_gone() {
        assert!(is_here(Ipv4Addr::LOCALHOST.into()));
        assert!(is_here(Ipv4Addr::UNSPECIFIED.into()));
        assert!(!is_here(GONE));
    }

    #[tokio::test]
    async fn without_a_network_nobody_moves_to_loopback() {
        let seed = "127.0.0.1:9".parse().unwrap();
        assert_eq!(next_address(GONE, &[seed]).await, None);
    }
}
