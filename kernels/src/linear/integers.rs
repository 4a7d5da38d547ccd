//! Quantized weights in panels with quantized inputs: integer dot products. Each lane is an output row.

use std::ops::Range;

use super::pairs::{CHUNK, Packed, Pair, Pairs, UnpackedBlock, unpack};
use super::{Linear, Outputs, STREAMS, Target};
use crate::Isa;
use crate::format::{Bits, GroupForm, Panels};
use crate::parallel::{Tile, tiles, whole_tiles};
use crate::quantized::{BUNDLE, Q8Section};
use crate::simd::{
    Block, LANES, PairKernel, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES, Simd, UNPACKED_BLOCK_BYTES,
};

/// A task on quantized inputs: the panels at `places` of the streams, see [`Linear::stream`].
pub(super) struct Integers<'a> {
    pub(super) linear: &'a Linear<'a>,
    pub(super) weight: Panels<'a>,
    pub(super) x: Q8Section<'a>,
    pub(super) places: Range<usize>,
    pub(super) y: &'a Target<'a>,
    pub(super) scratch: &'a mut Scratch,
}

impl Integers<'_> {
    /// Computes the outputs.
    pub(super) fn run(self, isa: Isa) {
        let shape = self.weight.shape();
        match (shape.bits, shape.form) {
            (Bits::Four, GroupForm::Scale) => {
                isa.run_pairs(OfBlocks::<Q4_BLOCK_BYTES, false>(self));
            }
            (Bits::Four, GroupForm::Minimum | GroupForm::ZeroPoint) => {
                isa.run_pairs(OfBlocks::<Q4_BLOCK_BYTES, true>(self));
            }
            (Bits::Eight, _) => isa.run_pairs(OfBlocks::<Q8_BLOCK_BYTES, false>(self)),
        }
    }
}

/// [`Integers`] whose blocks have `B` bytes, in groups with or without a minimum.
///
/// A kernel for each kind of weights, because the time to compile a function grows with the square of its size.
struct OfBlocks<'a, const B: usize, const MINIMUM: bool>(Integers<'a>);

impl<const B: usize, const MINIMUM: bool> PairKernel for OfBlocks<'_, B, MINIMUM>
where
    for<'a> Packed<'a, B>: Pair,
{
    type Output = ();
    const INTEGERS: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Integers { linear, weight, x, places, y, scratch } = self.0;
        const { assert!(STREAMS == 4) };
        for place in places {
            let out = Outputs::new(simd, linear, y, place);
            // Pairs computed together share the broadcast of activations. For one token, every ISA has registers for two pairs.
            if x.rows() == 1 {
                one_token::<S, B, MINIMUM>(out, &weight, x);
            } else if S::PAIRS == 2 {
                pairs::<S, 2, B, MINIMUM>(out, &weight, x, scratch);
            } else {
                for panel in [0, 2] {
                    if let Some(out) = out.further(panel) {
                        pairs::<S, 1, B, MINIMUM>(out, &weight, x, scratch);
                    }
                }
            }
        }
    }
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
/// For many tokens, Q4 weights are unpacked once, in chunks of blocks that stay in the L1 cache until all whole tiles of tokens are
/// multiplied.
#[inline(always)]
fn pairs<S: Simd, const P: usize, const B: usize, const MINIMUM: bool>(
    out: Outputs<'_, S>,
    weight: &Panels<'_>,
    x: Q8Section<'_>,
    scratch: &mut Scratch,
) where
    for<'a> Packed<'a, B>: Pair,
{
    let (tokens, blocks) = (x.padded_rows(), weight.shape().blocks());
    let (simd, pairs) = (out.simd, Pairs::<P>::new(weight, out));
    let Scratch { unpacked, sums } = scratch;
    sums.resize(tokens * P, [[0.0; LANES]; 2]);
    let mut done = 0;
    if B == Q4_BLOCK_BYTES && tokens >= UNPACK_TOKENS {
        done = tokens - tokens % S::TOKENS;
        unpacked.resize(P * CHUNK, UnpackedBlock([0; UNPACKED_BLOCK_BYTES]));
        for first in (0..blocks).step_by(CHUNK) {
            let chunk = first..(first + CHUNK).min(blocks);
            let weights = unpack(simd, &pairs, chunk.clone(), unpacked);
            let part = &mut Integer::<_, _, P, MINIMUM> { simd, weights, pairs, x, chunk, sums };
            whole_tiles(done, part);
        }
    }
    tiles(done..tokens, &mut packed::<_, B, P, MINIMUM>(simd, pairs, x, sums));
    store::<S, P>(out, &sums[..x.rows() * P]);
}

/// As [`pairs`], for two pairs and one token.
#[inline(always)]
fn one_token<S: Simd, const B: usize, const MINIMUM: bool>(
    out: Outputs<'_, S>,
    weight: &Panels<'_>,
    x: Q8Section<'_>,
) where
    for<'a> Packed<'a, B>: Pair,
{
    let pairs = Pairs::<2>::new(weight, out);
    let sums = &mut [[[0.0; LANES]; 2]; 2];
    packed::<_, B, 2, MINIMUM>(out.simd, pairs, x, sums).tile([0]);
    store::<S, 2>(out, sums);
}

/// The dot products of all blocks, as they are stored.
#[inline(always)]
fn packed<'a, S, const B: usize, const P: usize, const MINIMUM: bool>(
    simd: S,
    pairs: Pairs<'a, P>,
    x: Q8Section<'a>,
    sums: &'a mut [[[f32; LANES]; 2]],
) -> Integer<'a, S, Packed<'a, B>, P, MINIMUM> {
    let weights = Packed::all(&pairs);
    let chunk = 0..weights[0].len();
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

/// The number of tokens from which unpacking a panel pays.
const UNPACK_TOKENS: usize = if cfg!(test) { 6 } else { 32 };

/// Dot products of the blocks of `chunk`, of groups with or without a minimum.
struct Integer<'a, S, W, const P: usize, const MINIMUM: bool> {
    simd: S,
    /// The blocks of `chunk`.
    weights: [W; P],
    pairs: Pairs<'a, P>,
    x: Q8Section<'a>,
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
    /// The weights are `scale · nibble + minimum`, so the nibbles need no offset (that of a zero point is `−zero · scale`), the scale is
    /// applied once to the sum of the blocks, and the minimum to the sum of the activations. With two blocks, that is as much work as two
    /// blocks with a scale each.
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
