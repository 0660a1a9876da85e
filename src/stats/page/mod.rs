//! The page for people: `HAProxy`'s look and words, and what it never had.
//!
//! What it shows is a scene: values, taken once for all who look. A page
//! is a scene printed; a viewer who stays is sent what has changed from one
//! scene to the next. The page is whole without its script, which only keeps
//! it live.

mod cell;
mod chart;
mod controls;
mod facts;
mod members;
mod options;
mod outcome;
mod patch;
mod scene;
mod spark;
mod table;
mod timeline;
mod words;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::LazyLock,
    time::Duration,
};

use maud::{DOCTYPE, Markup, PreEscaped, html};

pub(crate) use self::facts::uptime_text;
use self::{
    cell::Value,
    scene::{Row, Table},
};
pub use self::{
    options::{Kind, Options},
    outcome::Outcome,
};
pub(super) use self::{
    outcome::json as outcome_json,
    patch::{difference, whole},
    scene::Scene,
};
use super::{source::Source, view::FRONTEND};

/// The page's style sheet.
pub(super) const STYLE: &str = include_str!("../../../web-stats/page.css");

/// The page's script.
pub(super) const SCRIPT: &str = include_str!("../../../web-stats/page.js");

/// The page's icon.
pub(super) const ICON: &str = include_str!("../../../web-stats/icon.svg");

/// How often the page loads itself again where no script keeps it live, in
/// seconds.
const REFRESH: u32 = 5;

/// Tells builds apart whose pages are not the same: a script must not go on
/// with the data of another build.
pub(super) static BUILD: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), STYLE, SCRIPT).hash(&mut hasher);
    table::HEAD.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
});

/// The whole page; `number` is the scene's, which its viewer goes on from.
pub(super) fn render(source: &Source, scene: &Scene, number: &str, options: &Options) -> String {
    // What was said once is not said again on the page after this one.
    let here = Options {
        outcome: None,
        undo: None,
        ..options.clone()
    };
    let page = Page {
        source,
        scene,
        link: here.link(),
        options: &here,
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            (page.head())
            body.partial[options.is_partial()] .steered[source.declare.is_some()] data-build=(*BUILD) data-scene=(number)
                data-now=(scene.moment.unix_millis()) {
                a.skip href="#servers" { "To the servers" }
                (page.top())
                main {
                    div #outcome {
                        @if let Some(outcome) = options.outcome {
                            (outcome::banner(outcome, options.undo, &page.link))
                        }
                    }
                    div data-spot="notes" { (page.spot("notes")) }
                    (page.tiles())
                    (controls::toolbar(&here))
                    (page.tables())
                    (page.beside())
                }
                (page.foot())
            }
        }
    }
    .into_string()
}

struct Page<'a> {
    source: &'a Source,
    scene: &'a Scene,
    options: &'a Options,
    /// Where this page is found.
    link: String,
}

impl Page<'_> {
    fn head(&self) -> Markup {
        let build = BUILD.as_str();
        html! {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Statistics Report for Tidings on " (self.source.process.node) }
                link rel="icon" type="image/svg+xml" href="./;icon.svg";
                link rel="stylesheet" href=(format!("./;page.css?{build}"));
                script src=(format!("./;page.js?{build}")) {}
                @if !self.options.norefresh {
                    noscript { meta http-equiv="refresh" content=(REFRESH); }
                }
            }
        }
    }

    fn top(&self) -> Markup {
        let process = &self.source.process;
        html! {
            header.top {
                h1 { "Tidings" span { " version " (process.version) } }
                p { "Statistics Report for pid " (process.pid) " on " b { (process.node) } }
                div.tools {
                    button #live type="button" hidden {}
                    button #theme type="button" hidden title="Colours: as the system has them" {
                        "Auto"
                    }
                }
            }
        }
    }

    /// The whole in a few figures.
    fn tiles(&self) -> Markup {
        html! {
            section.tiles aria-label="The whole" {
                div.tile {
                    h2 { "Requests" }
                    b { (self.lively("rate")) span.of { " / s" } }
                    small { "at most " (self.lively("rate-max")) }
                    (self.chart("requests"))
                }
                div.tile {
                    h2 title="median and 99th percentile of the last minute" { "Latency p50 / p99" }
                    (self.chart("latency"))
                }
                div.tile {
                    h2 title="of the last 5 minutes: answered 5xx or broken off" { "Failed" }
                    (self.chart("failed"))
                }
                div.tile {
                    h2 { "Connections" }
                    b { (self.lively("connections")) }
                    small { "at most " (self.lively("connections-max")) }
                }
                div.tile { h2 { "Servers up" } div data-spot="up" { (self.spot("up")) } }
                div.tile { h2 { "Members" } div data-spot="alive" { (self.spot("alive")) } }
            }
        }
    }

    fn tables(&self) -> Markup {
        let source = self.source;
        let cookie = source.cookie.as_deref();
        let cookie = cookie.map_or("no cookie".into(), |name| format!("cookie {name}"));
        let words = format!("balance {}, {cookie}", source.balance);
        let servers = |row: &Row| self.lists(row);
        html! {
            @if self.options.covers(FRONTEND) {
                (self.proxy(&self.scene.frontend, "what clients connect to", &html! {}, |_| true))
            }
            @if self.options.covers(source.service.as_str()) {
                div #servers tabindex="-1" {
                    @if source.declare.is_some() {
                        form #steer method="post" action=(self.link) {
                            input type="hidden" name="b" value=(source.service);
                            (self.proxy(&self.scene.backend, &words, &controls::steering(), servers))
                        }
                    } @else {
                        (self.proxy(&self.scene.backend, &words, &html! {}, servers))
                    }
                    (controls::legend())
                }
            }
        }
    }

    /// Whether a row of the backend is listed.
    fn lists(&self, row: &Row) -> bool {
        let Some(server) = &row.server else {
            return true;
        };
        let is_maint = row.class == "maintain";
        let is_out = is_maint || ["active_down", "active_going_up"].contains(&row.class);
        if self.options.up && is_out || self.options.no_maint && is_maint {
            return false;
        }
        let text = words::searched(server);
        self.options.finds(&text)
    }

    fn proxy(
        &self,
        table: &Table,
        words: &str,
        steering: &Markup,
        lists: impl Fn(&Row) -> bool,
    ) -> Markup {
        html! {
            section.proxy id=(table.id) {
                div.title {
                    h2.name { a href=(format!("#{}", table.id)) { (table.id) } }
                    span.about { (words) }
                    (steering)
                }
                div.scroll tabindex="0" role="region" aria-label=(table.id) {
                    table.rows {
                        thead {
                            tr.titre {
                                th rowspan="2" scope="col" { span.unseen { "Name" } }
                                @for (group, columns) in table::HEAD {
                                    th colspan=(columns.len()) scope="colgroup" { (group) }
                                }
                            }
                            tr.titre.columns {
                                @for column in table::HEAD.iter().flat_map(|(_, columns)| *columns) {
                                    th scope="col" { (column) }
                                }
                            }
                        }
                        tbody data-table=(table.id) { (self.rows(table, lists)) }
                    }
                }
            }
        }
    }

    fn rows(&self, table: &Table, lists: impl Fn(&Row) -> bool) -> Markup {
        let now = self.scene.moment.unix();
        let rows = table.rows.iter().filter(|row| lists(row));
        PreEscaped(
            rows.map(|row| patch::markup(row, table.shape, now))
                .collect(),
        )
    }

    /// What happened, and who gossips.
    fn beside(&self) -> Markup {
        let Scene {
            events, members, ..
        } = self.scene;
        html! {
            section.proxy id=(events.id) {
                div.title {
                    h2.name { a href=(format!("#{}", events.id)) { "events" } }
                    span.about { "the latest first, times in UTC" }
                }
                ol.events data-table=(events.id) { (self.rows(events, |_| true)) }
                p.none { "Nothing has happened to any server since the start." }
            }
            section.proxy id=(members.id) {
                div.title {
                    h2.name { a href=(format!("#{}", members.id)) { "members" } }
                    span.about { "as gossip knows them" }
                }
                div.scroll tabindex="0" role="region" aria-label="members" {
                    table.members {
                        thead {
                            tr.titre.columns {
                                @for heading in members::HEAD { th scope="col" { (heading) } }
                            }
                        }
                        tbody data-table=(members.id) { (self.rows(members, |_| true)) }
                    }
                }
                p.none { "Gossip knows no member." }
            }
        }
    }

    fn foot(&self) -> Markup {
        let process = &self.source.process;
        let listening: Vec<String> = process.http.iter().map(ToString::to_string).collect();
        let limit = self.source.admission.of_process();
        html! {
            footer {
                section {
                    h2 { "General process information" }
                    ul.facts {
                        li {
                            b { "pid = " } (process.pid)
                            " (process #1, nbproc = 1, nbthread = " (process.workers) ")"
                        }
                        li { b { "uptime = " } (self.lively("uptime")) }
                        @if let Some(limit) = process.max_descriptors {
                            li { b { "system limits: " } "memmax = unlimited; ulimit-n = " (limit) }
                        }
                        li { b { "listening on " } (listening.join(", ")) }
                        li {
                            b { "maxconn = " }
                            @match limit { Some(limit) => (limit), None => "unlimited" }
                            "; current conns = " (self.lively("conns"))
                            "; conn rate = " (self.lively("conn-rate")) "/sec"
                            "; request rate = " (self.lively("req-rate")) "/sec"
                        }
                        li { b { "dropped logs = " } (self.lively("dropped")) }
                    }
                }
                (controls::keys(self.source.declare.is_some()))
            }
        }
    }

    /// A figure that stands alone.
    fn lively(&self, name: &str) -> Markup {
        html! { span data-spot=(name) { (self.spot(name)) } }
    }

    fn chart(&self, name: &str) -> Markup {
        html! { div.charted data-spot=(name) { (self.spot(name)) } }
    }

    fn spot(&self, name: &str) -> Markup {
        let mut out = String::new();
        let spots = &self.scene.spots;
        let (_, value) = spots
            .iter()
            .find(|(spot, _)| *spot == name)
            .unwrap_or(&("", Value::Nothing));
        value.print(self.scene.moment.unix(), &mut out);
        PreEscaped(out)
    }
}

/// A duration in its two biggest units, such as `5m12s`.
pub(crate) fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600, seconds / 60);
    match () {
        () if days > 0 => format!("{days}d{}h", hours % 24),
        () if hours > 0 => format!("{hours}h{}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m{}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;
    use crate::stats::fixture;

    fn page(source: &Source) -> String {
        page_with(source, &Options::default())
    }

    fn page_with(source: &Source, options: &Options) -> String {
        let scene = Scene::take(source, None, Instant::now());
        render(source, &scene, "1", options)
    }

    #[tokio::test]
    async fn a_tag_cannot_put_anything_into_the_page() {
        let page = page(&fixture::source());
        assert_eq!(page.matches("<script").count(), 1);
        assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)"));
    }

    #[tokio::test]
    async fn every_row_has_its_colour_and_its_anchor() {
        let page = page(&fixture::source());
        for (name, class) in [
            ("localnodes/FRONTEND", "frontend"),
            ("nodes/s1", "active_up"),
            ("nodes/s2", "active_going_down"),
            ("nodes/s3", "active_draining"),
            ("nodes/s4", "active_down"),
            ("nodes/t1", "active_going_down"),
            ("nodes/t2", "active_no_check"),
            ("nodes/BACKEND", "backend"),
        ] {
            let row =
                format!("<tr class=\"{class}\" data-k=\"{name}\"><th scope=\"row\" id=\"{name}\"");
            assert!(page.contains(&row), "{row}");
        }
    }

    #[tokio::test]
    async fn every_row_is_as_wide_as_the_head() {
        let page = page(&fixture::source());
        let columns: usize = table::HEAD.iter().map(|(_, columns)| columns.len()).sum();
        let rows = page
            .split("<tr class=")
            .filter(|row| row.contains("id=\"nodes/"));
        for row in rows {
            let row = row.split("</tr>").next().unwrap();
            assert_eq!(row.matches("<td").count(), columns, "{row}");
        }
    }

    #[test]
    fn haproxys_thirty_columns_are_there_in_its_order() {
        let groups = table::HEAD.iter().skip(1).take(8);
        let names: Vec<&str> = groups.clone().map(|(name, _)| *name).collect();
        assert_eq!(names.first().zip(names.last()), Some((&"Queue", &"Server")));
        let columns: usize = groups.map(|(_, columns)| columns.len()).sum();
        assert_eq!(columns, 30);
    }

    #[tokio::test]
    async fn an_empty_pool_and_open_gossip_are_said_loudly() {
        let mut source = fixture::empty();
        let loud = page(&source);
        assert!(loud.contains("There are no servers: every request gets a 503."));
        assert!(loud.contains("Gossip is not protected"));
        source.gossip_keyed = true;
        assert!(!page(&source).contains("Gossip is not protected"));
    }

    #[tokio::test]
    async fn there_are_buttons_only_where_the_page_may_steer() {
        let mut source = fixture::tended();
        assert!(!page(&source).contains("<button name="));
        source.declare = Some(Box::new(|_, _, _| Ok(())));
        let page = page(&source);
        let maint = "<button name=\"maint\" value=\"m1\" aria-pressed=\"true\">";
        let ready = "<button name=\"ready\" value=\"m1\" aria-pressed=\"false\">";
        assert!(page.contains(maint) && page.contains(ready));
        assert!(page.contains("<input type=\"checkbox\" name=\"s\" value=\"m1\""));
    }

    #[tokio::test]
    async fn an_outcome_is_said_once_and_can_be_undone() {
        let options = Options::of("/;up;st=DONE;undo=7");
        let page = page_with(&fixture::source(), &options);
        assert!(page.contains("Action processed successfully."));
        assert!(page.contains("<button name=\"undo\" value=\"7\">"));
        assert!(!page.contains("href=\"./;up;st="));
    }

    #[tokio::test]
    async fn a_viewer_is_only_sent_what_has_changed() {
        let source = fixture::source();
        let now = Instant::now();
        let first = Scene::take(&source, None, now);
        let same = Scene::take(&source, Some(&first), now);
        let nothing = format!("{{\"now\":{}}}", same.moment.unix_millis());
        assert_eq!(difference(&first, &same), nothing);
        let s1 = Arc::clone(source.pool.load().by_name("s1").unwrap());
        s1.live.counters.active.inc();
        let later = Scene::take(&source, Some(&same), now);
        let patch: serde_json::Value = serde_json::from_str(&difference(&same, &later)).unwrap();
        let rows = patch["tables"]["nodes"]["rows"].as_object().unwrap();
        assert_eq!(rows.keys().collect::<Vec<_>>(), ["nodes/s1"]);
        assert_eq!(rows["nodes/s1"]["cells"].as_object().unwrap().len(), 2);
        assert_eq!(patch["tables"]["nodes"]["order"], serde_json::Value::Null);
    }

    #[tokio::test]
    async fn a_server_that_joins_is_sent_as_a_row_and_one_that_leaves_as_an_order() {
        let (empty, full) = (fixture::empty(), fixture::source());
        let now = Instant::now();
        let nobody = Scene::take(&empty, None, now);
        let all = Scene::take(&full, Some(&nobody), now);
        let patch = |from, to| -> serde_json::Value {
            serde_json::from_str(&difference(from, to)).unwrap()
        };
        let came = patch(&nobody, &all);
        let row = came["tables"]["nodes"]["new"]["nodes/s1"].as_str().unwrap();
        assert!(row.starts_with("<tr class=\"active_up\""));
        let went = patch(&all, &nobody);
        let order = &went["tables"]["nodes"]["order"];
        assert_eq!(order, &serde_json::json!(["nodes/BACKEND"]));
        let whole: serde_json::Value = serde_json::from_str(&whole(&all)).unwrap();
        let rows = whole["tables"]["nodes"]["new"].as_object().unwrap();
        assert_eq!(rows.len(), 8);
    }

    #[tokio::test]
    async fn maintenance_has_its_colour_and_easing_in_its_percentage() {
        let page = page(&fixture::tended());
        assert!(page.contains("<span class=\"swatch maintain\"></span>MAINT"));
        assert!(page.contains("<tr class=\"maintain\" data-k=\"nodes/m1\""));
        let throttle = |server: &str| {
            let row = page
                .split(&format!("id=\"nodes/{server}\""))
                .nth(1)
                .unwrap();
            let row = row.split("</tr>").next().unwrap();
            let cells: Vec<&str> = row.split("<td").collect();
            let columns = table::HEAD.iter().flat_map(|(_, columns)| *columns);
            let place = columns.take_while(|name| **name != "Thrtle").count();
            cells[place + 1].to_owned()
        };
        assert_eq!(throttle("e1"), ">25 %</td>");
        assert_eq!(throttle("m1"), ">-</td>");
        assert!(page.contains(">2/8</td>"));
        assert!(STYLE.contains("--maint: light-dark(#c07820"));
    }

    #[test]
    fn times_are_in_the_two_biggest_units() {
        let text = |seconds| age(Duration::from_secs(seconds));
        assert_eq!(
            [0, 59, 312, 7260, 97_200].map(text),
            ["0s", "59s", "5m12s", "2h1m", "1d3h"]
        );
        assert_eq!(uptime_text(Duration::from_secs(90_061)), "1d 1h01m01s");
    }
}
