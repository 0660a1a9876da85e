//! Checks, faults and addresses.

use super::*;

#[test]
fn a_refused_connection_takes_a_server_out_until_a_probe_is_accepted() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    let life = pool.server("s1").life;
    assert_eq!(pool.server("s1").probe, None);
    let changes = pool.apply(Input::Fault(life, Fault::Refused));
    assert_eq!(changes, [Change::Became(Status::Down(Cause::Refused))]);
    assert_eq!(pool.server("s1").probe, Some(Probe::Recovery));
    assert_eq!(
        pool.apply(Input::Probed(life, report(CheckCode::L4Connection))),
        []
    );
    let changes = pool.apply(Input::Probed(life, report(CheckCode::L4Ok)));
    assert_eq!(changes, [Change::Became(Status::Up)]);
    assert_eq!(pool.server("s1").probe, None);
}

#[test]
fn a_broken_connection_only_asks_for_a_probe() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    let life = pool.server("s1").life;
    assert_eq!(pool.apply(Input::Fault(life, Fault::Broken)), []);
    assert_eq!(pool.server("s1").probe, Some(Probe::Confirm));
    let changes = pool.apply(Input::Probed(life, report(CheckCode::L4Connection)));
    assert_eq!(changes, [Change::Became(Status::Down(Cause::Refused))]);
}

#[test]
fn an_agent_that_sees_its_app_accept_again_clears_what_traffic_met() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    let life = pool.server("s1").life;
    pool.apply(Input::Fault(life, Fault::Refused));
    pool.up("s1", 1, Phase::Down);
    assert_eq!(pool.up("s1", 1, Phase::Ready), [Change::Became(Status::Up)]);
}

#[test]
fn checks_take_a_static_server_down_and_bring_it_back() {
    let mut pool = Pool::new(vec![static_server(true)]);
    let life = pool.server("s1").life;
    let mut probed = |code| pool.apply(Input::Probed(life, report(code)));
    assert_eq!(probed(CheckCode::L4Ok), []);
    assert_eq!(probed(CheckCode::L4Timeout), []);
    assert_eq!(probed(CheckCode::L4Timeout), []);
    let down = Change::Became(Status::Down(Cause::Check));
    assert_eq!(probed(CheckCode::L4Timeout), [down]);
    assert_eq!(probed(CheckCode::L4Ok), []);
    assert_eq!(probed(CheckCode::L4Ok), [Change::Became(Status::Up)]);
    let server = pool.server("s1");
    assert_eq!((server.failed_checks, server.downs), (3, 1));
}

#[test]
fn a_checked_server_that_refuses_traffic_is_down_at_once_and_checked_sooner() {
    let mut pool = Pool::new(vec![static_server(true)]);
    let life = pool.server("s1").life;
    pool.apply(Input::Fault(life, Fault::Refused));
    assert_eq!(pool.status("s1"), Status::Down(Cause::Refused));
    let probe = pool.server("s1").probe.clone();
    assert!(matches!(probe, Some(Probe::Check { interval, .. }) if interval < SECOND));
    pool.apply(Input::Probed(life, report(CheckCode::L4Ok)));
    pool.apply(Input::Probed(life, report(CheckCode::L4Ok)));
    assert_eq!(pool.status("s1"), Status::Up);
}

#[test]
fn a_server_without_an_address_waits_for_one_and_a_new_one_is_a_new_life() {
    let mut server = static_server(false);
    server.target = "app:3000".into();
    let mut pool = Pool::new(vec![server]);
    assert_eq!(pool.status("s1"), Status::Down(Cause::Unresolved));
    let name: Name = "s1".parse().unwrap();
    let resolved = |addr: &str| Input::Resolved(name.clone(), Some(addr.parse().unwrap()));
    assert_eq!(
        pool.apply(resolved("10.0.0.1:3000")),
        [Change::Became(Status::Up)]
    );
    let first = pool.server("s1").life;
    pool.apply(Input::Resolved(name.clone(), None));
    assert_eq!(
        pool.server("s1").life,
        first,
        "an address that works is kept"
    );
    pool.apply(resolved("10.0.0.2:3000"));
    assert_ne!(pool.server("s1").life, first);
}

#[test]
fn a_lifeline_that_breaks_is_looked_into_before_it_is_believed() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    let life = pool.server("s1").life;
    let hung_up = Input::Member(MemberEvent::HungUp(id("s1", 1)));
    assert_eq!(pool.apply(hung_up.clone()), []);
    assert_eq!(pool.server("s1").probe, Some(Probe::Confirm));
    // The app outlives its agent by a moment; one look is not enough.
    pool.apply(Input::Probed(life, report(CheckCode::L4Ok)));
    assert_eq!(pool.server("s1").probe, Some(Probe::Confirm));
    pool.now += Duration::from_millis(20);
    let refused = Input::Probed(life, report(CheckCode::L4Connection));
    let events = pool.state.apply(refused, pool.now);
    assert_eq!(events[0].what, Change::Became(Status::Down(Cause::Refused)));
    let took = Duration::from_millis(20);
    let sign = Sign::Lifeline;
    assert_eq!(events[0].detected, Some(Detection { sign, took }));
}

#[test]
fn an_app_that_outlives_its_agents_lifeline_stays() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    let life = pool.server("s1").life;
    pool.apply(Input::Member(MemberEvent::HungUp(id("s1", 1))));
    for _ in 0..6 {
        assert_eq!(pool.apply(Input::Probed(life, report(CheckCode::L4Ok))), []);
    }
    assert_eq!(pool.server("s1").probe, None);
    assert_eq!(pool.status("s1"), Status::Up);
}

#[test]
fn an_agents_server_over_tls_is_looked_at_from_here_and_down_until_tls_can_be_made() {
    let over_tls = |phase| {
        let mut member = member("s1", 1, phase);
        if let Role::Server(announced) = &mut member.meta.role {
            announced.tags = [("tls".to_owned(), "1".to_owned())].into();
        }
        Input::Member(MemberEvent::Up(member))
    };
    let mut pool = Pool::new(Vec::new());
    pool.apply(over_tls(Phase::Down));
    assert_eq!(pool.server("s1").probe, None, "nobody listens yet");
    pool.apply(over_tls(Phase::Ready));
    assert_eq!(pool.server("s1").probe, Some(Probe::Confirm));
    let life = pool.server("s1").life;
    let down = Change::Became(Status::Down(Cause::Check));
    let probed = |code| Input::Probed(life, report(code));
    assert_eq!(pool.apply(probed(CheckCode::L6Response)), [down]);
    assert_eq!(pool.server("s1").probe, Some(Probe::Recovery));
    let up = Change::Became(Status::Up);
    assert_eq!(pool.apply(probed(CheckCode::L6Ok)), [up]);
    assert_eq!(pool.server("s1").probe, None);
}
