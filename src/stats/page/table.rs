//! A proxy's table: `HAProxy`'s thirty columns, in its order and its words,
//! between the last minutes in charts and where a server was learned.

use std::{collections::HashMap, sync::Arc};

use maud::{Markup, html};

use super::{
    age,
    cell::{Cell, Value},
    chart::{self, Scale},
    scene::{Moment, Row, Shape, Table},
    words,
};
use crate::{
    membership::Admin,
    pool::{Server, server::Origin},
    stats::{
        history::{Rows, Series},
        view::{Kind, Level, RowStatus, StatRow},
    },
};

/// Groups of columns, as the table's head shows them.
pub(super) const HEAD: [(&str, &[&str]); 11] = [
    ("Last 5 minutes", &["Requests", "p50 / p99", "Failed"]),
    ("Queue", &["Cur", "Max", "Limit"]),
    ("Session rate", &["Cur", "Max", "Limit"]),
    (
        "Sessions",
        &["Cur", "Max", "Limit", "Total", "LbTot", "Last"],
    ),
    ("Bytes", &["In", "Out"]),
    ("Denied", &["Req", "Resp"]),
    ("Errors", &["Req", "Conn", "Resp"]),
    ("Warnings", &["Retr", "Redis"]),
    (
        "Server",
        &[
            "Status", "LastChk", "Wght", "Act", "Bck", "Chk", "Dwn", "Dwntme", "Thrtle",
        ],
    ),
    ("Users", &["Sticky"]),
    ("Learned", &["From"]),
];

/// What all rows are printed with.
pub(super) struct Context<'a> {
    pub(super) moment: Moment,
    pub(super) history: &'a Rows,
    /// What the servers' charts are drawn against.
    pub(super) scale: Scale,
    /// Whether charts and details are taken anew; otherwise they are those of
    /// the scene before.
    pub(super) anew: bool,
    /// Whether there are buttons.
    pub(super) admin: bool,
}

/// The table of one proxy. `before` is the same table a moment ago.
pub(super) fn proxy<'a>(
    name: &str,
    rows: impl Iterator<Item = &'a StatRow>,
    context: &Context<'_>,
    before: Option<&Table>,
) -> Table {
    let before: HashMap<&str, &Row> = before
        .into_iter()
        .flat_map(|table| &table.rows)
        .map(|row| (row.key.as_str(), row.as_ref()))
        .collect();
    let line = |row: &StatRow| {
        let key = format!("{}/{}", row.proxy, row.name);
        let before = before.get(key.as_str()).copied();
        Arc::new(line(key, row, context, before))
    };
    Table {
        id: name.to_owned(),
        shape: Shape::Rows,
        rows: rows.map(line).collect(),
    }
}

/// A row's cells, the name first.
fn line(key: String, row: &StatRow, context: &Context<'_>, before: Option<&Row>) -> Row {
    let series = match row.kind {
        Kind::Frontend | Kind::Backend => Some(&context.history.all),
        Kind::Server => {
            let server = row.server.as_ref();
            server.and_then(|server| context.history.server(&server.name))
        }
    };
    let mut line = Line {
        row,
        context,
        before,
        cells: Vec::with_capacity(40),
    };
    line.name();
    line.charts(series);
    line.queue();
    line.session_rate();
    line.sessions();
    line.add(Value::Count(row.bytes_in));
    line.add(Value::Count(row.bytes_out));
    line.add(Value::count(row.denied_requests));
    // There are no rules that could deny a response.
    line.nothing(1);
    line.errors();
    line.server();
    line.users(series);
    line.learned();
    Row {
        key,
        class: class(row),
        cells: line.cells,
        server: row.server.clone(),
    }
}

struct Line<'a> {
    row: &'a StatRow,
    context: &'a Context<'a>,
    before: Option<&'a Row>,
    cells: Vec<Cell>,
}

impl Line<'_> {
    fn add(&mut self, value: Value) {
        self.cells.push(value.into());
    }

    fn nothing(&mut self, cells: usize) {
        for _ in 0..cells {
            self.add(Value::Nothing);
        }
    }

    /// The cell at this place a moment ago.
    fn same(&self) -> Option<&Cell> {
        self.before?.cells.get(self.cells.len())
    }

    /// A cell that follows from the server's description alone.
    fn described(&mut self, make: impl FnOnce(&StatRow) -> Cell) {
        let before = self.before.and_then(|row| row.server.as_ref());
        let known = self
            .row
            .server
            .as_ref()
            .zip(before)
            .is_some_and(|(now, before)| Arc::ptr_eq(now, before));
        let cell = match self.same().filter(|_| known) {
            Some(cell) => cell.clone(),
            None => make(self.row),
        };
        self.cells.push(cell);
    }

    /// A cell that is only made anew now and then.
    fn slow(&mut self, make: impl FnOnce() -> Cell) {
        let cell = match self.same().filter(|_| !self.context.anew) {
            Some(cell) => cell.clone(),
            None => make(),
        };
        self.cells.push(cell);
    }

    /// A cell whose details are only told anew now and then.
    fn tipped(&mut self, value: Value, tip: impl FnOnce(&StatRow) -> Option<String>) {
        let tip = match self.same().filter(|_| !self.context.anew) {
            Some(cell) => cell.tip.clone(),
            None => tip(self.row).map(Into::into),
        };
        self.cells.push(Cell { value, tip });
    }

    fn name(&mut self) {
        let admin = self.context.admin;
        self.described(|row| Cell {
            value: name(row, admin).into(),
            tip: row
                .server
                .as_deref()
                .map(|server| words::about(row, server).into()),
        });
    }

    fn charts(&mut self, series: Option<&Series>) {
        let Some(series) = series else {
            return self.nothing(3);
        };
        let scale = match self.row.kind {
            Kind::Server => self.context.scale,
            Kind::Frontend | Kind::Backend => Scale::own(series),
        };
        let summary = series.summary();
        self.slow(|| Cell {
            value: chart::requests(series, scale).into(),
            tip: Some(chart::requests_in_words(&summary).into()),
        });
        self.slow(|| Cell {
            value: chart::latency(series, &summary).into(),
            tip: Some("median and 99th percentile of the last minute".into()),
        });
        self.slow(|| Cell {
            value: chart::errors(series, &summary, scale).into(),
            tip: Some(
                "requests of the last 5 minutes that were answered 5xx, sent elsewhere or broken off"
                    .into(),
            ),
        });
    }

    fn queue(&mut self) {
        let queue = self.row.queue;
        self.add(Value::count(queue.map(|queue| queue.now)));
        self.add(Value::count(queue.map(|queue| queue.max)));
        self.add(Value::count(self.row.queue_limit));
    }

    fn session_rate(&mut self) {
        let row = self.row;
        let rates = |row: &StatRow, word, of: fn(Level) -> u32| {
            let requests = of(row.request_rate?);
            let connections = row
                .connections
                .map_or(0, |connections| of(connections.rate));
            Some(format!(
                "{word} connection rate: {connections}/s\n{word} session rate: {}/s\n\
                 {word} request rate: {requests}/s",
                of(row.session_rate)
            ))
        };
        self.tipped(Value::Count(row.session_rate.now.into()), |row| {
            rates(row, "Current", |rate| rate.now)
        });
        self.tipped(Value::Count(row.session_rate.max.into()), |row| {
            rates(row, "Max", |rate| rate.max)
        });
        self.nothing(1);
    }

    fn sessions(&mut self) {
        let row = self.row;
        self.tipped(Value::Count(row.sessions.now.into()), words::connections);
        self.add(Value::Count(row.sessions.max.into()));
        self.add(Value::count(row.sessions_limit));
        self.tipped(Value::Count(row.sessions_total), |row| {
            Some(words::details(row))
        });
        self.add(Value::count(row.balanced));
        let now = self.context.moment.unix();
        self.add(match (row.kind, row.last_request) {
            (Kind::Frontend, _) => Value::Nothing,
            (_, Some(seconds)) => {
                let ago = i64::try_from(seconds).unwrap_or(i64::MAX);
                Value::Since(now.saturating_sub(ago), "".into())
            }
            (_, None) => Value::text("?"),
        });
    }

    fn errors(&mut self) {
        let row = self.row;
        self.add(Value::count(row.request_errors));
        self.add(Value::count(row.connect_errors));
        self.tipped(Value::count(row.response_errors), |row| {
            let (client, server) = row.client_aborts.zip(row.server_aborts)?;
            Some(format!(
                "Connection resets during transfers: {client} client, {server} server"
            ))
        });
        self.add(Value::count(row.retries));
        self.add(Value::count(row.redispatches));
    }

    fn server(&mut self) {
        let row = self.row;
        let moment = self.context.moment;
        let status = words::status(row);
        self.add(match row.since {
            Some(since) => Value::Since(moment.ago(since), format!(" {status}").into()),
            None => Value::Html(status.into()),
        });
        self.described(words::last_check);
        let weights = row.effective_weight.zip(row.weight);
        self.add(weights.map_or(Value::Nothing, |(effective, weight)| {
            Value::text(&format!("{effective}/{weight}"))
        }));
        self.add(match (row.kind, row.active) {
            (Kind::Server, Some(_)) => Value::text("Y"),
            (_, active) => Value::count(active),
        });
        self.add(match row.kind {
            Kind::Frontend => Value::Nothing,
            Kind::Backend => Value::Count(0),
            Kind::Server => Value::text("-"),
        });
        self.tipped(words::checks(row), |row| {
            row.failed_checks.map(|_| "Failed Health Checks".into())
        });
        self.add(Value::count(row.downs));
        self.add(match row.downtime {
            None => Value::Nothing,
            Some(downtime) if row.status.is_down() => Value::Since(moment.ago(downtime), "".into()),
            Some(downtime) => Value::text(&age(downtime)),
        });
        self.add(match (row.kind, row.throttle) {
            (Kind::Server, Some(percent)) => Value::text(&format!("{percent} %")),
            (Kind::Server, None) => Value::text("-"),
            _ => Value::Nothing,
        });
    }

    /// How many of its requests came back by their cookie.
    fn users(&mut self, series: Option<&Series>) {
        let row = self.row;
        let (Some(series), Some(_)) = (series, &self.row.cookie) else {
            return self.nothing(1);
        };
        self.slow(|| {
            let summary = series.summary();
            let sticky = summary.requests.saturating_sub(summary.balanced);
            let Some(percent) = (sticky * 100).checked_div(summary.requests) else {
                return Value::text("–").into();
            };
            let mut tip = format!(
                "{sticky} of the last 5 minutes' {} requests came back by their cookie; \
                 {} were given a server, and a cookie for the next time",
                summary.requests, summary.balanced
            );
            if let Some(rebinds) = row.rebinds {
                let rebinds =
                    format!("\nCookies ever replaced since their server was down: {rebinds}");
                tip.push_str(&rebinds);
            }
            Cell {
                value: Value::text(&format!("{percent} %")),
                tip: Some(tip.into()),
            }
        });
    }

    fn learned(&mut self) {
        self.described(|row| {
            row.server
                .as_deref()
                .map_or(Value::Nothing, |server| learned(server).into())
                .into()
        });
    }
}

fn name(row: &StatRow, admin: bool) -> Markup {
    let anchor = format!("#{}/{}", row.proxy, row.name);
    let title = match row.kind {
        Kind::Frontend => "Frontend",
        Kind::Backend => "Backend",
        Kind::Server => &row.name,
    };
    let steered = row.server.as_deref().filter(|_| admin);
    // The status has its place far to the right, and the name is always seen.
    let notable = ![RowStatus::Up, RowStatus::NoCheck].contains(&row.status);
    html! {
        span.who {
            @if let Some(server) = steered {
                input type="checkbox" name="s" value=(server.name)
                    aria-label=(format!("choose {}", server.name));
            }
            a href=(anchor) { (title) }
            @if row.server.is_some() && notable { span.state { (row.status) } }
            @if let Some(server) = steered {
                span.steer role="group" aria-label=(format!("state of {}", server.name)) {
                    @for (word, state) in STATES {
                        button name=(word) value=(server.name)
                            aria-pressed=(server.state_wanted == state) { (word) }
                    }
                }
            }
        }
    }
}

/// What an operator can want, in `HAProxy`'s words.
const STATES: [(&str, Admin); 3] = [
    ("ready", Admin::Ready),
    ("drain", Admin::Drain),
    ("maint", Admin::Maint),
];

fn learned(server: &Server) -> Markup {
    html! {
        span.from {
            @match server.origin {
                Origin::Static => "static",
                Origin::Gossip(_) => "gossip",
            }
        }
        @if let Some(addr) = server.addr { " " span.addr { (addr) } }
        @for (key, value) in &server.tags {
            " " span.tag { (key) "=" (value) }
        }
    }
}

/// The row's colour, by `HAProxy`'s name for it.
fn class(row: &StatRow) -> &'static str {
    match (row.kind, row.status) {
        (Kind::Frontend, _) => "frontend",
        (Kind::Backend, _) => "backend",
        (Kind::Server, RowStatus::GoingDown(..) | RowStatus::Suspect) => "active_going_down",
        (Kind::Server, RowStatus::Down | RowStatus::DownByAgent) => "active_down",
        (Kind::Server, RowStatus::GoingUp(..)) => "active_going_up",
        (Kind::Server, RowStatus::Drain) => "active_draining",
        (Kind::Server, RowStatus::Maint) => "maintain",
        (Kind::Server, RowStatus::NoCheck) => "active_no_check",
        (Kind::Server, RowStatus::Up | RowStatus::Open | RowStatus::Stop) => "active_up",
    }
}
