//! Syslog over UDP: RFC 5424 messages, one a datagram (RFC 5426).

mod layer;
mod sender;

use std::{
    fmt,
    io::{self, Write as _},
    net::IpAddr,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use self::{
    layer::{Layer, STATE, STATE_ALERT, STATE_EMERGENCY},
    sender::{Destination, Sender},
};
use crate::{counters::Counter, lines::Lines, rfc3339};

/// The largest datagram: what RFC 5426 §3.2 says receivers should take. A
/// longer message is cut.
pub const LARGEST: usize = 2048;

/// RFC 5424 §6: the longest APP-NAME and HOSTNAME.
const LONGEST_APP_NAME: usize = 48;
const LONGEST_HOSTNAME: usize = 255;

/// `udp://HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected udp://HOST:PORT such as udp://10.0.0.9:514";
        /// RFC 5426 §3.3.
        const PORT: u16 = 514;
        let rest = text.strip_prefix("udp://").ok_or(EXPECTED)?;
        let bare_ip = |text: &str| text.trim_matches(['[', ']']).parse::<IpAddr>();
        let (host, port) = match rest.rsplit_once(':') {
            _ if bare_ip(rest).is_ok() => (rest, PORT),
            Some((host, port)) => (host, port.parse().map_err(|_| EXPECTED)?),
            None => (rest, PORT),
        };
        let host = host.trim_matches(['[', ']']);
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        let is_name = !host.contains(':') || host.parse::<IpAddr>().is_ok();
        if host.is_empty() || port == 0 || !is_name || !host.chars().all(allowed) {
            return Err(EXPECTED);
        }
        let host = host.to_owned();
        Ok(Self { host, port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An IPv6 address without brackets would take the port for a part of it.
        if self.host.contains(':') {
            write!(f, "udp://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "udp://{}:{}", self.host, self.port)
        }
    }
}

/// RFC 5424 §6.2.1, as far as they are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The service is not there for anyone.
    Emergency = 0,
    /// Something must be looked at: a server is down.
    Alert = 1,
    /// Something failed.
    Error = 3,
    /// Something is not as it should be.
    Warning = 4,
    /// Something worth knowing happened.
    Notice = 5,
    /// Day-to-day business, such as a request.
    Informational = 6,
}

/// RFC 5424 §6.2.1, as far as they are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facility {
    /// Apps, which is also what Docker's syslog driver says of them.
    Daemon = 3,
    /// Our own, which is what `HAProxy` is usually told to use.
    Local0 = 16,
}

/// Who says something.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The facility.
    pub facility: Facility,
    /// HOSTNAME.
    pub host: Arc<str>,
    /// APP-NAME.
    pub app: Arc<str>,
    /// PROCID.
    pub pid: u32,
}

impl Origin {
    /// This process as `node`.
    pub fn own(node: &str) -> Self {
        Self {
            facility: Facility::Local0,
            host: node.into(),
            app: "tidings".into(),
            pid: std::process::id(),
        }
    }
}

/// One message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Who says it.
    pub origin: Origin,
    /// How bad it is.
    pub severity: Severity,
    /// MSGID: what kind of message it is.
    pub kind: &'static str,
    /// When it was said.
    pub at: SystemTime,
    /// What is said, in one line.
    pub text: Vec<u8>,
}

/// Where messages go, and what cannot be sent is counted.
#[derive(Debug, Clone)]
pub struct Syslog {
    /// For whoever sends by a thread of its own.
    pub destination: Destination,
    /// For everyone else.
    pub lines: Lines<Message>,
    /// This process.
    pub origin: Origin,
    dropped: Arc<Counter>,
}

impl Syslog {
    /// Starts to send to `target`, in the name of this process as `node`, once
    /// it is told to [`follow`](Self::follow) the target's name.
    pub fn start(target: Target, node: &str) -> io::Result<Self> {
        let dropped = Arc::<Counter>::default();
        let destination = Destination::new(target);
        let sender = Sender::new(destination.clone(), Arc::clone(&dropped));
        let (lines, _writer) = Lines::start("syslog", sender, Arc::clone(&dropped))?;
        Ok(Self {
            destination,
            lines,
            origin: Origin::own(node),
            dropped,
        })
    }

    /// Looks up where the target is. Whoever is to hear of failures must be
    /// listening by now.
    pub fn follow(&self) -> io::Result<()> {
        self.destination.follow()
    }

    /// For `tracing`.
    pub fn layer(&self) -> Layer {
        Layer::new(self.lines.clone(), self.origin.clone())
    }

    /// Says something in the name of this process.
    pub fn say(&self, severity: Severity, text: String) {
        self.lines.say(Message {
            origin: self.origin.clone(),
            severity,
            kind: "log",
            at: SystemTime::now(),
            text: text.into_bytes(),
        });
    }

    /// Messages that could not be sent.
    pub fn dropped(&self) -> Arc<Counter> {
        Arc::clone(&self.dropped)
    }

    /// Waits until what was said is on its way, but no longer than `limit`.
    pub fn flush(&self, limit: Duration) {
        self.lines.flush(limit);
    }
}

/// `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID - MSG` (RFC 5424 §6).
///
/// Control characters other than a tab would be somebody's line breaks in a
/// log: they are written as rsyslog does, `#033`.
fn write_datagram(datagram: &mut Vec<u8>, message: &Message) {
    let Message {
        origin,
        severity,
        kind,
        at,
        text,
    } = message;
    let priority = origin.facility as u8 * 8 + *severity as u8;
    datagram.clear();
    write!(datagram, "<{priority}>1 {} ", rfc3339::micros(*at))
        .and_then(|()| write!(datagram, "{} ", field(&origin.host, LONGEST_HOSTNAME)))
        .and_then(|()| write!(datagram, "{} ", field(&origin.app, LONGEST_APP_NAME)))
        .and_then(|()| write!(datagram, "{} {kind} - ", origin.pid))
        .expect("a Vec takes whatever is written");
    for byte in text {
        match byte {
            b'\t' | b' '..=b'~' | 0x80.. => datagram.push(*byte),
            _ => write!(datagram, "#{byte:03o}").expect("a Vec takes whatever is written"),
        }
        if datagram.len() > LARGEST {
            datagram.truncate(whole_characters(datagram, LARGEST));
            break;
        }
    }
}

/// The most of `text` that is no more than `most` bytes and does not end in
/// the middle of a character of UTF-8.
pub(crate) fn whole_characters(text: &[u8], most: usize) -> usize {
    let goes_on = |at: usize| text.get(at).is_some_and(|byte| byte & 0xC0 == 0x80);
    let most = most.min(text.len());
    let back = (0..4).find(|back| !goes_on(most.saturating_sub(*back)));
    most.saturating_sub(back.unwrap_or(0))
}

/// PRINTUSASCII of at most that length, `-` where nothing is left.
fn field(text: &str, longest: usize) -> &str {
    let wrong = |c: char| !c.is_ascii_graphic();
    let end = text.find(wrong).unwrap_or(text.len()).min(longest);
    text.get(..end)
        .filter(|text| !text.is_empty())
        .unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &[u8]) -> Message {
        Message {
            origin: Origin {
                facility: Facility::Local0,
                host: "ha".into(),
                app: "tidings".into(),
                pid: 8,
            },
            severity: Severity::Alert,
            kind: "state",
            at: SystemTime::UNIX_EPOCH + Duration::from_micros(1_233_922_454_764_012),
            text: text.into(),
        }
    }

    fn datagram(text: &[u8]) -> Vec<u8> {
        let mut datagram = b"the one before".to_vec();
        write_datagram(&mut datagram, &message(text));
        datagram
    }

    #[test]
    fn a_message_is_as_rfc_5424_has_it() {
        let said = datagram(b"Server nodes/s1 is DOWN");
        assert_eq!(
            String::from_utf8(said).unwrap(),
            "<129>1 2009-02-06T12:14:14.764012Z ha tidings 8 state - Server nodes/s1 is DOWN"
        );
    }

    #[test]
    fn nothing_that_is_said_can_begin_another_line() {
        let said = datagram(b"\ta\n<0>1 \x1b[31mred\0\r");
        let said = String::from_utf8(said).unwrap();
        assert!(
            said.ends_with("- \ta#012<0>1 #033[31mred#000#015"),
            "{said}"
        );
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        for shift in 0..3 {
            let text = "x".repeat(shift) + &"€".repeat(LARGEST);
            let said = datagram(text.as_bytes());
            assert!(said.len() <= LARGEST && said.len() > LARGEST - 3);
            assert!(String::from_utf8(said).is_ok());
        }
        assert!(datagram(&[0; LARGEST]).len() <= LARGEST);
        assert!(datagram(&[0xFF; 2 * LARGEST]).len() <= LARGEST, "not UTF-8");
    }

    #[test]
    fn a_field_of_the_header_is_printable_and_never_empty() {
        assert_eq!(field("web-1", 48), "web-1");
        assert_eq!(field("a b", 48), "a");
        assert_eq!(field("", 48), "-");
        assert_eq!(field(&"x".repeat(63), 48).len(), 48);
    }

    #[test]
    fn a_target_is_a_host_and_a_port() {
        let target = |text: &str| text.parse::<Target>().map(|target| target.to_string());
        assert_eq!(target("udp://logs:1514").unwrap(), "udp://logs:1514");
        assert_eq!(target("udp://10.0.0.9").unwrap(), "udp://10.0.0.9:514");
        assert_eq!(target("udp://[::1]:99").unwrap(), "udp://[::1]:99");
        assert_eq!(target("udp://::1").unwrap(), "udp://[::1]:514");
        for wrong in [
            "logs:514",
            "tcp://logs:514",
            "udp://",
            "udp://:514",
            "udp://a:0",
            "udp://a:x",
            "udp://a b",
            "udp://a:b:1",
        ] {
            assert!(
                target(wrong).unwrap_err().contains("udp://HOST:PORT"),
                "{wrong}"
            );
        }
    }
}
