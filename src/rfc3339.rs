//! Times as RFC 3339 has them, in UTC.

use std::fmt;

use time::OffsetDateTime;

/// To the millisecond.
pub fn millis(at: impl Into<OffsetDateTime>) -> String {
    let at = at.into();
    format!("{}.{:03}Z", second(at), at.millisecond())
}

/// To the microsecond.
pub fn micros(at: impl Into<OffsetDateTime>) -> String {
    let at = at.into();
    format!("{}.{:06}Z", second(at), at.microsecond())
}

fn second(at: OffsetDateTime) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second) = at.to_hms();
        let month = u8::from(month);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_time_is_utc_and_never_ahead() {
        let at = UNIX_EPOCH + Duration::from_micros(1_795_354_875_823_999);
        assert_eq!(millis(at), "2026-11-22T13:41:15.823Z");
        assert_eq!(micros(at), "2026-11-22T13:41:15.823999Z");
        assert_eq!(millis(UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }
}
