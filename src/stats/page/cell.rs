//! What stands in a cell: a value that is compared before it is printed, so
//! that what has not changed costs neither a format nor a byte on the wire.

use std::{fmt::Write as _, sync::Arc};

use maud::Escaper;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::age;

/// A cell's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing: it has no meaning there, or nobody measures it.
    Nothing,
    /// A figure.
    Count(u64),
    /// The time since a moment, in Unix seconds, and what follows it. Whoever
    /// shows it lets it grow, so that time alone changes nothing.
    Since(i64, Arc<str>),
    /// Markup.
    Html(Arc<str>),
}

impl Value {
    /// A figure, where there is one.
    pub(super) fn count(figure: Option<impl Into<u64>>) -> Self {
        figure.map_or(Self::Nothing, |figure| Self::Count(figure.into()))
    }

    /// Text as it is.
    pub(super) fn text(text: &str) -> Self {
        if text.is_empty() {
            return Self::Nothing;
        }
        let mut html = String::with_capacity(text.len());
        Escaper::new(&mut html)
            .write_str(text)
            .expect("a string takes any text");
        Self::Html(html.into())
    }

    /// Appends it as markup, as it is at `now` in Unix seconds.
    pub(super) fn print(&self, now: i64, out: &mut String) {
        match self {
            Self::Nothing => {}
            Self::Count(figure) => grouped(*figure, out),
            Self::Since(at, after) => {
                let elapsed = u64::try_from(now - at).unwrap_or(0);
                let age = age(std::time::Duration::from_secs(elapsed));
                write!(out, "<time data-at=\"{at}\">{age}</time>{after}")
                    .expect("a string takes any text");
            }
            Self::Html(html) => out.push_str(html),
        }
    }
}

impl From<maud::Markup> for Value {
    fn from(markup: maud::Markup) -> Self {
        Self::Html(markup.into_string().into())
    }
}

/// As the page's script reads it: `null`, a number, markup, or a moment with
/// what follows it.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nothing => to.serialize_unit(),
            Self::Count(figure) => to.serialize_u64(*figure),
            Self::Html(html) => to.serialize_str(html),
            Self::Since(at, after) => {
                let mut map = to.serialize_map(Some(2))?;
                map.serialize_entry("at", at)?;
                map.serialize_entry("after", &**after)?;
                map.end()
            }
        }
    }
}

/// A cell of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    /// What it shows.
    pub(super) value: Value,
    /// What a pointer over it shows.
    pub(super) tip: Option<Arc<str>>,
}

impl From<Value> for Cell {
    fn from(value: Value) -> Self {
        Self { value, tip: None }
    }
}

/// A number in groups of three digits, set apart by space alone, so that it
/// is copied as it is.
fn grouped(number: u64, out: &mut String) {
    if number == 0 {
        // Most figures are zero, and the others should be seen.
        return out.push_str("<span class=\"zero\">0</span>");
    }
    let digits = number.to_string();
    let first = (digits.len() + 2) % 3 + 1;
    let (head, tail) = digits.split_at(first);
    out.push_str(head);
    for group in tail.as_bytes().chunks(3) {
        let group = String::from_utf8_lossy(group);
        write!(out, "<span class=\"group\">{group}</span>").expect("a string takes any text");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(value: &Value) -> String {
        let mut out = String::new();
        value.print(1000, &mut out);
        out
    }

    #[test]
    fn a_value_is_printed_for_people() {
        assert_eq!(printed(&Value::Nothing), "");
        assert_eq!(printed(&Value::Count(12)), "12");
        let grouped = "1<span class=\"group\">234</span><span class=\"group\">567</span>";
        assert_eq!(printed(&Value::Count(1_234_567)), grouped);
        let since = "<time data-at=\"690\">5m10s</time> UP";
        assert_eq!(printed(&Value::Since(690, " UP".into())), since);
        assert_eq!(printed(&Value::text("<b>")), "&lt;b&gt;");
    }

    #[test]
    fn a_value_is_short_on_the_wire() {
        let json = |value: &Value| serde_json::to_string(value).unwrap();
        assert_eq!(json(&Value::Nothing), "null");
        assert_eq!(json(&Value::Count(1_234_567)), "1234567");
        let since = r#"{"at":690,"after":" UP"}"#;
        assert_eq!(json(&Value::Since(690, " UP".into())), since);
    }
}
