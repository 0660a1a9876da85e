//! How many connections an app has, as the kernel's table says.
//!
//! The agent is not in the requests' way, so it cannot count them; but a
//! balancer closes its connections to a server that drains, each after its
//! last response, and the kernel knows when the last one is gone.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// How often the table is read while waiting.
const POLL: Duration = Duration::from_millis(50);

/// The state ESTABLISHED in the kernel's table (`include/net/tcp_states.h`).
const ESTABLISHED: &str = "01";

/// Waits until `addr` has had no connection for `quiet` without a break.
///
/// Never returns where the kernel's table cannot be read: then nobody knows.
pub(super) async fn ended(addr: SocketAddr, quiet: Duration) {
    let mut quiet_since: Option<Instant> = None;
    loop {
        let Some(connections) = connections(addr) else {
            return std::future::pending().await;
        };
        let now = Instant::now();
        let since = *quiet_since.get_or_insert(now);
        if connections > 0 {
            quiet_since = None;
        } else if now - since >= quiet {
            return;
        }
        sleep(POLL).await;
    }
}

/// Established connections whose local end is `addr`; `None` where the
/// kernel does not tell.
fn connections(addr: SocketAddr) -> Option<usize> {
    let v4 = fs::read_to_string("/proc/net/tcp").ok()?;
    // Not there where IPv6 is switched off.
    let v6 = fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    Some(established(&v4, addr) + established(&v6, addr))
}

/// Counts the established connections of `addr` in a table as
/// `/proc/net/tcp` and `tcp6` print it.
fn established(table: &str, addr: SocketAddr) -> usize {
    let wanted = (addr.ip().to_canonical(), addr.port());
    table
        .lines()
        .skip(1)
        .filter_map(parse_line)
        .filter(|(ip, port, state)| (*ip, *port) == wanted && *state == ESTABLISHED)
        .count()
}

/// The local end and the state of a connection.
fn parse_line(line: &str) -> Option<(IpAddr, u16, &str)> {
    let mut columns = line.split_ascii_whitespace();
    let (ip, port) = columns.nth(1)?.split_once(':')?;
    let state = columns.nth(1)?;
    Some((parse_ip(ip)?, u16::from_str_radix(port, 16).ok()?, state))
}

/// An address as the kernel prints it: words of 32 bits, each in the
/// machine's own byte order. IPv4 in IPv6 comes out as IPv4.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| -> Option<[u8; 4]> {
        let digits = text.get(8 * at..8 * at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  \
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0B00007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 8012 1 0000000000000000 100 0 0 10 0
   1: 0B00007F:0BB8 0100007F:C67E 01 00000000:00000000 00:00000000 00000000  1000        0 9120 1 0000000000000000 20 4 30 10 -1
   2: 0B00007F:0BB8 0100007F:C680 01 00000000:00000000 02:000AFC80 00000000  1000        0 9121 2 0000000000000000 20 4 30 10 -1
   3: 0B00007F:0BB8 0100007F:C682 06 00000000:00000000 03:000002B6 00000000     0        0 0 3 0000000000000000
   4: 0C00007F:0BB8 0100007F:C684 01 00000000:00000000 00:00000000 00000000  1000        0 9122 1 0000000000000000 20 4 30 10 -1
   5: 0100007F:C67E 0B00007F:0BB8 01 00000000:00000000 00:00000000 00000000  1000        0 9119 1 0000000000000000 20 4 30 10 -1
";

    const TCP6: &str = "  \
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0BB8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 7001 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000B00007F:0BB8 0000000000000000FFFF00000100007F:D1F2 01 00000000:00000000 00:00000000 00000000  1000        0 7002 1 0000000000000000 20 4 30 10 -1
   2: 0000000000000000FFFF00000B00007F:0BB8 0000000000000000FFFF00000100007F:D1F4 08 00000000:00000000 00:00000000 00000000  1000        0 7003 1 0000000000000000 20 4 30 10 -1
   3: 000000FD000000000000000002000000:0BB8 000000FD000000000000000003000000:D1F6 01 00000000:00000000 00:00000000 00000000  1000        0 7004 1 0000000000000000 20 4 30 10 -1
";

    fn count(table: &str, addr: &str) -> usize {
        established(table, addr.parse().unwrap())
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn only_established_connections_to_this_very_address_count() {
        assert_eq!(count(TCP, "127.0.0.11:3000"), 2);
        assert_eq!(count(TCP, "127.0.0.12:3000"), 1);
        assert_eq!(count(TCP, "127.0.0.11:3001"), 0);
        assert_eq!(count(TCP, "127.0.0.13:3000"), 0);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn an_app_that_listens_on_ipv6_is_found_under_either_address() {
        assert_eq!(count(TCP6, "127.0.0.11:3000"), 1);
        assert_eq!(count(TCP6, "[::ffff:127.0.0.11]:3000"), 1);
        assert_eq!(count(TCP6, "[fd00::2]:3000"), 1);
    }

    #[test]
    fn a_table_that_makes_no_sense_counts_nothing() {
        for table in [
            "",
            "head",
            "head\n0: x:y z 01\n",
            "head\n0: 0B00007F 0:0 01\n",
        ] {
            assert_eq!(count(table, "127.0.0.11:3000"), 0);
        }
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn the_kernels_own_table_shows_a_connection_until_it_ends() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let client = tokio::net::TcpStream::connect(addr).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        assert_eq!(connections(addr), Some(1));

        drop((client, server));
        let wait = ended(addr, 2 * POLL);
        tokio::time::timeout(Duration::from_secs(5), wait)
            .await
            .expect("it has ended");
    }
}
