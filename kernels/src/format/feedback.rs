//! Rounding with error feedback: weights → integers and scales, such that the outputs for given inputs change least.
//!
//! With `H` the second moments of the inputs and `H = L·Lᵀ` (Cholesky), the squared error of the outputs of a row of weights `w` is
//!
//! ```text
//! ‖(w − ŵ)·L‖² = Σₘ (vₘ − ŵₘ)²·Lₘₘ²     vₘ = wₘ + Σᵢ (wᵢ − ŵᵢ)·Lᵢₘ / Lₘₘ over i > m
//! ```
//!
//! So the columns are rounded from the last to the first, each to the level that is nearest to `v`, which makes up for the errors of
//! those before. This is GPTQ (arXiv 2210.17323) in the form of LDLQ (arXiv 2307.13304). The scale of a group, and its offset if it has
//! one, are those of the least error after its columns are rounded.

use half::f16;

use super::{Bits, GroupForm, minimum};
use crate::Isa;
use crate::simd::{Kernel, LANES, Vectors};

/// Most columns of a [`RoundRow`].
pub const MAX_COLUMNS: usize = 128;

/// Scales that are tried at once: two vectors.
const TRIED: usize = 2 * LANES;

/// Part of a row that is rounded with feedback.
pub struct RoundRow<'a> {
    /// Bits of the integers; four with [`GroupForm::Minimum`].
    pub bits: Bits,
    /// What a group stores.
    pub form: GroupForm,
    /// Columns that share a scale; at the end of the part there may be fewer.
    pub group: usize,
    /// `w`, `[n]`, at most [`MAX_COLUMNS`].
    pub weights: &'a [f32],
    /// The feedback of the columns behind these: `Σ (wᵢ − ŵᵢ)·Lᵢₘ / Lₘₘ`, `[n]`.
    pub feedback: &'a [f32],
    /// `Lᵢₘ / Lₘₘ` of these columns at `m·n + i`, `[n][n]`; empty if `L` is diagonal.
    pub factor: &'a [f32],
    /// `Lₘₘ²`, `[n]`.
    pub squares: &'a [f32],
    /// The integers of `ŵ`, `[n]`.
    pub integers: &'a mut [i8],
    /// `w − ŵ`, `[n]`.
    pub errors: &'a mut [f32],
    /// `[groups]`, or `[groups][2]` with the offsets. What exceeds `f16` becomes infinite or NaN.
    pub scales: &'a mut [f16],
}

impl RoundRow<'_> {
    /// Rounds with the instructions of `isa`; returns the squared error of the outputs.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn round(self, isa: Isa) -> f32 {
        isa.run(self)
    }
}

impl Kernel for RoundRow<'_> {
    /// The squared error of the outputs.
    type Output = f32;

    /// # Panics
    /// If the lengths do not fit, or the form has zero points.
    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) -> f32 {
        assert_ne!(self.form, GroupForm::ZeroPoint, "zero points are read, not chosen");
        let n = self.weights.len();
        let fits = self.feedback.len() == n && self.squares.len() == n && self.errors.len() == n;
        let diagonal = self.factor.is_empty();
        assert!(diagonal || self.factor.len() == n * n, "columns of a row");
        assert!(fits && self.integers.len() == n, "columns of a row");
        assert!(n <= MAX_COLUMNS && self.group > 0, "columns of a row");
        let numbers = self.form.numbers();
        assert_eq!(self.scales.len(), n.div_ceil(self.group) * numbers, "scales of a row");
        let mut targets = [0.0; MAX_COLUMNS];
        let mut loss = 0.0;
        for (index, scales) in self.scales.chunks_exact_mut(numbers).enumerate().rev() {
            let (from, to) = (index * self.group, ((index + 1) * self.group).min(n));
            for m in from..to {
                let behind = match diagonal {
                    true => 0.0,
                    false => dot(simd, &self.factor[m * n + to..(m + 1) * n], &self.errors[to..]),
                };
                targets[m] = self.weights[m] + (self.feedback[m] + behind);
            }
            let group = Group {
                weights: &self.weights[from..to],
                targets: &targets[from..to],
                factor: if diagonal { &[] } else { &self.factor[from * n + from..] },
                stride: n,
                squares: &self.squares[from..to],
                limits: limits(self.bits),
            };
            let [scale, offset] = match self.form {
                GroupForm::Scale => [group.scale(simd), 0.0],
                _ => minimum::with_feedback(simd, &group),
            };
            scales.copy_from_slice(&[scale, offset].map(f16::from_f32)[..numbers]);
            let inverse = super::quantize::inverse(scale);
            let (low, high) = group.limits;
            for m in (from..to).rev() {
                let behind = match diagonal {
                    true => 0.0,
                    false => dot(simd, &self.factor[m * n..][m + 1..to], &self.errors[m + 1..to]),
                };
                let target = targets[m] + behind;
                let level = ((target - offset) * inverse).max(low).min(high).round_ties_even();
                let value = level * scale + offset;
                self.integers[m] = level as i8;
                self.errors[m] = self.weights[m] - value;
                loss += (target - value) * (target - value) * self.squares[m];
            }
        }
        loss
    }
}

/// The least and the largest integer.
fn limits(bits: Bits) -> (f32, f32) {
    match bits {
        Bits::Four => (-8.0, 7.0),
        Bits::Eight => (-127.0, 127.0),
    }
}

/// A group of columns of a row.
pub(super) struct Group<'a> {
    pub(super) weights: &'a [f32],
    /// Weights and the feedback of the columns behind the group.
    pub(super) targets: &'a [f32],
    /// Feedback of column `i` to column `m` at `m · stride + i`; empty if there is none.
    pub(super) factor: &'a [f32],
    pub(super) stride: usize,
    pub(super) squares: &'a [f32],
    limits: (f32, f32),
}

struct Best {
    scale: f32,
    loss: f32,
}

impl Group<'_> {
    /// Finds the scale, first on a coarse and then on a fine grid.
    #[inline(always)]
    fn scale<S: Vectors>(&self, simd: S) -> f32 {
        let mut largest = 0f32;
        for &target in self.targets {
            if target.abs() > largest.abs() {
                largest = target;
            }
        }
        let (low, high) = self.limits;
        // The largest becomes a level near the least integer, or near the largest. With four bits, the scales that
        // `quantize_row` tries are among these.
        let mut scales = [0.0; TRIED];
        for (i, scale) in scales.iter_mut().enumerate() {
            *scale = match i {
                0..10 => largest / (low * (1.1875 - 0.0625 * i as f32)),
                _ => largest / (high * (1.05 - 0.06 * (i - 10) as f32)),
            };
        }
        let none = Best { scale: f32::NAN, loss: f32::INFINITY };
        let coarse = self.try_scales(simd, &scales, none);
        for (i, scale) in scales.iter_mut().enumerate() {
            *scale = coarse.scale * (1.0 + 0.004 * (i as f32 - 7.5));
        }
        self.try_scales(simd, &scales, coarse).scale
    }

    /// Rounds the columns with each of the scales; returns the best of them and `best`.
    #[inline(always)]
    fn try_scales<S: Vectors>(&self, simd: S, scales: &[f32; TRIED], mut best: Best) -> Best {
        let n = self.targets.len();
        let mut rounded = [0.0; TRIED];
        let mut inverses = [0.0; TRIED];
        for c in 0..TRIED {
            rounded[c] = f16::from_f32(scales[c]).to_f32();
            inverses[c] = super::quantize::inverse(rounded[c]);
        }
        let scale = pair(simd, &rounded);
        let inverse = pair(simd, &inverses);
        let (low, high) = (simd.splat(self.limits.0), simd.splat(self.limits.1));
        let zero = simd.splat(0.0);
        let mut of = [[zero; 2]; MAX_COLUMNS];
        let mut losses = [zero; 2];
        for m in (0..n).rev() {
            let mut target = [simd.splat(self.targets[m]); 2];
            if !self.factor.is_empty() {
                let column = &self.factor[m * self.stride..][..n];
                for i in m + 1..n {
                    let factor = simd.splat(column[i]);
                    for half in 0..2 {
                        target[half] = simd.add(target[half], simd.mul(factor, of[i][half]));
                    }
                }
            }
            let (weight, square) = (simd.splat(self.weights[m]), simd.splat(self.squares[m]));
            for half in 0..2 {
                // Clamped before it is rounded: the limits are integers.
                let level = simd.mul(target[half], inverse[half]);
                let level = simd.round(simd.min(simd.max(level, low), high));
                let value = simd.mul(level, scale[half]);
                let error = simd.sub(target[half], value);
                losses[half] = simd.add(losses[half], simd.mul(simd.mul(error, error), square));
                of[m][half] = simd.sub(weight, value);
            }
        }
        let mut all = [[0.0; LANES]; 2];
        for half in 0..2 {
            simd.store(losses[half], &mut all[half]);
        }
        for c in 0..TRIED {
            let loss = all[c / LANES][c % LANES];
            if loss < best.loss && rounded[c].is_finite() {
                best = Best { scale: rounded[c], loss };
            }
        }
        best
    }
}

#[inline(always)]
fn pair<S: Vectors>(simd: S, values: &[f32; TRIED]) -> [S::F32; 2] {
    let (halves, _) = values.as_chunks::<LANES>();
    [simd.load(&halves[0]), simd.load(&halves[1])]
}

/// `Σ a·b`, with the same bits on all instruction sets.
#[inline(always)]
pub(super) fn dot<S: Vectors>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sum = simd.splat(0.0);
    for (a, b) in a.iter().zip(b) {
        sum = simd.add(sum, simd.mul(simd.load(a), simd.load(b)));
    }
    let mut total = simd.sum(sum);
    for (a, b) in a_rest.iter().zip(b_rest) {
        total += a * b;
    }
    total
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Shape;
    use crate::quantize::quantize_row;
    use crate::testing::values;

    /// A part of a row with the factor of its inputs.
    #[derive(Debug, Clone)]
    struct Part {
        bits: Bits,
        form: GroupForm,
        group: usize,
        weights: Vec<f32>,
        feedback: Vec<f32>,
        factor: Vec<f32>,
        squares: Vec<f32>,
    }

    struct Rounded {
        integers: Vec<i8>,
        errors: Vec<f32>,
        scales: Vec<f16>,
        loss: f32,
    }

    fn parts() -> impl Strategy<Value = Part> {
        let four = |form| Just((Bits::Four, form));
        let kind = prop_oneof![
            four(GroupForm::Scale),
            four(GroupForm::Minimum),
            Just((Bits::Eight, GroupForm::Scale))
        ];
        let group = prop_oneof![Just(32), Just(64), Just(128)];
        (kind, group, 1..=MAX_COLUMNS).prop_flat_map(|((bits, form), group, n)| {
            (values(n), values(n), values(n * n), values(n)).prop_map(
                move |(weights, feedback, mut factor, squares)| {
                    for m in 0..n {
                        for i in 0..n {
                            factor[m * n + i] *= if i > m { 0.2 } else { 0.0 };
                        }
                    }
                    let squares = squares.iter().map(|square| square.abs() + 0.1).collect();
                    let feedback = feedback.iter().map(|feedback| 0.1 * feedback).collect();
                    Part { bits, form, group, weights, feedback, factor, squares }
                },
            )
        })
    }

    fn round(isa: Isa, part: &Part) -> Rounded {
        let n = part.weights.len();
        let (mut integers, mut errors) = (vec![99; n], vec![f32::NAN; n]);
        let mut scales = vec![f16::NAN; n.div_ceil(part.group) * part.form.numbers()];
        let loss = isa.run(RoundRow {
            bits: part.bits,
            form: part.form,
            group: part.group,
            weights: &part.weights,
            feedback: &part.feedback,
            factor: &part.factor,
            squares: &part.squares,
            integers: &mut integers,
            errors: &mut errors,
            scales: &mut scales,
        });
        Rounded { integers, errors, scales, loss }
    }

    proptest! {
        /// Every column is at the level nearest to its target, and the loss is the sum of their squared distances.
        #[test]
        fn columns_are_rounded_to_the_nearest_levels_on_all_isas(part in parts()) {
            let n = part.weights.len();
            let expected = round(Isa::available()[0], &part);
            let (low, high) = limits(part.bits);
            let mut loss = 0.0;
            for m in 0..n {
                let scales = &expected.scales[m / part.group * part.form.numbers()..];
                let (scale, offset) = match part.form {
                    GroupForm::Scale => (scales[0].to_f64(), 0.0),
                    _ => (scales[0].to_f64(), scales[1].to_f64()),
                };
                let level = f64::from(expected.integers[m]);
                prop_assert!((f64::from(low)..=f64::from(high)).contains(&level));
                let value = level * scale + offset;
                let error = f64::from(part.weights[m]) - value;
                prop_assert!((f64::from(expected.errors[m]) - error).abs() <= 1e-4 * (1.0 + error.abs()));
                let behind: f64 = (m + 1..n)
                    .map(|i| f64::from(expected.errors[i]) * f64::from(part.factor[m * n + i]))
                    .sum();
                let target = f64::from(part.weights[m]) + f64::from(part.feedback[m]) + behind;
                let exact = (target - offset) / scale;
                let inner = exact < f64::from(high) + 0.5 && exact > f64::from(low) - 0.5;
                let distance = (target - value).abs();
                prop_assert!(scale == 0.0 || !inner || distance <= 0.501 * scale.abs() + 1e-4, "{m}: {target} {level} {scale}");
                loss += distance * distance * f64::from(part.squares[m]);
            }
            prop_assert!((f64::from(expected.loss) - loss).abs() <= 1e-3 * (1.0 + loss), "{} {loss}", expected.loss);
            for isa in Isa::available() {
                let found = round(isa, &part);
                prop_assert_eq!(&found.integers, &expected.integers, "{}", isa);
                prop_assert_eq!(&found.errors, &expected.errors, "{}", isa);
                prop_assert_eq!(&found.scales, &expected.scales, "{}", isa);
                prop_assert_eq!(found.loss.to_bits(), expected.loss.to_bits(), "{}", isa);
            }
        }

        /// A diagonal factor is one without feedback within the row.
        #[test]
        fn a_factor_may_be_diagonal_on_all_isas(part in parts()) {
            let n = part.weights.len();
            let expected = round(Isa::available()[0], &Part { factor: vec![0.0; n * n], ..part.clone() });
            let diagonal = Part { factor: Vec::new(), ..part };
            for isa in Isa::available() {
                let found = round(isa, &diagonal);
                prop_assert_eq!(&found.integers, &expected.integers, "{}", isa);
                prop_assert_eq!(&found.errors, &expected.errors, "{}", isa);
                prop_assert_eq!(&found.scales, &expected.scales, "{}", isa);
                prop_assert_eq!(found.loss.to_bits(), expected.loss.to_bits(), "{}", isa);
            }
        }

        /// Without feedback, no group has a larger error than with the scale that `quantize_row` finds.
        #[test]
        fn no_group_is_worse_than_with_four_scales(weights in values(128), squares in values(128), group in 0usize..3) {
            let shape = Shape::grouped(1, 128, Bits::Four, 32 << group);
            let (mut integers, mut scales) = (vec![0; 128], vec![f16::NAN; shape.groups()]);
            quantize_row(&shape, &weights, &mut integers, &mut scales).unwrap();
            let group = 32 << group;
            let squares: Vec<f32> = squares.iter().map(|square| square.abs()).collect();
            for squares in [vec![1.0; 128], squares] {
                let part = Part {
                    bits: Bits::Four,
                    form: GroupForm::Scale,
                    group,
                    weights: weights.clone(),
                    feedback: vec![0.0; 128],
                    factor: Vec::new(),
                    squares,
                };
                let found = round(Isa::available()[0], &part);
                let loss = |integers: &[i8], scales: &[f16], at: usize| -> f64 {
                    let scale = scales[at].to_f64();
                    (at * group..(at + 1) * group)
                        .map(|m| {
                            let error = f64::from(weights[m]) - f64::from(integers[m]) * scale;
                            error * error * f64::from(part.squares[m])
                        })
                        .sum()
                };
                for at in 0..shape.groups() {
                    let [new, old] =
                        [(&found.integers, &found.scales), (&integers, &scales)].map(|(i, s)| loss(i, s, at));
                    prop_assert!(new <= old * (1.0 + 1e-5), "{new} {old}");
                }
            }
        }

        /// Without feedback, the scale is about as good as the best of many.
        #[test]
        fn the_scale_is_nearly_the_best(weights in values(32)) {
            let part = Part {
                bits: Bits::Four,
                form: GroupForm::Scale,
                group: 32,
                feedback: vec![0.0; 32],
                factor: vec![0.0; 32 * 32],
                squares: vec![1.0; 32],
                weights,
            };
            let found = round(Isa::available()[0], &part).loss;
            let largest = part.weights.iter().fold(0f32, |a, w| a.max(w.abs()));
            let loss = |scale: f32| -> f32 {
                let scale = f16::from_f32(scale).to_f32();
                let error = |w: f32| w - (w / scale).round_ties_even().clamp(-8.0, 7.0) * scale;
                part.weights.iter().map(|&w| error(w) * error(w)).sum()
            };
            let steps = (0..400).map(|i| 5.0 + 0.01 * i as f32);
            let best = steps.flat_map(|steps| [largest / steps, -largest / steps]).map(loss).fold(f32::INFINITY, f32::min);
            prop_assert!(largest == 0.0 || found <= 1.25 * best + 1e-9, "{found} {best}");
        }
    }

    #[test]
    fn zeros_have_no_error() {
        let n = 40;
        let zeros = vec![0.0; n];
        let factor = vec![0.5; n * n];
        let part = Part {
            bits: Bits::Four,
            form: GroupForm::Scale,
            group: 32,
            weights: zeros.clone(),
            feedback: zeros,
            factor,
            squares: vec![1.0; n],
        };
        let found = round(Isa::available()[0], &part);
        assert_eq!((found.loss, found.integers), (0.0, vec![0; n]));
        assert!(found.scales.iter().all(|scale| scale.to_f32() == 0.0));
    }
}
