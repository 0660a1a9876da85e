//! Connections to servers that wait for their next request.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::{Upstreams, lease::Link};
use crate::pool::{Server, Snapshot, server::Life};

/// How long a connection may lie idle when the server does not say: Node.js
/// and Apache close theirs after 5 s, and a request that crosses that close
/// on its way is lost unless it may be repeated.
pub const IDLE: Duration = Duration::from_secs(4);

/// How much earlier than the server says a connection is given up.
pub(super) const IDLE_MARGIN: Duration = Duration::from_secs(1);

/// A request that cannot be repeated only takes a connection that has served
/// within this time, which no server closes at that very moment.
const FRESH: Duration = Duration::from_secs(1);

/// Idle connections a worker keeps to one server at the most, so that a burst
/// does not hold descriptors for long after.
pub const IDLE_PER_SERVER: usize = 512;

pub(super) struct Idle {
    pub(super) link: Link,
    pub(super) since: Instant,
    pub(super) expires: Instant,
}

impl Upstreams {
    pub(super) fn close_idle(&self, snapshot: &Snapshot) {
        let now = Instant::now();
        let servers = snapshot.servers.iter();
        let limits: HashMap<Life, Duration> = servers
            .filter_map(|server| Some((server.life, server.keeps_connections_for()?)))
            .collect();
        self.idle.borrow_mut().retain(|life, idle| {
            let Some(limit) = limits.get(life) else {
                return false;
            };
            shorten(idle, *limit, now);
            true
        });
        self.multiplexed
            .keep(|life| limits.get(&life).copied(), now);
    }

    /// The connection that served last: it is the least likely to be closed,
    /// and those that are not needed grow old and go.
    pub(super) fn take_idle(
        &self,
        server: &Server,
        repeatable: bool,
        now: Instant,
    ) -> Option<Link> {
        let mut all = self.idle.borrow_mut();
        let idle = all.get_mut(&server.life)?;
        while let Some(newest) = idle.pop() {
            let fresh = repeatable || now - newest.since < FRESH;
            if newest.expires <= now || !newest.link.stream.is_silent() {
                continue;
            }
            if !fresh {
                // Good enough for others; all below it are older still.
                idle.push(newest);
                return None;
            }
            let mut link = newest.link;
            link.counted.set_idle(false);
            return Some(link);
        }
        None
    }
}

/// Has connections go within `limit`, if not earlier.
pub(super) fn shorten(idle: &mut [Idle], limit: Duration, now: Instant) {
    for connection in idle {
        let latest = now.checked_add(limit).unwrap_or(connection.expires);
        connection.expires = connection.expires.min(latest);
    }
}
