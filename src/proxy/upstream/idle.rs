//! Connections to servers that wait for their next request.

use std::{cell::RefCell, collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::lease::Link;
use crate::pool::{Server, Snapshot, server::Life};

/// How long a connection may lie idle when the server does not say: Node.js
/// and Apache close theirs after 5 s, and a request that crosses that close
/// on its way is lost unless it may be repeated.
pub const IDLE: Duration = Duration::from_secs(4);

/// How much earlier than the server says a connection is given up.
const IDLE_MARGIN: Duration = Duration::from_secs(1);

/// A request that cannot be repeated only takes a connection that has served
/// within this time, which no server closes at that very moment.
const FRESH: Duration = Duration::from_secs(1);

/// Idle connections a worker keeps to one server at the most, so that a burst
/// does not hold descriptors for long after.
pub const IDLE_PER_SERVER: usize = 512;

/// One worker's idle connections.
#[derive(Default)]
pub(super) struct IdleConnections(RefCell<HashMap<Life, Vec<Idle>>>);

struct Idle {
    link: Link,
    since: Instant,
    expires: Instant,
}

impl IdleConnections {
    /// The connection that served last: it is the least likely to be closed,
    /// and those that are not needed grow old and go.
    pub(super) fn take(&self, life: Life, repeatable: bool, now: Instant) -> Option<Link> {
        let mut all = self.0.borrow_mut();
        let idle = all.get_mut(&life)?;
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

    /// Keeps the connection for the next request, for as long as the server
    /// says that it does.
    pub(super) fn put(
        &self,
        mut link: Link,
        server: &Server,
        keep_alive: Option<Duration>,
        now: Instant,
    ) {
        let lifetime = keep_alive.map_or(IDLE, |timeout| timeout.saturating_sub(IDLE_MARGIN));
        let wanted = server.keeps_connections_for().unwrap_or_default();
        let lifetime = lifetime.min(wanted);
        if lifetime.is_zero() {
            return;
        }
        let mut all = self.0.borrow_mut();
        let idle = all.entry(server.life).or_default();
        if idle.len() < IDLE_PER_SERVER {
            link.counted.set_idle(true);
            idle.push(Idle {
                link,
                since: now,
                expires: now + lifetime,
            });
        }
    }

    /// Closes connections to servers that shall not keep any. Only what
    /// changed is looked at: a large pool changes all the time.
    pub(super) fn follow(&self, before: &Snapshot, snapshot: &Snapshot, now: Instant) {
        let mut all = self.0.borrow_mut();
        for (was, is) in snapshot.changed_since(before) {
            if let Some(was) = was
                && is.is_none_or(|is| is.life != was.life)
            {
                all.remove(&was.life);
            }
            let Some(is) = is else {
                continue;
            };
            match (is.keeps_connections_for(), all.get_mut(&is.life)) {
                (_, None) => {}
                (Some(limit), Some(idle)) => shorten(idle, limit, now),
                (None, Some(_)) => drop(all.remove(&is.life)),
            }
        }
    }

    /// Closes those that have been idle for long enough, or for longer than
    /// connections to their server may be now.
    pub(super) fn expire(&self, limits: &HashMap<Life, Duration>, now: Instant) {
        self.0.borrow_mut().retain(|life, idle| {
            let Some(limit) = limits.get(life) else {
                return false;
            };
            shorten(idle, *limit, now);
            idle.retain(|idle| idle.expires > now && idle.link.stream.is_silent());
            !idle.is_empty()
        });
    }

    /// Closes all of them. Says whether there were any.
    pub(super) fn close(&self) -> bool {
        !self.0.take().is_empty()
    }
}

/// Has connections go within `limit`, if not earlier.
fn shorten(idle: &mut [Idle], limit: Duration, now: Instant) {
    for connection in idle {
        let latest = now.checked_add(limit).unwrap_or(connection.expires);
        connection.expires = connection.expires.min(latest);
    }
}
