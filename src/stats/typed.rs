//! The statistics field by field, each with what it is: `show stat typed`,
//! `show stat json` and the same of `show info`.
//!
//! `HAProxy`'s four letters say where a figure comes from, what it measures,
//! what it is about, and whether it outlives the process. None does here.

use std::fmt::Write;

use super::{
    csv::{COLUMNS, Cell},
    view::{Kind, StatRow},
};

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number among the fields of its kind.
    pub position: usize,
    /// Its name.
    pub name: &'a str,
    /// What it is.
    pub nature: Nature,
    /// Its value.
    pub value: String,
}

/// What a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// Origin, nature and scope, a letter each.
    pub tags: &'static str,
    /// `str`, `u32`, `u64` or `s32`.
    pub kind: &'static str,
    /// In a few words.
    pub about: &'static str,
}

/// The end of a field's tags: its value is gone with the process.
const VOLATILE: char = 'V';

impl Field<'_> {
    /// The field as a typed line, without the numbers before its own.
    pub fn line(&self, described: bool, out: &mut String) {
        let Self {
            position,
            name,
            nature,
            value,
        } = self;
        let Nature { tags, kind, about } = nature;
        let value = value.replace('\n', " ");
        let written = if described {
            writeln!(
                out,
                "{position}.{name}.1:{tags}{VOLATILE}:{kind}:{value}:\"{about}\""
            )
        } else {
            writeln!(out, "{position}.{name}.1:{tags}{VOLATILE}:{kind}:{value}")
        };
        written.expect("a string takes any text");
    }

    /// The field as a JSON object; `prefix` goes before its members.
    pub fn json(&self, prefix: &str, described: bool) -> String {
        let [origin, nature, scope] = self.nature.tag_names();
        let Nature { kind, about, .. } = self.nature;
        let value = match kind {
            "str" => serde_json::Value::from(self.value.as_str()).to_string(),
            _ => self.value.clone(),
        };
        let about = if described {
            format!(",\"desc\":{}", serde_json::Value::from(about))
        } else {
            String::new()
        };
        format!(
            "{{{prefix}\"field\":{{\"pos\":{},\"name\":\"{}\"}},\"processNum\":1,\
             \"tags\":{{\"origin\":\"{origin}\",\"nature\":\"{nature}\",\"scope\":\"{scope}\"}},\
             \"value\":{{\"type\":\"{kind}\",\"value\":{value}}}{about}}}",
            self.position, self.name
        )
    }
}

impl Nature {
    fn tag_names(self) -> [&'static str; 3] {
        let mut letters = self.tags.chars();
        let mut next = || letters.next().unwrap_or(' ');
        let origin = match next() {
            'M' => "Metric",
            'S' => "Status",
            'K' => "Key",
            'C' => "Config",
            'P' => "Product",
            _ => "Unknown",
        };
        let nature = match next() {
            'G' => "Gauge",
            'L' => "Limit",
            'M' => "Max",
            'R' => "Rate",
            'C' => "Counter",
            'D' => "Duration",
            'A' => "Age",
            'a' => "Avg",
            'N' => "Name",
            'O' => "Output",
            _ => "Unknown",
        };
        let scope = match next() {
            'C' => "Cluster",
            'P' => "Process",
            'S' => "Service",
            _ => "System",
        };
        [origin, nature, scope]
    }
}

/// A row's fields that have a value.
pub fn fields(row: &StatRow) -> impl Iterator<Item = Field<'static>> {
    COLUMNS
        .iter()
        .enumerate()
        .filter_map(move |(position, (name, value))| {
            let value = match value(row) {
                Cell::Empty => return None,
                Cell::Number(number) => number.to_string(),
                Cell::Text(text) => text.into_owned(),
            };
            let nature = nature(name);
            Some(Field {
                position,
                name,
                nature,
                value,
            })
        })
}

/// Rows as typed lines.
pub fn lines<'a>(rows: impl Iterator<Item = &'a StatRow>, described: bool) -> String {
    let mut out = String::new();
    for row in rows {
        let letter = match row.kind {
            Kind::Frontend => 'F',
            Kind::Backend => 'B',
            Kind::Server => 'S',
        };
        for field in fields(row) {
            write!(out, "{letter}.{}.{}.", row.proxy_id, row.server_id)
                .expect("a string takes any text");
            field.line(described, &mut out);
        }
    }
    out
}

/// Rows as JSON: an array for each, an object for each of its fields.
pub fn json<'a>(rows: impl Iterator<Item = &'a StatRow>, described: bool) -> String {
    let row = |row: &StatRow| {
        let kind = match row.kind {
            Kind::Frontend => "Frontend",
            Kind::Backend => "Backend",
            Kind::Server => "Server",
        };
        let prefix = format!(
            "\"objType\":\"{kind}\",\"proxyId\":{},\"id\":{},",
            row.proxy_id, row.server_id
        );
        let fields: Vec<String> = fields(row)
            .map(|field| field.json(&prefix, described))
            .collect();
        format!("[{}]", fields.join(","))
    };
    let rows: Vec<String> = rows.map(row).collect();
    format!("[{}]", rows.join(","))
}

fn nature(name: &str) -> Nature {
    let found = NATURES.iter().find(|(known, ..)| *known == name);
    found.map_or(UNKNOWN, |(_, tags, kind, about)| Nature {
        tags,
        kind,
        about,
    })
}

const UNKNOWN: Nature = Nature {
    tags: "MGP",
    kind: "u64",
    about: "",
};

/// Of each column what it is. Rates and ages are of seconds, times in
/// milliseconds.
#[rustfmt::skip]
const NATURES: &[(&str, &str, &str, &str)] = &[
    ("pxname", "KNS", "str", "Name of the frontend or backend"),
    ("svname", "KNS", "str", "Name of the server, FRONTEND or BACKEND"),
    ("qcur", "MGP", "u32", "Requests that wait for a server"),
    ("qmax", "MMP", "u32", "Most requests that waited for a server"),
    ("scur", "MGP", "u32", "Sessions now"),
    ("smax", "MMP", "u32", "Most sessions at a time"),
    ("slim", "CLP", "u32", "Most sessions allowed at a time"),
    ("stot", "MCP", "u64", "Sessions so far"),
    ("bin", "MCP", "u64", "Request bytes so far"),
    ("bout", "MCP", "u64", "Response bytes so far"),
    ("dreq", "MCP", "u64", "Requests denied"),
    ("dresp", "MCP", "u64", "Responses denied"),
    ("ereq", "MCP", "u64", "Requests that could not be read"),
    ("econ", "MCP", "u64", "Connections to servers that could not be made"),
    ("eresp", "MCP", "u64", "Responses that never came, broke off or could not be read"),
    ("wretr", "MCP", "u64", "Attempts after the first"),
    ("wredis", "MCP", "u64", "Retries that went to another server"),
    ("status", "SGP", "str", "How it is doing"),
    ("weight", "MaP", "u32", "Share of the requests that it gets now"),
    ("act", "SGP", "u32", "Active servers that take traffic"),
    ("bck", "SGP", "u32", "Backup servers that take traffic"),
    ("chkfail", "MCP", "u64", "Checks that failed while the server was up"),
    ("chkdown", "MCP", "u64", "Times it went down"),
    ("lastchg", "MAP", "u32", "Time since its status changed"),
    ("downtime", "MCP", "u32", "Time it was down"),
    ("qlimit", "CLS", "u32", "Most requests that may wait for the server"),
    ("pid", "KGP", "u32", "Number of the process, always 1"),
    ("iid", "KGS", "u32", "Number of the frontend or backend"),
    ("sid", "KGS", "u32", "Number of the server"),
    ("throttle", "MaP", "u32", "Percentage of its weight that it gets while it is eased in"),
    ("lbtot", "MCP", "u64", "Requests that balancing, not a cookie, gave to it"),
    ("tracked", "CNS", "str", "Server whose state it follows"),
    ("type", "CGS", "u32", "0 frontend, 1 backend, 2 server"),
    ("rate", "MRP", "u32", "Sessions in the last second"),
    ("rate_lim", "CLP", "u32", "Most sessions allowed in a second"),
    ("rate_max", "MMP", "u32", "Most sessions in a second"),
    ("check_status", "MOP", "str", "Code of the last check's outcome"),
    ("check_code", "MOP", "u32", "Status code of the last check's response"),
    ("check_duration", "MDP", "u64", "Time that the last check took"),
    ("hrsp_1xx", "MCP", "u64", "Responses with a status of 1xx"),
    ("hrsp_2xx", "MCP", "u64", "Responses with a status of 2xx"),
    ("hrsp_3xx", "MCP", "u64", "Responses with a status of 3xx"),
    ("hrsp_4xx", "MCP", "u64", "Responses with a status of 4xx"),
    ("hrsp_5xx", "MCP", "u64", "Responses with a status of 5xx"),
    ("hrsp_other", "MCP", "u64", "Responses with any other status"),
    ("hanafail", "MCP", "u64", "Checks that failed by what traffic met"),
    ("req_rate", "MRP", "u32", "Requests in the last second"),
    ("req_rate_max", "MMP", "u32", "Most requests in a second"),
    ("req_tot", "MCP", "u64", "Requests so far"),
    ("cli_abrt", "MCP", "u64", "Exchanges that the client gave up"),
    ("srv_abrt", "MCP", "u64", "Exchanges that the server broke off"),
    ("comp_in", "MCP", "u64", "Bytes given to the compressor"),
    ("comp_out", "MCP", "u64", "Bytes taken from the compressor"),
    ("comp_byp", "MCP", "u64", "Bytes that went by the compressor"),
    ("comp_rsp", "MCP", "u64", "Responses compressed"),
    ("lastsess", "MAP", "s32", "Time since the last session, -1 for never"),
    ("last_chk", "MOP", "str", "What the last check said, or why it is not simply up"),
    ("last_agt", "MOP", "str", "What the last agent check said"),
    ("qtime", "MaP", "u32", "Time requests waited for a server, of late"),
    ("ctime", "MaP", "u32", "Time to connect, of late"),
    ("rtime", "MaP", "u32", "Time to a response's head, of late"),
    ("ttime", "MaP", "u32", "Time of a whole exchange, of late"),
    ("agent_status", "MOP", "str", "Code of the last agent check's outcome"),
    ("agent_code", "MOP", "u32", "Status code of the last agent check"),
    ("agent_duration", "MDP", "u64", "Time that the last agent check took"),
    ("check_desc", "MOP", "str", "The last check's outcome in words"),
    ("agent_desc", "MOP", "str", "The last agent check's outcome in words"),
    ("check_rise", "CGS", "u32", "Good checks that bring the server up"),
    ("check_fall", "CGS", "u32", "Failed checks that take the server down"),
    ("check_health", "CGS", "u32", "Where the server stands between the two"),
    ("agent_rise", "CGS", "u32", "Good agent checks that bring the server up"),
    ("agent_fall", "CGS", "u32", "Failed agent checks that take the server down"),
    ("agent_health", "CGS", "u32", "Where the server stands between the two"),
    ("addr", "CGS", "str", "Where the server takes requests"),
    ("cookie", "CNS", "str", "Name of the backend's cookie, or the server's value of it"),
    ("mode", "CGS", "str", "Always http"),
    ("algo", "CGS", "str", "How servers take turns"),
    ("conn_rate", "MRP", "u32", "Connections in the last second"),
    ("conn_rate_max", "MMP", "u32", "Most connections in a second"),
    ("conn_tot", "MCP", "u64", "Connections so far"),
    ("intercepted", "MCP", "u64", "Requests that were answered here"),
    ("dcon", "MCP", "u64", "Connections denied"),
    ("dses", "MCP", "u64", "Sessions denied"),
    ("wrew", "MCP", "u64", "Headers that could not be rewritten"),
    ("connect", "MCP", "u64", "Connections made to servers"),
    ("reuse", "MCP", "u64", "Requests over connections that were there already"),
    ("cache_lookups", "MCP", "u64", "Requests looked up in a cache"),
    ("cache_hits", "MCP", "u64", "Requests found in a cache"),
    ("srv_icur", "MGP", "u32", "Open connections to the server without a request"),
    ("src_ilim", "CLP", "u32", "Most such connections that are kept"),
    ("qtime_max", "MMP", "u32", "Longest time a request waited for a server"),
    ("ctime_max", "MMP", "u32", "Longest time to connect"),
    ("rtime_max", "MMP", "u32", "Longest time to a response's head"),
    ("ttime_max", "MMP", "u32", "Longest time of a whole exchange"),
    ("eint", "MCP", "u64", "Internal errors"),
    ("idle_conn_cur", "MGP", "u32", "Idle connections that have not proved to be kept open"),
    ("safe_conn_cur", "MGP", "u32", "Idle connections that have"),
    ("used_conn_cur", "MGP", "u32", "Connections in use"),
    ("need_conn_est", "MGP", "u32", "Connections that are likely to be needed"),
    ("uweight", "MaP", "u32", "Share of the requests that is wanted"),
    ("agg_server_status", "MGP", "u32", "Servers by status"),
    ("agg_server_check_status", "MGP", "u32", "Servers by their checks' state"),
    ("agg_check_status", "MGP", "u32", "Checks by outcome"),
    ("srid", "MGP", "u32", "How often the server's number was given anew"),
    ("sess_other", "MCP", "u64", "Sessions of another protocol than HTTP"),
    ("h1sess", "MCP", "u64", "HTTP/1 sessions"),
    ("h2sess", "MCP", "u64", "HTTP/2 sessions"),
    ("h3sess", "MCP", "u64", "HTTP/3 sessions"),
    ("req_other", "MCP", "u64", "Requests of another protocol than HTTP"),
    ("h1req", "MCP", "u64", "HTTP/1 requests"),
    ("h2req", "MCP", "u64", "HTTP/2 requests"),
    ("h3req", "MCP", "u64", "HTTP/3 requests"),
    ("proto", "CNS", "str", "Protocol of the listener"),
    ("priv_idle_cur", "MGP", "u32", "Idle connections that belong to one client"),
    ("reqbin", "MCP", "u64", "Request bytes that came in"),
    ("reqbout", "MCP", "u64", "Request bytes that went out"),
    ("resbin", "MCP", "u64", "Response bytes that came in"),
    ("resbout", "MCP", "u64", "Response bytes that went out"),
    ("cache_hint_hits", "MCP", "u64", "Requests that a hint found in a cache"),
];

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::stats::{fixture, rows};

    #[test]
    fn every_column_says_what_it_is() {
        for (name, _) in COLUMNS {
            let nature = nature(name);
            assert_ne!(nature, UNKNOWN, "{name}");
            assert!(!nature.tag_names().contains(&"Unknown"), "{name}");
            assert!(!nature.about.contains(['"', '\n']), "{name}");
        }
        assert_eq!(NATURES.len(), COLUMNS.len());
    }

    #[test]
    fn a_field_is_a_line_with_its_numbers_its_nature_and_its_value() {
        let rows = rows(&fixture::source(), Instant::now());
        let text = lines(rows.iter(), false);
        for line in [
            "F.3.0.7.stot.1:MCPV:u64:10\n",
            "S.4.3.17.status.1:SGPV:str:UP\n",
            "S.4.3.0.pxname.1:KNSV:str:nodes\n",
            "B.4.0.76.algo.1:CGSV:str:roundrobin\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        let described = lines(rows.iter(), true);
        assert!(described.contains(":str:UP:\"How it is doing\"\n"));
        assert_eq!(text.lines().count(), described.lines().count());
    }

    #[test]
    fn json_has_an_array_for_each_row_and_an_object_for_each_field() {
        let rows = rows(&fixture::source(), Instant::now());
        let text = json(rows.iter(), false);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.as_array().unwrap().len(), 9);
        let of = |row: usize, name: &str| {
            let fields = value[row].as_array().unwrap().iter();
            let mut found = fields.filter(|field| field["field"]["name"] == name);
            found.next().unwrap()
        };
        assert_eq!(of(0, "stot")["value"]["value"], 10);
        assert_eq!(of(0, "stot")["objType"], "Frontend");
        assert_eq!(of(1, "svname")["value"]["value"], "s1");
        assert_eq!(of(1, "status")["tags"]["nature"], "Gauge");
    }
}
