//! What a key does. Pure.

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::time::Instant;

use super::{
    answer::Server,
    model::{Message, Mode, Model, Tab},
    order::{Change, Order},
};
use crate::cli::{admin::weight, desk::printable};

/// The heaviest weight, as in `HAProxy`.
const HEAVIEST: u16 = 256;

/// The longest filter or weight that is typed.
const LONGEST: usize = 64;

/// Rows that a page key goes by.
const PAGE: isize = 10;

/// What is to be done outside of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Nothing but to draw.
    Draw,
    /// The end.
    Quit,
    /// Give the terminal back until the shell brings us to the fore again.
    Suspend,
    /// Change servers.
    Steer(Order),
}

/// The keys and what they do, in the order that the help has.
pub const KEYS: &[(&str, &str)] = &[
    ("d", "drain: keeps its users, takes no new ones"),
    ("m", "maint: takes nothing"),
    ("r", "ready: takes requests again"),
    ("+ -", "weight up, down by 1"),
    ("w", "weight: 0 to 256, or in percent"),
    ("u", "undo the last of these"),
    ("", ""),
    ("↑ ↓ j k", "select; PgUp PgDn, g G to the ends"),
    ("space", "mark several; * all, Esc none"),
    ("/", "filter; Esc shows all again"),
    ("< >", "sort by another column; i inverts"),
    ("Tab", "events or members; J K scroll them"),
    ("q", "quit"),
];

/// Does what the terminal's event asks for.
pub fn handle(model: &mut Model, event: &Event, now: Instant) -> Effect {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => press(model, *key, now),
        _ => Effect::Draw,
    }
}

fn press(model: &mut Model, key: KeyEvent, now: Instant) -> Effect {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Effect::Quit,
            KeyCode::Char('z') => Effect::Suspend,
            _ => Effect::Draw,
        };
    }
    if key.modifiers.contains(KeyModifiers::ALT) {
        // A quick Esc before a key arrives as this; neither is meant so.
        return Effect::Draw;
    }
    model.hush();
    match std::mem::take(&mut model.mode) {
        Mode::Look => look(model, key.code, now),
        Mode::Help => Effect::Draw,
        Mode::Filter => {
            filter(model, key.code);
            Effect::Draw
        }
        Mode::Weight(typed) => type_weight(model, typed, key.code, now),
        Mode::Confirm(order) if matches!(key.code, KeyCode::Char('y' | 'Y')) => {
            model.expect(&order);
            Effect::Steer(order)
        }
        Mode::Confirm(_) => {
            model.say(Message::Done("left as it is".to_owned()), now);
            Effect::Draw
        }
    }
}

fn look(model: &mut Model, code: KeyCode, now: Instant) -> Effect {
    let change = |state| move |_: &_| Change::State(state);
    match code {
        KeyCode::Char('q') => return Effect::Quit,
        KeyCode::Char('d') => return steer(model, change("drain"), now),
        KeyCode::Char('m') => return steer(model, change("maint"), now),
        KeyCode::Char('r') => return steer(model, change("ready"), now),
        KeyCode::Char('+' | '=') => return weigh(model, 1, now),
        KeyCode::Char('-') => return weigh(model, -1, now),
        KeyCode::Char('u') => return undo(model, now),
        KeyCode::Char('w') if !model.targets().is_empty() => {
            model.mode = Mode::Weight(String::new());
        }
        KeyCode::Char('?') => model.mode = Mode::Help,
        KeyCode::Char('/') => model.mode = Mode::Filter,
        KeyCode::Esc => clear(model),
        _ => move_about(model, code),
    }
    Effect::Draw
}

fn move_about(model: &mut Model, code: KeyCode) {
    match code {
        KeyCode::Down | KeyCode::Char('j') => model.select(1),
        KeyCode::Up | KeyCode::Char('k') => model.select(-1),
        KeyCode::PageDown => model.select(PAGE),
        KeyCode::PageUp => model.select(-PAGE),
        KeyCode::Home | KeyCode::Char('g') => model.select(isize::MIN),
        KeyCode::End | KeyCode::Char('G') => model.select(isize::MAX),
        KeyCode::Char(' ') => model.mark(),
        KeyCode::Char('*') => model.mark_all(),
        KeyCode::Char('>') => model.sort_by(model.sort.by.next()),
        KeyCode::Char('<') => model.sort_by(model.sort.by.previous()),
        KeyCode::Char('i') => model.sort.inverted = !model.sort.inverted,
        KeyCode::Char('J') => model.scroll(1),
        KeyCode::Char('K') => model.scroll(-1),
        KeyCode::Tab | KeyCode::BackTab => {
            model.scrolled = 0;
            model.tab = match model.tab {
                Tab::Events => Tab::Members,
                Tab::Members => Tab::Events,
            };
        }
        _ => {}
    }
}

/// One thing at a time: first the marks, then the filter.
fn clear(model: &mut Model) {
    if model.marked.is_empty() {
        model.filter.clear();
        model.keep_selection();
    } else {
        model.marked.clear();
    }
}

fn steer(model: &mut Model, change: impl Fn(&Server) -> Change, now: Instant) -> Effect {
    let Some(order) = model.order(change) else {
        model.say(Message::Failed("no server is selected".to_owned()), now);
        return Effect::Draw;
    };
    if model.empties_the_pool(&order) {
        model.mode = Mode::Confirm(order);
        return Effect::Draw;
    }
    model.expect(&order);
    Effect::Steer(order)
}

fn weigh(model: &mut Model, by: i16, now: Instant) -> Effect {
    let heavier = |server: &Server| {
        let weight = server.weight.saturating_add_signed(by).min(HEAVIEST);
        Change::Weight(weight.to_string())
    };
    steer(model, heavier, now)
}

fn undo(model: &mut Model, now: Instant) -> Effect {
    if let Some(order) = model.take_back() {
        return Effect::Steer(order);
    }
    let nothing = "nothing was done here that could be undone";
    model.say(Message::Failed(nothing.to_owned()), now);
    Effect::Draw
}

fn filter(model: &mut Model, code: KeyCode) {
    match code {
        KeyCode::Enter => return,
        KeyCode::Esc => {
            model.filter.clear();
            model.keep_selection();
            return;
        }
        KeyCode::Backspace => {
            model.filter.pop();
        }
        KeyCode::Char(c) if model.filter.chars().count() < LONGEST => {
            model
                .filter
                .push_str(&printable(c.encode_utf8(&mut [0; 4])));
        }
        KeyCode::Down => model.select(1),
        KeyCode::Up => model.select(-1),
        _ => {}
    }
    model.mode = Mode::Filter;
    model.keep_selection();
}

fn type_weight(model: &mut Model, mut typed: String, code: KeyCode, now: Instant) -> Effect {
    match code {
        KeyCode::Esc => return Effect::Draw,
        KeyCode::Enter => {
            return match weight(&typed) {
                Ok(weight) => steer(model, |_| Change::Weight(weight.clone()), now),
                Err(why) => {
                    model.say(Message::Failed(why.to_owned()), now);
                    Effect::Draw
                }
            };
        }
        KeyCode::Backspace => {
            typed.pop();
        }
        KeyCode::Char(c @ ('0'..='9' | '%')) if typed.len() < LONGEST => typed.push(c),
        _ => {}
    }
    model.mode = Mode::Weight(typed);
    Effect::Draw
}
