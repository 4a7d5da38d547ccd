//! Quantised weights in panels: a lane is an output row.

use half::f16;

use super::Outputs;
use crate::format::{Bits, Panels};
use crate::parallel::{Tile, tiles};
use crate::quantized::Q8Rows;
use crate::simd::{BLOCK, LANES, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES, Simd};

/// The panel's outputs for all tokens of `x`, `[tokens][cols]`: weights are widened to `f32`.
#[inline(always)]
pub(super) fn panel_f32<S: Simd>(
    out: Outputs<'_, S>,
    weight: &Panels<'_>,
    tokens: usize,
    x: &[f32],
) {
    let (bytes, scales) = weight.panel(out.panel);
    tiles(tokens, &mut Widened { out, weight, bytes, scales, x });
}

/// The panel's outputs for all tokens of `x`: integer dot products, scaled once a block.
#[inline(always)]
pub(super) fn panel_q8<S: Simd>(
    out: Outputs<'_, S>,
    weight: &Panels<'_>,
    tokens: usize,
    x: &Q8Rows,
) {
    let (bytes, scales) = weight.panel(out.panel);
    let group_blocks = weight.shape().group_blocks;
    match weight.shape().bits {
        Bits::Four => {
            let (blocks, _) = bytes.as_chunks::<Q4_BLOCK_BYTES>();
            tiles(tokens, &mut Integer { out, blocks, scales, group_blocks, x });
        }
        Bits::Eight => {
            let (blocks, _) = bytes.as_chunks::<Q8_BLOCK_BYTES>();
            tiles(tokens, &mut Integer { out, blocks, scales, group_blocks, x });
        }
    }
}

struct Widened<'a, S> {
    out: Outputs<'a, S>,
    weight: &'a Panels<'a>,
    bytes: &'a [u8],
    scales: &'a [[f16; LANES]],
    x: &'a [f32],
}

impl<S: Simd> Tile for Widened<'_, S> {
    #[inline(always)]
    fn tile<const T: usize>(&mut self, first: usize) {
        let simd = self.out.simd;
        let shape = self.weight.shape();
        let group_bytes = shape.group_blocks * shape.bits.block_bytes();
        let mut sums = [simd.splat(0.0); T];
        let mut col = 0;
        for (group, scale) in self.bytes.chunks(group_bytes).zip(self.scales) {
            let scale = simd.load_f16(scale);
            for block in group.chunks_exact(shape.bits.block_bytes()) {
                let weights = widen(simd, shape.bits, block);
                for (t, sum) in sums.iter_mut().enumerate() {
                    let x = &self.x[(first + t) * shape.cols..][..shape.cols];
                    let x = &x[col..(col + BLOCK).min(shape.cols)];
                    *sum = simd.fma(dot(simd, &weights, x), scale, *sum);
                }
                col += BLOCK;
            }
        }
        for (t, sum) in sums.into_iter().enumerate() {
            self.out.store(first + t, sum);
        }
    }
}

/// The integers of a block as `f32`: `[column][row]`.
#[inline(always)]
fn widen<S: Simd>(simd: S, bits: Bits, block: &[u8]) -> [S::F32; BLOCK] {
    let mut weights = [simd.splat(0.0); BLOCK];
    let (runs, _) = block.as_chunks::<32>();
    match bits {
        Bits::Four => {
            for (to, run) in weights.chunks_exact_mut(8).zip(runs) {
                to.copy_from_slice(&simd.widen_q4(run));
            }
        }
        Bits::Eight => {
            for (to, run) in weights.chunks_exact_mut(4).zip(runs) {
                to.copy_from_slice(&simd.widen_q8(run));
            }
        }
    }
    weights
}

/// `Σ weights[k] · x[k]` over up to 32 columns, in four sums so that one does not wait for the other.
#[inline(always)]
fn dot<S: Simd>(simd: S, weights: &[S::F32; BLOCK], x: &[f32]) -> S::F32 {
    let mut padded = [0.0; BLOCK];
    let x: &[f32; BLOCK] = match x.try_into() {
        Ok(x) => x,
        Err(_) => {
            padded[..x.len()].copy_from_slice(x);
            &padded
        }
    };
    let mut sums = [simd.splat(0.0); 4];
    for k in (0..BLOCK).step_by(4) {
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum = simd.fma(weights[k + j], simd.splat(x[k + j]), *sum);
        }
    }
    simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3]))
}

struct Integer<'a, S, const B: usize> {
    out: Outputs<'a, S>,
    blocks: &'a [[u8; B]],
    scales: &'a [[f16; LANES]],
    group_blocks: usize,
    x: &'a Q8Rows,
}

#[allow(clippy::needless_range_loop)] // As in the words: hot loops count with indices.
impl<S: Simd, const B: usize> Tile for Integer<'_, S, B>
where
    [u8; B]: Dot,
{
    #[inline(always)]
    fn tile<const T: usize>(&mut self, first: usize) {
        let simd = self.out.simd;
        let mut sums = [simd.splat(0.0); T];
        let mut index = 0;
        for (group, scale) in self.blocks.chunks(self.group_blocks).zip(self.scales) {
            let mut group_sums = [simd.splat(0.0); T];
            for block in group {
                let mut x = [self.x.block(first, index); T];
                for t in 1..T {
                    x[t] = self.x.block(first + t, index);
                }
                let dots = block.dot(simd, x);
                for t in 0..T {
                    let scale = simd.splat(x[t].scale);
                    group_sums[t] = simd.fma(simd.to_f32(dots[t]), scale, group_sums[t]);
                }
                index += 1;
            }
            let scale = simd.load_f16(scale);
            for t in 0..T {
                sums[t] = simd.fma(group_sums[t], scale, sums[t]);
            }
        }
        for t in 0..T {
            self.out.store(first + t, sums[t]);
        }
    }
}

/// A block of integers that knows its dot product.
trait Dot {
    fn dot<S: Simd, const T: usize>(&self, simd: S, x: [crate::simd::Block<'_>; T]) -> [S::I32; T];
}

impl Dot for [u8; Q4_BLOCK_BYTES] {
    #[inline(always)]
    fn dot<S: Simd, const T: usize>(&self, simd: S, x: [crate::simd::Block<'_>; T]) -> [S::I32; T] {
        simd.dot_q4(self, x)
    }
}

impl Dot for [u8; Q8_BLOCK_BYTES] {
    #[inline(always)]
    fn dot<S: Simd, const T: usize>(&self, simd: S, x: [crate::simd::Block<'_>; T]) -> [S::I32; T] {
        simd.dot_q8(self, x)
    }
}
