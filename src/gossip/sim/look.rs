//! What there is to see in a simulation, and what must hold after each.

use std::collections::BTreeSet;

use super::{CALM, Sim, addr, number};
use crate::membership::{MemberEvent, MemberId, Phase, Role};

impl Sim {
    /// What must hold after every run, once the network is whole again and
    /// has been for [`CALM`]: everyone knows those who are there, and nobody
    /// else; all know the same wishes of operators.
    pub(super) fn check(&mut self) {
        self.heal();
        self.run(CALM);
        self.nodes.retain(|_, node| !node.core.is_gone());
        let all: BTreeSet<_> = self.nodes.keys().copied().collect();
        for node in &all {
            assert_eq!(self.known(*node), all, "what node {node} knows");
        }
        let wishes: BTreeSet<_> = self
            .nodes
            .values()
            .map(|node| node.core.records_digest())
            .collect();
        assert!(wishes.len() <= 1, "operators' wishes differ");
    }

    /// The members that a node takes to be there.
    pub(super) fn known(&self, node: usize) -> BTreeSet<usize> {
        self.there(node).collect()
    }

    fn there(&self, node: usize) -> impl Iterator<Item = usize> {
        self.nodes[&node].core.there().filter_map(number)
    }

    /// Asked after every packet, so it collects nothing: members are known in
    /// the order of their addresses, this node first.
    pub(super) fn all_know_all(&self) -> bool {
        self.nodes.keys().all(|node| {
            let others = self.nodes.keys().filter(|other| *other != node);
            self.there(*node)
                .eq(std::iter::once(node).chain(others).copied())
        })
    }

    pub(super) fn phase_of(&self, of: usize, at: usize) -> Option<Phase> {
        let view = self.nodes[&at].core.view();
        let row = view.iter().find(|row| row.id.addr == addr(of))?;
        match &row.meta.as_ref()?.role {
            Role::Server(announcement) => Some(announcement.phase),
            Role::Balancer => None,
        }
    }

    pub(super) fn saw(&self, node: usize, wanted: impl Fn(&MemberEvent) -> bool) -> bool {
        self.nodes[&node]
            .events
            .iter()
            .any(|(_, event)| wanted(event))
    }

    pub(super) fn saw_left(&self, node: usize, who: usize) -> bool {
        self.saw(
            node,
            |event| matches!(event, MemberEvent::Left(id) if id.addr == addr(who)),
        )
    }

    pub(super) fn saw_down(&self, node: usize) -> bool {
        self.saw(node, |event| matches!(event, MemberEvent::Down(_)))
    }

    pub(super) fn local(&self, node: usize) -> MemberId {
        self.nodes[&node].core.local()
    }

    pub(super) fn generation(&self, node: usize) -> u32 {
        self.nodes[&node].core.view()[0].generation
    }
}
