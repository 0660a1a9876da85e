//! What is on the screen, not where to the last cell.

use ratatui::{Terminal, backend::TestBackend, crossterm::event::KeyCode};
use serde_json::{Value, json};

use super::*;
use crate::top::{
    answer::{Latency, Note},
    fixture::{answers, model, press, server, three, type_in},
};

fn drawn(model: &Model, colour: bool, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let (theme, now) = (Theme::new(colour), Instant::now());
    let draw = |frame: &mut ratatui::Frame<'_>| {
        render(model, theme, now, &mut 0, frame.area(), frame.buffer_mut());
    };
    terminal.draw(draw).unwrap();
    terminal.backend().buffer().clone()
}

fn rows_of(buffer: &Buffer) -> Vec<String> {
    let row = |row: Rect| {
        let cells = row.positions().map(|at| buffer[at].symbol().to_owned());
        cells.collect::<String>().trim_end().to_owned()
    };
    buffer.area.rows().map(row).collect()
}

fn screen(model: &Model, width: u16, height: u16) -> String {
    rows_of(&drawn(model, true, width, height)).join("\n")
}

#[track_caller]
fn line<'a>(screen: &'a str, part: &str) -> &'a str {
    let line = screen.lines().find(|line| line.contains(part));
    line.unwrap_or_else(|| panic!("{part} is not in\n{screen}"))
}

fn in_trouble() -> Model {
    model(&[
        server(
            "s1",
            &json!({ "requests_per_second": 321, "active": 7, "weight": 10 }),
        ),
        server(
            "s2",
            &json!({ "status": "down", "reason": "connection refused" }),
        ),
        server(
            "s3",
            &json!({ "throttle_percent": 25, "tags": { "zone": "north" } }),
        ),
    ])
}

#[test]
fn a_small_terminal_has_all_that_matters() {
    let screen = screen(&in_trouble(), 80, 24);
    let title = line(&screen, "Tidings");
    for part in [
        "0.1.0",
        "ha",
        "up 5m 12s",
        "nodes, roundrobin",
        "● 2 of 3 up",
    ] {
        assert!(title.contains(part), "{part}: {title}");
    }
    let figures = line(&screen, "req/s ");
    for part in ["1234 req/s", "56 sessions, 12 active", "0.0 errors/s"] {
        assert!(figures.contains(part), "{part}: {figures}");
    }
    let s1 = line(&screen, "s1");
    for part in ["UP", " 10 ", " 7 ", " 321 ", "1m"] {
        assert!(s1.contains(part), "{part}: {s1}");
    }
    assert!(line(&screen, "DOWN").contains("connection"));
    assert!(screen.contains("eased in"));
    assert!(line(&screen, "13:41:15").contains("s2 is DOWN, reason: connection refused"));
    assert!(screen.contains("by lifeline in 3.2 ms"));
    assert!(
        screen
            .lines()
            .last()
            .unwrap()
            .contains("? help  q quit  d drain")
    );
    assert!(screen.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn a_wider_one_has_more_columns_and_whole_reasons() {
    let screen = screen(&in_trouble(), 140, 40);
    assert!(line(&screen, "NAME").contains("P50"));
    assert!(line(&screen, "DOWN").contains("connection refused"));
    assert!(line(&screen, "eased in").contains("eased in, at 25 %"));
}

#[test]
fn the_selected_server_is_told_of_in_full() {
    let mut model = in_trouble();
    type_in(&mut model, "jj");
    let screen = screen(&model, 80, 24);
    let detail = line(&screen, "s3: ");
    for part in ["eased in, at 25 %", "10.0.0.1:3000", "gossip", "zone=north"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
}

fn every_size(model: &Model) {
    for width in 1..160 {
        drawn(model, true, width, 24);
    }
    for height in 1..60 {
        drawn(model, true, 80, height);
    }
}

#[test]
fn every_size_is_drawn() {
    let mut model = in_trouble();
    for keys in [" ", "?", "x/zz"] {
        type_in(&mut model, keys);
        every_size(&model);
    }
    press(&mut model, KeyCode::Esc);
    type_in(&mut model, "*m");
    every_size(&model);
    type_in(&mut model, "nw12");
    every_size(&model);
    drawn(&Model::default(), true, 80, 24);
    assert!(screen(&model, 30, 5).contains("at least 40x8"));
}

#[test]
fn a_balancer_that_is_silent_is_told_of_loudly_and_its_last_figures_stay() {
    let mut model = in_trouble();
    model.silent("no load balancer answers at 127.0.0.1:1936 (Connection refused)");
    let screen = screen(&model, 80, 24);
    assert!(line(&screen, "NO ANSWER SINCE 1s").contains("no load balancer answers at"));
    assert!(screen.contains("s1"));
    model.answered(answers(&[]), Instant::now());
    let again = rows_of(&drawn(&model, true, 80, 24)).join("\n");
    assert!(!again.contains("NO ANSWER"));
    let mut never = Model::default();
    never.silent("refused");
    let screen = rows_of(&drawn(&never, true, 80, 24)).join("\n");
    assert!(line(&screen, "NO ANSWER").contains("refused"));
}

#[test]
fn what_went_wrong_is_told_to_its_end() {
    let mut model = three();
    let why = "no load balancer answers at 127.0.0.1:9999 (Connection refused (os error 111)); \
               give its address with --admin";
    model.say(Message::Failed(why.to_owned()), Instant::now());
    let screen = screen(&model, 80, 24);
    assert!(
        screen.ends_with("give its address with --admin"),
        "{screen}"
    );
}

#[test]
fn notes_are_loud() {
    let mut model = three();
    let note = |kind: &str| Note {
        kind: kind.to_owned(),
        text: "Some words on it.".to_owned(),
    };
    let balancer = model.balancer.as_mut().unwrap();
    balancer.notes = vec![note("empty_pool"), note("no_gossip_key")];
    let buffer = drawn(&model, true, 80, 24);
    let screen = rows_of(&buffer);
    let row = screen.iter().position(|line| line.contains("EMPTY POOL"));
    assert!(screen[row.unwrap() + 1].contains("NO GOSSIP KEY  Some words on it."));
    assert_eq!(
        buffer[(3, row.unwrap() as u16)].bg,
        ratatui::style::Color::Red
    );
}

#[test]
fn nothing_is_coloured_where_that_is_asked_for() {
    use ratatui::style::Color;
    let mut model = in_trouble();
    model.silent("gone");
    type_in(&mut model, " ");
    for mode in ["", "?", "xw1"] {
        if !mode.is_empty() {
            type_in(&mut model, mode);
        }
        let buffer = drawn(&model, false, 100, 30);
        let plain = |colour| colour == Color::Reset;
        let cells = buffer.content().iter();
        assert!(cells.clone().all(|cell| plain(cell.fg) && plain(cell.bg)));
        let coloured = drawn(&model, true, 100, 30);
        assert!(coloured.content().iter().any(|cell| !plain(cell.fg)));
    }
}

#[test]
fn many_servers_scroll_with_the_selection() {
    let servers: Vec<Value> = (100..600)
        .map(|n| server(&format!("s{n}"), &json!({})))
        .collect();
    let mut model = model(&servers);
    assert!(screen(&model, 80, 24).contains("s100"));
    press(&mut model, KeyCode::End);
    let screen = screen(&model, 80, 24);
    assert!(screen.contains("s599") && !screen.contains("s100"));
    assert!(line(&screen, "servers").contains("servers 500"));
}

#[test]
fn the_table_scrolls_no_more_than_it_must() {
    let servers: Vec<Value> = (100..150)
        .map(|n| server(&format!("s{n}"), &json!({})))
        .collect();
    let mut model = model(&servers);
    let (mut top, area) = (0, Rect::new(0, 0, 80, 24));
    let mut at = |model: &Model| {
        let mut buffer = Buffer::empty(area);
        let now = Instant::now();
        render(model, Theme::new(true), now, &mut top, area, &mut buffer);
        top
    };
    model.select(20);
    let scrolled = at(&model);
    assert!(scrolled > 0);
    model.select(-1);
    assert_eq!(at(&model), scrolled);
    model.select(isize::MIN);
    assert_eq!(at(&model), 0);
}

#[test]
fn the_members_are_a_key_away() {
    let mut model = three();
    press(&mut model, KeyCode::Tab);
    let screen = screen(&model, 100, 24);
    let s1 = line(&screen, "suspect");
    assert!(s1.contains("nodes at 10.0.0.1:3000, ready"), "{s1}");
    assert!(line(&screen, "balancer").contains("this one"));
}

#[test]
fn questions_and_help_stand_in_front() {
    let mut model = model(&[server("s1", &json!({}))]);
    type_in(&mut model, "m");
    let asked = screen(&model, 80, 24);
    assert!(asked.contains("maint s1? Nobody would be left"), "{asked}");
    type_in(&mut model, "n?");
    let help = screen(&model, 80, 24);
    for (key, what) in crate::top::input::KEYS {
        assert!(help.contains(what), "{key}: {what}");
    }
}

#[test]
fn answer_times_are_those_of_the_last_minute() {
    let now = Instant::now();
    let mut model = Model::default();
    let latency = |counts: [u64; 2]| Latency {
        count: counts[1],
        buckets: vec![
            crate::top::answer::Bucket {
                le_ms: 1.0,
                count: counts[0],
            },
            crate::top::answer::Bucket {
                le_ms: 2.0,
                count: counts[1],
            },
        ],
    };
    for (second, counts) in [(2, [50, 900]), (1, [150, 1000])] {
        let mut given = answers(&[server("s1", &json!({}))]);
        given.servers[0]
            .latency
            .insert("2xx".to_owned(), latency(counts));
        let at = now.checked_sub(std::time::Duration::from_secs(second));
        model.answered(given, at.unwrap());
    }
    let screen = screen(&model, 100, 24);
    let s1 = line(&screen, "s1");
    assert!(s1.contains("0.5ms") && s1.contains("1.0ms"), "{s1}");
}
