//! The PROXY header that connections from some peers begin with
//! (`--accept-proxy`; `HAProxy`'s `accept-proxy`).

use std::{fmt, net::SocketAddr};

use tokio::{io::AsyncReadExt, net::TcpStream, time::sleep};
use tracing::warn;

use super::Worker;
use crate::{
    proxy_protocol::{self, Header, Malformed},
    throttle::Throttle,
};

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    /// Who has connected.
    pub(super) peer: SocketAddr,
    /// Where to.
    pub(super) local: SocketAddr,
}

/// Why a connection has no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// It was closed without a word, as by somebody who only wants to know
    /// whether we accept; or we end.
    Nothing,
    BrokenOff,
    Late,
    Malformed(Malformed),
}

/// Takes the header off the connection, and nothing of what stands behind it.
/// Returns whose connection it is; `None` where there is no header, and the
/// connection is to be closed.
pub(super) async fn introduce(worker: &Worker, socket: &mut TcpStream, own: Ends) -> Option<Ends> {
    let header = tokio::select! {
        biased;
        header = take_header(socket) => header,
        () = sleep(worker.timeouts.http_request) => Err(Missing::Late),
        () = worker.last_orders.too_late() => Err(Missing::Nothing),
    };
    match header {
        Ok(Header::Local) => Some(own),
        Ok(Header::Proxied {
            source,
            destination,
        }) => Some(Ends {
            peer: source,
            local: destination,
        }),
        Err(Missing::Nothing) => None,
        Err(missing) => {
            worker.ledger.all().request_errors.inc();
            complain(own.peer, missing);
            None
        }
    }
}

async fn take_header(socket: &mut TcpStream) -> Result<Header, Missing> {
    let mut bytes = vec![0; proxy_protocol::MAX];
    let mut taken = 0;
    loop {
        let room = bytes.get_mut(taken..).unwrap_or_default();
        let there = match socket.peek(room).await {
            Ok(more @ 1..) => taken + more,
            _ if taken == 0 => return Err(Missing::Nothing),
            _ => return Err(Missing::BrokenOff),
        };
        let read = proxy_protocol::read(bytes.get(..there).unwrap_or_default());
        let read = read.map_err(Missing::Malformed)?;
        // Until it is whole, all that is there is of it.
        let until = read.map_or(there, |(_, length)| length);
        let ours = bytes.get_mut(taken..until).unwrap_or_default();
        let took = socket.read_exact(ours).await;
        taken += took.map_err(|_| Missing::BrokenOff)?;
        if let Some((header, _)) = read {
            return Ok(header);
        }
    }
}

/// Now and then: a proxy that does not do it once never does it.
fn complain(peer: SocketAddr, missing: Missing) {
    static WARNINGS: Throttle = Throttle::new();
    if WARNINGS.allows() {
        warn!(
            "{peer} is one of --accept-proxy, and its connection was closed: {missing}; \
             have it send the PROXY protocol, or take it off the list"
        );
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("it said nothing"),
            Self::BrokenOff => f.write_str("it was closed in the middle of its PROXY header"),
            Self::Late => f.write_str("its PROXY header was not there in time"),
            Self::Malformed(why) => write!(f, "{why}"),
        }
    }
}
