//! Several members have one name.

use super::*;

#[test]
fn a_restart_under_the_same_name_wins_and_late_word_of_the_old_life_is_ignored() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    let old = pool.server("s1");
    let mut moved = member("s1", 2, Phase::Ready);
    moved.id.addr = "127.0.0.9:7946".parse().unwrap();
    let changes = pool.apply(Input::Member(MemberEvent::Up(moved)));
    assert_eq!(changes, [Change::Replaced]);
    assert_eq!(pool.apply(down(id("s1", 1))), []);
    assert_eq!(pool.apply(Input::Fault(old.life, Fault::Refused)), []);
    assert_eq!(pool.status("s1"), Status::Up);
    assert_eq!(
        pool.up("s1", 1, Phase::Ready),
        [],
        "the older life comes too late"
    );
}

#[test]
fn a_node_of_the_same_name_waits_until_it_is_ready_and_the_other_takes_over_again() {
    let other_id = MemberId {
        addr: "127.0.0.9:7946".parse().unwrap(),
        epoch: 2,
    };
    let other = |phase| {
        let mut member = member("s1", 2, phase);
        member.id = other_id;
        Input::Member(MemberEvent::Up(member))
    };
    for end in [MemberEvent::Left(other_id), MemberEvent::Down(other_id)] {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        assert_eq!(pool.apply(other(Phase::Down)), []);
        assert_eq!(pool.apply(other(Phase::Ready)), [Change::Replaced]);
        assert_eq!(pool.server("s1").origin, Origin::Gossip(other_id));
        pool.apply(Input::Member(end));
        assert_eq!(pool.server("s1").origin, Origin::Gossip(id("s1", 1)));
        assert_eq!(pool.status("s1"), Status::Up);
    }
}

#[test]
fn two_nodes_of_one_name_are_told_of_and_a_mere_restart_is_not() {
    for (dies, expected) in [(true, vec![]), (false, vec![Change::Clash])] {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        let mut other = member("s1", 2, Phase::Ready);
        other.id.addr = "127.0.0.9:7946".parse().unwrap();
        pool.apply(Input::Member(MemberEvent::Up(other)));
        if dies {
            assert_eq!(pool.apply(down(id("s1", 1))), []);
        }
        assert_eq!(pool.after(10 * SECOND), expected);
    }
}

#[test]
fn who_comes_after_a_goodbye_is_no_second_node_of_the_name() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    let mut next = member("s1", 2, Phase::Down);
    next.id.addr = "127.0.0.9:7946".parse().unwrap();
    pool.apply(Input::Member(MemberEvent::Up(next.clone())));
    pool.apply(Input::Member(MemberEvent::Left(id("s1", 1))));
    if let Role::Server(announced) = &mut next.meta.role {
        announced.phase = Phase::Ready;
    }
    pool.apply(Input::Member(MemberEvent::Up(next)));
    assert_eq!(pool.rotation(), ["s1"]);
    assert_eq!(pool.after(10 * SECOND), []);
}
