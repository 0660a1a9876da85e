//! What each worker has to do, as figures of `/metrics`.

use super::source::{Figure, FigureKind};
use crate::proxy::Workers;

/// How many client connections each worker has.
pub fn worker_figures(workers: &Workers) -> impl Iterator<Item = Figure> {
    workers
        .connections()
        .enumerate()
        .map(|(index, connections)| Figure {
            name: "tidings_worker_connections",
            help: "Open client connections of the worker.",
            kind: FigureKind::Gauge,
            labels: vec![("worker", index.to_string())],
            read: Box::new(move || connections.get().into()),
        })
}
