//! What stands round the tables to be clicked, read and pressed.

use maud::{Markup, html};

use super::Options;

/// What is listed, and where else it is found.
pub(super) fn toolbar(asked: &Options) -> Markup {
    let Options {
        up,
        no_maint,
        norefresh,
        ..
    } = *asked;
    let with = |change: fn(&mut Options)| {
        let mut options = asked.clone();
        change(&mut options);
        options.link()
    };
    let words = Options {
        filter: None,
        scope: None,
        ..asked.clone()
    };
    html! {
        nav.toolbar aria-label="Display option" {
            form role="search" action=(words.link()) {
                label { span { "Filter" }
                    input #filter type="search" name="filter" autocomplete="off"
                        placeholder="name, address, tag, status"
                        value=[asked.filter.as_deref()];
                }
                label { span { "Scope" }
                    input type="search" name="scope" autocomplete="off" size="10"
                        maxlength="20" value=[asked.scope.as_deref()];
                }
                button { "Show" }
            }
            ul {
                li { a href=(with(|o| o.up = !o.up)) {
                    @if up { "Show all servers" } @else { "Hide 'DOWN' servers" }
                } }
                li { a href=(with(|o| o.no_maint = !o.no_maint)) {
                    @if no_maint { "Show 'MAINT' servers" } @else { "Hide 'MAINT' servers" }
                } }
                li { a href=(with(|o| o.norefresh = !o.norefresh)) {
                    @if norefresh { "Enable refresh" } @else { "Disable refresh" }
                } }
                li { a href=(asked.link()) { "Refresh now" } }
            }
            ul {
                li { a href="./;csv;norefresh" { "CSV export" } }
                li { a href="./;json;norefresh" { "JSON export" }
                    " (" a href="./;json-schema" { "schema" } ")" }
                li { a href="./metrics" { "Prometheus" } }
                li { a href="./v1/servers" { "servers" } }
                li { a href="./v1/members" { "members" } }
                li { a href="./v1/events" { "events" } }
            }
        }
    }
}

/// What is done to the servers that are chosen.
pub(super) fn steering() -> Markup {
    html! {
        div.steering role="group" aria-label="Chosen servers" {
            // Enter in a field would press the form's first button.
            button disabled hidden {}
            label.all hidden { input #all type="checkbox"; " all shown" }
            span #chosen { "Chosen servers:" }
            button name="action" value="ready" { "Ready" }
            button name="action" value="drain" { "Drain" }
            button name="action" value="maint" { "Maint" }
            label { "weight "
                input name="weight" size="5" inputmode="numeric" autocomplete="off"
                    placeholder="100%" title="0 to 256, or a percentage of the weight it has by itself";
            }
            button name="action" value="weight" { "Set weight" }
        }
    }
}

/// What the colours mean.
pub(super) fn legend() -> Markup {
    let entries = [
        ("active_up", "UP"),
        ("active_going_down", "UP, going down or suspected"),
        ("active_going_up", "DOWN, going up"),
        ("active_down", "DOWN"),
        ("maintain", "MAINT: taken out by an operator"),
        (
            "active_draining",
            "DRAIN: keeps its users, takes no new ones",
        ),
        ("active_no_check", "not checked"),
    ];
    html! {
        ul.legend aria-label="Colours" {
            @for (class, words) in entries {
                li { span class=(format!("swatch {class}")) {} (words) }
            }
        }
    }
}

/// What the script hears on the keyboard.
pub(super) fn keys(steered: bool) -> Markup {
    let keys = [
        ("/", "filter", true),
        ("j k", "next and previous server", true),
        ("x", "choose it", steered),
        (
            "d m r",
            "drain, maint or ready: what is chosen, or it",
            steered,
        ),
        ("u", "undo", steered),
        ("p", "pause and go on", true),
        ("Esc", "leave the field, choose nothing", true),
    ];
    html! {
        section.keys hidden {
            h2 { "Keys" }
            ul {
                @for (keys, words, there) in keys {
                    @if there {
                        li {
                            @for key in keys.split(' ') { kbd { (key) } " " }
                            (words)
                        }
                    }
                }
            }
        }
    }
}
