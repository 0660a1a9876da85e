//! `show servers conn`: the connections to each server.

use crate::{
    proxy::IDLE,
    stats::{Rows, StatRow},
};

/// What is not measured.
const UNKNOWN: &str = "-";

/// Idle connections that have not proved to be kept open are not told apart.
const NONE: u32 = 0;

/// Every server. Idle connections are counted for all workers together.
pub(super) fn render(rows: &Rows, workers: usize) -> String {
    let mut out = format!(
        "# bkname/svname bkid/svid addr port - purge_delay served used_cur used_max need_est \
         idle_sess unsafe_nb safe_nb idle_lim idle_cur idle_per_thr[{workers}]\n"
    );
    for row in &rows.servers {
        out.push_str(&line(row));
        out.push_str(&format!(" {UNKNOWN}").repeat(workers));
        out.push('\n');
    }
    out
}

fn line(row: &StatRow) -> String {
    let addr = row.server.as_ref().and_then(|server| server.addr);
    let (ip, port) = addr.map_or((UNKNOWN.to_owned(), 0), |addr| {
        (addr.ip().to_string(), addr.port())
    });
    let StatRow {
        proxy,
        name,
        proxy_id,
        server_id,
        sessions,
        ..
    } = row;
    let known = |figure: Option<u32>| figure.map_or(UNKNOWN.to_owned(), |n| n.to_string());
    let [used, needed, idle, limit] = [
        row.used_connections,
        row.needed_connections,
        row.idle_connections,
        row.idle_limit,
    ]
    .map(known);
    // A connection carries one request at a time.
    let (served, most) = (sessions.now, sessions.max);
    let purge_delay = IDLE.as_millis();
    format!(
        "{proxy}/{name} {proxy_id}/{server_id} {ip} {port} - {purge_delay} {served} {used} {most} \
         {needed} {UNKNOWN} {NONE} {idle} {limit} {idle}"
    )
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::stats::{fixture, rows};

    #[test]
    fn a_line_has_as_many_words_as_the_line_of_names() {
        let text = render(&rows(&fixture::source(), Instant::now()), 1);
        let words: Vec<usize> = text.lines().map(|line| line.split(' ').count()).collect();
        assert_eq!(words.len(), 1 + 7);
        assert!(
            words.iter().skip(1).all(|count| *count == words[0] - 1),
            "{text}"
        );
        assert!(
            text.contains("\nnodes/s1 4/3 10.0.0.49 3000 - 4000 0 0 0 0 - 0 0 1024 0 -\n"),
            "{text}"
        );
    }
}
