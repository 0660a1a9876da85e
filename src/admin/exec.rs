//! Carries commands out: looks at the snapshot and the rows of the statistics,
//! or declares what an operator wants.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    Controls, Declare,
    command::{Change, Rows, Selection, Show, Target, Weight},
    info, server_state,
};
use crate::{
    membership::Wish,
    pool::{Reader, Server},
    stats::{
        self, Source, StatRow, csv,
        view::{Kind, RowStatus},
    },
};

/// How long a command waits for the pool to show what it changed: it takes
/// milliseconds, and socat hangs up after half a second of silence.
const SHOWN: Duration = Duration::from_millis(400);

/// The largest weight.
const MOST_WEIGHT: u32 = 256;

/// Variables that hold secrets of our own; nobody gets to see them.
const SECRETS: [&str; 2] = ["TIDINGS_GOSSIP_KEY", "TIDINGS_STATS_AUTH"];

/// Shows something of the load balancer.
pub fn show(what: &Show, source: &Source) -> Result<String, String> {
    match what {
        Show::Info => Ok(info::render(source, Instant::now())),
        Show::Stat(rows) => stat(rows, source),
        Show::Servers(backend) => servers(backend.as_deref(), source),
        Show::Backends => Ok(format!("# name\n{}", source.service)),
        Show::Version => Ok(info::version(source)),
        Show::Env(variable) => env(variable.as_deref()),
    }
}

/// The share of the requests that a server gets, and the one it has by itself.
pub fn weight(target: &Target, source: &Source) -> Result<String, String> {
    let server = find(target, source)?;
    Ok(format!(
        "{} (initial {})",
        server.weight, server.initial_weight
    ))
}

/// Records what is wanted of a server, and waits until the pool shows it, so
/// that whoever looks next sees it.
pub async fn set(target: &Target, change: Change, controls: &Controls) -> Result<(), String> {
    let server = find(target, &controls.source)?;
    let wish = match change {
        Change::State(state) => Wish::State(state),
        Change::Weight(weight) => Wish::Weight(wanted_weight(weight, &server)),
    };
    declare(&controls.source, &controls.declare, &[(server, wish)]).await
}

/// Records what is wanted of servers, and waits until the pool shows it.
pub async fn declare(
    source: &Source,
    declare: &Declare,
    wishes: &[(Arc<Server>, Wish)],
) -> Result<(), String> {
    for (server, wish) in wishes {
        declare(&source.service, &server.name, *wish)?;
    }
    let shown = async {
        for (server, _) in wishes {
            described_anew(source.pool.clone(), server).await;
        }
    };
    // Not an error: it is on record, and takes effect when the pool gets to it.
    timeout(SHOWN, shown).await.ok();
    Ok(())
}

/// Waits for a newer description of the server than this one.
async fn described_anew(mut pool: Reader, known: &Arc<Server>) {
    loop {
        let snapshot = pool.load();
        let now = snapshot.by_name(known.name.as_str());
        if now.is_none_or(|now| !Arc::ptr_eq(now, known)) {
            return;
        }
        pool.newer_than(&snapshot).await;
    }
}

fn find(target: &Target, source: &Source) -> Result<Arc<Server>, String> {
    if target.backend != source.service.as_str() {
        return Err("No such backend.".to_owned());
    }
    let snapshot = source.pool.load();
    let server = snapshot.by_name(&target.server);
    server.cloned().ok_or_else(|| "No such server.".to_owned())
}

/// `None` is what the server has by itself, whatever that will be.
pub fn wanted_weight(weight: Weight, server: &Server) -> Option<u16> {
    match weight {
        Weight::Absolute(weight) => Some(weight),
        Weight::Percent(100) => None,
        Weight::Percent(percent) => {
            let weight = u32::from(server.initial_weight).saturating_mul(percent) / 100;
            Some(weight.min(MOST_WEIGHT) as u16)
        }
    }
}

fn stat(which: &Rows, source: &Source) -> Result<String, String> {
    let mut rows = stats::rows(source, Instant::now());
    if which.hide_down {
        rows.hide(RowStatus::is_out);
    } else if which.hide_maint {
        rows.hide(|status| status == RowStatus::Maint);
    }
    let mut out = csv::header();
    let Some(only) = &which.only else {
        rows.iter().for_each(|row| csv::line(row, &mut out));
        return Ok(out);
    };
    let proxy = proxy_id(only, &rows)?;
    let selected = rows.iter().filter(|row| selects(only, proxy, row));
    selected.for_each(|row| csv::line(row, &mut out));
    Ok(out)
}

/// The number of the proxy that is selected; `None` for every one.
fn proxy_id(only: &Selection, rows: &stats::Rows) -> Result<Option<i64>, String> {
    match only.proxy.parse() {
        Ok(-1) => Ok(None),
        Ok(id) => Ok(Some(id)),
        Err(_) => {
            let proxies = [&rows.frontend, &rows.backend];
            let named = proxies.into_iter().find(|row| row.proxy == only.proxy);
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

fn servers(backend: Option<&str>, source: &Source) -> Result<String, String> {
    if backend.is_some_and(|name| name != source.service.as_str()) {
        return Err("Can't find backend.".to_owned());
    }
    let rows = stats::rows(source, Instant::now());
    Ok(server_state::render(&rows))
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
    use std::sync::Mutex;

    use super::*;
    use crate::{membership::Admin, stats::fixture};

    fn target(server: &str) -> Target {
        Target {
            backend: "nodes".to_owned(),
            server: server.to_owned(),
        }
    }

    fn stat_of(rows: Rows) -> Vec<Vec<String>> {
        let csv = show(&Show::Stat(rows), &fixture::source()).unwrap();
        let lines = csv.lines().skip(1);
        lines
            .map(|line| line.split(',').map(str::to_owned).collect())
            .collect()
    }

    fn names(rows: Rows) -> Vec<String> {
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
        assert_eq!(names(only("-1", 1, -1)), ["FRONTEND"]);
        assert_eq!(names(only("nodes", 2, -1)), ["BACKEND"]);
        assert_eq!(names(only("4", 4, -1)).len(), 7);
        assert_eq!(names(only("nodes", -1, 3)).last().unwrap(), "BACKEND");
        let one = stat_of(only("nodes", 4, 3));
        assert_eq!(one.len(), 1);
        assert_eq!(one[0][28], "3");
        assert!(names(only("1", -1, -1)).is_empty());
        let unknown = show(&Show::Stat(only("web", -1, -1)), &fixture::source());
        assert_eq!(unknown, Err("No such proxy.".to_owned()));
    }

    #[test]
    fn what_is_down_can_be_left_out() {
        let rows = Rows {
            hide_down: true,
            ..Rows::default()
        };
        let status: Vec<String> = stat_of(rows)
            .into_iter()
            .map(|row| row[17].clone())
            .collect();
        assert!(status.iter().all(|status| !status.starts_with("DOWN")));
        assert_eq!(status.last().unwrap(), "UP (5/7)");
    }

    #[test]
    fn a_weight_is_shown_beside_the_initial_one() {
        let source = fixture::source();
        let weight = |server| weight(&target(server), &source);
        assert_eq!(weight("s1"), Ok("1 (initial 1)".to_owned()));
        assert_eq!(weight("s9"), Err("No such server.".to_owned()));
        let other = Target {
            backend: "web".to_owned(),
            ..target("s1")
        };
        assert_eq!(
            super::weight(&other, &source),
            Err("No such backend.".to_owned())
        );
    }

    #[test]
    fn secrets_of_ours_are_not_in_the_environment_that_is_shown() {
        assert!(env(None).unwrap().contains("PATH="));
        assert_eq!(
            env(Some("TIDINGS_GOSSIP_KEY")),
            Err("Variable not found".to_owned())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wanted_is_declared_once_in_the_pools_own_terms() {
        let declared = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&declared);
        let controls = Controls {
            source: fixture::source(),
            declare: Box::new(move |service, server, wish| {
                seen.lock()
                    .unwrap()
                    .push(format!("{service}/{server} {wish:?}"));
                Ok(())
            }),
        };
        let set = async |change| set(&target("s1"), change, &controls).await;
        set(Change::State(Admin::Drain)).await.unwrap();
        set(Change::Weight(Weight::Percent(5000))).await.unwrap();
        set(Change::Weight(Weight::Percent(100))).await.unwrap();
        assert_eq!(
            *declared.lock().unwrap(),
            [
                "nodes/s1 State(Drain)",
                "nodes/s1 Weight(Some(50))",
                "nodes/s1 Weight(None)"
            ]
        );
    }

    #[tokio::test]
    async fn what_cannot_be_declared_is_told() {
        let controls = Controls {
            source: fixture::source(),
            declare: Box::new(|_, _, _| Err("Gossip has not started yet.".to_owned())),
        };
        let outcome = set(&target("s1"), Change::State(Admin::Maint), &controls).await;
        assert_eq!(outcome, Err("Gossip has not started yet.".to_owned()));
    }
}
