//! What `benches/` measures of gossip, and nobody else calls: the envelope
//! stays private to it.

use super::wire::{DropReason, Envelope, Keyring, Kind, MAX_BODY};
use crate::membership::Name;

/// The largest body of a packet.
pub const LARGEST_BODY: usize = MAX_BODY;

/// Seals and opens packets.
#[derive(Debug)]
pub struct Wire(Envelope);

impl Wire {
    /// For a cluster and its keys.
    pub fn new(cluster: Name, keyring: Keyring) -> Self {
        Self(Envelope::new(cluster, keyring))
    }

    /// A packet around `body`.
    pub fn seal(&self, body: &[u8]) -> Vec<u8> {
        self.0.seal(Kind::Foca, body)
    }

    /// The body of a packet.
    pub fn open(&self, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
        self.0.open(packet).map(|opened| opened.body)
    }
}
