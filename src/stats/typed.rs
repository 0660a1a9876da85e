//! `HAProxy`'s typed form, a line a figure, and the JSON of the same content
//! (management guide, 9.2 and 9.3): of the statistics (`show stat`) and of the
//! process (`show info`). What has no value is left out.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

use serde::Serialize;

use super::{
    columns::{COLUMNS, Cell, PROCESS},
    json::to_text,
    view::{Kind, StatRow},
};

/// Ends the tags of a line: the figure goes with the process.
const VOLATILE: char = 'V';

/// A figure with everything that is said of it.
#[derive(Debug, Clone)]
pub struct Field<'a> {
    /// Its number among the figures of its kind.
    pub position: usize,
    /// Its name.
    pub name: &'static str,
    /// Where it comes from, of what nature it is and what it is about, in one
    /// letter each.
    pub tags: &'static str,
    /// `str`, `u32`, `u64` or `s32`.
    pub kind: &'static str,
    /// What it says, in a few words.
    pub about: &'static str,
    /// Its value.
    pub value: Cell<'a>,
}

/// The rows as `show stat typed` prints them, each figure `described` or not.
pub fn lines<'a>(rows: impl IntoIterator<Item = &'a StatRow>, described: bool) -> String {
    let mut out = String::new();
    for row in rows {
        let owner = Owner::of(row);
        for field in fields(row) {
            write!(out, "{owner}").expect("a string takes any text");
            field.line(described, &mut out);
        }
    }
    out
}

/// The rows as `show stat json` prints them: an array of rows, each an array
/// of figures.
pub fn json<'a>(rows: impl IntoIterator<Item = &'a StatRow>) -> String {
    let array = |row| {
        let owner = Some(Owner::of(row));
        let object = |field| FieldJson::of(owner, field);
        fields(row).map(object).collect()
    };
    let rows: Vec<Vec<FieldJson<'_>>> = rows.into_iter().map(array).collect();
    to_text(&rows) + "\n"
}

/// Figures of no row as an array (`show info json`).
pub fn json_of<'a>(fields: impl IntoIterator<Item = Field<'a>>) -> String {
    let object = |field| FieldJson::of(None, field);
    let fields: Vec<FieldJson<'_>> = fields.into_iter().map(object).collect();
    to_text(&fields) + "\n"
}

/// The JSON schema of what [`json`] prints, for `;json-schema`.
pub const SCHEMA: &str = include_str!("schema.json");

fn fields(row: &StatRow) -> impl Iterator<Item = Field<'_>> {
    let columns = (0..).zip(COLUMNS);
    let fields = columns.map(|(position, (name, tags, kind, about, value))| Field {
        position,
        name,
        tags: tags_of(row.kind, name, tags),
        kind,
        about,
        value: value(row),
    });
    // What has no value is not printed, so no printer below meets it.
    fields.filter(|field| field.value != Cell::Empty)
}

/// A server's `act` and `bck` are its state, a backend's count its servers.
fn tags_of(kind: Kind, name: &str, tags: &'static str) -> &'static str {
    match (kind, name) {
        (Kind::Backend, "act" | "bck") => "MGP",
        _ => tags,
    }
}

impl Field<'_> {
    /// Appends its line, from its position on.
    pub fn line(&self, described: bool, out: &mut String) {
        self.try_line(described, out)
            .expect("a string takes any text");
    }

    fn try_line(&self, described: bool, out: &mut String) -> fmt::Result {
        let Self {
            position,
            name,
            tags,
            kind,
            about,
            value,
        } = self;
        write!(out, "{position}.{name}.{PROCESS}:{tags}{VOLATILE}:{kind}:")?;
        match value {
            // A reason or a name from elsewhere must not look like a line.
            Cell::Text(text) => out.push_str(&text.replace(['\r', '\n'], " ")),
            figure => write!(out, "{figure}")?,
        }
        if described {
            write!(out, ":\"{about}\"")?;
        }
        writeln!(out)
    }
}

/// The row that a figure belongs to.
#[derive(Serialize, Clone, Copy)]
#[serde(rename_all = "camelCase")]
struct Owner {
    #[serde(skip)]
    letter: char,
    obj_type: &'static str,
    proxy_id: u32,
    id: u32,
}

impl Owner {
    fn of(row: &StatRow) -> Self {
        let (letter, obj_type) = match row.kind {
            Kind::Frontend => ('F', "Frontend"),
            Kind::Backend => ('B', "Backend"),
            Kind::Server => ('S', "Server"),
        };
        Self {
            letter,
            obj_type,
            proxy_id: row.proxy_id,
            id: row.server_id,
        }
    }
}

/// As a line begins.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.", self.letter, self.proxy_id, self.id)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FieldJson<'a> {
    #[serde(flatten)]
    owner: Option<Owner>,
    field: Name,
    process_num: u32,
    tags: Tags,
    value: Typed<'a>,
}

#[derive(Serialize)]
struct Name {
    pos: usize,
    name: &'static str,
}

#[derive(Serialize)]
struct Tags {
    origin: &'static str,
    nature: &'static str,
    scope: &'static str,
}

#[derive(Serialize)]
struct Typed<'a> {
    r#type: &'static str,
    value: Json<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Json<'a> {
    Number(u64),
    Signed(i64),
    Text(Cow<'a, str>),
}

impl<'a> FieldJson<'a> {
    fn of(owner: Option<Owner>, field: Field<'a>) -> Self {
        Self {
            owner,
            field: Name {
                pos: field.position,
                name: field.name,
            },
            process_num: PROCESS,
            tags: Tags::of(field.tags),
            value: Typed {
                r#type: field.kind,
                value: match field.value {
                    Cell::Number(number) => Json::Number(number),
                    Cell::Signed(number) => Json::Signed(number),
                    Cell::Text(text) => Json::Text(text),
                    Cell::Empty => Json::Text(Cow::default()),
                },
            },
        }
    }
}

impl Tags {
    /// The words for the three letters.
    fn of(letters: &str) -> Self {
        let mut letters = letters.chars();
        Self {
            origin: match letters.next() {
                Some('K') => "Key",
                Some('S') => "Status",
                Some('C') => "Config",
                Some('P') => "Product",
                _ => "Metric",
            },
            nature: match letters.next() {
                Some('a') => "Avg",
                Some('A') => "Age",
                Some('C') => "Counter",
                Some('D') => "Duration",
                Some('L') => "Limit",
                Some('M') => "Max",
                Some('N') => "Name",
                Some('O') => "Output",
                Some('R') => "Rate",
                _ => "Gauge",
            },
            scope: match letters.next() {
                Some('S') => "Service",
                _ => "Process",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::*;
    use crate::stats::{fixture, rows};

    #[test]
    fn a_line_has_place_tags_type_and_value_as_haproxy_has_them() {
        let rows = rows(&fixture::source(), Instant::now());
        let lines = lines(rows.iter(), false);
        for expected in [
            "F.3.0.0.pxname.1:KNSV:str:localnodes",
            "F.3.0.17.status.1:SGPV:str:OPEN",
            "S.4.3.4.scur.1:MGPV:u32:0",
            "S.4.3.7.stot.1:MCPV:u64:1234567",
            "S.4.3.19.act.1:SGPV:u32:1",
            "S.4.3.55.lastsess.1:MAPV:s32:0",
            "S.4.3.73.addr.1:CGSV:str:10.0.0.49:3000",
            "B.4.0.19.act.1:MGPV:u32:4",
            "B.4.0.76.algo.1:CGSV:str:roundrobin",
        ] {
            assert!(lines.lines().any(|line| line == expected), "{expected}");
        }
        assert!(!lines.contains("\n\n") && !lines.contains(".rate_lim.1:CLPV:u32:\n"));
    }

    #[test]
    fn every_column_can_be_described_in_a_line() {
        for (name, _, _, about, _) in COLUMNS {
            assert!(
                !about.is_empty() && !about.contains(['"', '\n']),
                "{name}: {about}"
            );
        }
        let rows = rows(&fixture::source(), Instant::now());
        let described = lines(rows.iter(), true);
        assert!(described.contains(".17.status.1:SGPV:str:UP:\"How it is doing\"\n"));
        let plain = lines(rows.iter(), false);
        assert_eq!(plain.lines().count(), described.lines().count());
    }

    #[test]
    fn json_says_the_same_in_haproxys_schema() {
        let rows = rows(&fixture::source(), Instant::now());
        let text = json(rows.iter());
        let begins = "[[{\"objType\":\"Frontend\",\"proxyId\":3,\"id\":0,\"field\":{\"pos\":0,\
            \"name\":\"pxname\"},\"processNum\":1,\"tags\":{\"origin\":\"Key\",\"nature\":\"Name\",\
            \"scope\":\"Service\"},\"value\":{\"type\":\"str\",\"value\":\"localnodes\"}},";
        assert!(text.starts_with(begins), "{text}");
        let all: Value = serde_json::from_str(&text).unwrap();
        let all = all.as_array().unwrap();
        assert_eq!(all.len(), 1 + 7 + 1);
        let of = |row: &Value, name: &str| {
            let fields = row.as_array().unwrap().iter();
            let mut found = fields.filter(|field| field["field"]["name"] == name);
            found.next().map(|field| field["value"].clone())
        };
        let never = Some(json!({ "type": "s32", "value": -1 }));
        assert!(all.iter().any(|row| of(row, "lastsess") == never));
        assert_eq!(of(&all[0], "lastsess"), None);
        let fields: usize = all.iter().map(|row| row.as_array().unwrap().len()).sum();
        assert_eq!(fields, lines(rows.iter(), false).lines().count());
    }
}
