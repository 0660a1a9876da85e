//! Looks at the snapshot, the rows of the statistics and the workers.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    Controls,
    answer::{Answer, Outcome},
    command::{Listing, Rows, Selection, Sessions, Show},
    exec::find,
    info, server_connections, server_state,
};
use crate::{
    pool::Timeline,
    proxy,
    stats::{
        self, Source, StatRow, csv, page, typed,
        view::{FRONTEND, Kind, RowStatus},
    },
};

/// Variables that hold secrets of our own; nobody gets to see them.
const SECRETS: [&str; 2] = ["TIDINGS_GOSSIP_KEY", "TIDINGS_STATS_AUTH"];

/// What keeps the events of servers, as `show events` names it.
const TIMELINE: &str = "timeline";

/// Shows something of the load balancer.
pub(super) async fn show(what: &Show, controls: &Controls) -> Outcome {
    let source = &*controls.source;
    let text = match what {
        Show::Info(format) => info::render(source, *format, Instant::now()),
        Show::Stat(rows) => stat(rows, source)?,
        Show::Servers(backend) => {
            check_backend(backend.as_deref(), source)?;
            server_state::render(&stats::rows(source, Instant::now()))
        }
        Show::Connections(backend) => {
            check_backend(backend.as_deref(), source)?;
            server_connections::render(&stats::rows(source, Instant::now()), source.process.workers)
        }
        Show::Backends => format!("# name\n{}", source.service),
        Show::Sessions(which) => sessions(which, controls).await?,
        Show::Errors(proxy) => errors(proxy.as_deref(), source)?,
        Show::Events(sink) => events(sink.as_deref(), source.pool.timeline())?,
        Show::Version => return Ok(Answer::info(info::version(source))),
        Show::Env(variable) => env(variable.as_deref())?,
    };
    Ok(Answer::table(text))
}

fn stat(which: &Rows, source: &Source) -> Result<String, String> {
    let mut rows = stats::rows(source, Instant::now());
    if which.hide_down {
        rows.hide(RowStatus::is_out);
    } else if which.hide_maint {
        rows.hide(|status| status == RowStatus::Maint);
    }
    let proxy = match &which.only {
        Some(only) => proxy_id(&only.proxy, &rows)?,
        None => None,
    };
    let is_meant = |row: &&StatRow| {
        let only = which.only.as_ref();
        only.is_none_or(|only| selects(only, proxy, row))
    };
    let selected = rows.iter().filter(is_meant);
    Ok(match which.format.listing {
        Listing::Typed => typed::lines(selected, which.format.described),
        Listing::Json => typed::json(selected),
        Listing::Plain => {
            let mut out = csv::header();
            selected.for_each(|row| csv::line(row, &mut out));
            out
        }
    })
}

/// The number of the proxy that is selected; `None` for every one.
fn proxy_id(given: &str, rows: &stats::Rows) -> Result<Option<i64>, String> {
    match given.parse() {
        Ok(-1) => Ok(None),
        Ok(id) => Ok(Some(id)),
        Err(_) => {
            let proxies = [&rows.frontend, &rows.backend];
            let named = proxies.into_iter().find(|row| row.proxy == given);
            let id = named.map(|row| Some(row.proxy_id.into()));
            id.ok_or_else(|| "No such proxy.".to_owned())
        }
    }
}

fn selects(only: &Selection, proxy: Option<i64>, row: &StatRow) -> bool {
    let of_proxy = proxy.is_none_or(|id| id == i64::from(row.proxy_id));
    let of_kind = only.kinds & (1 << row.kind as u32) != 0;
    // Its number tells servers apart, and nothing else.
    let any_number = row.kind != Kind::Server || only.server == -1;
    of_proxy && of_kind && (any_number || only.server == i64::from(row.server_id))
}

fn check_backend(backend: Option<&str>, source: &Source) -> Result<(), String> {
    match backend {
        Some(name) if name != source.service.as_str() => Err("Can't find backend.".to_owned()),
        _ => Ok(()),
    }
}

/// A line for each request under way.
async fn sessions(which: &Sessions, controls: &Controls) -> Result<String, String> {
    let source = &*controls.source;
    let now = Instant::now();
    let life = match which {
        Sessions::Of(target) => Some(find(target, source)?.life),
        _ => None,
    };
    let is_meant = |session: &proxy::Session| match which {
        Sessions::All => true,
        Sessions::Id(id) => session.id == *id,
        Sessions::Older(age) => age_of(session, now) >= *age,
        Sessions::Of(_) => session.server == life,
    };
    let all = controls.workers.sessions().await;
    let meant: Vec<&proxy::Session> = all.iter().filter(|session| is_meant(session)).collect();
    if meant.is_empty() && matches!(which, Sessions::Id(_)) {
        return Ok("Session not found.".to_owned());
    }
    let snapshot = source.pool.load();
    let line = |session: &proxy::Session| {
        let servers = snapshot.servers.iter();
        let server = session.server.map(|life| {
            let mut found = servers.filter(|server| server.life == life);
            // It may have left, and is about to lose its last session.
            found.next().map_or("<gone>", |server| server.name.as_str())
        });
        let family = if session.peer.is_ipv4() {
            "tcpv4"
        } else {
            "tcpv6"
        };
        format!(
            "0x{:x}: proto={family} src={} fe={FRONTEND} be={} srv={} age={}\n",
            session.id,
            session.peer,
            source.service,
            server.unwrap_or("<none>"),
            page::age(age_of(session, now)),
        )
    };
    Ok(meant.into_iter().map(line).collect())
}

fn age_of(session: &proxy::Session, now: Instant) -> Duration {
    now.saturating_duration_since(session.since)
}

/// Malformed messages are counted and logged, and none is kept.
fn errors(proxy: Option<&str>, source: &Source) -> Result<String, String> {
    if let Some(proxy) = proxy {
        let rows = stats::rows(source, Instant::now());
        let id = proxy_id(proxy, &rows)?;
        let there = [&rows.frontend, &rows.backend];
        if id.is_some_and(|id| there.iter().all(|row| i64::from(row.proxy_id) != id)) {
            return Err("No such proxy.".to_owned());
        }
    }
    let now = haproxy_date(OffsetDateTime::from(SystemTime::now()));
    Ok(format!("Total events captured on [{now}] : 0"))
}

/// A time as `HAProxy` has it in logs.
fn haproxy_date(at: OffsetDateTime) -> String {
    let month = at.month().to_string();
    let month = month.get(..3).unwrap_or_default();
    format!(
        "{:02}/{month}/{:04}:{:02}:{:02}:{:02}.{:03}",
        at.day(),
        at.year(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    )
}

fn events(sink: Option<&str>, timeline: &Timeline) -> Result<String, String> {
    match sink {
        None => Ok(format!(
            "Supported events sinks are listed below.\n    \
             {TIMELINE:<11}: type=buffer, what happened to servers lately"
        )),
        Some(TIMELINE) => {
            let entries = timeline.since(0);
            let line = |entry: &crate::pool::timeline::Entry| {
                let at = haproxy_date(OffsetDateTime::from(entry.at));
                format!("[{at}] Server {}\n", entry.event)
            };
            Ok(entries.iter().map(line).collect())
        }
        Some(_) => Err("No such event sink".to_owned()),
    }
}

fn env(variable: Option<&str>) -> Result<String, String> {
    let shown = |name: &str| {
        let secret = SECRETS.contains(&name);
        !secret && variable.is_none_or(|wanted| wanted == name)
    };
    let lines: Vec<String> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, _)| shown(name))
        // An empty line would end the output.
        .map(|(name, value)| format!("{name}={}", value.to_string_lossy().replace('\n', " ")))
        .collect();
    if variable.is_some() && lines.is_empty() {
        return Err("Variable not found".to_owned());
    }
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin::command::Format, stats::fixture};

    async fn shown(what: Show) -> Result<String, String> {
        let controls = Controls::over(fixture::source());
        show(&what, &controls).await.map(|answer| answer.text)
    }

    fn stat_of(rows: &Rows) -> Vec<Vec<String>> {
        let csv = stat(rows, &fixture::source()).unwrap();
        let lines = csv.lines().skip(1);
        lines
            .map(|line| line.split(',').map(str::to_owned).collect())
            .collect()
    }

    fn names(rows: &Rows) -> Vec<String> {
        let names = stat_of(rows).into_iter();
        names.map(|row| row[1].clone()).collect()
    }

    fn only(proxy: &str, kinds: i64, server: i64) -> Rows {
        let proxy = proxy.to_owned();
        Rows {
            only: Some(Selection {
                proxy,
                kinds,
                server,
            }),
            ..Rows::default()
        }
    }

    #[test]
    fn rows_are_selected_by_proxy_kind_and_number() {
        assert_eq!(names(&only("-1", 1, -1)), ["FRONTEND"]);
        assert_eq!(names(&only("nodes", 2, -1)), ["BACKEND"]);
        assert_eq!(names(&only("4", 4, -1)).len(), 7);
        assert_eq!(names(&only("nodes", -1, 3)).last().unwrap(), "BACKEND");
        let one = stat_of(&only("nodes", 4, 3));
        assert_eq!(one.len(), 1);
        assert_eq!(one[0][28], "3");
        assert!(names(&only("1", -1, -1)).is_empty());
        let unknown = stat(&only("web", -1, -1), &fixture::source());
        assert_eq!(unknown, Err("No such proxy.".to_owned()));
    }

    #[test]
    fn what_is_down_can_be_left_out() {
        let rows = Rows {
            hide_down: true,
            ..Rows::default()
        };
        let status: Vec<String> = stat_of(&rows)
            .into_iter()
            .map(|row| row[17].clone())
            .collect();
        assert!(status.iter().all(|status| !status.starts_with("DOWN")));
        assert_eq!(status.last().unwrap(), "UP (5/7)");
    }

    #[test]
    fn a_selection_is_kept_in_every_form() {
        let typed = Rows {
            format: Format {
                listing: Listing::Typed,
                described: false,
            },
            ..only("nodes", 4, 3)
        };
        let lines = stat(&typed, &fixture::source()).unwrap();
        assert!(lines.lines().all(|line| line.starts_with("S.4.3.")));
    }

    #[tokio::test]
    async fn what_is_not_there_is_said_in_haproxys_words() {
        let of = |proxy: &str| Show::Errors(Some(proxy.to_owned()));
        let none = shown(Show::Errors(None)).await.unwrap();
        assert!(none.starts_with("Total events captured on ["), "{none}");
        assert!(none.ends_with("] : 0"), "{none}");
        assert_eq!(shown(of("web")).await.unwrap_err(), "No such proxy.");
        assert_eq!(shown(of("9")).await.unwrap_err(), "No such proxy.");
        assert!(shown(of("localnodes")).await.is_ok());
        let id = Show::Sessions(Sessions::Id(7));
        assert_eq!(shown(id).await.unwrap(), "Session not found.");
        assert_eq!(shown(Show::Sessions(Sessions::All)).await.unwrap(), "");
        let sink = Show::Events(Some("web".to_owned()));
        assert_eq!(shown(sink).await.unwrap_err(), "No such event sink");
    }

    #[test]
    fn secrets_of_ours_are_not_in_the_environment_that_is_shown() {
        assert!(env(None).unwrap().contains("PATH="));
        assert_eq!(
            env(Some("TIDINGS_GOSSIP_KEY")),
            Err("Variable not found".to_owned())
        );
    }
}
