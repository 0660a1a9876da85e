//! How the tests start, watch and end real processes. A test reads as a
//! sentence; what it takes to say it is here.

#[path = "../../../src/tls/fixture.rs"]
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod docker;
pub(crate) mod haproxy;
pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod netns;
pub(crate) mod origin;
pub(crate) mod process;
pub(crate) mod syslog;

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU8, Ordering::Relaxed},
    thread::sleep,
    time::{Duration, Instant},
};

/// How long anything may take that is sure to happen. Generous, since a test
/// shares its two cores with others; whoever waits longer has found a bug.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);

/// Waits until `look` finds something, and fails with `what` if it never does.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < DEADLINE,
            "{what}: not within {DEADLINE:?}"
        );
        sleep(Duration::from_millis(5));
    }
}

/// Says something past the capture of the test harness, to whoever runs the
/// tests: it must not go unnoticed.
pub(crate) fn announce(text: &str) {
    // Whoever hung up does not want to know.
    writeln!(std::io::stdout(), "{text}").ok();
}

/// A loopback address that no other test, and no other run of the tests, has:
/// a server keeps its own as a container would.
pub(crate) fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let last = NEXT.fetch_add(1, Relaxed);
    // 127.0.x.y is where people run things by hand.
    Ipv4Addr::new(127, high | 0x80, low, last).into()
}

/// A port that is free at that address.
pub(crate) fn free_port(ip: IpAddr) -> SocketAddr {
    let probe = TcpListener::bind((ip, 0)).expect("a free port");
    probe.local_addr().expect("its address")
}
