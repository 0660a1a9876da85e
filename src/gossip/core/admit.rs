//! What of a message is heard: nobody and nothing at an address that is not
//! admitted, no more members than the table holds, and nobody who asks to be
//! vouched for to a stranger.

use std::{borrow::Cow, net::SocketAddr, time::Duration};

use foca::{Header, Message};

use super::{
    Core, MAX_MEMBERS, MAX_VARINT_16, Roster,
    answers::{Answer, FEED_PAUSE},
};
use crate::{
    gossip::{
        admission::Admission,
        identity::{Id, MAX_ID},
        rate::Allowance,
        wire::DropReason,
    },
    membership::Role,
};

/// The most members that one packet can name: its size by the smallest id.
const MAX_IN_PACKET: usize = 128;
/// What an announcement holds besides two identities: an incarnation, and
/// which message it is.
const AROUND_IDS: usize = MAX_VARINT_16 + 1;
/// Feeds to all: the whole cluster knocks 20 times a second at members that
/// went missing, and each node announces itself every ten seconds to another.
pub(super) const FEEDS: Allowance = Allowance::per_second(200);

impl Core {
    /// Whether packets from an address are heard at all.
    pub(in crate::gossip) fn hears(&self, from: SocketAddr) -> bool {
        self.admission
            .admits(from.ip(), self.foca.identity().addr().ip())
    }

    /// Whether it is the gossip address of a member that is there.
    pub(in crate::gossip) fn is_member(&self, addr: SocketAddr) -> bool {
        self.table.is_active(addr)
    }

    /// The last address that was not admitted in what came in, since this was
    /// last asked.
    pub(in crate::gossip) fn take_refused(&mut self) -> Option<SocketAddr> {
        self.refused.take()
    }

    /// Refuses a node that speaks of itself, at an address that nobody can
    /// send to, or that is not admitted.
    pub(super) fn vet(&mut self, speaker: &Id) -> Result<(), DropReason> {
        if !speaker.reachable() {
            return Err(DropReason::Malformed);
        }
        if self.believes(speaker) {
            Ok(())
        } else {
            Err(DropReason::Claim)
        }
    }

    /// A packet without the members that are not admitted; refuses one that
    /// would make the table overflow. `listed` is what follows its header.
    pub(super) fn admit<'a>(
        &mut self,
        header: &Header<Id>,
        body: &'a [u8],
        listed: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, DropReason> {
        self.vet(&header.src)?;
        let roomy = self.known() + MAX_IN_PACKET <= MAX_MEMBERS;
        if roomy && self.admission == Admission::Everyone {
            return Ok(Cow::Borrowed(body));
        }
        let named = named(header, listed).ok_or(DropReason::Malformed)?;
        let count = named.members.len();
        let believed: Vec<_> = named
            .members
            .into_iter()
            .filter(|(id, _)| self.believes(id))
            .collect();
        let speaker = std::iter::once(header.src.addr());
        let strangers = speaker
            .chain(believed.iter().map(|(id, _)| id.addr()))
            .filter(|addr| self.known_at(*addr).is_none())
            .count();
        if self.known() + strangers > MAX_MEMBERS {
            return Err(DropReason::TableFull);
        }
        if believed.len() == count {
            return Ok(Cow::Borrowed(body));
        }
        let head = body.len() - listed.len();
        let mut heard = body.get(..head).unwrap_or_default().to_vec();
        heard.extend((believed.len() as u16).to_be_bytes());
        for (_, member) in believed {
            heard.extend(member);
        }
        heard.extend(named.broadcasts);
        Ok(Cow::Owned(heard))
    }

    /// A roster without the members that are not admitted.
    pub(super) fn admit_roster(&mut self, mut roster: Roster) -> Result<Roster, DropReason> {
        self.vet(&roster.from)?;
        roster.members.retain(|(id, _)| self.believes(id));
        Ok(roster)
    }

    /// Whether a node may be where it is said to be, and the server that it
    /// announces. Of our own address anything may be said: it is for us to
    /// put right.
    fn believes(&mut self, id: &Id) -> bool {
        let own = self.foca.identity().addr();
        if self.admission == Admission::Everyone || id.addr() == own {
            return true;
        }
        let server = id.meta().and_then(|meta| match meta.role {
            Role::Server(announcement) => Some(announcement.addr),
            Role::Balancer => None,
        });
        let mut claims = std::iter::once(id.addr()).chain(server);
        let refused = claims.find(|claim| !self.admission.admits(claim.ip(), own.ip()));
        self.refused = refused.or(self.refused);
        refused.is_none()
    }

    /// How long our announcement to a node is, as a body.
    pub(super) fn announcement_to(&self, id: &Id) -> usize {
        let own = self.foca.identity();
        let length = |id: &Id| postcard::to_allocvec(id).map_or(MAX_ID, |id| id.len());
        length(own) + length(id) + AROUND_IDS
    }

    /// Whether foca may answer: a feed fills a packet, and an announcement,
    /// which asks for it, is short.
    pub(super) fn may_feed(&mut self, header: &Header<Id>) -> bool {
        header.message != Message::Announce
            || (self.feeds.take(FEEDS, Duration::ZERO, self.effects.now)
                && self.may_answer(header.src.addr(), Answer::Feed, FEED_PAUSE))
    }

    /// The third party that a probe is passed on to must be one we know:
    /// nobody is to send packets anywhere through us.
    pub(super) fn passes_on(&self, message: &Message<Id>) -> bool {
        match message {
            Message::PingReq { target, .. } | Message::IndirectAck { target, .. } => {
                self.known_at(target.addr()).is_some()
            }
            _ => true,
        }
    }
}

/// "I am this one, please talk to me", as long as the answer to it.
pub(in crate::gossip) fn hello(id: &Id) -> Vec<u8> {
    let mut hello = postcard::to_allocvec(id).unwrap_or_default();
    hello.resize(hello.len() + MAX_ID + AROUND_IDS, 0);
    hello
}

/// What follows a packet's header, taken apart.
struct Named<'a> {
    /// Each with its encoding.
    members: Vec<(Id, &'a [u8])>,
    broadcasts: &'a [u8],
}

fn named<'a>(header: &Header<Id>, mut rest: &'a [u8]) -> Option<Named<'a>> {
    let mut members = Vec::new();
    // Of a `Broadcast` foca reads no members.
    if header.message != Message::Broadcast
        && let Some((count, listed)) = rest.split_first_chunk()
    {
        rest = listed;
        for _ in 0..u16::from_be_bytes(*count) {
            let (member, after) = postcard::take_from_bytes::<foca::Member<Id>>(rest).ok()?;
            let encoded = rest.get(..rest.len() - after.len())?;
            members.push((member.id().clone(), encoded));
            rest = after;
        }
    }
    Some(Named {
        members,
        broadcasts: rest,
    })
}
