//! Why a server has not answered. Pure.

use std::{io, time::Duration};

use rustix::io::Errno;

use super::Lease;
use crate::proxy::{error::Error, retry::Sent};

/// Why there is no response.
#[derive(Debug)]
pub(in crate::proxy) struct Failure {
    /// What happened.
    pub(in crate::proxy) kind: FailureKind,
    /// Whether the server can know of the request.
    pub(in crate::proxy) sent: Sent,
    /// How long connecting took, where there was a connection.
    pub(in crate::proxy) connect_time: Option<Duration>,
    /// The connection had served before: its end may be the server's ordinary
    /// clearing of idle connections and says little about the server.
    pub(in crate::proxy) reused: bool,
}

/// What happened to a request that got no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum FailureKind {
    /// Nobody listens at the server's address.
    Refused,
    /// The server accepted, and then no TLS or no HTTP/2 came about.
    Handshake,
    /// No connection in time.
    ConnectTimeout,
    /// No connection for want of a descriptor, a port or memory of our own.
    Exhausted,
    /// The connection broke.
    Broken,
    /// What came is not HTTP.
    Malformed,
    /// No response in time.
    ResponseTimeout,
    /// The server was given up while the request waited for its response.
    Abandoned,
}

impl Failure {
    /// No connection could be made, so nothing was sent.
    pub(in crate::proxy) fn to_connect(kind: FailureKind) -> Self {
        Self {
            kind,
            sent: Sent::Nothing,
            connect_time: None,
            reused: false,
        }
    }

    /// Something went wrong on a connection that was there.
    pub(in crate::proxy) fn on(lease: &Lease, kind: FailureKind, sent: Sent) -> Self {
        Self {
            kind,
            sent,
            connect_time: Some(lease.connect_time()),
            reused: kind == FailureKind::Broken && lease.connect_time().is_zero(),
        }
    }
}

impl From<FailureKind> for Error {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Refused => Self::ConnectFailed,
            FailureKind::Handshake => Self::HandshakeFailed,
            FailureKind::ConnectTimeout => Self::ConnectTimeout,
            FailureKind::Exhausted => Self::Exhausted,
            FailureKind::Broken => Self::ServerAbort,
            FailureKind::Malformed => Self::BadResponse,
            FailureKind::Abandoned => Self::ServerLost,
            FailureKind::ResponseTimeout => Self::ResponseTimeout,
        }
    }
}

/// Whether it is trouble of our own, such as having no descriptor or no port
/// left, which says nothing about the server.
pub(super) fn is_our_own(err: &io::Error) -> bool {
    let timed_out = err.kind() == io::ErrorKind::TimedOut;
    connect_failure(err) != FailureKind::Refused && !timed_out
}

/// Tells a server that is not there from everything else.
pub(super) fn connect_failure(err: &io::Error) -> FailureKind {
    match err.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => FailureKind::Refused,
        _ if is_exhaustion(err) => FailureKind::Exhausted,
        _ => FailureKind::ConnectTimeout,
    }
}

pub(super) fn is_exhaustion(err: &io::Error) -> bool {
    let exhausted = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
        Errno::AGAIN,
    ];
    Errno::from_io_error(err).is_some_and(|err| exhausted.contains(&err))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_of_our_own_is_told_from_the_servers() {
        for (errno, kind) in [
            (Errno::CONNREFUSED, FailureKind::Refused),
            (Errno::HOSTUNREACH, FailureKind::Refused),
            (Errno::TIMEDOUT, FailureKind::ConnectTimeout),
            (Errno::MFILE, FailureKind::Exhausted),
            (Errno::ADDRNOTAVAIL, FailureKind::Exhausted),
        ] {
            let err = errno.into();
            assert_eq!(connect_failure(&err), kind, "{errno}");
            let is_ours = kind == FailureKind::Exhausted;
            assert_eq!(is_our_own(&err), is_ours, "{errno}");
        }
    }
}
