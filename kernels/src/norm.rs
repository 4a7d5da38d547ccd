//! Layer normalization and RMS normalization of a row.

use crate::simd::{Kernel, LANES, Vectors};

/// `y = (x − mean(x)) / √(var(x) + eps) · weight + bias` over one row; the variance is divided by `n`.
pub struct LayerNorm<'a> {
    /// `[n]`
    pub x: &'a [f32],
    /// `[n]`
    pub weight: &'a [f32],
    /// `[n]`
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
    /// `[n]`
    pub y: &'a mut [f32],
}

impl Kernel for LayerNorm<'_> {
    type Output = ();

    /// # Panics
    /// If the lengths differ.
    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) {
        let n = self.x.len();
        let fits = self.weight.len() == n && self.bias.len() == n && self.y.len() == n;
        assert!(fits, "lengths of a norm");
        let mean = sum(simd, self.x) / n as f32;
        let variance = sum_of_squares(simd, self.x, mean) / n as f32;
        let scale = 1.0 / (variance + self.eps).sqrt();

        let (xs, x_tail) = self.x.as_chunks::<LANES>();
        let (weights, weight_tail) = self.weight.as_chunks::<LANES>();
        let (biases, bias_tail) = self.bias.as_chunks::<LANES>();
        let (ys, y_tail) = self.y.as_chunks_mut::<LANES>();
        for (((x, weight), bias), y) in xs.iter().zip(weights).zip(biases).zip(ys) {
            let centred = simd.sub(simd.load(x), simd.splat(mean));
            let x = simd.mul(centred, simd.splat(scale));
            simd.store(simd.fma(x, simd.load(weight), simd.load(bias)), y);
        }
        for (((x, weight), bias), y) in x_tail.iter().zip(weight_tail).zip(bias_tail).zip(y_tail) {
            *y = (x - mean) * scale * weight + bias;
        }
    }
}

/// `y = x / √(mean(x²) + eps) · weight` over one row.
pub struct RmsNorm<'a> {
    /// `[n]`
    pub x: &'a [f32],
    /// `[n]`
    pub weight: &'a [f32],
    /// Added to the mean of the squares.
    pub eps: f32,
    /// `[n]`
    pub y: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    /// # Panics
    /// If the lengths differ.
    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) {
        let n = self.x.len();
        assert!(self.weight.len() == n && self.y.len() == n, "lengths of a norm");
        let scale = 1.0 / (sum_of_squares(simd, self.x, 0.0) / n as f32 + self.eps).sqrt();

        let (xs, x_tail) = self.x.as_chunks::<LANES>();
        let (weights, weight_tail) = self.weight.as_chunks::<LANES>();
        let (ys, y_tail) = self.y.as_chunks_mut::<LANES>();
        for ((x, weight), y) in xs.iter().zip(weights).zip(ys) {
            let x = simd.mul(simd.load(x), simd.splat(scale));
            simd.store(simd.mul(x, simd.load(weight)), y);
        }
        for ((x, weight), y) in x_tail.iter().zip(weight_tail).zip(y_tail) {
            *y = x * scale * weight;
        }
    }
}

#[inline(always)]
fn sum<S: Vectors>(simd: S, x: &[f32]) -> f32 {
    let (xs, tail) = x.as_chunks::<LANES>();
    let mut lanes = simd.splat(0.0);
    for x in xs {
        lanes = simd.add(lanes, simd.load(x));
    }
    tail.iter().fold(simd.sum(lanes), |sum, x| sum + x)
}

#[inline(always)]
fn sum_of_squares<S: Vectors>(simd: S, x: &[f32], mean: f32) -> f32 {
    let (xs, tail) = x.as_chunks::<LANES>();
    let mut lanes = simd.splat(0.0);
    for x in xs {
        let centred = simd.sub(simd.load(x), simd.splat(mean));
        lanes = simd.fma(centred, centred, lanes);
    }
    tail.iter().fold(simd.sum(lanes), |sum, x| sum + (x - mean) * (x - mean))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{close_to, values};
    use crate::{Isa, reference};

    /// Largest error seen in 4000 cases, relative to [`conditioning`]: 2.3e-7.
    const NORM_ERROR: f32 = 5e-7;

    /// Largest relative error seen in 8000 cases: 3.2e-7.
    const RMS_ERROR: f32 = 5e-7;

    /// The scale of the rounding errors: the mean has the rounding error of the largest input, and the division by a small
    /// deviation magnifies it.
    fn conditioning(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
        let n = x.len() as f32;
        let mean = x.iter().sum::<f32>() / n;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n;
        let largest = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let magnified = largest / (variance + eps).sqrt();
        weight.iter().zip(bias).map(|(w, b)| 1.0 + b.abs() + w.abs() * magnified).collect()
    }

    proptest! {
        #[test]
        fn layer_norm_is_its_definition(
            (x, weight, bias) in (1usize..300).prop_flat_map(|n| (values(n), values(n), values(n))),
        ) {
            let eps = 1e-5;
            for isa in Isa::available() {
                let mut y = vec![f32::NAN; x.len()];
                isa.run(LayerNorm { x: &x, weight: &weight, bias: &bias, eps, y: &mut y });
                let expected = reference::layer_norm(&x, &weight, &bias, eps);
                close_to(&y, &expected, &conditioning(&x, &weight, &bias, eps), NORM_ERROR, isa);
            }
        }

        #[test]
        fn rms_norm_is_its_definition(
            (x, weight) in (1usize..300).prop_flat_map(|n| (values(n), values(n))),
            eps in prop_oneof![Just(1e-5f32), Just(1.5625e-7)],
        ) {
            for isa in Isa::available() {
                let mut y = vec![f32::NAN; x.len()];
                isa.run(RmsNorm { x: &x, weight: &weight, eps, y: &mut y });
                let expected = reference::rms_norm(&x, &weight, eps);
                let bound: Vec<_> = expected.iter().map(|y| y.abs() + f32::MIN_POSITIVE).collect();
                close_to(&y, &expected, &bound, RMS_ERROR, isa);
            }
        }
    }
}
