//! Figures in few characters. Pure.

/// A count in four characters: `950`, `1.2k`, `12k`, `1.2M`.
pub(super) fn count(count: u64) -> String {
    let scaled = |unit: u64, letter: char| {
        let (whole, tenth) = (count / unit, count % unit * 10 / unit);
        if whole < 10 {
            format!("{whole}.{tenth}{letter}")
        } else {
            format!("{whole}{letter}")
        }
    };
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => scaled(1_000, 'k'),
        1_000_000..1_000_000_000 => scaled(1_000_000, 'M'),
        _ => scaled(1_000_000_000, 'G'),
    }
}

/// Milliseconds in six characters: `0.4ms`, `12ms`, `1.2s`.
pub(super) fn millis(millis: Option<f64>) -> String {
    match millis {
        None => "-".to_owned(),
        Some(millis) if millis < 9.95 => format!("{millis:.1}ms"),
        Some(millis) if millis < 999.5 => format!("{millis:.0}ms"),
        Some(millis) if millis < 9_950.0 => format!("{:.1}s", millis / 1000.0),
        Some(millis) => format!("{:.0}s", millis / 1000.0),
    }
}

/// A time in its largest unit: `59s`, `59m`, `23h`, `999d`.
pub(super) fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A time in its two largest units: `5m 12s`.
pub(super) fn long_age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m {}s", seconds % 60),
        3_600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// Rates as bars, all to the same scale; where nobody watched there is none.
pub(super) fn bars(rates: &[Option<u64>], most: u64) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let bar = |rate: &Option<u64>| {
        let level = match *rate {
            None => return ' ',
            Some(0) => 0,
            // What is more than nothing stands above the ground.
            Some(rate) => 1 + rate.saturating_mul(7).saturating_sub(1) / most.max(1),
        };
        BARS.get(level as usize).copied().unwrap_or('█')
    };
    rates.iter().map(bar).collect()
}

/// A text in lines of at most `width` characters, broken between words.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else {
            break;
        };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_to_their_columns() {
        for (given, shown) in [
            (0, "0"),
            (9_999, "9999"),
            (12_345, "12k"),
            (999_999, "999k"),
            (1_250_000, "1.2M"),
            (u64::MAX, "18446744073G"),
        ] {
            assert_eq!(count(given), shown);
        }
        for (given, shown) in [
            (0.04, "0.0ms"),
            (9.96, "10ms"),
            (999.4, "999ms"),
            (1_240.0, "1.2s"),
            (60_000.0, "60s"),
        ] {
            assert_eq!(millis(Some(given)), shown);
        }
        assert_eq!(millis(None), "-");
        assert_eq!([age(59), age(3_599), age(90_000)], ["59s", "59m", "1d"]);
        assert_eq!([long_age(312), long_age(90_061)], ["5m 12s", "1d 1h"]);
    }

    #[test]
    fn bars_tell_nothing_from_a_little() {
        let rates = [None, Some(0), Some(1), Some(50), Some(100)];
        assert_eq!(bars(&rates, 100), " ▁▂▅█");
        assert_eq!(bars(&[Some(0)], 0), "▁");
    }

    #[test]
    fn a_text_breaks_between_words() {
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("toolongaword a", 4), ["toolongaword", "a"]);
    }
}
