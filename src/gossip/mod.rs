//! Membership by gossip.
