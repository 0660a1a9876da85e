//! The container `ha` and the containers behind it, on a Docker engine, with
//! load through the published port and every failure counted.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use super::support::{
    announce,
    client::{Answer, Client},
    docker::{self, Engine},
    eventually,
    load::{Failed, Load, Report, Site},
};

/// Requests before and after each step.
const BEFORE: u64 = 500;
const AFTER: u64 = 2_000;

/// Users at a time.
const USERS: usize = 16;

/// The example app, to which a delay of nothing is news, but no harm.
const WEBAPP: Site = Site {
    post: |client, _| client.post_to("/delay", "{\"delay\":0}"),
    server: |answer| answer.header("x-backend-ip").unwrap_or("?").to_owned(),
};

const THREE: [&str; 3] = ["s1", "s2", "s3"];
const FIVE: [&str; 5] = ["s1", "s2", "s3", "s4", "s5"];

/// What may fail in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    Nothing,
    /// POSTs that were inside the server that failed, or that waited for it.
    PostsInside,
    /// New connections while the load balancer itself is away.
    Connections,
}

#[derive(Debug)]
struct Row {
    step: &'static str,
    report: Report,
    /// From the command to the pool that follows from it.
    right_after: Duration,
}

#[test]
fn containers_come_and_go_and_no_get_is_lost() {
    let lab = match Engine::new() {
        Ok(lab) => lab,
        Err(why) => return announce(&format!("SKIPPED: the container tests, because {why}")),
    };
    alone(&lab);
    let mut rows = Vec::new();
    for name in THREE {
        lab.start_webapp(name);
    }
    until(&lab, &THREE, Instant::now());
    shown_by_name(&lab);
    rows.extend(scale(&lab));
    rows.extend([killed(&lab), restarted(&lab), paused(&lab)]);
    rows.push(unplugged(&lab));
    rows.extend([drained(&lab), balancer_restarted(&lab)]);
    rows.push(servers_first(&lab));
    announce(&format!("\n{}", table(&rows)));
}

/// `ha` alone: an empty pool, which it says to users and operators.
fn alone(lab: &Engine) {
    lab.start_ha();
    let page = eventually("the page is there", || {
        lab.desk
            .try_stats("/")
            .ok()
            .filter(|page| page.status == 200)
    });
    assert!(text(&page).contains("nodes"), "{}", text(&page));
    assert_eq!(lab.desk.servers(), []);
    let mut client = Client::connect(lab.http).unwrap();
    assert_eq!(client.get(&[]).unwrap().status, 503);
    eventually("the engine finds it healthy", || {
        docker::is_healthy("ha").then_some(())
    });
}

/// The page, the CSV and the cookie have the containers' names.
fn shown_by_name(lab: &Engine) {
    let page = text(&lab.desk.stats("/"));
    let csv = text(&lab.desk.stats("/;csv"));
    for name in THREE {
        assert!(page.contains(&format!(">{name}<")), "{name} on the page");
        assert!(csv.contains(&format!("\nnodes,{name},")), "{csv}");
    }
    let answer = Client::connect(lab.http).unwrap().get(&[]).unwrap();
    let cookie = answer.sticky_cookie().unwrap().to_owned();
    assert_eq!(cookie, format!("SERVERID={}", answer.server()));
}

fn scale(lab: &Engine) -> [Row; 2] {
    let up = under_load(lab, "three servers become five", Allowed::Nothing, || {
        let start = Instant::now();
        lab.start_webapp("s4");
        lab.start_webapp("s5");
        until(lab, &FIVE, start)
    });
    let down = under_load(lab, "three of five are stopped", Allowed::Nothing, || {
        docker::does("stop", "s3");
        docker::does("stop", "s4");
        let start = Instant::now();
        docker::does("stop", "s5");
        until(lab, &["s1", "s2"], start)
    });
    docker::does("start", "s3");
    until(lab, &THREE, Instant::now());
    docker::remove("s4");
    docker::remove("s5");
    [up, down]
}

fn killed(lab: &Engine) -> Row {
    under_load(lab, "docker kill", Allowed::PostsInside, || {
        let start = Instant::now();
        docker::does("kill", "s2");
        until(lab, &["s1", "s3"], start)
    })
}

fn restarted(lab: &Engine) -> Row {
    under_load(lab, "docker start of the killed", Allowed::Nothing, || {
        let start = Instant::now();
        docker::does("start", "s2");
        until(lab, &THREE, start)
    })
}

fn paused(lab: &Engine) -> Row {
    let row = under_load(lab, "docker pause", Allowed::PostsInside, || {
        let start = Instant::now();
        docker::does("pause", "s1");
        until(lab, &["s2", "s3"], start)
    });
    docker::does("unpause", "s1");
    until(lab, &THREE, Instant::now());
    row
}

fn unplugged(lab: &Engine) -> Row {
    let row = under_load(
        lab,
        "docker network disconnect",
        Allowed::PostsInside,
        || {
            let start = Instant::now();
            lab.cable("disconnect", "s3");
            until(lab, &["s1", "s2"], start)
        },
    );
    lab.cable("connect", "s3");
    until(lab, &THREE, Instant::now());
    row
}

fn drained(lab: &Engine) -> Row {
    let row = under_load(lab, "drain and ready by command", Allowed::Nothing, || {
        let start = Instant::now();
        docker::exec("ha", &["/tidings", "drain", "s2"]);
        let took = until(lab, &["s1", "s3"], start);
        docker::exec("ha", &["/tidings", "ready", "s2"]);
        until(lab, &THREE, Instant::now());
        took
    });
    assert_eq!(lab.desk.server("s2")["status"], "up");
    row
}

fn balancer_restarted(lab: &Engine) -> Row {
    let mut row = under_load(lab, "docker restart ha", Allowed::Connections, || {
        docker::does("restart", "ha");
        until(lab, &THREE, Instant::now())
    });
    // Of those who knock in vain there is one count and one duration.
    let knocked = row.report.failed.iter().map(|failed| failed.at);
    if let (Some(first), Some(last)) = (knocked.clone().min(), knocked.max()) {
        announce(&format!(
            "docker restart ha: took no connection for {} ms, {} were tried; no accepted request was lost",
            (last - first).as_millis(),
            row.report.failed.len()
        ));
    }
    row.report.failed.clear();
    row
}

/// Nobody has to wait for the load balancer in order to start.
fn servers_first(lab: &Engine) -> Row {
    for name in THREE.into_iter().chain(["ha"]) {
        docker::remove(name);
    }
    for name in THREE {
        lab.start_webapp(name);
    }
    lab.start_ha();
    let right_after = until(lab, &THREE, Instant::now());
    under_load(lab, "servers start before ha", Allowed::Nothing, || {
        right_after
    })
}

/// A step under load.
#[track_caller]
fn under_load(
    lab: &Engine,
    step: &'static str,
    allowed: Allowed,
    change: impl FnOnce() -> Duration,
) -> Row {
    let load = Load::on(WEBAPP, lab.http, USERS);
    load.go_on_for(BEFORE);
    let right_after = change();
    load.go_on_for(AFTER);
    let report = load.stop();
    let inside = |failed: &&Failed| allowed != Allowed::Connections || !failed.first;
    let (posts, gets): (Vec<_>, Vec<_>) = report
        .failed
        .iter()
        .filter(inside)
        .partition(|failed| failed.method == "POST");
    let posts_allowed = match allowed {
        Allowed::PostsInside => USERS,
        Allowed::Nothing | Allowed::Connections => 0,
    };
    let bearable = gets.is_empty() && posts.len() <= posts_allowed;
    assert!(bearable, "{step}: {gets:?} {posts:?}");
    Row {
        step,
        report,
        right_after,
    }
}

/// Waits until exactly these servers are up; the time since `start`.
#[track_caller]
fn until(lab: &Engine, names: &[&str], start: Instant) -> Duration {
    eventually(&format!("{names:?} are up"), || {
        let servers = lab.desk.try_stats("/v1/servers").ok()?;
        let servers = servers.json()["servers"].as_array()?.clone();
        let up = servers.iter().filter(|server| server["status"] == "up");
        let up: Vec<&str> = up.filter_map(|server| server["name"].as_str()).collect();
        (up == names).then(|| start.elapsed())
    })
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| step | requests | failed GET | failed POST | slowest | pool right after |\n\
         |---|---|---|---|---|---|\n",
    );
    for row in rows {
        let Row { step, report, .. } = row;
        let [gets, posts] = ["GET", "POST"].map(|method| report.failed(method).len());
        let (slowest, right) = (report.slowest.as_millis(), row.right_after.as_millis());
        let requests = report.requests;
        writeln!(
            table,
            "| {step} | {requests} | {gets} | {posts} | {slowest} ms | {right} ms |"
        )
        .unwrap();
    }
    table
}
