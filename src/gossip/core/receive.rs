//! What comes in from other nodes, and who is put right by it.

use std::net::SocketAddr;

use foca::{Header, Message};

use super::{
    Core, MAX_MEMBERS,
    answers::{Answer, WELCOME_PAUSE},
};
use crate::gossip::{identity::Id, wire::DropReason};

impl Core {
    pub(super) fn receive_foca(&mut self, body: &[u8]) -> Result<(), DropReason> {
        let (header, listed): (Header<Id>, _) =
            postcard::take_from_bytes(body).map_err(|_| DropReason::Malformed)?;
        if header.src.addr() == self.foca.identity().addr() {
            return Ok(());
        }
        let body = self.admit(&header, body, listed)?;
        if let Some(later) = self.later_life(&header.src) {
            // Its clock went back; this shows it the life it has to beat.
            // Were foca to hear it, the two would tell each other "you are
            // down" as fast as the network carries it.
            self.correct(later);
            return Ok(());
        }
        let own = self.foca.identity();
        if header.dst.addr() == own.addr() && header.dst != *own {
            self.correct_about_us(&header, body.len());
        }
        if !self.passes_on(&header.message) || !self.may_feed(&header) {
            return Ok(());
        }
        self.note_sign_of_life(header.src.member_id());
        self.wind_records();
        self.effects.stirred = true;
        self.foca
            .handle_data(&body, &mut self.effects)
            .map_err(|_| DropReason::Malformed)
    }

    /// The identity we hold for a node, if it is of a later life than `id`.
    fn later_life(&self, id: &Id) -> Option<Id> {
        let known = self.known_at(id.addr())?;
        (known.epoch() > id.epoch()).then(|| known.clone())
    }

    /// The sender takes us for another life of this node: it knew us before
    /// a restart, or has not heard our latest words yet.
    fn correct_about_us(&mut self, header: &Header<Id>, length: usize) {
        self.outlive(&header.dst);
        // Our former self took about as much room.
        let cheap = self.announcement_to(&header.src) <= 2 * length;
        if header.message != Message::Announce && cheap {
            self.correct(header.src.clone());
        }
    }

    /// A node wants to join and may not know whom it reached.
    pub(super) fn receive_hello(
        &mut self,
        from: SocketAddr,
        body: &[u8],
    ) -> Result<(), DropReason> {
        let id: Id = postcard::from_bytes(body).map_err(|_| DropReason::Malformed)?;
        if id.addr() == self.foca.identity().addr() {
            return Ok(());
        }
        self.vet(&id)?;
        if body.len() < self.announcement_to(&id) {
            // It is padded, so that nobody can have more sent to another
            // than it sends itself.
            return Err(DropReason::Malformed);
        }
        if self.known() >= MAX_MEMBERS && self.known_at(id.addr()).is_none() {
            return Err(DropReason::TableFull);
        }
        if self.may_answer(from, Answer::Welcome, WELCOME_PAUSE) {
            self.announce(id);
        }
        Ok(())
    }
}
