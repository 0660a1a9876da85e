//! A server as readers see it: an immutable description beside live figures
//! that every description of the same server shares.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{rise_fall::Health, transport::Transport};
use crate::{
    counters::Counters,
    membership::{Admin, MemberId, Name},
};

/// One server at one moment.
#[derive(Debug)]
pub struct Server {
    /// Its number within the backend, CSV's `sid`. Stays with the name.
    pub sid: u32,
    /// Which life of the server; a restart or a new address begins another.
    pub life: Life,
    /// Its name, which is also its cookie's value.
    pub name: Name,
    /// The name's hash, for the snapshot's index.
    pub(super) name_hash: u64,
    /// Where it takes requests; `None` while its name does not resolve.
    pub addr: Option<SocketAddr>,
    /// Its share of the requests, 0 to 256.
    pub weight: u16,
    /// The weight it has when no operator wants another.
    pub initial_weight: u16,
    /// How much of its share it gets while it warms up, in percent; `None` is
    /// all of it.
    pub throttle: Option<u8>,
    /// Requests that it takes at a time, `None` for as many as come.
    pub maxconn: Option<NonZeroU32>,
    /// Whether it may take requests.
    pub status: Status,
    /// The state that an operator wants.
    pub state_wanted: Admin,
    /// The weight that an operator wants, if any.
    pub weight_wanted: Option<u16>,
    /// Since when it has had this status.
    pub since: Instant,
    /// Who told us about it.
    pub origin: Origin,
    /// What its agent, or the command line, says of it.
    pub tags: BTreeMap<String, String>,
    /// How connections to it are made.
    pub transport: Transport,
    /// What is to be probed, if anything.
    pub probe: Option<Probe>,
    /// Its check's counter; `None` for a server that is not checked.
    pub health: Option<Health>,
    /// An operator has switched its checks off.
    pub checks_off: bool,
    /// Where its checks connect to, as far as that is not `addr`.
    pub check_at: CheckAt,
    /// How the last probe ended.
    pub last_check: Option<CheckReport>,
    /// Checks that failed while it was up (`chkfail`).
    pub failed_checks: u64,
    /// Times it went down (`chkdown`).
    pub downs: u64,
    /// Time spent down before the current status began.
    pub downtime: Duration,
    /// Figures that outlive this description.
    pub live: Arc<Live>,
    /// Passes reports of faults in this life.
    pub faults: Arc<FaultGate>,
}

impl Server {
    /// Its share in hundredths of its weight, so that a server that warms up
    /// can have less than one of weight 1. At least one: it has a turn.
    pub fn share(&self) -> u16 {
        let percent = u16::from(self.throttle.unwrap_or(100));
        self.weight.saturating_mul(percent).max(1)
    }

    /// Whether a request whose cookie names it may be given to it.
    pub fn keeps_users(&self) -> bool {
        self.addr.is_some() && self.status.takes_users()
    }

    /// Whether one more request would not be too many for it. What others do
    /// at this moment may make it wrong.
    pub fn seems_to_have_room(&self) -> bool {
        self.maxconn
            .is_none_or(|most| self.live.counters.active.get() < most.get())
    }

    /// How long a connection to it may be kept for the next request, at the
    /// most; `None` if not at all.
    ///
    /// While it drains, for a second: its agent takes the absence of
    /// connections as the end of its traffic, and must see users who come
    /// back every other moment.
    pub fn keeps_connections_for(&self) -> Option<Duration> {
        match self.status {
            Status::Up | Status::Suspect => Some(Duration::MAX),
            Status::Drain => Some(Duration::from_secs(1)),
            Status::Down(_) | Status::Maint => None,
        }
    }

    /// Time spent down so far.
    pub fn downtime(&self, now: Instant) -> Duration {
        match self.status {
            Status::Down(_) => self.downtime + now.saturating_duration_since(self.since),
            _ => self.downtime,
        }
    }
}

/// Tells the lives of servers apart: connections, verdicts and probes belong
/// to one life and are worthless for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Life(pub u64);

/// Whether a server may take requests, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It takes requests.
    Up,
    /// Gossip suspects it: it takes requests only when no other server does.
    Suspect,
    /// It keeps the users it has and takes no new ones.
    Drain,
    /// It takes no request.
    Down(Cause),
    /// An operator has taken it out.
    Maint,
}

impl Status {
    /// Whether it takes requests of the users that it has.
    pub fn takes_users(self) -> bool {
        matches!(self, Self::Up | Self::Suspect | Self::Drain)
    }
}

/// Why a server is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its agent says that the app does not accept connections.
    Agent,
    /// A connection to it was refused.
    Refused,
    /// Its checks failed.
    Check,
    /// Its agent does not answer gossip any more.
    Silent,
    /// Its host name does not resolve.
    Unresolved,
    /// It is well, but has crashed too often of late.
    Quarantine,
    /// An operator says that it is not well.
    Operator,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "the app does not accept connections",
            Self::Refused => "Layer4 connection problem, info: \"Connection refused\"",
            Self::Check => "health check failed",
            Self::Silent => "no answer to gossip",
            Self::Unresolved => "its host name does not resolve",
            Self::Quarantine => "it has crashed too often and is kept out for a while",
            Self::Operator => "an operator set its health to down",
        })
    }
}

/// Who told us about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The command line (`--server`).
    Static,
    /// An agent, by gossip.
    Gossip(MemberId),
}

/// How a server is to be probed from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Regular checks.
    Check {
        /// What a check does.
        check: Check,
        /// Time from one check to the next.
        interval: Duration,
        /// Where it connects to, as far as that is not the server's address.
        at: CheckAt,
    },
    /// Connects until the server accepts again: traffic met a closed door.
    Recovery,
    /// Connects at once, and again after some milliseconds, to see whether a
    /// server whose connection broke is there.
    Confirm,
}

/// Where checks connect to, as far as an operator wants them elsewhere than
/// at the server's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckAt {
    /// Another IP address.
    pub ip: Option<IpAddr>,
    /// Another port.
    pub port: Option<u16>,
}

impl CheckAt {
    /// Where checks of a server at `addr` connect to.
    pub fn resolve(self, addr: SocketAddr) -> SocketAddr {
        let (ip, port) = (self.ip.unwrap_or(addr.ip()), self.port);
        SocketAddr::new(ip, port.unwrap_or(addr.port()))
    }
}

/// What a health check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Connects, over TLS where the server has it, and closes.
    Tcp,
    /// Sends a request and takes a status of 2xx or 3xx as good.
    Http {
        /// The method, such as `GET`.
        method: http::Method,
        /// The path, such as `/health`.
        path: http::uri::PathAndQuery,
    },
}

/// How a probe ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// The outcome in `HAProxy`'s codes.
    pub code: CheckCode,
    /// The response's status, where there was one.
    pub http_status: Option<u16>,
    /// What the system said of a connection that failed.
    pub info: Option<Box<str>>,
    /// How long it took.
    pub took: Duration,
}

/// `HAProxy`'s check status codes, as far as they can occur here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckCode {
    /// The connection was made.
    L4Ok,
    /// No connection within the check's time.
    L4Timeout,
    /// The connection was refused or broken off.
    L4Connection,
    /// TLS was made.
    L6Ok,
    /// No TLS within the check's time.
    L6Timeout,
    /// No TLS with this server, such as for its certificate.
    L6Response,
    /// A good HTTP response.
    L7Ok,
    /// No response within the check's time.
    L7Timeout,
    /// A response that is not HTTP.
    L7Response,
    /// A response with a status other than 2xx and 3xx.
    L7Status,
}

impl CheckCode {
    /// Whether the server passed.
    pub fn passed(self) -> bool {
        matches!(self, Self::L4Ok | Self::L6Ok | Self::L7Ok)
    }

    /// The code as CSV and Prometheus print it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L4Ok => "L4OK",
            Self::L4Timeout => "L4TOUT",
            Self::L4Connection => "L4CON",
            Self::L6Ok => "L6OK",
            Self::L6Timeout => "L6TOUT",
            Self::L6Response => "L6RSP",
            Self::L7Ok => "L7OK",
            Self::L7Timeout => "L7TOUT",
            Self::L7Response => "L7RSP",
            Self::L7Status => "L7STS",
        }
    }

    /// The code in words, as `HAProxy`'s page and log have it.
    pub fn description(self) -> &'static str {
        match self {
            Self::L4Ok => "Layer4 check passed",
            Self::L4Timeout => "Layer4 timeout",
            Self::L4Connection => "Layer4 connection problem",
            Self::L6Ok => "Layer6 check passed",
            Self::L6Timeout => "Layer6 timeout",
            Self::L6Response => "Layer6 invalid response",
            Self::L7Ok => "Layer7 check passed",
            Self::L7Timeout => "Layer7 timeout",
            Self::L7Response => "Layer7 invalid response",
            Self::L7Status => "Layer7 wrong status",
        }
    }
}

/// What all descriptions of one server share, from life to life.
#[derive(Debug, Default)]
pub struct Live {
    /// Its figures.
    pub counters: Counters,
}

/// Lets one report of a fault through at a time: one is enough for a verdict,
/// and it bounds the writer's queue under a storm of errors.
#[derive(Debug, Default)]
pub struct FaultGate(AtomicBool);

impl FaultGate {
    /// Whether the caller is the one to report.
    pub fn claim(&self) -> bool {
        !self.0.swap(true, Relaxed)
    }

    /// The report was judged, or could not be delivered: take the next one.
    pub fn release(&self) {
        self.0.store(false, Relaxed);
    }
}
