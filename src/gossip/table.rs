//! What is known of the other members, and what changed since the last look.
//!
//! The protocol's own list is compared with the rows here after every batch
//! of inputs. That way no change is missed, whichever path it came by, and
//! the events are always those that lead from the last state to this one.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use tokio::time::Instant;

use super::identity::{Id, says_goodbye};
use crate::membership::{Member, MemberEvent, MemberId, MemberState, MemberView, Meta};

/// How long a member that is gone stays in the view.
pub(super) const SHOW_GONE: Duration = Duration::from_mins(1);

/// The rows, and the events that have not been taken yet.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<SocketAddr, Row>,
    events: VecDeque<MemberEvent>,
    changed: bool,
}

#[derive(Debug)]
struct Row {
    id: Id,
    meta: Option<Meta>,
    state: MemberState,
    incarnation: u16,
    since: Instant,
    /// The life that was last announced as up and has not been taken back.
    up: Option<MemberId>,
}

impl Table {
    /// Takes in what the protocol now holds of one member.
    pub(super) fn observe(&mut self, member: &foca::Member<Id>, now: Instant) {
        let id = member.id();
        match self.rows.get_mut(&id.addr()) {
            Some(row) if row.is(member) => {}
            Some(row) => {
                row.follow(member, now, &mut self.events);
                self.changed = true;
            }
            // That a stranger is gone is no news.
            None if gone(state_of(member, None)) => {}
            None => {
                let mut row = Row::new(id.clone(), now);
                row.follow(member, now, &mut self.events);
                self.rows.insert(id.addr(), row);
                self.changed = true;
            }
        }
    }

    /// Tells that a member hung up, if that life of it is taken to be there
    /// and did not say that it goes.
    pub(super) fn hung_up(&mut self, id: MemberId) {
        let row = self.rows.get(&id.addr);
        let there = row.is_some_and(|row| {
            row.up == Some(id) && !gone(row.state) && !row.meta.as_ref().is_some_and(says_goodbye)
        });
        if there {
            self.events.push_back(MemberEvent::HungUp(id));
        }
    }

    /// Drops the row of a member whose address is another's now.
    pub(super) fn evict(&mut self, addr: SocketAddr) {
        if let Some(row) = self.rows.remove(&addr) {
            self.events.extend(row.up.map(MemberEvent::Left));
            self.changed = true;
        }
    }

    /// Drops the rows of members that have been gone for long.
    pub(super) fn expire(&mut self, now: Instant) {
        let before = self.rows.len();
        self.rows
            .retain(|_, row| !gone(row.state) || now < row.since + SHOW_GONE);
        self.changed |= self.rows.len() != before;
    }

    pub(super) fn pop_event(&mut self) -> Option<MemberEvent> {
        self.events.pop_front()
    }

    /// Whether any row changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = MemberView> {
        self.rows.values().map(Row::view)
    }

    /// Members whose word on themselves cannot be read, or must not be
    /// believed.
    pub(super) fn unreadable(&self) -> usize {
        let rows = self.rows.values();
        rows.filter(|row| row.meta.is_none() && !gone(row.state))
            .count()
    }

    /// Members that do not answer, or failed in the last [`SHOW_GONE`].
    pub(super) fn missing(&self) -> impl Iterator<Item = &Id> {
        self.rows
            .values()
            .filter(|row| matches!(row.state, MemberState::Suspect | MemberState::Down))
            .map(|row| &row.id)
    }

    /// The addresses of those that are there, in their order.
    #[cfg(test)]
    pub(super) fn active(&self) -> impl Iterator<Item = SocketAddr> {
        let active = self.rows.iter().filter(|(_, row)| !gone(row.state));
        active.map(|(addr, _)| *addr)
    }

    pub(super) fn is_active(&self, addr: SocketAddr) -> bool {
        self.rows.get(&addr).is_some_and(|row| !gone(row.state))
    }
}

impl Row {
    /// A row that knows nothing yet.
    fn new(id: Id, now: Instant) -> Self {
        Self {
            meta: id.meta(),
            id,
            state: MemberState::Alive,
            incarnation: 0,
            since: now,
            up: None,
        }
    }

    /// Whether it already says what the protocol holds. A row that is left
    /// stays left whatever becomes of that identity.
    fn is(&self, member: &foca::Member<Id>) -> bool {
        self.id == *member.id()
            && self.incarnation == member.incarnation()
            && self.state == state_of(member, self.meta.as_ref())
    }

    fn follow(
        &mut self,
        member: &foca::Member<Id>,
        now: Instant,
        events: &mut VecDeque<MemberEvent>,
    ) {
        let news = self.adopt(member.id(), events);
        self.incarnation = member.incarnation();
        let before = self.state;
        self.state = state_of(member, self.meta.as_ref());
        if self.state != before {
            self.since = now;
        }
        match self.state {
            MemberState::Down => events.extend(self.up.take().map(MemberEvent::Down)),
            MemberState::Left => events.extend(self.up.take().map(MemberEvent::Left)),
            MemberState::Alive | MemberState::Suspect => {
                if news || self.up.is_none() {
                    self.announce(events);
                }
                self.judge(before, events);
            }
        }
    }

    /// Takes over a new identity; tells whether the outside must hear of it.
    fn adopt(&mut self, id: &Id, events: &mut VecDeque<MemberEvent>) -> bool {
        if self.id == *id {
            return false;
        }
        let meta = id.meta();
        let name = |meta: &Option<Meta>| meta.as_ref().map(|meta| meta.name.clone());
        if meta.is_some() && name(&meta) != name(&self.meta) {
            // The address is another node's now: at it, nobody is left of
            // the former one.
            events.extend(self.up.take().map(MemberEvent::Left));
        }
        let news = self.id.epoch() != id.epoch() || self.meta != meta;
        self.id = id.clone();
        self.meta = meta;
        news
    }

    fn announce(&mut self, events: &mut VecDeque<MemberEvent>) {
        let Some(meta) = self.meta.clone() else {
            return;
        };
        let id = self.id.member_id();
        self.up = Some(id);
        events.push_back(MemberEvent::Up(Member { id, meta }));
    }

    fn judge(&self, before: MemberState, events: &mut VecDeque<MemberEvent>) {
        let Some(id) = self.up else {
            return;
        };
        match (before, self.state) {
            (MemberState::Suspect, MemberState::Alive) => {
                events.push_back(MemberEvent::Refuted(id));
            }
            (MemberState::Suspect, _) | (_, MemberState::Alive) => {}
            _ => events.push_back(MemberEvent::Suspect(id)),
        }
    }

    fn view(&self) -> MemberView {
        MemberView {
            id: self.id.member_id(),
            meta: self.meta.clone(),
            state: self.state,
            since: self.since,
            incarnation: Some(self.incarnation),
            generation: self.id.generation(),
            local: false,
        }
    }
}

fn gone(state: MemberState) -> bool {
    matches!(state, MemberState::Down | MemberState::Left)
}

fn state_of(member: &foca::Member<Id>, meta: Option<&Meta>) -> MemberState {
    if member.id().leaving() {
        // The word counts from when it is said: what follows may get lost.
        return MemberState::Left;
    }
    match member.state() {
        foca::State::Alive => MemberState::Alive,
        foca::State::Suspect => MemberState::Suspect,
        foca::State::Down if meta.is_some_and(says_goodbye) => MemberState::Left,
        foca::State::Down => MemberState::Down,
    }
}

#[cfg(test)]
mod tests {
    use foca::{Identity as _, Member as Known, State};

    use super::*;
    use crate::membership::{Announcement, Phase, Role};

    fn meta(phase: Phase) -> Meta {
        Meta {
            name: "s1".parse().unwrap(),
            role: Role::Server(Announcement {
                service: "nodes".parse().unwrap(),
                addr: "10.0.0.1:3000".parse().unwrap(),
                weight: 1,
                phase,
                tags: BTreeMap::new(),
            }),
        }
    }

    fn id(epoch: u64) -> Id {
        Id::new("10.0.0.1:7946".parse().unwrap(), epoch, &meta(Phase::Ready)).unwrap()
    }

    fn up(id: &Id) -> MemberEvent {
        MemberEvent::Up(Member {
            id: id.member_id(),
            meta: id.meta().unwrap(),
        })
    }

    /// The events that a sequence of states of one member leads to.
    fn events(states: impl IntoIterator<Item = Known<Id>>) -> Vec<MemberEvent> {
        let mut table = Table::default();
        for member in states {
            table.observe(&member, Instant::now());
        }
        table.events.into()
    }

    #[test]
    fn a_member_is_announced_once_and_its_failure_told() {
        let id = id(1);
        let alive = Known::alive(id.clone());
        let seen = events([alive.clone(), alive, Known::down(id.clone())]);
        assert_eq!(seen, [up(&id), MemberEvent::Down(id.member_id())]);
    }

    #[test]
    fn a_suspicion_and_its_end_are_told() {
        let id = id(1);
        let seen = events([
            Known::alive(id.clone()),
            Known::new(id.clone(), 0, State::Suspect),
            Known::new(id.clone(), 1, State::Alive),
        ]);
        let member = id.member_id();
        assert_eq!(
            seen,
            [
                up(&id),
                MemberEvent::Suspect(member),
                MemberEvent::Refuted(member)
            ]
        );
    }

    #[test]
    fn who_said_goodbye_has_left_and_did_not_fail() {
        let id = id(1);
        let farewell = id.farewell();
        let seen = events([
            Known::alive(id.clone()),
            Known::alive(farewell.clone()),
            Known::down(farewell),
        ]);
        assert_eq!(seen, [up(&id), MemberEvent::Left(id.member_id())]);

        let leaving = id.with_meta(&meta(Phase::Leaving)).unwrap();
        let seen = events([Known::alive(leaving.clone()), Known::down(leaving.clone())]);
        assert_eq!(seen.last(), Some(&MemberEvent::Left(leaving.member_id())));
    }

    #[test]
    fn a_later_life_is_up_without_a_word_on_the_former_one() {
        let (first, second) = (id(1), id(2));
        let seen = events([Known::alive(first.clone()), Known::alive(second.clone())]);
        assert_eq!(seen, [up(&first), up(&second)]);
    }

    #[test]
    fn whose_address_is_another_nodes_has_left_it() {
        let first = id(1);
        let other = Meta {
            name: "s2".parse().unwrap(),
            ..meta(Phase::Ready)
        };
        let second = Id::new(first.addr(), 2, &other).unwrap();
        let seen = events([Known::alive(first.clone()), Known::alive(second.clone())]);
        let left = MemberEvent::Left(first.member_id());
        assert_eq!(seen, [up(&first), left, up(&second)]);
    }

    #[test]
    fn a_mere_rejoin_is_no_news() {
        let id = id(1);
        let renewed = id.renew().unwrap();
        let seen = events([Known::alive(id.clone()), Known::alive(renewed)]);
        assert_eq!(seen, [up(&id)]);
    }

    #[test]
    fn a_member_that_cannot_be_read_is_shown_but_not_announced() {
        let mut table = Table::default();
        let id = id(1).unreadable();
        table.observe(&Known::alive(id.clone()), Instant::now());
        table.observe(&Known::down(id), Instant::now());
        assert_eq!(table.pop_event(), None);
        assert_eq!(table.rows().next().map(|row| row.meta), Some(None));
    }

    #[test]
    fn hanging_up_is_told_of_who_is_there_and_did_not_say_that_it_goes() {
        let told = |known: Known<Id>, id: MemberId| {
            let mut table = Table::default();
            table.observe(&Known::alive(self::id(1)), Instant::now());
            table.observe(&known, Instant::now());
            table.hung_up(id);
            table.events.contains(&MemberEvent::HungUp(id))
        };
        let (former, id) = (id(1), id(2));
        assert!(told(Known::alive(id.clone()), id.member_id()));
        assert!(told(
            Known::new(id.clone(), 0, State::Suspect),
            id.member_id()
        ));
        assert!(!told(Known::alive(id.clone()), former.member_id()));
        assert!(!told(Known::down(id.clone()), id.member_id()));
        assert!(!told(Known::alive(id.farewell()), id.member_id()));
        let leaving = id.with_meta(&meta(Phase::Leaving)).unwrap();
        assert!(!told(Known::alive(leaving), id.member_id()));
    }

    #[test]
    fn who_is_gone_is_shown_for_a_minute() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.observe(&Known::alive(id(1)), now);
        table.observe(&Known::down(id(1)), now);
        table.expire(now + SHOW_GONE - Duration::from_millis(1));
        assert_eq!(table.rows().count(), 1);
        assert!(table.take_changed());
        table.expire(now + SHOW_GONE);
        assert_eq!(table.rows().count(), 0);
        assert!(table.take_changed() && !table.take_changed());
    }

    #[test]
    fn a_stranger_that_is_already_gone_is_no_news() {
        assert_eq!(events([Known::down(id(1))]), []);
    }
}
