//! Datagrams on their way to wherever the target's name points by now.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tracing::{info, warn};

use super::{Message, Target, write_datagram};
use crate::{counters::Counter, lines::Out, net};

/// Time between two looks at a name that resolves, and at one that does not.
const PAUSE: Duration = Duration::from_secs(15);
const PAUSE_FAILING: Duration = Duration::from_secs(1);

/// Where the target is at the moment.
#[derive(Debug, Clone)]
pub struct Destination {
    target: Target,
    found: Arc<Found>,
}

#[derive(Debug, Default)]
struct Found {
    addr: ArcSwapOption<SocketAddr>,
    /// Set once the first look is over.
    looked: OnceLock<()>,
}

impl Destination {
    /// Where `target` will be [looked up](Self::follow).
    pub fn new(target: Target) -> Self {
        let found = Arc::default();
        Self { target, found }
    }

    /// Looks the name up, by a thread of its own again and again, since its
    /// address may change. Messages wait for the first look.
    pub fn follow(&self) -> io::Result<()> {
        let (found, target) = (Arc::clone(&self.found), self.target.clone());
        if let Ok(ip) = target.host.parse() {
            let addr = SocketAddr::new(ip, target.port);
            found.addr.store(Some(Arc::new(addr)));
            found.looked.get_or_init(|| ());
            return Ok(());
        }
        let keep_resolved = move || {
            let mut failing = false;
            loop {
                failing = found.look(&target, lookup(&target), failing);
                thread::sleep(if failing { PAUSE_FAILING } else { PAUSE });
            }
        };
        let name = "syslog-name".to_owned();
        thread::Builder::new().name(name).spawn(keep_resolved)?;
        Ok(())
    }

    /// Waits for the first look at the name, and no longer.
    fn addr(&self) -> Option<SocketAddr> {
        self.found.looked.wait();
        self.found.addr.load().as_deref().copied()
    }
}

fn lookup(target: &Target) -> io::Result<Vec<SocketAddr>> {
    Ok((target.host.as_str(), target.port)
        .to_socket_addrs()?
        .collect())
}

impl Found {
    /// Takes the answers to a look at the name, and says whether it fails.
    fn look(
        &self,
        target: &Target,
        answers: io::Result<Vec<SocketAddr>>,
        was_failing: bool,
    ) -> bool {
        let known = self.addr.load().as_deref().copied();
        let addr = answers.as_ref().ok();
        let addr = addr.and_then(|answers| net::choose(answers, known));
        match addr {
            None if !was_failing => {
                let why = answers.err();
                let why = why.map_or("it has no address".into(), |err| err.to_string());
                warn!("--syslog {target} does not resolve ({why}); looking again every second");
            }
            Some(addr) if known.is_some_and(|known| known != addr) => {
                info!("--syslog {target} is at {addr} now");
            }
            _ => {}
        }
        // A name server's bad minute does not unlearn an address that works.
        if let Some(addr) = addr.filter(|addr| Some(*addr) != known) {
            self.addr.store(Some(Arc::new(addr)));
        }
        self.looked.get_or_init(|| ());
        addr.is_none()
    }
}

/// Sends messages. What cannot be sent is dropped and counted.
#[derive(Debug)]
pub struct Sender {
    destination: Destination,
    /// For the family of the address that was used last.
    socket: Option<(bool, UdpSocket)>,
    datagram: Vec<u8>,
    dropped: Arc<Counter>,
}

impl Sender {
    /// A sender to `destination`.
    pub fn new(destination: Destination, dropped: Arc<Counter>) -> Self {
        Self {
            destination,
            socket: None,
            datagram: Vec::new(),
            dropped,
        }
    }

    /// Sends one message.
    pub fn send(&mut self, message: &Message) {
        write_datagram(&mut self.datagram, message);
        if self.try_send().is_err() {
            self.dropped.inc();
        }
    }

    fn try_send(&mut self) -> io::Result<()> {
        let to = self.destination.addr().ok_or(io::ErrorKind::NotFound)?;
        let socket = match self.socket.take() {
            Some((ipv6, socket)) if ipv6 == to.is_ipv6() => socket,
            _ if to.is_ipv6() => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
            _ => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        };
        // Not connected: a receiver that is away for a moment is no error.
        let sent = socket.send_to(&self.datagram, to);
        self.socket = Some((to.is_ipv6(), socket));
        sent.map(drop)
    }
}

impl Out<Message> for Sender {
    fn take(&mut self, message: Message) {
        self.send(&message);
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::syslog::{Origin, Severity};

    fn receiver() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        socket
    }

    fn received(socket: &UdpSocket) -> String {
        let mut datagram = [0; 4096];
        let length = socket.recv(&mut datagram).unwrap();
        String::from_utf8(datagram[..length].to_vec()).unwrap()
    }

    fn message(text: &str) -> Message {
        Message {
            origin: Origin::own("ha"),
            severity: Severity::Notice,
            kind: "log",
            at: SystemTime::now(),
            text: text.into(),
        }
    }

    /// A destination whose name was looked up with these answers.
    fn after(looks: Vec<io::Result<Vec<SocketAddr>>>) -> Destination {
        let target: Target = "udp://logs:514".parse().unwrap();
        let found = Arc::<Found>::default();
        for answers in looks {
            found.look(&target, answers, false);
        }
        Destination { target, found }
    }

    #[test]
    fn messages_follow_the_name_to_its_next_address() {
        let (first, second) = (receiver(), receiver());
        let at = |socket: &UdpSocket| vec![socket.local_addr().unwrap()];
        let dropped = Arc::<Counter>::default();
        let mut sender = Sender::new(after(vec![Ok(at(&first))]), Arc::clone(&dropped));
        sender.send(&message("one"));
        assert!(received(&first).ends_with(" log - one"));

        let moved = after(vec![
            Ok(at(&first)),
            Ok(at(&second)),
            Err(io::ErrorKind::TimedOut.into()),
        ]);
        sender.destination = moved;
        sender.send(&message("two"));
        assert!(received(&second).ends_with(" log - two"));
        assert_eq!(dropped.get(), 0);
    }

    #[test]
    fn what_has_nowhere_to_go_is_dropped_and_counted() {
        let dropped = Arc::<Counter>::default();
        let nowhere = after(vec![Err(io::ErrorKind::NotFound.into())]);
        let mut sender = Sender::new(nowhere, Arc::clone(&dropped));
        sender.send(&message("lost"));
        assert_eq!(dropped.get(), 1);
    }

    #[test]
    fn a_receiver_that_is_not_there_is_no_error() {
        let gone = receiver().local_addr().unwrap();
        let dropped = Arc::<Counter>::default();
        let mut sender = Sender::new(after(vec![Ok(vec![gone])]), Arc::clone(&dropped));
        for _ in 0..10 {
            sender.send(&message("into the void"));
        }
        assert_eq!(dropped.get(), 0, "the network does not tell");
    }
}
