//! Events that wait for their reader.

use std::{collections::VecDeque, net::SocketAddr};

use crate::membership::MemberEvent;

/// A queue that a slow reader does not make grow without bound: of each
/// member only what still matters is kept, at most three events.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<MemberEvent>,
}

impl Outbox {
    /// Adds an event, in place of those that it makes obsolete.
    pub(super) fn push(&mut self, event: MemberEvent) {
        let addr = address(&event);
        match &event {
            MemberEvent::Up(_) => {
                let older = self
                    .waiting
                    .iter_mut()
                    .find(|older| address(older) == addr && is_up(older));
                if let Some(older) = older {
                    *older = event;
                    return;
                }
            }
            MemberEvent::Suspect(_) | MemberEvent::Refuted(_) => self
                .waiting
                .retain(|older| address(older) != addr || !is_doubt(older)),
            MemberEvent::HungUp(_) | MemberEvent::Wanted(_) => {}
            MemberEvent::Down(_) | MemberEvent::Left(_) => {
                self.waiting.retain(|older| address(older) != addr);
            }
        }
        self.waiting.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<MemberEvent> {
        self.waiting.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn is_up(event: &MemberEvent) -> bool {
    matches!(event, MemberEvent::Up(_))
}

fn is_doubt(event: &MemberEvent) -> bool {
    matches!(event, MemberEvent::Suspect(_) | MemberEvent::Refuted(_))
}

fn address(event: &MemberEvent) -> SocketAddr {
    match event {
        MemberEvent::Up(member) => member.id.addr,
        MemberEvent::Suspect(id)
        | MemberEvent::Refuted(id)
        | MemberEvent::Down(id)
        | MemberEvent::Left(id)
        | MemberEvent::HungUp(id) => id.addr,
        MemberEvent::Wanted(intent) => intent.version.writer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::{Member, MemberId, Meta, Role};

    fn id(epoch: u64) -> MemberId {
        MemberId {
            addr: "10.0.0.1:7946".parse().unwrap(),
            epoch,
        }
    }

    fn up(epoch: u64) -> MemberEvent {
        let meta = Meta {
            name: "ha".parse().unwrap(),
            role: Role::Balancer,
        };
        MemberEvent::Up(Member {
            id: id(epoch),
            meta,
        })
    }

    fn left_of(events: impl IntoIterator<Item = MemberEvent>) -> Vec<MemberEvent> {
        let mut outbox = Outbox::default();
        events.into_iter().for_each(|event| outbox.push(event));
        std::iter::from_fn(|| outbox.pop()).collect()
    }

    #[test]
    fn an_end_makes_all_before_it_obsolete_and_nothing_after_it() {
        let (down, suspect) = (MemberEvent::Down(id(1)), MemberEvent::Suspect(id(1)));
        assert_eq!(
            left_of([up(1), suspect, down.clone(), up(2)]),
            [down, up(2)]
        );
    }

    #[test]
    fn a_member_that_flaps_for_ever_takes_three_places() {
        let flaps = (0..100).flat_map(|i| {
            [
                up(i),
                MemberEvent::Suspect(id(i)),
                MemberEvent::Refuted(id(i)),
                up(i),
                MemberEvent::Down(id(i)),
                up(i + 1),
            ]
        });
        assert_eq!(left_of(flaps), [MemberEvent::Down(id(99)), up(100)]);
    }

    #[test]
    fn a_suspicion_outlives_news_of_the_same_member() {
        let suspect = MemberEvent::Suspect(id(1));
        assert_eq!(left_of([up(1), suspect.clone(), up(1)]), [up(1), suspect]);
    }
}
