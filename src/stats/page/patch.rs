//! What a viewer is sent: the whole page as data, or what has changed since
//! the scene that it shows.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::Arc,
};

use maud::Escaper;
use serde::Serialize;

use super::{
    cell::{Cell, Value},
    scene::{Row, Scene, Shape, Table},
};

/// One message to the page's script.
#[derive(Debug, Serialize)]
struct Patch<'a> {
    /// The scene's time, in Unix milliseconds.
    now: i64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    spots: BTreeMap<&'a str, &'a Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tables: BTreeMap<&'a str, TablePatch<'a>>,
}

#[derive(Debug, Default, Serialize)]
struct TablePatch<'a> {
    /// The keys of all rows, where rows came, went or moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<Vec<&'a str>>,
    /// Rows that were not there before, as markup.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    new: BTreeMap<&'a str, String>,
    /// Rows that have changed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rows: BTreeMap<&'a str, RowPatch<'a>>,
}

#[derive(Debug, Default, Serialize)]
struct RowPatch<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    /// Values by their column.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    cells: BTreeMap<usize, &'a Value>,
    /// What pointers over them show.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tips: BTreeMap<usize, Option<&'a str>>,
}

/// The whole scene.
pub(in crate::stats) fn whole(scene: &Scene) -> String {
    let now = scene.moment.unix();
    let mut patch = Patch {
        now: scene.moment.unix_millis(),
        spots: scene
            .spots
            .iter()
            .map(|(name, value)| (*name, value))
            .collect(),
        tables: BTreeMap::new(),
    };
    for of in scene.tables() {
        let mut all = TablePatch {
            order: Some(of.keys()),
            ..TablePatch::default()
        };
        for row in &of.rows {
            all.new.insert(&row.key, markup(row, of.shape, now));
        }
        patch.tables.insert(&of.id, all);
    }
    to_text(&patch)
}

/// What has changed from one scene to a later one.
pub(in crate::stats) fn difference(before: &Scene, after: &Scene) -> String {
    let old: HashMap<&str, &Value> = before
        .spots
        .iter()
        .map(|(name, value)| (*name, value))
        .collect();
    let changed = after
        .spots
        .iter()
        .filter(|(name, value)| old.get(name) != Some(&value));
    let tables = before.tables().into_iter().zip(after.tables());
    let tables = tables.filter_map(|(before, after_table)| {
        let patch = of_table(before, after_table, after.moment.unix())?;
        Some((after_table.id.as_str(), patch))
    });
    to_text(&Patch {
        now: after.moment.unix_millis(),
        spots: changed.map(|(name, value)| (*name, value)).collect(),
        tables: tables.collect(),
    })
}

fn of_table<'a>(before: &Table, after: &'a Table, now: i64) -> Option<TablePatch<'a>> {
    let keys = after.keys();
    let same_order = before.keys() == keys;
    let old: HashMap<&str, &Arc<Row>> = before
        .rows
        .iter()
        .map(|row| (row.key.as_str(), row))
        .collect();
    let mut patch = TablePatch {
        order: (!same_order).then_some(keys),
        ..TablePatch::default()
    };
    for row in &after.rows {
        match old.get(row.key.as_str()) {
            None => {
                patch.new.insert(&row.key, markup(row, after.shape, now));
            }
            Some(old) if Arc::ptr_eq(old, row) => {}
            Some(old) => {
                if let Some(changed) = of_row(old, row) {
                    patch.rows.insert(&row.key, changed);
                }
            }
        }
    }
    let nothing = patch.order.is_none() && patch.new.is_empty() && patch.rows.is_empty();
    (!nothing).then_some(patch)
}

fn of_row<'a>(before: &Row, after: &'a Row) -> Option<RowPatch<'a>> {
    let mut patch = RowPatch {
        class: (before.class != after.class).then_some(after.class),
        ..RowPatch::default()
    };
    for (column, (old, new)) in before.cells.iter().zip(&after.cells).enumerate() {
        if old.value != new.value {
            patch.cells.insert(column, &new.value);
        }
        if old.tip != new.tip {
            patch.tips.insert(column, new.tip.as_deref());
        }
    }
    let nothing = patch.class.is_none() && patch.cells.is_empty() && patch.tips.is_empty();
    (!nothing).then_some(patch)
}

impl Table {
    fn keys(&self) -> Vec<&str> {
        self.rows.iter().map(|row| row.key.as_str()).collect()
    }
}

/// A row as it stands in the page.
pub(super) fn markup(row: &Row, shape: Shape, now: i64) -> String {
    let mut out = String::with_capacity(2048);
    match shape {
        Shape::Rows => {
            open(
                &mut out,
                "tr",
                &[("class", row.class), ("data-k", &row.key)],
            );
            for (column, cell) in row.cells.iter().enumerate() {
                if column == 0 {
                    print(
                        cell,
                        "th",
                        &[("scope", "row"), ("id", &row.key)],
                        now,
                        &mut out,
                    );
                } else {
                    print(cell, "td", &[], now, &mut out);
                }
            }
            out.push_str("</tr>");
        }
        Shape::Items => {
            open(
                &mut out,
                "li",
                &[("class", row.class), ("data-k", &row.key)],
            );
            for cell in &row.cells {
                cell.value.print(now, &mut out);
            }
            out.push_str("</li>");
        }
    }
    out
}

fn print(cell: &Cell, tag: &str, attributes: &[(&str, &str)], now: i64, out: &mut String) {
    let tip = cell.tip.as_deref().map(|tip| ("title", tip));
    let all: Vec<(&str, &str)> = attributes.iter().copied().chain(tip).collect();
    open(out, tag, &all);
    cell.value.print(now, out);
    write!(out, "</{tag}>").expect("a string takes any text");
}

fn open(out: &mut String, tag: &str, attributes: &[(&str, &str)]) {
    write!(out, "<{tag}").expect("a string takes any text");
    for (name, value) in attributes {
        write!(out, " {name}=\"").expect("a string takes any text");
        Escaper::new(out)
            .write_str(value)
            .expect("a string takes any text");
        out.push('"');
    }
    out.push('>');
}

fn to_text(patch: &Patch<'_>) -> String {
    serde_json::to_string(patch).expect("plain structs with text keys always serialise")
}
