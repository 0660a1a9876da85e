//! Health: looks at servers from here, and reports to the pool's writer.
//!
//! One task per server that is to be probed, kept in step with the pool's
//! snapshot. What a result means is the writer's business.

pub mod probe;
pub mod resolve;

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use self::probe::{Way, probe};
use crate::{
    pool::{
        Input, Reader, Snapshot,
        server::{Check, Life, Probe},
        transport::Transport,
    },
    tls::Connector,
};

/// First checks are spread over this time, so that many servers known at once
/// are not all called in the same instant.
const SPREAD: Duration = Duration::from_millis(100);

/// Runs as long as the pool has a writer: probes what the newest snapshot
/// says is to be probed, and nothing else.
pub async fn run(mut reader: Reader, inputs: mpsc::Sender<Input>, connector: Connector) {
    let mut probers = HashMap::new();
    let mut known = Arc::<Snapshot>::default();
    loop {
        let newest = reader.load();
        keep_in_step(&mut probers, &known, &newest, &inputs, &connector);
        known = newest;
        tokio::select! {
            () = reader.changed() => {}
            () = inputs.closed() => return,
        }
    }
}

/// How one server is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    probe: Probe,
    transport: Transport,
}

/// The task that probes one life of one server, and the way to tell it a new
/// plan. Ends with its handle.
struct Prober {
    plan: watch::Sender<Plan>,
    _task: AbortOnDropHandle<()>,
}

impl Prober {
    fn start(
        life: Life,
        addr: SocketAddr,
        plan: Plan,
        inputs: mpsc::Sender<Input>,
        connector: &Connector,
    ) -> Self {
        let (plan, plans) = watch::channel(plan);
        let task = tokio::spawn(keep_probing(life, addr, plans, connector.clone(), inputs));
        Self {
            plan,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Tells the task the plan, where that is news.
    fn follow(&self, plan: &Plan) {
        self.plan.send_if_modified(|current| {
            let news = current != plan;
            if news {
                current.clone_from(plan);
            }
            news
        });
    }
}

fn keep_in_step(
    probers: &mut HashMap<Life, Prober>,
    known: &Snapshot,
    newest: &Snapshot,
    inputs: &mpsc::Sender<Input>,
    connector: &Connector,
) {
    for (was, is) in newest.changed_since(known) {
        let former = was.and_then(|was| Some((was.life, probers.remove(&was.life)?)));
        let Some(server) = is else {
            continue;
        };
        let (Some(addr), Some(probe)) = (server.addr, &server.probe) else {
            continue;
        };
        let plan = Plan {
            probe: probe.clone(),
            transport: server.transport.clone(),
        };
        let prober = match former {
            Some((life, prober)) if life == server.life => prober,
            _ => Prober::start(server.life, addr, plan.clone(), inputs.clone(), connector),
        };
        prober.follow(&plan);
        probers.insert(server.life, prober);
    }
}

async fn keep_probing(
    life: Life,
    addr: SocketAddr,
    mut plans: watch::Receiver<Plan>,
    connector: Connector,
    inputs: mpsc::Sender<Input>,
) {
    let host = addr.to_string();
    let Plan {
        probe: mut plan,
        mut transport,
    } = plans.borrow_and_update().clone();
    let mut last = Instant::now();
    let mut due = last + first_pause(&plan);
    let mut sent = 0;
    loop {
        tokio::select! {
            biased;
            changed = plans.changed() => {
                if changed.is_err() {
                    return;
                }
                Plan { probe: plan, transport } = plans.borrow_and_update().clone();
                // The check before the change still counts: a plan that says
                // "more often" takes effect from there.
                if sent > 0 {
                    due = last + pause(&plan, sent);
                }
            }
            () = sleep_until(due) => {
                last = Instant::now();
                let at = target(&plan, addr);
                // What listens elsewhere is none that users come to.
                let transport = if at == addr { &transport } else { &Transport::default() };
                let way = Way { transport, connector: Some(&connector) };
                let limit = limit(&plan, sent, transport.tls);
                let report = probe(at, way, check(&plan), &host, limit).await;
                sent += 1;
                due = last + pause(&plan, sent);
                if inputs.send(Input::Probed(life, report)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What a probe does. Recovery only asks whether the door is open again.
fn check(plan: &Probe) -> &Check {
    match plan {
        Probe::Check { check, .. } => check,
        Probe::Recovery | Probe::Confirm => &Check::Tcp,
    }
}

/// Where a probe of a server at `addr` connects to.
fn target(plan: &Probe, addr: SocketAddr) -> SocketAddr {
    match plan {
        Probe::Check { at, .. } => at.resolve(addr),
        Probe::Recovery | Probe::Confirm => addr,
    }
}

/// How long the first probe of a server waits.
fn first_pause(plan: &Probe) -> Duration {
    match plan {
        Probe::Check { interval, .. } => (*interval).min(SPREAD).mul_f64(rand::random()),
        Probe::Recovery | Probe::Confirm => Duration::ZERO,
    }
}

/// Time from one probe to the next, after `sent` of them.
fn pause(plan: &Probe, sent: u32) -> Duration {
    match plan {
        Probe::Check { interval, .. } => *interval,
        Probe::Recovery => doubling(Duration::from_millis(100), sent.saturating_sub(1)),
        // An agent and its app end about a millisecond apart.
        Probe::Confirm => Duration::from_millis(10),
    }
}

/// How long a probe may take, after `sent` others.
fn limit(plan: &Probe, sent: u32, tls: bool) -> Duration {
    // A handshake takes both sides' time, and many may join at once.
    let shaking = if tls {
        Duration::from_secs(1)
    } else {
        Duration::ZERO
    };
    match plan {
        Probe::Check { interval, .. } => *interval,
        // A host that is gone gives no answer; a long wait for it would only
        // delay the look after it has come back.
        Probe::Recovery => shaking + doubling(Duration::from_millis(250), sent),
        Probe::Confirm => shaking + Duration::from_millis(250),
    }
}

/// `start`, doubled `times` times, a second at the most.
fn doubling(start: Duration, times: u32) -> Duration {
    const MOST: Duration = Duration::from_secs(1);
    start.saturating_mul(2_u32.saturating_pow(times)).min(MOST)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        membership::Name,
        pool::{
            Status, Writer,
            rise_fall::Thresholds,
            server::{Cause, CheckAt, CheckCode},
            state::{CheckPlan, Fault, State, StaticServer},
        },
    };

    fn connector() -> Connector {
        Connector::new(None, true).unwrap()
    }

    const DEADLINE: Duration = Duration::from_secs(10);

    /// A pool of one server, `s1` at `addr`, with its writer and keeper running.
    struct Pool {
        reader: Reader,
        inputs: mpsc::Sender<Input>,
        _tasks: [AbortOnDropHandle<()>; 2],
    }

    impl Pool {
        fn start(addr: SocketAddr, check: Option<CheckPlan>) -> Self {
            Self::start_tagged(addr, check, &[])
        }

        fn start_tagged(addr: SocketAddr, check: Option<CheckPlan>, tags: &[(&str, &str)]) -> Self {
            let tags = tags
                .iter()
                .map(|(tag, value)| ((*tag).into(), (*value).into()));
            let service: Name = "nodes".parse().unwrap();
            let server = StaticServer {
                name: "s1".parse().unwrap(),
                target: addr.to_string(),
                weight: 1,
                check,
                tags: tags.collect(),
            };
            let state = State::new(service, vec![server], Instant::now());
            let (writer, inputs, reader) = Writer::new("nodes".into(), state);
            let tasks = [
                tokio::spawn(writer.run()),
                tokio::spawn(run(reader.clone(), inputs.clone(), connector())),
            ];
            Self {
                reader,
                inputs,
                _tasks: tasks.map(AbortOnDropHandle::new),
            }
        }

        fn life(&self) -> Life {
            self.reader.load().by_name("s1").unwrap().life
        }

        async fn until(&mut self, wanted: impl Fn(&crate::pool::Server) -> bool) {
            let reached = async {
                while !wanted(self.reader.load().by_name("s1").unwrap()) {
                    self.reader.changed().await;
                }
            };
            tokio::time::timeout(DEADLINE, reached)
                .await
                .expect("the pool never got there");
        }
    }

    async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    fn every(interval: Duration) -> CheckPlan {
        CheckPlan {
            check: Check::Tcp,
            interval,
            thresholds: Thresholds {
                rise: NonZeroU16::new(2).unwrap(),
                fall: NonZeroU16::new(3).unwrap(),
            },
        }
    }

    #[tokio::test]
    async fn a_checked_server_goes_down_with_its_listener_and_comes_back_with_it() {
        let (listener, addr) = listen().await;
        let mut pool = Pool::start(addr, Some(every(Duration::from_millis(20))));
        pool.until(|s1| s1.status == Status::Up).await;

        drop(listener);
        pool.until(|s1| matches!(s1.status, Status::Down(_))).await;

        let _listener = TcpListener::bind(addr).await.unwrap();
        pool.until(|s1| s1.status == Status::Up).await;
    }

    #[tokio::test]
    async fn a_server_over_tls_that_nobody_can_be_believed_for_is_down_and_says_what_to_do() {
        let (_listener, addr) = listen().await;
        let every = every(Duration::from_millis(20));
        let mut pool = Pool::start_tagged(addr, Some(every), &[("tls", "1")]);
        pool.until(|s1| s1.status == Status::Down(Cause::Check))
            .await;
        let s1 = Arc::clone(pool.reader.load().by_name("s1").unwrap());
        let check = s1.last_check.clone().unwrap();
        assert_eq!(check.code, CheckCode::L6Response);
        assert!(check.info.unwrap().contains("tls=1 needs --server-ca"));
    }

    #[tokio::test]
    async fn an_unchecked_server_is_probed_only_from_a_refusal_to_its_return() {
        let (listener, addr) = listen().await;
        let mut pool = Pool::start(addr, None);
        drop(listener);
        pool.inputs
            .send(Input::Fault(pool.life(), Fault::Refused))
            .await
            .unwrap();
        pool.until(|s1| s1.status == Status::Down(Cause::Refused) && s1.last_check.is_some())
            .await;

        let listener = TcpListener::bind(addr).await.unwrap();
        pool.until(|s1| s1.status == Status::Up && s1.probe.is_none())
            .await;

        // The probe that found it back is in the backlog; no other follows.
        while let Ok(accepted) =
            tokio::time::timeout(Duration::from_millis(300), listener.accept()).await
        {
            assert!(accepted.is_ok());
            assert!(pool.reader.load().by_name("s1").unwrap().probe.is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_plan_that_says_more_often_takes_effect_from_the_last_check() {
        let (_listener, addr) = listen().await;
        let (inputs, mut reports) = mpsc::channel(8);
        let plan = |seconds| Plan {
            probe: Probe::Check {
                check: Check::Tcp,
                interval: Duration::from_secs(seconds),
                at: CheckAt::default(),
            },
            transport: Transport::default(),
        };
        let prober = Prober::start(Life(1), addr, plan(60), inputs, &connector());
        reports.recv().await.unwrap();
        let first = Instant::now();

        tokio::time::advance(Duration::from_secs(10)).await;
        prober.follow(&plan(15));
        reports.recv().await.unwrap();

        let between = first.elapsed().as_secs_f64();
        assert!((14.0..16.0).contains(&between), "{between}");
    }

    #[test]
    fn recovery_looks_often_at_first_and_once_a_second_in_the_end() {
        let pauses = [1, 2, 3, 4, 5, 40].map(|sent| pause(&Probe::Recovery, sent).as_millis());
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        let limits = [0, 1, 2, 3, 40].map(|sent| limit(&Probe::Recovery, sent, false).as_millis());
        assert_eq!(limits, [250, 500, 1000, 1000, 1000]);
    }
}
