//! Figures as monitoring reads them, from real traffic, and beside those of
//! the real thing where that is installed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
};

use super::support::{
    announce,
    client::Client,
    cluster::Balancer,
    eventually, free_port,
    haproxy::{self, HaProxy},
    origin::{Origin, balancer_over},
};

/// The cells of CSV's rows by the name of the column.
type Row = BTreeMap<String, String>;

/// The rows of a CSV by `svname`.
fn rows(csv: &str) -> BTreeMap<String, Row> {
    let mut lines = csv.lines();
    let header = lines.next().unwrap().trim_start_matches("# ");
    let names: Vec<&str> = header.split(',').take_while(|name| *name != "-").collect();
    let row = |line: &str| -> Row {
        let cells = names.iter().zip(line.split(','));
        let cells = cells.map(|(name, cell)| ((*name).to_owned(), cell.to_owned()));
        cells.collect()
    };
    let rows = lines.filter(|line| !line.is_empty()).map(row);
    let ours = rows.filter(|row| row["pxname"] != "stats");
    ours.map(|row| (row["svname"].clone(), row)).collect()
}

/// The columns that have a value.
fn filled(row: &Row) -> BTreeSet<&str> {
    let filled = row.iter().filter(|(_, cell)| !cell.is_empty());
    filled.map(|(name, _)| name.as_str()).collect()
}

fn csv(balancer: &Balancer) -> BTreeMap<String, Row> {
    rows(&String::from_utf8(balancer.stats("/;csv").body).unwrap())
}

fn metrics(balancer: &Balancer) -> String {
    String::from_utf8(balancer.stats("/metrics").body).unwrap()
}

/// A balancer before two servers of which one is checked, once it has served
/// and the check has passed.
fn in_use(origins: &[Origin; 2]) -> Balancer {
    let [checked, unchecked] = origins;
    let flags = [
        "--server".to_owned(),
        format!("s1={},check=http:GET:/,check-interval=100ms", checked.addr),
        "--server".to_owned(),
        unchecked.named("s2"),
    ];
    let balancer = Balancer::start(&flags.each_ref().map(String::as_str));
    balancer.wait_for(&[("s1", "up"), ("s2", "up")]);
    serve_some(balancer.http);
    eventually("a check has passed and a second is over", || {
        let rows = csv(&balancer);
        let checked = !rows["s1"]["check_code"].is_empty();
        (checked && rows["BACKEND"]["rate_max"] != "0").then_some(())
    });
    balancer
}

fn serve_some(addr: SocketAddr) {
    let mut client = Client::connect(addr).unwrap();
    for _ in 0..4 {
        assert_eq!(client.get(&[]).unwrap().status, 200);
    }
}

fn is_there(tool: &str) -> bool {
    let mut tool = Command::new(tool);
    tool.arg("--help")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    tool.status().is_ok()
}

/// HAProxy before the same servers, and where its statistics are.
fn start_haproxy([checked, unchecked]: [SocketAddr; 2]) -> (HaProxy, SocketAddr) {
    let stats = free_port(Ipv4Addr::LOCALHOST.into());
    let haproxy = HaProxy::start(&format!(
        "global\n maxconn 100\n\
         defaults\n mode http\n option redispatch\n timeout connect 5s\n \
         timeout client 5s\n timeout server 5s\n\
         listen stats\n bind {stats}\n stats enable\n stats uri /\n stats show-legends\n\
         frontend localnodes\n bind BIND\n default_backend nodes\n\
         backend nodes\n balance roundrobin\n cookie SERVERID insert indirect nocache\n \
         option httpchk GET /\n \
         server s1 {checked} cookie s1 check inter 100 observe layer7\n \
         server s2 {unchecked} cookie s2\n"
    ));
    (haproxy, stats)
}

#[test]
fn csv_fills_the_columns_that_haproxy_fills() {
    if !haproxy::is_installed("csv_fills_the_columns_that_haproxy_fills") {
        return;
    }
    let origins = [Origin::saying("one"), Origin::saying("two")];
    let (haproxy, stats) = start_haproxy(origins.each_ref().map(|origin| origin.addr));
    let theirs = || {
        let mut client = Client::connect(stats).ok()?;
        let answer = client.request("GET", "/;csv", &[]).ok()?;
        Some(rows(&String::from_utf8(answer.body).ok()?))
    };
    eventually("HAProxy has checked its server", || {
        let code = theirs()?.remove("s1")?.remove("check_code")?;
        (!code.is_empty()).then_some(())
    });
    serve_some(haproxy.addr);
    let theirs = theirs().unwrap();
    let ours = csv(&in_use(&origins));
    // There is no fullconn; what aggregates say is in Prometheus' series; a
    // server has a queue to be full only with maxconn.
    let not_here = [
        "slim",
        "agg_server_status",
        "agg_server_check_status",
        "agg_check_status",
    ];
    for (name, theirs) in &theirs {
        let ours = filled(&ours[name]);
        let missing: Vec<&str> = filled(theirs).difference(&ours).copied().collect();
        let missing: Vec<&str> = missing
            .into_iter()
            .filter(|column| name != "BACKEND" || !not_here.contains(column))
            .collect();
        assert_eq!(missing, [] as [&str; 0], "{name}");
    }
    // And nothing is filled where HAProxy would have a client find nothing.
    let known: BTreeSet<&str> = theirs["FRONTEND"].keys().map(String::as_str).collect();
    for (name, also) in [
        ("FRONTEND", &[][..]),
        ("s1", &["src_ilim"]),
        ("s2", &["src_ilim", "hanafail", "chkdown", "downtime"]),
        ("BACKEND", &[]),
    ] {
        let theirs = filled(&theirs[name]);
        let more = filled(&ours[name]);
        let more = more
            .difference(&theirs)
            .filter(|column| known.contains(*column));
        let more: Vec<&str> = more
            .copied()
            .filter(|column| !also.contains(column))
            .collect();
        assert_eq!(more, [] as [&str; 0], "{name}");
    }
}

/// What the panels and variables of Grafana's dashboard 12693 ask for of the
/// process, of frontends and backends and servers (`addons/promex/README` has
/// the names). Those of agent checks have no series in `HAProxy` either where
/// there is none, and those of its scheduler and resolvers have no like here.
const PROCESS: &str = "nbthread nbproc relative_process_id uptime_seconds start_time_seconds \
    max_memory_bytes pool_allocated_bytes pool_used_bytes pool_failures_total max_fds max_sockets \
    max_connections hard_max_connections current_connections connections_total requests_total \
    max_ssl_connections current_ssl_connections ssl_connections_total max_pipes pipes_used_total \
    pipes_free_total current_connection_rate limit_connection_rate max_connection_rate \
    current_session_rate limit_session_rate max_session_rate current_ssl_rate limit_ssl_rate \
    max_ssl_rate current_frontend_ssl_key_rate max_frontend_ssl_key_rate frontend_ssl_reuse \
    current_backend_ssl_key_rate max_backend_ssl_key_rate ssl_cache_lookups_total \
    ssl_cache_misses_total http_comp_bytes_in_total http_comp_bytes_out_total limit_http_comp \
    current_zlib_memory max_zlib_memory stopping jobs unstoppable_jobs listeners active_peers \
    connected_peers dropped_logs_total bytes_out_total bytes_out_rate recv_logs_total";
const ALL: &str = "current_sessions max_sessions limit_sessions sessions_total bytes_in_total \
    bytes_out_total responses_denied_total max_session_rate http_requests_total \
    failed_header_rewriting_total internal_errors_total";
const PROXIES: &str = "requests_denied_total http_comp_bytes_in_total http_comp_bytes_out_total \
    http_comp_bytes_bypassed_total http_comp_responses_total http_cache_lookups_total \
    http_cache_hits_total";
const FRONTEND: &str = "request_errors_total limit_session_rate http_requests_rate_max \
    connections_rate_max connections_total intercepted_requests_total denied_connections_total \
    denied_sessions_total";
const UPSTREAM: &str = "current_queue max_queue connection_errors_total response_errors_total \
    retry_warnings_total redispatch_warnings_total weight uweight check_up_down_total \
    check_last_change_seconds downtime_seconds_total loadbalanced_total client_aborts_total \
    server_aborts_total last_session_seconds queue_time_average_seconds \
    connect_time_average_seconds response_time_average_seconds total_time_average_seconds \
    max_queue_time_seconds max_connect_time_seconds max_response_time_seconds \
    max_total_time_seconds connection_attempts_total connection_reuses_total";
const BACKEND: &str = "active_servers backup_servers";
const SERVER: &str = "active backup check_failures_total check_code check_duration_seconds \
    queue_limit idle_connections_current idle_connections_limit unsafe_idle_connections_current \
    safe_idle_connections_current used_connections_current need_connections_current";
const CODES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];
const CHECKS: &str = "HANA SOCKERR L4OK L4TOUT L4CON L6OK L6TOUT L6RSP L7TOUT L7RSP L7OK L7OKC \
    L7STS PROCERR PROCTOUT PROCOK";

/// Every series with its value.
fn series(metrics: &str) -> BTreeMap<&str, f64> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    let pairs = samples.map(|line| line.rsplit_once(' ').unwrap());
    pairs
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect()
}

#[test]
fn the_dashboard_finds_every_series_that_it_draws() {
    let origins = [Origin::saying("one"), Origin::saying("two")];
    let balancer = in_use(&origins);
    let metrics = metrics(&balancer);
    let series = series(&metrics);
    let mut wanted: Vec<String> = PROCESS
        .split_whitespace()
        .map(|name| format!("haproxy_process_{name}"))
        .collect();
    for (kind, labels, lists) in [
        (
            "frontend",
            "proxy=\"localnodes\"",
            [ALL, PROXIES, FRONTEND].as_slice(),
        ),
        (
            "backend",
            "proxy=\"nodes\"",
            &[ALL, PROXIES, UPSTREAM, BACKEND],
        ),
        (
            "server",
            "proxy=\"nodes\",server=\"s1\"",
            &[ALL, UPSTREAM, SERVER],
        ),
    ] {
        let mut want = |name: &str, more: &str| {
            wanted.push(format!("haproxy_{kind}_{name}{{{labels}{more}}}"));
        };
        for name in lists.iter().flat_map(|list| list.split_whitespace()) {
            want(name, "");
        }
        for code in CODES {
            want("http_responses_total", &format!(",code=\"{code}\""));
        }
        let (servers, proxies) = ("DOWN UP MAINT DRAIN NOLB", "DOWN UP");
        let by_state: &[(&str, &str)] = match kind {
            "server" => &[("status", servers), ("check_status", CHECKS)],
            "backend" => &[
                ("status", proxies),
                ("agg_server_status", servers),
                ("agg_check_status", CHECKS),
            ],
            _ => &[("status", proxies)],
        };
        for (name, states) in by_state {
            for state in states.split_whitespace() {
                want(name, &format!(",state=\"{state}\""));
            }
        }
    }
    let missing: Vec<&String> = wanted
        .iter()
        .filter(|name| !series.contains_key(name.as_str()))
        .collect();
    assert_eq!(missing, [] as [&String; 0]);
    assert!(metrics.contains("haproxy_process_build_info{version="));
    let up = "haproxy_backend_agg_server_status{proxy=\"nodes\",state=\"UP\"}";
    assert_eq!(series.get(up), Some(&2.0));
    let passed = "haproxy_backend_agg_check_status{proxy=\"nodes\",state=\"L7OK\"}";
    assert_eq!(series.get(passed), Some(&1.0));
}

#[test]
fn promtool_finds_no_fault() {
    if !is_there("promtool") {
        return announce("SKIPPED: promtool_finds_no_fault: no promtool here");
    }
    let origins = [Origin::saying("one"), Origin::saying("two")];
    let metrics = metrics(&in_use(&origins));
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(metrics.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let faults: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    assert!(output.status.success() && faults.is_empty(), "{said}");
}

#[test]
fn answers_are_timed_by_server_and_class_and_counts_agree() {
    let slow = Origin::start(|visit| {
        visit.body()?;
        std::thread::sleep(std::time::Duration::from_millis(30));
        visit.send("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
    });
    let quick = Origin::saying("one");
    let balancer = balancer_over(&[&quick, &slow], &[]);
    let mut client = balancer.connect();
    for _ in 0..6 {
        client.get(&[]).unwrap();
    }
    client.request("CONNECT", "/", &[]).unwrap();
    let metrics = eventually("everything is counted", || {
        let metrics = metrics(&balancer);
        let all = "haproxy_frontend_http_responses_total{proxy=\"localnodes\",code=\"4xx\"}";
        (series(&metrics).get(all) == Some(&4.0)).then_some(metrics)
    });
    let series = series(&metrics);
    let of = |part: &str, server: &str, code: &str, le: &str| {
        let name = format!(
            "tidings_server_response_seconds_{part}{{proxy=\"nodes\",server=\"{server}\",\
             code=\"{code}\"{le}}}"
        );
        series.get(name.as_str()).copied()
    };
    assert_eq!(of("bucket", "s1", "2xx", ",le=\"60\""), Some(3.0));
    assert_eq!(of("bucket", "s1", "2xx", ",le=\"+Inf\""), Some(3.0));
    assert_eq!(of("bucket", "s2", "4xx", ",le=\"0.025\""), Some(0.0));
    assert_eq!(of("count", "s2", "4xx", ""), Some(3.0));
    assert!(of("sum", "s2", "4xx", "").unwrap() >= 0.09);
    assert_eq!(of("count", "s1", "5xx", ""), None);
    let rows = csv(&balancer);
    for (row, column, value) in [
        ("s1", "hrsp_2xx", "3"),
        ("s2", "hrsp_4xx", "3"),
        ("FRONTEND", "hrsp_4xx", "4"),
        ("FRONTEND", "dreq", "1"),
        ("FRONTEND", "ereq", "0"),
        ("BACKEND", "dreq", "0"),
        ("s1", "connect", "1"),
        ("s1", "reuse", "2"),
        ("s1", "safe_conn_cur", "1"),
        ("s1", "used_conn_cur", "0"),
        ("BACKEND", "connect", "2"),
        ("BACKEND", "reuse", "4"),
        ("BACKEND", "chkdown", "0"),
    ] {
        assert_eq!(rows[row][column], value, "{column} of {row}");
    }
}
