//! What happened to servers lately, for whoever asks or follows.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::watch;

use super::state::{Event, Sign};
use crate::counters::Histogram;

/// Events kept. A thousand changes are an afternoon of work on a cluster, and
/// some 100 KB.
const KEPT: usize = 1024;

/// The latest events, numbered from 1.
///
/// Written by the pool's writer, read by the statistics: both on the thread
/// that serves no requests, so its lock never makes one wait.
#[derive(Debug)]
pub struct Timeline {
    events: Mutex<VecDeque<Entry>>,
    last: watch::Sender<u64>,
    detection: [Histogram; Sign::ALL.len()],
}

/// An event with its number and time.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Counts up by one from event to event.
    pub number: u64,
    /// When it happened.
    pub at: SystemTime,
    /// What happened.
    pub event: Event,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            events: Mutex::default(),
            last: watch::Sender::new(0),
            detection: std::array::from_fn(|_| Histogram::default()),
        }
    }
}

impl Timeline {
    /// Adds an event that happened just now.
    pub fn add(&self, event: Event) {
        if let Some(detected) = event.detected {
            self.detected_by(detected.sign).enter(detected.took);
        }
        let number = *self.last.borrow() + 1;
        let mut events = self.lock();
        if events.len() == KEPT {
            events.pop_front();
        }
        let at = SystemTime::now();
        events.push_back(Entry { number, at, event });
        drop(events);
        // After the event: whoever hears of the number finds it.
        self.last.send_replace(number);
    }

    /// The events after number `after`, oldest first.
    pub fn since(&self, after: u64) -> Vec<Entry> {
        let events = self.lock();
        events
            .iter()
            .filter(|entry| entry.number > after)
            .cloned()
            .collect()
    }

    /// Tells of new events by the number of the last.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// How long it took to find out trouble that showed itself by `sign`.
    pub fn detected_by(&self, sign: Sign) -> &Histogram {
        let [agent, lifeline, traffic, check, gossip] = &self.detection;
        match sign {
            Sign::Agent => agent,
            Sign::Lifeline => lifeline,
            Sign::Traffic => traffic,
            Sign::Check => check,
            Sign::Gossip => gossip,
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        // The events are whole at every moment, whoever panicked.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::state::Change;

    fn event() -> Event {
        Event {
            server: "s1".parse().unwrap(),
            what: Change::Left,
            detected: None,
        }
    }

    #[test]
    fn old_events_make_room_and_numbers_go_on() {
        let timeline = Timeline::default();
        for _ in 0..KEPT + 10 {
            timeline.add(event());
        }
        let all = timeline.since(0);
        assert_eq!(all.len(), KEPT);
        assert_eq!(all[0].number, 11);
        assert_eq!(timeline.since(KEPT as u64 + 9).len(), 1);
        assert_eq!(*timeline.follow().borrow(), KEPT as u64 + 10);
    }
}
