//! Unquantised weights, rows as published: dot products along the columns.
//!
//! Each (row, token) pair has one accumulator of eight partial sums, so how many pairs are computed at once is free to follow
//! the registers: about eight accumulators hide the latency of the multiply-add.

use super::Outputs;
use crate::parallel::{Tile, tiles};
use crate::simd::{Element, LANES, Vectors};

/// The panel's outputs for all tokens of `x`, `[tokens][cols]`.
#[inline(always)]
pub(super) fn panel<E: Element, S: Vectors>(
    out: Outputs<'_, S>,
    weight: &[E],
    tokens: usize,
    x: &[f32],
) {
    tiles(tokens, &mut Dense { out, weight, x });
}

struct Dense<'a, E, S> {
    out: Outputs<'a, S>,
    weight: &'a [E],
    x: &'a [f32],
}

impl<E: Element, S: Vectors> Tile for Dense<'_, E, S> {
    const TOKENS: usize = S::TILE;

    #[inline(always)]
    fn tile<const T: usize>(&mut self, tokens: [usize; T]) {
        let mut sums = [[0.0; LANES]; T];
        match T {
            1 => self.dots::<8, T>(tokens, &mut sums),
            2 => self.dots::<4, T>(tokens, &mut sums),
            _ => self.dots::<2, T>(tokens, &mut sums),
        }
        for (token, sums) in tokens.into_iter().zip(&sums) {
            self.out.store(token, self.out.simd.load(sums));
        }
    }
}

impl<E: Element, S: Vectors> Dense<'_, E, S> {
    /// Sums of the panel's rows for `T` tokens, `R` rows at a time.
    #[inline(always)]
    fn dots<const R: usize, const T: usize>(
        &self,
        tokens: [usize; T],
        sums: &mut [[f32; LANES]; T],
    ) {
        let cols = self.out.linear.weight.cols();
        let (first, rows) = self.out.rows();
        let mut x = [&self.x[..0]; T];
        for t in 0..T {
            x[t] = &self.x[tokens[t] * cols..][..cols];
        }
        for row in (0..rows).step_by(R) {
            let mut weights = [&self.weight[..0]; R];
            for (r, weights) in weights.iter_mut().enumerate() {
                // Rows past the last repeat it; their sums are not stored.
                *weights = &self.weight[(first + (row + r).min(rows - 1)) * cols..][..cols];
            }
            let dots = dot(self.out.simd, weights, x);
            for (r, dots) in dots.iter().enumerate().take(rows - row) {
                for (sums, dot) in sums.iter_mut().zip(dots) {
                    sums[row + r] = *dot;
                }
            }
        }
    }
}

/// `Σ weights[r]·x[t]`.
#[inline(always)]
fn dot<E: Element, S: Vectors, const R: usize, const T: usize>(
    simd: S,
    weights: [&[E]; R],
    x: [&[f32]; T],
) -> [[f32; T]; R] {
    let cols = x[0].len();
    let whole = cols / LANES * LANES;
    let mut sums = [[simd.splat(0.0); T]; R];
    for k in (0..whole).step_by(LANES) {
        let mut xs = [simd.splat(0.0); T];
        for (to, x) in xs.iter_mut().zip(x) {
            *to = simd.load(eight(x, k));
        }
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let w = E::load(simd, eight(weights, k));
            for (sum, x) in sums.iter_mut().zip(xs) {
                *sum = simd.fma(w, x, *sum);
            }
        }
    }
    let mut dots = [[0.0; T]; R];
    for ((dots, sums), weights) in dots.iter_mut().zip(sums).zip(weights) {
        for ((dot, sum), x) in dots.iter_mut().zip(sums).zip(x) {
            let tail = weights[whole..].iter().zip(&x[whole..]);
            *dot = tail.fold(simd.sum(sum), |sum, (w, x)| sum + w.widen() * x);
        }
    }
    dots
}

/// `values[at..at + 8]`
#[inline(always)]
fn eight<E>(values: &[E], at: usize) -> &[E; LANES] {
    values[at..].first_chunk().expect("eight values from `at`")
}
