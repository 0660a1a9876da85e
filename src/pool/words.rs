//! What is told of a change in the pool, in `HAProxy`'s words, so that what
//! reads its log reads this one. Pure.
//!
//! What `HAProxy` does not know stands behind its sentence.

use std::{
    collections::HashMap,
    fmt::{self, Display},
};

use super::{
    server::{Cause, CheckCode, CheckReport, Status},
    snapshot::Snapshot,
    state::{Change, Detection, Event},
};
use crate::membership::Name;

/// How bad a change is, as `HAProxy` sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gravity {
    /// It was wanted, or is for the better.
    Notice,
    /// Something is set up wrongly.
    Warning,
    /// A server went down.
    Alert,
    /// No server is left.
    Emergency,
}

/// How the pool stands after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Roll {
    /// Servers that are up and take new users.
    pub(super) active: usize,
    /// Servers that are up, those that gossip suspects among them.
    pub(super) up: usize,
    /// Requests in the server that changed.
    pub(super) sessions: u32,
    /// Requests of its users that wait for a place there.
    pub(super) waiting: u32,
    /// Whether any server can be given a request, if only as a last resort.
    pub(super) can_serve: bool,
}

/// Knows what was told last.
#[derive(Debug)]
pub(super) struct Words {
    service: String,
    last: HashMap<Name, Status>,
    /// Whether a server was up, and whether any could be given a request.
    well: bool,
    served: bool,
}

impl Words {
    /// Of `service` no more is known yet than how it begins.
    pub(super) fn new(service: String, first: &Snapshot) -> Self {
        let statuses = first
            .servers
            .iter()
            .map(|server| (server.name.clone(), server.status));
        Self {
            service,
            last: statuses.collect(),
            well: first.can_serve(),
            served: first.can_serve(),
        }
    }

    /// The lines for one event; `check` is what led to it, if it was one.
    pub(super) fn tell(
        &mut self,
        event: &Event,
        check: Option<&CheckReport>,
        roll: Roll,
    ) -> Vec<(Gravity, String)> {
        let before = self.note(event);
        let about = About {
            event,
            before,
            check,
            roll,
        };
        let (service, server) = (&self.service, &event.server);
        let line = format!("Server {service}/{server} {about}");
        let mut lines = vec![(about.gravity(), line)];
        lines.extend(self.tell_of_pool(roll));
        lines
    }

    /// What was told of the server before, if anything.
    fn note(&mut self, event: &Event) -> Option<Status> {
        match event.what {
            Change::Joined(status) | Change::Became(status) => {
                self.last.insert(event.server.clone(), status)
            }
            Change::Left | Change::Removed => self.last.remove(&event.server),
            Change::Replaced | Change::Clash | Change::Refused => {
                self.last.get(&event.server).copied()
            }
        }
    }

    fn tell_of_pool(&mut self, roll: Roll) -> Option<(Gravity, String)> {
        let Roll { up, can_serve, .. } = roll;
        let was_well = std::mem::replace(&mut self.well, up > 0);
        let served = std::mem::replace(&mut self.served, can_serve);
        let service = &self.service;
        if served && !can_serve {
            let line = format!("backend {service} has no server available!");
            return Some((Gravity::Emergency, line));
        }
        (was_well && !self.well && can_serve).then(|| {
            let line = format!(
                "backend {service} has no server that is up: those that are merely silent or \
                 kept out are tried"
            );
            (Gravity::Alert, line)
        })
    }
}

/// What a line says of a server.
struct About<'a> {
    event: &'a Event,
    before: Option<Status>,
    check: Option<&'a CheckReport>,
    roll: Roll,
}

impl About<'_> {
    fn gravity(&self) -> Gravity {
        let ran = !matches!(self.before, Some(Status::Down(_) | Status::Maint));
        match self.event.what {
            Change::Became(Status::Down(_) | Status::Maint) if ran => Gravity::Alert,
            Change::Clash | Change::Refused => Gravity::Warning,
            _ => Gravity::Notice,
        }
    }

    /// A server's status, and what it follows.
    fn write_status(&self, f: &mut fmt::Formatter<'_>, status: Status) -> fmt::Result {
        let maint = self.before == Some(Status::Maint);
        let joined = matches!(self.event.what, Change::Joined(_));
        match status {
            Status::Up if maint => f.write_str("is UP/READY (leaving forced maintenance)."),
            Status::Drain if maint => f.write_str("is UP/DRAIN (leaving forced maintenance)."),
            Status::Down(_) if maint => f.write_str("is DOWN/READY (leaving forced maintenance)."),
            Status::Up if self.before == Some(Status::Drain) => {
                f.write_str("is UP (leaving forced drain).")
            }
            Status::Up if joined => write!(f, "is UP, reason: it joined. {}", self.online()),
            Status::Up => write!(f, "is UP, reason: {}. {}", self.recovery(), self.online()),
            Status::Suspect => write!(
                f,
                "is suspected by gossip and takes no new users. {}",
                self.left_with(0, self.roll.waiting)
            ),
            Status::Drain => write!(f, "enters drain state. {}", self.online()),
            Status::Maint => write!(f, "is going DOWN for maintenance. {}", self.left()),
            Status::Down(cause) => {
                let joined = if joined { "it joined but " } else { "" };
                let reason = self.reason(cause);
                write!(f, "is DOWN, reason: {joined}{reason}. {}", self.left())
            }
        }
    }

    /// That it is no more.
    fn write_gone(&self, f: &mut fmt::Formatter<'_>, why: &str) -> fmt::Result {
        let left = self.left();
        write!(f, "is going DOWN for maintenance ({why}). {left}")
    }

    /// Why it is down.
    fn reason(&self, cause: Cause) -> impl Display {
        fmt::from_fn(move |f| match (cause, self.check) {
            (Cause::Check | Cause::Refused, Some(check)) if !check.code.passed() => {
                outcome(check).fmt(f)
            }
            _ => cause.fmt(f),
        })
    }

    /// Why it is up again.
    fn recovery(&self) -> impl Display {
        fmt::from_fn(move |f| match (self.before, self.check) {
            (_, Some(check)) if check.code.passed() => outcome(check).fmt(f),
            (Some(Status::Suspect | Status::Down(Cause::Silent)), _) => {
                f.write_str("it answers gossip again")
            }
            (Some(Status::Down(Cause::Unresolved)), _) => f.write_str("its host name resolves"),
            (Some(Status::Down(Cause::Quarantine)), _) => {
                f.write_str("it was kept out long enough")
            }
            _ => f.write_str("the app accepts connections"),
        })
    }

    /// What waited there chooses again.
    fn left(&self) -> impl Display {
        self.left_with(self.roll.waiting, 0)
    }

    fn left_with(&self, requeued: u32, waiting: u32) -> impl Display {
        let Roll {
            active, sessions, ..
        } = self.roll;
        fmt::from_fn(move |f| {
            write!(
                f,
                "{active} active and 0 backup servers left. {sessions} sessions active, \
                 {requeued} requeued, {waiting} remaining in queue."
            )
        })
    }

    fn online(&self) -> impl Display {
        let active = self.roll.active;
        fmt::from_fn(move |f| {
            write!(
                f,
                "{active} active and 0 backup servers online. 0 sessions requeued, \
                 0 total in queue."
            )
        })
    }
}

impl Display for About<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.event.what {
            Change::Joined(status) | Change::Became(status) => self.write_status(f, *status)?,
            Change::Left => self.write_gone(f, "it left")?,
            Change::Removed => self.write_gone(f, "it was removed by an operator")?,
            what @ (Change::Replaced | Change::Clash | Change::Refused) => write!(f, "{what}.")?,
        }
        match self.event.detected {
            Some(Detection { sign, took }) => {
                let millis = took.as_secs_f64() * 1000.0;
                write!(f, " First sign: {}, {millis:.1} ms before.", sign.as_str())
            }
            None => Ok(()),
        }
    }
}

/// `Layer7 wrong status, code: 500, info: "…", check duration: 3ms`.
fn outcome(check: &CheckReport) -> impl Display {
    fmt::from_fn(move |f| {
        f.write_str(check.code.description())?;
        if let Some(status) = check.http_status {
            write!(f, ", code: {status}")?;
        }
        let status = check
            .http_status
            .filter(|_| check.code == CheckCode::L7Status);
        let meaning = status.and_then(|status| http::StatusCode::from_u16(status).ok());
        let meaning = meaning.and_then(|status| status.canonical_reason());
        if let Some(info) = check.info.as_deref().or(meaning) {
            write!(f, ", info: \"{info}\"")?;
        }
        write!(f, ", check duration: {}ms", check.took.as_millis())
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pool::state::Sign;

    fn roll(active: usize) -> Roll {
        Roll {
            active,
            up: active,
            sessions: 3,
            waiting: 0,
            can_serve: active > 0,
        }
    }

    fn became(status: Status) -> Event {
        Event {
            server: "s1".parse().unwrap(),
            what: Change::Became(status),
            detected: None,
        }
    }

    fn check(code: CheckCode, http_status: Option<u16>, info: Option<&str>) -> CheckReport {
        CheckReport {
            code,
            http_status,
            info: info.map(Into::into),
            took: Duration::from_millis(2),
        }
    }

    /// What is told of the last of these changes, where one server is left.
    fn told(changes: &[Status], check: Option<&CheckReport>) -> (Gravity, String) {
        let mut words = Words::new("nodes".into(), &Snapshot::default());
        let tell = |status: &Status| words.tell(&became(*status), check, roll(1)).remove(0);
        let told: Vec<_> = changes.iter().map(tell).collect();
        told.last().unwrap().clone()
    }

    #[test]
    fn a_server_that_fails_its_checks_is_told_of_in_haproxys_words() {
        let refused = check(CheckCode::L4Connection, None, Some("Connection refused"));
        assert_eq!(
            told(&[Status::Up, Status::Down(Cause::Check)], Some(&refused)),
            (
                Gravity::Alert,
                "Server nodes/s1 is DOWN, reason: Layer4 connection problem, info: \"Connection \
                 refused\", check duration: 2ms. 1 active and 0 backup servers left. 3 sessions \
                 active, 0 requeued, 0 remaining in queue."
                    .to_owned()
            )
        );
        let wrong = check(CheckCode::L7Status, Some(500), None);
        let (_, line) = told(&[Status::Up, Status::Down(Cause::Check)], Some(&wrong));
        let reason = "reason: Layer7 wrong status, code: 500, info: \"Internal Server Error\", \
                      check duration: 2ms. 1 active";
        assert!(line.contains(reason), "{line}");
    }

    #[test]
    fn a_server_that_passes_its_checks_again_is_told_of_in_haproxys_words() {
        let passed = check(CheckCode::L7Ok, Some(200), None);
        assert_eq!(
            told(&[Status::Down(Cause::Check), Status::Up], Some(&passed)),
            (
                Gravity::Notice,
                "Server nodes/s1 is UP, reason: Layer7 check passed, code: 200, check duration: \
                 2ms. 1 active and 0 backup servers online. 0 sessions requeued, 0 total in queue."
                    .to_owned()
            )
        );
    }

    #[test]
    fn what_an_operator_does_is_told_of_in_haproxys_words() {
        let line = |changes: &[Status]| {
            let (gravity, line) = told(changes, None);
            let line = line.strip_prefix("Server nodes/s1 ").unwrap().to_owned();
            (gravity, line)
        };
        let (up, drain, maint) = (Status::Up, Status::Drain, Status::Maint);
        let online = "1 active and 0 backup servers online. 0 sessions requeued, 0 total in queue.";
        let left = "1 active and 0 backup servers left. 3 sessions active, 0 requeued, \
                    0 remaining in queue.";
        let (notice, alert) = (Gravity::Notice, Gravity::Alert);
        let down = Status::Down(Cause::Refused);
        for (changes, gravity, expected) in [
            (
                vec![up, drain],
                notice,
                format!("enters drain state. {online}"),
            ),
            (
                vec![drain, up],
                notice,
                "is UP (leaving forced drain).".to_owned(),
            ),
            (
                vec![up, maint],
                alert,
                format!("is going DOWN for maintenance. {left}"),
            ),
            (
                vec![down, maint],
                notice,
                format!("is going DOWN for maintenance. {left}"),
            ),
            (
                vec![maint, up],
                notice,
                "is UP/READY (leaving forced maintenance).".to_owned(),
            ),
            (
                vec![maint, drain],
                notice,
                "is UP/DRAIN (leaving forced maintenance).".to_owned(),
            ),
            (
                vec![maint, down],
                notice,
                "is DOWN/READY (leaving forced maintenance).".to_owned(),
            ),
        ] {
            assert_eq!(line(&changes), (gravity, expected));
        }
    }

    #[test]
    fn two_nodes_of_one_name_are_a_warning() {
        let mut words = Words::new("nodes".into(), &Snapshot::default());
        let clash = Event {
            what: Change::Clash,
            ..became(Status::Up)
        };
        let lines = words.tell(&clash, None, roll(1));
        let gravities: Vec<Gravity> = lines.iter().map(|(gravity, _)| *gravity).collect();
        assert_eq!(gravities, [Gravity::Warning]);
    }

    #[test]
    fn what_haproxy_does_not_know_stands_behind_its_sentence() {
        let mut words = Words::new("nodes".into(), &Snapshot::default());
        words.tell(&became(Status::Up), None, roll(1));
        let event = Event {
            detected: Some(Detection {
                sign: Sign::Lifeline,
                took: Duration::from_micros(61_300),
            }),
            ..became(Status::Down(Cause::Silent))
        };
        let lines = words.tell(&event, None, roll(2));
        assert_eq!(
            lines,
            [(
                Gravity::Alert,
                "Server nodes/s1 is DOWN, reason: no answer to gossip. 2 active and 0 backup \
                 servers left. 3 sessions active, 0 requeued, 0 remaining in queue. First sign: \
                 lifeline, 61.3 ms before."
                    .to_owned()
            )]
        );
    }

    #[test]
    fn the_last_servers_end_is_an_emergency_and_told_once() {
        let mut words = Words::new("nodes".into(), &Snapshot::default());
        let mut told = |status, active| words.tell(&became(status), None, roll(active));
        assert_eq!(told(Status::Up, 1).len(), 1);
        let lines = told(Status::Down(Cause::Refused), 0);
        let none_left = "backend nodes has no server available!".to_owned();
        assert_eq!(lines[1], (Gravity::Emergency, none_left));
        assert_eq!(told(Status::Maint, 0).len(), 1);
    }

    #[test]
    fn a_suspect_is_not_active_and_no_reason_to_say_that_none_is_up() {
        let mut words = Words::new("nodes".into(), &Snapshot::default());
        words.tell(&became(Status::Up), None, roll(1));
        let suspected = Roll {
            up: 1,
            can_serve: true,
            ..roll(0)
        };
        let lines = words.tell(&became(Status::Suspect), None, suspected);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let left = "takes no new users. 0 active and 0 backup servers left.";
        assert!(lines[0].1.contains(left), "{lines:?}");
    }

    #[test]
    fn a_last_resort_is_told_of_as_one() {
        let mut words = Words::new("nodes".into(), &Snapshot::default());
        words.tell(&became(Status::Up), None, roll(1));
        let lost = became(Status::Down(Cause::Silent));
        let roll = Roll {
            can_serve: true,
            ..roll(0)
        };
        let lines = words.tell(&lost, None, roll);
        assert_eq!(lines[1].0, Gravity::Alert);
        assert!(lines[1].1.contains("no server that is up"), "{lines:?}");
    }

    #[test]
    fn coming_and_going_are_told_of() {
        let mut words = Words::new("nodes".into(), &Snapshot::default());
        let mut told = |what| {
            let event = Event {
                what,
                ..became(Status::Up)
            };
            words.tell(&event, None, roll(1)).remove(0).1
        };
        let joined = told(Change::Joined(Status::Up));
        assert!(
            joined.contains("is UP, reason: it joined. 1 active"),
            "{joined}"
        );
        let left = told(Change::Left);
        let gone = "is going DOWN for maintenance (it left). 1 active";
        assert!(left.contains(gone), "{left}");
        let removed = told(Change::Removed);
        let gone = "is going DOWN for maintenance (it was removed by an operator). 1 active";
        assert!(removed.contains(gone), "{removed}");
        let silent = told(Change::Joined(Status::Down(Cause::Agent)));
        let but = "is DOWN, reason: it joined but the app does not accept connections. 1 active";
        assert!(silent.contains(but), "{silent}");
    }
}
