//! What the load balancer is, how it is doing as a whole, and what nobody
//! should overlook.

use ratatui::{
    style::Style,
    text::{Line, Span},
};

use super::{
    Scene, cut,
    theme::{QUIET, STRONG},
    words::{bars, count, long_age, millis, wrapped},
};
use crate::top::{
    answer::{Balancer, Note, Status},
    model::Model,
};

/// The chart of all requests.
const CHART: usize = 20;

/// Lines that a note may take.
const NOTE: usize = 2;

impl Scene<'_> {
    pub(super) fn header(&self, width: u16) -> Vec<Line<'static>> {
        let mut lines = vec![self.title(width)];
        if let Some(balancer) = &self.model.balancer {
            lines.push(self.figures(balancer, width));
        }
        lines.extend(self.silence(width));
        if let Some(balancer) = &self.model.balancer {
            lines.extend(
                balancer
                    .notes
                    .iter()
                    .flat_map(|note| self.note(note, width)),
            );
        }
        lines
    }

    fn title(&self, width: u16) -> Line<'static> {
        let theme = self.theme;
        let Some(balancer) = &self.model.balancer else {
            return Line::styled(" Tidings", STRONG);
        };
        let cookie = balancer.cookie.as_ref();
        let cookie = cookie.map_or("no cookie".to_owned(), |name| format!("cookie {name}"));
        let left = [
            (" Tidings".to_owned(), STRONG),
            (format!(" {}", balancer.version), QUIET),
            (format!("  {}", balancer.node), theme.accent()),
            (
                format!("  up {}", long_age(balancer.uptime_seconds)),
                Style::new(),
            ),
        ];
        let about = format!("  {}, {}, {cookie}", balancer.service, balancer.balance);
        let right = self.pool(balancer);
        let mut line = Line::from_iter(left.map(|(text, style)| Span::styled(text, style)));
        let room = usize::from(width).saturating_sub(line.width() + right.width() + 2);
        line.push_span(Span::styled(cut(&about, room), QUIET));
        let gap = usize::from(width).saturating_sub(line.width() + right.width() + 1);
        line.push_span(Span::raw(" ".repeat(gap)));
        line.push_span(right);
        line
    }

    /// How many take requests, in a colour that says whether that is well.
    fn pool(&self, balancer: &Balancer) -> Span<'static> {
        let Model { servers, .. } = self.model;
        let up = servers.iter().filter(|server| server.status == Status::Up);
        let up = up.count();
        let style = match () {
            () if !balancer.serves => self.theme.bad(),
            () if up == servers.len() => self.theme.good(),
            () => self.theme.status(Status::Suspect),
        };
        Span::styled(format!("● {up} of {} up", servers.len()), style)
    }

    fn figures(&self, balancer: &Balancer, width: u16) -> Line<'static> {
        let theme = self.theme;
        let Model { all, .. } = self.model;
        let rates = all.rates(CHART, self.now);
        let most = rates.iter().flatten().max().copied().unwrap_or(0);
        let errors = all.errors_per_second();
        let minute = all.minute();
        let error_style = if errors > 0.0 {
            theme.bad()
        } else {
            Style::new()
        };
        let sessions = match balancer.connections {
            1 => " session",
            _ => " sessions",
        };
        let groups = [
            [
                (count(balancer.requests_per_second), STRONG),
                (" req/s ".to_owned(), QUIET),
                (bars(&rates, most), theme.chart()),
            ],
            [
                (count(balancer.connections), STRONG),
                (sessions.to_owned(), QUIET),
                (format!(", {} active", count(balancer.active)), QUIET),
            ],
            [
                (format!("{errors:.1}"), error_style),
                (" errors/s".to_owned(), QUIET),
                (String::new(), Style::new()),
            ],
            [
                ("p50 ".to_owned(), QUIET),
                (millis(minute.p50), Style::new()),
                (format!(" p99 {}", millis(minute.p99)), QUIET),
            ],
        ];
        let mut line = Line::raw(" ");
        for group in groups {
            let group = Line::from_iter(group.map(|(text, style)| Span::styled(text, style)));
            if line.width() + group.width() > usize::from(width) {
                break;
            }
            line.extend(group);
            line.push_span(Span::raw("   "));
        }
        line
    }

    /// That no answer came, since when, and why.
    fn silence(&self, width: u16) -> Vec<Line<'static>> {
        let Some(why) = &self.model.silence else {
            return match self.model.answered {
                Some(_) => Vec::new(),
                None => vec![Line::styled(" asking…", QUIET)],
            };
        };
        let badge = match self.model.answered {
            None => " NO ANSWER ".to_owned(),
            Some(at) => {
                let since = self.now.saturating_duration_since(at).as_secs();
                format!(" NO ANSWER SINCE {} ", long_age(since))
            }
        };
        self.loud(&badge, why, true, width)
    }

    fn note(&self, note: &Note, width: u16) -> Vec<Line<'static>> {
        let badge = format!(" {} ", note.kind.replace('_', " ").to_uppercase());
        let is_grave = ["empty_pool", "nobody_serves", "fail_open"].contains(&note.kind.as_str());
        self.loud(&badge, &note.text, is_grave, width)
    }

    fn loud(&self, badge: &str, text: &str, is_grave: bool, width: u16) -> Vec<Line<'static>> {
        let indent = badge.chars().count() + 2;
        let room = usize::from(width).saturating_sub(indent + 1);
        let mut text = wrapped(text, room);
        if text.len() > NOTE {
            let rest = text.split_off(NOTE - 1).join(" ");
            text.push(cut(&rest, room));
        }
        let line = |(index, text): (usize, String)| {
            let (lead, style) = match index {
                0 => (badge.to_owned(), self.theme.badge(is_grave)),
                _ => (" ".repeat(indent - 2), Style::new()),
            };
            let text = format!(" {}", cut(&text, room));
            Line::from_iter([Span::raw(" "), Span::styled(lead, style), Span::raw(text)])
        };
        text.into_iter().enumerate().map(line).collect()
    }
}
