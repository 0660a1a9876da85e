//! The state machine as a whole.

mod crashes;
mod faults;
mod lasting;
mod members;
mod operators;
mod rivals;
mod sound;
mod warming;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    counters::Slot,
    membership::{Admin, Announcement, Intent, Member, Meta, Phase, Role, Wish},
    pool::{
        Snapshot,
        rise_fall::Thresholds,
        server::{Check, CheckAt, CheckCode, CheckReport, Origin, Probe, Server},
        snapshot::Lasting,
    },
};

const SECOND: Duration = Duration::from_secs(1);

struct Pool {
    state: State,
    now: Instant,
}

impl Pool {
    fn new(servers: Vec<StaticServer>) -> Self {
        let now = Instant::now();
        let service = "nodes".parse().unwrap();
        let state = State::new(service, servers, now);
        Self { state, now }
    }

    fn apply(&mut self, input: Input) -> Vec<Change> {
        let events = self.state.apply(input, self.now);
        events.into_iter().map(|event| event.what).collect()
    }

    fn up(&mut self, name: &str, epoch: u64, phase: Phase) -> Vec<Change> {
        self.apply(Input::Member(MemberEvent::Up(member(name, epoch, phase))))
    }

    fn after(&mut self, time: Duration) -> Vec<Change> {
        self.now += time;
        let events = self.state.tick(self.now);
        events.into_iter().map(|event| event.what).collect()
    }

    fn server(&mut self, name: &str) -> Arc<Server> {
        Arc::clone(self.state.snapshot().by_name(name).unwrap())
    }

    fn status(&mut self, name: &str) -> Status {
        self.server(name).status
    }

    fn rotation(&mut self) -> Vec<String> {
        let snapshot = self.state.snapshot();
        let names = snapshot
            .schedule
            .iter()
            .map(|index| snapshot.get(*index).unwrap());
        names.map(|server| server.name.to_string()).collect()
    }
}

fn id(name: &str, epoch: u64) -> MemberId {
    let host = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let addr = format!("127.0.0.{host}:7946").parse().unwrap();
    MemberId { addr, epoch }
}

fn member(name: &str, epoch: u64, phase: Phase) -> Member {
    let id = id(name, epoch);
    let announcement = Announcement {
        service: "nodes".parse().unwrap(),
        addr: SocketAddr::new(id.addr.ip(), 3000),
        weight: 1,
        phase,
        tags: BTreeMap::new(),
    };
    let role = Role::Server(announcement);
    let name = name.parse().unwrap();
    Member {
        id,
        meta: Meta { name, role },
    }
}

fn static_server(check: bool) -> StaticServer {
    let plan = CheckPlan {
        check: Check::Tcp,
        interval: 2 * SECOND,
        thresholds: Thresholds {
            rise: 2.try_into().unwrap(),
            fall: 3.try_into().unwrap(),
        },
    };
    StaticServer {
        name: "s1".parse().unwrap(),
        target: "127.0.0.1:3000".into(),
        weight: 1,
        check: check.then_some(plan),
        tags: BTreeMap::new(),
    }
}

fn report(code: CheckCode) -> CheckReport {
    let took = Duration::from_millis(1);
    CheckReport {
        code,
        http_status: None,
        info: None,
        took,
    }
}

fn down(id: MemberId) -> Input {
    Input::Member(MemberEvent::Down(id))
}

fn wanted(server: &str, wish: Wish) -> Input {
    let version = crate::membership::Version {
        clock: 1,
        writer: "127.0.0.9:7946".parse().unwrap(),
    };
    let intent = Intent {
        service: "nodes".parse().unwrap(),
        server: server.parse().unwrap(),
        wish,
        version,
    };
    Input::Member(MemberEvent::Wanted(intent))
}
