//! What stands in front of everything: the help and questions.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
    widgets::{Block, BorderType, Clear, Widget},
};

use super::{
    Scene, lines,
    theme::{QUIET, SELECTED, STRONG},
    words::wrapped,
};
use crate::top::{input::KEYS, model::Mode, order::Order};

impl Scene<'_> {
    pub(super) fn overlay(&self, area: Rect, buffer: &mut Buffer) {
        match &self.model.mode {
            Mode::Look | Mode::Filter => {}
            Mode::Help => panel("keys", self.help(), self.theme.accent(), area, buffer),
            Mode::Weight(typed) => self.ask_weight(typed, area, buffer),
            Mode::Confirm(order) => self.confirm(order, area, buffer),
        }
    }

    fn help(&self) -> Vec<Line<'static>> {
        let line = |(key, what): &(&'static str, &'static str)| {
            Line::from_iter([
                Span::styled(format!(" {key:>8}  "), self.theme.accent()),
                Span::raw(format!("{what} ")),
            ])
        };
        KEYS.iter().map(line).collect()
    }

    fn ask_weight(&self, typed: &str, area: Rect, buffer: &mut Buffer) {
        let servers = self.model.targets();
        let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
        let mut text: Vec<Line<'static>> = wrapped(&format!("of {}", names.join(", ")), 50)
            .into_iter()
            .take(3)
            .map(|line| Line::raw(format!(" {line} ")))
            .collect();
        text.push(Line::from_iter([
            Span::raw(" "),
            Span::styled(typed.to_owned(), STRONG),
            Span::styled(" ", SELECTED),
        ]));
        let keys = " 0 to 256, or 50% of what it announces; Enter, Esc ";
        text.push(Line::styled(keys, QUIET));
        panel("weight", text, self.theme.accent(), area, buffer);
    }

    fn confirm(&self, order: &Order, area: Rect, buffer: &mut Buffer) {
        let question = format!(
            "{}? Nobody would be left to take new users.",
            order.in_words()
        );
        let mut text: Vec<Line<'static>> = wrapped(&question, 50)
            .into_iter()
            .map(|line| Line::raw(format!(" {line} ")))
            .collect();
        text.push(Line::from_iter([
            Span::styled(" y", self.theme.accent()),
            Span::raw(" does it, "),
            Span::styled("any other key", self.theme.accent()),
            Span::raw(" leaves it "),
        ]));
        panel("the last ones", text, self.theme.bad(), area, buffer);
    }
}

fn panel(title: &str, text: Vec<Line<'static>>, style: Style, area: Rect, buffer: &mut Buffer) {
    let width = text.iter().map(Line::width).max().unwrap_or(0) as u16 + 2;
    let (width, height) = (width.min(area.width), text.len() as u16 + 2);
    let height = height.min(area.height);
    let panel = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(panel, buffer);
    let title = Line::styled(format!(" {title} "), style);
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(QUIET)
        .title(title);
    let inside = block.inner(panel);
    block.render(panel, buffer);
    lines(text, inside, buffer);
}
