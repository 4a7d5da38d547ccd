//! Partial results of a query, for one page of keys or several: `m`, `s` and `o`.

use super::product::{Pair, ZEROS};
use crate::math::exp;
use crate::rotation::rotate_parts;
use crate::simd::{LANES, PairKernel, Simd, Vectors};

/// Pairs of a partial result: one for `m` and `s`, the others for `o`.
pub(super) fn partial_len(value_size: usize) -> usize {
    1 + value_size.div_ceil(2 * LANES)
}

/// The first pair of a partial result: `m`, `s` and zeros.
pub(super) fn partial_head(max: f32, sum: f32) -> Pair {
    let mut head = ZEROS;
    (head[0][0], head[0][1]) = (max, sum);
    head
}

/// Merges `partial` into `merged`.
#[inline(always)]
pub(super) fn merge<S: Simd>(simd: S, merged: &mut [Pair], partial: &[Pair]) {
    let max = merged[0][0][0].max(partial[0][0][0]);
    let old = factor(simd, merged[0][0][0] - max);
    let new = factor(simd, partial[0][0][0] - max);
    for i in 0..merged.len() {
        let old = simd.pair_mul(simd.pair_load(&merged[i]), old);
        let sum = simd.pair_fma(simd.pair_load(&partial[i]), new, old);
        simd.pair_store(sum, &mut merged[i]);
    }
    merged[0][0][0] = max;
}

/// `e^x` in every lane.
#[inline(always)]
fn factor<S: Simd>(simd: S, x: f32) -> S::Pair {
    let mut lanes = [0.0; LANES];
    simd.store(exp(simd, simd.splat(x)), &mut lanes);
    simd.pair_splat(lanes[0])
}

/// Writes `o / s`; rotated back, if the values are rotated, `rotated` vectors together.
#[inline(always)]
pub(super) fn finish<S: Vectors>(
    simd: S,
    merged: &[Pair],
    rotated: Option<usize>,
    out: &mut [[f32; LANES]],
) {
    let inverse = simd.splat(1.0 / merged[0][0][1]);
    let merged = merged[1..].as_flattened();
    for i in 0..out.len() {
        simd.store(simd.mul(simd.load(&merged[i]), inverse), &mut out[i]);
    }
    if let Some(part) = rotated {
        rotate_parts(simd, out, part);
    }
}

/// Merges the partial results of all pages of a head, in page order, and writes its output.
pub(super) struct MergePartials<'a> {
    /// That of the first page.
    pub(super) merged: &'a mut [Pair],
    /// Those of all heads in the other pages: `[pages - 1][width]`
    pub(super) others: &'a [Pair],
    pub(super) width: usize,
    /// Where those of the head begin in a page.
    pub(super) at: usize,
    /// Vectors of a value that are rotated together, if the values are rotated.
    pub(super) rotated: Option<usize>,
    pub(super) out: &'a mut [[f32; LANES]],
}

impl PairKernel for MergePartials<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for page in self.others.chunks_exact(self.width) {
            merge(simd, self.merged, &page[self.at..][..self.merged.len()]);
        }
        finish(simd, self.merged, self.rotated, self.out);
    }
}
