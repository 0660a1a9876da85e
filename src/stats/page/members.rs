//! The table of members: who takes part in gossip, and what they say.

use maud::{Markup, html};
use tokio::time::Instant;

use super::age;
use crate::{
    membership::{Announcement, MemberState, Role},
    stats::{json::phase, source::MemberRow},
};

/// All members.
pub(super) fn table(members: &[MemberRow], now: Instant) -> Markup {
    html! {
        div.proxy #gossip-members {
            h3.name { a href="#gossip-members" { "members" } span { "as gossip knows them" } }
            div.scroll tabindex="0" role="region" aria-label="members" {
                table {
                    thead {
                        tr.titre {
                            @for heading in [
                                "Name", "Role", "State", "Since", "Gossip address", "Service",
                                "Server address", "Weight", "Says", "Tags", "Incarnation",
                                "Generation",
                            ] {
                                th scope="col" { (heading) }
                            }
                        }
                    }
                    tbody {
                        @for member in members { (row(member, now)) }
                        @if members.is_empty() {
                            tr { td.empty colspan="12" { "Gossip knows no member." } }
                        }
                    }
                }
            }
        }
    }
}

fn row(member: &MemberRow, now: Instant) -> Markup {
    let meta = member.meta.as_ref();
    let since = now.saturating_duration_since(member.since);
    html! {
        tr class=(class(member.state)) {
            th.ac scope="row" {
                @match meta {
                    Some(meta) => (meta.name),
                    None => em { "unreadable" },
                }
                @if member.local { " (this node)" }
            }
            td.ac {
                @match meta.map(|meta| &meta.role) {
                    Some(Role::Balancer) => "load balancer",
                    Some(Role::Server(_)) => "server",
                    None => "",
                }
            }
            td.ac { (state(member.state)) }
            td { (age(since)) }
            td { (member.id.addr) }
            @match meta.map(|meta| &meta.role) {
                Some(Role::Server(announced)) => (server(announced)),
                _ => td colspan="5" {},
            }
            td { @if let Some(incarnation) = member.incarnation { (incarnation) } }
            td { (member.generation) }
        }
    }
}

fn server(announced: &Announcement) -> Markup {
    html! {
        td.ac { (announced.service) }
        td { (announced.addr) }
        td { (announced.weight) }
        td.ac { (phase(announced.phase)) }
        td.ac {
            @for (key, value) in &announced.tags {
                span.tag { (key) "=" (value) } " "
            }
        }
    }
}

fn state(state: MemberState) -> &'static str {
    match state {
        MemberState::Alive => "alive",
        MemberState::Suspect => "suspect",
        MemberState::Down => "down",
        MemberState::Left => "left",
    }
}

fn class(state: MemberState) -> &'static str {
    match state {
        MemberState::Alive => "active_up",
        MemberState::Suspect => "active_going_down",
        MemberState::Down => "active_down",
        MemberState::Left => "active_no_check",
    }
}
