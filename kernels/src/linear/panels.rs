//! Quantised weights in panels: a lane is an output row.

use std::marker::PhantomData;

use half::f16;

use super::Outputs;
use crate::format::{Bits, Panels};
use crate::parallel::{Tile, tiles};
use crate::quantized::Q8Rows;
use crate::simd::{BLOCK, Block, LANES, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES, Simd};

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

/// The outputs of `P` panels for all tokens of `x`: integer dot products, scaled once a block. What panels share is the
/// broadcast of activations. Many tokens meet Q4 weights that are unpacked once, into `room`.
#[inline(always)]
pub(super) fn panels_q8<S: Simd, const P: usize>(
    out: Outputs<'_, S>,
    weight: &Panels<'_>,
    tokens: usize,
    x: &Q8Rows,
    room: &mut Vec<[u8; Q8_BLOCK_BYTES]>,
) {
    let panels = panels::<P>(weight, out.panel);
    match weight.shape().bits {
        Bits::Four if tokens >= UNPACK_TOKENS => {
            let packed = blocks::<P, Q4_BLOCK_BYTES>(panels);
            let n = weight.shape().blocks();
            room.resize(P * n, [0; Q8_BLOCK_BYTES]);
            let mut blocks = [&[][..]; P];
            for p in 0..P {
                for i in 0..n {
                    out.simd.unpack_q4(&packed[p][i], &mut room[p * n + i]);
                }
            }
            for p in 0..P {
                blocks[p] = &room[p * n..][..n];
            }
            tiles(tokens, &mut Integer::<S, Unpacked, P, _>::new(out, weight, blocks, x));
        }
        Bits::Four => {
            tiles(tokens, &mut Integer::<S, Q4, P, _>::new(out, weight, blocks(panels), x))
        }
        Bits::Eight => {
            tiles(tokens, &mut Integer::<S, Q8, P, _>::new(out, weight, blocks(panels), x))
        }
    }
}

/// As [`panels_q8`], for the only token there is.
#[inline(always)]
pub(super) fn one_token_q8<S: Simd, const P: usize>(
    out: Outputs<'_, S>,
    weight: &Panels<'_>,
    x: &Q8Rows,
) {
    let panels = panels::<P>(weight, out.panel);
    match weight.shape().bits {
        Bits::Four => Integer::<S, Q4, P, _>::new(out, weight, blocks(panels), x).tile::<1>(0),
        Bits::Eight => Integer::<S, Q8, P, _>::new(out, weight, blocks(panels), x).tile::<1>(0),
    }
}

/// From so many tokens on it pays to unpack a panel.
const UNPACK_TOKENS: usize = if cfg!(test) { 6 } else { 32 };

/// The bytes of `P` panels from `first` on.
#[inline(always)]
fn panels<'a, const P: usize>(weight: &Panels<'a>, first: usize) -> [&'a [u8]; P] {
    let mut panels = [&[][..]; P];
    for p in 0..P {
        panels[p] = weight.panel(first + p).0;
    }
    panels
}

#[inline(always)]
fn blocks<const P: usize, const B: usize>(panels: [&[u8]; P]) -> [&[[u8; B]]; P] {
    let mut blocks = [&[][..]; P];
    for p in 0..P {
        blocks[p] = panels[p].as_chunks().0;
    }
    blocks
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

struct Integer<'a, S, W, const P: usize, const B: usize> {
    out: Outputs<'a, S>,
    blocks: [&'a [[u8; B]]; P],
    scales: [&'a [[f16; LANES]]; P],
    group_blocks: usize,
    x: &'a Q8Rows,
    weights: PhantomData<W>,
}

impl<'a, S: Simd, W, const P: usize, const B: usize> Integer<'a, S, W, P, B> {
    #[inline(always)]
    fn new(
        out: Outputs<'a, S>,
        weight: &Panels<'a>,
        blocks: [&'a [[u8; B]]; P],
        x: &'a Q8Rows,
    ) -> Self {
        let group_blocks = weight.shape().group_blocks;
        let mut scales = [&[][..]; P];
        for p in 0..P {
            scales[p] = weight.panel(out.panel + p).1;
        }
        Self { out, blocks, scales, group_blocks, x, weights: PhantomData }
    }
}

impl<S: Simd, W: Dot<B>, const P: usize, const B: usize> Tile for Integer<'_, S, W, P, B> {
    #[inline(always)]
    fn tile<const T: usize>(&mut self, first: usize) {
        let simd = self.out.simd;
        let (blocks, groups) = (self.blocks[0].len(), self.scales[0].len());
        // All of one length, so that one look at an index is enough for all.
        let (mut weights, mut scales) = (self.blocks, self.scales);
        for p in 0..P {
            (weights[p], scales[p]) = (&weights[p][..blocks], &scales[p][..groups]);
        }
        let mut x = [self.x.row(first); T];
        for t in 0..T {
            x[t] = self.x.row(first + t).first(blocks);
        }
        let mut sums = [[simd.splat(0.0); T]; P];
        let mut index = 0;
        for group in 0..groups {
            let mut group_sums = [[simd.splat(0.0); T]; P];
            let end = (index + self.group_blocks).min(blocks);
            while index < end {
                let mut block = [&weights[0][index]; P];
                for p in 1..P {
                    block[p] = &weights[p][index];
                }
                let mut values = [x[0].block(index); T];
                for t in 1..T {
                    values[t] = x[t].block(index);
                }
                let dots = W::dot(simd, block, values);
                for t in 0..T {
                    let scale = simd.splat(x[t].scales[index]);
                    for p in 0..P {
                        group_sums[p][t] =
                            simd.fma(simd.to_f32(dots[p][t]), scale, group_sums[p][t]);
                    }
                }
                index += 1;
            }
            for p in 0..P {
                let scale = simd.load_f16(&scales[p][group]);
                for t in 0..T {
                    sums[p][t] = simd.fma(group_sums[p][t], scale, sums[p][t]);
                }
            }
        }
        for p in 0..P {
            let out = Outputs { panel: self.out.panel + p, ..self.out };
            for t in 0..T {
                out.store(first + t, sums[p][t]);
            }
        }
    }
}

/// How blocks of `B` bytes hold integers.
trait Dot<const B: usize> {
    fn dot<S: Simd, const P: usize, const T: usize>(
        simd: S,
        weights: [&[u8; B]; P],
        x: [Block<'_>; T],
    ) -> [[S::I32; T]; P];
}

/// Two to a byte, as they are stored.
struct Q4;

/// Four bits, one to a byte.
struct Unpacked;

/// Eight bits.
struct Q8;

impl Dot<Q4_BLOCK_BYTES> for Q4 {
    #[inline(always)]
    fn dot<S: Simd, const P: usize, const T: usize>(
        simd: S,
        weights: [&[u8; Q4_BLOCK_BYTES]; P],
        x: [Block<'_>; T],
    ) -> [[S::I32; T]; P] {
        simd.dot_q4(weights, x)
    }
}

impl Dot<Q8_BLOCK_BYTES> for Unpacked {
    #[inline(always)]
    fn dot<S: Simd, const P: usize, const T: usize>(
        simd: S,
        weights: [&[u8; Q8_BLOCK_BYTES]; P],
        x: [Block<'_>; T],
    ) -> [[S::I32; T]; P] {
        simd.dot_unpacked(weights, x)
    }
}

impl Dot<Q8_BLOCK_BYTES> for Q8 {
    #[inline(always)]
    fn dot<S: Simd, const P: usize, const T: usize>(
        simd: S,
        weights: [&[u8; Q8_BLOCK_BYTES]; P],
        x: [Block<'_>; T],
    ) -> [[S::I32; T]; P] {
        simd.dot_q8(weights, x)
    }
}
