//! What the traffic stands on, and how that is told.

use crate::pool::{Server, Snapshot, Status, server::Cause};

/// What the traffic stands on: the best kind of server there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Footing {
    /// At least one server is up.
    Firm,
    /// No server is up; those that gossip suspects take the traffic.
    Suspected,
    /// Those that are well have crashed too often of late; they take the
    /// traffic all the same.
    KeptOut,
    /// Gossip has lost every server; they take the traffic all the same.
    Lost,
    /// There are servers, and none can take traffic.
    Nobody,
    /// There is no server.
    Empty,
}

impl Footing {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let has = |status| {
            let usable = |s: &Server| s.addr.is_some() && s.weight > 0 && s.status == status;
            snapshot.servers.iter().any(|server| usable(server))
        };
        match () {
            () if snapshot.servers.is_empty() => Self::Empty,
            () if !snapshot.can_serve() => Self::Nobody,
            () if has(Status::Up) => Self::Firm,
            () if has(Status::Suspect) => Self::Suspected,
            () if has(Status::Down(Cause::Quarantine)) => Self::KeptOut,
            () => Self::Lost,
        }
    }

    /// Whether a request finds a server.
    pub fn serves(self) -> bool {
        !matches!(self, Self::Nobody | Self::Empty)
    }

    /// What an operator should know, if anything.
    pub fn warning(self) -> Option<&'static str> {
        match self {
            Self::Firm => None,
            Self::Suspected => Some(
                "No server is surely up: gossip suspects every one that could take traffic, \
                 so the suspected ones take it.",
            ),
            Self::KeptOut => Some(
                "No server is up: those that are well have crashed too often and were to be kept \
                 out for a while, but there is nobody else to take the traffic.",
            ),
            Self::Lost => Some(
                "Gossip has lost every server. Traffic still goes to those that accept \
                 connections: this node may be the one that is cut off.",
            ),
            Self::Nobody => Some("No server can take traffic: every request gets a 503."),
            Self::Empty => Some("There are no servers: every request gets a 503."),
        }
    }
}

pub(super) fn footing_in_words(footing: Footing) -> &'static str {
    match footing {
        Footing::Firm => "a server is up",
        Footing::Suspected => "every server is suspected by gossip",
        Footing::KeptOut => "every server that is well has crashed too often",
        Footing::Lost => "every server is lost to gossip",
        Footing::Nobody => "no server can take traffic",
        Footing::Empty => "there are no servers",
    }
}
