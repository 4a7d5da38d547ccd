//! A panel of the picture: points and their limit.

use super::axis::{Axis, Scale};

/// Steps of the line of a limit.
const STEPS: u32 = 24;

/// Speed against a number of tokens.
pub struct Panel {
    pub name: String,
    /// What the horizontal axis counts.
    pub unit: String,
    /// Sorted by tokens.
    pub points: Vec<Point>,
    pub limit_name: String,
    /// Tokens, and the most tokens a second with them.
    pub limit: Vec<(usize, f64)>,
    pub axis: Axis,
}

/// A measurement, in tokens a second.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub tokens: usize,
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Panel {
    /// `limit` is the most tokens a second, if it is known.
    pub fn new(
        name: &str,
        unit: &str,
        scale: Scale,
        mut points: Vec<Point>,
        limit_name: &str,
        limit: impl Fn(usize) -> Option<f64>,
    ) -> Self {
        points.sort_by_key(|point| point.tokens);
        let numbers: Vec<_> = points.iter().map(|point| point.tokens).collect();
        let between = match (numbers.first(), numbers.last()) {
            (Some(&first), Some(&last)) => scale.between(first, last, STEPS),
            _ => Vec::new(),
        };
        let limit = between.into_iter().filter_map(|n| Some((n, limit(n)?))).collect();
        let axis = Axis::new(scale, &numbers);
        let [name, unit, limit_name] = [name, unit, limit_name].map(str::to_owned);
        Self { name, unit, points, limit_name, limit, axis }
    }

    /// The end of the vertical axis, which begins at 0.
    pub fn top(&self) -> f64 {
        let measured = self.points.iter().map(|point| point.most);
        let limits = self.limit.iter().map(|&(_, limit)| limit);
        1.06 * measured.chain(limits).fold(0.0, f64::max)
    }
}
