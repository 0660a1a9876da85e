//! Handshakes and certificates, as figures of `/metrics`.

use std::sync::Arc;

use super::source::{Figure, FigureKind, FiguresNow};
use crate::{
    counters::Counter,
    tls::{Handshakes, Server},
};

/// Reads how many ended so.
type Read = fn(&Handshakes) -> &Counter;

/// How clients' handshakes ended.
pub fn handshake_figures(tls: &Arc<Server>) -> [Figure; 2] {
    let results: [(_, Read); 2] = [
        ("ok", |handshakes| &handshakes.ok),
        ("failed", |handshakes| &handshakes.failed),
    ];
    results.map(|(result, counter)| {
        let handshakes = Arc::clone(tls.handshakes());
        Figure {
            name: "tidings_tls_handshakes_total",
            help: "TLS handshakes with clients, by how they ended.",
            kind: FigureKind::Counter,
            labels: vec![("result", result.to_owned())],
            read: Box::new(move || counter(&handshakes).get()),
        }
    })
}

/// When each certificate ends that clients are shown.
pub fn certificate_figures(tls: Arc<Server>) -> FiguresNow {
    let figure = |(name, ends): (&str, i64)| Figure {
        name: "tidings_tls_certificate_expiry_timestamp_seconds",
        help: "When a certificate ends, in Unix time, by its first name.",
        kind: FigureKind::Gauge,
        labels: vec![("name", name.to_owned())],
        read: Box::new(move || ends.try_into().unwrap_or_default()),
    };
    Box::new(move || tls.index().ends().into_iter().map(figure).collect())
}
