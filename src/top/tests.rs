//! What keys and answers make of the model.

use std::time::Duration;

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;
use tokio::time::Instant;

use super::{
    fixture::{answers, model, press, server, three, type_in},
    input::{self, Effect},
    model::{Message, Mode, Model, Tab},
    order::{Change, Done, Order, Wish},
    sort::Column,
};

/// The names that are shown, in their order.
fn shown(model: &Model) -> Vec<&str> {
    let rows = model.rows().into_iter();
    rows.map(|row| row.server.name.as_str()).collect()
}

/// The order that a key gave, as the runtime API reads it.
fn ordered(effect: Effect) -> Vec<String> {
    let Effect::Steer(order) = effect else {
        panic!("no order: {effect:?}");
    };
    let wishes = order.wishes.iter();
    wishes
        .map(|wish| format!("{} {}", wish.server, wish.change.as_text()))
        .collect()
}

fn done(effect: Effect, undo: &[(&str, Change)]) -> Done {
    let Effect::Steer(order) = effect else {
        panic!("no order: {effect:?}");
    };
    let undo = undo.iter().map(|(server, change)| Wish {
        server: (*server).to_owned(),
        change: change.clone(),
    });
    Done {
        message: Message::Done("done".to_owned()),
        undo: undo.collect(),
        order,
    }
}

#[test]
fn keys_steer_the_selected_server() {
    let mut model = three();
    assert_eq!(ordered(type_in(&mut model, "d")), ["s1 state drain"]);
    assert_eq!(ordered(type_in(&mut model, "jm")), ["s2 state maint"]);
    assert_eq!(ordered(type_in(&mut model, "kr")), ["s1 state ready"]);
    press(&mut model, KeyCode::End);
    assert_eq!(ordered(type_in(&mut model, "+")), ["s3 weight 2"]);
    // Before the load balancer has said so, the next key goes on from there.
    assert_eq!(ordered(type_in(&mut model, "+")), ["s3 weight 3"]);
    assert_eq!(ordered(type_in(&mut model, "-")), ["s3 weight 2"]);
}

#[test]
fn keys_steer_all_that_are_marked() {
    let mut model = three();
    type_in(&mut model, "j ");
    type_in(&mut model, " ");
    assert_eq!(
        ordered(type_in(&mut model, "d")),
        ["s2 state drain", "s3 state drain"]
    );
    press(&mut model, KeyCode::Esc);
    assert!(model.marked.is_empty());
    type_in(&mut model, "*");
    assert_eq!(model.marked.len(), 3);
    type_in(&mut model, "*");
    assert!(model.marked.is_empty());
}

#[test]
fn nobody_is_taken_out_last_by_a_slip() {
    let mut model = model(&[
        server("s1", &json!({})),
        server("s2", &json!({ "status": "down" })),
        server("s3", &json!({ "weight": 0 })),
    ]);
    for keys in ["m", "d", "-"] {
        assert_eq!(type_in(&mut model, keys), Effect::Draw, "{keys}");
        assert!(matches!(model.mode, Mode::Confirm(_)), "{keys}");
        assert_eq!(type_in(&mut model, "n"), Effect::Draw, "{keys}");
        assert_eq!(model.mode, Mode::Look);
    }
    assert_eq!(ordered(type_in(&mut model, "my")), ["s1 state maint"]);
    // What takes nothing anyway may be taken out.
    assert_eq!(ordered(type_in(&mut model, "jm")), ["s2 state maint"]);
}

#[test]
fn what_was_ordered_counts_before_it_was_answered() {
    let mut model = model(&["s1", "s2"].map(|name| server(name, &json!({}))));
    assert_eq!(ordered(type_in(&mut model, "d")), ["s1 state drain"]);
    assert_eq!(type_in(&mut model, "jm"), Effect::Draw);
    assert!(matches!(model.mode, Mode::Confirm(_)));
}

#[test]
fn a_weight_is_typed() {
    let mut model = three();
    type_in(&mut model, "w5x0%");
    assert_eq!(model.mode, Mode::Weight("50%".to_owned()));
    assert_eq!(
        ordered(press(&mut model, KeyCode::Enter)),
        ["s1 weight 50%"]
    );
    type_in(&mut model, "w999");
    assert_eq!(press(&mut model, KeyCode::Enter), Effect::Draw);
    let said = model.message(Instant::now());
    assert!(matches!(said, Some(Message::Failed(why)) if why.contains("256")));
    type_in(&mut model, "w5");
    assert_eq!(press(&mut model, KeyCode::Esc), Effect::Draw);
    assert_eq!(model.mode, Mode::Look);
}

#[test]
fn steps_are_undone_one_by_one() {
    let (mut model, now) = (three(), Instant::now());
    let effect = type_in(&mut model, "d");
    model.done(done(effect, &[("s1", Change::State("ready"))]), now);
    let effect = type_in(&mut model, "jm");
    model.done(done(effect, &[("s2", Change::State("drain"))]), now);
    let effect = type_in(&mut model, "u");
    assert_eq!(ordered(effect.clone()), ["s2 state drain"]);
    // What took it back is not taken back in turn.
    model.done(done(effect, &[("s2", Change::State("maint"))]), now);
    assert_eq!(ordered(type_in(&mut model, "u")), ["s1 state ready"]);
    assert_eq!(type_in(&mut model, "u"), Effect::Draw);
}

#[test]
fn an_undo_that_fails_can_be_tried_again() {
    let (mut model, now) = (three(), Instant::now());
    let effect = type_in(&mut model, "d");
    model.done(done(effect, &[("s1", Change::State("ready"))]), now);
    let effect = type_in(&mut model, "u");
    let mut failed = done(effect, &[]);
    failed.message = Message::Failed("no answer".to_owned());
    model.done(failed, now);
    assert_eq!(ordered(type_in(&mut model, "u")), ["s1 state ready"]);
}

#[test]
fn a_filter_finds_names_states_and_tags() {
    let mut model = model(&[
        server("s1", &json!({ "tags": { "zone": "North" } })),
        server(
            "s2",
            &json!({ "status": "down", "reason": "connection refused" }),
        ),
        server("t1", &json!({ "address": "10.9.9.9:80" })),
    ]);
    for (filter, found) in [
        ("t1", vec!["t1"]),
        ("down", vec!["s2"]),
        ("refused", vec!["s2"]),
        ("zone=north", vec!["s1"]),
        ("10.9", vec!["t1"]),
        ("nobody", vec![]),
    ] {
        type_in(&mut model, &format!("/{filter}"));
        assert_eq!(shown(&model), found, "{filter}");
        press(&mut model, KeyCode::Esc);
    }
    // Keys are text while it is typed, and keys again after.
    type_in(&mut model, "/q");
    assert_eq!(model.filter, "q");
    press(&mut model, KeyCode::Backspace);
    type_in(&mut model, "t1");
    press(&mut model, KeyCode::Enter);
    assert_eq!(ordered(type_in(&mut model, "d")), ["t1 state drain"]);
    assert_eq!(type_in(&mut model, "q"), Effect::Quit);
}

#[test]
fn nothing_is_steered_that_is_not_shown() {
    let mut model = three();
    type_in(&mut model, "/nobody");
    press(&mut model, KeyCode::Enter);
    assert_eq!(type_in(&mut model, "d"), Effect::Draw);
    assert!(matches!(
        model.message(Instant::now()),
        Some(Message::Failed(_))
    ));
}

#[test]
fn rows_are_sorted_by_the_column_of_choice() {
    let mut model = model(&[
        server("s1", &json!({ "requests_per_second": 5 })),
        server("s2", &json!({ "requests_per_second": 9, "status": "down" })),
        server("s3", &json!({ "requests_per_second": 7 })),
    ]);
    type_in(&mut model, ">");
    assert_eq!(model.sort.by, Column::Status);
    assert_eq!(shown(&model), ["s2", "s1", "s3"], "what needs a look first");
    type_in(&mut model, ">>>");
    assert_eq!(shown(&model), ["s2", "s3", "s1"], "the busiest first");
    type_in(&mut model, "i");
    assert_eq!(shown(&model), ["s1", "s3", "s2"]);
    type_in(&mut model, "<<<<<");
    assert_eq!(model.sort.by, Column::Since);
}

#[test]
fn the_selection_stays_with_its_server() {
    let mut model = three();
    type_in(&mut model, "jj");
    assert_eq!(model.selected(), Some(2));
    let only = [server("s0", &json!({})), server("s3", &json!({}))];
    model.answered(answers(&only), Instant::now());
    assert_eq!(model.selected(), Some(1));
    model.answered(answers(&only[..1]), Instant::now());
    assert_eq!(model.selected(), Some(0));
    model.answered(answers(&[]), Instant::now());
    assert_eq!(model.selected(), None);
    assert_eq!(type_in(&mut model, "d"), Effect::Draw);
}

#[test]
fn an_event_is_listed_once_and_a_balancer_that_starts_again_begins_anew() {
    let (mut model, now) = (three(), Instant::now());
    model.answered(answers(&[]), now);
    assert_eq!((model.events.len(), model.newest_event()), (2, 2));
    let mut again = answers(&[]);
    again.balancer.life.started_unix += 9;
    again.events.truncate(1);
    model.answered(again, now);
    assert_eq!((model.events.len(), model.newest_event()), (1, 1));
}

#[test]
fn tabs_switch_and_scroll_no_further_than_there_is_something() {
    let mut model = three();
    type_in(&mut model, "JJJJJ");
    assert_eq!(model.scrolled, 1);
    press(&mut model, KeyCode::Tab);
    assert_eq!((model.tab, model.scrolled), (Tab::Members, 0));
    press(&mut model, KeyCode::BackTab);
    assert_eq!(model.tab, Tab::Events);
}

#[test]
fn what_was_said_stays_for_a_while_and_cannot_steer_the_terminal() {
    let (mut model, now) = (three(), Instant::now());
    model.say(Message::Done("d\u{1b}[2Jone".to_owned()), now);
    let said = model.message(now + Duration::from_secs(1));
    assert_eq!(said, Some(&Message::Done("d[2Jone".to_owned())));
    assert_eq!(model.message(now + Duration::from_mins(1)), None);
    model.silent("no\u{7} answer");
    assert_eq!(model.silence.as_deref(), Some("no answer"));
}

#[test]
fn control_keys_work_whatever_goes_on() {
    let mut model = three();
    type_in(&mut model, "/");
    let mut control = |c| {
        let key = KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
        input::handle(&mut model, &Event::Key(key), Instant::now())
    };
    assert_eq!(control('z'), Effect::Suspend);
    assert_eq!(control('c'), Effect::Quit);
    let drain = KeyEvent::new(KeyCode::Char('d'), KeyModifiers::ALT);
    let effect = input::handle(&mut three(), &Event::Key(drain), Instant::now());
    assert_eq!(effect, Effect::Draw);
}

#[test]
fn an_order_that_leaves_somebody_needs_no_question() {
    let model = three();
    let all_but_one = Order {
        wishes: ["s1", "s2"]
            .map(|name| Wish {
                server: name.to_owned(),
                change: Change::State("maint"),
            })
            .into(),
        is_undo: false,
    };
    assert!(!model.empties_the_pool(&all_but_one));
}
