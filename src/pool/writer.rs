//! The single task that owns the pool's state: takes inputs, publishes
//! snapshots, reports events.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};

use super::{
    Reader,
    server::CheckReport,
    standing::Standing,
    state::{Event, Input, State},
    timeline::Timeline,
    words::{Gravity, Words},
};
use crate::syslog::{STATE, STATE_ALERT, STATE_EMERGENCY};

/// Inputs that come within this time share one snapshot: a hundred agents
/// that start together cost a few rebuilds, not a hundred.
const COALESCE: Duration = Duration::from_millis(2);

/// So much longer for each server: whoever builds or follows a snapshot takes
/// time by the server, and a pool of any size shall cost the same at the most.
const COALESCE_A_SERVER: Duration = Duration::from_micros(1);

/// How many inputs may wait. Gossip sends one per member and change, probes
/// and traffic one per server; whoever finds the queue full waits or reports
/// the same fault again later, so nothing is lost.
const QUEUE: usize = 4096;

/// The pool's writer before it runs.
#[derive(Debug)]
pub struct Writer {
    state: State,
    words: Words,
    standing: Standing,
    inputs: mpsc::Receiver<Input>,
    snapshot: Arc<ArcSwap<super::Snapshot>>,
    generation: watch::Sender<u64>,
    timeline: Arc<Timeline>,
}

impl Writer {
    /// A writer for `state`, the senders that feed it and the readers' end.
    /// The first snapshot is there at once.
    pub fn new(service: String, mut state: State) -> (Self, mpsc::Sender<Input>, Reader) {
        let (sender, inputs) = mpsc::channel(QUEUE);
        let mut first = state.snapshot();
        let words = Words::new(service, &first);
        let standing = Standing::new(first.can_serve(), Instant::now());
        first.standing = Some(standing);
        let (generation, seen) = watch::channel(first.generation);
        let snapshot = Arc::new(ArcSwap::from_pointee(first));
        let timeline = Arc::<Timeline>::default();
        let reader = Reader {
            snapshot: Arc::clone(&snapshot),
            generation: seen,
            timeline: Arc::clone(&timeline),
        };
        let writer = Self {
            state,
            words,
            standing,
            inputs,
            snapshot,
            generation,
            timeline,
        };
        (writer, sender, reader)
    }

    /// Runs until every sender is gone.
    pub async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            let deadline = self.state.next_deadline(Instant::now());
            tokio::select! {
                received = self.inputs.recv_many(&mut batch, QUEUE) => {
                    if received == 0 {
                        return;
                    }
                    self.take(&mut batch);
                    self.publish();
                    sleep_until(Instant::now() + self.pause()).await;
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    let events = self.state.tick(Instant::now());
                    self.report(events, None);
                    self.publish();
                    // Servers that came together warm up together.
                    sleep_until(Instant::now() + self.pause()).await;
                }
            }
        }
    }

    /// How long inputs are gathered before the next snapshot.
    fn pause(&self) -> Duration {
        COALESCE + COALESCE_A_SERVER * self.snapshot.load().servers.len() as u32
    }

    fn take(&mut self, batch: &mut Vec<Input>) {
        let now = Instant::now();
        for input in batch.drain(..) {
            let check = match &input {
                Input::Probed(_, check) => Some(check.clone()),
                _ => None,
            };
            if matches!(input, Input::CountersCleared(None)) {
                self.standing = self.standing.cleared();
            }
            let events = self.state.apply(input, now);
            self.report(events, check.as_ref());
        }
    }

    fn publish(&mut self) {
        let mut snapshot = self.state.snapshot();
        self.standing = self.standing.then(snapshot.can_serve(), Instant::now());
        snapshot.standing = Some(self.standing);
        let generation = snapshot.generation;
        self.snapshot.store(Arc::new(snapshot));
        // After the store: whoever hears of it finds it.
        self.generation.send_replace(generation);
    }

    fn report(&mut self, events: Vec<Event>, check: Option<&CheckReport>) {
        for event in events {
            let roll = self.state.roll(&event.server);
            for (gravity, line) in self.words.tell(&event, check, roll) {
                match gravity {
                    Gravity::Notice => info!(target: STATE, "{line}"),
                    Gravity::Warning => warn!(target: STATE, "{line}"),
                    Gravity::Alert => warn!(target: STATE_ALERT, "{line}"),
                    Gravity::Emergency => error!(target: STATE_EMERGENCY, "{line}"),
                }
            }
            self.timeline.add(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        membership::{Admin, Intent, MemberEvent, Name, Version, Wish},
        pool::state::StaticServer,
    };

    const SERVERS: usize = 1000;

    fn name(number: usize) -> Name {
        format!("s{number}").parse().unwrap()
    }

    fn drain(number: usize) -> Input {
        let writer = "127.0.0.1:1".parse().unwrap();
        Input::Member(MemberEvent::Wanted(Intent {
            service: "nodes".parse().unwrap(),
            server: name(number),
            wish: Wish::State(Admin::Drain),
            version: Version { clock: 1, writer },
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_there_at_once_and_a_burst_costs_few_snapshots() {
        let servers = (0..SERVERS).map(|number| StaticServer {
            name: name(number),
            target: "127.0.0.1:80".to_owned(),
            weight: 1,
            check: None,
            tags: std::collections::BTreeMap::new(),
        });
        let service = "nodes".parse().unwrap();
        let state = State::new(service, servers.collect(), Instant::now());
        let (writer, inputs, mut reader) = Writer::new("nodes".into(), state);
        let running = tokio::spawn(writer.run());
        let first = reader.load();
        let began = Instant::now();

        inputs.send(drain(0)).await.unwrap();
        reader.newer_than(&first).await;
        assert_eq!(began.elapsed(), Duration::ZERO);

        // Ten changes a millisecond, a snapshot every three.
        for number in 1..SERVERS {
            inputs.send(drain(number)).await.unwrap();
            if number % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        drop(inputs);
        running.await.unwrap();
        let last = reader.load();
        assert!(!last.can_serve(), "every change is in the last snapshot");
        let published = last.generation - first.generation;
        assert!((2..=40).contains(&published), "{published} snapshots");
    }
}
