//! What the outside can ask of the workers while they serve: which sessions
//! there are, to end some of them, to forget what was counted, and to stop
//! accepting for a while.
//!
//! A session is a request under way, or a tunnel. Each worker knows its own
//! connections and its own figures and nobody else's, so a question goes to
//! all of them.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{broadcast, mpsc, watch},
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use super::ledger::Ledger;
use crate::{
    counters::Forget,
    pool::server::{Life, Live},
};

/// Questions that a worker has not looked at yet, at the most: it looks at
/// once, unless it is stuck, and then it need not hear all of them.
const QUESTIONS: usize = 16;

/// How long workers may take to answer. They take less than a millisecond.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the workers. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Control {
    questions: broadcast::Sender<Question>,
    accepts: Arc<watch::Sender<bool>>,
    next_id: Arc<AtomicU64>,
}

/// A request under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Its connection's number, which no other connection has.
    pub id: u64,
    /// The client.
    pub peer: SocketAddr,
    /// The server that has it, once one was chosen.
    pub server: Option<Life>,
    /// When it began.
    pub since: Instant,
}

/// Sessions to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one on the connection of this number.
    Id(u64),
    /// Those that a server has.
    Server(Life),
}

/// Figures that are to be forgotten, and how far.
#[derive(Debug, Clone)]
pub struct Clearing {
    /// What of them.
    pub what: Forget,
    /// The servers whose figures are meant.
    pub servers: Arc<[Arc<Live>]>,
    /// Whether the frontend's and the backend's are meant as well.
    pub totals: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Question {
    List(mpsc::Sender<Vec<Session>>),
    End(Which, mpsc::Sender<usize>),
    Clear(Clearing, mpsc::Sender<()>),
}

impl Default for Control {
    fn default() -> Self {
        Self {
            questions: broadcast::Sender::new(QUESTIONS),
            accepts: Arc::new(watch::Sender::new(true)),
            next_id: Arc::default(),
        }
    }
}

impl Control {
    /// The sessions there are now, in the order in which they began.
    pub async fn sessions(&self) -> Vec<Session> {
        let mut sessions = self.ask(Question::List).await.said.concat();
        sessions.sort_by_key(|session| session.since);
        sessions
    }

    /// Ends sessions by closing their clients' connections, and says how many.
    pub async fn end(&self, which: Which) -> usize {
        let ended = self.ask(|answers| Question::End(which, answers)).await;
        ended.said.into_iter().sum()
    }

    /// Has each worker forget what it counted itself. Says whether all of them
    /// have done so; one that is stuck may do it later.
    pub async fn clear(&self, clearing: Clearing) -> bool {
        self.ask(|answers| Question::Clear(clearing, answers))
            .await
            .whole
    }

    /// Has the workers accept connections, or refuse them. Says whether that
    /// is a change.
    pub fn set_accepting(&self, accepts: bool) -> bool {
        self.accepts
            .send_if_modified(|current| std::mem::replace(current, accepts) != accepts)
    }

    /// Whether connections are accepted.
    pub fn is_accepting(&self) -> bool {
        *self.accepts.borrow()
    }

    /// Tells a worker whether to accept.
    pub(super) fn follow_accepting(&self) -> watch::Receiver<bool> {
        self.accepts.subscribe()
    }

    /// The questions from now on.
    pub(super) fn hear(&self) -> broadcast::Receiver<Question> {
        self.questions.subscribe()
    }

    async fn ask<T>(&self, question: impl FnOnce(mpsc::Sender<T>) -> Question) -> Answers<T> {
        // Each worker answers once.
        let workers = self.questions.receiver_count().max(1);
        let (sender, mut answers) = mpsc::channel(workers);
        // An error only says that there is no worker.
        let asked = self.questions.send(question(sender)).unwrap_or(0);
        let give_up = Instant::now() + PATIENCE;
        let mut said = Vec::with_capacity(asked);
        while said.len() < asked
            && let Ok(Some(answer)) = timeout_at(give_up, answers.recv()).await
        {
            said.push(answer);
        }
        let whole = said.len() == asked;
        Answers { said, whole }
    }
}

/// What the workers answered.
struct Answers<T> {
    said: Vec<T>,
    /// Whether every one of them did, and in time.
    whole: bool,
}

/// One worker's connections.
#[derive(Debug, Default)]
pub(super) struct Connections(RefCell<HashMap<u64, Known>>);

#[derive(Debug)]
struct Known {
    talk: Rc<Talk>,
    task: AbortHandle,
}

/// What a connection does now.
#[derive(Debug)]
pub(super) struct Talk {
    id: u64,
    peer: Cell<SocketAddr>,
    request_since: Cell<Option<Instant>>,
    server: Cell<Option<Life>>,
    ended_by_operator: Cell<bool>,
}

impl Talk {
    pub(super) fn new(control: &Control, peer: SocketAddr) -> Rc<Self> {
        Rc::new(Self {
            id: control.next_id.fetch_add(1, Relaxed) + 1,
            peer: Cell::new(peer),
            request_since: Cell::new(None),
            server: Cell::new(None),
            ended_by_operator: Cell::new(false),
        })
    }

    /// The client.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer.get()
    }

    /// It has said on whose behalf it is there.
    pub(super) fn introduce(&self, peer: SocketAddr) {
        self.peer.set(peer);
    }

    /// A request began.
    pub(super) fn begin(&self, now: Instant) {
        self.request_since.set(Some(now));
        self.server.set(None);
    }

    /// A server has the request.
    pub(super) fn goes_to(&self, server: Life) {
        self.server.set(Some(server));
    }

    /// No server has it for now.
    pub(super) fn goes_nowhere(&self) {
        self.server.set(None);
    }

    /// The request ended.
    pub(super) fn end(&self) {
        self.request_since.set(None);
    }

    /// Whether it was an operator who ended it.
    pub(super) fn ended_by_operator(&self) -> bool {
        self.ended_by_operator.get()
    }

    fn session(&self) -> Option<Session> {
        Some(Session {
            id: self.id,
            peer: self.peer.get(),
            server: self.server.get(),
            since: self.request_since.get()?,
        })
    }
}

impl Connections {
    /// Knows a connection that the task serves, until it is forgotten.
    pub(super) fn add(&self, talk: Rc<Talk>, task: AbortHandle) {
        let mut all = self.0.borrow_mut();
        all.insert(talk.id, Known { talk, task });
    }

    /// The connection is closed.
    pub(super) fn forget(&self, talk: &Talk) {
        self.0.borrow_mut().remove(&talk.id);
    }

    /// Answers a question; `ledger` is where the worker counts.
    pub(super) fn answer(&self, question: Question, ledger: &Ledger) {
        // Who asked may have given up.
        match question {
            Question::List(to) => to.try_send(self.list(|_| true)).ok(),
            Question::End(which, to) => to.try_send(self.end(which)).ok(),
            Question::Clear(clearing, to) => {
                ledger.forget(&clearing);
                to.try_send(()).ok()
            }
        };
    }

    fn list(&self, is_meant: impl Fn(&Session) -> bool) -> Vec<Session> {
        let all = self.0.borrow();
        let sessions = all.values().filter_map(|known| known.talk.session());
        sessions.filter(is_meant).collect()
    }

    fn end(&self, which: Which) -> usize {
        let ended = self.list(|session| match which {
            Which::Id(id) => session.id == id,
            Which::Server(life) => session.server == Some(life),
        });
        let all = self.0.borrow();
        for known in ended.iter().filter_map(|session| all.get(&session.id)) {
            known.talk.ended_by_operator.set(true);
            known.task.abort();
        }
        ended.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::{Slot, Totals};

    fn talk(control: &Control) -> Rc<Talk> {
        Talk::new(control, "127.0.0.1:1".parse().unwrap())
    }

    #[tokio::test]
    async fn only_what_is_under_way_is_a_session_and_can_be_ended() {
        let control = Control::default();
        let connections = Connections::default();
        let (idle, busy) = (talk(&control), talk(&control));
        let tasks = [&idle, &busy].map(|talk| {
            let task = tokio::spawn(std::future::pending::<()>());
            connections.add(Rc::clone(talk), task.abort_handle());
            task
        });
        busy.begin(Instant::now());
        busy.goes_to(Life(7));
        let mut questions = control.hear();
        let ledger = Ledger::new(Slot::new(0), Arc::default());
        let answering = async {
            loop {
                connections.answer(questions.recv().await.unwrap(), &ledger);
            }
        };
        let asking = async {
            let sessions = control.sessions().await;
            assert_eq!(sessions.len(), 1);
            assert_eq!((sessions[0].id, sessions[0].server), (2, Some(Life(7))));
            assert_eq!(control.end(Which::Id(1)).await, 0, "it is idle");
            assert_eq!(control.end(Which::Server(Life(8))).await, 0);
            assert_eq!(control.end(Which::Server(Life(7))).await, 1);
        };
        tokio::select! {
            () = answering => {}
            () = asking => {}
        }
        let [idle_task, busy_task] = tasks;
        assert!(busy_task.await.unwrap_err().is_cancelled());
        assert!(busy.ended_by_operator() && !idle.ended_by_operator());
        assert!(!idle_task.is_finished());
        idle_task.abort();
    }

    #[tokio::test]
    async fn without_workers_there_are_no_sessions() {
        assert!(Control::default().sessions().await.is_empty());
    }

    fn clearing(servers: Arc<[Arc<Live>]>, totals: bool) -> Clearing {
        let what = Forget::Everything;
        Clearing {
            what,
            servers,
            totals,
        }
    }

    #[tokio::test]
    async fn each_worker_forgets_its_own_figures_and_those_that_are_meant() {
        let control = Control::default();
        let totals = Arc::<Totals>::default();
        let (meant, other) = (Arc::<Live>::default(), Arc::<Live>::default());
        let workers = [0, 1].map(|index| {
            let ledger = Ledger::new(Slot::new(index), Arc::clone(&totals));
            for server in [&meant, &other] {
                ledger.inc(server, |traffic| &traffic.requests);
            }
            (ledger, control.hear())
        });
        let all_requests = || {
            let servers = [&meant, &other].map(|live| live.counters.requests());
            (servers, totals.requests())
        };
        let answering = workers.map(|(ledger, mut questions)| async move {
            let connections = Connections::default();
            loop {
                connections.answer(questions.recv().await.unwrap(), &ledger);
            }
        });
        let [one, two]: [_; 2] = answering;
        let asking = async {
            assert!(
                control
                    .clear(clearing([Arc::clone(&meant)].into(), false))
                    .await
            );
            assert_eq!(all_requests(), ([0, 2], 4));
            assert!(control.clear(clearing([].into(), true)).await);
            assert_eq!(all_requests(), ([0, 2], 0));
        };
        tokio::select! {
            () = one => {}
            () = two => {}
            () = asking => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_is_stuck_is_not_waited_for_for_ever() {
        let control = Control::default();
        let _stuck = control.hear();
        assert!(!control.clear(clearing([].into(), true)).await);
        assert!(control.sessions().await.is_empty());
    }

    #[test]
    fn accepting_twice_is_no_change() {
        let control = Control::default();
        assert!(control.is_accepting());
        assert!(!control.set_accepting(true));
        assert!(control.set_accepting(false) && !control.is_accepting());
    }
}
