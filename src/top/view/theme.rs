//! Colours: the terminal's own, so that its theme holds, and none at all
//! where that is asked for.

use ratatui::style::{Color, Modifier, Style};

use crate::top::answer::Status;

/// What the eye should find.
pub(super) const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

/// What is beside the point: the terminal's own colour but fainter, since its
/// grey may be that of its background.
pub(super) const QUIET: Style = Style::new().add_modifier(Modifier::DIM);

/// The row under the cursor.
pub(super) const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// How things look.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    colour: bool,
}

impl Theme {
    /// With colour or without.
    pub fn new(colour: bool) -> Self {
        Self { colour }
    }

    fn coloured(self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    /// Keys, and what was chosen.
    pub(super) fn accent(self) -> Style {
        self.coloured(Color::Cyan)
    }

    /// Rates over time.
    pub(super) fn chart(self) -> Style {
        self.coloured(Color::Cyan)
    }

    /// What went wrong.
    pub(super) fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// What went well.
    pub(super) fn good(self) -> Style {
        self.coloured(Color::Green)
    }

    /// A note that nobody may overlook: loud, or louder.
    pub(super) fn badge(self, is_grave: bool) -> Style {
        let style = STRONG;
        match (self.colour, is_grave) {
            (false, _) => style.add_modifier(Modifier::REVERSED),
            (true, true) => style.fg(Color::White).bg(Color::Red),
            (true, false) => style.fg(Color::Black).bg(Color::Yellow),
        }
    }

    /// A status, in the colours of `HAProxy`'s page.
    pub(super) fn status(self, status: Status) -> Style {
        match status {
            Status::Up => self.good(),
            Status::Suspect => self.coloured(Color::Yellow),
            Status::Drain => self.coloured(Color::LightBlue),
            Status::Down => self.bad(),
            // Brown, which is not among the sixteen.
            Status::Maint => self.coloured(Color::Indexed(172)),
            Status::Unknown => QUIET,
        }
    }

    /// What happened, in the colour of the status that it led to.
    pub(super) fn event(self, event: &str) -> Style {
        match event {
            "up" | "joined" => self.status(Status::Up),
            "suspect" => self.status(Status::Suspect),
            "drain" => self.status(Status::Drain),
            "down" | "quarantine" | "clash" | "refused" => self.status(Status::Down),
            "maint" => self.status(Status::Maint),
            _ => QUIET,
        }
    }

    /// A member's state.
    pub(super) fn member(self, state: &str) -> Style {
        match state {
            "alive" => self.status(Status::Up),
            "suspect" => self.status(Status::Suspect),
            "left" => QUIET,
            _ => self.status(Status::Down),
        }
    }
}
