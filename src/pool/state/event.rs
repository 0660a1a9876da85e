//! What happens to servers, for logs and timelines.

use std::{fmt, time::Duration};

use super::MOST_SERVERS;
use crate::{
    membership::Name,
    pool::server::{Cause, Status},
};

/// Something that happened to a server, for logs and timelines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The server.
    pub server: Name,
    /// What happened.
    pub what: Change,
    /// How trouble was found out, where it was.
    pub detected: Option<Detection>,
}

/// What can happen to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new in the pool.
    Joined(Status),
    /// It said goodbye, or has been down for so long that it is forgotten.
    Left,
    /// An operator removed it.
    Removed,
    /// Its status changed.
    Became(Status),
    /// It restarted, or moved to another address, under the same name.
    Replaced,
    /// Another node of its name, which started earlier, is alive as well.
    Clash,
    /// It was refused: the pool is full.
    Refused,
}

/// How a server's trouble was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detection {
    /// The first sign of it.
    pub sign: Sign,
    /// From that sign to the change in the pool.
    pub took: Duration,
}

/// A sign that a server is in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Its agent says so: the app ended, or does not accept.
    Agent,
    /// The agent's lifeline broke.
    Lifeline,
    /// A request met a refused or broken connection.
    Traffic,
    /// A check failed.
    Check,
    /// It did not answer gossip.
    Gossip,
}

impl Event {
    pub(super) fn plain(server: Name, what: Change) -> Self {
        let detected = None;
        Self {
            server,
            what,
            detected,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.server, self.what)?;
        match self.detected {
            Some(Detection { sign, took }) => {
                let millis = took.as_secs_f64() * 1000.0;
                write!(f, ", first sign: {}, {millis:.1} ms before", sign.as_str())
            }
            None => Ok(()),
        }
    }
}

impl Change {
    /// What happened, in a word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Joined(_) => "joined",
            Self::Left => "left",
            Self::Removed => "removed",
            Self::Became(Status::Up) => "up",
            Self::Became(Status::Suspect) => "suspect",
            Self::Became(Status::Drain) => "drain",
            Self::Became(Status::Maint) => "maint",
            Self::Became(Status::Down(Cause::Quarantine)) => "quarantine",
            Self::Became(Status::Down(_)) => "down",
            Self::Replaced => "replaced",
            Self::Clash => "clash",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self {
            Self::Left => return f.write_str("left"),
            Self::Removed => return f.write_str("was removed by an operator"),
            Self::Replaced => return f.write_str("started anew under the same name"),
            Self::Clash => {
                return f.write_str(
                    "is two nodes at once: the one that started last counts; give each its own --name",
                );
            }
            Self::Refused => return write!(f, "is refused: {MOST_SERVERS} servers are the most"),
            Self::Joined(status) => {
                f.write_str("joined and ")?;
                status
            }
            Self::Became(status) => status,
        };
        match status {
            Status::Up => f.write_str("is UP"),
            Status::Suspect => f.write_str("is UP, but gossip suspects it"),
            Status::Drain => f.write_str("is DRAIN: it keeps its users and takes no new ones"),
            Status::Down(cause) => write!(f, "is DOWN, reason: {cause}"),
            Status::Maint => f.write_str("is going DOWN for maintenance"),
        }
    }
}

impl Sign {
    /// Every sign there is.
    pub const ALL: [Self; 5] = [
        Self::Agent,
        Self::Lifeline,
        Self::Traffic,
        Self::Check,
        Self::Gossip,
    ];

    /// The sign as events and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Lifeline => "lifeline",
            Self::Traffic => "traffic",
            Self::Check => "check",
            Self::Gossip => "gossip",
        }
    }
}
