//! What fuzzing has found worth keeping (`tests/fuzz/corpus`), through the same
//! functions, as it is and with small changes.

use std::{fs, panic, path::Path};

#[path = "../fuzz/targets.rs"]
#[allow(unreachable_pub, reason = "it is a library of its own too")]
mod targets;

/// How often each file is changed; `TIDINGS_FUZZ_CHANGES` is another number.
const CHANGES: usize = 20;

#[test]
fn what_holds_for_all_input_holds_for_the_corpus() {
    each(|name, target, bytes| holds(name, target, bytes));
}

#[test]
fn and_for_what_is_nearly_the_same() {
    let changes = std::env::var("TIDINGS_FUZZ_CHANGES");
    let changes = changes.map_or(CHANGES, |number| number.parse().unwrap());
    each(|name, target, bytes| {
        let mut dice = Dice(
            bytes
                .iter()
                .fold(1, |sum, byte| sum * 31 % 65_521 + u64::from(*byte)),
        );
        for _ in 0..changes {
            let mut bytes = bytes.to_vec();
            for _ in 0..=dice.below(3) {
                change(&mut bytes, &mut dice);
            }
            holds(name, target, &bytes);
        }
    });
}

/// Calls `then` with each file, and the target that it is for.
fn each(then: impl Fn(&str, targets::Target, &[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let folders = fs::read_dir(&corpus).unwrap().count();
    assert_eq!(folders, targets::ALL.len(), "a folder for each target");
    for (name, target) in targets::ALL {
        let mut paths: Vec<_> = fs::read_dir(corpus.join(name))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(!paths.is_empty(), "{name} has nothing to try");
        paths.sort();
        for path in paths {
            then(name, *target, &fs::read(path).unwrap());
        }
    }
}

#[track_caller]
fn holds(name: &str, target: targets::Target, bytes: &[u8]) {
    let outcome = panic::catch_unwind(|| target(bytes));
    assert!(outcome.is_ok(), "{name}: b\"{}\"", bytes.escape_ascii());
}

/// A byte is another, is gone or is there twice; or a run of them is.
fn change(bytes: &mut Vec<u8>, dice: &mut Dice) {
    const TELLING: &[u8] = b"\r\n\t ;:,=\"\\/%&[]0019afAF\x00\x7f\x80\xff";
    let at = dice.below(bytes.len() + 1);
    let end = (at + dice.below(8)).min(bytes.len());
    match dice.below(5) {
        0 => bytes.insert(at, TELLING[dice.below(TELLING.len())]),
        1 if at < bytes.len() => bytes[at] = TELLING[dice.below(TELLING.len())],
        2 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        3 => drop(bytes.drain(at..end)),
        _ => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
    }
}

/// Chance that is the same each time (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}
