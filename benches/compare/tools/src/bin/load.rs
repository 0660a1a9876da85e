//! The users: `--connections K` of them, who ask as fast as they are answered
//! (a closed loop), or at `--rate R` requests a second in all, due at moments
//! that do not wait for answers (an open loop). Latency counts from when a
//! request was due, so that a proxy that stalls is charged for everyone who
//! had to wait meanwhile (no coordinated omission).
//!
//! Goes on for `--seconds S` or `--requests N`, after `--warm-up S` that does
//! not count. Says `ready` before what counts and waits for a line; says in
//! JSON how it went and waits for the end of its input, with all connections
//! open. What kind of requests: see [`Work::from_args`].

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use tidings_compare_tools::{
    args,
    arrivals::Arrivals,
    connection::{BUFFER, Connection, Received},
    histogram::Histogram,
    poll::{Poll, Ready},
    work::{Answer, Outcome, Work},
};

/// How long requests under way at the end may take to be answered.
const GRACE: Duration = Duration::from_secs(3);

fn main() -> io::Result<()> {
    // Requests are due to the microsecond, not to the kernel's usual 50.
    rustix::thread::set_current_timer_slack(std::num::NonZero::new(1))?;
    let connections = args::required("--connections");
    let rate: Option<f64> = args::optional("--rate");
    let seconds = |flag| args::optional(flag).map(Duration::from_secs_f64);
    let mut load = Load::new(Work::from_args(), connections)?;

    let before = match seconds("--warm-up") {
        Some(warm_up) => load.run(rate, warm_up, u64::MAX)?.good,
        None => 0,
    };
    println!("ready");
    io::stdin().read_line(&mut String::new())?;
    let most = seconds("--seconds").unwrap_or(Duration::MAX);
    let report = load.run(rate, most, args::optional("--requests").unwrap_or(u64::MAX))?;
    println!("{}", report.to_json(before));
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

struct User {
    /// `None` between requests that each have a connection of their own.
    connection: Option<Connection>,
    answer: Answer,
    /// When the request that is under way was due.
    due: Option<Instant>,
}

struct Load {
    work: Work,
    poll: Poll,
    users: Vec<User>,
    /// Who has nothing to do, the longest idle first.
    idle: VecDeque<usize>,
    buffer: Vec<u8>,
    report: Report,
}

#[derive(Default)]
struct Report {
    /// Answered with 200.
    good: u64,
    /// Of these, before the time was up.
    in_time: u64,
    /// Answered otherwise, broken off, or not answered at all.
    failed: u64,
    started: u64,
    seconds: f64,
    latency: Histogram,
}

impl Load {
    fn new(work: Work, connections: usize) -> io::Result<Self> {
        let mut load = Self {
            poll: Poll::new()?,
            users: Vec::new(),
            idle: (0..connections).collect(),
            buffer: vec![0; BUFFER],
            report: Report::default(),
            work,
        };
        for user in 0..connections {
            load.users.push(User {
                connection: None,
                answer: load.work.answer(),
                due: None,
            });
            if !load.work.reconnect {
                load.connect(user)?;
            }
        }
        Ok(load)
    }

    /// Until the time is up or so many requests are out.
    fn run(&mut self, rate: Option<f64>, time: Duration, requests: u64) -> io::Result<Report> {
        self.report = Report::default();
        let start = Instant::now();
        // A century stands for "no end".
        let end = start + time.min(Duration::from_secs(3_000_000_000));
        let mut arrivals = rate.map(|rate| Arrivals::new(start, rate));
        let mut due = VecDeque::new();
        let mut ready = Ready::default();
        loop {
            let now = Instant::now();
            let mut asked = self.report.started + due.len() as u64;
            let over = now >= end || asked >= requests;
            match &mut arrivals {
                Some(arrivals) if !over => {
                    while arrivals.next() <= now && asked < requests {
                        due.push_back(arrivals.next());
                        arrivals.advance();
                        asked += 1;
                    }
                }
                // In a closed loop whoever is idle asks at once.
                None if !over => {
                    let most = (requests - asked).min((self.idle.len() - due.len()) as u64);
                    due.extend((0..most).map(|_| now));
                }
                _ => {}
            }
            while let Some(user) = self.idle.front().copied()
                && let Some(due) = due.pop_front()
            {
                self.idle.pop_front();
                self.ask(user, due);
            }
            let busy = self.idle.len() < self.users.len() || !due.is_empty();
            if over && (!busy || now >= end + GRACE) {
                break;
            }
            let next = match &arrivals {
                Some(arrivals) if !over => arrivals.next(),
                _ if over => now + GRACE,
                _ => end,
            };
            let timeout = next.saturating_duration_since(Instant::now());
            self.poll.wait(&mut ready, Some(timeout.min(GRACE)))?;
            for token in ready.tokens() {
                self.go_on(token as usize, end);
            }
        }
        self.give_up(due.len() as u64);
        self.report.seconds = (Instant::now().min(end) - start).as_secs_f64();
        Ok(std::mem::take(&mut self.report))
    }

    /// Counts what was never answered, and starts those connections afresh.
    fn give_up(&mut self, never_sent: u64) {
        self.report.failed += never_sent;
        for user in 0..self.users.len() {
            if self.users[user].due.is_some() {
                self.broken(user);
            }
        }
    }

    fn ask(&mut self, user: usize, due: Instant) {
        self.report.started += 1;
        self.users[user].due = Some(due);
        let sent = match self.users[user].connection {
            Some(_) => Ok(()),
            None => self.connect(user),
        };
        let request = self.work.request(user, self.report.started);
        let sent = sent.and_then(|()| match &mut self.users[user].connection {
            Some(connection) => connection.send(request),
            None => Ok(()),
        });
        if sent.is_err() {
            self.broken(user);
        }
    }

    fn connect(&mut self, user: usize) -> io::Result<()> {
        let connection = Connection::new(self.work.connect()?)?;
        self.poll.add(&connection.stream, user as u64)?;
        self.users[user].connection = Some(connection);
        Ok(())
    }

    /// A user's connection can be read from or written to.
    fn go_on(&mut self, user: usize, end: Instant) {
        match self.users[user].read(&mut self.buffer) {
            Ok(Outcome::Unfinished) => {}
            Ok(outcome) => self.answered(user, outcome, end),
            Err(_) => self.broken(user),
        }
    }

    fn answered(&mut self, user: usize, outcome: Outcome, end: Instant) {
        let Some(due) = self.users[user].due.take() else {
            return;
        };
        let now = Instant::now();
        if outcome == Outcome::Good {
            self.report.good += 1;
            self.report.in_time += u64::from(now <= end);
            self.report.latency.record(now - due);
        } else {
            self.report.failed += 1;
        }
        if self.work.reconnect {
            self.users[user].connection = None;
        }
        self.idle.push_back(user);
    }

    fn broken(&mut self, user: usize) {
        let state = &mut self.users[user];
        state.connection = None;
        state.answer = self.work.answer();
        if state.due.take().is_some() {
            self.report.failed += 1;
            self.idle.push_back(user);
        }
    }
}

impl User {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Outcome> {
        let Some(connection) = &mut self.connection else {
            return Ok(Outcome::Unfinished);
        };
        connection.flush()?;
        loop {
            let (count, last) = match connection.receive(buffer)? {
                Received::More(count) => (count, false),
                Received::Last(count) => (count, true),
                Received::Nothing => return Ok(Outcome::Unfinished),
                Received::Closed => return Err(io::ErrorKind::ConnectionReset.into()),
            };
            let outcome = self.answer.take(&buffer[..count])?;
            if last || outcome != Outcome::Unfinished {
                return Ok(outcome);
            }
        }
    }
}

impl Report {
    fn to_json(&self, before: u64) -> String {
        let quantile = |share| match self.latency.quantile(share) {
            Some(micros) => format!("{micros:.1}"),
            None => "null".to_owned(),
        };
        format!(
            r#"{{"before":{before},"good":{},"in_time":{},"failed":{},"seconds":{:.6},"p50":{},"p99":{},"p999":{},"max":{:.1}}}"#,
            self.good,
            self.in_time,
            self.failed,
            self.seconds,
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            self.latency.max(),
        )
    }
}
