//! What the pool hears.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU32, time::Duration};

use crate::{
    membership::{MemberEvent, Name},
    pool::{
        rise_fall::Thresholds,
        server::{Check, CheckAt, CheckReport, Life},
    },
};

/// Everything that can change the pool.
#[derive(Debug, Clone)]
pub enum Input {
    /// Gossip has news of a member.
    Member(MemberEvent),
    /// A static server's host name was resolved; `None`: it has no address.
    Resolved(Name, Option<SocketAddr>),
    /// A probe ended.
    Probed(Life, CheckReport),
    /// A request met a fault.
    Fault(Life, Fault),
    /// An operator tells this balancer alone something about a server.
    Told(Name, Order),
    /// An operator adds a server that no agent announces, in maintenance and
    /// with its checks off.
    Added(StaticServer),
    /// An operator removes a server that is in maintenance.
    Removed(Name),
    /// An operator has the counters of one server, or of all, start from zero.
    CountersCleared(Option<Name>),
}

/// A server named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticServer {
    /// Its name.
    pub name: Name,
    /// `HOST:PORT`; the host is resolved again from time to time.
    pub target: String,
    /// 0 to 256.
    pub weight: u16,
    /// How it is checked, `None` for not at all.
    pub check: Option<CheckPlan>,
    /// What else is said of it, such as how connections to it are made.
    pub tags: BTreeMap<String, String>,
}

/// How a server is checked from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckPlan {
    /// What a check does.
    pub check: Check,
    /// Time from one check to the next while nothing changes.
    pub interval: Duration,
    /// How many outcomes in a row change the verdict.
    pub thresholds: Thresholds,
}

/// What an operator tells one balancer about a server. What all balancers
/// shall know travels by gossip, as a [`Wish`](crate::membership::Wish).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// How it is, until a check says otherwise.
    Health(Verdict),
    /// Whether its checks are on.
    Checks(bool),
    /// Where its checks connect to.
    CheckAt(CheckAt),
    /// Requests that it takes at a time, `None` for as many as come.
    Maxconn(Option<NonZeroU32>),
}

/// What an operator says of a server's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is well.
    Up,
    /// It is well, but wants no new users.
    Stopping,
    /// It is not well.
    Down,
}

/// A fault that a request met at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection was refused: nobody listens there.
    Refused,
    /// The connection broke. The app may have closed it for reasons of its
    /// own, so this only asks for a probe.
    Broken,
}
