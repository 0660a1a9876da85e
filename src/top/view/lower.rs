//! The lower pane: what happened, or the members of the cluster.

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
};

use super::{
    Scene, cut, lines, rule, spans,
    theme::{QUIET, STRONG},
    words::age,
};
use crate::top::{
    answer::{Event, Member},
    model::Tab,
};

impl Scene<'_> {
    pub(super) fn lower(&self, area: Rect, buffer: &mut Buffer) {
        if area.height < 2 {
            return;
        }
        let [top_rule, body] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
        rule(&self.tabs(), &self.note_on_tab(), top_rule, buffer);
        let width = usize::from(area.width);
        let room = usize::from(body.height);
        let list = match self.model.tab {
            Tab::Events => self.events(width, room),
            Tab::Members => self.members(width, room),
        };
        lines(list, body, buffer);
    }

    fn tabs(&self) -> Line<'static> {
        let tab = |name: &str, tab| {
            let style = if self.model.tab == tab { STRONG } else { QUIET };
            (format!(" {name}"), style)
        };
        spans([
            tab("events", Tab::Events),
            (" │".to_owned(), QUIET),
            tab("members", Tab::Members),
            (format!(" {} ", self.model.members.len()), QUIET),
        ])
    }

    fn note_on_tab(&self) -> Line<'static> {
        let note = match self.model.tab {
            Tab::Events => " latest first, UTC ",
            Tab::Members => "",
        };
        Line::styled(note, QUIET)
    }

    fn events(&self, width: usize, room: usize) -> Vec<Line<'static>> {
        let events = self.model.events.iter().rev();
        let shown = events.skip(self.model.scrolled).take(room);
        let lines: Vec<_> = shown.map(|event| self.event(event, width)).collect();
        if !self.model.events.is_empty() || self.model.balancer.is_none() {
            return lines;
        }
        let nothing = "  nothing has happened to any server since the start";
        vec![Line::styled(nothing, QUIET)]
    }

    fn event(&self, event: &Event, width: usize) -> Line<'static> {
        let found = match (&event.sign, event.detection_ms) {
            (Some(sign), Some(took)) => format!("  by {sign} in {took:.1} ms"),
            _ => String::new(),
        };
        let room = width.saturating_sub(found.len() + 13);
        // The day counts less than the moment.
        let time = event.time.split_once('T').map_or("", |(_, time)| time);
        let time: String = time.chars().take(8).collect();
        spans([
            (format!("  {time}  "), QUIET),
            (cut(&event.text, room), self.theme.event(&event.event)),
            (found, QUIET),
        ])
    }

    fn members(&self, width: usize, room: usize) -> Vec<Line<'static>> {
        let members = self.model.members.iter();
        let shown = members.skip(self.model.scrolled).take(room);
        shown.map(|member| self.member(member, width)).collect()
    }

    fn member(&self, member: &Member, width: usize) -> Line<'static> {
        let theme = self.theme;
        let name = member.name.as_deref().unwrap_or("-");
        let role = member.role.as_deref().unwrap_or("-");
        let mut about = member.address.clone();
        if member.local {
            about.push_str("  this one");
        }
        if let Some(server) = &member.server {
            let at = format!(
                "  {} at {}, {}",
                server.service, server.address, server.phase
            );
            about.push_str(&at);
        }
        let line = spans([
            (format!("  {:<16} ", cut(name, 16)), STRONG),
            (format!("{:<9} ", cut(role, 9)), Style::new()),
            (
                format!("{:<8} ", cut(&member.state, 8)),
                theme.member(&member.state),
            ),
            (format!("{:>4}  ", age(member.since_seconds)), QUIET),
        ]);
        let room = width.saturating_sub(line.width());
        let about = Span::styled(cut(&about, room), QUIET);
        line.spans.into_iter().chain([about]).collect()
    }
}
