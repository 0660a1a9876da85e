//! Draws the model. Pure: the same model at the same time is the same screen.

mod header;
mod lower;
mod overlay;
mod table;
#[cfg(test)]
mod tests;
mod theme;
mod words;

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
    widgets::Widget,
};
use tokio::time::Instant;

pub use self::theme::Theme;
use self::{
    theme::{QUIET, SELECTED},
    words::wrapped,
};
use super::model::{Message, Mode, Model};

/// Too small to be of use.
const SMALLEST: (u16, u16) = (40, 8);

/// Lines that a message may take.
const MESSAGE: u16 = 3;

/// From this height on there is room for events below the servers.
const WITH_LOWER: u16 = 16;

/// What a screen is drawn from and with.
struct Scene<'a> {
    model: &'a Model,
    theme: Theme,
    now: Instant,
}

/// Draws everything. `top` is the first row of the table that is shown, which
/// moves no more than it must.
pub fn render(
    model: &Model,
    theme: Theme,
    now: Instant,
    top: &mut usize,
    area: Rect,
    buffer: &mut Buffer,
) {
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let (width, height) = SMALLEST;
        Line::raw(format!("at least {width}x{height}, please")).render(area, buffer);
        return;
    }
    let scene = Scene { model, theme, now };
    let head = scene.header(area.width);
    let head_height = (head.len() as u16).min(area.height / 2);
    let lower = if area.height < WITH_LOWER {
        0
    } else {
        (area.height / 3).max(6)
    };
    let foot = scene.foot(area.width);
    let [head_area, table, lower_area, foot_area] = Layout::vertical([
        Constraint::Length(head_height),
        Constraint::Min(3),
        Constraint::Length(lower),
        Constraint::Length(foot.len() as u16),
    ])
    .areas(area);
    lines(head, head_area, buffer);
    scene.table(top, table, buffer);
    scene.lower(lower_area, buffer);
    lines(foot, foot_area, buffer);
    scene.overlay(area, buffer);
}

fn lines(lines: Vec<Line<'_>>, area: Rect, buffer: &mut Buffer) {
    for (line, row) in lines.into_iter().zip(area.rows()) {
        line.render(row, buffer);
    }
}

impl Scene<'_> {
    /// What was said last, or what can be done.
    fn foot(&self, width: u16) -> Vec<Line<'static>> {
        let theme = self.theme;
        let said = |text: &str, style| {
            let text = wrapped(text, usize::from(width).saturating_sub(2)).into_iter();
            let lines = text.take(MESSAGE.into());
            lines
                .map(|line| Line::styled(format!(" {line}"), style))
                .collect()
        };
        match (&self.model.mode, self.model.message(self.now)) {
            (Mode::Filter, _) => vec![Line::from_iter([
                Span::styled(" filter: ", theme.accent()),
                Span::raw(self.model.filter.clone()),
                Span::styled(" ", SELECTED),
                Span::styled("   Enter keeps it, Esc shows all", QUIET),
            ])],
            (_, Some(Message::Done(text))) => said(text, theme.good()),
            (_, Some(Message::Failed(text))) => said(text, theme.bad()),
            _ => vec![self.hints(width)],
        }
    }

    /// The keys that there is room for; the first are the last to go.
    fn hints(&self, width: u16) -> Line<'static> {
        const HINTS: [(&str, &str); 11] = [
            ("?", "help"),
            ("q", "quit"),
            ("d", "drain"),
            ("m", "maint"),
            ("r", "ready"),
            ("u", "undo"),
            ("+-", "weight"),
            ("space", "mark"),
            ("/", "filter"),
            ("<>", "sort"),
            ("Tab", "members"),
        ];
        let mut line = Line::raw(" ");
        for (key, what) in HINTS {
            let needed = line.width() + key.len() + what.len() + 3;
            if needed > usize::from(width) {
                break;
            }
            line.push_span(Span::styled(key, self.theme.accent()));
            line.push_span(Span::styled(format!(" {what}  "), QUIET));
        }
        line
    }
}

/// A rule with a title on the left and another on the right.
fn rule(left: &Line<'_>, right: &Line<'_>, area: Rect, buffer: &mut Buffer) {
    let quiet = QUIET;
    let rule = "─".repeat(area.width.into());
    buffer.set_string(area.x, area.y, rule, quiet);
    let x = area.x + 1;
    let (end, _) = buffer.set_line(x, area.y, left, area.width.saturating_sub(2));
    let width = right.width() as u16;
    let start = area.right().saturating_sub(width + 1);
    if start > end {
        buffer.set_line(start, area.y, right, width);
    }
}

/// A text that ends with `…` where it is cut to `width` columns.
fn cut(text: &str, width: usize) -> String {
    if Span::raw(text).width() <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    for c in text.chars() {
        if Span::raw(format!("{cut}{c}…")).width() > width {
            break;
        }
        cut.push(c);
    }
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// Spans side by side in a line.
fn spans<const N: usize>(spans: [(String, Style); N]) -> Line<'static> {
    let spans = spans.into_iter();
    spans
        .map(|(text, style)| Span::styled(text, style))
        .collect()
}
