//! Lifelines: what shows at once that a process ended.
//!
//! Every agent keeps one idle TCP connection to each balancer it knows. When
//! its process ends, however it ends, its kernel closes the connection, and
//! the balancer knows in the time of one packet. The other way round the agent
//! sees that a balancer ended, and looks for its next life.
//!
//! A line carries one frame, which says whose it is, and another one before
//! it is closed on purpose; in between nothing.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    frame::{self, SMALL},
    wire::{Envelope, Kind},
};
use crate::membership::{MemberId, MemberState, MemberView, Role};

/// The most lines that one agent keeps: more balancers than anyone runs, and
/// a forged table does not make it open thousands of connections.
const MAX_KEPT: usize = 64;
/// For connecting and saying who we are.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Between attempts to reach a balancer that is there by all accounts.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// A line that held for so long was a good one: the pauses start anew.
const STEADY: Duration = Duration::from_secs(5);
/// For closing every line at the end.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(100);
/// Where the other host vanished, its silence ends the line.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_PROBES: u32 = 3;

// --- the balancer's end ---

/// What became of a line that somebody keeps to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineNews {
    /// It stands.
    Opened(MemberId),
    /// It ended on purpose, or by our own hand.
    Closed(MemberId),
    /// It ended without a word.
    Broke(MemberId),
}

/// Waits for the end of a line and tells it.
pub(super) async fn watch(
    mut stream: TcpStream,
    id: MemberId,
    envelope: &Envelope,
    news: &mpsc::Sender<LineNews>,
) {
    // Without it a vanished host is noticed all the same, by gossip.
    keep_alive(&stream).ok();
    if news.send(LineNews::Opened(id)).await.is_err() {
        return;
    }
    let end = match frame::read(&mut stream, envelope, SMALL).await {
        // Be it a goodbye or nonsense: there is somebody who says it.
        Ok(_) => LineNews::Closed(id),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => LineNews::Closed(id),
        Err(_) => LineNews::Broke(id),
    };
    drop(stream);
    // Nobody left to tell: this node has ended.
    news.send(end).await.ok();
}

/// How many lines stand for each life of a member. For a moment that may be
/// two, where one is replaced.
#[derive(Debug, Default)]
pub(super) struct Lines {
    standing: HashMap<MemberId, usize>,
}

impl Lines {
    /// Takes in news, and returns the member that hung up by it: whose last
    /// line ended without a word.
    pub(super) fn follow(&mut self, news: LineNews) -> Option<MemberId> {
        match news {
            LineNews::Opened(id) => {
                *self.standing.entry(id).or_default() += 1;
                None
            }
            LineNews::Closed(id) => {
                self.lose(id);
                None
            }
            LineNews::Broke(id) => self.lose(id).then_some(id),
        }
    }

    /// The members that keep one.
    pub(super) fn count(&self) -> usize {
        self.standing.len()
    }

    /// Whether it was the last one.
    fn lose(&mut self, id: MemberId) -> bool {
        let Some(count) = self.standing.get_mut(&id) else {
            return false;
        };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        self.standing.remove(&id);
        true
    }
}

// --- the agent's end ---

/// The lines that this node keeps: one to each balancer, where it is itself
/// an agent.
#[derive(Debug)]
pub(super) struct Keeper {
    envelope: Arc<Envelope>,
    /// Told of each balancer whose end of a line closed.
    lost: mpsc::Sender<MemberId>,
    /// Before `kept`: when all is dropped, as in a crash, they must end
    /// without a goodbye.
    tasks: JoinSet<()>,
    /// For whom the lines speak.
    own: Option<MemberId>,
    /// Dropping the sender closes the line.
    kept: BTreeMap<MemberId, oneshot::Sender<()>>,
}

impl Keeper {
    pub(super) fn new(envelope: Arc<Envelope>, lost: mpsc::Sender<MemberId>) -> Self {
        Self {
            envelope,
            lost,
            tasks: JoinSet::new(),
            own: None,
            kept: BTreeMap::new(),
        }
    }

    /// Opens and closes lines after what is now known of the cluster; returns
    /// the balancers that are gone.
    pub(super) fn follow(&mut self, members: &[MemberView]) -> Vec<MemberId> {
        while self.tasks.try_join_next().is_some() {}
        let Some(own) = members.iter().find(|row| row.local).and_then(agent) else {
            return Vec::new();
        };
        if self.own != Some(own) {
            // A line speaks for one life of ours: this is another.
            self.own = Some(own);
            self.kept.clear();
        }
        let balancers: Vec<_> = members.iter().filter_map(balancer).collect();
        let gone: Vec<_> = self
            .kept
            .extract_if(.., |id, _| !balancers.contains(id))
            .map(|(id, _)| id)
            .collect();
        for id in balancers {
            self.keep(id, own);
        }
        gone
    }

    fn keep(&mut self, balancer: MemberId, own: MemberId) {
        if self.kept.len() >= MAX_KEPT || self.kept.contains_key(&balancer) {
            return;
        }
        let (close, closed) = oneshot::channel();
        let line = Line {
            balancer,
            own,
            envelope: Arc::clone(&self.envelope),
            lost: self.lost.clone(),
            closed,
        };
        self.tasks.spawn(line.keep());
        self.kept.insert(balancer, close);
    }

    /// Closes every line with a goodbye.
    pub(super) async fn farewell(mut self) {
        self.kept.clear();
        let closing = async { while self.tasks.join_next().await.is_some() {} };
        timeout(FAREWELL_TIMEOUT, closing).await.ok();
    }
}

/// This node, if it is to keep lines.
fn agent(local: &MemberView) -> Option<MemberId> {
    let meta = local.meta.as_ref()?;
    let keeps = matches!(meta.role, Role::Server(_)) && local.state == MemberState::Alive;
    keeps.then_some(local.id)
}

/// A member to keep a line to.
fn balancer(row: &MemberView) -> Option<MemberId> {
    let meta = row.meta.as_ref()?;
    let there = matches!(row.state, MemberState::Alive | MemberState::Suspect);
    (there && !row.local && meta.role == Role::Balancer).then_some(row.id)
}

/// One line, for as long as its balancer is there.
struct Line {
    balancer: MemberId,
    own: MemberId,
    envelope: Arc<Envelope>,
    lost: mpsc::Sender<MemberId>,
    /// Resolves when the line is to be closed.
    closed: oneshot::Receiver<()>,
}

impl Line {
    async fn keep(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let opened = tokio::select! {
                biased;
                _ = &mut self.closed => return,
                opened = open(self.balancer.addr, self.own, &self.envelope) => opened,
            };
            if let Ok(mut stream) = opened {
                let begun = Instant::now();
                tokio::select! {
                    biased;
                    _ = &mut self.closed => {
                        // What cannot be said any more need not be.
                        frame::write(&mut stream, &self.envelope, Kind::Goodbye, &[]).await.ok();
                        return;
                    }
                    () = end_of(&mut stream) => {}
                }
                // Closed at once: who listens sees the next life's packets in peace.
                drop(stream);
                if self.lost.send(self.balancer).await.is_err() {
                    return;
                }
                if begun.elapsed() >= STEADY {
                    pause = FIRST_PAUSE;
                }
            }
            tokio::select! {
                biased;
                _ = &mut self.closed => return,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}

async fn open(to: SocketAddr, own: MemberId, envelope: &Envelope) -> io::Result<TcpStream> {
    timeout(CONNECT_TIMEOUT, async {
        let mut stream = TcpStream::connect(to).await?;
        keep_alive(&stream)?;
        let greeting = postcard::to_allocvec(&own).map_err(io::Error::other)?;
        frame::write(&mut stream, envelope, Kind::Lifeline, &greeting).await?;
        Ok(stream)
    })
    .await?
}

/// Nothing is ever said on a line to us: whatever can be read ends it.
async fn end_of(stream: &mut TcpStream) {
    stream.read_u8().await.ok();
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let settings = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(epoch: u64) -> MemberId {
        MemberId {
            addr: "10.0.0.1:7946".parse().unwrap(),
            epoch,
        }
    }

    fn hung_up(news: impl IntoIterator<Item = LineNews>) -> Vec<MemberId> {
        let mut lines = Lines::default();
        news.into_iter()
            .filter_map(|news| lines.follow(news))
            .collect()
    }

    #[test]
    fn only_the_last_line_of_a_life_that_breaks_is_its_hanging_up() {
        use LineNews::{Broke, Closed, Opened};
        let (old, new) = (id(1), id(2));
        assert_eq!(hung_up([Opened(old), Broke(old)]), [old]);
        assert_eq!(hung_up([Opened(old), Closed(old)]), []);
        assert_eq!(hung_up([Opened(old), Opened(old), Broke(old)]), []);
        assert_eq!(hung_up([Opened(old), Opened(new), Broke(old)]), [old]);
        assert_eq!(hung_up([Broke(old)]), []);
    }
}
