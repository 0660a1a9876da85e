//! A receiver of syslog messages over UDP.

use std::net::{SocketAddr, UdpSocket};

use super::DEADLINE;

/// Somebody who listens.
#[derive(Debug)]
pub(crate) struct Receiver(UdpSocket);

/// RFC 5424, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) facility: u8,
    pub(crate) severity: u8,
    pub(crate) host: String,
    pub(crate) app: String,
    pub(crate) pid: String,
    pub(crate) kind: String,
    pub(crate) text: String,
}

impl Receiver {
    /// Listens on a port of the kernel's choice.
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        Self(socket)
    }

    /// Its address.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.local_addr().expect("its address")
    }

    /// `--syslog`'s value for it.
    pub(crate) fn target(&self) -> String {
        format!("udp://{}", self.addr())
    }

    /// The next message that `wanted` says yes to; all before it are dropped.
    #[track_caller]
    pub(crate) fn next(&self, what: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        let mut datagram = vec![0; 64 * 1024];
        loop {
            let read = self.0.recv(&mut datagram);
            let length = read.unwrap_or_else(|err| panic!("{what}: {err}"));
            let text = std::str::from_utf8(&datagram[..length]).expect("UTF-8");
            let message = Message::parse(text);
            if wanted(&message) {
                return message;
            }
        }
    }
}

impl Message {
    #[track_caller]
    fn parse(datagram: &str) -> Self {
        // HAProxy ends a message as it would a line.
        let datagram = datagram.trim_end_matches('\n');
        let fields: Vec<&str> = datagram.splitn(8, ' ').collect();
        let [priority, time, host, app, pid, kind, "-", text] = fields[..] else {
            panic!("not RFC 5424: {datagram}");
        };
        let priority = priority
            .strip_prefix('<')
            .and_then(|p| p.strip_suffix(">1"));
        let priority: u8 = priority.and_then(|p| p.parse().ok()).expect("a priority");
        assert!(time.contains('T') && time.contains('.'), "{time}");
        Self {
            facility: priority / 8,
            severity: priority % 8,
            host: host.to_owned(),
            app: app.to_owned(),
            pid: pid.to_owned(),
            kind: kind.to_owned(),
            text: text.to_owned(),
        }
    }
}
