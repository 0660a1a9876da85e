//! The charts of a row, and the figures beside them.

use std::num::NonZeroU32;

use maud::{Markup, html};

use super::spark;
use crate::stats::history::{PERIOD, Point, Rows, Series, Summary};

/// The fastest that the scale of durations tells apart, in microseconds.
const FASTEST: f32 = 500.0;

/// Orders of magnitude from there to the top: ten seconds.
const DECADES: f32 = 4.3;

/// What the charts of all servers are drawn against: on one scale, the server
/// that has more than its share stands out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    requests: u32,
    errors: u32,
}

impl Scale {
    /// That of the servers.
    pub(super) fn of_servers(rows: &Rows) -> Self {
        Self::of(rows.servers())
    }

    /// That of one row alone.
    pub(super) fn own(series: &Series) -> Self {
        Self::of(std::iter::once(series))
    }

    fn of<'a>(series: impl Iterator<Item = &'a Series>) -> Self {
        let mut scale = Self {
            requests: 1,
            errors: 1,
        };
        for point in series.flat_map(Series::points) {
            scale.requests = scale.requests.max(point.requests);
            scale.errors = scale.errors.max(point.errors);
        }
        scale
    }
}

/// Requests a second.
pub(super) fn requests(series: &Series, scale: Scale) -> Markup {
    let share = |point: Point| point.requests as f32 / scale.requests as f32;
    let rate = f64::from(series.last().requests) / f64::from(PERIOD);
    html! {
        (draw("requests", &spark::area(series.points().map(share))))
        span.zero[rate == 0.0] { (short(rate)) "/s" }
    }
}

/// The requests of the last minutes in words.
pub(super) fn requests_in_words(summary: &Summary) -> String {
    format!(
        "{} requests in the last 5 minutes, at most {} a second",
        summary.requests,
        short(f64::from(summary.busiest) / f64::from(PERIOD))
    )
}

/// How long requests took: the median and the 99th percentile, on a scale of
/// orders of magnitude.
pub(super) fn latency(series: &Series, summary: &Summary) -> Markup {
    let line = |of: fn(&Point) -> Option<NonZeroU32>| {
        spark::line(series.points().map(|point| of(&point).map(magnitude)))
    };
    let (p50, p99) = (line(|point| point.p50), line(|point| point.p99));
    html! {
        svg.chart viewBox="0 0 59 20" preserveAspectRatio="none" aria-hidden="true" {
            path.p99 d=(p99) {}
            path.p50 d=(p50) {}
        }
        span {
            @if let (Some(p50), Some(p99)) = (summary.p50, summary.p99) {
                (millis(p50)) " / " (millis(p99)) " ms"
            } @else { span.zero { "–" } }
        }
    }
}

/// Requests that failed.
pub(super) fn errors(series: &Series, summary: &Summary, scale: Scale) -> Markup {
    let share = |point: Point| point.errors as f32 / scale.errors as f32;
    html! {
        (draw("errors", &spark::bars(series.points().map(share))))
        @if summary.errors > 0 { strong.bad { (summary.errors) } } @else { span.zero { "0" } }
    }
}

fn draw(class: &str, path: &str) -> Markup {
    html! {
        svg.chart viewBox="0 0 59 20" preserveAspectRatio="none" aria-hidden="true" {
            path class=(class) d=(path) {}
        }
    }
}

/// Where a duration lies between the fastest and the top.
fn magnitude(micros: NonZeroU32) -> f32 {
    (micros.get() as f32 / FASTEST).log10() / DECADES
}

/// A figure with a digit after the point where it is small.
pub(super) fn short(figure: f64) -> String {
    if figure == 0.0 {
        "0".into()
    } else if figure < 9.95 {
        format!("{figure:.1}")
    } else {
        format!("{figure:.0}")
    }
}

/// Microseconds as milliseconds.
pub(super) fn millis(micros: NonZeroU32) -> String {
    short(f64::from(micros.get()) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_figures_have_a_digit_after_the_point() {
        let texts = [0.0, 0.2, 9.94, 9.96, 1234.5].map(short);
        assert_eq!(texts, ["0", "0.2", "9.9", "10", "1234"]);
    }

    #[test]
    fn durations_are_drawn_by_their_order_of_magnitude() {
        let at = |micros| magnitude(NonZeroU32::new(micros).unwrap());
        assert!(at(100) < 0.0);
        assert!((at(5_000) - 1.0 / DECADES).abs() < 1e-6);
        assert!(at(9_900_000) > 0.99);
    }
}
