//! What the outside can ask of the workers while they serve: which sessions
//! there are, to end some of them, and to stop accepting for a while.
//!
//! A session is a request under way, or a tunnel. Each worker knows its own
//! connections and nobody else's, so a question goes to all of them.

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

use crate::pool::server::Life;

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

#[derive(Debug, Clone)]
pub(super) enum Question {
    List(mpsc::Sender<Vec<Session>>),
    End(Which, mpsc::Sender<Vec<Session>>),
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
        let mut sessions = self.ask(Question::List).await;
        sessions.sort_by_key(|session| session.since);
        sessions
    }

    /// Ends sessions by closing their clients' connections, and says how many.
    pub async fn end(&self, which: Which) -> usize {
        self.ask(|answers| Question::End(which, answers))
            .await
            .len()
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

    async fn ask(
        &self,
        question: impl FnOnce(mpsc::Sender<Vec<Session>>) -> Question,
    ) -> Vec<Session> {
        // Each worker answers once.
        let workers = self.questions.receiver_count().max(1);
        let (sender, mut answers) = mpsc::channel(workers);
        if self.questions.send(question(sender)).is_err() {
            return Vec::new();
        }
        let give_up = Instant::now() + PATIENCE;
        let mut all = Vec::new();
        // The channel closes when the last worker has answered.
        while let Ok(Some(some)) = timeout_at(give_up, answers.recv()).await {
            all.extend(some);
        }
        all
    }
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
    peer: SocketAddr,
    request_since: Cell<Option<Instant>>,
    server: Cell<Option<Life>>,
    ended_by_operator: Cell<bool>,
}

impl Talk {
    pub(super) fn new(control: &Control, peer: SocketAddr) -> Rc<Self> {
        Rc::new(Self {
            id: control.next_id.fetch_add(1, Relaxed) + 1,
            peer,
            request_since: Cell::new(None),
            server: Cell::new(None),
            ended_by_operator: Cell::new(false),
        })
    }

    /// The client.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
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
            peer: self.peer,
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

    /// Answers a question.
    pub(super) fn answer(&self, question: Question) {
        let (sessions, to) = match question {
            Question::List(to) => (self.list(|_| true), to),
            Question::End(which, to) => (self.end(which), to),
        };
        // Who asked may have given up.
        to.try_send(sessions).ok();
    }

    fn list(&self, is_meant: impl Fn(&Session) -> bool) -> Vec<Session> {
        let all = self.0.borrow();
        let sessions = all.values().filter_map(|known| known.talk.session());
        sessions.filter(is_meant).collect()
    }

    fn end(&self, which: Which) -> Vec<Session> {
        let ended = self.list(|session| match which {
            Which::Id(id) => session.id == id,
            Which::Server(life) => session.server == Some(life),
        });
        let all = self.0.borrow();
        for known in ended.iter().filter_map(|session| all.get(&session.id)) {
            known.talk.ended_by_operator.set(true);
            known.task.abort();
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let answering = async {
            loop {
                connections.answer(questions.recv().await.unwrap());
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

    #[test]
    fn accepting_twice_is_no_change() {
        let control = Control::default();
        assert!(control.is_accepting());
        assert!(!control.set_accepting(true));
        assert!(control.set_accepting(false) && !control.is_accepting());
    }
}
