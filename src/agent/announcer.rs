//! What the agent tells the cluster of its app.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use super::{Settings, status::Status};
use crate::{
    gossip::{self, Handle, Keyring, MetaError, Sockets, StartError},
    keys,
    membership::{Announcement, MemberEvent, Meta, Phase, Role},
};

/// An agent hears of the others too, and does nothing with it: gossip keeps
/// the news that do not fit, and waits for no reader.
const UNREAD: usize = 1;

/// The agent's voice in the cluster.
#[derive(Debug)]
pub(super) struct Announcer {
    state: State,
    phase: Phase,
    status: Arc<Status>,
}

#[derive(Debug)]
enum State {
    /// The address at which others reach this host is being looked for.
    Looking {
        address: AbortOnDropHandle<IpAddr>,
        plan: Box<Plan>,
    },
    Joined(Box<Joined>),
    /// It said goodbye, or never came to speak.
    Silent,
}

/// What is needed once the address is known.
#[derive(Debug)]
struct Plan {
    sockets: Sockets,
    keyring: Keyring,
    settings: Settings,
}

#[derive(Debug)]
struct Joined {
    handle: Handle,
    meta: Meta,
    app: SocketAddr,
    /// Whether the app's address is the one that gossip follows.
    found: bool,
    _keys: AbortOnDropHandle<()>,
    _events: mpsc::Receiver<MemberEvent>,
}

impl Announcer {
    /// Begins to look for the own address; what takes its time is the seeds'
    /// names, which may not resolve before somebody starts them.
    pub(super) fn new(
        sockets: Sockets,
        keyring: Keyring,
        settings: Settings,
        status: Arc<Status>,
    ) -> Self {
        let known = settings.known_address();
        let seeds = settings.seeds.clone();
        let address = tokio::spawn(async move {
            match known {
                Some(address) => address,
                None => gossip::local_address(&seeds).await,
            }
        });
        Self {
            state: State::Looking {
                address: AbortOnDropHandle::new(address),
                plan: Box::new(Plan {
                    sockets,
                    keyring,
                    settings,
                }),
            },
            phase: Phase::Down,
            status,
        }
    }

    /// Joins the cluster once the address is known, and returns where the app
    /// is announced to be; from then on, where it is whenever that changes.
    /// Cancel safe.
    pub(super) async fn placed(&mut self) -> Result<SocketAddr, StartError> {
        let address = match &mut self.state {
            State::Looking { address, .. } => address,
            State::Joined(joined) => return Ok(joined.moved().await),
            State::Silent => return std::future::pending().await,
        };
        let Ok(address) = address.await else {
            return std::future::pending().await;
        };
        let State::Looking { plan, .. } = std::mem::replace(&mut self.state, State::Silent) else {
            return std::future::pending().await;
        };
        let joined = plan.join(address, self.phase)?;
        let app = joined.app;
        // There is one node in the life of an agent.
        self.status.gossip.set(joined.handle.clone()).ok();
        self.state = State::Joined(Box::new(joined));
        Ok(app)
    }

    /// Where the app is announced to be, once that is known.
    pub(super) fn app(&self) -> Option<SocketAddr> {
        match &self.state {
            State::Joined(joined) => Some(joined.app),
            _ => None,
        }
    }

    /// What it last said.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Tells the cluster where the app is in its life, now or when it joins.
    pub(super) fn say(&mut self, phase: Phase) {
        if std::mem::replace(&mut self.phase, phase) == phase {
            return;
        }
        self.status.says(phase);
        if let State::Joined(joined) = &mut self.state {
            joined.say(phase);
        }
    }

    /// Says goodbye, once.
    pub(super) async fn leave(&mut self) {
        if let State::Joined(joined) = std::mem::replace(&mut self.state, State::Silent) {
            joined.handle.leave().await;
        }
    }
}

impl Settings {
    /// What to say of the app, at an address and at this point of its life.
    fn meta(&self, app: SocketAddr, phase: Phase) -> Meta {
        Meta {
            name: self.name.clone(),
            role: Role::Server(Announcement {
                service: self.service.clone(),
                addr: app,
                weight: self.weight,
                phase,
                tags: self.tags.clone(),
            }),
        }
    }

    /// Whether that can be told, wherever the app will be: before there is an
    /// app that would have to end because of it.
    pub(super) fn check(&self) -> Result<(), MetaError> {
        // No address takes more room.
        let anywhere = SocketAddr::from((Ipv6Addr::LOCALHOST, self.port));
        gossip::check_meta(&self.meta(anywhere, Phase::Ready))
    }
}

impl Plan {
    fn join(self, address: IpAddr, phase: Phase) -> Result<Joined, StartError> {
        let found = self.settings.known_address().is_none();
        let app = SocketAddr::new(address, self.settings.port);
        let meta = self.settings.meta(app, phase);
        let Settings {
            gossip_args, seeds, ..
        } = self.settings;
        let mut advertise = self.sockets.local_addr()?;
        if advertise.ip().is_unspecified() {
            advertise.set_ip(address);
        }
        let settings = gossip::Settings {
            advertise,
            found,
            cluster: gossip_args.cluster.clone(),
            keyring: self.keyring,
            admission: gossip_args.admission(),
            seeds,
            meta: meta.clone(),
        };
        let (events, unread) = mpsc::channel(UNREAD);
        let handle = gossip::spawn(self.sockets, settings, events)?;
        let keys = tokio::spawn(keys::follow(gossip_args, handle.clone()));
        info!(
            "announcing {} at {app}, speaking gossip at {advertise}",
            meta.name
        );
        Ok(Joined {
            handle,
            meta,
            app,
            found,
            _keys: AbortOnDropHandle::new(keys),
            _events: unread,
        })
    }
}

impl Joined {
    /// Waits until the app is to be found at another address, and returns it.
    async fn moved(&mut self) -> SocketAddr {
        loop {
            let ip = self.handle.local().addr.ip();
            if self.found && self.app.ip() != ip {
                self.app.set_ip(ip);
                return self.app;
            }
            if !self.handle.changed().await {
                return std::future::pending().await;
            }
        }
    }

    fn say(&mut self, phase: Phase) {
        if let Role::Server(announcement) = &mut self.meta.role {
            announcement.phase = phase;
        }
        // It was accepted at the start, and a phase takes the same room. Where
        // the app is, gossip knows better.
        if let Err(err) = self.handle.update(self.meta.clone()) {
            error!("{err}");
        }
    }
}
