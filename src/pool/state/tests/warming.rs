//! Servers come up beside others that serve.

use super::*;

const OVER: Duration = Duration::from_secs(10);

/// A pool that has served for long, by s1 and s2, and whose servers warm up.
fn warm() -> Pool {
    let mut pool = Pool::new(Vec::new());
    pool.state =
        State::new("nodes".parse().unwrap(), Vec::new(), pool.now).with_slowstart(Some(OVER));
    pool.up("s1", 1, Phase::Ready);
    pool.up("s2", 1, Phase::Ready);
    pool.after(60 * SECOND);
    pool
}

fn tagged(name: &str, slowstart: &str) -> Input {
    let mut member = member(name, 1, Phase::Ready);
    if let Role::Server(announced) = &mut member.meta.role {
        announced.tags = [("slowstart".to_owned(), slowstart.to_owned())].into();
    }
    Input::Member(MemberEvent::Up(member))
}

/// What a server gets of its share from now on, until it gets all.
fn course(pool: &mut Pool, name: &str) -> Vec<u8> {
    let mut course = Vec::new();
    while let Some(percent) = pool.server(name).throttle {
        course.push(percent);
        let next = pool.state.next_deadline(pool.now).unwrap();
        pool.after(next - pool.now);
    }
    course
}

const WHOLE_COURSE: [u8; 10] = [5, 15, 25, 35, 45, 55, 65, 75, 85, 95];

#[test]
fn the_first_servers_of_a_pool_have_their_whole_share_at_once() {
    let mut pool = warm();
    assert_eq!(pool.server("s1").throttle, None);
    assert_eq!(pool.server("s2").throttle, None);
    assert_eq!(pool.rotation(), ["s1", "s2"]);
}

#[test]
fn a_server_that_joins_others_gets_its_share_little_by_little() {
    let mut pool = warm();
    pool.up("s3", 1, Phase::Ready);
    assert_eq!(pool.status("s3"), Status::Up);
    let turns = pool.rotation();
    let of_s3 = turns.iter().filter(|name| *name == "s3").count();
    assert_eq!((of_s3, turns.len()), (1, 41));
    let began = pool.now;
    assert_eq!(course(&mut pool, "s3"), WHOLE_COURSE);
    assert_eq!(pool.now - began, OVER);
    assert_eq!(pool.rotation(), ["s1", "s2", "s3"]);
}

#[test]
fn a_server_warms_up_after_it_was_down_or_in_maintenance() {
    let mut pool = warm();
    pool.up("s1", 1, Phase::Down);
    pool.up("s1", 1, Phase::Ready);
    assert_eq!(course(&mut pool, "s1"), WHOLE_COURSE);
    pool.apply(wanted("s1", Wish::State(Admin::Maint)));
    pool.apply(wanted("s1", Wish::State(Admin::Ready)));
    assert_eq!(course(&mut pool, "s1"), WHOLE_COURSE);
    // Another process in its place is as cold as any.
    pool.up("s1", 2, Phase::Ready);
    assert_eq!(course(&mut pool, "s1"), WHOLE_COURSE);
}

#[test]
fn a_server_that_only_drained_or_was_suspected_is_warm() {
    let mut pool = warm();
    pool.apply(wanted("s1", Wish::State(Admin::Drain)));
    pool.apply(wanted("s1", Wish::State(Admin::Ready)));
    assert_eq!(pool.server("s1").throttle, None);
    pool.apply(Input::Member(MemberEvent::Suspect(id("s1", 1))));
    pool.apply(Input::Member(MemberEvent::Refuted(id("s1", 1))));
    assert_eq!(pool.server("s1").throttle, None);
}

#[test]
fn a_servers_own_tag_wins() {
    let mut pool = warm();
    pool.apply(tagged("s3", "off"));
    assert_eq!(pool.server("s3").throttle, None);
    pool.apply(tagged("s4", "2s"));
    let began = pool.now;
    course(&mut pool, "s4");
    assert_eq!(pool.now - began, 2 * SECOND);
    // Another version may say what is not known here.
    pool.apply(tagged("s5", "slowly"));
    let began = pool.now;
    course(&mut pool, "s5");
    assert_eq!(pool.now - began, OVER);
}

#[test]
fn where_all_warm_up_together_they_share_alike() {
    let mut pool = warm();
    for name in ["s1", "s2"] {
        pool.apply(wanted(name, Wish::State(Admin::Maint)));
    }
    pool.apply(wanted("s1", Wish::State(Admin::Ready)));
    assert_eq!(
        pool.server("s1").throttle,
        None,
        "it would be spared for nobody"
    );
    pool.apply(wanted("s2", Wish::State(Admin::Ready)));
    assert_eq!(pool.rotation(), ["s1", "s2"]);
    pool.after(60 * SECOND);
    for name in ["s3", "s4"] {
        pool.up(name, 1, Phase::Ready);
    }
    for name in ["s1", "s2"] {
        pool.apply(Input::Member(MemberEvent::Left(id(name, 1))));
    }
    assert_eq!(pool.server("s3").throttle, Some(5));
    assert_eq!(pool.rotation(), ["s3", "s4"]);
}

#[test]
fn an_operators_weight_is_what_a_server_warms_up_to() {
    let mut pool = warm();
    pool.up("s3", 1, Phase::Ready);
    pool.apply(wanted("s3", Wish::Weight(Some(20))));
    assert_eq!(
        (pool.server("s3").weight, pool.server("s3").share()),
        (20, 100)
    );
    pool.after(OVER);
    assert_eq!(pool.server("s3").share(), 2000);
}

#[test]
fn a_server_that_dies_while_it_warms_up_leaves_nothing_behind() {
    let mut pool = warm();
    pool.up("s3", 1, Phase::Ready);
    pool.up("s3", 1, Phase::Down);
    assert_eq!(pool.server("s3").throttle, None);
    pool.after(OVER);
    pool.up("s3", 1, Phase::Ready);
    assert_eq!(pool.server("s3").throttle, Some(5), "it begins anew");
    pool.apply(Input::Member(MemberEvent::Left(id("s3", 1))));
    assert_eq!(pool.rotation(), ["s1", "s2"]);
    let next = pool.state.next_deadline(pool.now);
    assert!(next.is_none_or(|next| next > pool.now + OVER), "{next:?}");
}

proptest! {
    #[test]
    fn the_share_of_a_server_that_stays_up_only_grows(
        weight in 1u16..=256, looks in proptest::collection::vec(0u64..2_000, 1..20)
    ) {
        let mut pool = warm();
        pool.up("s3", 1, Phase::Ready);
        pool.apply(wanted("s3", Wish::Weight(Some(weight))));
        let (mut last, began) = (0, pool.now);
        for millis in looks {
            pool.after(Duration::from_millis(millis));
            let share = pool.server("s3").share();
            prop_assert!(share > 0 && share >= last);
            prop_assert_eq!(share == 100 * weight, pool.now - began >= OVER);
            prop_assert!(pool.rotation().iter().any(|name| name == "s3"));
            last = share;
        }
        pool.after(OVER);
        prop_assert_eq!(pool.server("s3").share(), 100 * weight);
        prop_assert_eq!(pool.server("s3").throttle, None);
    }
}

#[test]
fn a_server_warms_up_beside_one_that_time_alone_let_in() {
    let mut pool = warm();
    for _ in 0..2 {
        pool.up("s1", 1, Phase::Down);
        pool.up("s1", 1, Phase::Ready);
    }
    assert_eq!(pool.status("s1"), Status::Down(Cause::Quarantine));
    pool.up("s2", 1, Phase::Down);
    pool.after(2 * SECOND);
    assert_eq!(pool.status("s1"), Status::Up);
    pool.after(3 * SECOND);
    pool.up("s2", 1, Phase::Ready);
    assert_eq!(pool.server("s2").throttle, Some(5));
}
