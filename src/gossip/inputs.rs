//! What the other parts of a node tell its driver: a channel for each kind of
//! input, and both ends of each.

use std::net::{IpAddr, SocketAddr};

use tokio::sync::{mpsc, watch};

use super::{
    handle::{Declaration, Demand},
    lifeline::LineNews,
    port::{Dropped, Inbox},
    records,
    sync::Request,
};
use crate::membership::Meta;

/// The resolver sends a list when it changed and waits while one is unread.
const SEED_QUEUE: usize = 1;
/// Each exchange waits for its answer, so there are no more than these.
const REQUEST_QUEUE: usize = 32;
/// As many as are kept: whoever sets a whole cluster's servers at once finds
/// room.
const DECLARATION_QUEUE: usize = records::MAX_RECORDS;
/// Whoever finds the own address waits while the last one is not taken on.
const MOVE_QUEUE: usize = 1;
/// Whoever watches a lifeline waits while as many have something to tell.
const LINE_QUEUE: usize = 64;
/// Whoever dropped a frame waits while as many are to be counted.
const DROP_QUEUE: usize = 64;

/// The ends of the driver.
pub(super) struct Inputs {
    pub(super) demands: watch::Receiver<Demand>,
    pub(super) declarations: mpsc::Receiver<Declaration>,
    pub(super) seeds: mpsc::Receiver<Vec<SocketAddr>>,
    /// Where this host is to be reached now.
    pub(super) moves: mpsc::Receiver<IpAddr>,
    pub(super) requests: mpsc::Receiver<Request>,
    /// Of the lifelines that others keep to us.
    pub(super) lines: mpsc::Receiver<LineNews>,
    /// Frames of callers that were not heard.
    pub(super) drops: mpsc::Receiver<Dropped>,
}

/// The ends of those that tell it something.
pub(super) struct Senders {
    pub(super) demands: watch::Sender<Demand>,
    pub(super) declarations: mpsc::Sender<Declaration>,
    pub(super) seeds: mpsc::Sender<Vec<SocketAddr>>,
    pub(super) moves: mpsc::Sender<IpAddr>,
    pub(super) inbox: Inbox,
}

/// The channels of a node that says `meta` of itself.
pub(super) fn channels(meta: Meta) -> (Senders, Inputs) {
    let leave = false;
    let (demand_sender, demands) = watch::channel(Demand { meta, leave });
    let (declaration_sender, declarations) = mpsc::channel(DECLARATION_QUEUE);
    let (seed_sender, seeds) = mpsc::channel(SEED_QUEUE);
    let (move_sender, moves) = mpsc::channel(MOVE_QUEUE);
    let (request_sender, requests) = mpsc::channel(REQUEST_QUEUE);
    let (line_sender, lines) = mpsc::channel(LINE_QUEUE);
    let (drop_sender, drops) = mpsc::channel(DROP_QUEUE);
    let senders = Senders {
        demands: demand_sender,
        declarations: declaration_sender,
        seeds: seed_sender,
        moves: move_sender,
        inbox: Inbox {
            requests: request_sender,
            lines: line_sender,
            drops: drop_sender,
        },
    };
    let inputs = Inputs {
        demands,
        declarations,
        seeds,
        moves,
        requests,
        lines,
        drops,
    };
    (senders, inputs)
}
