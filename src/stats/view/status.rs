//! How a row is doing.

use std::fmt;

use crate::pool::{
    Server, Status,
    server::{Cause, Origin},
};

/// How a row is doing, in `HAProxy`'s terms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RowStatus {
    /// The frontend accepts connections.
    Open,
    /// The frontend accepts no more.
    Stop,
    /// Up.
    Up,
    /// Up, but gossip suspects it.
    Suspect,
    /// Up, with `n` failed checks to go of `fall`.
    GoingDown(u16, u16),
    /// Down.
    Down,
    /// Down by its agent's word.
    DownByAgent,
    /// Down, with `n` good checks of `rise`.
    GoingUp(u16, u16),
    /// Keeps its users and takes no new ones.
    Drain,
    /// Taken out by an operator.
    Maint,
    /// In use, and nobody checks it.
    #[default]
    NoCheck,
}

impl RowStatus {
    pub(super) fn of(server: &Server) -> Self {
        let progress = server.health.and_then(|health| health.progress());
        let failing = server.health.is_some_and(|health| !health.is_up());
        let unwatched = server.origin == Origin::Static && server.health.is_none();
        match (server.status, progress) {
            (Status::Drain, _) => Self::Drain,
            (Status::Suspect, _) => Self::Suspect,
            (Status::Up, Some((n, fall))) => Self::GoingDown(n, fall),
            (Status::Up, None) if unwatched => Self::NoCheck,
            (Status::Up, None) => Self::Up,
            (Status::Down(Cause::Agent), _) => Self::DownByAgent,
            (Status::Down(_), Some((n, rise))) if failing => Self::GoingUp(n, rise),
            (Status::Down(_), _) => Self::Down,
            (Status::Maint, _) => Self::Maint,
        }
    }

    /// Whether it takes no request for want of health.
    pub fn is_down(self) -> bool {
        matches!(self, Self::Down | Self::DownByAgent | Self::GoingUp(..))
    }

    /// Whether it takes no request, by fault or by an operator's wish.
    pub fn is_out(self) -> bool {
        self.is_down() || self == Self::Maint
    }

    /// Whether it only keeps the users it has.
    pub fn is_draining(self) -> bool {
        self == Self::Drain
    }

    /// Whether an operator has taken it out.
    pub fn is_maintenance(self) -> bool {
        self == Self::Maint
    }
}

impl fmt::Display for RowStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("OPEN"),
            Self::Stop => f.write_str("STOP"),
            Self::Up | Self::Suspect => f.write_str("UP"),
            Self::GoingDown(n, fall) => write!(f, "UP {n}/{fall}"),
            Self::Down => f.write_str("DOWN"),
            Self::DownByAgent => f.write_str("DOWN (agent)"),
            Self::GoingUp(n, rise) => write!(f, "DOWN {n}/{rise}"),
            Self::Drain => f.write_str("DRAIN"),
            Self::Maint => f.write_str("MAINT"),
            Self::NoCheck => f.write_str("no check"),
        }
    }
}
