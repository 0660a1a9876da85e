//! Where a node looks for its cluster first.
//!
//! Seeds may start after the nodes that look for them, and change their
//! address while they run, so they are resolved for ever.

use std::{collections::BTreeSet, fmt, io, net::SocketAddr, str::FromStr, time::Duration};

use tokio::{
    net::lookup_host,
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

/// The gossip port where none is given.
pub const DEFAULT_PORT: u16 = 7946;

/// With every seed among the members, names are resolved this often.
const PAUSE_COMPLETE: Duration = Duration::from_secs(15);
/// With peers, but not all seeds: one may come back at another address.
const PAUSE_INCOMPLETE: Duration = Duration::from_secs(1);
/// Without a peer for so long after the start, there is something to say.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most addresses that are used of all seeds together.
const MAX_ADDRESSES: usize = 64;
/// A resolver that does not answer counts as one that fails.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A node to join: `HOST[:PORT]`, every address of a name; the port is 7946
/// by default, an IPv6 address stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    host: String,
    port: u16,
}

/// Why a text is not a [`Seed`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeedError {
    /// There is no host.
    #[error("a seed is HOST or HOST:PORT, as in `ha:7946`")]
    Host,
    /// What follows the colon is not a port.
    #[error("{0:?} is not a port; it is a number from 1 to 65535")]
    Port(String),
    /// An IPv6 address without brackets, or with broken ones.
    #[error("write an IPv6 address in brackets, as in `[fd00::1]:7946`")]
    Brackets,
}

impl FromStr for Seed {
    type Err = SeedError;

    fn from_str(text: &str) -> Result<Self, SeedError> {
        let (host, port) = split(text)?;
        let sound = |c: char| c.is_ascii_graphic() && !"/@[]".contains(c);
        if host.is_empty() || !host.chars().all(sound) {
            return Err(SeedError::Host);
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => return Err(SeedError::Port(port.to_owned())),
                Ok(port) => port,
            },
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Host and port, if one is there.
fn split(text: &str) -> Result<(&str, Option<&str>), SeedError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(SeedError::Brackets)?;
        host.parse::<std::net::Ipv6Addr>()
            .map_err(|_| SeedError::Brackets)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(SeedError::Brackets),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Err(SeedError::Brackets),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Seed {
    /// A host at the default port.
    pub(super) fn at_default_port(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            port: DEFAULT_PORT,
        }
    }

    pub(super) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let found = timeout(
            RESOLVE_TIMEOUT,
            lookup_host((self.host.as_str(), self.port)),
        )
        .await??;
        let addresses: Vec<_> = found
            .map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()))
            .collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
        }
        Ok(addresses)
    }
}

/// Who of the cluster has been found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// Nobody.
    Alone,
    /// Somebody, but some seed is not a member.
    Incomplete,
    /// Every seed.
    Complete,
}

/// How long to wait before the next attempt, after so long without a peer.
pub(super) fn pause_alone(alone: Duration) -> Duration {
    match alone.as_secs() {
        0..10 => Duration::from_millis(250),
        _ => Duration::from_secs(1),
    }
}

/// Resolves the seeds for ever, and sends their addresses whenever they
/// change.
pub(super) async fn resolve_for_ever(
    seeds: Vec<Seed>,
    mut company: watch::Receiver<Company>,
    found: mpsc::Sender<Vec<SocketAddr>>,
) {
    let mut seeds: Vec<_> = seeds.into_iter().map(Watched::new).collect();
    let mut last = Vec::new();
    let mut alone_since = Instant::now();
    loop {
        let addresses = resolve_all(&mut seeds).await;
        if addresses != last {
            last.clone_from(&addresses);
            if found.send(addresses).await.is_err() {
                return;
            }
        }
        let found_now = *company.borrow_and_update();
        if found_now != Company::Alone {
            alone_since = Instant::now();
        }
        let pause = match found_now {
            Company::Alone => pause_alone(alone_since.elapsed()),
            Company::Incomplete => PAUSE_INCOMPLETE,
            Company::Complete => PAUSE_COMPLETE,
        };
        tokio::select! {
            () = sleep(pause) => {}
            gone = company.changed() => if gone.is_err() {
                return;
            }
        }
    }
}

/// Says so when nobody has answered for a while: a seed that is not there and
/// one that cannot read our packets are silent alike.
pub(super) async fn tell_of_silence(seeds: Vec<Seed>, mut company: watch::Receiver<Company>) {
    if seeds.is_empty() || timeout(PATIENCE, heard(&mut company)).await.is_ok() {
        return;
    }
    let tried: Vec<_> = seeds.iter().map(Seed::to_string).collect();
    warn!(
        "no load balancer has answered at {} yet; trying on. Is it up, is the cluster name the \
         same, and the key?",
        tried.join(", ")
    );
    if heard(&mut company).await {
        info!("the cluster has answered");
    }
}

/// Waits for the first peer; `false` when the node has ended.
async fn heard(company: &mut watch::Receiver<Company>) -> bool {
    let found = company.wait_for(|now| *now != Company::Alone).await;
    found.is_ok()
}

pub(super) async fn resolve_all(seeds: &mut [Watched]) -> Vec<SocketAddr> {
    let mut addresses = BTreeSet::new();
    for seed in seeds {
        addresses.extend(seed.resolve().await);
    }
    addresses.into_iter().take(MAX_ADDRESSES).collect()
}

/// A seed, and whether its name resolves; says so when that changes.
pub(super) struct Watched {
    seed: Seed,
    failing: bool,
    /// What it last resolved to: a resolver that fails for a while does not
    /// make the seeds forgotten.
    addresses: Vec<SocketAddr>,
}

impl Watched {
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            seed,
            failing: false,
            addresses: Vec::new(),
        }
    }

    async fn resolve(&mut self) -> Vec<SocketAddr> {
        match self.seed.resolve().await {
            Ok(addresses) => {
                if std::mem::take(&mut self.failing) {
                    let when = if self.addresses.is_empty() {
                        "now"
                    } else {
                        "again"
                    };
                    info!(seed = %self.seed, "the seed's name resolves {when}");
                }
                self.addresses = addresses;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(
                        seed = %self.seed, %error,
                        "the seed's name does not resolve; trying on. Is that container up, \
                         and on the same network?"
                    );
                }
            }
        }
        self.addresses.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_the_default_port_unless_it_says_another() {
        for (text, shown) in [
            ("ha", "ha:7946"),
            ("ha:1", "ha:1"),
            ("10.0.0.1", "10.0.0.1:7946"),
            ("[::1]", "[::1]:7946"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(text.parse::<Seed>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_wrong_seed_is_refused_with_what_is_wrong() {
        let error = |text: &str| text.parse::<Seed>().unwrap_err();
        for text in ["", ":1", "a b", "http//x"] {
            assert_eq!(error(text), SeedError::Host, "{text}");
        }
        for text in ["ha:", "ha:0", "ha:65536", "ha:x"] {
            assert!(matches!(error(text), SeedError::Port(_)), "{text}");
        }
        for text in ["::1", "fd00::1:7946", "[::1", "[x]:1", "[::1]7946"] {
            assert_eq!(error(text), SeedError::Brackets, "{text}");
        }
    }

    #[test]
    fn a_lone_node_tries_four_times_a_second_and_then_calms_down() {
        let pause = |secs| pause_alone(Duration::from_secs(secs)).as_millis();
        assert_eq!((pause(0), pause(59), pause(3600)), (250, 1000, 1000));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_sent_when_they_change_and_only_then() {
        let (company, has_company) = watch::channel(Company::Complete);
        let (sender, mut found) = mpsc::channel(1);
        let seeds = vec!["127.0.0.1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        let resolving = tokio::spawn(resolve_for_ever(seeds, has_company, sender));
        assert_eq!(
            found.recv().await,
            Some(vec!["127.0.0.1:7946".parse().unwrap()])
        );
        let quiet = timeout(Duration::from_secs(100), found.recv()).await;
        assert!(quiet.is_err());
        drop(company);
        resolving.await.unwrap();
    }
}
