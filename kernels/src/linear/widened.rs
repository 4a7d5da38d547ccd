//! Quantized weights in panels with `f32` inputs: the weights are widened to `f32`.

use half::f16;

use super::{Outputs, Weights};
use crate::format::{Bits, GroupForm, Panels};
use crate::parallel::{Tile, tiles};
use crate::rotation::{BLOCK_SCALE, Rotation, rotate_columns};
use crate::simd::{BLOCK, LANES, Vectors};

impl Weights for Panels<'_> {
    fn streams(_: usize) -> usize {
        1
    }

    #[inline(always)]
    fn panels<S: Vectors>(self, out: Outputs<'_, S>, tokens: usize, x: &[f32]) {
        let (bytes, scales) = self.panel(out.panel);
        tiles(0..tokens, &mut Widened { out, weight: &self, bytes, scales, x });
    }
}

struct Widened<'a, S> {
    out: Outputs<'a, S>,
    weight: &'a Panels<'a>,
    bytes: &'a [u8],
    scales: &'a [[f16; LANES]],
    x: &'a [f32],
}

impl<S: Vectors> Tile for Widened<'_, S> {
    const TOKENS: usize = S::TILE;

    #[inline(always)]
    fn tile<const T: usize>(&mut self, tokens: [usize; T]) {
        let simd = self.out.simd;
        let shape = self.weight.shape();
        let group_bytes = shape.group_blocks.saturating_mul(shape.bits.block_bytes());
        let mut sums = [simd.splat(0.0); T];
        let mut col = 0;
        let groups = self.bytes.chunks(group_bytes);
        for (group, scales) in groups.zip(self.scales.chunks_exact(shape.form.numbers())) {
            let mut scale = simd.load_f16(&scales[0]);
            let offset = scales.get(1).map(|number| {
                let number = simd.load_f16(number);
                match shape.form {
                    GroupForm::ZeroPoint => simd.mul(scale, simd.add(number, simd.splat(8.0))),
                    _ => number,
                }
            });
            let minimum = offset.map(|offset| (scale, offset));
            if minimum.is_some() {
                // The weights themselves are multiplied.
                scale = simd.splat(1.0);
            }
            if shape.rotation == Rotation::Blocks {
                scale = simd.mul(scale, simd.splat(BLOCK_SCALE));
            }
            for block in group.chunks_exact(shape.bits.block_bytes()) {
                let mut weights = widen(simd, shape.bits, block);
                if let Some((scale, offset)) = minimum {
                    for weight in &mut weights {
                        *weight = simd.fma(*weight, scale, offset);
                    }
                }
                if shape.rotation == Rotation::Blocks {
                    // Exact: sums of 32 integers.
                    rotate_columns(simd, &mut weights);
                }
                for (token, sum) in tokens.iter().zip(&mut sums) {
                    let x = &self.x[token * shape.cols..][..shape.cols];
                    let x = &x[col..(col + BLOCK).min(shape.cols)];
                    *sum = simd.fma(dot(simd, &weights, x), scale, *sum);
                }
                col += BLOCK;
            }
        }
        self.out.store_tile(tokens, sums);
    }
}

/// The integers of a block as `f32`: `[column][row]`.
#[inline(always)]
fn widen<S: Vectors>(simd: S, bits: Bits, block: &[u8]) -> [S::F32; BLOCK] {
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

/// `Σ weights[k] · x[k]` over up to 32 columns, in four independent sums to hide the latency.
#[inline(always)]
fn dot<S: Vectors>(simd: S, weights: &[S::F32; BLOCK], x: &[f32]) -> S::F32 {
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
