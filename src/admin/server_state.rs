//! `show servers state`: a line of 25 fields for each server, by position.

use crate::{
    pool::{
        Server, Status,
        server::{CheckCode, CheckReport},
    },
    stats::{Rows, StatRow},
};

/// The format's version, and the names of the fields.
const HEADER: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state \
    srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result \
    srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn \
    srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n";

/// Agent state, two ids that are not forced, no host name.
const NO_AGENT: &str = "0 0 0 -";

/// No SRV record and no TLS.
const NEITHER_SRV_NOR_TLS: &str = "- 0";

/// The agent's address and port.
const NO_AGENT_ADDRESS: &str = "- 0";

/// Every server.
pub(super) fn render(rows: &Rows) -> String {
    let mut out = String::from(HEADER);
    for row in &rows.servers {
        if let Some(server) = &row.server {
            out.push_str(&line(row, server));
            out.push('\n');
        }
    }
    out
}

fn line(row: &StatRow, server: &Server) -> String {
    let addr = server
        .addr
        .map_or("-".to_owned(), |addr| addr.ip().to_string());
    let port = server.addr.map_or(0, |addr| addr.port());
    let (op, admin) = states(server);
    let since = row.since.map_or(0, |since| since.as_secs());
    let StatRow {
        proxy_id, proxy, ..
    } = row;
    let Server {
        sid,
        name,
        weight,
        initial_weight,
        ..
    } = server;
    let check = check(server);
    let check_port = server.check_at.port.unwrap_or(0);
    let check_addr = server
        .check_at
        .ip
        .map_or("-".to_owned(), |ip| ip.to_string());
    format!(
        "{proxy_id} {proxy} {sid} {name} {addr} {op} {admin} {weight} {initial_weight} {since} \
         {check} {NO_AGENT} {port} {NEITHER_SRV_NOR_TLS} {check_port} {check_addr} \
         {NO_AGENT_ADDRESS}"
    )
}

/// The operational state (0 stopped, 1 warming up, 2 running) and the
/// administrative one (1 maintenance, 8 drain).
fn states(server: &Server) -> (u8, u8) {
    match server.status {
        Status::Up | Status::Suspect if server.throttle.is_some() => (1, 0),
        Status::Up | Status::Suspect => (2, 0),
        Status::Drain => (2, 8),
        Status::Down(_) => (0, 0),
        Status::Maint => (0, 1),
    }
}

/// The last check's status and result, the health counter, and whether there
/// are checks (2) that are on (4).
fn check(server: &Server) -> String {
    let (status, result) = match &server.last_check {
        None => (1, 0),
        Some(CheckReport { code, .. }) => (check_status(*code), if code.passed() { 3 } else { 2 }),
    };
    match server.health {
        Some(health) => {
            let state = if server.checks_off { 2 } else { 6 };
            format!("{status} {result} {} {state}", health.count())
        }
        // What HAProxy says of a server without checks.
        None => "1 0 1 0".to_owned(),
    }
}

/// The numbers of `HAProxy`'s `enum healthcheck_status`.
fn check_status(code: CheckCode) -> u8 {
    match code {
        CheckCode::L4Ok => 6,
        CheckCode::L4Timeout => 7,
        CheckCode::L4Connection => 8,
        CheckCode::L6Ok => 9,
        CheckCode::L6Timeout => 10,
        CheckCode::L6Response => 11,
        CheckCode::L7Timeout => 12,
        CheckCode::L7Response => 13,
        CheckCode::L7Ok => 15,
        CheckCode::L7Status => 17,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::stats::{fixture, rows};

    #[test]
    fn a_line_has_its_fields_where_clients_look_for_them() {
        let text = render(&rows(&fixture::source(), Instant::now()));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
        assert_eq!(lines[0], ["1"]);
        assert_eq!(lines[1].len(), 26, "the names of 25 fields behind a #");
        assert_eq!(lines.len(), 2 + 7);
        let of = |name| {
            lines
                .iter()
                .find(|line| line.get(3) == Some(&name))
                .unwrap()
        };
        assert!(lines[2..].iter().all(|line| line.len() == 25));
        assert_eq!(of("s1")[4..9], ["10.0.0.49", "2", "0", "1", "1"]);
        assert_eq!(of("s1")[18], "3000");
        assert_eq!(of("s1")[10..14], ["1", "0", "1", "0"], "nobody checks it");
        assert_eq!(of("s3")[5..7], ["2", "8"], "it drains");
        assert_eq!(of("s4")[5..7], ["0", "0"], "it is down");
        assert_eq!(
            of("t1")[10..14],
            ["1", "0", "2", "6"],
            "it has not been checked yet"
        );
    }
    #[test]
    fn a_server_that_warms_up_is_starting() {
        let text = render(&rows(&fixture::tended(), Instant::now()));
        let line = |name| text.lines().find(|line| line.contains(name)).unwrap();
        assert_eq!(line(" e1 ").split(' ').nth(5), Some("1"));
        assert_eq!(line(" s1 ").split(' ').nth(5), Some("2"));
    }
}
