//! The envelope around every gossip message, over UDP and over TCP.
//!
//! ```text
//! 'T' | version | key id | cluster digest (4) | [nonce (24)] | kind | body | [tag (16)]
//! ```
//!
//! The first byte is none that Serf uses, so that both can share a port. The
//! parts in brackets are there when a key is set, and then everything after
//! the nonce is sealed with XChaCha20-Poly1305; what stays readable, and the
//! cluster's name, is authenticated with it.
//!
//! Known limit: nothing tells that a sealed packet is said for the second
//! time. Whoever can record packets and send them again, without the key, does
//! no harm with most: of two words about a node the one with the later epoch,
//! generation and incarnation counts (SWIM), of two records the later version
//! (a hybrid clock). What is left to him, while the key is the same:
//! - a node that is gone, and forgotten for a day or unknown to a receiver that
//!   restarted, appears again until a probe fails, for some 1.5 s;
//! - a suspicion is raised anew, once for each incarnation, until the suspect
//!   refutes it;
//! - an operator's wish comes back where every node has forgotten all that came
//!   after it, as when the whole cluster was restarted.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};

use crate::membership::Name;

/// The largest datagram, in bytes: with IP and UDP headers it still fits an
/// Ethernet frame inside a VXLAN tunnel, the usual container network.
pub const MAX_PACKET: usize = 1400;

/// The largest body of a datagram. The same with and without a key, so that
/// a key can be introduced at run time.
pub(super) const MAX_BODY: usize = MAX_PACKET - ENVELOPE;

/// What an envelope adds to its body at the most.
pub(super) const ENVELOPE: usize = HEADER + NONCE + TAG + KIND;

/// The largest frame on a TCP connection: it has room for the roster of the
/// largest cluster, and no more, since anyone may send one.
pub(super) const MAX_FRAME: usize = 2 << 20;

const MAGIC: u8 = b'T';
const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const HEADER: usize = 7;
const NONCE: usize = 24;
const TAG: usize = 16;
const KIND: usize = 1;

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message of the membership protocol.
    Foca = 0,
    /// "I am this one, please talk to me": the first word to a seed.
    Hello = 1,
    /// A member table, over TCP only.
    Table = 2,
    /// "This is the lifeline of so-and-so", over TCP only.
    Lifeline = 3,
    /// "I close this lifeline", over TCP only.
    Goodbye = 4,
    /// "These are the operators' wishes I know", in short.
    Digest = 5,
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DropReason {
    /// Not gossip of this program, or of a version it does not know.
    #[error("it is not a Tidings gossip packet")]
    Foreign,
    /// Gossip of a cluster with another name.
    #[error("it belongs to another cluster")]
    OtherCluster,
    /// Sealed with a key that is not ours, or plain where a key is set, or
    /// keyed where none is.
    #[error("its key is not ours; every node needs the same --gossip-key")]
    BadKey,
    /// Ours by its header, but its content makes no sense.
    #[error("it cannot be read")]
    Malformed,
    /// Larger than [`MAX_PACKET`].
    #[error("it is too large")]
    Oversized,
    /// It would add a member beyond the most that are kept.
    #[error("the member table is full")]
    TableFull,
    /// From an address that [`Admission`](super::Admission) does not admit.
    #[error(
        "its source address is not admitted; admit it with --gossip-allow, or give every node a \
         key (`tidings keygen`)"
    )]
    Source,
    /// It tells of a member or a server at an address that is not admitted.
    /// What else it says is heard, unless that is the speaker's own.
    #[error(
        "it tells of a node or server at an address that is not admitted; admit it with \
         --gossip-allow, or give every node a key (`tidings keygen`)"
    )]
    Claim,
    /// More than one address may send.
    #[error("its source sends too many; if it is a node of yours, look what keeps it busy")]
    SourceRate,
    /// More than all strangers together may send.
    #[error("too many come at once; keep strangers away from the gossip port by a firewall")]
    TotalRate,
    /// A connection from an address that holds its share of them.
    #[error("its source holds too many connections; keep strangers away by a firewall")]
    Crowded,
}

/// What went over the wire since the start. What is dropped counts the same,
/// be it a datagram or a frame.
#[derive(Debug, Default)]
pub struct Counters {
    /// Datagrams that arrived, the dropped ones included.
    pub received: AtomicU64,
    /// Datagrams handed to the kernel.
    pub sent: AtomicU64,
    /// Datagrams the kernel did not take.
    pub unsent: AtomicU64,
    /// Member tables exchanged over TCP, in either role.
    pub synced: AtomicU64,
    /// Members now that say of themselves what this node cannot read or must
    /// not believe: of a later version, or hostile.
    pub unreadable: AtomicU64,
    /// Lifelines that others keep to this node now.
    pub lifelines: AtomicU64,
    /// Dropped as [`DropReason::Foreign`].
    pub foreign: AtomicU64,
    /// Dropped as [`DropReason::OtherCluster`].
    pub other_cluster: AtomicU64,
    /// Dropped as [`DropReason::BadKey`].
    pub bad_key: AtomicU64,
    /// Dropped as [`DropReason::Malformed`].
    pub malformed: AtomicU64,
    /// Dropped as [`DropReason::Oversized`].
    pub oversized: AtomicU64,
    /// Dropped as [`DropReason::TableFull`].
    pub table_full: AtomicU64,
    /// Dropped as [`DropReason::Source`].
    pub source: AtomicU64,
    /// Dropped, whole or in part, as [`DropReason::Claim`].
    pub claim: AtomicU64,
    /// Dropped as [`DropReason::SourceRate`].
    pub source_rate: AtomicU64,
    /// Dropped as [`DropReason::TotalRate`].
    pub total_rate: AtomicU64,
    /// Dropped as [`DropReason::Crowded`].
    pub crowded: AtomicU64,
}

impl Counters {
    /// How many packets were dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> &AtomicU64 {
        match reason {
            DropReason::Foreign => &self.foreign,
            DropReason::OtherCluster => &self.other_cluster,
            DropReason::BadKey => &self.bad_key,
            DropReason::Malformed => &self.malformed,
            DropReason::Oversized => &self.oversized,
            DropReason::TableFull => &self.table_full,
            DropReason::Source => &self.source,
            DropReason::Claim => &self.claim,
            DropReason::SourceRate => &self.source_rate,
            DropReason::TotalRate => &self.total_rate,
            DropReason::Crowded => &self.crowded,
        }
    }

    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A key shared by the nodes of a cluster: 32 bytes, in base64 as text.
///
/// [`Display`](fmt::Display) shows the secret, `Debug` does not.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

/// A text that is not a [`Key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a gossip key is 32 bytes in base64; make one with `tidings keygen`")]
pub struct KeyError;

impl Key {
    /// A new key, from the system's random source.
    pub fn generate() -> Self {
        Self(rand::random())
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = BASE64.decode(text.trim()).map_err(|_| KeyError)?;
        bytes.try_into().map(Self).map_err(|_| KeyError)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The keys of a node: the first seals, any of them opens.
///
/// To change a key without a pause: add the new one last everywhere, then
/// move it first everywhere, then remove the old one. Empty (the default)
/// means plain text; with keys, plain packets are refused.
#[derive(Clone, Default)]
pub struct Keyring(Vec<Ring>);

#[derive(Clone)]
struct Ring {
    /// Tells the receiver which key to try; two keys may share one.
    id: u8,
    cipher: XChaCha20Poly1305,
}

impl Keyring {
    /// Whether packets go out in plain text.
    pub fn is_plain(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Key> for Keyring {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| Ring::new(&key)).collect())
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.0.len())
    }
}

impl Ring {
    fn new(key: &Key) -> Self {
        let cipher = XChaCha20Poly1305::new(&key.0.into());
        // One byte of a tag over nothing: says nothing about the key itself.
        let tag = cipher
            .encrypt_inout_detached(&[0xff; NONCE].into(), b"key id", (&mut [][..]).into())
            .expect("an empty message is never too long");
        let id = tag.iter().copied().find(|byte| *byte != PLAIN).unwrap_or(1);
        Self { id, cipher }
    }
}

/// Seals and opens packets for one cluster. Shared by the tasks that speak.
#[derive(Debug)]
pub(super) struct Envelope {
    cluster: Name,
    digest: [u8; 4],
    keyring: ArcSwap<Keyring>,
    /// Random for each process, so that with the counter no nonce ever
    /// repeats, without keeping state on disk.
    session: [u8; 16],
    counter: AtomicU64,
}

/// The inside of an envelope.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) kind: Kind,
    pub(super) body: Vec<u8>,
}

impl Envelope {
    pub(super) fn new(cluster: Name, keyring: Keyring) -> Self {
        Self {
            digest: fnv1a(cluster.as_str().as_bytes()).to_be_bytes(),
            cluster,
            keyring: ArcSwap::from_pointee(keyring),
            session: rand::random(),
            counter: AtomicU64::new(0),
        }
    }

    pub(super) fn set_keyring(&self, keyring: Keyring) {
        self.keyring.store(Arc::new(keyring));
    }

    /// A datagram. The body must not be larger than [`MAX_BODY`].
    pub(super) fn seal(&self, kind: Kind, body: &[u8]) -> Vec<u8> {
        self.seal_after(Vec::with_capacity(MAX_PACKET), &[], kind, body)
    }

    pub(super) fn open(&self, packet: &[u8]) -> Result<Opened, DropReason> {
        if packet.len() > MAX_PACKET {
            return Err(DropReason::Oversized);
        }
        self.open_with(&[], packet)
    }

    /// A frame for a TCP connection: four bytes of length, then as a datagram.
    /// `None` when it would be larger than [`MAX_FRAME`].
    pub(super) fn seal_frame(&self, kind: Kind, body: &[u8]) -> Option<Vec<u8>> {
        let sealing = if self.keyring.load().is_plain() {
            0
        } else {
            NONCE + TAG
        };
        let length = HEADER + sealing + KIND + body.len();
        if length > MAX_FRAME {
            return None;
        }
        let prefix = u32::try_from(length).ok()?.to_be_bytes();
        Some(self.seal_after(prefix.to_vec(), &prefix, kind, body))
    }

    /// The inside of a frame, of which `prefix` are the bytes of its length.
    pub(super) fn open_frame(&self, prefix: [u8; 4], frame: &[u8]) -> Result<Opened, DropReason> {
        self.open_with(&prefix, frame)
    }

    /// Appends header and sealed body to `out`.
    fn seal_after(&self, mut out: Vec<u8>, prefix: &[u8], kind: Kind, body: &[u8]) -> Vec<u8> {
        let keyring = self.keyring.load();
        let Some(ring) = keyring.0.first() else {
            out.extend_from_slice(&self.header(PLAIN));
            out.push(kind as u8);
            out.extend_from_slice(body);
            return out;
        };
        let header = self.header(ring.id);
        let nonce = self.nonce();
        out.extend_from_slice(&header);
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.push(kind as u8);
        out.extend_from_slice(body);
        let (_, inside) = out.split_at_mut(start);
        let tag = ring
            .cipher
            .encrypt_inout_detached(&nonce.into(), &self.bound(header, prefix), inside.into())
            .expect("a packet is far below the cipher's limit");
        out.extend_from_slice(&tag);
        out
    }

    fn open_with(&self, prefix: &[u8], packet: &[u8]) -> Result<Opened, DropReason> {
        if !packet.starts_with(&[MAGIC, VERSION]) {
            return Err(DropReason::Foreign);
        }
        let (header, rest) = packet
            .split_first_chunk::<HEADER>()
            .ok_or(DropReason::Malformed)?;
        let [_, _, key_id, digest @ ..] = header;
        if *digest != self.digest {
            return Err(DropReason::OtherCluster);
        }
        let keyring = self.keyring.load();
        match (*key_id, keyring.is_plain()) {
            (PLAIN, true) => parse(rest),
            (PLAIN, false) | (_, true) => Err(DropReason::BadKey),
            (id, false) => {
                let bound = self.bound(*header, prefix);
                let inside = unseal(&keyring, id, &bound, rest)?;
                parse(&inside)
            }
        }
    }

    fn header(&self, key_id: u8) -> [u8; HEADER] {
        let [a, b, c, d] = self.digest;
        [MAGIC, VERSION, key_id, a, b, c, d]
    }

    fn nonce(&self) -> [u8; NONCE] {
        let count = self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut nonce = [0; NONCE];
        let (session, counter) = nonce.split_at_mut(self.session.len());
        session.copy_from_slice(&self.session);
        counter.copy_from_slice(&count);
        nonce
    }

    /// What is authenticated beside the sealed part.
    fn bound(&self, header: [u8; HEADER], prefix: &[u8]) -> Vec<u8> {
        [&header, self.cluster.as_str().as_bytes(), prefix].concat()
    }
}

fn unseal(keyring: &Keyring, id: u8, bound: &[u8], rest: &[u8]) -> Result<Vec<u8>, DropReason> {
    let (nonce, sealed) = rest
        .split_first_chunk::<NONCE>()
        .ok_or(DropReason::Malformed)?;
    let (sealed, tag) = sealed
        .split_last_chunk::<TAG>()
        .ok_or(DropReason::Malformed)?;
    keyring
        .0
        .iter()
        .filter(|ring| ring.id == id)
        .find_map(|ring| {
            let mut inside = sealed.to_vec();
            let (nonce, tag): (&XNonce, &Tag) = (nonce.into(), tag.into());
            ring.cipher
                .decrypt_inout_detached(nonce, bound, inside.as_mut_slice().into(), tag)
                .is_ok()
                .then_some(inside)
        })
        .ok_or(DropReason::BadKey)
}

fn parse(inside: &[u8]) -> Result<Opened, DropReason> {
    let (kind, body) = inside.split_first().ok_or(DropReason::Malformed)?;
    let kind = match kind {
        0 => Kind::Foca,
        1 => Kind::Hello,
        2 => Kind::Table,
        3 => Kind::Lifeline,
        4 => Kind::Goodbye,
        5 => Kind::Digest,
        _ => return Err(DropReason::Malformed),
    };
    Ok(Opened {
        kind,
        body: body.to_vec(),
    })
}

/// Not a secret and not a check: it only tells clusters apart that share a
/// network, before any key is tried.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelope(cluster: &str, keys: &[&Key]) -> Envelope {
        let keyring = keys.iter().map(|key| (*key).clone()).collect();
        Envelope::new(cluster.parse().unwrap(), keyring)
    }

    #[test]
    fn a_key_survives_its_text_and_a_wrong_text_says_what_to_do() {
        let key = Key::generate();
        assert_eq!(key.to_string().parse(), Ok(key.clone()));
        assert_eq!(format!("{key:?}"), "Key(…)");
        for wrong in ["", "short", "AAAA", &"A".repeat(45)] {
            let error = wrong.parse::<Key>().unwrap_err();
            assert!(error.to_string().contains("tidings keygen"));
        }
    }

    #[test]
    fn a_packet_of_another_cluster_is_told_by_its_digest() {
        let packet = envelope("one", &[]).seal(Kind::Foca, b"x");
        let other = envelope("two", &[]);
        assert_eq!(other.open(&packet), Err(DropReason::OtherCluster));
    }

    #[test]
    fn a_cluster_name_is_authenticated_even_where_the_digest_is_forged() {
        let key = Key::generate();
        let (one, two) = (envelope("one", &[&key]), envelope("two", &[&key]));
        let mut packet = one.seal(Kind::Foca, b"x");
        packet[3..7].copy_from_slice(&two.digest);
        assert_eq!(two.open(&packet), Err(DropReason::BadKey));
    }

    #[test]
    fn plain_and_keyed_nodes_refuse_each_other() {
        let (a, b) = (Key::generate(), Key::generate());
        let (plain, with_a, with_b) = (
            envelope("c", &[]),
            envelope("c", &[&a]),
            envelope("c", &[&b]),
        );
        let keyed = with_a.seal(Kind::Foca, b"x");
        assert_eq!(plain.open(&keyed), Err(DropReason::BadKey));
        assert_eq!(with_b.open(&keyed), Err(DropReason::BadKey));
        let open = plain.seal(Kind::Foca, b"x");
        assert_eq!(with_a.open(&open), Err(DropReason::BadKey));
    }

    #[test]
    fn any_key_of_the_ring_opens_and_the_first_one_seals() {
        let (a, b) = (Key::generate(), Key::generate());
        let (ab, ba) = (envelope("c", &[&a, &b]), envelope("c", &[&b, &a]));
        assert!(ba.open(&ab.seal(Kind::Foca, b"x")).is_ok());
        assert!(ab.open(&ba.seal(Kind::Foca, b"x")).is_ok());
        let only_b = envelope("c", &[&b]);
        assert!(only_b.open(&ba.seal(Kind::Foca, b"x")).is_ok());
        assert!(only_b.open(&ab.seal(Kind::Foca, b"x")).is_err());
    }

    #[test]
    fn a_truncated_oversized_or_foreign_packet_is_named_as_such() {
        let plain = envelope("c", &[]);
        let packet = plain.seal(Kind::Foca, b"");
        assert_eq!(plain.open(&packet[..7]), Err(DropReason::Malformed));
        assert_eq!(plain.open(&packet[..5]), Err(DropReason::Malformed));
        assert_eq!(plain.open(&[]), Err(DropReason::Foreign));
        assert_eq!(plain.open(&[b'T', 2]), Err(DropReason::Foreign));
        let large = [packet, vec![0; MAX_PACKET]].concat();
        assert_eq!(plain.open(&large), Err(DropReason::Oversized));
    }

    #[test]
    fn the_largest_body_fits_the_largest_packet_exactly() {
        let envelope = envelope("c", &[&Key::generate()]);
        let packet = envelope.seal(Kind::Foca, &[7; MAX_BODY]);
        assert_eq!(packet.len(), MAX_PACKET);
        assert!(envelope.open(&packet).is_ok());
    }

    #[test]
    fn a_frame_is_bound_to_its_length_and_a_huge_one_is_not_made() {
        for keys in [vec![], vec![Key::generate()]] {
            let envelope = envelope("c", &keys.iter().collect::<Vec<_>>());
            let frame = envelope.seal_frame(Kind::Table, &[1; 5000]).unwrap();
            let (prefix, rest) = frame.split_first_chunk::<4>().unwrap();
            assert_eq!(u32::from_be_bytes(*prefix) as usize, rest.len());
            let opened = envelope.open_frame(*prefix, rest).unwrap();
            assert_eq!((opened.kind, opened.body.len()), (Kind::Table, 5000));
            let bound = envelope.open_frame([0; 4], rest).is_err();
            assert_eq!(bound, !keys.is_empty());
            assert!(
                envelope
                    .seal_frame(Kind::Table, &vec![0; MAX_FRAME])
                    .is_none()
            );
        }
    }

    #[test]
    fn no_two_packets_share_a_nonce() {
        let envelope = envelope("c", &[&Key::generate()]);
        assert_ne!(
            envelope.seal(Kind::Foca, b"x"),
            envelope.seal(Kind::Foca, b"x")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_envelope_panic(bytes: Vec<u8>, keyed: bool, ours: bool) {
            let key = Key::generate();
            let keys: &[&Key] = if keyed { &[&key] } else { &[] };
            let envelope = envelope("c", keys);
            let mut packet = bytes;
            if ours {
                let id = if keyed { Ring::new(&key).id } else { PLAIN };
                packet.splice(0..0, envelope.header(id));
            }
            let opened = envelope.open(&packet);
            prop_assert!(!keyed || opened.is_err());
        }

        #[test]
        fn what_was_sealed_opens_to_the_same(body in prop::collection::vec(any::<u8>(), 0..MAX_BODY), keyed: bool) {
            let key = Key::generate();
            let keys: &[&Key] = if keyed { &[&key] } else { &[] };
            let (sender, receiver) = (envelope("c", keys), envelope("c", keys));
            let opened = receiver.open(&sender.seal(Kind::Hello, &body)).unwrap();
            prop_assert_eq!(opened, Opened { kind: Kind::Hello, body });
        }

        #[test]
        fn a_changed_bit_is_noticed(at: prop::sample::Index, bit in 0..8u8) {
            let envelope = envelope("c", &[&Key::generate()]);
            let mut packet = envelope.seal(Kind::Foca, b"some body");
            let at = at.index(packet.len());
            packet[at] ^= 1 << bit;
            prop_assert!(envelope.open(&packet).is_err());
        }
    }
}
