//! `HAProxy`'s `option httplog`, to the letter (configuration manual, 8.2.3).

use std::{fmt::Write as _, time::Duration};

use time::OffsetDateTime;

use super::{Line, Names, Record, ServerLoad};
use crate::proxy::{
    ascii::{push, push_address, push_number},
    exchange::{Affinity, CookieSent},
};

/// Writes `%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc
/// %ac/%fc/%bc/%sc/%rc %sq/%bq %{+Q}r`.
///
/// No cookie and no header is captured here.
#[derive(Debug)]
pub(super) struct Httplog {
    names: Names,
    clock: Clock,
}

impl Httplog {
    pub(super) fn new(names: Names) -> Self {
        let clock = Clock::default();
        Self { names, clock }
    }
}

impl Line for Httplog {
    fn write(&mut self, line: &mut Vec<u8>, record: &Record) {
        self.write_client(line, record);
        write_timings(line, record);
        write_state(line, record);
        write_request(line, record);
    }

    /// The request is what may be long, and stands last.
    fn write_short(&mut self, line: &mut Vec<u8>, record: &Record, _most: usize) {
        self.write(line, record);
    }
}

impl Httplog {
    fn write_client(&mut self, line: &mut Vec<u8>, record: &Record) {
        let Names { frontend, backend } = &self.names;
        let began = record.began();
        let backend = if record.accepted { backend } else { frontend };
        push_address(line, record.peer.ip());
        push(line, ":");
        push_number(line, record.peer.port());
        push(line, " [");
        push(line, self.clock.second(began.as_secs()));
        push(line, ".");
        padded(line, began.subsec_millis());
        push(line, "] ");
        push(line, frontend);
        push(line, " ");
        push(line, backend);
        push(line, "/");
        push(line, record.server().unwrap_or("<NOSRV>"));
        push(line, " ");
    }
}

fn write_timings(line: &mut Vec<u8>, record: &Record) {
    let times = [
        record.head_time,
        record.wait_time,
        record.connect_time,
        record.response_time,
    ];
    for time in times {
        push_number(line, time.map_or(-1, |took| took.as_millis() as i64));
        push(line, "/");
    }
    push_number(line, record.total_time.as_millis() as u64);
    push(line, " ");
    push_number(line, record.status.map_or(-1, i32::from));
    push(line, " ");
    push_number(line, record.bytes_out);
    push(line, " - - ");
}

fn write_state(line: &mut Vec<u8>, record: &Record) {
    let ServerLoad {
        process,
        frontend,
        backend,
        server,
        server_queue,
        backend_queue,
    } = record.load;
    push(line, record.termination.as_str());
    line.extend(cookie_flags(record.affinity, record.cookie_sent));
    push(line, " ");
    for load in [process, frontend, backend, server] {
        push_number(line, load);
        push(line, "/");
    }
    if record.redispatched {
        push(line, "+");
    }
    push_number(line, record.retries);
    push(line, " ");
    push_number(line, server_queue);
    push(line, "/");
    push_number(line, backend_queue);
    push(line, " ");
}

/// The third and the fourth character of the termination state (8.5).
fn cookie_flags(affinity: Affinity, sent: CookieSent) -> [u8; 2] {
    let asked = match affinity {
        Affinity::Off => return *b"--",
        Affinity::New => b'N',
        Affinity::Valid => b'V',
        Affinity::Invalid => b'I',
        Affinity::Down => b'D',
    };
    let answered = match sent {
        CookieSent::None => b'N',
        CookieSent::Inserted => b'I',
        CookieSent::Deleted => b'D',
    };
    [asked, answered]
}

fn write_request(line: &mut Vec<u8>, record: &Record) {
    let Some(request) = record.request.as_ref().filter(|_| record.accepted) else {
        return push(line, "\"<BADREQ>\"");
    };
    push(line, "\"");
    push(line, request.method());
    push(line, " ");
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'#' | ..b' ' | 0x7F..);
    let mut rest = request.target().as_bytes();
    while let Some(at) = rest.iter().position(|byte| !is_plain(byte)) {
        let (plain, odd) = rest.split_at(at);
        line.extend_from_slice(plain);
        let Some((byte, behind)) = odd.split_first() else {
            break;
        };
        line.extend([b'#', hex(byte >> 4), hex(byte & 15)]);
        rest = behind;
    }
    line.extend_from_slice(rest);
    push(line, " ");
    push(line, request.version());
    push(line, "\"");
}

/// With three digits.
fn padded(line: &mut Vec<u8>, millis: u32) {
    let digit = |value: u32| b'0' + (value % 10) as u8;
    line.extend([digit(millis / 100), digit(millis / 10), digit(millis)]);
}

fn hex(digit: u8) -> u8 {
    match digit {
        0..=9 => b'0' + digit,
        _ => b'A' + digit - 10,
    }
}

/// Writes a time down to its second, anew only when the second is another.
#[derive(Debug, Default)]
struct Clock {
    second: u64,
    text: String,
}

impl Clock {
    /// `second` is counted from the beginning of 1970.
    fn second(&mut self, second: u64) -> &str {
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text.clear();
            let at = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(second);
            let month = MONTHS.get(at.month() as usize - 1).unwrap_or(&"???");
            let (day, year) = (at.day(), at.year());
            let (hour, minute, second) = at.to_hms();
            write!(
                self.text,
                "{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02}"
            )
            .expect("a String takes whatever is written");
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::record, *};
    use crate::proxy::error::Termination;

    fn line(record: &Record) -> String {
        let names = Names {
            frontend: "localnodes".into(),
            backend: "nodes".into(),
        };
        let mut line = Vec::new();
        Httplog::new(names).write(&mut line, record);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_line_is_haproxys_to_the_letter() {
        assert_eq!(
            line(&record("/index.html?q=1")),
            "10.0.1.2:33317 [06/Feb/2009:12:14:14.655] localnodes nodes/s1 10/0/30/69/109 \
             200 2750 - - --NI 1/1/0/0/0 0/0 \"GET /index.html?q=1 HTTP/1.1\""
        );
    }

    #[test]
    fn a_request_that_reached_no_server_says_so() {
        let line = line(&Record {
            server: None,
            wait_time: None,
            connect_time: None,
            response_time: None,
            status: Some(503),
            termination: Termination(*b"SC"),
            affinity: Affinity::Off,
            ..record("/")
        });
        assert!(
            line.contains(" nodes/<NOSRV> 10/-1/-1/-1/109 503 2750 - - SC-- "),
            "{line}"
        );
    }

    #[test]
    fn a_request_that_was_refused_never_left_the_frontend() {
        let line = line(&Record {
            accepted: false,
            server: None,
            head_time: None,
            wait_time: None,
            connect_time: None,
            response_time: None,
            status: Some(400),
            termination: Termination(*b"PR"),
            affinity: Affinity::Off,
            ..record("/secret")
        });
        let expected = " localnodes/<NOSRV> -1/-1/-1/-1/109 400 2750 - - PR-- ";
        assert!(line.contains(expected), "{line}");
        assert!(line.ends_with(" 0/0 \"<BADREQ>\""), "{line}");
    }

    #[test]
    fn a_redispatch_is_marked_with_a_plus() {
        let line = line(&Record {
            retries: 2,
            redispatched: true,
            ..record("/")
        });
        assert!(line.contains(" 1/1/0/0/+2 0/0 "), "{line}");
    }

    #[test]
    fn the_cookies_flags_are_haproxys() {
        let flags =
            |affinity, sent| String::from_utf8(cookie_flags(affinity, sent).into()).unwrap();
        assert_eq!(flags(Affinity::Off, CookieSent::None), "--");
        assert_eq!(flags(Affinity::New, CookieSent::Inserted), "NI");
        assert_eq!(flags(Affinity::Valid, CookieSent::None), "VN");
        assert_eq!(flags(Affinity::Valid, CookieSent::Deleted), "VD");
        assert_eq!(flags(Affinity::Invalid, CookieSent::Inserted), "II");
        assert_eq!(flags(Affinity::Down, CookieSent::Inserted), "DI");
        assert_eq!(flags(Affinity::New, CookieSent::None), "NN");
    }

    #[test]
    fn nothing_in_a_target_can_end_the_field_or_the_line() {
        let line = line(&record("/a\"b\\c?é"));
        assert!(
            line.ends_with("\"GET /a#22b\\c?#C3#A9 HTTP/1.1\""),
            "{line}"
        );
    }

    #[test]
    fn the_clock_follows_the_time_both_ways() {
        let mut clock = Clock::default();
        assert_eq!(clock.second(0), "01/Jan/1970:00:00:00");
        assert_eq!(clock.second(86_400), "02/Jan/1970:00:00:00");
        assert_eq!(clock.second(59), "01/Jan/1970:00:00:59");
    }
}
