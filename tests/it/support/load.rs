//! Load as users bring it: kept connections, one request after another on
//! each, every failure noted with what it was.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    client::{Answer, Client},
    eventually, ledger,
};

/// The longest that a load goes on, whatever its test does.
const LONGEST: Duration = Duration::from_mins(1);

/// What is behind the load balancer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site {
    /// POSTs something that is known by this number.
    pub(crate) post: fn(&mut Client, u64) -> io::Result<Answer>,
    /// The server that gave an answer.
    pub(crate) server: fn(&Answer) -> String,
}

/// The toy servers, which keep a record of the POSTs.
const TOYS: Site = Site {
    post: |client, id| client.post(&id.to_string()),
    server: Answer::server,
};

/// A load that is running.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
    report: Arc<Mutex<Report>>,
}

/// What came of a load.
#[derive(Debug, Default, Clone)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) failed: Vec<Failed>,
    /// Of those that were answered with 200.
    pub(crate) slowest: Duration,
    pub(crate) by_server: BTreeMap<String, u64>,
    /// The number of each POST, and whether it was answered with 200.
    pub(crate) posts: Vec<(u64, bool)>,
}

/// A request that was not answered with 200.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) method: &'static str,
    pub(crate) why: String,
    pub(crate) at: Instant,
    /// It was the first on its connection: where nobody takes connections,
    /// nothing that was accepted is lost.
    pub(crate) first: bool,
}

impl Load {
    /// 16 connections, every fifth request a POST, until stopped.
    pub(crate) fn start(addr: SocketAddr) -> Self {
        Self::with(addr, 16)
    }

    /// The same over as many connections as are asked for.
    pub(crate) fn with(addr: SocketAddr, connections: usize) -> Self {
        Self::on(TOYS, addr, connections)
    }

    /// The same on another site.
    pub(crate) fn on(site: Site, addr: SocketAddr, connections: usize) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let sent = Arc::<AtomicU64>::default();
        let report = Arc::<Mutex<Report>>::default();
        let threads = (0..connections)
            .map(|index| {
                let (stop, sent, report) = (stop.clone(), sent.clone(), report.clone());
                thread::spawn(move || {
                    let part = one_connection(site, addr, index as u64, &stop, &sent);
                    report.lock().unwrap().add(part);
                })
            })
            .collect();
        Self {
            stop,
            sent,
            threads,
            report,
        }
    }

    /// Waits until so many more requests have been sent. However slowly they
    /// are: the deadline is for the next of them.
    #[track_caller]
    pub(crate) fn go_on_for(&self, requests: u64) {
        let mut sent = self.sent.load(Relaxed);
        let goal = sent + requests;
        while sent < goal {
            sent = eventually("the load goes on", || {
                let now = self.sent.load(Relaxed);
                (now > sent).then_some(now)
            });
        }
    }

    /// Ends the load and says what came of it.
    pub(crate) fn stop(self) -> Report {
        self.stop.store(true, Relaxed);
        for thread in self.threads {
            thread.join().expect("a load thread");
        }
        self.report.lock().unwrap().clone()
    }
}

impl Report {
    /// The requests of one method that failed.
    pub(crate) fn failed(&self, method: &str) -> Vec<&Failed> {
        self.failed
            .iter()
            .filter(|failed| failed.method == method)
            .collect()
    }

    fn add(&mut self, part: Self) {
        self.requests += part.requests;
        self.failed.extend(part.failed);
        self.slowest = self.slowest.max(part.slowest);
        self.posts.extend(part.posts);
        for (server, requests) in part.by_server {
            *self.by_server.entry(server).or_default() += requests;
        }
    }
}

fn one_connection(
    site: Site,
    addr: SocketAddr,
    index: u64,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> Report {
    let start = Instant::now();
    let mut report = Report::default();
    let mut client = None;
    while !stop.load(Relaxed) && start.elapsed() < LONGEST {
        let post = (report.requests + index)
            .is_multiple_of(5)
            .then(ledger::new_id);
        let method = if post.is_some() { "POST" } else { "GET" };
        let began = Instant::now();
        let first = client.is_none();
        let outcome = one_request(site, &mut client, addr, post);
        report.posts.extend(post.map(|id| (id, outcome.is_ok())));
        report.requests += 1;
        sent.fetch_add(1, Relaxed);
        match outcome {
            Ok(server) => {
                report.slowest = report.slowest.max(began.elapsed());
                *report.by_server.entry(server).or_default() += 1;
            }
            Err(why) => {
                client = None;
                let at = began;
                report.failed.push(Failed {
                    method,
                    why,
                    at,
                    first,
                });
            }
        }
    }
    report
}

fn one_request(
    site: Site,
    client: &mut Option<Client>,
    addr: SocketAddr,
    post: Option<u64>,
) -> Result<String, String> {
    let mut connected = match client.take() {
        Some(client) => client,
        None => Client::connect(addr).map_err(|err| format!("connect: {err}"))?,
    };
    let answer = match post {
        Some(id) => (site.post)(&mut connected, id),
        None => connected.get(&[]),
    };
    let answer = answer.map_err(|err| err.to_string())?;
    if answer.status != 200 {
        return Err(format!("status {}", answer.status));
    }
    if answer.header("connection") != Some("close") {
        *client = Some(connected);
    }
    Ok((site.server)(&answer))
}
