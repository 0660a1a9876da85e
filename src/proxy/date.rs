//! The time as `Date` has it (RFC 9110 §5.6.7), written down once a second.

use std::{cell::Cell, time::SystemTime};

use crate::counters::unix_seconds;

/// How long a date is.
const LENGTH: usize = 29;

/// One worker's clock.
#[derive(Debug, Default)]
pub(super) struct Date {
    last: Cell<(i64, [u8; LENGTH])>,
}

impl Date {
    /// The date of this second.
    pub(super) fn now(&self) -> [u8; LENGTH] {
        let (second, text) = self.last.get();
        let now = unix_seconds();
        if second == now {
            return text;
        }
        let mut text = [b' '; LENGTH];
        for (place, byte) in text
            .iter_mut()
            .zip(httpdate::fmt_http_date(SystemTime::now()).bytes())
        {
            *place = byte;
        }
        self.last.set((now, text));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_http_has_it() {
        let date = Date::default();
        let text = String::from_utf8(date.now().to_vec()).unwrap();
        assert!(text.ends_with(" GMT"), "{text}");
        let read = httpdate::parse_http_date(&text).unwrap();
        assert!(read.elapsed().unwrap().as_secs() < 5);
    }
}
