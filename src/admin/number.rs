//! Reads numbers and times as C and `HAProxy` do. Pure.

use std::time::Duration;

/// The number that a text begins with, as C's `strtol` finds it, and the rest.
/// What is too long for a number is the largest one.
pub(super) fn leading_number(text: &str) -> Option<(i64, &str)> {
    let sign = usize::from(text.starts_with(['-', '+']));
    let end = text
        .char_indices()
        .skip(sign)
        .find(|(_, c)| !c.is_ascii_digit())
        .map_or(text.len(), |(at, _)| at);
    let (number, rest) = text.split_at(end);
    if !number.ends_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let overflow = if number.starts_with('-') {
        i64::MIN
    } else {
        i64::MAX
    };
    Some((number.parse().unwrap_or(overflow), rest))
}

/// What C's `atoi` makes of a text.
pub(super) fn atoi(text: &str) -> i64 {
    leading_number(text).map_or(0, |(number, _)| number)
}

/// A duration in `HAProxy`'s units; a number alone is in `unit`.
pub(super) fn time(text: &str, unit: Duration) -> Option<Duration> {
    let (number, suffix) = leading_number(text)?;
    let number = u32::try_from(number).ok()?;
    let unit = match suffix {
        "" => unit,
        "us" => Duration::from_micros(1),
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_mins(1),
        "h" => Duration::from_hours(1),
        "d" => Duration::from_hours(24),
        _ => return None,
    };
    unit.checked_mul(number).filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_ends_where_its_digits_do() {
        assert_eq!(leading_number("12%"), Some((12, "%")));
        assert_eq!(leading_number("-3"), Some((-3, "")));
        assert_eq!(leading_number("+3x"), Some((3, "x")));
        assert_eq!(leading_number("x3"), None);
        assert_eq!(leading_number("-"), None);
        assert_eq!(leading_number(""), None);
        let long = "9".repeat(40);
        assert_eq!(leading_number(&long), Some((i64::MAX, "")));
        assert_eq!(atoi("7up"), 7);
        assert_eq!(atoi("up"), 0);
    }

    #[test]
    fn a_time_has_a_unit_or_the_usual_one() {
        let second = Duration::from_secs(1);
        assert_eq!(time("3", second), Some(3 * second));
        assert_eq!(time("3ms", second), Some(Duration::from_millis(3)));
        assert_eq!(time("2d", second), Some(Duration::from_hours(48)));
        for wrong in ["", "0", "-1", "3x", "3 s", "99999999999"] {
            assert_eq!(time(wrong, second), None, "{wrong}");
        }
    }
}
