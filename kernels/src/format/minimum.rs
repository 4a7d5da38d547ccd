//! The scale and the offset of a group of columns, for [`GroupForm::Minimum`](super::GroupForm::Minimum).
//!
//! The columns are rounded as in [`feedback`](super::feedback), `q` being their integers and `F` the factor within the group. With
//! the sums over `i > m`,
//!
//! ```text
//! loss = Σₘ squares[m]·(a[m] − scale·b[m] − offset·d[m])²     a[m] = target[m] + Σ F[m,i]·w[i]
//!                                                             b[m] = q[m] + Σ F[m,i]·q[i]
//!                                                             d[m] = 1 + Σ F[m,i]
//! ```
//!
//! For given integers, this is a least squares problem in `scale` and `offset`; for given scale and offset, rounding gives the integers.
//! The search solves one and the other in turn, from many starts at once, and keeps the best that it has seen. Without feedback,
//! `a = w`, `b = q` and `d = 1`.

use half::f16;

use super::feedback::{Group, MAX_COLUMNS, dot};
use crate::simd::{Kernel, LANES, Vectors};

/// Starts: two vectors.
const STARTS: usize = 2 * LANES;

/// The part of the range of the weights that a start leaves out, at the lower and at the upper end.
const OUTSIDE: [f32; 4] = [0.0, 0.03, 0.06, 0.1];

/// How often the integers are rounded.
const ROUNDS: usize = 4;

/// The least and the largest integer.
const LIMITS: (f32, f32) = (-8.0, 7.0);

/// The smallest positive `f16`.
const SMALLEST: f32 = 5.960_464_5e-8;

/// Finds scales and offsets of the groups of a row, by the squared error of its weights. All instruction sets give the same.
pub(super) struct FitRow<'a> {
    pub(super) row: &'a [f32],
    /// Columns of a group.
    pub(super) group: usize,
    /// `[groups][2]`. NaN where all that are tried exceed `f16`.
    pub(super) scales: &'a mut [f16],
}

impl Kernel for FitRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) {
        let (scales, _) = self.scales.as_chunks_mut::<2>();
        for (row, to) in self.row.chunks(self.group).zip(scales) {
            let columns = Columns { a: row, d: &[], squares: &[], factor: &[], stride: 0 };
            *to = columns.best::<S, false>(simd, row).map(f16::from_f32);
        }
    }
}

/// The scale and the offset of a group of a row that is rounded with feedback. Both are exact in `f16`, or NaN if all that are tried
/// exceed it.
#[inline(always)]
pub(super) fn with_feedback<S: Vectors>(simd: S, group: &Group<'_>) -> [f32; 2] {
    let (n, squares) = (group.targets.len(), group.squares);
    if group.factor.is_empty() {
        let columns = Columns { a: group.targets, d: &[], squares, factor: &[], stride: 0 };
        return columns.best::<S, false>(simd, group.targets);
    }
    let (mut a, mut d) = ([0.0; MAX_COLUMNS], [0.0; MAX_COLUMNS]);
    for m in 0..n {
        let factor = &group.factor[m * group.stride..][m + 1..n];
        a[m] = group.targets[m] + dot(simd, factor, &group.weights[m + 1..]);
        d[m] = 1.0 + factor.iter().sum::<f32>();
    }
    let (factor, stride) = (group.factor, group.stride);
    let columns = Columns { a: &a[..n], d: &d[..n], squares, factor, stride };
    columns.best::<S, true>(simd, group.targets)
}

/// The columns of a group. Without feedback there is no `d`; without `squares`, each is 1.
struct Columns<'a> {
    a: &'a [f32],
    d: &'a [f32],
    squares: &'a [f32],
    /// `F[m, i]` at `m · stride + i`.
    factor: &'a [f32],
    stride: usize,
}

/// Scales and offsets, each exact in `f16`.
struct Fits<S: Vectors> {
    scale: [S::F32; 2],
    offset: [S::F32; 2],
}

impl Columns<'_> {
    /// The best scale and offset. The first start has the range of `values`, from the minimum to the maximum.
    #[inline(always)]
    fn best<S: Vectors, const FEEDBACK: bool>(&self, simd: S, values: &[f32]) -> [f32; 2] {
        let mut fits = starts(simd, values);
        let mut best = (f32::INFINITY, [f32::NAN; 2]);
        for _ in 0..ROUNDS {
            let (losses, next) = self.round::<S, FEEDBACK>(simd, &fits);
            let [losses, scales, offsets] = [losses, fits.scale, fits.offset].map(|pair| {
                let mut lanes = [[0.0; LANES]; 2];
                simd.store(pair[0], &mut lanes[0]);
                simd.store(pair[1], &mut lanes[1]);
                lanes
            });
            for lane in 0..STARTS {
                let of = |lanes: &[[f32; LANES]; 2]| lanes[lane / LANES][lane % LANES];
                // What is not finite has no finite loss.
                if of(&losses) < best.0 {
                    best = (of(&losses), [of(&scales), of(&offsets)]);
                }
            }
            fits = next;
        }
        best.1
    }

    /// Rounds the columns; returns the losses, and the scales and offsets that are best for these integers.
    #[inline(always)]
    fn round<S: Vectors, const FEEDBACK: bool>(
        &self,
        simd: S,
        fits: &Fits<S>,
    ) -> ([S::F32; 2], Fits<S>) {
        let n = self.a.len();
        let (low, high) = (simd.splat(LIMITS.0), simd.splat(LIMITS.1));
        let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
        let mut inverse = [zero; 2];
        let mut shift = [zero; 2];
        for h in 0..2 {
            let scale = fits.scale[h];
            inverse[h] = simd.keep_ge(simd.abs(scale), simd.splat(SMALLEST), simd.div(one, scale));
            shift[h] = simd.mul(fits.offset[h], inverse[h]);
        }
        let mut integers = [[zero; 2]; MAX_COLUMNS];
        let mut losses = [zero; 2];
        // Sums of squares and products, for the normal equations.
        let (mut bb, mut bd, mut rb, mut rd) = ([zero; 2], [zero; 2], [zero; 2], [zero; 2]);
        let mut dd = 0.0;
        for m in (0..n).rev() {
            let a = simd.splat(self.a[m]);
            let mut behind = [zero; 2];
            if FEEDBACK {
                let factor = &self.factor[m * self.stride..][..n];
                for i in m + 1..n {
                    let factor = simd.splat(factor[i]);
                    for h in 0..2 {
                        behind[h] = simd.add(behind[h], simd.mul(factor, integers[i][h]));
                    }
                }
            }
            let d = if FEEDBACK { self.d[m] } else { 1.0 };
            let square = if self.squares.is_empty() { 1.0 } else { self.squares[m] };
            dd += square * d * d;
            let (d, square) = (simd.splat(d), simd.splat(square));
            for h in 0..2 {
                let level = simd.mul(a, inverse[h]);
                let (level, b) = if FEEDBACK {
                    let level = simd.sub(simd.sub(level, simd.mul(shift[h], d)), behind[h]);
                    // Clamped before it is rounded: the limits are integers.
                    let level = simd.round(simd.min(simd.max(level, low), high));
                    (level, simd.add(level, behind[h]))
                } else {
                    let level = simd.sub(level, shift[h]);
                    let level = simd.round(simd.min(simd.max(level, low), high));
                    (level, level)
                };
                let offset = if FEEDBACK { simd.mul(fits.offset[h], d) } else { fits.offset[h] };
                let rest = simd.sub(simd.sub(a, simd.mul(fits.scale[h], b)), offset);
                // Weighted.
                let (wb, wr) = (simd.mul(square, b), simd.mul(square, rest));
                if FEEDBACK {
                    integers[m][h] = level;
                }
                losses[h] = simd.add(losses[h], simd.mul(wr, rest));
                bb[h] = simd.add(bb[h], simd.mul(wb, b));
                rb[h] = simd.add(rb[h], simd.mul(wr, b));
                bd[h] = simd.add(bd[h], if FEEDBACK { simd.mul(wb, d) } else { wb });
                rd[h] = simd.add(rd[h], if FEEDBACK { simd.mul(wr, d) } else { wr });
            }
        }
        let dd = simd.splat(dd);
        let mut next = Fits::<S> { scale: [zero; 2], offset: [zero; 2] };
        for h in 0..2 {
            let squares = simd.mul(bb[h], dd);
            let det = simd.sub(squares, simd.mul(bd[h], bd[h]));
            let scale = simd.sub(simd.mul(rb[h], dd), simd.mul(rd[h], bd[h]));
            let offset = simd.sub(simd.mul(rd[h], bb[h]), simd.mul(rb[h], bd[h]));
            // Integers that are nearly the same determine only one of the two: nothing changes.
            let least = simd.mul(squares, simd.splat(1e-4));
            let scale = simd.keep_ge(det, least, simd.div(scale, det));
            let offset = simd.keep_ge(det, least, simd.div(offset, det));
            next.scale[h] = to_f16(simd, simd.add(fits.scale[h], scale));
            next.offset[h] = to_f16(simd, simd.add(fits.offset[h], offset));
        }
        (losses, next)
    }
}

/// Scales and offsets for parts of the range of `values`.
#[inline(always)]
fn starts<S: Vectors>(simd: S, values: &[f32]) -> Fits<S> {
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for &value in values {
        low = if value < low { value } else { low };
        high = if value > high { value } else { high };
    }
    let range = high - low;
    let mut lows = [[0.0; LANES]; 2];
    let mut scales = [[0.0; LANES]; 2];
    for start in 0..STARTS {
        let (below, above) = (OUTSIDE[start / 4], OUTSIDE[start % 4]);
        let (h, lane) = (start / LANES, start % LANES);
        lows[h][lane] = low + range * below;
        scales[h][lane] = range * (1.0 - below - above) / (LIMITS.1 - LIMITS.0);
    }
    let mut fits = Fits { scale: [simd.splat(0.0); 2], offset: [simd.splat(0.0); 2] };
    for h in 0..2 {
        let scale = to_f16(simd, simd.load(&scales[h]));
        let least = simd.mul(scale, simd.splat(LIMITS.0));
        fits.scale[h] = scale;
        fits.offset[h] = to_f16(simd, simd.sub(simd.load(&lows[h]), least));
    }
    fits
}

/// The nearest values of `f16`.
#[inline(always)]
fn to_f16<S: Vectors>(simd: S, v: S::F32) -> S::F32 {
    let mut half = [f16::ZERO; LANES];
    simd.store_f16(v, &mut half);
    simd.load_f16(&half)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Isa;
    use crate::testing::values;

    fn fit(isa: Isa, row: &[f32], group: usize) -> Vec<[f16; 2]> {
        let mut scales = vec![f16::NAN; 2 * row.len().div_ceil(group)];
        isa.run(FitRow { row, group, scales: &mut scales });
        scales.as_chunks().0.to_vec()
    }

    /// The squared error of the nearest levels.
    fn error(row: &[f32], [scale, offset]: [f16; 2]) -> f64 {
        let (scale, offset) = (scale.to_f64(), offset.to_f64());
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let level = |w: f64| ((w - offset) * inverse).round_ties_even().clamp(-8.0, 7.0);
        let errors = row.iter().map(|&w| f64::from(w) - (scale * level(w.into()) + offset));
        errors.map(|error| error * error).sum()
    }

    /// The range from the minimum to the maximum but for its parts `below` and `above`.
    fn range(row: &[f32], below: f32, above: f32) -> [f16; 2] {
        let low = row.iter().copied().fold(f32::INFINITY, f32::min);
        let size = row.iter().copied().fold(f32::NEG_INFINITY, f32::max) - low;
        let scale = f16::from_f32(size * (1.0 - below - above) / 15.0);
        [scale, f16::from_f32(low + size * below + 8.0 * scale.to_f32())]
    }

    proptest! {
        /// No group is worse than with the range of its weights, and most are nearly as good as with the best of many ranges.
        #[test]
        fn the_scale_and_the_offset_are_nearly_the_best_on_all_isas(
            row in (1usize..300).prop_flat_map(values),
            group in prop_oneof![Just(32), Just(64), Just(128), Just(1000)],
            shift in -3f32..3.0,
        ) {
            let row: Vec<_> = row.iter().map(|w| w + shift).collect();
            let found = fit(Isa::available()[0], &row, group);
            let (mut sum, mut least) = (0.0, 0.0);
            for (row, &found) in row.chunks(group).zip(&found) {
                let (plain, found) = (error(row, range(row, 0.0, 0.0)), error(row, found));
                prop_assert!(found <= plain * 1.00001 + 1e-9, "{found} {plain}");
                let parts = (0..24).flat_map(|a| (0..24).map(move |b| (a, b)));
                let tried = parts.map(|(a, b)| range(row, 0.02 * a as f32, 0.02 * b as f32));
                sum += found;
                least += tried.map(|tried| error(row, tried)).fold(f64::INFINITY, f64::min);
            }
            prop_assert!(sum <= 1.2 * least + 1e-9, "{sum} {least}");
            for isa in Isa::available() {
                prop_assert_eq!(&fit(isa, &row, group), &found, "{}", isa);
            }
        }
    }

    /// What a range can hold exactly is found.
    #[test]
    fn levels_are_found_again() {
        let row: Vec<_> = (0..64).map(|i| 3.0 + 0.25 * (i * 7 % 16) as f32).collect();
        for [scale, offset] in fit(Isa::available()[0], &row, 32) {
            assert_eq!((scale.to_f32(), offset.to_f32()), (0.25, 5.0));
        }
        for value in [0.0, -1.5, 60000.0] {
            let [scale, offset] = fit(Isa::available()[0], &[value; 32], 32)[0];
            assert_eq!((scale.to_f32(), offset.to_f32()), (0.0, f16::from_f32(value).to_f32()));
        }
        assert!(fit(Isa::available()[0], &[1e9; 32], 32)[0][0].is_nan());
    }
}
