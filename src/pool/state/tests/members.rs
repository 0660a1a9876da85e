//! Members come, are suspected, lost and go.

use super::*;

#[test]
fn a_server_takes_traffic_once_its_app_accepts() {
    let mut pool = Pool::new(Vec::new());
    let joined = pool.up("s1", 1, Phase::Down);
    assert_eq!(joined, [Change::Joined(Status::Down(Cause::Agent))]);
    assert!(pool.rotation().is_empty());
    assert_eq!(pool.up("s1", 1, Phase::Ready), [Change::Became(Status::Up)]);
    assert_eq!(pool.rotation(), ["s1"]);
}

#[test]
fn servers_take_turns_in_the_order_of_their_names_however_they_joined() {
    let mut pool = Pool::new(Vec::new());
    for name in ["s10", "s2", "s1"] {
        pool.up(name, 1, Phase::Ready);
    }
    assert_eq!(pool.rotation(), ["s1", "s2", "s10"]);
}

#[test]
fn a_draining_server_keeps_its_users_and_takes_no_new_ones() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    pool.up("s2", 1, Phase::Ready);
    pool.up("s1", 1, Phase::Draining);
    assert_eq!(pool.rotation(), ["s2"]);
    let server = pool.server("s1");
    assert!(server.keeps_users());
    assert_eq!(server.keeps_connections_for(), Some(SECOND));
}

#[test]
fn a_server_that_says_goodbye_is_gone() {
    for goodbye in [
        Input::Member(MemberEvent::Up(member("s1", 1, Phase::Leaving))),
        Input::Member(MemberEvent::Left(id("s1", 1))),
    ] {
        let mut pool = Pool::new(Vec::new());
        pool.up("s1", 1, Phase::Ready);
        assert_eq!(pool.apply(goodbye), [Change::Left]);
        assert!(pool.state.snapshot().servers.is_empty());
    }
}

#[test]
fn a_suspect_is_the_last_resort() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    pool.up("s2", 1, Phase::Ready);
    pool.apply(Input::Member(MemberEvent::Suspect(id("s1", 1))));
    assert_eq!(pool.rotation(), ["s2"]);
    pool.apply(Input::Member(MemberEvent::Suspect(id("s2", 1))));
    assert_eq!(pool.rotation(), ["s1", "s2"]);
    pool.apply(Input::Member(MemberEvent::Refuted(id("s1", 1))));
    assert_eq!(pool.rotation(), ["s1"]);
}

#[test]
fn a_suspect_is_up_and_not_active() {
    let mut pool = Pool::new(Vec::new());
    for name in ["s1", "s2"] {
        pool.up(name, 1, Phase::Ready);
    }
    pool.apply(Input::Member(MemberEvent::Suspect(id("s1", 1))));
    let roll = pool.state.roll(&"s1".parse().unwrap());
    assert_eq!((roll.active, roll.up), (1, 2));
}

#[test]
fn gossip_alone_never_empties_the_pool() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    pool.up("s2", 1, Phase::Ready);
    pool.apply(down(id("s1", 1)));
    assert_eq!(pool.rotation(), ["s2"]);
    pool.apply(down(id("s2", 1)));
    assert_eq!(pool.rotation(), ["s1", "s2"]);
}

#[test]
fn other_services_and_balancers_are_not_in_the_pool() {
    let mut pool = Pool::new(Vec::new());
    let mut other = member("s1", 1, Phase::Ready);
    if let Role::Server(announcement) = &mut other.meta.role {
        announcement.service = "api".parse().unwrap();
    }
    let mut balancer = member("s2", 1, Phase::Ready);
    balancer.meta.role = Role::Balancer;
    for member in [other, balancer] {
        assert_eq!(pool.apply(Input::Member(MemberEvent::Up(member))), []);
    }
}

#[test]
fn the_command_lines_server_is_not_replaced_by_a_member_of_its_name() {
    let mut pool = Pool::new(vec![static_server(false)]);
    assert_eq!(pool.up("s1", 1, Phase::Ready), []);
    assert_eq!(pool.server("s1").origin, Origin::Static);
}
