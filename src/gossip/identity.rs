//! Who a node is on the wire: its address, which life it is in, what it says.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::membership::{Announcement, MemberId, Meta, Name, Phase, Role};

/// The most bytes an encoded [`Meta`] may take. With address, epoch and
/// generation an identity stays within 256 bytes, so that the longest header
/// (three identities) and two more members fit one packet.
pub(super) const MAX_META: usize = MAX_ID - MAX_FIXED;
/// The most bytes that an encoded identity takes.
pub(super) const MAX_ID: usize = 256;
/// IPv6 address and port (20), epoch (10), generation (5), length (2).
const MAX_FIXED: usize = 37;

const META_VERSION: u8 = 1;
/// Set once the node says goodbye: what tells leaving from failing.
const LEAVING: u8 = 1;

/// The heaviest weight in `HAProxy`'s words.
const MAX_WEIGHT: u16 = 256;

/// The longest value of a tag, in characters.
pub const MAX_TAG_VALUE: usize = 64;

/// What a node says of itself cannot be told to the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// It does not fit a packet.
    #[error(
        "name, service and tags take {bytes} bytes in gossip, {allowed} are allowed; shorten the tags"
    )]
    TooLarge {
        /// What it takes.
        bytes: usize,
        /// What there is.
        allowed: usize,
    },
    /// A tag that could not stand in a CSV cell, a label or a log line.
    #[error(
        "tag {0:?}: its key must be a name, its value at most {MAX_TAG_VALUE} printable ASCII characters without '\"', ',' and ';'"
    )]
    Tag(String),
    /// No share of the requests is as large.
    #[error("weight {0} is more than {MAX_WEIGHT}")]
    Weight(u16),
    /// Nothing can be reached at this address.
    #[error("{0} is no address to reach a server at")]
    Address(SocketAddr),
}

/// One identity of a node. Its address is the key of the member table; of
/// two with the same address the later one stays.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Id {
    addr: SocketAddr,
    epoch: u64,
    generation: u32,
    meta: Blob,
}

impl Id {
    pub(super) fn new(addr: SocketAddr, epoch: u64, meta: &Meta) -> Result<Self, MetaError> {
        Ok(Self {
            addr,
            epoch,
            generation: 0,
            meta: Blob::encode(meta, 0)?,
        })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) fn member_id(&self) -> MemberId {
        MemberId {
            addr: self.addr,
            epoch: self.epoch,
        }
    }

    /// What the node says of itself; `None` when it cannot be read or must
    /// not be believed, which the node's membership survives.
    pub(super) fn meta(&self) -> Option<Meta> {
        self.meta.decode()
    }

    pub(super) fn leaving(&self) -> bool {
        self.meta.flags() & LEAVING != 0
    }

    /// Whether a packet can be sent to it.
    pub(super) fn reachable(&self) -> bool {
        reachable(self.addr)
    }

    /// The same life, saying something new.
    pub(super) fn with_meta(&self, meta: &Meta) -> Result<Self, MetaError> {
        Ok(Self {
            meta: Blob::encode(meta, 0)?,
            generation: self.generation.saturating_add(1),
            ..self.clone()
        })
    }

    /// The same life, saying goodbye.
    pub(super) fn farewell(&self) -> Self {
        Self {
            meta: self.meta.farewell(),
            generation: self.generation.saturating_add(1),
            ..self.clone()
        }
    }

    /// The same node, in a later life.
    pub(super) fn reborn(&self, epoch: u64) -> Self {
        Self {
            epoch,
            generation: 0,
            ..self.clone()
        }
    }

    /// The same node in a later life, on a host that has this address now.
    pub(super) fn moved(&self, ip: IpAddr, epoch: u64) -> Result<Self, MetaError> {
        let addr = SocketAddr::new(ip, self.addr.port());
        match self.meta() {
            Some(meta) => Self::new(addr, epoch, &meta.at(ip)),
            None => Ok(Self {
                addr,
                ..self.reborn(epoch)
            }),
        }
    }

    /// The same node with a meta that nobody here can read.
    #[cfg(test)]
    pub(super) fn unreadable(&self) -> Self {
        Self {
            meta: Blob(Bytes::from_static(&[99, 0, 1, 2, 3])),
            ..self.clone()
        }
    }
}

impl foca::Identity for Id {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        if self.leaving() {
            return None;
        }
        let generation = self.generation.checked_add(1)?;
        Some(Self {
            generation,
            ..self.clone()
        })
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A strict total order: were there ties, foca would let each of two
    /// tied identities replace the other for ever.
    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        let rank = |id: &Self| (id.epoch, id.generation, id.meta.0.clone());
        rank(self) > rank(adversary)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}.{}", self.addr, self.epoch, self.generation)
    }
}

/// An encoded [`Meta`]: version, flags, postcard. Opaque to the protocol, so
/// that a node of a later version is a member here all the same.
#[derive(Clone, PartialEq, Eq)]
struct Blob(Bytes);

impl Blob {
    fn encode(meta: &Meta, flags: u8) -> Result<Self, MetaError> {
        check(meta)?;
        let bytes = postcard::to_extend(meta, vec![META_VERSION, flags])
            .expect("names, numbers and texts always encode");
        if bytes.len() > MAX_META {
            return Err(MetaError::TooLarge {
                bytes: bytes.len(),
                allowed: MAX_META,
            });
        }
        Ok(Self(bytes.into()))
    }

    fn decode(&self) -> Option<Meta> {
        let [META_VERSION, _, encoded @ ..] = &*self.0 else {
            return None;
        };
        // Bytes that follow are left to later versions.
        let (meta, _) = postcard::take_from_bytes(encoded).ok()?;
        check(&meta).ok()?;
        Some(meta)
    }

    fn flags(&self) -> u8 {
        self.0.get(1).copied().unwrap_or(0)
    }

    fn farewell(&self) -> Self {
        let mut bytes = self.0.to_vec();
        if let Some(flags) = bytes.get_mut(1) {
            *flags |= LEAVING;
        }
        Self(bytes.into())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(BlobVisitor)
    }
}

struct BlobVisitor;

impl de::Visitor<'_> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX_META} bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
        if bytes.len() > MAX_META {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        Ok(Blob(Bytes::copy_from_slice(bytes)))
    }
}

/// The same rules for what we say and for what we hear.
fn check(meta: &Meta) -> Result<(), MetaError> {
    let Role::Server(announcement) = &meta.role else {
        return Ok(());
    };
    if !reachable(announcement.addr) {
        return Err(MetaError::Address(announcement.addr));
    }
    if announcement.weight > MAX_WEIGHT {
        return Err(MetaError::Weight(announcement.weight));
    }
    let mut tags = announcement.tags.iter();
    tags.try_for_each(|(key, value)| check_tag(key, value))
}

/// Whether a tag can be told to the others.
pub fn check_tag(key: &str, value: &str) -> Result<(), MetaError> {
    let printable = |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b',' | b';');
    let allowed =
        key.parse::<Name>().is_ok() && value.len() <= MAX_TAG_VALUE && value.bytes().all(printable);
    allowed
        .then_some(())
        .ok_or_else(|| MetaError::Tag(key.to_owned()))
}

/// Whether a node can say this of itself: it fits a packet and keeps the rules
/// that the others hold it to.
pub fn check_meta(meta: &Meta) -> Result<(), MetaError> {
    Blob::encode(meta, 0).map(drop)
}

pub(super) fn reachable(addr: SocketAddr) -> bool {
    let ip = addr.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// Whether a node with this meta goes by its own will.
pub(super) fn says_goodbye(meta: &Meta) -> bool {
    matches!(
        meta.role,
        Role::Server(Announcement {
            phase: Phase::Leaving,
            ..
        })
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use foca::Identity as _;
    use proptest::prelude::*;

    use super::*;

    fn server(tags: BTreeMap<String, String>) -> Meta {
        Meta {
            name: "s1".parse().unwrap(),
            role: Role::Server(Announcement {
                service: "nodes".parse().unwrap(),
                addr: "10.0.0.1:3000".parse().unwrap(),
                weight: 1,
                phase: Phase::Ready,
                tags,
            }),
        }
    }

    fn tag(key: &str, value: &str) -> Meta {
        server(BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    fn id(epoch: u64, meta: &Meta) -> Id {
        Id::new("10.0.0.1:7946".parse().unwrap(), epoch, meta).unwrap()
    }

    fn round_trip(id: &Id) -> Result<Id, postcard::Error> {
        postcard::from_bytes(&postcard::to_allocvec(id).unwrap())
    }

    #[test]
    fn a_meta_that_does_not_fit_is_refused_with_both_sizes() {
        let many = (0..10)
            .map(|i| (format!("key{i}"), "v".repeat(40)))
            .collect();
        let error = Id::new("1.2.3.4:1".parse().unwrap(), 1, &server(many)).unwrap_err();
        let MetaError::TooLarge { bytes, allowed } = error else {
            panic!("{error}");
        };
        assert!(bytes > allowed && allowed == MAX_META);
    }

    #[test]
    fn the_largest_identity_has_256_bytes() {
        let id = Id {
            addr: "[ff::1]:65535".parse().unwrap(),
            epoch: u64::MAX,
            generation: u32::MAX,
            meta: Blob(vec![0; MAX_META].into()),
        };
        assert_eq!(postcard::to_allocvec(&id).unwrap().len(), 256);
        assert_eq!(round_trip(&id), Ok(id));
    }

    #[test]
    fn an_identity_over_the_limit_from_the_wire_is_refused() {
        let id = Id {
            meta: Blob(vec![0; MAX_META + 1].into()),
            ..id(1, &server(BTreeMap::new()))
        };
        assert!(round_trip(&id).is_err());
    }

    #[test]
    fn a_meta_of_a_later_version_leaves_the_identity_readable() {
        let id = id(1, &tag("zone", "a")).unreadable();
        let read = round_trip(&id).unwrap();
        assert_eq!((read.meta(), read.addr()), (None, id.addr()));
    }

    #[test]
    fn a_meta_that_breaks_the_rules_is_not_believed() {
        for (key, value) in [("a b", "x"), ("k", "a\nb"), ("k", "a;b"), ("k", "é")] {
            assert_eq!(check(&tag(key, value)), Err(MetaError::Tag(key.into())));
        }
        assert!(check(&tag("k", &"v".repeat(MAX_TAG_VALUE + 1))).is_err());
        assert!(check(&tag("k", "plain = text")).is_ok());
        for addr in [
            "0.0.0.0:80",
            "10.0.0.1:0",
            "224.0.0.1:80",
            "[::]:80",
            "255.255.255.255:80",
        ] {
            let mut meta = server(BTreeMap::new());
            if let Role::Server(announcement) = &mut meta.role {
                announcement.addr = addr.parse().unwrap();
            }
            let forged = Blob(
                postcard::to_extend(&meta, vec![META_VERSION, 0])
                    .unwrap()
                    .into(),
            );
            assert_eq!(forged.decode(), None, "{addr}");
        }
    }

    #[test]
    fn a_farewell_keeps_the_meta_and_is_not_renewed() {
        let id = id(1, &tag("zone", "a"));
        let leaving = id.farewell();
        assert!(leaving.leaving() && !id.leaving());
        assert!(leaving.win_addr_conflict(&id));
        assert_eq!((leaving.meta(), leaving.renew()), (id.meta(), None));
        assert!(id.renew().unwrap().win_addr_conflict(&id));
    }

    fn any_id() -> impl Strategy<Value = Id> {
        let meta = prop::collection::vec(any::<u8>(), 0..4);
        (0..3u64, 0..3u32, meta).prop_map(|(epoch, generation, meta)| Id {
            addr: "10.0.0.1:7946".parse().unwrap(),
            epoch,
            generation,
            meta: Blob(meta.into()),
        })
    }

    proptest! {
        #[test]
        fn of_two_identities_exactly_one_wins(a in any_id(), b in any_id(), c in any_id()) {
            prop_assert_eq!(a == b, !a.win_addr_conflict(&b) && !b.win_addr_conflict(&a));
            prop_assert!(!(a.win_addr_conflict(&b) && b.win_addr_conflict(&a)));
            if a.win_addr_conflict(&b) && b.win_addr_conflict(&c) {
                prop_assert!(a.win_addr_conflict(&c));
            }
        }

        #[test]
        fn no_bytes_make_an_identity_panic(bytes: Vec<u8>) {
            if let Ok(id) = postcard::from_bytes::<Id>(&bytes) {
                prop_assert!(postcard::to_allocvec(&id).unwrap().len() <= 256);
                prop_assert!(id.meta().is_none_or(|meta| check(&meta).is_ok()));
            }
        }
    }
}
