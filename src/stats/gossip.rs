//! What gossip counts, as figures of `/metrics`.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::source::{Figure, FigureKind};
use crate::gossip::{Counters, DropReason, Handle};

/// Reads one of gossip's counters.
type Read = fn(&Counters) -> &AtomicU64;

/// Why datagrams are dropped, in the words of the label.
const REASONS: [(&str, Read); 11] = [
    ("foreign", |counters| counters.dropped(DropReason::Foreign)),
    ("other_cluster", |counters| {
        counters.dropped(DropReason::OtherCluster)
    }),
    ("bad_key", |counters| counters.dropped(DropReason::BadKey)),
    ("malformed", |counters| {
        counters.dropped(DropReason::Malformed)
    }),
    ("oversized", |counters| {
        counters.dropped(DropReason::Oversized)
    }),
    ("table_full", |counters| {
        counters.dropped(DropReason::TableFull)
    }),
    ("source", |counters| counters.dropped(DropReason::Source)),
    ("claim", |counters| counters.dropped(DropReason::Claim)),
    ("source_rate", |counters| {
        counters.dropped(DropReason::SourceRate)
    }),
    ("total_rate", |counters| {
        counters.dropped(DropReason::TotalRate)
    }),
    ("crowded", |counters| counters.dropped(DropReason::Crowded)),
];

/// The figures of a node's part in gossip, all zero until it has begun.
pub fn gossip_figures(gossip: &Arc<OnceLock<Handle>>) -> Vec<Figure> {
    let figure = |name, help, labels, read: Read| {
        let gossip = Arc::clone(gossip);
        let read = move || {
            gossip
                .get()
                .map_or(0, |handle| read(handle.counters()).load(Relaxed))
        };
        Figure {
            name,
            help,
            kind: FigureKind::Counter,
            labels,
            read: Box::new(read),
        }
    };
    let mut figures = vec![
        figure(
            "tidings_gossip_packets_received_total",
            "Gossip datagrams that arrived, the dropped ones included.",
            Vec::new(),
            |counters| &counters.received,
        ),
        figure(
            "tidings_gossip_packets_sent_total",
            "Gossip datagrams that were sent.",
            Vec::new(),
            |counters| &counters.sent,
        ),
        figure(
            "tidings_gossip_syncs_total",
            "Member tables exchanged over TCP.",
            Vec::new(),
            |counters| &counters.synced,
        ),
    ];
    figures.extend(REASONS.map(|(reason, read)| {
        figure(
            "tidings_gossip_packets_dropped_total",
            "Gossip datagrams and connections that were dropped, by reason.",
            vec![("reason", reason.to_owned())],
            read,
        )
    }));
    figures
}
