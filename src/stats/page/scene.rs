//! All that the page shows at one moment, as values that can be compared.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    cell::{Cell, Value},
    chart::Scale,
    facts, members,
    table::{self, Context},
    timeline,
};
use crate::{
    membership::MemberView,
    pool::Server,
    stats::{
        source::{Process, Source},
        view::{self, FRONTEND},
    },
};

/// The page at one moment.
#[derive(Debug)]
pub(in crate::stats) struct Scene {
    /// When that is.
    pub(super) moment: Moment,
    /// The number of the pool's snapshot that it shows.
    pub(in crate::stats) generation: u64,
    /// The number of the history's sample that its charts show.
    round: u64,
    /// Figures and notes that stand alone, by name.
    pub(super) spots: Vec<(&'static str, Value)>,
    /// The frontend's row.
    pub(super) frontend: Table,
    /// The servers' rows and the backend's.
    pub(super) backend: Table,
    /// What happened.
    pub(super) events: Table,
    /// Who gossips.
    pub(super) members: Table,
    listed: Arc<Vec<MemberView>>,
}

/// Rows in their order.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// Its name, and its anchor on the page.
    pub(super) id: String,
    /// What its rows are.
    pub(super) shape: Shape,
    /// Its rows; one that has not changed is shared with the scene before.
    pub(super) rows: Vec<Arc<Row>>,
}

/// What rows are in HTML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Rows of a table; the first cell is the row's head.
    Rows,
    /// Items of a list, each a single cell.
    Items,
}

/// One row.
#[derive(Debug)]
pub(super) struct Row {
    /// Tells it apart from all others of its table.
    pub(super) key: String,
    /// Its colour.
    pub(super) class: &'static str,
    /// Its cells.
    pub(super) cells: Vec<Cell>,
    /// The server it describes.
    pub(super) server: Option<Arc<Server>>,
}

impl Scene {
    /// Takes in everything as it is now. What only changes slowly is taken
    /// over from the scene before.
    pub(in crate::stats) fn take(source: &Source, before: Option<&Self>, now: Instant) -> Self {
        let mut rows = view::rows(source, now);
        let up = rows.servers.iter().filter(|row| !row.status.is_out());
        rows.backend.shown = Some((up.count(), rows.servers.len()));
        let moment = Moment::of(&source.process, now);
        let history = source.history.read();
        let round = history.round();
        let context = Context {
            moment,
            history: &history,
            scale: Scale::of_servers(&history),
            anew: before.is_none_or(|before| before.round != round),
            admin: source.declare.is_some(),
        };
        let listed = (source.members)();
        let same_members = before.filter(|before| Arc::ptr_eq(&before.listed, &listed));
        Self {
            moment,
            generation: rows.generation,
            round,
            spots: facts::spots(source, &rows, &listed, &context),
            frontend: table::proxy(
                FRONTEND,
                std::iter::once(&rows.frontend),
                &context,
                before.map(|before| &before.frontend),
            ),
            backend: table::proxy(
                source.service.as_str(),
                rows.servers.iter().chain([&rows.backend]),
                &context,
                before.map(|before| &before.backend),
            ),
            events: timeline::table(source.pool.timeline(), before.map(|before| &before.events)),
            members: match same_members {
                Some(before) => before.members.clone(),
                None => members::table(&listed, moment),
            },
            listed,
        }
    }

    /// Its tables.
    pub(super) fn tables(&self) -> [&Table; 4] {
        [&self.frontend, &self.backend, &self.events, &self.members]
    }
}

/// A moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    now: Instant,
    /// Unix time in milliseconds.
    millis: i64,
}

impl Moment {
    fn of(process: &Process, now: Instant) -> Self {
        // By the distance to one fixed moment, so that the same instant is
        // always the same time, whatever is done to the wall clock.
        let elapsed = now.saturating_duration_since(process.started);
        let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        let millis = process.started_unix.saturating_mul(1000);
        Self {
            now,
            millis: millis.saturating_add(elapsed),
        }
    }

    /// Now, in Unix seconds.
    pub(super) fn unix(self) -> i64 {
        self.millis.div_euclid(1000)
    }

    /// Now, in Unix milliseconds.
    pub(super) fn unix_millis(self) -> i64 {
        self.millis
    }

    /// That long ago, in Unix seconds.
    pub(super) fn ago(self, time: Duration) -> i64 {
        let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        self.millis.saturating_sub(time).div_euclid(1000)
    }

    /// The time that has passed since an instant.
    pub(super) fn since(self, instant: Instant) -> Duration {
        self.now.saturating_duration_since(instant)
    }

    /// An instant in Unix seconds.
    pub(super) fn at(self, instant: Instant) -> i64 {
        self.ago(self.since(instant))
    }
}
