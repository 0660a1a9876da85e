//! Clients that send more than anyone has a use for. The balancer closes or
//! slows them, its memory stays within bounds, and others notice nothing.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use super::{
    before,
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY,
        RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, field, frame, indexed_field, request,
    },
};
use crate::support::origin::Origin;

/// By how much the most memory ever in use may grow, in KiB.
const GROWTH: u64 = 32 * 1024;

/// So long a write may wait: whoever is not read any more has been slowed.
const SLOWED: Duration = Duration::from_millis(500);

/// How a flood ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The connection was closed.
    Closed,
    /// It was not read from any more.
    Slowed,
    /// All was sent.
    Sent,
}

/// A balancer that endures `flood` while others are served. What the flood
/// ended with.
#[track_caller]
fn endures<T: Send>(
    origin: &Origin,
    flags: &[&str],
    flood: impl FnOnce(&mut Raw) -> T + Send,
) -> T {
    endures_with(origin, flags, &[], flood)
}

#[track_caller]
fn endures_with<T: Send>(
    origin: &Origin,
    flags: &[&str],
    settings: &[(u16, u32)],
    flood: impl FnOnce(&mut Raw) -> T + Send,
) -> T {
    let balancer = before(origin, flags);
    let mut bystander = balancer.connect();
    for _ in 0..10 {
        assert_eq!(bystander.request("GET", "/other", &[]).unwrap().status, 200);
    }
    let before = balancer.process.peak_memory();
    let end = thread::scope(|scope| {
        let mut raw = Raw::connect(balancer.http, settings);
        raw.hurry(SLOWED);
        let flood = scope.spawn(move || {
            let end = flood(&mut raw);
            (end, raw)
        });
        let mut served = 0;
        while !flood.is_finished() || served < 20 {
            let answer = bystander.request("GET", "/other", &[]);
            assert_eq!(answer.expect("others are served").status, 200);
            served += 1;
        }
        flood.join().expect("the flood has its way").0
    });
    let after = balancer.process.peak_memory();
    assert!(after - before < GROWTH, "{before} KiB, then {after} KiB");
    end
}

/// Sends that piece so many times.
fn pour(raw: &mut Raw, piece: &[u8], times: usize) -> End {
    let batch = 200.min(times);
    let bytes = piece.repeat(batch);
    for _ in 0..times / batch {
        if let Err(err) = raw.send(&bytes) {
            let waited = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
            return if waited.contains(&err.kind()) {
                End::Slowed
            } else {
                End::Closed
            };
        }
    }
    End::Sent
}

/// Whether the connection is closed behind what was sent.
fn is_closed(raw: &mut Raw) -> bool {
    loop {
        match raw.next() {
            Ok(frame) if frame.kind == GOAWAY => return true,
            Ok(_) => {}
            Err(err) => {
                let waited = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
                return !waited.contains(&err.kind());
            }
        }
    }
}

/// An origin that answers others at once, and holds all else until it is taken
/// back; and the most requests that it ever held.
fn holding() -> (Origin, Arc<AtomicUsize>) {
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let seen_most = Arc::clone(&most);
    let origin = Origin::start(move |visit| {
        if visit.seen().first_line().contains("/other") {
            return visit.send(crate::support::origin::ok("other"));
        }
        let held = now.fetch_add(1, Relaxed) + 1;
        seen_most.fetch_max(held, Relaxed);
        while visit.read().is_ok_and(|read| !read.is_empty()) {}
        now.fetch_sub(1, Relaxed);
        Err(io::ErrorKind::UnexpectedEof.into())
    });
    (origin, most)
}

const BOTH: u8 = END_HEADERS | END_STREAM;
const CANCEL: [u8; 4] = 8_u32.to_be_bytes();

#[test]
fn requests_that_are_taken_back_at_once_are_cut_off() {
    let (origin, most) = holding();
    let head = request("GET", "/");
    let closed = endures(&origin, &[], |raw| {
        for number in 0..20_000 {
            let stream = number * 2 + 1;
            let mut pair = frame(HEADERS, BOTH, stream, &head);
            pair.extend(frame(RST_STREAM, 0, stream, &CANCEL));
            if raw.send(&pair).is_err() {
                return true;
            }
        }
        is_closed(raw)
    });
    assert!(closed);
    assert!(most.load(Relaxed) <= 100, "{most:?}");
}

#[test]
fn requests_that_are_taken_back_once_they_are_on_their_way_are_cut_off() {
    let (origin, most) = holding();
    let head = request("GET", "/");
    let sent = endures(&origin, &[], |raw| {
        let mut sent = 0;
        for batch in 0..400 {
            let streams = (0..50).map(|number| (batch * 50 + number) * 2 + 1);
            let heads = streams
                .clone()
                .flat_map(|stream| frame(HEADERS, BOTH, stream, &head));
            let resets = streams.flat_map(|stream| frame(RST_STREAM, 0, stream, &CANCEL));
            let (heads, resets): (Vec<_>, Vec<_>) = (heads.collect(), resets.collect());
            let taken = raw.send(&heads).and_then(|()| raw.sync());
            if taken.and_then(|()| raw.send(&resets)).is_err() {
                break;
            }
            sent += 50;
        }
        sent
    });
    assert!((500..1000).contains(&sent), "cut off after {sent}");
    assert!(most.load(Relaxed) <= 100, "{most:?}");
    assert!(origin.seen().len() < 1000);
}

#[test]
fn a_head_without_an_end_is_cut_off() {
    let origin = Origin::saying("other");
    let closed = endures(&origin, &[], |raw| {
        raw.send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/")))
            .unwrap();
        let more = frame(CONTINUATION, 0, 1, &field(b"x", &[b'a'; 100]).repeat(10));
        pour(raw, &more, 20_000) == End::Closed || is_closed(raw)
    });
    assert!(closed);
}

#[test]
fn a_small_head_that_refers_to_a_large_table_stays_small() {
    let (origin, _) = holding();
    endures(&origin, &[], |raw| {
        // A field of 4,000 octets, then 16,000 times the same again.
        let table = [request("GET", "/"), indexed_field(b"x", &[b'a'; 4000])].concat();
        raw.send(&frame(HEADERS, BOTH, 1, &table)).unwrap();
        let bomb = [request("GET", "/"), vec![0x80 | 0x3e; 16_000]].concat();
        for stream in 1..=50 {
            if raw
                .send(&frame(HEADERS, BOTH, stream * 2 + 1, &bomb))
                .is_err()
            {
                return;
            }
        }
        raw.sync().ok();
    });
    assert!(origin.seen().iter().all(|seen| seen.head.len() < 20_000));
}

#[test]
fn a_hundred_thousand_fields_are_too_many() {
    let (origin, _) = holding();
    let closed = endures(&origin, &[], |raw| {
        raw.send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/many")))
            .unwrap();
        let more = frame(CONTINUATION, 0, 1, &field(b"a", b"b").repeat(1000));
        let end = pour(raw, &more, 100);
        raw.send(&frame(CONTINUATION, END_HEADERS, 1, &[])).ok();
        end == End::Closed || is_closed(raw)
    });
    assert!(closed);
    assert!(
        !origin
            .seen()
            .iter()
            .any(|seen| seen.first_line().contains("/many"))
    );
}

#[test]
fn pings_that_nobody_reads_the_answers_to_do_not_pile_up() {
    let origin = Origin::saying("other");
    let ping = frame(PING, 0, 0, b"pingping");
    let end = endures(&origin, &[], |raw| pour(raw, &ping, 1_000_000));
    assert_ne!(end, End::Sent);
}

#[test]
fn settings_do_not_pile_up() {
    let origin = Origin::saying("other");
    let settings = frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 0]);
    endures(&origin, &[], |raw| pour(raw, &settings, 200_000));
}

#[test]
fn acknowledgements_of_nothing_are_harmless() {
    let origin = Origin::saying("other");
    for piece in [
        frame(PING, ACK, 0, b"pingping"),
        frame(SETTINGS, ACK, 0, &[]),
    ] {
        endures(&origin, &[], |raw| pour(raw, &piece, 50_000));
    }
}

#[test]
fn empty_frames_of_a_body_do_not_pile_up() {
    let (origin, _) = holding();
    let head = request("POST", "/");
    let closed = endures(&origin, &[], |raw| {
        raw.send(&frame(HEADERS, END_HEADERS, 1, &head)).unwrap();
        // What fills the pipe to the server, so that nothing is read on.
        raw.send(&frame(DATA, 0, 1, &[b'a'; 16_000]).repeat(10))
            .unwrap();
        pour(raw, &frame(DATA, 0, 1, b""), 400_000) == End::Closed || is_closed(raw)
    });
    assert!(closed);
}

#[test]
fn windows_that_grow_and_priorities_that_change_are_harmless_until_they_overflow() {
    let origin = Origin::saying("other");
    let closed = endures(&origin, &[], |raw| {
        pour(raw, &frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7]), 100_000);
        pour(
            raw,
            &frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
            100_000,
        );
        raw.sync().expect("it goes on");
        let most = frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
        raw.send(&most).unwrap();
        is_closed(raw)
    });
    assert!(closed);
}

#[test]
fn a_hundred_large_answers_that_nobody_takes_are_not_held() {
    let origin = Origin::start(|visit| {
        if visit.seen().first_line().contains("/other") {
            return visit.send(crate::support::origin::ok("other"));
        }
        visit.send("HTTP/1.1 200 OK\r\ncontent-length: 8388608\r\n\r\n")?;
        visit.send(vec![b'a'; 8 << 20])
    });
    let no_window = [(4, 0)];
    let given_up = endures_with(&origin, &["--timeout-client", "1s"], &no_window, |raw| {
        for number in 0..100 {
            let head = request("GET", "/large");
            raw.send(&frame(HEADERS, BOTH, number * 2 + 1, &head))
                .unwrap();
        }
        let mut given_up = 0;
        while given_up < 100 {
            match raw.next() {
                Ok(frame) => given_up += u32::from(frame.kind == RST_STREAM),
                Err(err) => panic!("{err} after {given_up}"),
            }
        }
        given_up
    });
    assert_eq!(given_up, 100);
}

#[test]
fn a_hundred_bodies_that_never_come_are_given_up() {
    let origin = Origin::saying("other");
    let answered = endures(&origin, &["--timeout-client", "500ms"], |raw| {
        for number in 0..100 {
            let head = request("POST", "/");
            raw.send(&frame(HEADERS, END_HEADERS, number * 2 + 1, &head))
                .unwrap();
        }
        let mut answered = 0;
        while answered < 100 {
            answered += u32::from(raw.next().unwrap().kind == HEADERS);
        }
        answered
    });
    assert_eq!(answered, 100);
}
