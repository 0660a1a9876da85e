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
    /// From the first command to the pool that follows from it.
    right_after: Duration,
    /// The load balancer itself was away meanwhile.
    turned_away: bool,
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
    rows.extend(drained(&lab));
    rows.push(balancer_restarted(&lab));
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
    let up = step(
        lab,
        "three servers become five",
        Allowed::Nothing,
        &FIVE,
        || {
            lab.start_webapp("s4");
            lab.start_webapp("s5");
        },
    );
    let two = ["s1", "s2"];
    let down = step(
        lab,
        "three of five are stopped",
        Allowed::Nothing,
        &two,
        || {
            for name in ["s3", "s4", "s5"] {
                docker::does("stop", name);
            }
        },
    );
    docker::does("start", "s3");
    until(lab, &THREE, Instant::now());
    docker::remove("s4");
    docker::remove("s5");
    [up, down]
}

fn killed(lab: &Engine) -> Row {
    let left = ["s1", "s3"];
    step(lab, "docker kill", Allowed::PostsInside, &left, || {
        docker::does("kill", "s2");
    })
}

fn restarted(lab: &Engine) -> Row {
    let name = "docker start of the killed";
    step(lab, name, Allowed::Nothing, &THREE, || {
        docker::does("start", "s2");
    })
}

fn paused(lab: &Engine) -> Row {
    let left = ["s2", "s3"];
    let row = step(lab, "docker pause", Allowed::PostsInside, &left, || {
        docker::does("pause", "s1");
    });
    docker::does("unpause", "s1");
    until(lab, &THREE, Instant::now());
    row
}

fn unplugged(lab: &Engine) -> Row {
    let (name, left) = ("docker network disconnect", ["s1", "s2"]);
    let row = step(lab, name, Allowed::PostsInside, &left, || {
        lab.cable("disconnect", "s3");
    });
    lab.cable("connect", "s3");
    until(lab, &THREE, Instant::now());
    row
}

fn drained(lab: &Engine) -> [Row; 2] {
    let left = ["s1", "s3"];
    let drained = step(lab, "drain by command", Allowed::Nothing, &left, || {
        docker::exec("ha", &["/tidings", "drain", "s2"]);
    });
    let ready = step(lab, "ready by command", Allowed::Nothing, &THREE, || {
        docker::exec("ha", &["/tidings", "ready", "s2"]);
    });
    [drained, ready]
}

fn balancer_restarted(lab: &Engine) -> Row {
    let name = "docker restart ha";
    step(lab, name, Allowed::Connections, &THREE, || {
        docker::does("restart", "ha");
    })
}

/// Nobody has to wait for the load balancer in order to start.
fn servers_first(lab: &Engine) -> Row {
    for name in THREE.into_iter().chain(["ha"]) {
        docker::remove(name);
    }
    for name in THREE {
        lab.start_webapp(name);
    }
    let started = Instant::now();
    lab.start_ha();
    let right_after = until(lab, &THREE, started);
    let name = "servers start before ha";
    let row = step(lab, name, Allowed::Nothing, &THREE, || {});
    Row { right_after, ..row }
}

/// A step under load: commands, and the servers that are up in the end.
#[track_caller]
fn step(
    lab: &Engine,
    step: &'static str,
    allowed: Allowed,
    then: &[&str],
    commands: impl FnOnce(),
) -> Row {
    let load = Load::on(WEBAPP, lab.http, USERS);
    load.go_on_for(BEFORE);
    let start = Instant::now();
    commands();
    let right_after = until(lab, then, start);
    load.go_on_for(AFTER);
    let report = load.stop();
    let row = Row {
        step,
        report,
        right_after,
        // Nobody else is ever too busy to take a connection.
        turned_away: allowed == Allowed::Connections,
    };
    let most_posts = match allowed {
        Allowed::PostsInside => USERS,
        Allowed::Nothing | Allowed::Connections => 0,
    };
    let bearable = row.failed("GET") == 0 && row.failed("POST") <= most_posts;
    assert!(bearable, "{step}: {:?}", row.report.failed);
    row
}

impl Row {
    /// Requests of a method that failed, but for those that came while nobody
    /// took connections.
    fn failed(&self, method: &str) -> usize {
        let failed = self.report.failed(method).into_iter();
        failed.filter(|failed| !self.is_turned_away(failed)).count()
    }

    fn is_turned_away(&self, failed: &Failed) -> bool {
        self.turned_away && failed.first
    }

    /// Of those that came while nobody took connections how many there were,
    /// and from the first to the last of them.
    fn away(&self) -> String {
        let failed = self.report.failed.iter();
        let failed = failed.filter(|failed| self.is_turned_away(failed));
        let times = failed.map(|failed| failed.at);
        match (times.clone().min(), times.clone().max()) {
            (Some(first), Some(last)) => {
                let away = (last - first).as_millis();
                format!("{} in {away} ms", times.count())
            }
            _ => "0".to_owned(),
        }
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
        "| step | requests | failed GET | failed POST | connections not taken | slowest | pool right after |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let Row { step, report, .. } = row;
        let [gets, posts] = ["GET", "POST"].map(|method| row.failed(method));
        let (slowest, right) = (report.slowest.as_millis(), row.right_after.as_millis());
        let (requests, away) = (report.requests, row.away());
        writeln!(
            table,
            "| {step} | {requests} | {gets} | {posts} | {away} | {slowest} ms | {right} ms |"
        )
        .unwrap();
    }
    table
}
