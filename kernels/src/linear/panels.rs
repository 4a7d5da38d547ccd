//! Quantized weights in panels: each lane is an output row.

use std::ops::Range;

use half::f16;

use super::Outputs;
use crate::format::{Bits, GroupForm, Panels, Shape};
use crate::parallel::{Tile, tiles};
use crate::quantized::{BUNDLE, Q8Rows};
use crate::rotation::{BLOCK_SCALE, Rotation, rotate_columns};
use crate::simd::{
    BLOCK, Block, LANES, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES, Simd, UNPACKED_BLOCK_BYTES, Vectors,
};

/// The panel's outputs for all tokens of `x`, `[tokens][cols]`, from weights widened to `f32`.
#[inline(always)]
pub(super) fn panel_f32<S: Vectors>(
    out: Outputs<'_, S>,
    weight: &Panels<'_>,
    tokens: usize,
    x: &[f32],
) {
    let (bytes, scales) = weight.panel(out.panel);
    tiles(tokens, &mut Widened { out, weight, bytes, scales, x });
}

/// A thread's scratch memory, reused by later calls.
#[derive(Default)]
pub(super) struct Scratch {
    /// Unpacked blocks of each pair, `[pairs][CHUNK]`
    unpacked: Vec<UnpackedBlock>,
    /// `[padded rows][pairs]`
    sums: Vec<[[f32; LANES]; 2]>,
}

/// The outputs of the first `P` pairs of panels of `out` for all tokens of `x`: integer dot products, scaled once a block. The
/// panels share the broadcast of activations.
///
/// For many tokens, Q4 weights are unpacked once, in chunks of blocks that stay in the L1 cache until all tokens are multiplied.
#[inline(always)]
pub(super) fn pairs_q8<S: Simd, const P: usize>(
    out: Outputs<'_, S>,
    weight: &Panels<'_>,
    x: &Q8Rows,
    scratch: &mut Scratch,
) {
    let (tokens, blocks) = (x.padded_rows(), weight.shape().blocks());
    let pairs = Pairs::<P>::new(weight, out);
    let Scratch { unpacked, sums } = scratch;
    sums.resize(tokens * P, [[0.0; LANES]; 2]);
    let (shape, simd) = (weight.shape(), out.simd);
    match (shape.bits, shape.form) {
        (Bits::Four, form) if tokens >= UNPACK_TOKENS => {
            unpacked.resize(P * CHUNK, UnpackedBlock([0; UNPACKED_BLOCK_BYTES]));
            for first in (0..blocks).step_by(CHUNK) {
                let chunk = first..(first + CHUNK).min(blocks);
                let weights = unpack(simd, &pairs, chunk.clone(), unpacked);
                match form {
                    GroupForm::Scale => {
                        let part =
                            &mut Integer::<_, _, P, false> { simd, weights, pairs, x, chunk, sums };
                        tiles(tokens, part);
                    }
                    GroupForm::Minimum | GroupForm::ZeroPoint => {
                        let part =
                            &mut Integer::<_, _, P, true> { simd, weights, pairs, x, chunk, sums };
                        tiles(tokens, part);
                    }
                }
            }
        }
        (Bits::Four, GroupForm::Scale) => {
            tiles(tokens, &mut packed::<_, Q4_BLOCK_BYTES, P, false>(simd, pairs, x, sums));
        }
        (Bits::Four, GroupForm::Minimum | GroupForm::ZeroPoint) => {
            tiles(tokens, &mut packed::<_, Q4_BLOCK_BYTES, P, true>(simd, pairs, x, sums));
        }
        (Bits::Eight, _) => {
            tiles(tokens, &mut packed::<_, Q8_BLOCK_BYTES, P, false>(simd, pairs, x, sums));
        }
    }
    store::<S, P>(out, &sums[..x.rows() * P]);
}

/// As [`pairs_q8`], for two pairs and one token.
#[inline(always)]
pub(super) fn one_token_q8<S: Simd>(out: Outputs<'_, S>, weight: &Panels<'_>, x: &Q8Rows) {
    let (shape, simd) = (weight.shape(), out.simd);
    let pairs = Pairs::<2>::new(weight, out);
    let sums = &mut [[[0.0; LANES]; 2]; 2];
    match (shape.bits, shape.form) {
        (Bits::Four, GroupForm::Scale) => {
            packed::<_, Q4_BLOCK_BYTES, 2, false>(simd, pairs, x, sums).tile([0]);
        }
        (Bits::Four, GroupForm::Minimum | GroupForm::ZeroPoint) => {
            packed::<_, Q4_BLOCK_BYTES, 2, true>(simd, pairs, x, sums).tile([0]);
        }
        (Bits::Eight, _) => {
            packed::<_, Q8_BLOCK_BYTES, 2, false>(simd, pairs, x, sums).tile([0]);
        }
    }
    store::<S, 2>(out, sums);
}

/// The dot products of all blocks, as they are stored.
#[inline(always)]
fn packed<'a, S, const B: usize, const P: usize, const MINIMUM: bool>(
    simd: S,
    pairs: Pairs<'a, P>,
    x: &'a Q8Rows,
    sums: &'a mut [[[f32; LANES]; 2]],
) -> Integer<'a, S, Packed<'a, B>, P, MINIMUM> {
    let weights = Packed::all(&pairs);
    let chunk = 0..weights[0].0[0].len();
    Integer { simd, weights, pairs, x, chunk, sums }
}

/// The epilogue of all `sums`, `[tokens][P]`.
#[inline(always)]
fn store<S: Simd, const P: usize>(out: Outputs<'_, S>, sums: &[[[f32; LANES]; 2]]) {
    for (token, sums) in sums.as_flattened().chunks_exact(2 * P).enumerate() {
        for i in 0..sums.len() {
            if let Some(out) = out.further(i) {
                out.store(token, out.simd.load(&sums[i]));
            }
        }
    }
}

/// A block of two panels with one byte per nibble. Aligned, so that no vector crosses a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct UnpackedBlock([u8; UNPACKED_BLOCK_BYTES]);

/// Blocks of a pair that are unpacked at once: 8 KB. An even number, because two blocks of a group may be added together.
const CHUNK: usize = if cfg!(test) { 4 } else { 16 };
const _: () = assert!(CHUNK.is_multiple_of(2));

/// The number of tokens from which unpacking a panel pays.
const UNPACK_TOKENS: usize = if cfg!(test) { 6 } else { 32 };

/// `P` pairs of panels.
#[derive(Clone, Copy)]
struct Pairs<'a, const P: usize> {
    bytes: [[&'a [u8]; 2]; P],
    /// As [`Panels::panel`].
    scales: [[&'a [[f16; LANES]]; 2]; P],
    group_blocks: usize,
    form: GroupForm,
}

impl<'a, const P: usize> Pairs<'a, P> {
    /// Those of `out`; the last panel replaces one that does not exist.
    #[inline(always)]
    fn new<S: Vectors>(weight: &Panels<'a>, out: Outputs<'_, S>) -> Self {
        let last = weight.shape().panels() - 1;
        let Shape { group_blocks, form, .. } = *weight.shape();
        let mut pairs = Self { bytes: [[&[]; 2]; P], scales: [[&[]; 2]; P], group_blocks, form };
        for p in 0..P {
            for h in 0..2 {
                let panel = out.further(2 * p + h).map_or(last, |out| out.panel);
                (pairs.bytes[p][h], pairs.scales[p][h]) = weight.panel(panel);
            }
        }
        pairs
    }
}

/// The blocks of two panels, the same number in each.
#[inline(always)]
fn split<const B: usize>([a, b]: [&[u8]; 2]) -> [&[[u8; B]]; 2] {
    let (a, b) = (a.as_chunks().0, b.as_chunks().0);
    [a, &b[..a.len()]]
}

/// Unpacks the blocks of `chunk`, one byte per nibble.
#[inline(always)]
fn unpack<'a, S: Simd, const P: usize>(
    simd: S,
    pairs: &Pairs<'_, P>,
    chunk: Range<usize>,
    to: &'a mut [UnpackedBlock],
) -> [Unpacked<'a>; P] {
    for p in 0..P {
        let ([a, b], to) = (split(pairs.bytes[p]), &mut to[p * CHUNK..]);
        for i in chunk.clone() {
            simd.unpack_q4([&a[i], &b[i]], &mut to[i - chunk.start].0);
        }
    }
    let mut unpacked = [Unpacked(&[]); P];
    for p in 0..P {
        unpacked[p] = Unpacked(&to[p * CHUNK..][..chunk.len()]);
    }
    unpacked
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

/// Dot products of the blocks of `chunk`, of groups with or without a minimum.
struct Integer<'a, S, W, const P: usize, const MINIMUM: bool> {
    simd: S,
    /// The blocks of `chunk`.
    weights: [W; P],
    pairs: Pairs<'a, P>,
    x: &'a Q8Rows,
    chunk: Range<usize>,
    /// The sums of the earlier blocks, to which these are added, `[padded rows][pairs]`.
    sums: &'a mut [[[f32; LANES]; 2]],
}

impl<S: Simd, W: Pair, const P: usize, const MINIMUM: bool> Tile for Integer<'_, S, W, P, MINIMUM> {
    const TOKENS: usize = S::TOKENS;

    #[inline(always)]
    fn tile<const T: usize>(&mut self, tokens: [usize; T]) {
        let Self { simd, mut weights, pairs, .. } = *self;
        let blocks = self.chunk.len();
        for p in 0..P {
            // Equal lengths, so that one bounds check covers all.
            weights[p] = weights[p].first(blocks);
        }
        const { assert!(BUNDLE.is_multiple_of(S::TOKENS)) };
        // Padded rows are a whole number of tiles, so no token is repeated.
        let first = tokens[0];
        debug_assert_eq!(tokens[T - 1], first + T - 1);
        let (x, stride) = self.x.tile(first, self.chunk.start);
        let mut sums = [[simd.pair_splat(0.0); T]; P];
        if self.chunk.start > 0 {
            for p in 0..P {
                for t in 0..T {
                    sums[p][t] = simd.pair_load(&self.sums[(first + t) * P + p]);
                }
            }
        }
        let mut group = Group::of(self.chunk.start, pairs.group_blocks);
        // Where groups have an even number of blocks, each two of them start at an even block, in a chunk or not.
        let even = MINIMUM && pairs.group_blocks.is_multiple_of(2);
        let twos = if even { blocks / 2 } else { 0 };
        for two in 0..twos {
            let index = 2 * two;
            let x = &x[index * stride..];
            self.add_with_minimum::<T, 2>(&weights, index, group.index, x, stride, &mut sums);
            group.pass(2);
        }
        for index in 2 * twos..blocks {
            let x = &x[index * stride..];
            if MINIMUM {
                self.add_with_minimum::<T, 1>(&weights, index, group.index, x, stride, &mut sums);
            } else {
                self.add(&weights, index, group.index, tile(x), &mut sums);
            }
            group.pass(1);
        }
        for p in 0..P {
            for t in 0..T {
                simd.pair_store(sums[p][t], &mut self.sums[(first + t) * P + p]);
            }
        }
    }
}

impl<S: Simd, W: Pair, const P: usize, const MINIMUM: bool> Integer<'_, S, W, P, MINIMUM> {
    /// Adds the products of the block at `index`, in a group that has a scale only.
    #[inline(always)]
    fn add<const T: usize>(
        &self,
        weights: &[W; P],
        index: usize,
        group: usize,
        x: &[Block; T],
        sums: &mut [[S::Pair; T]; P],
    ) {
        let simd = self.simd;
        let mut scales = [simd.pair_splat(0.0); P];
        for p in 0..P {
            let [a, b] = self.pairs.scales[p];
            scales[p] = simd.pair_scales([&a[group], &b[group]]);
        }
        let dots = W::dot::<S, P, T, true>(simd, weights, index, x);
        for t in 0..T {
            let scale = simd.pair_splat(x[t].scale);
            for p in 0..P {
                let dot = simd.pair_to_f32(dots[p][t]);
                sums[p][t] = simd.pair_fma(dot, simd.pair_mul(scale, scales[p]), sums[p][t]);
            }
        }
    }

    /// Adds the products of `N` blocks, one or two, from `index` on, in a group that has a minimum. `x` starts with the first of them, and
    /// the same tokens' next block is `stride` further.
    ///
    /// The weights are `scale · nibble + minimum`, so the nibbles need no offset (that of a zero point is `−zero · scale`), the scale is applied once to the sum of the blocks, and the
    /// minimum to the sum of the activations. With two blocks, that is as much work as two blocks with a scale each.
    #[inline(always)]
    fn add_with_minimum<const T: usize, const N: usize>(
        &self,
        weights: &[W; P],
        index: usize,
        group: usize,
        x: &[Block],
        stride: usize,
        sums: &mut [[S::Pair; T]; P],
    ) {
        const { assert!(N == 1 || N == 2) };
        let simd = self.simd;
        let mut scales = [simd.pair_splat(0.0); P];
        let mut offsets = scales;
        // Before the products, so that their latency is hidden: at the end of the blocks, decode was a tenth slower.
        for p in 0..P {
            let [a, b] = self.pairs.scales[p];
            let (a, b) = (&a[2 * group..][..2], &b[2 * group..][..2]);
            scales[p] = simd.pair_scales([&a[0], &b[0]]);
            offsets[p] = simd.pair_scales([&a[1], &b[1]]);
        }
        let (first, second) = (tile::<T>(x), tile::<T>(&x[(N - 1) * stride..]));
        let mut products = [[simd.pair_splat(0.0); T]; P];
        // Not a loop, which LLVM would not unroll.
        Self::add_products(simd, weights, index, first, &mut products);
        if N == 2 {
            Self::add_products(simd, weights, index + 1, second, &mut products);
        }
        let mut minima = offsets;
        for p in 0..P {
            // Chosen here and not by the type, which would be half as many kernels again.
            minima[p] = match self.pairs.form {
                GroupForm::ZeroPoint => simd.pair_mul(scales[p], offsets[p]),
                _ => simd.pair_fma(scales[p], simd.pair_splat(-8.0), offsets[p]),
            };
        }
        for t in 0..T {
            let sum = if N == 2 { first[t].sum + second[t].sum } else { first[t].sum };
            let sum = simd.pair_splat(sum);
            for p in 0..P {
                sums[p][t] = simd.pair_fma(products[p][t], scales[p], sums[p][t]);
                sums[p][t] = simd.pair_fma(minima[p], sum, sums[p][t]);
            }
        }
    }

    /// Adds `Σ nibble · x` of the block at `index`.
    #[inline(always)]
    fn add_products<const T: usize>(
        simd: S,
        weights: &[W; P],
        index: usize,
        x: &[Block; T],
        products: &mut [[S::Pair; T]; P],
    ) {
        let dots = W::dot::<S, P, T, false>(simd, weights, index, x);
        for t in 0..T {
            let scale = simd.pair_splat(x[t].scale);
            for p in 0..P {
                let dot = simd.pair_to_f32(dots[p][t]);
                products[p][t] = if T == 1 {
                    simd.pair_accumulate(dot, scale, products[p][t])
                } else {
                    // With many sums, the order that LLVM chooses is faster.
                    simd.pair_fma(dot, scale, products[p][t])
                };
            }
        }
    }
}

/// The blocks of a tile of tokens, which are adjacent.
#[inline(always)]
fn tile<const T: usize>(x: &[Block]) -> &[Block; T] {
    x.first_chunk().expect("rows of a tile")
}

/// A group of blocks that is read block by block.
struct Group {
    index: usize,
    /// Blocks that are left in it.
    left: usize,
    /// Blocks of every group.
    size: usize,
}

impl Group {
    /// The group of `block`, from that block on.
    #[inline(always)]
    fn of(block: usize, size: usize) -> Self {
        let index = block / size;
        Self { index, left: (index + 1) * size - block, size }
    }

    /// Steps over blocks of the group.
    #[inline(always)]
    fn pass(&mut self, blocks: usize) {
        self.left -= blocks;
        if self.left == 0 {
            (self.index, self.left) = (self.index + 1, self.size);
        }
    }
}

/// The blocks of a pair of panels.
trait Pair: Copy {
    /// The first `n` blocks.
    fn first(self, n: usize) -> Self;
    /// The dot products of the blocks at `index` of `P` pairs with the blocks of `T` tokens.
    fn dot<S: Simd, const P: usize, const T: usize, const SIGNED: bool>(
        simd: S,
        pairs: &[Self; P],
        index: usize,
        x: &[Block; T],
    ) -> [[S::PairI32; T]; P];
}

/// Integers as stored, in blocks of `B` bytes: eight bits each, or four bits, two to a byte.
#[derive(Clone, Copy)]
struct Packed<'a, const B: usize>([&'a [[u8; B]]; 2]);

/// Four-bit integers, one to a byte.
#[derive(Clone, Copy)]
struct Unpacked<'a>(&'a [UnpackedBlock]);

impl<'a, const B: usize> Packed<'a, B> {
    #[inline(always)]
    fn all<const P: usize>(pairs: &Pairs<'a, P>) -> [Self; P] {
        let mut all = [Self([&[]; 2]); P];
        for p in 0..P {
            all[p] = Self(split(pairs.bytes[p]));
        }
        all
    }

    #[inline(always)]
    fn cut(self, n: usize) -> Self {
        Self([&self.0[0][..n], &self.0[1][..n]])
    }

    #[inline(always)]
    fn blocks<const P: usize>(pairs: &[Self; P], index: usize) -> [[&'a [u8; B]; 2]; P] {
        let mut blocks = [[&pairs[0].0[0][index]; 2]; P];
        for p in 0..P {
            blocks[p] = [&pairs[p].0[0][index], &pairs[p].0[1][index]];
        }
        blocks
    }
}

impl Pair for Packed<'_, Q4_BLOCK_BYTES> {
    #[inline(always)]
    fn first(self, n: usize) -> Self {
        self.cut(n)
    }
    #[inline(always)]
    fn dot<S: Simd, const P: usize, const T: usize, const SIGNED: bool>(
        simd: S,
        pairs: &[Self; P],
        index: usize,
        x: &[Block; T],
    ) -> [[S::PairI32; T]; P] {
        simd.dot_q4::<P, T, SIGNED>(Self::blocks(pairs, index), x)
    }
}

impl Pair for Packed<'_, Q8_BLOCK_BYTES> {
    #[inline(always)]
    fn first(self, n: usize) -> Self {
        self.cut(n)
    }
    #[inline(always)]
    fn dot<S: Simd, const P: usize, const T: usize, const SIGNED: bool>(
        simd: S,
        pairs: &[Self; P],
        index: usize,
        x: &[Block; T],
    ) -> [[S::PairI32; T]; P] {
        simd.dot_q8(Self::blocks(pairs, index), x)
    }
}

impl Pair for Unpacked<'_> {
    #[inline(always)]
    fn first(self, n: usize) -> Self {
        Self(&self.0[..n])
    }
    #[inline(always)]
    fn dot<S: Simd, const P: usize, const T: usize, const SIGNED: bool>(
        simd: S,
        pairs: &[Self; P],
        index: usize,
        x: &[Block; T],
    ) -> [[S::PairI32; T]; P] {
        let mut blocks = [&pairs[0].0[index].0; P];
        for p in 1..P {
            blocks[p] = &pairs[p].0[index].0;
        }
        simd.dot_unpacked::<P, T, SIGNED>(blocks, x)
    }
}
