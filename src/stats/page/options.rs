//! What a request's address asks for.
//!
//! `HAProxy` finds its words anywhere in the address, at any path and in any
//! order, and so do we: `/;csv`, `/haproxy?stats;csv;norefresh`.

use std::borrow::Cow;

use super::outcome::Outcome;
use crate::stats::view::{RowStatus, Rows};

/// The longest scope, as in `HAProxy`.
const MOST_SCOPE: usize = 20;

/// The longest filter: a name and some more.
const MOST_FILTER: usize = 100;

/// What is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// The page.
    #[default]
    Page,
    /// `;csv`.
    Csv,
    /// `;typed`.
    Typed,
    /// `;json`.
    Json,
    /// `;json-schema`.
    JsonSchema,
    /// The page's style sheet.
    Style,
    /// The page's script.
    Script,
    /// The page's icon.
    Icon,
    /// What changes on the page, as it changes.
    Live,
}

/// What a request's address asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// What is to be answered.
    pub kind: Kind,
    /// `;up`: leave out servers that are down or in maintenance.
    pub up: bool,
    /// `;no-maint`: leave out servers that are in maintenance.
    pub no_maint: bool,
    /// `;norefresh`: do not load the page again.
    pub norefresh: bool,
    /// `scope=`: only proxies whose names contain it.
    pub scope: Option<String>,
    /// `filter=`: only servers that have it in their name, address, tags,
    /// status or reason.
    pub filter: Option<String>,
    /// `;st=`: how an action went.
    pub outcome: Option<Outcome>,
    /// `;undo=`: the number of what can be undone.
    pub undo: Option<u64>,
    /// `;since=`: the scene that a viewer shows.
    pub since: Option<String>,
}

impl Options {
    /// Finds the words in an address.
    pub fn of(uri: &str) -> Self {
        let has = |word: &str| uri.contains(word);
        let kinds = [
            (";live", Kind::Live),
            (";page.css", Kind::Style),
            (";page.js", Kind::Script),
            (";icon.svg", Kind::Icon),
            (";csv", Kind::Csv),
            (";typed", Kind::Typed),
            (";json-schema", Kind::JsonSchema),
            (";json", Kind::Json),
        ];
        let kind = kinds.into_iter().find(|(word, _)| has(word));
        Self {
            kind: kind.map_or(Kind::Page, |(_, kind)| kind),
            up: has(";up"),
            no_maint: has(";no-maint"),
            norefresh: has(";norefresh"),
            scope: value(uri, "scope=", MOST_SCOPE),
            filter: value(uri, "filter=", MOST_FILTER),
            outcome: value(uri, ";st=", 4).and_then(|code| Outcome::of(&code)),
            undo: value(uri, ";undo=", 20).and_then(|number| number.parse().ok()),
            since: value(uri, ";since=", 60),
        }
    }

    /// Whether any row may be left out.
    pub fn is_partial(&self) -> bool {
        self.up || self.no_maint || self.filter.is_some() || self.scope.is_some()
    }

    /// Whether servers in that status are left out.
    pub fn hides(&self, status: RowStatus) -> bool {
        self.up && status.is_out() || self.no_maint && status.is_maintenance()
    }

    /// Leaves out of the rows what is not to be listed.
    pub fn hide(&self, rows: &mut Rows) {
        if self.up || self.no_maint {
            rows.hide(|status| self.hides(status));
        }
    }

    /// Whether a proxy is in the scope.
    pub fn covers(&self, proxy: &str) -> bool {
        let scope = self.scope.as_deref().unwrap_or_default();
        contains(proxy, scope)
    }

    /// Whether a text has what is asked for in it.
    pub fn finds(&self, text: &str) -> bool {
        contains(text, self.filter.as_deref().unwrap_or_default())
    }

    /// Where the same is found; relative, so that it holds behind a proxy
    /// that shows the page under a path of its own.
    pub fn link(&self) -> String {
        let words = [
            (self.up, ";up"),
            (self.no_maint, ";no-maint"),
            (self.norefresh, ";norefresh"),
        ];
        let mut link = String::from("./");
        link.extend(
            words
                .iter()
                .filter(|(asked, _)| *asked)
                .map(|(_, word)| *word),
        );
        if let Some(outcome) = self.outcome {
            link.extend([";st=", outcome.code()]);
        }
        if let Some(undo) = self.undo {
            link.extend([";undo=", &undo.to_string()]);
        }
        let texts = [("scope", &self.scope), ("filter", &self.filter)];
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, text) in texts {
            if let Some(text) = text {
                query.append_pair(name, text);
            }
        }
        let query = query.finish();
        if !query.is_empty() {
            link.push('?');
            link.push_str(&query);
        }
        link
    }
}

/// What stands behind a word, up to the next one.
fn value(uri: &str, word: &str, most: usize) -> Option<String> {
    let (_, rest) = uri.split_once(word)?;
    let end = rest.find([';', '&', ' ', '#', '?']).unwrap_or(rest.len());
    let (raw, _) = rest.split_at(end);
    let text = decoded(raw);
    (!text.is_empty()).then(|| text.chars().take(most).collect())
}

/// Undoes what a form's encoding does to a value.
fn decoded(raw: &str) -> Cow<'_, str> {
    // The encoding of a single value: its name is what comes before no `=`.
    let escaped = raw.replace('=', "%3D");
    let mut pairs = form_urlencoded::parse(escaped.as_bytes());
    let first = pairs.next().map(|(name, _)| name.into_owned());
    first.unwrap_or_default().into()
}

/// Whether a text contains another, whatever their cases.
fn contains(text: &str, part: &str) -> bool {
    part.is_empty() || text.to_lowercase().contains(&part.to_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_words_are_found_anywhere_in_an_address() {
        let up = Options {
            up: true,
            ..Options::default()
        };
        assert_eq!(Options::of("/"), Options::default());
        assert_eq!(Options::of("/haproxy?stats;up"), up);
        assert_eq!(up.link(), "./;up");
        let all = Options::of("/;norefresh;no-maint;up");
        assert_eq!(all.link(), "./;up;no-maint;norefresh");
        assert_eq!(Options::of(&all.link()), all);
    }

    #[test]
    fn every_kind_is_found_at_any_path_and_in_any_order() {
        for (uri, kind) in [
            ("/;csv", Kind::Csv),
            ("/;csv;norefresh", Kind::Csv),
            ("/haproxy?stats;csv", Kind::Csv),
            ("/?stats/;up;csv", Kind::Csv),
            ("/;json", Kind::Json),
            ("/x/y?;json-schema", Kind::JsonSchema),
            ("/haproxy?stats", Kind::Page),
            ("/favicon.ico", Kind::Page),
        ] {
            assert_eq!(Options::of(uri).kind, kind, "{uri}");
        }
    }

    #[test]
    fn hiding_what_is_down_hides_maintenance_and_not_the_other_way_round() {
        let (up, no_maint) = (Options::of("/;up"), Options::of("/;no-maint"));
        let hidden = |options: &Options| {
            let statuses = [
                RowStatus::Up,
                RowStatus::Drain,
                RowStatus::Down,
                RowStatus::Maint,
            ];
            statuses.map(|status| options.hides(status))
        };
        assert_eq!(hidden(&up), [false, false, true, true]);
        assert_eq!(hidden(&no_maint), [false, false, false, true]);
        assert!(!Options::default().is_partial());
    }

    #[test]
    fn a_scope_is_cut_where_haproxy_cuts_it() {
        let scope = |uri| Options::of(uri).scope;
        assert_eq!(scope("/;csv;scope=b1;up").as_deref(), Some("b1"));
        assert_eq!(scope("/?scope=b1&x").as_deref(), Some("b1"));
        assert_eq!(scope("/?scope="), None);
        let long = format!("/?scope={}", "x".repeat(30));
        assert_eq!(scope(&long).unwrap().len(), MOST_SCOPE);
        let options = Options::of("/?scope=NOD");
        assert!(options.covers("localnodes") && !options.covers("web"));
    }

    #[test]
    fn a_filter_is_what_a_form_sent() {
        let options = Options::of("/;up?filter=a+b%3D%26%C3%A9");
        assert_eq!(options.filter.as_deref(), Some("a b=&é"));
        assert!(options.finds("xxA B=&É") && !options.finds("a"));
        assert_eq!(Options::of(&options.link()), options);
    }

    proptest! {
        #[test]
        fn no_address_is_too_strange(uri in "(?s).{0,200}") {
            let options = Options::of(&uri);
            prop_assert_eq!(Options::of(&options.link()).filter, options.filter);
        }

        #[test]
        fn no_order_of_words_is_too_strange(
            words in proptest::collection::vec("(;up|;csv|;json|;st=|;st=DONE|scope=|filter=|;undo=9|%|%f|é|&|=|/|\\?)", 0..12)
        ) {
            let options = Options::of(&words.concat());
            prop_assert_eq!(Options::of(&options.link()).scope, options.scope);
        }
    }
}
