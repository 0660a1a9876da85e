//! The page for people: `HAProxy`'s look and words, one self-contained HTML
//! document that needs no script.

mod members;
mod table;
mod timeline;

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use tokio::time::Instant;

use super::{
    source::Source,
    view::{FRONTEND, RowStatus, Rows, StatRow},
};

const STYLE: &str = include_str!("../../../web-stats/style.css");

/// How often the page loads itself again, in seconds.
pub const REFRESH: &str = "5";

/// What the request's address asks of the page.
///
/// `HAProxy` finds these words anywhere in the address and in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// `;up`: leave out servers that are down or in maintenance.
    pub up: bool,
    /// `;no-maint`: leave out servers that are in maintenance.
    pub no_maint: bool,
    /// `;norefresh`: do not load the page again.
    pub norefresh: bool,
}

impl Options {
    /// Finds the words in an address.
    pub fn of(uri: &str) -> Self {
        Self {
            up: uri.contains(";up"),
            no_maint: uri.contains(";no-maint"),
            norefresh: uri.contains(";norefresh"),
        }
    }

    /// Whether any server may be left out.
    pub fn hides_any(self) -> bool {
        self.up || self.no_maint
    }

    /// Whether servers in that status are left out.
    pub fn hides(self, status: RowStatus) -> bool {
        self.up && status.is_out() || self.no_maint && status == RowStatus::Maint
    }

    fn link(self) -> String {
        let words = [
            (self.up, ";up"),
            (self.no_maint, ";no-maint"),
            (self.norefresh, ";norefresh"),
        ];
        let asked = words.iter().filter(|(asked, _)| *asked);
        let asked = asked.map(|(_, word)| *word);
        std::iter::once("/").chain(asked).collect()
    }
}

/// The whole page.
pub fn render(source: &Source, rows: &Rows, options: Options, now: Instant) -> String {
    let service = source.service.as_str();
    let cookie = source.cookie.as_deref();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Statistics Report for Tidings on " (source.process.node) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Tidings version " (source.process.version) }
                h2 {
                    "Statistics Report for pid " (source.process.pid)
                    " on " (source.process.node)
                }
                (warnings(source, rows))
                div.top {
                    (process(source, &rows.frontend, now))
                    (legend())
                    (links(options))
                }
                (table::proxy(FRONTEND, "what clients connect to", [&rows.frontend].into_iter()))
                (table::proxy(
                    service,
                    &format!(
                        "balance {}, {}",
                        source.balance,
                        cookie.map_or("no cookie".into(), |name| format!("cookie {name}")),
                    ),
                    rows.servers.iter().chain([&rows.backend]),
                ))
                (timeline::list(source.pool.timeline()))
                (members::table(&(source.members)(), now))
            }
        }
    }
    .into_string()
}

fn warnings(source: &Source, rows: &Rows) -> Markup {
    html! {
        @if source.is_draining() {
            p.warning role="alert" {
                strong { "Stopping: " }
                "no new connections are accepted, and what is under way is finished."
            }
        }
        @if let Some(warning) = rows.footing.warning() {
            p.warning role="alert" { strong { "Attention: " } (warning) }
        }
        @if !source.gossip_keyed {
            p.warning role="alert" {
                strong { "Gossip is not protected: " }
                "without a key, anyone who reaches the gossip port can add servers. "
                "Make a key with " code { "tidings keygen" }
                " and give it to every node as " code { "TIDINGS_GOSSIP_KEY" } "."
            }
        }
    }
}

fn process(source: &Source, frontend: &StatRow, now: Instant) -> Markup {
    let process = &source.process;
    let uptime = now.saturating_duration_since(process.started);
    let listening: Vec<String> = process.http.iter().map(ToString::to_string).collect();
    html! {
        section {
            h3 { "> General process information" }
            ul.facts {
                li {
                    b { "pid = " } (process.pid)
                    " (process #1, nbproc = 1, nbthread = " (process.workers) ")"
                }
                li { b { "uptime = " } (uptime_text(uptime)) }
                li { b { "listening on " } (listening.join(", ")) }
                li {
                    b { "maxconn = " }
                    @match frontend.sessions_limit {
                        Some(limit) => (limit),
                        None => "unlimited",
                    }
                    "; current conns = " (frontend.sessions.now)
                    "; conn rate = " (frontend.session_rate.now) "/sec"
                    @if let Some(rate) = frontend.request_rate {
                        "; request rate = " (rate.now) "/sec"
                    }
                }
                li { b { "dropped logs = " } (source.log_lines_dropped.get()) }
            }
        }
    }
}

fn legend() -> Markup {
    let entries = [
        ("active_up", "UP"),
        ("active_going_down", "UP, going down or suspected"),
        ("active_going_up", "DOWN, going up"),
        ("active_down", "DOWN"),
        ("maintain", "MAINT: taken out by an operator"),
        (
            "active_draining",
            "DRAIN: keeps its users, takes no new ones",
        ),
        ("active_no_check", "not checked"),
    ];
    html! {
        section {
            h3 { "> Colours" }
            ul.legend {
                @for (class, words) in entries {
                    li { span class=(format!("swatch {class}")) {} (words) }
                }
            }
        }
    }
}

fn links(options: Options) -> Markup {
    let up = Options {
        up: !options.up,
        ..options
    };
    let maint = Options {
        no_maint: !options.no_maint,
        ..options
    };
    let refresh = Options {
        norefresh: !options.norefresh,
        ..options
    };
    html! {
        nav {
            h3 { "> Display option" }
            ul {
                li {
                    a href=(up.link()) {
                        @if options.up { "Show all servers" } @else { "Hide 'DOWN' servers" }
                    }
                }
                li {
                    a href=(maint.link()) {
                        @if options.no_maint { "Show 'MAINT' servers" } @else { "Hide 'MAINT' servers" }
                    }
                }
                li {
                    a href=(refresh.link()) {
                        @if options.norefresh { "Enable refresh" } @else { "Disable refresh" }
                    }
                }
                li { a href=(options.link()) { "Refresh now" } }
                li { a href="/;csv;norefresh" { "CSV export" } }
                li { a href="/metrics" { "Prometheus metrics" } }
                li {
                    "JSON: " a href="/v1/servers" { "servers" }
                    ", " a href="/v1/members" { "members" }
                    ", " a href="/v1/events" { "events" }
                }
            }
        }
    }
}

/// `HAProxy`'s way to print an uptime, which monitoring agents look for.
pub(crate) fn uptime_text(uptime: Duration) -> String {
    let seconds = uptime.as_secs();
    format!(
        "{}d {}h{:02}m{:02}s",
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60
    )
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
    use super::*;
    use crate::stats::{fixture, rows};

    fn page(source: &Source) -> String {
        let now = Instant::now();
        render(source, &rows(source, now), Options::default(), now)
    }

    #[test]
    fn a_tag_cannot_put_anything_into_the_page() {
        let page = page(&fixture::source());
        assert!(!page.contains("<script"));
        assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)"));
    }

    #[test]
    fn every_row_has_its_colour_and_its_anchor() {
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
            let row = format!("<tr class=\"{class}\"><th class=\"ac\" scope=\"row\" id=\"{name}\"");
            assert!(page.contains(&row), "{row}");
        }
    }

    #[test]
    fn every_row_is_as_wide_as_the_head() {
        let page = page(&fixture::source());
        let columns: usize = table::HEAD.iter().map(|(_, columns)| columns.len()).sum();
        assert_eq!(columns, 30);
        let rows = page
            .split("<tr class=")
            .filter(|row| row.contains("id=\"nodes/"));
        for row in rows {
            let row = row.split("</tr>").next().unwrap();
            assert_eq!(row.matches("<td").count(), columns, "{row}");
        }
    }

    #[test]
    fn an_empty_pool_and_open_gossip_are_said_loudly() {
        let mut source = fixture::empty();
        let loud = page(&source);
        assert!(loud.contains("There are no servers: every request gets a 503."));
        assert!(loud.contains("Gossip is not protected"));
        source.gossip_keyed = true;
        assert!(!page(&source).contains("Gossip is not protected"));
    }

    #[test]
    fn large_numbers_are_copied_as_they_are_shown() {
        let page = page(&fixture::source());
        let grouped = "1<span class=\"group\">234</span><span class=\"group\">567</span>";
        assert!(page.contains(grouped));
    }

    #[test]
    fn the_words_are_found_anywhere_in_an_address() {
        let up = Options {
            up: true,
            ..Options::default()
        };
        assert_eq!(Options::of("/"), Options::default());
        assert_eq!(Options::of("/haproxy?stats;up"), up);
        assert_eq!(up.link(), "/;up");
        let all = Options::of("/;norefresh;no-maint;up");
        assert_eq!(all.link(), "/;up;no-maint;norefresh");
        assert_eq!(Options::of(&all.link()), all);
    }

    #[test]
    fn hiding_what_is_down_hides_maintenance_and_not_the_other_way_round() {
        let (up, no_maint) = (Options::of("/;up"), Options::of("/;no-maint"));
        let hidden = |options: Options| {
            let statuses = [
                RowStatus::Up,
                RowStatus::Drain,
                RowStatus::Down,
                RowStatus::Maint,
            ];
            statuses.map(|status| options.hides(status))
        };
        assert_eq!(hidden(up), [false, false, true, true]);
        assert_eq!(hidden(no_maint), [false, false, false, true]);
        assert!(!Options::default().hides_any());
    }

    #[test]
    fn maintenance_has_its_colour_and_easing_in_its_percentage() {
        let page = page(&fixture::tended());
        assert!(page.contains("<span class=\"swatch maintain\"></span>MAINT"));
        assert!(
            page.contains("<tr class=\"maintain\"><th class=\"ac\" scope=\"row\" id=\"nodes/m1\"")
        );
        let throttle = |server: &str| {
            let row = page
                .split(&format!("id=\"nodes/{server}\""))
                .nth(1)
                .unwrap();
            let row = row.split("</tr>").next().unwrap();
            row.rsplit("<td>").next().unwrap().to_owned()
        };
        assert_eq!(throttle("e1"), "25 %</td>");
        assert_eq!(throttle("m1"), "-</td>");
        assert!(page.contains(">2/8</td>"));
        assert!(STYLE.contains("--maint: #c07820"));
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
