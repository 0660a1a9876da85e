//! What `tracing` is told, to syslog.

use std::{
    fmt::{self, Write as _},
    time::SystemTime,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::Context;

use super::{Message, Origin, Severity};
use crate::lines::Lines;

/// The target of events about the state of servers, and of those among them
/// that are worse than any of `tracing`'s levels. The severities are those
/// that `HAProxy` gives the same messages.
pub const STATE: &str = "state";
/// A server is down.
pub const STATE_ALERT: &str = "state.alert";
/// No server is left.
pub const STATE_EMERGENCY: &str = "state.emergency";

/// Sends every event to syslog.
#[derive(Debug)]
pub struct Layer {
    lines: Lines<Message>,
    origin: Origin,
}

impl Layer {
    /// A layer that says what it hears in the name of `origin`.
    pub fn new(lines: Lines<Message>, origin: Origin) -> Self {
        Self { lines, origin }
    }
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for Layer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let (kind, severity) = classify(event.metadata().target(), *event.metadata().level());
        self.lines.say(Message {
            origin: self.origin.clone(),
            severity,
            kind,
            at: SystemTime::now(),
            text: text.0.into_bytes(),
        });
    }
}

fn classify(target: &str, level: Level) -> (&'static str, Severity) {
    let by_level = match level {
        Level::ERROR => Severity::Error,
        Level::WARN => Severity::Warning,
        Level::INFO => Severity::Notice,
        _ => Severity::Informational,
    };
    match target {
        STATE => ("state", by_level),
        STATE_ALERT => ("state", Severity::Alert),
        STATE_EMERGENCY => ("state", Severity::Emergency),
        _ => ("log", by_level),
    }
}

/// The message and its fields, as `tracing-subscriber` writes them.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" if self.0.is_empty() => write!(self.0, "{value:?}"),
            "message" => {
                self.0 = format!("{value:?} {}", self.0);
                Ok(())
            }
            name => write!(self.0, " {name}={value:?}"),
        };
        written.expect("a String takes whatever is written");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, mpsc},
    };

    use tracing_subscriber::{layer::SubscriberExt as _, registry};

    use super::*;
    use crate::lines::Out;

    struct Kept(mpsc::Sender<Message>);

    impl Out<Message> for Kept {
        fn take(&mut self, message: Message) {
            self.0.send(message).unwrap();
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn events_become_messages_of_their_severity() {
        let (kept, messages) = mpsc::channel();
        let (lines, _writer) = Lines::start("test", Kept(kept), Arc::default()).unwrap();
        let layer = Layer::new(lines, Origin::own("ha"));
        tracing::subscriber::with_default(registry().with(layer), || {
            tracing::warn!(from = %"10.0.0.1", "a packet was dropped");
            tracing::warn!(target: STATE_ALERT, "Server nodes/s1 is DOWN");
            tracing::error!(target: STATE_EMERGENCY, "backend nodes has no server available!");
            tracing::info!(target: STATE, "Server nodes/s1 is UP");
        });
        let heard: Vec<_> = messages
            .iter()
            .take(4)
            .map(|m| (m.kind, m.severity, String::from_utf8(m.text).unwrap()))
            .collect();
        assert_eq!(
            heard,
            [
                (
                    "log",
                    Severity::Warning,
                    "a packet was dropped from=10.0.0.1"
                ),
                ("state", Severity::Alert, "Server nodes/s1 is DOWN"),
                (
                    "state",
                    Severity::Emergency,
                    "backend nodes has no server available!"
                ),
                ("state", Severity::Notice, "Server nodes/s1 is UP"),
            ]
            .map(|(kind, severity, text)| (kind, severity, text.to_owned()))
        );
    }
}
