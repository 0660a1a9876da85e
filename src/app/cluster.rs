//! Our part in gossip, and what comes of it.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use tokio::sync::mpsc;
use tracing::{error, info};

use crate::{
    admin::Declare,
    cli::serve::ServeArgs,
    gossip, keys,
    membership::{MemberEvent, Meta, Name, Role},
    pool::Input,
    stats,
};

/// Member events on their way to the pool. Gossip keeps what does not fit.
const MEMBER_EVENTS: usize = 256;

/// Our part in gossip. It begins when our own address is known, which may be
/// later than everything else.
type Gossip = Arc<OnceLock<gossip::Handle>>;

/// The cluster, as the other parts know it.
pub(super) struct Cluster {
    gossip: Gossip,
    /// Whether packets are sealed.
    pub(super) keyed: bool,
}

impl Cluster {
    /// Takes part as soon as our own address is known; requests do not wait
    /// for that. What happens goes to `inputs`.
    pub(super) fn join(
        args: &ServeArgs,
        node: &Name,
        sockets: gossip::Sockets,
        inputs: mpsc::Sender<Input>,
    ) -> anyhow::Result<Self> {
        let keyring = keys::keyring(&args.gossip_args)?;
        let cluster = Self {
            gossip: Gossip::default(),
            keyed: !keyring.is_plain(),
        };
        let settings = gossip::Settings {
            advertise: args.gossip,
            found: args.advertise.is_none() && args.gossip.ip().is_unspecified(),
            cluster: args.gossip_args.cluster.clone(),
            keyring,
            admission: args.gossip_args.admission(),
            seeds: args.join.clone(),
            meta: Meta {
                name: node.clone(),
                role: Role::Balancer,
            },
        };
        let gossip = Arc::clone(&cluster.gossip);
        tokio::spawn(take_part(args.clone(), settings, sockets, inputs, gossip));
        Ok(cluster)
    }

    /// Says goodbye.
    pub(super) async fn leave(&self) {
        if let Some(gossip) = self.gossip.get() {
            gossip.leave().await;
        }
    }

    /// Lists who is there.
    pub(super) fn members(&self) -> stats::Members {
        let gossip = Arc::clone(&self.gossip);
        Box::new(move || {
            gossip
                .get()
                .map_or_else(Arc::default, gossip::Handle::members)
        })
    }

    /// Hands what operators want to gossip, which keeps it, tells it to the
    /// other balancers, and brings it to the pool here as theirs.
    pub(super) fn declare(&self) -> Declare {
        let gossip = Arc::clone(&self.gossip);
        Box::new(move |service, server, wish| match gossip.get() {
            None => Err("Gossip has not started yet.".to_owned()),
            Some(handle) if handle.declare(service.clone(), server.clone(), wish) => Ok(()),
            Some(_) => Err("Gossip does not take it: the load balancer is ending.".to_owned()),
        })
    }

    /// What gossip counts.
    pub(super) fn figures(&self) -> impl Iterator<Item = stats::Figure> {
        stats::gossip_figures(&self.gossip).into_iter()
    }
}

/// Finds our own address, begins, and passes on what is heard.
async fn take_part(
    args: ServeArgs,
    mut settings: gossip::Settings,
    sockets: gossip::Sockets,
    inputs: mpsc::Sender<Input>,
    gossip: Gossip,
) {
    settings.advertise = advertised(&args).await;
    let (sender, mut events) = mpsc::channel::<MemberEvent>(MEMBER_EVENTS);
    let handle = match gossip::spawn(sockets, settings, sender) {
        Ok(handle) => gossip.get_or_init(|| handle),
        Err(err) => {
            error!("gossip cannot start, so no server can join: {err}; see --advertise");
            return;
        }
    };
    info!("known to the cluster as {}", handle.local().addr);
    tokio::spawn(keys::follow(args.gossip_args, handle.clone()));
    while let Some(event) = events.recv().await {
        if let MemberEvent::Up(member) = &event
            && member.meta.role == Role::Balancer
        {
            info!("balancer {} is up at {}", member.meta.name, member.id.addr);
        }
        if inputs.send(Input::Member(event)).await.is_err() {
            return;
        }
    }
}

/// Where others reach our gossip. Port 0 stands for the one it is bound to.
async fn advertised(args: &ServeArgs) -> SocketAddr {
    match args.advertise {
        Some(addr) => SocketAddr::new(addr.ip, addr.port.unwrap_or(0)),
        None if !args.gossip.ip().is_unspecified() => SocketAddr::new(args.gossip.ip(), 0),
        None => SocketAddr::new(gossip::local_address(&args.join).await, 0),
    }
}
