//! All that is shown: what was answered last, and what the operator has
//! chosen. Pure.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    answer::{Answers, Balancer, Event, Member, Server, Status},
    history::{History, Minute, Totals},
    order::{Change, Done, Order, Wish},
    sort::{Column, Sort, compare},
};
use crate::cli::desk::printable;

/// Events kept: as many as a load balancer keeps.
const MOST_EVENTS: usize = 1024;

/// Steps that can be undone.
const MOST_UNDO: usize = 100;

/// How long a message stays.
const MESSAGE: Duration = Duration::from_secs(8);

/// Everything there is to show.
#[derive(Debug, Default)]
pub struct Model {
    /// The load balancer, once it has answered.
    pub balancer: Option<Balancer>,
    /// Its servers, as they were answered.
    pub servers: Vec<Server>,
    /// The members of the cluster.
    pub members: Vec<Member>,
    /// What happened, the latest last.
    pub events: VecDeque<Event>,
    /// The last minute of all servers together.
    pub all: History,
    histories: HashMap<String, History>,
    /// When the last answer came.
    pub answered: Option<Instant>,
    /// Why none came since, where one was due.
    pub silence: Option<String>,
    /// What the operator is about.
    pub mode: Mode,
    /// Shown are those that have this in them.
    pub filter: String,
    /// The order of the servers.
    pub sort: Sort,
    /// What is in the lower pane.
    pub tab: Tab,
    /// Lines that the lower pane is scrolled by.
    pub scrolled: usize,
    /// Servers that the next command is for, by name.
    pub marked: BTreeSet<String>,
    selected: Option<String>,
    undo: Vec<Vec<Wish>>,
    message: Option<(Message, Instant)>,
}

/// What the operator is about.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Mode {
    /// Looking.
    #[default]
    Look,
    /// Reading what the keys do.
    Help,
    /// Typing a filter.
    Filter,
    /// Typing a weight.
    Weight(String),
    /// Asked whether that is meant.
    Confirm(Order),
}

/// The lower pane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tab {
    /// What happened.
    #[default]
    Events,
    /// The members of the cluster.
    Members,
}

/// Something said to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Something was done.
    Done(String),
    /// Something could not be done.
    Failed(String),
}

/// A server as it is shown.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The server.
    pub server: &'a Server,
    /// Its last minute.
    pub history: Option<&'a History>,
    /// What that comes to.
    pub minute: Minute,
}

impl Model {
    /// Takes in what was answered.
    pub fn answered(&mut self, answers: Answers, now: Instant) {
        let Answers {
            balancer,
            servers,
            members,
            events,
        } = answers;
        if self.is_another(&balancer) {
            self.events.clear();
            self.histories.clear();
            self.all = History::default();
        }
        self.enter(&balancer, &servers, now);
        let newest = self.newest_event();
        let fresh = events.into_iter().filter(|event| event.number > newest);
        self.events.extend(fresh);
        let surplus = self.events.len().saturating_sub(MOST_EVENTS);
        self.events.drain(..surplus);
        self.marked.retain(|name| is_in(&servers, name));
        self.balancer = Some(balancer);
        self.servers = servers;
        self.members = members;
        self.answered = Some(now);
        self.silence = None;
        self.keep_selection();
    }

    /// Takes in that no answer came, and why.
    pub fn silent(&mut self, why: &str) {
        self.silence = Some(printable(why));
    }

    /// The number of the last event that is known.
    pub fn newest_event(&self) -> u64 {
        self.events.back().map_or(0, |event| event.number)
    }

    /// Whether it was started since, so that its numbers began anew.
    fn is_another(&self, balancer: &Balancer) -> bool {
        let life = self.balancer.as_ref().map(|before| before.life);
        life.is_some_and(|life| life != balancer.life)
    }

    fn enter(&mut self, balancer: &Balancer, servers: &[Server], now: Instant) {
        self.histories.retain(|name, _| is_in(servers, name));
        for server in servers {
            let history = self.histories.entry(server.name.clone()).or_default();
            history.enter(server.requests_per_second, Totals::of([server]), now);
        }
        // What clients got counts here, our own errors included.
        let mut totals = Totals::of(servers);
        totals.errors = balancer.responses.server_error;
        self.all.enter(balancer.requests_per_second, totals, now);
    }

    /// The servers that are shown, in their order.
    pub fn rows(&self) -> Vec<Row<'_>> {
        let wanted = self.filter.to_lowercase();
        let shown = self.servers.iter().filter(|server| finds(server, &wanted));
        let mut rows: Vec<Row<'_>> = shown
            .map(|server| {
                let history = self.histories.get(&server.name);
                let minute = history.map(History::minute).unwrap_or_default();
                Row {
                    server,
                    history,
                    minute,
                }
            })
            .collect();
        // Names are in order already, and a stable sort keeps them so.
        rows.sort_by(|a, b| {
            let order = compare(a, b, self.sort.by);
            if self.sort.is_descending() {
                order.reverse()
            } else {
                order
            }
        });
        rows
    }

    /// Where the selected server stands among the rows.
    pub fn selected(&self) -> Option<usize> {
        let name = self.selected.as_deref()?;
        self.rows().iter().position(|row| row.server.name == name)
    }

    /// Moves the selection; it stops at the ends.
    pub fn select(&mut self, by: isize) {
        let rows = self.rows();
        let last = rows.len().saturating_sub(1);
        let at = self.selected().unwrap_or(0);
        let to = at.saturating_add_signed(by).min(last);
        self.selected = rows.get(to).map(|row| row.server.name.clone());
    }

    /// Selects the first row where the selected one is not shown any more.
    pub fn keep_selection(&mut self) {
        if self.selected().is_none() {
            let first = self.rows().first().map(|row| row.server.name.clone());
            self.selected = first;
        }
    }

    /// Marks the selected server or takes the mark away, and goes on to the
    /// next.
    pub fn mark(&mut self) {
        if let Some(name) = self.selected.clone().filter(|_| self.selected().is_some()) {
            if !self.marked.remove(&name) {
                self.marked.insert(name);
            }
            self.select(1);
        }
    }

    /// Marks all that are shown, or none if all are marked.
    pub fn mark_all(&mut self) {
        let names: BTreeSet<String> = self
            .rows()
            .iter()
            .map(|row| row.server.name.clone())
            .collect();
        if names.is_subset(&self.marked) {
            self.marked.clear();
        } else {
            self.marked.extend(names);
        }
    }

    /// Sorts by another column.
    pub fn sort_by(&mut self, by: Column) {
        let inverted = false;
        self.sort = Sort { by, inverted };
    }

    /// The servers that a command is for: the marked ones, or the selected.
    pub fn targets(&self) -> Vec<&Server> {
        let is_target = |server: &&Server| {
            if self.marked.is_empty() {
                self.selected.as_ref() == Some(&server.name) && self.selected().is_some()
            } else {
                self.marked.contains(&server.name)
            }
        };
        self.servers.iter().filter(is_target).collect()
    }

    /// An order for all targets; `None` where there are none.
    pub fn order(&self, change: impl Fn(&Server) -> Change) -> Option<Order> {
        let wish = |server: &&Server| Wish {
            server: server.name.clone(),
            change: change(server),
        };
        let wishes: Vec<Wish> = self.targets().iter().map(wish).collect();
        (!wishes.is_empty()).then_some(Order {
            wishes,
            is_undo: false,
        })
    }

    /// Whether nobody would be left to take new users, where somebody is now.
    pub fn empties_the_pool(&self, order: &Order) -> bool {
        let is_taken_out = |server: &Server| {
            let mut wishes = order.wishes.iter();
            wishes.any(|wish| wish.server == server.name && wish.change.takes_out())
        };
        let mut takers = self.servers.iter().filter(|server| server.takes_new());
        let mut rest = takers.clone().filter(|server| !is_taken_out(server));
        takers.next().is_some() && rest.next().is_none()
    }

    /// Scrolls the lower pane; it stops at its ends.
    pub fn scroll(&mut self, by: isize) {
        let lines = match self.tab {
            Tab::Events => self.events.len(),
            Tab::Members => self.members.len(),
        };
        let last = lines.saturating_sub(1);
        self.scrolled = self.scrolled.saturating_add_signed(by).min(last);
    }

    /// Shows what was ordered before the load balancer does, so that the next
    /// key goes on from there.
    pub fn expect(&mut self, order: &Order) {
        for wish in &order.wishes {
            let Some(server) = self.servers.iter_mut().find(|s| s.name == wish.server) else {
                continue;
            };
            match &wish.change {
                Change::State("drain") => server.status = Status::Drain,
                Change::State("maint") => server.status = Status::Maint,
                // Ready is what its health allows, and that is not known here.
                Change::State(_) => {}
                Change::Weight(weight) => server.weight = weight.parse().unwrap_or(server.weight),
            }
        }
    }

    /// The order that takes back the last one.
    pub fn take_back(&mut self) -> Option<Order> {
        let wishes = self.undo.pop()?;
        Some(Order {
            wishes,
            is_undo: true,
        })
    }

    /// Takes in how an order went.
    pub fn done(&mut self, done: Done, now: Instant) {
        let failed = matches!(done.message, Message::Failed(_));
        let step = match done.order.is_undo {
            false => done.undo,
            true if failed => done.order.wishes,
            true => Vec::new(),
        };
        if !step.is_empty() {
            let surplus = (self.undo.len() + 1).saturating_sub(MOST_UNDO);
            self.undo.drain(..surplus);
            self.undo.push(step);
        }
        self.say(done.message, now);
    }

    /// Says something to the operator.
    pub fn say(&mut self, message: Message, now: Instant) {
        let message = match message {
            Message::Done(text) => Message::Done(printable(&text)),
            Message::Failed(text) => Message::Failed(printable(&text)),
        };
        self.message = Some((message, now));
    }

    /// What was said, for as long as it is worth reading.
    pub fn message(&self, now: Instant) -> Option<&Message> {
        let (message, at) = self.message.as_ref()?;
        (now.saturating_duration_since(*at) < MESSAGE).then_some(message)
    }

    /// Takes away what was said.
    pub fn hush(&mut self) {
        self.message = None;
    }
}

fn is_in(servers: &[Server], name: &str) -> bool {
    servers.iter().any(|server| server.name == name)
}

/// Whether any text of the server has `wanted`, in lower case, in it.
fn finds(server: &Server, wanted: &str) -> bool {
    if wanted.is_empty() {
        return true;
    }
    let tags = server
        .tags
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let texts = [
        Some(server.name.clone()),
        server.address.clone(),
        Some(server.status.as_str().to_owned()),
        server.reason.clone(),
    ];
    let mut texts = texts.into_iter().flatten().chain(tags);
    texts.any(|text| text.to_lowercase().contains(wanted))
}
