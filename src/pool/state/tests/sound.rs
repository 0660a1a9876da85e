//! Whatever happens.

use super::*;

fn any_input() -> impl Strategy<Value = Input> {
    let phase = prop_oneof![
        Just(Phase::Down),
        Just(Phase::Ready),
        Just(Phase::Draining),
        Just(Phase::Leaving),
    ];
    let name = prop_oneof![Just("s1"), Just("s2"), Just("s3")];
    let member_event = (name, 1u64..4, phase, 0..5).prop_map(|(name, epoch, phase, kind)| {
        Input::Member(match kind {
            0 => MemberEvent::Suspect(id(name, epoch)),
            1 => MemberEvent::Refuted(id(name, epoch)),
            2 => MemberEvent::Down(id(name, epoch)),
            3 => MemberEvent::Left(id(name, epoch)),
            _ => MemberEvent::Up(member(name, epoch, phase)),
        })
    });
    let life = (1u64..12).prop_map(Life);
    let fault = life
        .clone()
        .prop_map(|life| Input::Fault(life, Fault::Refused));
    let probed = (life, any::<bool>()).prop_map(|(life, passed)| {
        let code = if passed {
            CheckCode::L4Ok
        } else {
            CheckCode::L4Connection
        };
        Input::Probed(life, report(code))
    });
    prop_oneof![4 => member_event, 1 => fault, 1 => probed]
}

proptest! {
    #[test]
    fn whatever_happens_the_snapshot_is_sound(
        inputs in proptest::collection::vec((any_input(), 0u32..40), 0..60)
    ) {
        let mut pool = Pool::new(Vec::new());
        let mut generation = 0;
        for (input, pause) in inputs {
            pool.apply(input);
            pool.after(SECOND * pause);
            let snapshot = pool.state.snapshot();
            prop_assert!(snapshot.generation > generation);
            generation = snapshot.generation;
            prop_assert!(snapshot.servers.is_sorted_by_key(|server| &server.name));
            for index in snapshot.schedule.iter() {
                let server = snapshot.get(*index).unwrap();
                let refused = server.status == Status::Down(Cause::Refused);
                prop_assert!(!refused && server.status != Status::Drain);
            }
            let takes = |s: &Arc<Server>| s.status == Status::Up && s.weight > 0;
            let any_up = snapshot.servers.iter().any(takes);
            prop_assert!(!any_up || snapshot.can_serve());
            // What lasts from snapshot to snapshot is what a new one would have.
            let anew = Snapshot::new(
                0, snapshot.servers.clone(), Arc::default(), None, &mut Lasting::default(),
            );
            prop_assert_eq!(&snapshot.schedule, &anew.schedule);
            for server in &snapshot.servers {
                let found = snapshot.by_name(server.name.as_str());
                prop_assert!(found.is_some_and(|found| Arc::ptr_eq(found, server)));
            }
            // So do the sums.
            let mut sums = Tally::default();
            for (name, entry) in &pool.state.entries {
                sums.enter(name, None, Some(entry.part()));
            }
            prop_assert!(pool.state.tally.agrees_with(&sums));
        }
    }
}
