//! The statistics: one set of rows, and the surfaces that print them.
//!
//! Nothing is counted here. The rows are read from the pool's snapshot and
//! from [`counters`](crate::counters) when somebody asks, and every surface
//! prints the same row, so no two of them can tell different stories. A
//! figure that nobody measures is left empty, never printed as zero; zero is
//! what was counted, or cannot occur here.

pub mod history;
pub mod source;
pub mod view;

pub mod balancer;
pub mod columns;
pub mod csv;
pub mod events;
pub mod json;
pub mod page;
pub mod prometheus;
pub mod typed;

mod follow;
pub mod fuzz;
mod gossip;
mod live;
pub mod server;
mod steer;
mod stream;
mod tls;
mod usage;
mod workers;

pub use self::{
    gossip::gossip_figures,
    history::History,
    server::run,
    source::{Accepts, Figure, FigureKind, FiguresNow, Members, Process, Source, sample},
    tls::{certificate_figures, handshake_figures},
    view::{Rows, StatRow, rows},
    workers::worker_figures,
};

#[cfg(test)]
pub(crate) mod fixture;
