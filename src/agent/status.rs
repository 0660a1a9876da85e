//! What the agent tells whoever asks it, over HTTP.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::watch;

use crate::{
    gossip::Handle,
    membership::{MemberState, Name, Phase},
    stats::{Figure, FigureKind, gossip_figures},
};

/// The agent's state, written by it and read by its HTTP server.
pub(super) struct Status {
    name: Name,
    service: Name,
    /// What it last said of the app.
    phase: watch::Sender<Phase>,
    /// How often it started the app, and how often that ended by itself.
    pub(super) starts: AtomicU64,
    pub(super) failures: AtomicU64,
    /// Its part in gossip, once that has begun.
    pub(super) gossip: Arc<OnceLock<Handle>>,
}

impl Status {
    pub(super) fn new(name: Name, service: Name) -> Arc<Self> {
        Arc::new(Self {
            name,
            service,
            phase: watch::Sender::new(Phase::Down),
            starts: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            gossip: Arc::default(),
        })
    }

    /// The server's name.
    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    /// Notes what the cluster is told of the app.
    pub(super) fn says(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Whether the app takes new users; if not, why.
    pub(super) fn ready(&self) -> Result<(), &'static str> {
        let phase = *self.phase.borrow();
        match phase {
            _ if self.gossip.get().is_none() => Err("gossip has not begun"),
            Phase::Ready => Ok(()),
            Phase::Down => Err("the app does not accept connections"),
            Phase::Draining => Err("draining"),
            Phase::Leaving => Err("leaving"),
        }
    }

    /// Everything that `/metrics` prints.
    pub(super) fn figures(self: &Arc<Self>) -> Vec<Figure> {
        let figure = |name, help, kind, read: fn(&Self) -> u64| {
            let status = Arc::clone(self);
            let read = Box::new(move || read(&status));
            let labels = Vec::new();
            Figure {
                name,
                help,
                kind,
                labels,
                read,
            }
        };
        let mut figures = vec![
            Figure {
                name: "tidings_agent_info",
                help: "The agent's version, its server's name and service.",
                kind: FigureKind::Gauge,
                labels: vec![
                    ("version", env!("CARGO_PKG_VERSION").to_owned()),
                    ("name", self.name.to_string()),
                    ("service", self.service.to_string()),
                ],
                read: Box::new(|| 1),
            },
            figure(
                "tidings_agent_app_up",
                "Whether the app takes new users.",
                FigureKind::Gauge,
                |status| status.ready().is_ok().into(),
            ),
            figure(
                "tidings_agent_app_starts_total",
                "How often the agent started the app.",
                FigureKind::Counter,
                |status| status.starts.load(Relaxed),
            ),
            figure(
                "tidings_agent_app_failures_total",
                "How often the app ended without being told to.",
                FigureKind::Counter,
                |status| status.failures.load(Relaxed),
            ),
        ];
        figures.extend(STATES.map(|(state, label)| self.members(state, label)));
        figures.extend(gossip_figures(&self.gossip));
        figures
    }

    fn members(self: &Arc<Self>, state: MemberState, label: &str) -> Figure {
        let status = Arc::clone(self);
        Figure {
            name: "tidings_members",
            help: "Members that gossip knows, this node included.",
            kind: FigureKind::Gauge,
            labels: vec![("state", label.to_owned())],
            read: Box::new(move || {
                let members = status.gossip.get().map(Handle::members).unwrap_or_default();
                members
                    .iter()
                    .filter(|member| member.state == state)
                    .count() as u64
            }),
        }
    }
}

const STATES: [(MemberState, &str); 4] = [
    (MemberState::Alive, "alive"),
    (MemberState::Suspect, "suspect"),
    (MemberState::Down, "down"),
    (MemberState::Left, "left"),
];

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status")
            .field("name", &self.name)
            .field("phase", &*self.phase.borrow())
            .finish_non_exhaustive()
    }
}
