//! The agent's own look at its app: does it accept connections, where the
//! load balancers will make them?

use std::{net::SocketAddr, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::{
    health::probe::{Way, probe},
    pool::{server::Check, transport::Transport},
    tls::Connector,
};

/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(2);

/// An app that has not accepted after this time may be listening elsewhere.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a look at the app is.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) check: Check,
    /// As load balancers connect to it.
    pub(super) transport: Transport,
}

/// Looks at one start of the app, until dropped.
#[derive(Debug)]
pub(super) struct LocalCheck {
    accepting: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

impl LocalCheck {
    /// Begins to look, the first time at once. Until then the app counts as
    /// not accepting.
    pub(super) fn start(addr: SocketAddr, look: Look) -> Self {
        Self::begin(Verdict::Starting, addr, look)
    }

    /// Goes on looking at another address, at an app that was accepting.
    pub(super) fn go_on(addr: SocketAddr, look: Look) -> Self {
        Self::begin(Verdict::Accepting { failures: 0 }, addr, look)
    }

    fn begin(verdict: Verdict, addr: SocketAddr, look: Look) -> Self {
        let (report, accepting) = watch::channel(verdict.accepts());
        let task = tokio::spawn(keep_looking(verdict, addr, look, report));
        Self {
            accepting,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Waits for a change, and says whether the app accepts now. Cancel safe.
    pub(super) async fn changed(&mut self) -> bool {
        if self.accepting.changed().await.is_err() {
            return std::future::pending().await;
        }
        *self.accepting.borrow_and_update()
    }
}

async fn keep_looking(
    mut verdict: Verdict,
    addr: SocketAddr,
    look: Look,
    report: watch::Sender<bool>,
) {
    let Look { check, transport } = look;
    // An app's certificate is for the load balancers to look at.
    let connector = Connector::new(None, false).ok().filter(|_| transport.tls);
    let host = addr.to_string();
    let mut hint_at = Some(Instant::now() + PATIENCE);
    loop {
        let began = Instant::now();
        let way = Way {
            transport: &transport,
            connector: connector.as_ref(),
        };
        let outcome = probe(addr, way, &check, &host, LIMIT).await;
        let before = verdict;
        verdict = before.after(outcome.code.passed());
        let why = outcome.code.description();
        match (before.accepts(), verdict.accepts()) {
            (false, true) => info!("the app accepts connections on {addr}"),
            (true, false) => warn!("the app does not accept connections on {addr}: {why}"),
            (false, false) if hint_at.is_some_and(|at| at <= began) => {
                hint_at = None;
                warn!(
                    "the app does not accept connections on {addr} yet ({why}); \
                     load balancers connect there, so it must listen on that port, \
                     and on 0.0.0.0 rather than on 127.0.0.1"
                );
            }
            _ => {}
        }
        report.send_if_modified(|accepting| {
            std::mem::replace(accepting, verdict.accepts()) != verdict.accepts()
        });
        sleep_until(began + verdict.pause()).await;
    }
}

/// What is thought of the app, from look to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It has not accepted since it started.
    Starting,
    /// It accepts; so many looks in a row have failed since it last did.
    Accepting { failures: u8 },
    /// It accepted once and does not any more.
    Refusing,
}

impl Verdict {
    /// Failures in a row that end the trust: one may be a full backlog.
    const FALL: u8 = 3;

    fn after(self, passed: bool) -> Self {
        match self {
            _ if passed => Self::Accepting { failures: 0 },
            Self::Accepting { failures } if failures + 1 < Self::FALL => Self::Accepting {
                failures: failures + 1,
            },
            Self::Accepting { .. } => Self::Refusing,
            unproven => unproven,
        }
    }

    fn accepts(self) -> bool {
        matches!(self, Self::Accepting { .. })
    }

    /// Time from one look to the next.
    fn pause(self) -> Duration {
        Duration::from_millis(match self {
            Self::Starting => 50,
            Self::Accepting { .. } => 1000,
            Self::Refusing => 100,
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, time::timeout};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn verdict_after(looks: &[bool]) -> Verdict {
        looks
            .iter()
            .fold(Verdict::Starting, |verdict, passed| verdict.after(*passed))
    }

    #[test]
    fn one_good_look_is_enough_and_three_bad_ones_end_it() {
        assert!(!verdict_after(&[false, false]).accepts());
        assert!(verdict_after(&[false, true]).accepts());
        assert!(verdict_after(&[true, false, false]).accepts());
        assert!(verdict_after(&[true, false, false, true, false, false]).accepts());
        assert!(!verdict_after(&[true, false, false, false]).accepts());
        assert!(verdict_after(&[true, false, false, false, true]).accepts());
    }

    #[test]
    fn an_app_is_looked_at_often_while_it_is_waited_for() {
        assert_eq!(verdict_after(&[]).pause().as_millis(), 50);
        assert_eq!(verdict_after(&[true]).pause().as_millis(), 1000);
        assert_eq!(
            verdict_after(&[true, false, false, false])
                .pause()
                .as_millis(),
            100
        );
    }

    fn tcp() -> Look {
        Look {
            check: Check::Tcp,
            transport: Transport::default(),
        }
    }

    #[tokio::test]
    async fn an_app_that_does_not_accept_at_its_new_address_is_found_out() {
        let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = reserved.local_addr().unwrap();
        drop(reserved);
        let mut check = LocalCheck::go_on(addr, tcp());
        let accepting = timeout(DEADLINE, check.changed()).await;
        assert!(!accepting.expect("it is found out"));
    }

    #[tokio::test]
    async fn an_app_is_seen_as_soon_as_it_listens() {
        let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = reserved.local_addr().unwrap();
        drop(reserved);
        let mut check = LocalCheck::start(addr, tcp());
        let early = timeout(Duration::from_millis(200), check.changed()).await;
        assert!(early.is_err(), "nobody listens yet");

        let _listener = TcpListener::bind(addr).await.unwrap();
        assert!(
            timeout(DEADLINE, check.changed())
                .await
                .expect("it is seen")
        );
    }
}
