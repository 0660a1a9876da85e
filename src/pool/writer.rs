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
                    sleep_until(Instant::now() + COALESCE).await;
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    let events = self.state.tick(Instant::now());
                    self.report(events, None);
                    self.publish();
                }
            }
        }
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
