//! Charts the size of a word: the last minutes as an SVG path.
//!
//! A chart is 59 by 20 units, a unit to a point, and is stretched to its
//! cell. Coordinates are whole and relative, which keeps a path at some 200
//! bytes.

use std::fmt::Write as _;

use crate::stats::history::POINTS;

/// The height, and the highest a point can lie.
const HEIGHT: i32 = 20;

/// Fills the space between the points and the base line. Points are shares of
/// the height, the newest at the right edge.
pub(super) fn area(points: impl ExactSizeIterator<Item = f32> + Clone) -> String {
    // A row without requests keeps still while its minutes go by.
    if points.clone().all(|point| level(point) == 0) {
        return String::new();
    }
    let start = start(points.len());
    let mut path = format!("M{start} {HEIGHT}");
    let mut height = 0;
    for (count, point) in points.enumerate() {
        let next = level(point);
        if count == 0 {
            write!(path, "v{}", -next).expect("a string takes any text");
        } else {
            write!(path, "l1 {}", height - next).expect("a string takes any text");
        }
        height = next;
    }
    write!(path, "v{height}z").expect("a string takes any text");
    path
}

/// A line through the points; where there is none, it has a gap.
pub(super) fn line(points: impl ExactSizeIterator<Item = Option<f32>>) -> String {
    let mut path = String::new();
    let mut before = None;
    for (x, point) in (start(points.len())..).zip(points) {
        let next = point.map(level);
        match (before, next) {
            (_, None) => {}
            (Some(height), Some(next)) => {
                write!(path, "l1 {}", height - next).expect("a string takes any text");
            }
            // A point alone is a dot: a line of no length with round ends.
            (None, Some(next)) => {
                write!(path, "M{x} {}h0", HEIGHT - next).expect("a string takes any text");
            }
        }
        before = next;
    }
    path
}

/// A bar for each point that is not zero, at least two units high: one error
/// among many is still seen.
pub(super) fn bars(points: impl ExactSizeIterator<Item = f32>) -> String {
    let mut path = String::new();
    for (x, point) in (start(points.len())..).zip(points) {
        if point > 0.0 {
            let height = level(point).max(2);
            write!(path, "M{x} {HEIGHT}v{}", -height).expect("a string takes any text");
        }
    }
    path
}

/// Where the oldest of so many points lies.
fn start(points: usize) -> i32 {
    i32::try_from(POINTS.saturating_sub(points)).unwrap_or(0)
}

fn level(share: f32) -> i32 {
    // A share that is none, such as 0/0, lies on the base line.
    (share.clamp(0.0, 1.0) * HEIGHT as f32).round() as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_area_ends_at_the_right_edge_and_returns_to_the_base() {
        assert_eq!(
            area([0.5, 1.0, 0.0].into_iter()),
            "M57 20v-10l1 -10l1 20v0z"
        );
        assert_eq!(area([0.0; 5].into_iter()), "");
    }

    #[test]
    fn a_line_has_a_gap_where_nothing_was_measured() {
        let points = [Some(0.0), Some(0.5), None, Some(1.0)];
        assert_eq!(line(points.into_iter()), "M56 20h0l1 -10M59 0h0");
        assert_eq!(line([None; 3].into_iter()), "");
    }

    #[test]
    fn the_smallest_error_is_seen() {
        assert_eq!(bars([0.0, 0.001, 1.0].into_iter()), "M58 20v-2M59 20v-20");
    }

    proptest! {
        #[test]
        fn any_figures_make_a_path_within_the_box(points: Vec<f32>) {
            for path in [area(points.iter().copied()), bars(points.iter().copied())] {
                prop_assert!(!path.contains("NaN") && !path.contains("inf"));
            }
            let path = area(points.iter().copied());
            let mut height = 0i32;
            for step in path.split("l1 ").skip(1) {
                let step: i32 = step.split(['v', 'z']).next().unwrap().parse().unwrap();
                height += step;
                prop_assert!(height.abs() <= HEIGHT);
            }
        }
    }
}
