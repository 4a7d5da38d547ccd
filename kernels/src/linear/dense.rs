//! Unquantised weights, rows as published: dot products along the columns.
//!
//! Each (row, token) pair has one accumulator of eight partial sums, so how many pairs are computed at once is free to follow
//! the registers: about eight accumulators hide the latency of the multiply-add.

use super::{Outputs, TOGETHER};
use crate::parallel::{Tile, tiles};
use crate::simd::{Element, LANES, Vectors};

/// The outputs of the panels that `out` names for all tokens of `x`, `[tokens][cols]`.
#[inline(always)]
pub(super) fn panels<E: Element, S: Vectors>(
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
        const { assert!(TOGETHER == 4) };
        if T <= 2 {
            self.dots::<4, T>(self.out, tokens);
        } else {
            self.dots::<2, T>(self.out, tokens);
            if let Some(out) = self.out.further(2) {
                self.dots::<2, T>(out, tokens);
            }
        }
    }
}

impl<E: Element, S: Vectors> Dense<'_, E, S> {
    /// The outputs of `P` panels for `T` tokens, one row of each panel at a time.
    #[inline(always)]
    fn dots<const P: usize, const T: usize>(&self, out: Outputs<'_, S>, tokens: [usize; T]) {
        let (rows, cols) = (out.linear.weight.rows(), out.linear.weight.cols());
        let mut x = [&self.x[..0]; T];
        for t in 0..T {
            x[t] = &self.x[tokens[t] * cols..][..cols];
        }
        let mut sums = [[[0.0; LANES]; T]; P];
        // No panel has more rows than the first.
        let (first, lanes) = out.rows();
        for lane in 0..lanes {
            let mut weights = [&self.weight[..0]; P];
            for p in 0..P {
                // For a row that does not exist, the last one; its sums are not stored.
                let row = (first + p * out.apart * LANES + lane).min(rows - 1);
                weights[p] = &self.weight[row * cols..][..cols];
            }
            let dots = dot(out.simd, weights, x);
            for p in 0..P {
                for t in 0..T {
                    sums[p][t][lane] = dots[p][t];
                }
            }
        }
        for p in 0..P {
            if let Some(out) = out.further(p) {
                for t in 0..T {
                    out.store(tokens[t], out.simd.load(&sums[p][t]));
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
