//! The ports that are not for traffic: the statistics and the runtime API.

use std::{io, net::TcpListener, sync::Arc};

use super::cluster::Cluster;
use crate::{
    admin::{self, Listener, SocketFiles},
    cli::serve::ServeArgs,
    counters::Counter,
    proxy::{self, Shared},
    stats,
};

/// What is shown and steered there.
pub(super) struct Desks<'a> {
    pub(super) args: &'a ServeArgs,
    pub(super) process: stats::Process,
    pub(super) cluster: &'a Cluster,
    pub(super) shared: &'a Shared,
    pub(super) seated: &'a proxy::Workers,
    pub(super) log_lines_dropped: Arc<Counter>,
}

impl Desks<'_> {
    /// Serves both, on these. The sockets in files are there as long as what
    /// this returns.
    pub(super) fn open(
        self,
        statistics: TcpListener,
        runtime_api: Vec<Listener>,
    ) -> io::Result<SocketFiles> {
        let level = self.args.admin_level;
        let declare = self.cluster.declare();
        let inputs = self.shared.inputs.clone();
        let workers = self.shared.control.clone();
        let source = Arc::new(self.source());
        start_statistics(statistics, Arc::clone(&source))?;
        let controls = Arc::new(admin::Controls {
            source,
            declare,
            inputs,
            workers,
        });
        admin::start(runtime_api, level, &controls)
    }

    /// Where every figure is read.
    fn source(self) -> stats::Source {
        let figures = self.figures();
        let Self {
            args,
            cluster,
            shared,
            ..
        } = self;
        let control = shared.control.clone();
        stats::Source {
            pool: shared.pool.clone(),
            totals: Arc::clone(&shared.totals),
            service: args.service().clone(),
            balance: shared.settings.balance.as_str(),
            cookie: shared.settings.cookie.clone(),
            admission: Arc::clone(&shared.limits.admission),
            maxqueue: args.maxqueue(),
            process: self.process,
            members: cluster.members(),
            figures,
            figures_of_the_moment: shared
                .tls
                .iter()
                .cloned()
                .map(stats::certificate_figures)
                .collect(),
            gossip_keyed: cluster.keyed,
            history: stats::History::default(),
            log_lines_dropped: self.log_lines_dropped,
            draining: Arc::clone(&shared.ending),
            accepts: Box::new(move || control.is_accepting()),
            declare: args.stats_admin.then(|| cluster.declare()),
            auth: args
                .stats_auth
                .clone()
                .map(|auth| (auth.user, auth.password)),
        }
    }

    /// What parts of the process count that are none of the statistics'.
    fn figures(&self) -> Vec<stats::Figure> {
        let handshakes = self.shared.tls.iter().flat_map(stats::handshake_figures);
        self.cluster
            .figures()
            .chain(stats::worker_figures(self.seated))
            .chain(handshakes)
            .collect()
    }
}

fn start_statistics(listener: TcpListener, source: Arc<stats::Source>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::spawn(stats::sample(Arc::clone(&source)));
    tokio::spawn(stats::run(listener, source, std::future::pending()));
    Ok(())
}
