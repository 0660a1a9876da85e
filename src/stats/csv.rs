//! `HAProxy`'s CSV: the columns that its clients find by position or by name.

use std::{borrow::Cow, fmt::Write as _, time::Duration};

use super::view::{Kind, Rows, StatRow, Times};
use crate::pool::{rise_fall::Health, server::CheckReport};

/// `HAProxy` numbers its processes; there is one here.
const PROCESS: u32 = 1;

/// Every server is an active one.
const NO_BACKUPS: u32 = 0;

/// Ends the columns that every build of `HAProxy` has.
const END_MARK: &str = "-,";

/// A value of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell<'a> {
    /// It has no meaning for this row, or nobody measures it.
    Empty,
    /// A figure.
    Number(u64),
    /// A text, not yet quoted.
    Text(Cow<'a, str>),
}

/// A column: its name and how its value is read from a row.
pub type Column = (&'static str, for<'a> fn(&'a StatRow) -> Cell<'a>);

/// Every row, below the line of names.
pub fn render(rows: &Rows) -> String {
    let mut out = header();
    for row in rows.iter() {
        line(row, &mut out);
    }
    out
}

/// The line of names.
pub fn header() -> String {
    let mut out = String::from("# ");
    for (name, _) in COLUMNS {
        out.push_str(name);
        out.push(',');
    }
    out.push_str(END_MARK);
    out.push('\n');
    out
}

/// Appends the line of one row.
pub fn line(row: &StatRow, out: &mut String) {
    for (_, value) in COLUMNS {
        match value(row) {
            Cell::Empty => {}
            Cell::Number(number) => write!(out, "{number}").expect("a string takes any text"),
            Cell::Text(text) => quote(&text, out),
        }
        out.push(',');
    }
    out.push_str(END_MARK);
    out.push('\n');
}

/// Quotes only what would break the line, as `HAProxy` does.
fn quote(text: &str, out: &mut String) {
    if text.contains(['"', ',', '\n', '\r']) {
        out.push('"');
        out.push_str(&text.replace('"', "\"\""));
        out.push('"');
    } else {
        out.push_str(text);
    }
}

/// The columns in `HAProxy` 3.5's order. Columns were only ever appended, so
/// a client that counts them in an older version finds the same ones.
#[rustfmt::skip]
pub const COLUMNS: &[Column] = &[
    ("pxname", |row| text(&row.proxy)),
    ("svname", |row| text(&row.name)),
    ("qcur", not_counted),
    ("qmax", not_counted),
    ("scur", |row| count(row.sessions.now)),
    ("smax", |row| count(row.sessions.max)),
    ("slim", |row| number(row.sessions_limit)),
    ("stot", |row| count(row.sessions_total)),
    ("bin", |row| count(row.bytes_in)),
    ("bout", |row| count(row.bytes_out)),
    ("dreq", not_counted),
    ("dresp", not_counted),
    ("ereq", |row| number(row.request_errors)),
    ("econ", |row| number(row.connect_errors)),
    ("eresp", |row| number(row.response_errors)),
    ("wretr", |row| number(row.retries)),
    ("wredis", |row| number(row.redispatches)),
    ("status", |row| Cell::Text(row.status_text().into())),
    ("weight", |row| number(row.effective_weight)),
    ("act", |row| number(row.active)),
    ("bck", |row| number(row.active.map(|_| NO_BACKUPS))),
    ("chkfail", |row| number(row.failed_checks)),
    ("chkdown", |row| number(row.downs)),
    ("lastchg", |row| number(row.since.map(|since| since.as_secs()))),
    ("downtime", |row| number(row.downtime.map(|downtime| downtime.as_secs()))),
    ("qlimit", not_counted),
    ("pid", |_| count(PROCESS)),
    ("iid", |row| count(row.proxy_id)),
    ("sid", |row| count(row.server_id)),
    ("throttle", |row| number(row.throttle)),
    ("lbtot", |row| number(row.balanced)),
    ("tracked", not_counted),
    ("type", |row| count(row.kind as u32)),
    ("rate", |row| count(row.session_rate.now)),
    ("rate_lim", not_counted),
    ("rate_max", |row| count(row.session_rate.max)),
    ("check_status", |row| check(row, |report| text(report.code.as_str()))),
    ("check_code", |row| check(row, |report| number(report.http_status))),
    ("check_duration", |row| check(row, |report| millis(report.took))),
    ("hrsp_1xx", |row| responses(row, 0)),
    ("hrsp_2xx", |row| responses(row, 1)),
    ("hrsp_3xx", |row| responses(row, 2)),
    ("hrsp_4xx", |row| responses(row, 3)),
    ("hrsp_5xx", |row| responses(row, 4)),
    ("hrsp_other", |row| responses(row, 5)),
    ("hanafail", not_counted),
    ("req_rate", |row| number(row.request_rate.map(|rate| rate.now))),
    ("req_rate_max", |row| number(row.request_rate.map(|rate| rate.max))),
    ("req_tot", |row| count(row.requests)),
    ("cli_abrt", |row| number(row.client_aborts)),
    ("srv_abrt", |row| number(row.server_aborts)),
    ("comp_in", not_counted),
    ("comp_out", not_counted),
    ("comp_byp", not_counted),
    ("comp_rsp", not_counted),
    ("lastsess", |row| last_session(row)),
    ("last_chk", |row| row.reason.as_deref().map_or(Cell::Empty, text)),
    ("last_agt", not_counted),
    ("qtime", not_counted),
    ("ctime", |row| average(row.connect_time)),
    ("rtime", |row| average(row.response_time)),
    ("ttime", |row| average(row.total_time)),
    ("agent_status", not_counted),
    ("agent_code", not_counted),
    ("agent_duration", not_counted),
    ("check_desc", |row| check(row, |report| text(report.code.description()))),
    ("agent_desc", not_counted),
    ("check_rise", |row| health(row, |health| health.thresholds().rise.get())),
    ("check_fall", |row| health(row, |health| health.thresholds().fall.get())),
    ("check_health", |row| health(row, Health::count)),
    ("agent_rise", not_counted),
    ("agent_fall", not_counted),
    ("agent_health", not_counted),
    ("addr", |row| addr(row)),
    ("cookie", |row| row.cookie.as_deref().map_or(Cell::Empty, text)),
    ("mode", |_| text("http")),
    ("algo", |row| row.algorithm.map_or(Cell::Empty, text)),
    ("conn_rate", |row| number(row.connections.map(|c| c.rate.now))),
    ("conn_rate_max", |row| number(row.connections.map(|c| c.rate.max))),
    ("conn_tot", |row| number(row.connections.map(|c| c.total))),
    ("intercepted", not_counted),
    ("dcon", not_counted),
    ("dses", not_counted),
    ("wrew", not_counted),
    ("connect", |row| number(row.connects)),
    ("reuse", |row| number(row.reuses)),
    ("cache_lookups", not_counted),
    ("cache_hits", not_counted),
    ("srv_icur", |row| number(row.idle_connections)),
    ("src_ilim", not_counted),
    ("qtime_max", not_counted),
    ("ctime_max", |row| longest(row.connect_time)),
    ("rtime_max", |row| longest(row.response_time)),
    ("ttime_max", |row| longest(row.total_time)),
    ("eint", not_counted),
    ("idle_conn_cur", not_counted),
    ("safe_conn_cur", not_counted),
    ("used_conn_cur", not_counted),
    ("need_conn_est", not_counted),
    ("uweight", |row| number(row.weight)),
    ("agg_server_status", not_counted),
    ("agg_server_check_status", not_counted),
    ("agg_check_status", not_counted),
    ("srid", not_counted),
    ("sess_other", not_counted),
    ("h1sess", |row| number(row.connections.map(|c| c.total))),
    ("h2sess", not_counted),
    ("h3sess", not_counted),
    ("req_other", not_counted),
    ("h1req", |row| number(row.connections.map(|_| row.requests))),
    ("h2req", not_counted),
    ("h3req", not_counted),
    ("proto", not_counted),
    ("priv_idle_cur", not_counted),
    ("reqbin", not_counted),
    ("reqbout", not_counted),
    ("resbin", not_counted),
    ("resbout", not_counted),
    ("cache_hint_hits", not_counted),
];

fn not_counted(_: &StatRow) -> Cell<'_> {
    Cell::Empty
}

fn text(text: &str) -> Cell<'_> {
    Cell::Text(text.into())
}

fn count(figure: impl Into<u64>) -> Cell<'static> {
    Cell::Number(figure.into())
}

fn number(figure: Option<impl Into<u64>>) -> Cell<'static> {
    figure.map_or(Cell::Empty, count)
}

fn millis(time: Duration) -> Cell<'static> {
    count(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn average(times: Option<Times>) -> Cell<'static> {
    times.map_or(Cell::Empty, |times| millis(times.average))
}

fn longest(times: Option<Times>) -> Cell<'static> {
    times.map_or(Cell::Empty, |times| millis(times.max))
}

fn responses(row: &StatRow, class: usize) -> Cell<'static> {
    number(row.responses.get(class).copied())
}

fn check(row: &StatRow, read: fn(&CheckReport) -> Cell<'static>) -> Cell<'_> {
    row.last_check().map_or(Cell::Empty, read)
}

fn health(row: &StatRow, read: fn(&Health) -> u16) -> Cell<'_> {
    let health = row.server.as_ref().and_then(|server| server.health);
    number(health.as_ref().map(read))
}

fn addr(row: &StatRow) -> Cell<'_> {
    let addr = row.server.as_ref().and_then(|server| server.addr);
    addr.map_or(Cell::Empty, |addr| Cell::Text(addr.to_string().into()))
}

/// `HAProxy` says -1 for a server that has not had a session yet.
fn last_session(row: &StatRow) -> Cell<'_> {
    match (row.kind, row.last_request) {
        (Kind::Frontend, _) => Cell::Empty,
        (_, Some(seconds)) => count(seconds),
        (_, None) => text("-1"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::stats::{Source, fixture, rows, view::RowStatus};

    const HAPROXY: &str = "# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,rate_lim,rate_max,check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,req_rate,req_rate_max,req_tot,cli_abrt,srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime,ctime,rtime,ttime,agent_status,agent_code,agent_duration,check_desc,agent_desc,check_rise,check_fall,check_health,agent_rise,agent_fall,agent_health,addr,cookie,mode,algo,conn_rate,conn_rate_max,conn_tot,intercepted,dcon,dses,wrew,connect,reuse,cache_lookups,cache_hits,srv_icur,src_ilim,qtime_max,ctime_max,rtime_max,ttime_max,eint,idle_conn_cur,safe_conn_cur,used_conn_cur,need_conn_est,uweight,agg_server_status,agg_server_check_status,agg_check_status,srid,sess_other,h1sess,h2sess,h3sess,req_other,h1req,h2req,h3req,proto,priv_idle_cur,reqbin,reqbout,resbin,resbout,cache_hint_hits,-,";

    /// The values of the row of that name.
    fn row(source: &Source, name: &str) -> Vec<String> {
        let csv = render(&rows(source, Instant::now()));
        let found = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let mut found = found.filter(|cells| cells[1] == name);
        let cells = found.next().expect("a row of that name");
        assert!(found.next().is_none(), "one row of that name");
        cells.into_iter().map(Into::into).collect()
    }

    #[track_caller]
    fn check(name: &str, expected: &[(usize, &str)]) {
        check_in(&fixture::source(), name, expected);
    }

    #[track_caller]
    fn check_in(source: &Source, name: &str, expected: &[(usize, &str)]) {
        let row = row(source, name);
        for (position, value) in expected {
            assert_eq!(row[*position], *value, "column {position} of {name}");
        }
    }

    #[test]
    fn the_line_of_names_is_that_of_haproxy() {
        assert_eq!(header(), format!("{HAPROXY}\n"));
    }

    #[test]
    fn every_line_has_as_many_commas_as_the_line_of_names() {
        let csv = render(&rows(&fixture::source(), Instant::now()));
        let commas = |line: &str| line.matches(',').count();
        assert_eq!(csv.lines().count(), 1 + 1 + 7 + 1);
        for line in csv.lines() {
            assert_eq!(commas(line), commas(HAPROXY), "{line}");
            assert!(line.ends_with(",-,"), "{line}");
        }
    }

    #[test]
    fn the_frontend_counts_connections_as_sessions() {
        check(
            "FRONTEND",
            &[
                (0, "localnodes"),
                (4, "1"),
                (6, ""),
                (7, "10"),
                (17, "OPEN"),
                (18, ""),
                (26, "1"),
                (27, "3"),
                (28, "0"),
                (32, "0"),
                (48, "1234567"),
                (55, ""),
                (75, "http"),
                (79, "10"),
            ],
        );
    }

    #[test]
    fn a_server_has_its_figures_where_haproxy_has_them() {
        check(
            "s1",
            &[
                (0, "nodes"),
                (2, ""),
                (7, "1234567"),
                (8, "2408"),
                (17, "UP"),
                (18, "1"),
                (19, "1"),
                (20, "0"),
                (27, "4"),
                (30, "12"),
                (32, "2"),
                (40, "1"),
                (43, "1"),
                (59, "3"),
                (60, ""),
                (73, "10.0.0.49:3000"),
                (74, "s1"),
                (75, "http"),
                (76, ""),
                (91, "3"),
                (99, "1"),
            ],
        );
    }

    #[test]
    fn the_backend_sums_up_what_can_take_traffic() {
        check(
            "BACKEND",
            &[
                (17, "UP"),
                // s1, s2, t1 and t2.
                (18, "4"),
                (19, "4"),
                (30, "1234000"),
                (32, "1"),
                (55, "0"),
                (76, "roundrobin"),
            ],
        );
    }

    #[test]
    fn a_status_is_in_the_words_of_haproxy_and_carries_its_reason() {
        check("s2", &[(17, "UP"), (56, "gossip suspects it")]);
        check("s3", &[(17, "DRAIN"), (18, "1"), (56, "")]);
        check("s4", &[(17, "DOWN (agent)")]);
        check("s5", &[(17, "DOWN"), (56, "no answer to gossip")]);
        check(
            "t1",
            &[(17, "UP 1/3"), (21, "0"), (67, "2"), (68, "3"), (69, "2")],
        );
        check("t2", &[(17, "no check"), (21, ""), (36, ""), (67, "")]);
    }

    #[test]
    fn what_would_break_a_line_is_quoted_and_nothing_else() {
        let quoted = |text| {
            let mut out = String::new();
            quote(text, &mut out);
            out
        };
        assert_eq!(quoted("Layer4 check passed"), "Layer4 check passed");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"hi\""), "\"say \"\"hi\"\"\"");
        assert_eq!(quoted("a\nb"), "\"a\nb\"");
    }

    #[test]
    fn hiding_what_is_down_leaves_the_rest_and_says_how_many() {
        let mut rows = rows(&fixture::source(), Instant::now());
        rows.hide(RowStatus::is_out);
        let csv = render(&rows);
        assert!(!csv.contains("DOWN"));
        assert!(csv.contains(",UP (5/7),"));
    }

    #[test]
    fn hiding_maintenance_alone_counts_what_is_up_of_all() {
        let mut rows = rows(&fixture::tended(), Instant::now());
        rows.hide(|status| status == RowStatus::Maint);
        let csv = render(&rows);
        assert!(!csv.contains("MAINT"));
        assert!(csv.contains("nodes,q1,"));
        assert!(csv.contains(",UP (2/4),"));
    }

    #[test]
    fn maintenance_quarantine_and_easing_in_are_told_apart() {
        let source = fixture::tended();
        check_in(&source, "m1", &[(17, "MAINT"), (29, ""), (56, "")]);
        let kept_out = "it has crashed too often and is kept out for a while";
        check_in(&source, "q1", &[(17, "DOWN"), (29, ""), (56, kept_out)]);
        // The weight that counts, the percentage, and the weight as wanted.
        check_in(
            &source,
            "e1",
            &[(17, "UP"), (18, "2"), (29, "25"), (99, "8")],
        );
        check_in(&source, "s1", &[(18, "8"), (29, ""), (99, "8")]);
        check_in(&source, "BACKEND", &[(18, "10"), (29, ""), (99, "16")]);
    }
}
