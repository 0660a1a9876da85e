//! The tasks that work for the driver: they answer callers, look up the seeds,
//! and watch the own address.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    admission::Admission,
    own_address,
    port::{self, Inbox},
    seeds::{self, Company, Seed},
    wire::Envelope,
};

/// What they work with.
pub(super) struct Helpers {
    pub(super) listener: TcpListener,
    pub(super) envelope: Arc<Envelope>,
    pub(super) admission: Admission,
    pub(super) inbox: Inbox,
    pub(super) seeds: Vec<Seed>,
    /// Told of the seeds' addresses.
    pub(super) resolved: mpsc::Sender<Vec<SocketAddr>>,
    pub(super) company: watch::Receiver<Company>,
    /// The own address, where it was found and may change.
    pub(super) found: Option<IpAddr>,
    /// Told of the next one.
    pub(super) moves: mpsc::Sender<IpAddr>,
}

impl Helpers {
    /// Starts them; whoever drops the set ends them.
    pub(super) fn start(self) -> JoinSet<()> {
        let (seeds, company) = (self.seeds, self.company);
        let mut tasks = JoinSet::new();
        tasks.spawn(port::serve(
            self.listener,
            self.envelope,
            self.admission,
            self.inbox,
        ));
        tasks.spawn(seeds::tell_of_silence(seeds.clone(), company.clone()));
        if let Some(own) = self.found {
            let (seeds, company) = (seeds.clone(), company.clone());
            tasks.spawn(own_address::follow(own, seeds, company, self.moves));
        }
        tasks.spawn(seeds::resolve_for_ever(seeds, company, self.resolved));
        tasks
    }
}
