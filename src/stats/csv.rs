//! `HAProxy`'s CSV: the columns that its clients find by position or by name.

use std::fmt::Write as _;

use super::{
    columns::{COLUMNS, Cell},
    view::{Rows, StatRow},
};

/// Ends the columns that every build of `HAProxy` has.
const END_MARK: &str = "-,";

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
    for (name, ..) in COLUMNS {
        out.push_str(name);
        out.push(',');
    }
    out.push_str(END_MARK);
    out.push('\n');
    out
}

/// Appends the line of one row.
pub fn line(row: &StatRow, out: &mut String) {
    for (.., value) in COLUMNS {
        match value(row) {
            Cell::Text(text) => quote(&text, out),
            figure => write!(out, "{figure}").expect("a string takes any text"),
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
                (2, "0"),
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
