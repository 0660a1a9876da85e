//! The table of servers, and what there is to say of the selected one.

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style},
    text::{Line, Span},
    widgets::Widget,
};

use super::{
    Scene, cut, rule, spans,
    theme::{QUIET, SELECTED, STRONG},
    words::{age, bars, count, millis},
};
use crate::top::{answer::Server, model::Row, sort::Column};

/// Columns of the table, in characters.
struct Widths {
    name: usize,
    chart: usize,
    has_p50: bool,
    reason: usize,
}

/// Everything but the name, the chart, the median and the reason, with the
/// blanks between.
const FIXED: usize = 52;

/// The median with its blank.
const P50: usize = 7;

impl Widths {
    /// Names get what the longest needs, within reason; the chart and the
    /// reason share the rest.
    fn of(rows: &[Row<'_>], width: usize) -> Self {
        let longest = rows.iter().map(|row| Span::raw(&row.server.name).width());
        let longest = longest.max().unwrap_or(0);
        let has_p50 = width >= 96;
        let rest = width.saturating_sub(FIXED + if has_p50 { P50 } else { 0 });
        let name = longest.clamp(6, (rest / 2).clamp(6, 24));
        let rest = rest.saturating_sub(name);
        let chart = (rest / 2).clamp(4, 30);
        Self {
            name,
            chart,
            has_p50,
            reason: rest.saturating_sub(chart),
        }
    }
}

impl Scene<'_> {
    pub(super) fn table(&self, top: &mut usize, area: Rect, buffer: &mut Buffer) {
        let [top_rule, head, body, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Min(1),
            Constraint::Length(1),
        ])
        .areas(area);
        let rows = self.model.rows();
        let widths = Widths::of(&rows, area.width.into());
        rule(
            &self.table_title(rows.len()),
            &self.sorting(),
            top_rule,
            buffer,
        );
        self.headings(&widths).render(head, buffer);
        let selected = self.model.selected().unwrap_or(0);
        let height = usize::from(body.height);
        *top = (*top).clamp((selected + 1).saturating_sub(height), selected);
        *top = (*top).min(rows.len().saturating_sub(height));
        let most = self.most(&rows, widths.chart);
        for ((index, row), line) in rows.iter().enumerate().skip(*top).zip(body.rows()) {
            self.row(row, &widths, most).render(line, buffer);
            if index == selected {
                // One colour for all of it, so that it stands out calmly.
                buffer.set_style(line, SELECTED.fg(Color::Reset));
            }
        }
        match rows.get(selected) {
            Some(row) => detail(row.server, area.width).render(foot, buffer),
            None => self.nobody().render(body, buffer),
        }
    }

    fn table_title(&self, shown: usize) -> Line<'static> {
        let theme = self.theme;
        let all = self.model.servers.len();
        let shown = if shown == all {
            format!(" {all} ")
        } else {
            format!(" {shown} of {all} ")
        };
        let mut title = spans([(" servers".to_owned(), STRONG), (shown, QUIET)]);
        if !self.model.filter.is_empty() {
            let filter = format!("filter: {} ", self.model.filter);
            title.push_span(Span::styled(filter, theme.accent()));
        }
        if !self.model.marked.is_empty() {
            let marked = format!("{} marked ", self.model.marked.len());
            title.push_span(Span::styled(marked, theme.accent()));
        }
        title
    }

    fn sorting(&self) -> Line<'static> {
        let sort = self.model.sort;
        let arrow = if sort.is_descending() { '▼' } else { '▲' };
        let text = format!(" by {} {arrow} ", heading(sort.by).trim().to_lowercase());
        Line::styled(text, QUIET)
    }

    fn headings(&self, widths: &Widths) -> Line<'static> {
        let text = |column, width: usize, is_right: bool| {
            let text = heading(column);
            let text = if is_right {
                format!("{text:>width$} ")
            } else {
                format!("{text:<width$} ")
            };
            let is_sorted = self.model.sort.by == column;
            let style = if is_sorted { STRONG } else { QUIET };
            Span::styled(text, style)
        };
        let mut line = Line::raw("  ");
        line.push_span(text(Column::Name, widths.name, false));
        line.push_span(text(Column::Status, 7, false));
        line.push_span(text(Column::Weight, 6, true));
        line.push_span(text(Column::Active, 6, true));
        line.push_span(text(Column::Rate, 5, true));
        let chart = format!("{:<1$} ", "1 min", widths.chart);
        line.push_span(Span::styled(cut(&chart, widths.chart + 1), QUIET));
        if widths.has_p50 {
            line.push_span(text(Column::P50, P50 - 1, true));
        }
        line.push_span(text(Column::P99, 6, true));
        line.push_span(text(Column::Errors, 5, true));
        line.push_span(text(Column::Since, 5, true));
        let reason = cut("REASON", widths.reason);
        line.push_span(Span::styled(reason, QUIET));
        line
    }

    fn row(&self, row: &Row<'_>, widths: &Widths, most: u64) -> Line<'static> {
        let theme = self.theme;
        let Row { server, minute, .. } = row;
        let status = theme.status(server.status);
        let plain = Style::new();
        let mark = if self.model.marked.contains(&server.name) {
            "▸ "
        } else {
            "  "
        };
        let rates = row
            .history
            .map(|history| history.rates(widths.chart, self.now));
        let chart = bars(&rates.unwrap_or_default(), most);
        let errors = minute.errors.unwrap_or(0);
        let error_style = if errors > 0 { theme.bad() } else { QUIET };
        let since = server.since_seconds.map_or("-".to_owned(), age);
        let busy = if server.active > 0 { plain } else { QUIET };
        let mut line = spans([
            (mark.to_owned(), theme.accent()),
            (fit(&server.name, widths.name), STRONG),
            (fit(server.status.as_str(), 7), status),
            (format!("{:>6} ", server.weight), plain),
            (format!("{:>6} ", count(server.active)), busy),
            (format!("{:>5} ", count(server.requests_per_second)), plain),
            (fit(&chart, widths.chart), theme.chart()),
        ]);
        if widths.has_p50 {
            let p50 = format!("{:>6} ", millis(minute.p50));
            line.push_span(Span::styled(p50, plain));
        }
        line.extend(spans([
            (format!("{:>6} ", millis(minute.p99)), plain),
            (format!("{:>5} ", count(errors)), error_style),
            (format!("{since:>5} "), QUIET),
            (cut(&reason(server), widths.reason), status),
        ]));
        line
    }

    /// The highest bar of the rows: one scale for all, so that they compare.
    fn most(&self, rows: &[Row<'_>], width: usize) -> u64 {
        let rates = rows.iter().filter_map(|row| row.history);
        let rates = rates.flat_map(|history| history.rates(width, self.now));
        rates.flatten().max().unwrap_or(0)
    }

    fn nobody(&self) -> Line<'static> {
        let text = match (&self.model.balancer, self.model.filter.is_empty()) {
            (None, _) => "",
            (Some(_), true) => "  no servers yet: start one with tidings agent",
            (Some(_), false) => "  no server has that in it; Esc shows all",
        };
        Line::styled(text, QUIET)
    }
}

fn heading(column: Column) -> &'static str {
    match column {
        Column::Name => "NAME",
        Column::Status => "STATUS",
        Column::Weight => "WEIGHT",
        Column::Active => "ACTIVE",
        Column::Rate => "REQ/S",
        Column::P50 => "P50",
        Column::P99 => "P99",
        Column::Errors => "ERR/M",
        Column::Since => "SINCE",
    }
}

/// What has no column.
fn detail(server: &Server, width: u16) -> Line<'static> {
    let mut parts = vec![
        server.address.clone().unwrap_or("no address".to_owned()),
        server.origin.clone(),
    ];
    let reason = reason(server);
    if !reason.is_empty() {
        parts.insert(0, reason);
    }
    if let Some(check) = &server.last_check {
        parts.push(format!("{} in {}", check.code, millis(Some(check.took_ms))));
    }
    let tags = server
        .tags
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    parts.extend(tags);
    let text = format!("{}: {}", server.name, parts.join(" · "));
    let text = cut(&text, usize::from(width).saturating_sub(3));
    Line::styled(format!("  {text}"), QUIET)
}

/// Why it is not simply up.
fn reason(server: &Server) -> String {
    let reason = server.reason.clone();
    let eased_in = || Some(format!("eased in, at {} %", server.throttle_percent?));
    reason.or_else(eased_in).unwrap_or_default()
}

/// A text and a blank in a column of that width.
fn fit(text: &str, width: usize) -> String {
    let text = cut(text, width);
    let gap = width.saturating_sub(Span::raw(&text).width()) + 1;
    format!("{text}{}", " ".repeat(gap))
}
