//! What listens, all bound before anything else starts.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
};

use anyhow::anyhow;

use crate::{
    admin::{Address, Listener},
    cli::serve::ServeArgs,
    gossip, net,
    proxy::{self, Scheme},
};

/// Everything that listens.
pub(super) struct Sockets {
    /// Each worker's own.
    pub(super) http: Vec<Vec<proxy::Listener>>,
    pub(super) stats: TcpListener,
    pub(super) admin: Vec<Listener>,
    pub(super) gossip: gossip::Sockets,
}

/// Where it listens: with port 0 the kernel chose.
pub(super) struct Addresses {
    pub(super) http: Vec<(SocketAddr, Scheme)>,
    stats: SocketAddr,
    gossip: SocketAddr,
    pub(super) admin: Vec<Address>,
}

impl Sockets {
    pub(super) fn bind(args: &ServeArgs, workers: usize) -> anyhow::Result<Self> {
        let busy_at = |flag, addr| move |err: io::Error| busy(flag, addr, &err);
        let plain = args.http.iter().map(|addr| (*addr, Scheme::Http));
        let over_tls = args.https().iter().map(|addr| (*addr, Scheme::Https));
        let http: Vec<_> = plain.chain(over_tls).collect();
        let http = proxy::bind(&http, workers).map_err(|((addr, scheme), err)| {
            let flag = match scheme {
                Scheme::Http => "--http",
                Scheme::Https => "--https",
            };
            busy(flag, addr, &err)
        });
        Ok(Self {
            http: http?,
            admin: args
                .admin_addresses()
                .map_err(|why| anyhow!(why))?
                .into_iter()
                .map(|addr| Listener::bind(addr).map_err(|err| busy("--admin", addr, &err)))
                .collect::<anyhow::Result<_>>()?,
            stats: net::bind_alone(args.stats).map_err(busy_at("--stats", args.stats))?,
            gossip: gossip::Sockets::bind(args.gossip).map_err(busy_at("--gossip", args.gossip))?,
        })
    }

    pub(super) fn addresses(&self) -> io::Result<Addresses> {
        let first = self.http.first().into_iter().flatten();
        Ok(Addresses {
            http: first
                .map(|listener| Ok((listener.socket.local_addr()?, listener.scheme)))
                .collect::<io::Result<_>>()?,
            stats: self.stats.local_addr()?,
            gossip: self.gossip.local_addr()?,
            admin: self
                .admin
                .iter()
                .map(Listener::address)
                .collect::<io::Result<_>>()?,
        })
    }
}

impl Addresses {
    pub(super) fn count(&self) -> usize {
        // Statistics and gossip have one each.
        self.http.len() + self.admin.len() + 2
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("takes requests on")?;
        for (addr, scheme) in &self.http {
            match scheme {
                Scheme::Http => write!(f, " http://{addr}/")?,
                Scheme::Https => write!(f, " https://{addr}/")?,
            }
        }
        let Self { stats, gossip, .. } = self;
        write!(
            f,
            ", shows itself on http://{stats}/, gossips on {gossip} and "
        )?;
        if self.admin.is_empty() {
            return f.write_str("takes no commands");
        }
        f.write_str("is steered on")?;
        self.admin.iter().try_for_each(|addr| write!(f, " {addr}"))
    }
}

/// One line for an address that cannot be bound.
pub fn busy(flag: &str, addr: impl fmt::Display, err: &io::Error) -> anyhow::Error {
    let hint = match err.kind() {
        io::ErrorKind::AddrInUse => "stop what listens there, or choose another port",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need privilege: choose another, such as 8080"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        _ => "choose another address",
    };
    anyhow!("{flag} {addr} cannot be used: {err}; {hint}")
}
