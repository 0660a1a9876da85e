//! All that is known of one server, and what follows from it. Pure.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    rise_fall::Health,
    server::{
        Cause, CheckAt, CheckCode, CheckReport, FaultGate, Life, Live, Origin, Probe, Server,
        Status,
    },
    snapshot::NameKey,
    state::{CheckPlan, Detection, Fault, Order, Sign, StaticServer, Verdict},
    tally::Part,
    transport::Transport,
    warm_up::{self, SLOWSTART, WarmUp},
};
use crate::membership::{Admin, Announcement, MemberId, Name, Phase, Wish};

/// How long a server that gossip lost stays on the page.
pub(super) const LOST_FOR: Duration = Duration::from_mins(1);

/// The tag that says how many requests a server takes at a time, 0 for as many
/// as come.
pub(crate) const MAXCONN: &str = "maxconn";

/// How many connections a server must accept after its lifeline broke before
/// it is believed to be there: with 10 ms from one to the next, long enough
/// for an app that is dying with its agent to be gone.
const LOOKS_AFTER_HANG_UP: u8 = 6;

/// All that is known of one server.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) sid: u32,
    pub(super) life: Life,
    pub(super) origin: Origin,
    pub(super) addr: Option<SocketAddr>,
    weight: u16,
    phase: Phase,
    tags: BTreeMap<String, String>,
    transport: Transport,
    pub(super) liveness: Liveness,
    plan: Option<CheckPlan>,
    health: Option<Health>,
    /// What an operator wants of it.
    pub(super) admin: Admin,
    weight_wanted: Option<u16>,
    /// Requests that it takes at a time, as it says itself, 0 for no limit.
    maxconn: Option<u32>,
    /// The same where it says nothing.
    usual_maxconn: Option<NonZeroU32>,
    /// The same as an operator wants it.
    maxconn_wanted: Option<u32>,
    /// An operator's verdict, as long as no check has another.
    forced: Option<Verdict>,
    /// An operator has switched its checks off.
    pub(super) checks_off: bool,
    check_at: CheckAt,
    /// A connection was refused, and none has been accepted since.
    refused: bool,
    /// A connection broke; so many probes must pass for the server to be
    /// believed to be there.
    doubts: u8,
    /// It has crashed too often, and is kept out until then.
    kept_out_until: Option<Instant>,
    /// How long it warms up, as it says itself, zero for not at all.
    slowstart: Option<Duration>,
    /// Its warm-up, and how much of its share it gets.
    warm_up: Option<WarmUp>,
    throttle: Option<u8>,
    /// The first sign of its present trouble.
    first_sign: Option<(Sign, Instant)>,
    last_check: Option<CheckReport>,
    failed_checks: u64,
    pub(super) status: Status,
    since: Instant,
    downs: u64,
    downtime: Duration,
    pub(super) live: Arc<Live>,
    faults: Arc<FaultGate>,
    pub(super) described: Option<Arc<Server>>,
}

/// What gossip thinks of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Liveness {
    Alive,
    Suspect,
    Lost,
}

impl Entry {
    pub(super) fn from_command_line(
        sid: u32,
        life: Life,
        live: Arc<Live>,
        server: &StaticServer,
        now: Instant,
    ) -> Self {
        let mut entry = Self::unknown(sid, life, live, Origin::Static, now);
        entry.addr = server.target.parse().ok();
        entry.weight = server.weight;
        entry.tag(server.tags.clone());
        entry.plan.clone_from(&server.check);
        let thresholds = server.check.as_ref().map(|plan| plan.thresholds);
        entry.health = thresholds.map(Health::unproven);
        entry.status = entry.derive_status(now);
        entry
    }

    pub(super) fn from_gossip(
        sid: u32,
        life: Life,
        live: Arc<Live>,
        id: MemberId,
        announced: Announcement,
        now: Instant,
    ) -> Self {
        let mut entry = Self::unknown(sid, life, live, Origin::Gossip(id), now);
        entry.announced(announced, now);
        entry.doubt_tls();
        entry.first_sign = None;
        entry.status = entry.derive_status(now);
        entry
    }

    /// A server of which nothing is known yet but that it is there.
    fn unknown(sid: u32, life: Life, live: Arc<Live>, origin: Origin, now: Instant) -> Self {
        Self {
            sid,
            life,
            origin,
            addr: None,
            weight: 1,
            phase: Phase::Ready,
            tags: BTreeMap::new(),
            transport: Transport::default(),
            liveness: Liveness::Alive,
            plan: None,
            health: None,
            admin: Admin::Ready,
            weight_wanted: None,
            maxconn: None,
            usual_maxconn: None,
            maxconn_wanted: None,
            forced: None,
            checks_off: false,
            check_at: CheckAt::default(),
            refused: false,
            doubts: 0,
            kept_out_until: None,
            slowstart: None,
            warm_up: None,
            throttle: None,
            first_sign: None,
            last_check: None,
            failed_checks: 0,
            status: Status::Up,
            since: now,
            downs: 0,
            downtime: Duration::ZERO,
            live,
            faults: Arc::default(),
            described: None,
        }
    }

    /// Another life begins: what was met in the one before is about the past.
    pub(super) fn begin(&mut self, life: Life) {
        self.life = life;
        self.refused = false;
        self.doubts = 0;
        self.first_sign = None;
        self.faults = Arc::default();
    }

    pub(super) fn announced(&mut self, announced: Announcement, now: Instant) {
        // The app has just been seen to accept; what traffic met before that
        // is about the past.
        let accepts_now = announced.phase == Phase::Ready && self.phase != Phase::Ready;
        self.refused &= !accepts_now;
        if announced.phase == Phase::Down {
            self.note(Sign::Agent, now);
        }
        self.liveness = Liveness::Alive;
        self.addr = Some(announced.addr);
        self.weight = announced.weight;
        self.phase = announced.phase;
        self.tag(announced.tags);
        if accepts_now {
            self.doubt_tls();
        }
    }

    /// An agent looks at its app as a neighbour does: whether TLS can be made
    /// from here is looked at once it accepts.
    pub(super) fn doubt_tls(&mut self) {
        if self.transport.tls && self.phase == Phase::Ready {
            self.doubts = self.doubts.max(1);
        }
    }

    /// Takes over what is said of it. Whoever says it checks it first, so a
    /// wrong value is one from another version: it means nothing here.
    fn tag(&mut self, tags: BTreeMap<String, String>) {
        if self.tags != tags {
            self.transport = Transport::of(&tags).unwrap_or_default();
            let slowstart = tags.get(SLOWSTART).map(|time| warm_up::slowstart(time));
            self.slowstart = slowstart.and_then(|said| Some(said.ok()?.unwrap_or_default()));
            self.maxconn = tags.get(MAXCONN).and_then(|limit| limit.parse().ok());
            self.tags = tags;
        }
    }

    /// What its agent last said, if it has one.
    pub(super) fn announcement(&self, service: &Name) -> Option<Announcement> {
        Some(Announcement {
            service: service.clone(),
            addr: self.addr?,
            weight: self.weight,
            phase: self.phase,
            tags: self.tags.clone(),
        })
    }

    /// Whether gossip has lost its agent.
    pub(super) fn is_lost(&self) -> bool {
        self.liveness == Liveness::Lost
    }

    /// What gossip thinks of its agent.
    pub(super) fn alive(&mut self, liveness: Liveness, now: Instant) {
        self.liveness = liveness;
        match liveness {
            Liveness::Alive => {}
            Liveness::Suspect | Liveness::Lost => self.note(Sign::Gossip, now),
        }
    }

    /// Its agent's lifeline broke.
    pub(super) fn hung_up(&mut self, now: Instant) {
        self.note(Sign::Lifeline, now);
        self.doubts = LOOKS_AFTER_HANG_UP;
    }

    /// An operator wants something of it.
    pub(super) fn wanted(&mut self, wish: Wish) {
        match wish {
            Wish::State(admin) => self.admin = admin,
            Wish::Weight(weight) => self.weight_wanted = weight,
        }
    }

    /// An operator tells this balancer alone something about it.
    pub(super) fn told(&mut self, order: Order) {
        match order {
            Order::Health(verdict) => self.judged(verdict),
            Order::Checks(on) => self.checks_off = !on,
            Order::CheckAt(at) => self.check_at = at,
            Order::Maxconn(limit) => {
                self.maxconn_wanted = Some(limit.map_or(0, NonZeroU32::get));
            }
        }
    }

    /// What an operator says of its health holds until a check says otherwise.
    fn judged(&mut self, verdict: Verdict) {
        self.refused = false;
        self.doubts = 0;
        self.forced = match (verdict, &mut self.health) {
            (Verdict::Up, health) => {
                health.iter_mut().for_each(Health::restore);
                None
            }
            (Verdict::Down, health) => {
                health.iter_mut().for_each(Health::fail);
                Some(verdict)
            }
            (Verdict::Stopping, health) => {
                health.iter_mut().for_each(Health::restore);
                Some(verdict)
            }
        };
        self.faults.release();
    }

    /// An operator has its counters start from zero.
    pub(super) fn clear_counters(&mut self) {
        self.failed_checks = 0;
        self.downs = 0;
    }

    pub(super) fn probed(&mut self, report: CheckReport, now: Instant) {
        let passed = report.code.passed();
        if !passed {
            self.note(Sign::Check, now);
        }
        if let Some(health) = &mut self.health {
            if health.is_up() && !passed {
                self.failed_checks += 1;
            }
            health.enter(passed);
            self.refused &= !health.is_up();
            self.forced = None;
        } else {
            self.refused = !passed;
        }
        self.doubts = if passed {
            self.doubts.saturating_sub(1)
        } else {
            0
        };
        self.last_check = Some(report);
        self.faults.release();
    }

    pub(super) fn fault(&mut self, fault: Fault, now: Instant) {
        self.note(Sign::Traffic, now);
        match fault {
            Fault::Refused => {
                self.refused = true;
                if let Some(health) = &mut self.health {
                    health.fail();
                }
            }
            Fault::Broken => self.doubts = self.doubts.max(1),
        }
        self.faults.release();
    }

    /// Keeps it out until then, once it is well again.
    pub(super) fn keep_out(&mut self, until: Option<Instant>) {
        self.kept_out_until = until;
    }

    /// Whether it would take requests if it were not kept out.
    pub(super) fn is_able(&self) -> bool {
        let quarantined = Status::Down(Cause::Quarantine);
        [Status::Up, Status::Suspect, quarantined].contains(&self.status)
    }

    /// Whether the last look at it found a connection and no TLS.
    fn lacks_tls(&self) -> bool {
        let code = self.last_check.as_ref().map(|check| check.code);
        matches!(code, Some(CheckCode::L6Timeout | CheckCode::L6Response))
    }

    fn note(&mut self, sign: Sign, now: Instant) {
        self.first_sign.get_or_insert((sign, now));
    }

    pub(super) fn derive_status(&self, now: Instant) -> Status {
        let unhealthy = self.health.is_some_and(|health| !health.is_up());
        let kept_out = self.kept_out_until.is_some_and(|until| now < until);
        match (self.phase, self.liveness) {
            _ if self.admin == Admin::Maint => Status::Maint,
            _ if self.addr.is_none() => Status::Down(Cause::Unresolved),
            (Phase::Down | Phase::Leaving, _) => Status::Down(Cause::Agent),
            _ if self.refused && self.lacks_tls() => Status::Down(Cause::Check),
            _ if self.refused => Status::Down(Cause::Refused),
            // Before what it does to the checks' counter: it is no crash.
            _ if self.forced == Some(Verdict::Down) => Status::Down(Cause::Operator),
            _ if unhealthy => Status::Down(Cause::Check),
            (_, Liveness::Lost) => Status::Down(Cause::Silent),
            _ if self.admin == Admin::Drain => Status::Drain,
            _ if self.forced == Some(Verdict::Stopping) => Status::Drain,
            (Phase::Draining, _) => Status::Drain,
            _ if kept_out => Status::Down(Cause::Quarantine),
            (Phase::Ready, Liveness::Suspect) => Status::Suspect,
            (Phase::Ready, Liveness::Alive) => Status::Up,
        }
    }

    /// Takes the status on, and says how its trouble was found out if this is
    /// the end of that.
    pub(super) fn enter_status(&mut self, status: Status, now: Instant) -> Option<Detection> {
        let before = std::mem::replace(&mut self.status, status);
        let detected = match (before, status) {
            (Status::Down(_), Status::Down(_)) => None,
            (_, Status::Down(_)) => {
                self.downs += 1;
                self.first_sign.map(|(sign, at)| Detection {
                    sign,
                    took: now - at,
                })
            }
            _ => None,
        };
        if let Status::Down(_) = before {
            self.downtime += now.saturating_duration_since(self.since);
        }
        if status == Status::Up && self.doubts == 0 {
            self.first_sign = None;
        }
        self.since = now;
        detected
    }

    /// What the pool as a whole depends on of it.
    pub(super) fn part(&self) -> Part {
        Part {
            life: self.life,
            status: self.status,
            share: self.addr.map(|_| (self.weight(), self.throttle)),
            is_heard: self.is_heard(),
            is_timed: self.changes_by_time() || self.forget_at().is_some(),
            is_limited: self.maxconn().is_some(),
        }
    }

    /// Its share of the requests, 0 to 256.
    fn weight(&self) -> u16 {
        self.weight_wanted.unwrap_or(self.weight)
    }

    /// Requests that it takes at a time: an operator's word counts before its
    /// own, and both before what is usual here.
    fn maxconn(&self) -> Option<NonZeroU32> {
        let said = self.maxconn_wanted.or(self.maxconn);
        said.map_or(self.usual_maxconn, NonZeroU32::new)
    }

    /// How many requests it takes at a time where nobody says otherwise.
    pub(super) fn set_usual_maxconn(&mut self, limit: Option<NonZeroU32>) {
        self.usual_maxconn = limit;
        self.described = None;
    }

    /// Whether time alone changes it.
    pub(super) fn changes_by_time(&self) -> bool {
        self.kept_out_until.is_some() || self.warm_up.is_some()
    }

    /// When time alone changes something: it is let in, or gets more of its
    /// share.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let let_in = self.kept_out_until.filter(|until| now < *until);
        let more = self.warm_up.and_then(|warm_up| warm_up.next_step(now));
        [let_in, more].into_iter().flatten().min()
    }

    /// Whether time has changed it, and it does not know yet.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let let_in = self.kept_out_until.is_some_and(|until| until <= now);
        let_in || (self.warm_up).is_some_and(|warm_up| warm_up.percent(now) != self.throttle)
    }

    /// Takes up what time has changed: it is let in, and gets as much of its
    /// share as is due by now.
    pub(super) fn take_up_time(&mut self, now: Instant) {
        self.kept_out_until = self.kept_out_until.filter(|until| now < *until);
        self.throttle = self.warm_up.and_then(|warm_up| warm_up.percent(now));
        self.warm_up = self.warm_up.filter(|_| self.throttle.is_some());
    }

    /// It warms up from now on, for so long; `None` for not at all.
    pub(super) fn set_warm_up(&mut self, over: Option<Duration>, now: Instant) {
        self.warm_up = over.map(|over| WarmUp::new(now, over));
        self.throttle = self.warm_up.and_then(|warm_up| warm_up.percent(now));
    }

    /// How long it warms up, where the others do for so long as is `usual`.
    pub(super) fn slowstart(&self, usual: Option<Duration>) -> Option<Duration> {
        self.slowstart.or(usual).filter(|time| !time.is_zero())
    }

    /// Whether an operator may remove it: nobody announces it, and it is in
    /// maintenance.
    pub(super) fn is_removable(&self) -> bool {
        self.origin == Origin::Static && self.status == Status::Maint
    }

    /// Whether gossip hears its agent.
    fn is_heard(&self) -> bool {
        matches!(self.origin, Origin::Gossip(_)) && self.liveness != Liveness::Lost
    }

    /// When it has been lost for long enough.
    pub(super) fn forget_at(&self) -> Option<Instant> {
        (self.status == Status::Down(Cause::Silent) || self.liveness == Liveness::Lost)
            .then(|| self.since + LOST_FOR)
    }

    /// What is to be probed. A server with a check of its own has its check,
    /// more often while the verdict is open; any other only after a fault.
    fn probe(&self) -> Option<Probe> {
        /// `HAProxy` calls it `fastinter`.
        const FAST: Duration = Duration::from_millis(500);
        match (&self.plan, self.health) {
            (Some(plan), Some(health)) if !self.checks_off => {
                let settled = !(self.refused || self.doubts > 0 || health.in_transition());
                let interval = if settled {
                    plan.interval
                } else {
                    plan.interval.min(FAST)
                };
                let check = plan.check.clone();
                let at = self.check_at;
                Some(Probe::Check {
                    check,
                    interval,
                    at,
                })
            }
            _ if self.refused => Some(Probe::Recovery),
            _ => (self.doubts > 0).then_some(Probe::Confirm),
        }
    }

    pub(super) fn describe(&mut self, name: &Name, key: &NameKey) -> Arc<Server> {
        if let Some(described) = &self.described {
            return Arc::clone(described);
        }
        let server = Arc::new(Server {
            sid: self.sid,
            life: self.life,
            name: name.clone(),
            name_hash: key.hash(name.as_str()),
            addr: self.addr,
            weight: self.weight(),
            initial_weight: self.weight,
            throttle: self.throttle,
            maxconn: self.maxconn(),
            status: self.status,
            state_wanted: self.admin,
            weight_wanted: self.weight_wanted,
            since: self.since,
            origin: self.origin,
            tags: self.tags.clone(),
            transport: self.transport.clone(),
            probe: self.probe(),
            health: self.health,
            checks_off: self.checks_off,
            check_at: self.check_at,
            last_check: self.last_check.clone(),
            failed_checks: self.failed_checks,
            downs: self.downs,
            downtime: self.downtime,
            live: Arc::clone(&self.live),
            faults: Arc::clone(&self.faults),
        });
        self.described = Some(Arc::clone(&server));
        server
    }
}
