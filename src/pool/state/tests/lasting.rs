//! What lasts, and what time forgets.

use super::*;

#[test]
fn a_balancer_that_is_cut_off_for_long_keeps_its_last_pool() {
    let mut pool = Pool::new(Vec::new());
    for name in ["s1", "s2"] {
        pool.up(name, 1, Phase::Ready);
        pool.apply(down(id(name, 1)));
    }
    assert!(pool.after(Duration::from_mins(10)).is_empty());
    assert_eq!(pool.rotation(), ["s1", "s2"]);
    assert_eq!(pool.state.next_deadline(pool.now), None);
    // Once it hears one again, it waits for the other before it forgets it.
    pool.up("s1", 1, Phase::Ready);
    assert!(pool.after(59 * SECOND).is_empty());
    assert_eq!(pool.after(SECOND), [Change::Left]);
    assert_eq!(pool.rotation(), ["s1"]);
}

#[test]
fn a_servers_figures_survive_its_absence() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    let before = pool.server("s1");
    before
        .live
        .counters
        .of(Slot::new(0))
        .traffic
        .requests
        .add(5);
    pool.apply(Input::Member(MemberEvent::Left(id("s1", 1))));
    pool.after(60 * SECOND);
    pool.up("s1", 2, Phase::Ready);
    let after = pool.server("s1");
    assert_eq!((after.sid, after.live.counters.requests()), (before.sid, 5));
    assert_ne!(after.life, before.life);
}

#[test]
fn the_cursor_goes_on_through_every_change() {
    let mut pool = Pool::new(Vec::new());
    let before = pool.state.snapshot();
    pool.up("s1", 1, Phase::Ready);
    assert!(Arc::ptr_eq(&before.cursor, &pool.state.snapshot().cursor));
}

#[test]
fn a_lost_server_leaves_the_page_after_a_minute() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    pool.up("s2", 1, Phase::Ready);
    pool.apply(down(id("s1", 1)));
    assert_eq!(pool.after(59 * SECOND), []);
    assert_eq!(pool.after(SECOND), [Change::Left]);
    assert_eq!(pool.rotation(), ["s2"]);
}

#[test]
fn downtime_adds_up_over_the_times_a_server_was_down() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    for _ in 0..2 {
        pool.up("s1", 1, Phase::Down);
        pool.after(10 * SECOND);
        pool.up("s1", 1, Phase::Ready);
        pool.after(10 * SECOND);
    }
    let server = pool.server("s1");
    assert_eq!((server.downs, server.downtime(pool.now)), (2, 20 * SECOND));
}

#[test]
fn a_server_that_did_not_change_is_described_once() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    let before = pool.server("s1");
    pool.up("s2", 1, Phase::Ready);
    assert!(Arc::ptr_eq(&before, &pool.server("s1")));
}
