//! `tidings top`: the servers of a running load balancer in a terminal, live,
//! and steered by keys.
//!
//! [`answer`] is what is told, [`model`] all that is shown, [`input`] what a
//! key does to it, [`view`] draws it; these are pure. `poll` asks, `order`
//! steers, `screen` has the terminal, and the loop here joins them.

pub mod answer;
pub mod history;
pub mod input;
pub mod model;
pub mod order;
mod poll;
mod screen;
pub mod sort;
pub mod view;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ratatui::crossterm::event::Event;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc},
    time::{Instant, MissedTickBehavior, interval},
};

pub use self::view::Theme;
use self::{
    answer::Answers,
    input::Effect,
    model::{Message, Model},
    order::{Done, Order},
    screen::Screen,
};
use crate::{admin::client::Target, cli::desk::Desk};

/// How often the screen is drawn where nothing happens, for the times on it.
const REDRAW: Duration = Duration::from_secs(1);

/// Orders, keys and answers that may wait: more than anyone types ahead.
const QUEUE: usize = 64;

/// What comes in from outside.
enum Input {
    /// A key, or a new size.
    Terminal(Event),
    /// The terminal is gone.
    Hangup(std::io::Error),
    /// The load balancer answered.
    Answers(Box<Answers>),
    /// It did not, and why.
    Silence(String),
    /// An order was carried out, or not.
    Done(Done),
}

/// What goes out.
struct Outlets {
    orders: mpsc::Sender<Order>,
    wake: Arc<Notify>,
    newest: Arc<AtomicU64>,
}

/// Runs until the operator or a signal ends it.
pub async fn run(
    desk: Desk,
    admin: Target,
    every: Duration,
    theme: Theme,
) -> anyhow::Result<ExitCode> {
    let (sender, mut inputs) = mpsc::channel(QUEUE);
    let (orders, waiting) = mpsc::channel(QUEUE);
    let outlets = Outlets {
        orders,
        wake: Arc::default(),
        newest: Arc::default(),
    };
    let mut signals = Signals::new()?;
    let mut screen = Screen::open(theme)?;
    screen::listen(sender.clone())?;
    let (newest, wake) = (Arc::clone(&outlets.newest), Arc::clone(&outlets.wake));
    tokio::spawn(poll::run(desk, every, newest, wake, sender.clone()));
    tokio::spawn(steer(admin, waiting, sender));
    let mut model = Model::default();
    let mut redraw = interval(REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let code = loop {
        screen.draw(&model)?;
        let input = tokio::select! {
            _ = redraw.tick() => continue,
            number = signals.next() => break ExitCode::from(128 + number),
            input = inputs.recv() => input,
        };
        let Some(input) = input else {
            break ExitCode::FAILURE;
        };
        match take(&mut model, input, &outlets)? {
            Effect::Quit => break ExitCode::SUCCESS,
            Effect::Suspend => screen.suspend()?,
            Effect::Draw | Effect::Steer(_) => {}
        }
    };
    screen.close()?;
    Ok(code)
}

/// Takes in what came, and passes on what is to be done elsewhere.
fn take(model: &mut Model, input: Input, outlets: &Outlets) -> anyhow::Result<Effect> {
    let now = Instant::now();
    match input {
        Input::Hangup(err) => return Err(anyhow::anyhow!("the terminal: {err}")),
        Input::Answers(answers) => {
            model.answered(*answers, now);
            outlets.newest.store(model.newest_event(), Relaxed);
        }
        Input::Silence(why) => model.silent(&why),
        Input::Done(done) => {
            model.done(done, now);
            outlets.wake.notify_one();
        }
        Input::Terminal(event) => match input::handle(model, &event, now) {
            Effect::Steer(order) => {
                if outlets.orders.try_send(order).is_err() {
                    let busy = "the load balancer has not answered the last commands yet";
                    model.say(Message::Failed(busy.to_owned()), now);
                }
            }
            effect => return Ok(effect),
        },
    }
    Ok(Effect::Draw)
}

/// Carries out orders, one after another.
async fn steer(target: Target, mut orders: mpsc::Receiver<Order>, done: mpsc::Sender<Input>) {
    while let Some(order) = orders.recv().await {
        let outcome = order::carry_out(&target, order).await;
        if done.send(Input::Done(outcome)).await.is_err() {
            return;
        }
    }
}

/// The signals that end it.
struct Signals([(SignalKind, Signal); 3]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        let listen = |kind| signal(kind).map(|signal| (kind, signal));
        let [hangup, interrupt, terminate] = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::terminate(),
        ];
        Ok(Self([
            listen(hangup)?,
            listen(interrupt)?,
            listen(terminate)?,
        ]))
    }

    /// The number of the next one.
    async fn next(&mut self) -> u8 {
        let [(a, hangup), (b, interrupt), (c, terminate)] = &mut self.0;
        let kind = tokio::select! {
            _ = hangup.recv() => a,
            _ = interrupt.recv() => b,
            _ = terminate.recv() => c,
        };
        kind.as_raw_value() as u8
    }
}
