//! What a change in the pool costs the writer, at pools of different sizes: to
//! take it in, to know when to look again, to build the next snapshot, to
//! publish it and to drop the one before.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidings::{
    membership::{
        Admin, Announcement, Intent, Member, MemberEvent, MemberId, Meta, Name, Phase, Role,
        Version, Wish,
    },
    pool::{Input, state::State},
};
use tokio::time::Instant;

/// A kind of change: the n-th input of it, in a pool of so many servers.
type Kind = (&'static str, fn(servers: usize, n: usize) -> Input);

const KINDS: [Kind; 4] = [
    ("moves", |servers, n| {
        // Another address each time, so that there is a change.
        let address = SocketAddr::from(([127, 0, 0, 2], 1 + (n % 1000) as u16));
        Input::Resolved(name(servers / 2), Some(address))
    }),
    ("weight", |servers, n| {
        wanted(servers / 2, Wish::Weight(Some(1 + (n % 2) as u16)))
    }),
    ("drain and ready", |servers, n| {
        let state = match n % 2 {
            0 => Admin::Drain,
            _ => Admin::Ready,
        };
        wanted(servers / 2, Wish::State(state))
    }),
    ("joins and leaves", |servers, n| {
        let joined = member(servers);
        Input::Member(match n % 2 {
            0 => MemberEvent::Up(joined),
            _ => MemberEvent::Left(joined.id),
        })
    }),
];

fn name(number: usize) -> Name {
    format!("s{number}").parse().expect("a name")
}

fn service() -> Name {
    "nodes".parse().expect("a name")
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 80))
}

fn member(number: usize) -> Member {
    let announced = Announcement {
        service: service(),
        addr: address(number),
        weight: 1,
        phase: Phase::Ready,
        tags: BTreeMap::new(),
    };
    Member {
        id: MemberId {
            addr: address(number),
            epoch: 1,
        },
        meta: Meta {
            name: name(number),
            role: Role::Server(announced),
        },
    }
}

fn wanted(number: usize, wish: Wish) -> Input {
    let version = Version {
        clock: 1,
        writer: address(0),
    };
    Input::Member(MemberEvent::Wanted(Intent {
        service: service(),
        server: name(number),
        wish,
        version,
    }))
}

fn publishes(criterion: &mut Criterion) {
    let now = Instant::now();
    for (kind, input) in KINDS {
        let mut group = criterion.benchmark_group(kind);
        for servers in [10, 100, 1000, 5000] {
            let mut state = State::new(service(), Vec::new(), now);
            for number in 0..servers {
                state.apply(Input::Member(MemberEvent::Up(member(number))), now);
            }
            let published = ArcSwap::from_pointee(state.snapshot());
            let mut n = 0;
            group.bench_function(BenchmarkId::from_parameter(servers), |bencher| {
                bencher.iter(|| {
                    n += 1;
                    state.apply(input(servers, n), now);
                    published.store(Arc::new(state.snapshot()));
                    state.next_deadline(now)
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, publishes);
criterion_main!(benches);
