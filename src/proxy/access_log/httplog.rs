//! `HAProxy`'s `option httplog`, to the letter (configuration manual, 8.2.3).

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::Duration,
};

use time::OffsetDateTime;

use super::{Line, Names, Record, ServerLoad};
use crate::proxy::exchange::{Affinity, CookieSent};

/// Writes `%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc
/// %ac/%fc/%bc/%sc/%rc %sq/%bq %{+Q}r`.
///
/// No cookie and no header is captured here, and nothing waits in a queue.
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
        self.write_client(line, record)
            .and_then(|()| write_timings(line, record))
            .and_then(|()| write_state(line, record))
            .and_then(|()| write_request(line, record))
            .expect("a Vec takes whatever is written");
    }

    /// The request is what may be long, and stands last.
    fn write_short(&mut self, line: &mut Vec<u8>, record: &Record, _most: usize) {
        self.write(line, record);
    }
}

impl Httplog {
    fn write_client(&mut self, line: &mut Vec<u8>, record: &Record) -> io::Result<()> {
        let Names { frontend, backend } = &self.names;
        let began = record.began();
        write!(
            line,
            "{}:{} [{}.{:03}] {frontend} {}/{} ",
            record.peer.ip(),
            record.peer.port(),
            self.clock.second(began),
            began.millisecond(),
            if record.accepted { backend } else { frontend },
            record.server().unwrap_or("<NOSRV>"),
        )
    }
}

fn write_timings(line: &mut Vec<u8>, record: &Record) -> io::Result<()> {
    let millis = |took: Option<Duration>| took.map_or(-1, |took| took.as_millis() as i64);
    write!(
        line,
        "{}/{}/{}/{}/{} {} {} - - ",
        millis(record.head_time),
        millis(record.wait_time),
        millis(record.connect_time),
        millis(record.response_time),
        record.total_time.as_millis(),
        record.status.map_or(-1, i32::from),
        record.bytes_out,
    )
}

fn write_state(line: &mut Vec<u8>, record: &Record) -> io::Result<()> {
    let ServerLoad {
        process,
        frontend,
        backend,
        server,
    } = record.load;
    let (asked, answered) = cookie_flags(record.affinity, record.cookie_sent);
    write!(
        line,
        "{}{asked}{answered} {process}/{frontend}/{backend}/{server}/{}{} 0/0 ",
        record.termination.as_str(),
        if record.redispatched { "+" } else { "" },
        record.retries,
    )
}

/// The third and the fourth character of the termination state (8.5).
fn cookie_flags(affinity: Affinity, sent: CookieSent) -> (char, char) {
    let asked = match affinity {
        Affinity::Off => return ('-', '-'),
        Affinity::New => 'N',
        Affinity::Valid => 'V',
        Affinity::Invalid => 'I',
        Affinity::Down => 'D',
    };
    let answered = match sent {
        CookieSent::None => 'N',
        CookieSent::Inserted => 'I',
        CookieSent::Deleted => 'D',
    };
    (asked, answered)
}

fn write_request(line: &mut Vec<u8>, record: &Record) -> io::Result<()> {
    let Some(request) = record.request.as_ref().filter(|_| record.accepted) else {
        return line.write_all(b"\"<BADREQ>\"");
    };
    write!(line, "\"{} ", request.method)?;
    for byte in request.target.bytes() {
        match byte {
            b'"' | b'#' | ..b' ' | 0x7F.. => write!(line, "#{byte:02X}")?,
            _ => line.push(byte),
        }
    }
    write!(line, " {}\"", request.version())
}

/// Writes a time down to its second, anew only when the second is another.
#[derive(Debug, Default)]
struct Clock {
    second: i64,
    text: String,
}

impl Clock {
    fn second(&mut self, at: OffsetDateTime) -> &str {
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let second = at.unix_timestamp();
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text.clear();
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
        let flags = |affinity, sent| {
            let (asked, answered) = cookie_flags(affinity, sent);
            format!("{asked}{answered}")
        };
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
        let at = |second| OffsetDateTime::from_unix_timestamp(second).unwrap();
        let mut clock = Clock::default();
        assert_eq!(clock.second(at(0)), "01/Jan/1970:00:00:00");
        assert_eq!(clock.second(at(86_400)), "02/Jan/1970:00:00:00");
        assert_eq!(clock.second(at(59)), "01/Jan/1970:00:00:59");
    }
}
