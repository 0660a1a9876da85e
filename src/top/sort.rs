//! The order of the servers. Pure.

use std::cmp::Ordering;

use super::model::Row;

/// What the servers are sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Column {
    #[default]
    Name,
    Status,
    Weight,
    Active,
    Rate,
    P50,
    P99,
    Errors,
    Since,
}

impl Column {
    /// Every column there is, from left to right.
    pub const ALL: [Self; 9] = [
        Self::Name,
        Self::Status,
        Self::Weight,
        Self::Active,
        Self::Rate,
        Self::P50,
        Self::P99,
        Self::Errors,
        Self::Since,
    ];

    /// The one to the right; after the last, the first.
    #[must_use]
    pub fn next(self) -> Self {
        let mut columns = Self::ALL.into_iter().cycle();
        columns.find(|column| *column == self);
        columns.next().unwrap_or(self)
    }

    /// The one to the left; before the first, the last.
    #[must_use]
    pub fn previous(self) -> Self {
        let mut columns = Self::ALL.into_iter().rev().cycle();
        columns.find(|column| *column == self);
        columns.next().unwrap_or(self)
    }

    /// Whether what is largest needs a look first.
    fn is_largest_first(self) -> bool {
        !matches!(self, Self::Name | Self::Status | Self::Since)
    }
}

/// The order of the servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub by: Column,
    /// The other way round.
    pub inverted: bool,
}

impl Sort {
    /// Whether the largest come first.
    pub fn is_descending(self) -> bool {
        self.by.is_largest_first() != self.inverted
    }
}

/// The smaller first.
pub(super) fn compare(a: &Row<'_>, b: &Row<'_>, by: Column) -> Ordering {
    let (x, y) = (a.server, b.server);
    let time = |x: Option<f64>, y: Option<f64>| x.unwrap_or(-1.0).total_cmp(&y.unwrap_or(-1.0));
    match by {
        Column::Name => x.name.cmp(&y.name),
        Column::Status => x.status.cmp(&y.status),
        Column::Weight => x.weight.cmp(&y.weight),
        Column::Active => x.active.cmp(&y.active),
        Column::Rate => x.requests_per_second.cmp(&y.requests_per_second),
        Column::P50 => time(a.minute.p50, b.minute.p50),
        Column::P99 => time(a.minute.p99, b.minute.p99),
        Column::Errors => a.minute.errors.cmp(&b.minute.errors),
        Column::Since => x.since_seconds.cmp(&y.since_seconds),
    }
}
