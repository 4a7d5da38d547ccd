//! Unquantized weights in the row order of the checkpoint: dot products along the columns.
//!
//! Each (row, token) pair has one accumulator of eight partial sums. So the number of pairs computed at once may follow the
//! registers: eight accumulators hide the latency of the multiply-add; one token, which is memory-bound, has four.

use super::{Outputs, STREAMS, Weights};
use crate::parallel::{Tile, tiles};
use crate::simd::{Element, LANES, Vectors};

impl<E: Element> Weights for &[E] {
    /// Half of the streams for several tokens, so that the weights stay in the caches from tile to tile.
    fn streams(tokens: usize) -> usize {
        if tokens <= 2 { STREAMS } else { STREAMS / 2 }
    }

    #[inline(always)]
    fn panels<S: Vectors>(self, out: Outputs<'_, S>, tokens: usize, x: &[f32]) {
        match Self::streams(tokens) {
            STREAMS => tiles(0..tokens, &mut Dense::<_, _, STREAMS> { out, weight: self, x }),
            _ => tiles(0..tokens, &mut Dense::<_, _, { STREAMS / 2 }> { out, weight: self, x }),
        }
    }
}

/// `P` panels at a time.
struct Dense<'a, E, S, const P: usize> {
    out: Outputs<'a, S>,
    weight: &'a [E],
    x: &'a [f32],
}

impl<E: Element, S: Vectors, const P: usize> Tile for Dense<'_, E, S, P> {
    const TOKENS: usize = S::TILE;

    #[inline(always)]
    fn tile<const T: usize>(&mut self, tokens: [usize; T]) {
        match T {
            1 | 2 => self.dots::<STREAMS, T>(tokens),
            _ => self.dots::<P, T>(tokens),
        }
    }
}

impl<E: Element, S: Vectors, const P: usize> Dense<'_, E, S, P> {
    /// The outputs for `T` tokens, `R` rows at a time, the same number of each panel.
    #[inline(always)]
    fn dots<const R: usize, const T: usize>(&self, tokens: [usize; T]) {
        const { assert!(R.is_multiple_of(P) && LANES.is_multiple_of(R / P)) };
        let out = self.out;
        let (rows, cols) = (out.linear.weight.rows(), out.linear.weight.cols());
        let mut x = [&self.x[..0]; T];
        for t in 0..T {
            x[t] = &self.x[tokens[t] * cols..][..cols];
        }
        let mut sums = [[[0.0; LANES]; T]; P];
        // No panel has more rows than the first.
        let (first, lanes) = out.rows();
        for lane in (0..lanes).step_by(R / P) {
            let mut weights = [&self.weight[..0]; R];
            for r in 0..R {
                // The last row replaces one that does not exist; its sums are not stored.
                let row = first + r % P * out.stream * LANES + lane + r / P;
                weights[r] = &self.weight[row.min(rows - 1) * cols..][..cols];
            }
            let dots = dot(out.simd, weights, x);
            for r in 0..R {
                for t in 0..T {
                    sums[r % P][t][lane + r / P] = dots[r][t];
                }
            }
        }
        for p in 0..P {
            if let Some(out) = out.further(p) {
                let mut outputs = [out.simd.splat(0.0); T];
                for t in 0..T {
                    outputs[t] = out.simd.load(&sums[p][t]);
                }
                out.store_tile(tokens, outputs);
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
    let vectors = x[0].len() / LANES;
    // Equal lengths, so that one bounds check covers all.
    let mut ws = [&[][..]; R];
    for r in 0..R {
        ws[r] = &weights[r].as_chunks::<LANES>().0[..vectors];
    }
    let mut xs = [&[][..]; T];
    for t in 0..T {
        xs[t] = &x[t].as_chunks::<LANES>().0[..vectors];
    }
    let mut sums = [[simd.splat(0.0); T]; R];
    for i in 0..vectors {
        let mut x = [simd.splat(0.0); T];
        for t in 0..T {
            x[t] = simd.load(&xs[t][i]);
        }
        for r in 0..R {
            let w = E::load(simd, &ws[r][i]);
            for t in 0..T {
                sums[r][t] = simd.fma(w, x[t], sums[r][t]);
            }
        }
    }
    let mut dots = [[0.0; T]; R];
    for r in 0..R {
        for t in 0..T {
            let tail = weights[r].as_chunks::<LANES>().1.iter().zip(x[t].as_chunks::<LANES>().1);
            dots[r][t] = tail.fold(simd.sum(sums[r][t]), |sum, (w, x)| sum + w.widen() * x);
        }
    }
    dots
}
