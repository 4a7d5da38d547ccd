//! The blocks of pairs of panels, packed or unpacked.

use std::ops::Range;

use half::f16;

use super::Outputs;
use crate::format::{GroupForm, Panels, Shape};
use crate::simd::{
    Block, LANES, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES, Simd, UNPACKED_BLOCK_BYTES, Vectors,
};

/// A block of two panels with one byte per nibble. Aligned, so that no vector crosses a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct UnpackedBlock(pub(super) [u8; UNPACKED_BLOCK_BYTES]);

/// Blocks of a pair that are unpacked at once: 8 KB. An even number, because two blocks of a group may be added together.
pub(super) const CHUNK: usize = if cfg!(test) { 4 } else { 16 };
const _: () = assert!(CHUNK.is_multiple_of(2));

/// `P` pairs of panels.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a, const P: usize> {
    bytes: [[&'a [u8]; 2]; P],
    /// As [`Panels::panel`].
    pub(super) scales: [[&'a [[f16; LANES]]; 2]; P],
    pub(super) group_blocks: usize,
    pub(super) form: GroupForm,
}

impl<'a, const P: usize> Pairs<'a, P> {
    /// Those of `out`; the last panel replaces one that does not exist.
    #[inline(always)]
    pub(super) fn new<S: Vectors>(weight: &Panels<'a>, out: Outputs<'_, S>) -> Self {
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
pub(super) fn unpack<'a, S: Simd, const P: usize>(
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

/// The blocks of a pair of panels.
pub(super) trait Pair: Copy {
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
pub(super) struct Packed<'a, const B: usize>([&'a [[u8; B]]; 2]);

/// Four-bit integers, one to a byte.
#[derive(Clone, Copy)]
pub(super) struct Unpacked<'a>(&'a [UnpackedBlock]);

impl<'a, const B: usize> Packed<'a, B> {
    #[inline(always)]
    pub(super) fn all<const P: usize>(pairs: &Pairs<'a, P>) -> [Self; P] {
        let mut all = [Self([&[]; 2]); P];
        for p in 0..P {
            all[p] = Self(split(pairs.bytes[p]));
        }
        all
    }

    /// Blocks of each panel.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.0[0].len()
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
