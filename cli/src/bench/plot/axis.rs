//! A horizontal axis: numbers of tokens.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

/// Labels of a logarithmic axis are at least this part of it apart.
const LABEL_DISTANCE: f64 = 0.09;

/// Most labels of a linear axis after that of 0.
const LABELS: f64 = 5.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From 0.
    Linear,
    /// To the base 2. Numbers are positive.
    Logarithmic,
}

#[derive(Debug, Clone)]
pub struct Axis {
    scale: Scale,
    /// The ends, as places.
    start: f64,
    end: f64,
    labels: Vec<usize>,
}

impl Axis {
    /// An axis with room for these numbers, which are sorted.
    pub fn new(scale: Scale, numbers: &[usize]) -> Self {
        let place = |number: Option<&usize>| number.map_or(0.0, |&number| scale.place(number));
        let (first, last) = (place(numbers.first()), place(numbers.last()));
        let (start, end) = match scale {
            Scale::Linear => (0.0, (last * 1.03).max(8.0)),
            Scale::Logarithmic => (first - 0.25, last + 0.25),
        };
        let labels = match scale {
            Scale::Linear => {
                (0..=end as usize).step_by(round_step((end / LABELS).ceil() as usize)).collect()
            }
            Scale::Logarithmic => {
                let mut labels: Vec<usize> = Vec::new();
                for &number in numbers {
                    let distance = scale.place(number) - place(labels.last());
                    if labels.is_empty() || distance >= LABEL_DISTANCE * (end - start) {
                        labels.push(number);
                    }
                }
                labels
            }
        };
        Self { scale, start, end, labels }
    }

    pub fn labels(&self) -> usize {
        self.labels.len()
    }
}

impl Scale {
    fn place(self, number: usize) -> f64 {
        match self {
            Self::Linear => number as f64,
            Self::Logarithmic => (number.max(1) as f64).log2(),
        }
    }

    /// Numbers from the first to the last, evenly placed.
    pub fn between(self, first: usize, last: usize, steps: u32) -> Vec<usize> {
        let (start, end) = (self.place(first), self.place(last));
        let mut numbers: Vec<_> = (0..=steps)
            .map(|i| start + (end - start) * f64::from(i) / f64::from(steps))
            .map(|place| match self {
                Self::Linear => place.round() as usize,
                Self::Logarithmic => place.exp2().round() as usize,
            })
            .collect();
        numbers.dedup();
        numbers
    }
}

/// The first of 1, 2, 5, 10, 20, 50, … that is not smaller.
fn round_step(least: usize) -> usize {
    let mut power = 1usize;
    loop {
        for step in [1, 2, 5].map(|digit| power.saturating_mul(digit)) {
            if step >= least {
                return step;
            }
        }
        power = power.saturating_mul(10);
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = usize;

    fn map(&self, number: &usize, limit: (i32, i32)) -> i32 {
        let part = (self.scale.place(*number) - self.start) / (self.end - self.start);
        limit.0 + (part * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<usize> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.labels.clone() }
    }

    fn range(&self) -> Range<usize> {
        0..usize::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_round_or_measured_and_do_not_overlap() {
        let labels = |scale, numbers: &[usize]| Axis::new(scale, numbers).labels;
        assert_eq!(labels(Scale::Linear, &[32, 128, 2000]), [0, 500, 1000, 1500, 2000]);
        assert_eq!(labels(Scale::Linear, &[0]), [0, 2, 4, 6, 8]);
        assert_eq!(labels(Scale::Logarithmic, &[16, 32, 64]), [16, 32, 64]);
        assert_eq!(labels(Scale::Logarithmic, &[100, 110, 1000, 1024]), [100, 1000]);
        assert_eq!(labels(Scale::Logarithmic, &[1]), [1]);
        let large = labels(Scale::Linear, &[1_000_000]);
        assert!((2..=7).contains(&large.len()), "{large:?}");
    }

    #[test]
    fn numbers_are_within_the_axis() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let axis = Axis::new(scale, &[1, 300]);
            let between = scale.between(1, 300, 20);
            assert_eq!((between.first(), between.last()), (Some(&1), Some(&300)));
            let pixels: Vec<_> = between.iter().map(|n| axis.map(n, (10, 410))).collect();
            assert!(pixels.is_sorted() && pixels.iter().all(|pixel| (10..=410).contains(pixel)));
        }
    }
}
