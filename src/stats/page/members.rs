//! The table of members: who takes part in gossip, and what they say.

use std::sync::Arc;

use maud::{Markup, html};

use super::{
    cell::{Cell, Value},
    scene::{Moment, Row, Shape, Table},
};
use crate::{
    membership::{Announcement, MemberState, MemberView, Role},
    stats::json::phase,
};

/// The heads of its columns.
pub(super) const HEAD: [&str; 12] = [
    "Name",
    "Role",
    "State",
    "Since",
    "Gossip address",
    "Service",
    "Server address",
    "Weight",
    "Says",
    "Tags",
    "Incarnation",
    "Generation",
];

/// All members.
pub(super) fn table(members: &[MemberView], moment: Moment) -> Table {
    let rows = members.iter().map(|member| Arc::new(row(member, moment)));
    Table {
        id: "gossip-members".into(),
        shape: Shape::Rows,
        rows: rows.collect(),
    }
}

fn row(member: &MemberView, moment: Moment) -> Row {
    let role = member.meta.as_ref().map(|meta| &meta.role);
    let announced = match role {
        Some(Role::Server(announced)) => Some(announced),
        _ => None,
    };
    let of_server = |value: fn(&Announcement) -> Value| announced.map_or(Value::Nothing, value);
    let values = [
        name(member).into(),
        Value::text(match role {
            Some(Role::Balancer) => "load balancer",
            Some(Role::Server(_)) => "server",
            None => "",
        }),
        Value::text(state(member.state)),
        Value::Since(moment.at(member.since), "".into()),
        Value::text(&member.id.addr.to_string()),
        of_server(|announced| Value::text(announced.service.as_str())),
        of_server(|announced| Value::text(&announced.addr.to_string())),
        of_server(|announced| Value::Count(announced.weight.into())),
        of_server(|announced| Value::text(phase(announced.phase))),
        of_server(|announced| tags(announced).into()),
        Value::count(member.incarnation),
        Value::Count(member.generation.into()),
    ];
    Row {
        key: format!("{}/{}", member.id.addr, member.id.epoch),
        class: class(member.state),
        cells: values.map(Cell::from).into(),
        server: None,
    }
}

fn name(member: &MemberView) -> Markup {
    html! {
        @match &member.meta {
            Some(meta) => (meta.name),
            None => em { "unreadable" },
        }
        @if member.local { " " small { "this node" } }
    }
}

fn tags(announced: &Announcement) -> Markup {
    html! {
        @for (key, value) in &announced.tags {
            span.tag { (key) "=" (value) } " "
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
