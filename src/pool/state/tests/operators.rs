//! Operators steer.

use super::*;

#[test]
fn an_operator_takes_a_server_out_drains_it_and_gives_it_back() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    pool.up("s2", 1, Phase::Ready);
    let maint = pool.apply(wanted("s1", Wish::State(Admin::Maint)));
    assert_eq!(maint, [Change::Became(Status::Maint)]);
    assert_eq!(pool.rotation(), ["s2"]);
    assert!(!pool.server("s1").keeps_users());
    pool.apply(wanted("s1", Wish::State(Admin::Drain)));
    assert!(pool.server("s1").keeps_users());
    assert_eq!(pool.rotation(), ["s2"]);
    pool.apply(wanted("s1", Wish::State(Admin::Ready)));
    assert_eq!(pool.rotation(), ["s1", "s2"]);
}

#[test]
fn a_wish_waits_for_its_server_and_outlives_it() {
    let mut pool = Pool::new(Vec::new());
    pool.apply(wanted("s1", Wish::State(Admin::Drain)));
    pool.apply(wanted("s1", Wish::Weight(Some(7))));
    for epoch in 1..3 {
        pool.up("s1", epoch, Phase::Ready);
        let server = pool.server("s1");
        assert_eq!((server.status, server.weight), (Status::Drain, 7));
        pool.apply(Input::Member(MemberEvent::Left(id("s1", epoch))));
    }
    pool.apply(wanted("s1", Wish::Weight(None)));
    pool.up("s1", 3, Phase::Ready);
    assert_eq!(pool.server("s1").weight, 1);
}

#[test]
fn an_operators_verdict_holds_until_a_check_has_another() {
    let mut pool = Pool::new(vec![static_server(true)]);
    let say = |verdict| Input::Told("s1".parse().unwrap(), Order::Health(verdict));
    let down = Status::Down(Cause::Operator);
    assert_eq!(pool.apply(say(Verdict::Down)), [Change::Became(down)]);
    assert_eq!(
        pool.apply(say(Verdict::Up)),
        [Change::Became(Status::Up)],
        "no crash to be kept out for"
    );
    assert_eq!(pool.server("s1").health.unwrap().count(), 4);
    pool.apply(say(Verdict::Stopping));
    assert_eq!(pool.status("s1"), Status::Drain);
    pool.apply(say(Verdict::Down));
    let life = pool.server("s1").life;
    for _ in 0..2 {
        pool.apply(Input::Probed(life, report(CheckCode::L4Ok)));
    }
    assert_eq!(pool.status("s1"), Status::Up);
}

#[test]
fn without_checks_an_operators_verdict_holds_until_the_next() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    let say = |verdict| Input::Told("s1".parse().unwrap(), Order::Health(verdict));
    pool.apply(say(Verdict::Down));
    pool.up("s1", 1, Phase::Ready);
    assert_eq!(pool.status("s1"), Status::Down(Cause::Operator));
    pool.apply(say(Verdict::Up));
    assert_eq!(pool.status("s1"), Status::Up);
}

#[test]
fn checks_are_switched_off_and_pointed_elsewhere() {
    let mut pool = Pool::new(vec![static_server(true)]);
    let tell = |order| Input::Told("s1".parse().unwrap(), order);
    let elsewhere = CheckAt {
        ip: None,
        port: Some(8080),
    };
    pool.apply(tell(Order::CheckAt(elsewhere)));
    let Some(Probe::Check { at, .. }) = pool.server("s1").probe.clone() else {
        panic!("it is checked");
    };
    let addr = pool.server("s1").addr.unwrap();
    assert_eq!(at.resolve(addr), "127.0.0.1:8080".parse().unwrap());
    pool.apply(tell(Order::Checks(false)));
    assert_eq!(pool.server("s1").probe, None);
    pool.apply(tell(Order::Checks(true)));
    assert!(pool.server("s1").probe.is_some());
}

#[test]
fn an_added_server_begins_in_maintenance_and_is_removed_only_there() {
    let mut pool = Pool::new(Vec::new());
    pool.apply(wanted("s1", Wish::State(Admin::Ready)));
    let added = pool.apply(Input::Added(static_server(true)));
    assert_eq!(added, [Change::Joined(Status::Maint)]);
    assert!(pool.rotation().is_empty(), "an older wish does not count");
    assert_eq!(pool.server("s1").probe, None, "its checks are off");
    let again = pool.apply(Input::Added(static_server(true)));
    assert!(again.is_empty(), "its name is taken");

    let remove = || Input::Removed("s1".parse().unwrap());
    pool.apply(wanted("s1", Wish::State(Admin::Ready)));
    assert_eq!(pool.rotation(), ["s1"]);
    assert!(pool.apply(remove()).is_empty());
    pool.apply(wanted("s1", Wish::State(Admin::Maint)));
    assert_eq!(pool.apply(remove()), [Change::Removed]);
}

#[test]
fn a_server_that_an_agent_announces_is_not_removed() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    pool.apply(wanted("s1", Wish::State(Admin::Maint)));
    assert!(pool.apply(Input::Removed("s1".parse().unwrap())).is_empty());
    assert_eq!(pool.status("s1"), Status::Maint);
}
