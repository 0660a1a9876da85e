//! A source with a few servers in every condition, for tests.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU16, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use super::{Figure, FigureKind, Process, Source, history::History};
use crate::{
    counters::{Slot, Totals},
    membership::{
        Admin, Announcement, Intent, Member, MemberEvent, MemberId, MemberState, MemberView, Meta,
        Name, Phase, Role, Version, Wish,
    },
    pool::{
        Input, Reader, Status, Writer,
        rise_fall::Thresholds,
        server::{Cause, Check},
        state::{Change, CheckPlan, Detection, Event, Sign, State, StaticServer},
    },
    proxy::Admission,
};

/// What a hostile agent would put in a tag.
pub(super) const HOSTILE: &str = "<script>alert(\"1\")</script>,\n-,";

/// A balancer without servers.
pub(super) fn empty() -> Source {
    let state = State::new(name("nodes"), vec![], Instant::now());
    source_of(state, Arc::default())
}

/// A balancer with servers up, suspected, draining and down, checked and not.
pub(crate) fn source() -> Arc<Source> {
    let members = [
        ("s1", Phase::Ready, MemberState::Alive),
        ("s2", Phase::Ready, MemberState::Suspect),
        ("s3", Phase::Draining, MemberState::Alive),
        ("s4", Phase::Down, MemberState::Alive),
        ("s5", Phase::Ready, MemberState::Down),
    ]
    .map(|(name, phase, state)| member(name, phase, state));
    let mut state = State::new(name("nodes"), static_servers(), Instant::now());
    for row in &members {
        for event in events(row) {
            state.apply(Input::Member(event), Instant::now());
        }
    }
    let members: Vec<MemberView> = [vec![balancer()], members.into()].concat();
    let source = source_of(state, members.into());
    serve_some(&source);
    Arc::new(source)
}

/// A balancer whose servers, all of weight 8, somebody looks after: `m1` is in
/// maintenance, `q1` in quarantine, `e1` is eased in, and `s1` is up.
pub(crate) fn tended() -> Source {
    let mut now = Instant::now();
    let mut state = State::new(name("nodes"), vec![], now);
    for server in ["e1", "m1", "q1", "s1"] {
        state.apply(announced(server, Phase::Ready), now);
    }
    state.apply(wanted("m1", Admin::Maint), now);
    crash_twice(&mut state, "e1", now);
    for seconds in [1, 2] {
        now += Duration::from_secs(seconds);
        state.tick(now);
    }
    crash_twice(&mut state, "q1", now);
    source_of(state, Arc::default())
}

/// A balancer whose one server that is well is in quarantine.
pub(super) fn kept_out() -> Source {
    let now = Instant::now();
    let mut state = State::new(name("nodes"), vec![], now);
    for server in ["q1", "s1"] {
        state.apply(announced(server, Phase::Ready), now);
    }
    crash_twice(&mut state, "q1", now);
    state.apply(announced("s1", Phase::Down), now);
    source_of(state, Arc::default())
}

/// The first crash is forgiven, the second leads into quarantine.
fn crash_twice(state: &mut State, server: &str, now: Instant) {
    for phase in [Phase::Down, Phase::Ready, Phase::Down, Phase::Ready] {
        state.apply(announced(server, phase), now);
    }
}

/// The news that a server's agent announces that phase.
pub(super) fn announced(server: &str, phase: Phase) -> Input {
    let mut view = member(server, phase, MemberState::Alive);
    if let Some(Role::Server(announced)) = view.meta.as_mut().map(|meta| &mut meta.role) {
        announced.weight = 8;
    }
    let up = events(&view).remove(0);
    Input::Member(up)
}

fn wanted(server: &str, state: Admin) -> Input {
    Input::Member(MemberEvent::Wanted(Intent {
        service: name("nodes"),
        server: name(server),
        wish: Wish::State(state),
        version: Version {
            clock: 1,
            writer: SocketAddr::from(([10, 0, 0, 1], 7946)),
        },
    }))
}

/// The event that a server does not answer gossip any more.
pub(super) fn found_down(server: &str, sign: Sign, took: Duration) -> Event {
    Event {
        server: name(server),
        what: Change::Became(Status::Down(Cause::Silent)),
        detected: Some(Detection { sign, took }),
    }
}

/// A balancer without servers whose pool is alive, and what feeds it.
pub(super) fn live() -> (Arc<Source>, mpsc::Sender<Input>) {
    let state = State::new(name("nodes"), vec![], Instant::now());
    let (writer, inputs, pool) = Writer::new("nodes".into(), state);
    tokio::spawn(writer.run());
    (Arc::new(source_with(pool, Arc::default())), inputs)
}

fn source_of(state: State, members: Arc<Vec<MemberView>>) -> Source {
    let (_, _, pool) = Writer::new("nodes".into(), state);
    source_with(pool, members)
}

fn source_with(pool: Reader, members: Arc<Vec<MemberView>>) -> Source {
    Source {
        pool,
        totals: Arc::new(Totals::default()),
        service: name("nodes"),
        balance: "roundrobin",
        cookie: Some("SERVERID".into()),
        admission: Arc::new(Admission::new(None, None, None, Arc::default())),
        maxqueue: 1024,
        process: Process {
            version: "0.1.0",
            node: "ha".into(),
            pid: 8,
            workers: 2,
            max_descriptors: Some(1024),
            started: Instant::now(),
            started_unix: 1_700_000_000,
            http: vec![SocketAddr::from(([0, 0, 0, 0], 80))],
            listeners: 4,
        },
        members: Box::new(move || Arc::clone(&members)),
        figures: vec![figure("malformed", 3), figure("other_cluster", 4)],
        figures_of_the_moment: Vec::new(),
        gossip_keyed: false,
        history: History::default(),
        log_lines_dropped: Arc::default(),
        draining: Arc::default(),
        accepts: Box::new(|| true),
        declare: None,
        auth: None,
    }
}

fn figure(reason: &str, value: u64) -> Figure {
    Figure {
        name: "tidings_gossip_packets_dropped_total",
        help: "Packets dropped, by reason.",
        kind: FigureKind::Counter,
        labels: vec![("reason", reason.into())],
        read: Box::new(move || value),
    }
}

fn static_servers() -> Vec<StaticServer> {
    let plan = CheckPlan {
        check: Check::Tcp,
        interval: Duration::from_secs(2),
        thresholds: Thresholds {
            rise: NonZeroU16::new(2).unwrap(),
            fall: NonZeroU16::new(3).unwrap(),
        },
    };
    [("t1", Some(plan)), ("t2", None)]
        .map(|(server, check)| StaticServer {
            name: name(server),
            target: "10.0.1.1:3000".into(),
            weight: 1,
            check,
            tags: BTreeMap::new(),
        })
        .into()
}

fn events(row: &MemberView) -> Vec<MemberEvent> {
    let up = MemberEvent::Up(Member {
        id: row.id,
        meta: row.meta.clone().unwrap(),
    });
    match row.state {
        MemberState::Suspect => vec![up, MemberEvent::Suspect(row.id)],
        MemberState::Down => vec![up, MemberEvent::Down(row.id)],
        _ => vec![up],
    }
}

fn member(server: &str, phase: Phase, state: MemberState) -> MemberView {
    // Of any two names of a letter and a digit, the addresses differ as well.
    let host = server.as_bytes()[0] ^ server.as_bytes()[1] ^ b's';
    let announced = Announcement {
        service: name("nodes"),
        addr: SocketAddr::from(([10, 0, 0, host], 3000)),
        weight: 1,
        phase,
        tags: BTreeMap::from([("note".into(), HOSTILE.into())]),
    };
    MemberView {
        local: false,
        ..row(server, [10, 0, 0, host], Role::Server(announced), state)
    }
}

fn balancer() -> MemberView {
    row("ha", [10, 0, 0, 1], Role::Balancer, MemberState::Alive)
}

fn row(node: &str, host: [u8; 4], role: Role, state: MemberState) -> MemberView {
    MemberView {
        id: MemberId {
            addr: SocketAddr::from((host, 7946)),
            epoch: 1,
        },
        meta: Some(Meta {
            name: name(node),
            role,
        }),
        state,
        since: Instant::now(),
        incarnation: None,
        generation: 0,
        local: true,
    }
}

fn serve_some(source: &Source) {
    let worker = Slot::new(0);
    for _ in 0..10 {
        source.totals.frontend.connections_total.inc();
    }
    source.totals.frontend.connections.inc();
    let all = &source.totals.of(worker).traffic;
    all.requests.add(1_234_567);
    all.balanced.add(1_234_000);
    let snapshot = source.pool.load();
    let s1 = snapshot.by_name("s1").unwrap().live.counters.of(worker);
    s1.traffic.requests.add(1_234_567);
    s1.traffic.balanced.add(12);
    s1.response(200, Duration::from_millis(7));
    s1.response(503, Duration::from_millis(20));
    s1.traffic.bytes_in.add(2408);
    s1.traffic.connect_time.enter(Duration::from_millis(3));
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}
