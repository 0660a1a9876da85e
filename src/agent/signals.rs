//! The signals an agent is sent.

use std::io;

use rustix::process::Signal;
use tokio::{
    signal::unix::{self, SignalKind},
    sync::mpsc,
};

/// How many signals may wait. The kernel merges those that nobody has taken
/// yet, and so may we.
const QUEUE: usize = 16;

/// Every signal that means something to the agent or to its app.
const HEARD: [Signal; 7] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
];

/// Whether a signal asks the agent to end. All others are the app's.
pub(super) fn ends(signal: Signal) -> bool {
    signal == Signal::TERM || signal == Signal::INT
}

/// The signals as they come.
#[derive(Debug)]
pub(super) struct Signals(mpsc::Receiver<Signal>);

impl Signals {
    /// Takes the signals from their default effects. Needs a tokio runtime.
    pub(super) fn listen() -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        for signal in HEARD {
            let mut arrivals = unix::signal(SignalKind::from_raw(signal.as_raw()))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while arrivals.recv().await.is_some() && sender.send(signal).await.is_ok() {}
            });
        }
        Ok(Self(receiver))
    }

    /// The next signal. Cancel safe.
    pub(super) async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}
