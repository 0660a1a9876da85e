//! Servers crash again and again.

use super::*;

/// Lets s1 crash and its app come back, and says when it is up again.
fn crash(pool: &mut Pool) -> Duration {
    pool.up("s1", 1, Phase::Down);
    let down = pool.now;
    pool.up("s1", 1, Phase::Ready);
    while pool.status("s1") != Status::Up {
        assert_eq!(pool.status("s1"), Status::Down(Cause::Quarantine));
        let next = pool.state.next_deadline(pool.now).unwrap();
        pool.after(next - pool.now);
    }
    pool.now - down
}

#[test]
fn a_server_that_keeps_crashing_is_kept_out_for_longer_and_eased_in() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    pool.up("s2", 1, Phase::Ready);
    let out: Vec<u64> = (0..4).map(|_| crash(&mut pool).as_secs()).collect();
    assert_eq!(out, [0, 1, 2, 4]);
    assert_eq!(pool.server("s1").throttle, Some(5));
    let share = pool.rotation().iter().filter(|name| *name == "s1").count();
    assert_eq!((share, pool.rotation().len()), (1, 21));
    pool.after(10 * SECOND);
    assert_eq!(pool.server("s1").throttle, None);
    assert_eq!(pool.rotation(), ["s1", "s2"]);
}

#[test]
fn a_new_container_does_not_wipe_the_record() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s2", 9, Phase::Ready);
    for epoch in 1..4 {
        pool.up("s1", epoch, Phase::Ready);
        // The life before, replaced without a goodbye, is found dead.
        pool.apply(down(id("s1", epoch - 1)));
    }
    assert_eq!(pool.status("s1"), Status::Down(Cause::Quarantine));
}

#[test]
fn a_graceful_restart_is_no_crash() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s2", 9, Phase::Ready);
    for epoch in 1..9 {
        pool.up("s1", epoch, Phase::Ready);
        assert_eq!(pool.status("s1"), Status::Up);
        pool.up("s1", epoch, Phase::Draining);
        pool.up("s1", epoch, Phase::Leaving);
    }
}

#[test]
fn quarantine_takes_no_more_than_half_of_the_pool() {
    let mut pool = Pool::new(Vec::new());
    for name in ["s1", "s2", "s3"] {
        pool.up(name, 1, Phase::Ready);
    }
    for _ in 0..3 {
        for name in ["s1", "s2", "s3"] {
            pool.up(name, 1, Phase::Down);
            pool.up(name, 1, Phase::Ready);
        }
    }
    let snapshot = pool.state.snapshot();
    let kept_out = |server: &&Arc<Server>| server.status == Status::Down(Cause::Quarantine);
    assert_eq!(snapshot.servers.iter().filter(kept_out).count(), 1);
}

#[test]
fn with_nobody_else_left_a_quarantined_server_serves() {
    let mut pool = Pool::new(Vec::new());
    pool.up("s1", 1, Phase::Ready);
    pool.up("s2", 1, Phase::Ready);
    crash(&mut pool);
    pool.up("s1", 1, Phase::Down);
    pool.up("s1", 1, Phase::Ready);
    assert_eq!(pool.rotation(), ["s2"]);
    pool.up("s2", 1, Phase::Down);
    assert_eq!(pool.rotation(), ["s1"]);
}
