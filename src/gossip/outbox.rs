//! Events that wait for their reader.

use std::{collections::VecDeque, net::SocketAddr};

use crate::membership::{Intent, MemberEvent, Wish};

/// A queue that a slow reader does not make grow without bound: of each
/// member only what still matters is kept, at most four events, and of what is
/// wanted of a server the latest.
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
            MemberEvent::HungUp(_) => self
                .waiting
                .retain(|older| address(older) != addr || !is_hanging_up(older)),
            MemberEvent::Down(_) | MemberEvent::Left(_) => {
                self.waiting.retain(|older| address(older) != addr);
            }
            MemberEvent::Wanted(intent) => self
                .waiting
                .retain(|older| !matches!(older, MemberEvent::Wanted(o) if same_wish(o, intent))),
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

fn is_hanging_up(event: &MemberEvent) -> bool {
    matches!(event, MemberEvent::HungUp(_))
}

fn same_wish(a: &Intent, b: &Intent) -> bool {
    let kind = |intent: &Intent| std::mem::discriminant::<Wish>(&intent.wish);
    a.server == b.server && a.service == b.service && kind(a) == kind(b)
}

/// The member that an event is about, if it is about one.
fn address(event: &MemberEvent) -> Option<SocketAddr> {
    match event {
        MemberEvent::Up(member) => Some(member.id.addr),
        MemberEvent::Suspect(id)
        | MemberEvent::Refuted(id)
        | MemberEvent::Down(id)
        | MemberEvent::Left(id)
        | MemberEvent::HungUp(id) => Some(id.addr),
        MemberEvent::Wanted(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::{Admin, Member, MemberId, Meta, Role, Version};

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
    fn of_what_is_wanted_the_latest_is_kept_for_each_kind() {
        let wanted = |wish, clock| {
            MemberEvent::Wanted(Intent {
                service: "nodes".parse().unwrap(),
                server: "s1".parse().unwrap(),
                wish,
                version: Version {
                    clock,
                    writer: id(1).addr,
                },
            })
        };
        let weight = wanted(Wish::Weight(Some(5)), 2);
        let (drain, ready) = (Wish::State(Admin::Drain), Wish::State(Admin::Ready));
        let down = MemberEvent::Down(id(1));
        assert_eq!(
            left_of([
                wanted(drain, 1),
                weight.clone(),
                down.clone(),
                wanted(ready, 3)
            ]),
            [weight, down, wanted(ready, 3)]
        );
    }

    #[test]
    fn a_member_that_flaps_for_ever_takes_few_places() {
        let flaps = (0..100).flat_map(|i| {
            [
                up(i),
                MemberEvent::Suspect(id(i)),
                MemberEvent::Refuted(id(i)),
                MemberEvent::HungUp(id(i)),
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
