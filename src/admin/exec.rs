//! Carries commands out: what is wanted of a server is declared to every load
//! balancer, what concerns this one alone is told to its pool or its workers.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    Controls, Declare,
    answer::{Answer, Grade, Outcome},
    arguments::OUT_OF_RANGE,
    command::{Change, Clear, Command, Scope, Target, Weight},
    fleet, show,
};
use crate::{
    counters::Forget,
    membership::Wish,
    pool::{Input, Server, Snapshot},
    proxy::{Admission, Clearing, Which},
    stats::Source,
};

/// How long a command waits for the pool to show what it changed: it takes
/// milliseconds, and socat hangs up after half a second of silence.
const SHOWN: Duration = Duration::from_millis(400);

/// The largest weight.
const MOST_WEIGHT: u32 = 256;

/// How often it is looked whether a server can be removed. Its last request's
/// end makes no news.
const LOOK: Duration = Duration::from_millis(50);

/// Carries out a command that does not concern the connection itself.
pub async fn carry_out(command: Command, controls: &Controls) -> Outcome {
    match command {
        Command::Show(what) => show::show(&what, controls).await,
        Command::GetWeight(target) => weight(&target, &controls.source).map(Answer::info),
        Command::Set(target, change) => {
            set(&target, change, controls).await?;
            Ok(Answer::silent())
        }
        Command::Tell(target, what) => fleet::tell(&target, what, controls).await,
        Command::Add(target, server) => fleet::add(&target, server, controls).await,
        Command::Delete(target) => fleet::delete(&target, controls).await,
        Command::Wait(time, target) => wait(time, target.as_ref(), controls).await,
        Command::Clear(what) => clear(&what, controls).await,
        Command::EndSession(id) => match controls.workers.end(Which::Id(id)).await {
            0 => Err("No such session (use 'show sess').".to_owned()),
            _ => Ok(Answer::silent()),
        },
        Command::EndSessions(target) => {
            let server = find(&target, &controls.source)?;
            controls.workers.end(Which::Server(server.life)).await;
            Ok(Answer::silent())
        }
        Command::Frontend(accepts) => set_accepting(accepts, controls),
        Command::Maxconn(scope, most) => set_maxconn(scope, most, &controls.source.admission),
        Command::Known(answer) => Ok(answer),
        // The connection's own affairs, which it sees to.
        Command::Help(_)
        | Command::Prompt(_)
        | Command::Quit
        | Command::Severity(_)
        | Command::Lower(_)
        | Command::Timeout(_)
        | Command::Mode(..)
        | Command::ShowLevel => Ok(Answer::silent()),
    }
}

/// The share of the requests that a server gets, and the one it has by itself.
fn weight(target: &Target, source: &Source) -> Result<String, String> {
    let server = find(target, source)?;
    Ok(format!(
        "{} (initial {})",
        server.weight, server.initial_weight
    ))
}

/// Declares what is wanted of a server to every load balancer, and waits until
/// the pool here shows it, so that whoever looks next sees it.
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
    let known: Vec<&Arc<Server>> = wishes.iter().map(|(server, _)| server).collect();
    described_anew(&known, source).await;
    Ok(())
}

/// Waits for newer descriptions of all these servers.
pub(super) async fn described_anew(known: &[&Arc<Server>], source: &Source) {
    let is_news = |snapshot: &Snapshot, known: &Arc<Server>| {
        let now = snapshot.by_name(known.name.as_str());
        now.is_none_or(|now| !Arc::ptr_eq(now, known))
    };
    let all_are = |now: &Snapshot| known.iter().all(|known| is_news(now, known));
    // Not an error: it is on record, and takes effect when the pool gets to it.
    shown(all_are, source).await;
}

/// Waits until the pool shows something; says whether it did in time.
pub(super) async fn shown(seen: impl Fn(&Snapshot) -> bool, source: &Source) -> bool {
    let mut pool = source.pool.clone();
    let waiting = async {
        loop {
            let snapshot = pool.load();
            if seen(&snapshot) {
                return;
            }
            pool.newer_than(&snapshot).await;
        }
    };
    timeout(SHOWN, waiting).await.is_ok()
}

/// The server, if there is one.
pub(super) fn find(target: &Target, source: &Source) -> Result<Arc<Server>, String> {
    check_backend(target, source)?;
    let snapshot = source.pool.load();
    let server = snapshot.by_name(&target.server);
    server.cloned().ok_or_else(|| "No such server.".to_owned())
}

/// Checks that the backend is the one there is.
pub(super) fn check_backend(target: &Target, source: &Source) -> Result<(), String> {
    if target.backend == source.service.as_str() {
        return Ok(());
    }
    Err("No such backend.".to_owned())
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

/// Waits for a time, or until a server can be removed.
pub async fn wait(time: Duration, target: Option<&Target>, controls: &Controls) -> Outcome {
    let done = Answer::info("Done.");
    let Some(target) = target else {
        sleep(time).await;
        return Ok(done);
    };
    let give_up = Instant::now() + time;
    loop {
        let server = find(target, &controls.source).map_err(|why| format!("Failed. {why}"))?;
        let Err(why) = fleet::is_removable(&server) else {
            return Ok(done);
        };
        if why == fleet::ANNOUNCED {
            return Err(format!("Failed. {why}"));
        }
        let look_again = sleep(LOOK);
        if timeout_at(give_up, look_again).await.is_err() {
            return Err(format!("Wait delay expired. {why}"));
        }
    }
}

/// Has the workers forget what they counted, then forgets here what is shared
/// and what the pool counts, so that whoever looks next sees it.
async fn clear(what: &Clear, controls: &Controls) -> Outcome {
    let source = &*controls.source;
    let snapshot = source.pool.load();
    let (forget, only) = match what {
        Clear::Maxima => (Forget::Maxima, None),
        Clear::All => (Forget::Everything, None),
        Clear::Server(target) => (Forget::Everything, Some(find(target, source)?)),
    };
    let servers = match &only {
        Some(server) => std::slice::from_ref(server),
        None => &*snapshot.servers,
    };
    let clearing = Clearing {
        what: forget,
        servers: servers.iter().map(|s| Arc::clone(&s.live)).collect(),
        totals: only.is_none(),
    };
    if !controls.workers.clear(clearing).await {
        return Err("A worker does not answer; its counters may be cleared later.".to_owned());
    }
    for server in servers {
        server.live.counters.forget_shared(forget);
    }
    if only.is_none() {
        source.totals.forget_shared(forget);
    }
    if forget == Forget::Everything {
        let name = only.as_ref().map(|server| server.name.clone());
        controls.tell(Input::CountersCleared(name)).await?;
        shown(|now| now.generation > snapshot.generation, source).await;
    }
    Ok(match only {
        Some(_) => Answer::info("Server counters cleared."),
        None => Answer::silent(),
    })
}

/// The descriptors bound what can be asked for, as in `HAProxy`.
fn set_maxconn(scope: Scope, most: u32, admission: &Admission) -> Outcome {
    let suffices = match scope {
        Scope::Process => admission.set_of_process(most),
        Scope::Frontend => admission.set_of_frontend(most),
    };
    if suffices {
        Ok(Answer::silent())
    } else {
        Err(OUT_OF_RANGE.to_owned())
    }
}

fn set_accepting(accepts: bool, controls: &Controls) -> Outcome {
    if controls.workers.set_accepting(accepts) {
        return Ok(Answer::said(Grade::Notice, ""));
    }
    let already = if accepts { "enabled" } else { "disabled" };
    Err(format!("All sockets are already {already}."))
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

    #[tokio::test(start_paused = true)]
    async fn what_is_wanted_is_declared_once_in_the_pools_own_terms() {
        let declared = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&declared);
        let controls = Controls {
            declare: Box::new(move |service, server, wish| {
                seen.lock()
                    .unwrap()
                    .push(format!("{service}/{server} {wish:?}"));
                Ok(())
            }),
            ..Controls::over(fixture::source())
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
            declare: Box::new(|_, _, _| Err("Gossip has not started yet.".to_owned())),
            ..Controls::over(fixture::source())
        };
        let outcome = set(&target("s1"), Change::State(Admin::Maint), &controls).await;
        assert_eq!(outcome, Err("Gossip has not started yet.".to_owned()));
    }
}
