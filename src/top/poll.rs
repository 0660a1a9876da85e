//! Asks the load balancer, again and again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::anyhow;
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, mpsc},
    time::{MissedTickBehavior, interval},
};

use super::{
    Input,
    answer::{self, Answers, Events, Life, Members, Servers},
};
use crate::cli::desk::Desk;

/// Asks every so often, and at once when woken. `newest` is the number of the
/// last event that is known already.
pub(super) async fn run(
    desk: Desk,
    every: Duration,
    newest: Arc<AtomicU64>,
    wake: Arc<Notify>,
    answers: mpsc::Sender<Input>,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut life = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = wake.notified() => {}
        }
        let answer = ask(&desk, newest.load(Relaxed), &mut life).await;
        let input = match answer {
            Ok(answers) => Input::Answers(Box::new(answers)),
            Err(err) => Input::Silence(format!("{err:#}")),
        };
        if answers.send(input).await.is_err() {
            return;
        }
    }
}

/// All answers of one moment. A load balancer that was started again numbers
/// its events anew.
async fn ask(desk: &Desk, newest: u64, life: &mut Option<Life>) -> anyhow::Result<Answers> {
    let balancer: answer::Balancer = get(desk, "/v1/balancer").await?;
    let is_same = life.replace(balancer.life) == Some(balancer.life);
    let after = if is_same { newest } else { 0 };
    let Events { events } = get(desk, &format!("/v1/events?after={after}")).await?;
    let Servers { servers } = get(desk, "/v1/servers").await?;
    let Members { members } = get(desk, "/v1/members").await?;
    Ok(Answers {
        balancer,
        servers,
        members,
        events,
    })
}

async fn get<T: DeserializeOwned>(desk: &Desk, path: &str) -> anyhow::Result<T> {
    let answer = desk.get(path).await?;
    answer::read(&answer).map_err(|_| {
        let at = &desk.stats;
        anyhow!("what answers at {at} is no load balancer; give its address with --stats")
    })
}
