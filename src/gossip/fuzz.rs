//! What fuzz targets call: every parser of what comes over the wire. None of
//! it may panic, whatever the bytes are.

use tokio::time::Instant;

use super::{
    Admission,
    core::{Birth, Core, Roster},
    identity::Id,
    wire::{Envelope, Key, Keyring, Kind},
};
use crate::membership::{MemberId, Meta, Role};

/// A datagram, as it comes, and as what is inside an envelope.
pub fn packet(bytes: &[u8]) {
    for envelope in envelopes() {
        if let Ok(opened) = envelope.open(bytes) {
            receive(opened.kind, &opened.body);
        }
    }
    for kind in [Kind::Foca, Kind::Hello, Kind::Digest] {
        receive(kind, bytes);
    }
}

/// A frame of a TCP connection with its length, and what is inside one.
pub fn frame(bytes: &[u8]) {
    if let Some((prefix, rest)) = bytes.split_first_chunk() {
        for envelope in envelopes() {
            if let Ok(opened) = envelope.open_frame(*prefix, rest) {
                table(&opened.body);
            }
        }
    }
    table(bytes);
    postcard::from_bytes::<MemberId>(bytes).ok();
}

/// What a node says of itself.
pub fn meta(bytes: &[u8]) {
    if let Ok(id) = postcard::from_bytes::<Id>(bytes) {
        id.meta();
    }
}

fn envelopes() -> [Envelope; 2] {
    let keyed: Keyring = std::iter::once(Key::generate()).collect();
    [Keyring::default(), keyed].map(|keyring| Envelope::new(node().name, keyring))
}

fn receive(kind: Kind, body: &[u8]) {
    let now = Instant::now();
    for admission in [Admission::Everyone, Admission::Private] {
        let Some(mut core) = core(admission, now) else {
            return;
        };
        let from = ([10, 0, 0, 2], 7946).into();
        core.receive(from, kind, body, now).ok();
        core.settle();
    }
}

fn table(body: &[u8]) {
    let now = Instant::now();
    if let Ok(roster) = postcard::from_bytes::<Roster>(body)
        && let Some(mut core) = core(Admission::Private, now)
    {
        core.merge(roster, now).ok();
        core.settle();
    }
}

fn core(admission: Admission, now: Instant) -> Option<Core> {
    let birth = Birth {
        addr: ([10, 0, 0, 1], 7946).into(),
        meta: node(),
        admission,
        unix_ms: 1_700_000_000_000,
        now,
        seed: 1,
    };
    Core::new(&birth).ok()
}

fn node() -> Meta {
    Meta {
        name: "tidings".parse().expect("a name"),
        role: Role::Balancer,
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut as _;
    use proptest::prelude::*;

    use super::*;
    use crate::gossip::core::admit;

    /// What a node sends, to be changed here and there.
    fn samples() -> Vec<Vec<u8>> {
        let now = Instant::now();
        let core = core(Admission::Private, now).unwrap();
        let other = Id::new(([10, 0, 0, 2], 7946).into(), 1, &node()).unwrap();
        let us = Id::new(([10, 0, 0, 1], 7946).into(), 1_700_000_000_000, &node()).unwrap();
        let mut gossip = postcard::to_allocvec(&foca::Header {
            src: other.clone(),
            src_incarnation: 0,
            dst: us.clone(),
            message: foca::Message::<Id>::Gossip,
        })
        .unwrap();
        gossip.put_u16(2);
        for id in [&us, &other] {
            let member = foca::Member::alive(id.clone());
            gossip = postcard::to_extend(&member, gossip).unwrap();
        }
        gossip.put_u16(4);
        gossip.extend(b"\x01abc");
        let roster = Roster::forged(other.clone(), vec![(us, 3), (other.clone(), 1)]);
        let mut samples = vec![
            gossip,
            admit::hello(&other),
            postcard::to_allocvec(&roster).unwrap(),
            postcard::to_allocvec(&core.local()).unwrap(),
        ];
        let plain = Envelope::new(node().name, Keyring::default());
        let sealed = plain.seal(Kind::Foca, &samples[0]);
        let framed = plain.seal_frame(Kind::Table, &samples[2]).unwrap();
        samples.extend([sealed, framed]);
        samples
    }

    fn all(bytes: &[u8]) {
        packet(bytes);
        frame(bytes);
        meta(bytes);
    }

    proptest! {
        #[test]
        fn no_bytes_make_any_parser_panic(bytes: Vec<u8>) {
            all(&bytes);
        }

        #[test]
        fn nor_does_what_is_nearly_right(
            which: prop::sample::Index,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut: prop::sample::Index,
            cuts: bool,
        ) {
            let samples = samples();
            let mut bytes = which.get(&samples).clone();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if cuts {
                bytes.truncate(cut.index(bytes.len()));
            }
            all(&bytes);
        }
    }
}
