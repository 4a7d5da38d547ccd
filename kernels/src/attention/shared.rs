//! The two products of a page whose values are a part of its keys. The keys are widened for each product, two or four columns at a time: all
//! of them, and transposed, would not stay in the L2 cache.

use super::KEYS;
use super::element::Number;
use super::integers::{IntegerPart, IntegerRows, integer_product};
use super::operands::WEIGHTS;
use super::product::{AlignedPair, Columns, Pair, Rows, STRIP, tile_product};
use crate::simd::{LANES, Simd};

/// Most elements of a head for which a few columns of keys stay in the L1 cache, together with those of some queries.
const PART: usize = if cfg!(test) { 24 } else { 96 };

/// Pairs of columns that are widened at a time, at most.
const TILE_PAIRS: usize = 2;

/// Pairs that a tile needs.
pub(super) const TILE: usize = TILE_PAIRS * if PART > KEYS { PART } else { KEYS };

/// Elements of a head that are multiplied at a time: in parts of equal size, but for the last.
#[inline(always)]
pub(super) fn part(head_size: usize) -> usize {
    head_size.div_ceil(head_size.div_ceil(PART)).next_multiple_of(LANES)
}

/// The second operand of both products.
pub(super) struct Shared<'a, E: Number> {
    pub(super) keys: Columns<'a, E>,
    pub(super) value_size: usize,
    /// The keys of the next page.
    pub(super) next: &'a [E::Vector],
    /// A few columns, widened: to `f32`, or to integers if the keys are quantized.
    pub(super) tile: &'a mut [AlignedPair],
}

impl<E: Number> Shared<'_, E> {
    /// The products of queries with the keys, `[rows][WEIGHTS]`. Quantized keys are multiplied with `integers`, the others with `queries`.
    #[inline(always)]
    pub(super) fn scores<S: Simd>(
        &mut self,
        simd: S,
        queries: Rows<'_>,
        integers: &IntegerRows,
        out: &mut [Pair],
    ) {
        let Self { keys, next, tile, .. } = self;
        let (pairs, depth, count) = (keys.pairs(), queries.depth, queries.count);
        let part = part(depth);
        let parts = depth.div_ceil(part);
        let blocks = pairs.div_ceil(STRIP / 2) * parts;
        let block = |index: usize| {
            let start = index % parts * part;
            (index / parts * (STRIP / 2), start, part.min(depth - start))
        };
        for index in 0..blocks {
            let (first, start, depth) = block(index);
            let next = if index + 1 < blocks {
                let (first, start, depth) = block(index + 1);
                keys.block(first, start, depth).0
            } else {
                &next[..next.len().min(part * STRIP / E::COLUMNS)]
            };
            let queries = Rows { values: &queries.values[start..], depth, ..queries };
            let cells = if E::QUANTIZED { depth / 2 } else { depth };
            let integers = IntegerPart { rows: integers, part: start / part, depth: cells, count };
            let pairs = first..(first + STRIP / 2).min(pairs);
            let mut next = next.chunks(next.len().div_ceil(pairs.len().div_ceil(S::PAIRS)).max(1));
            for pair in pairs.clone().step_by(S::PAIRS) {
                let next = bytemuck::cast_slice(next.next().unwrap_or_default());
                let (add, out) = (start > 0, &mut out[pair..]);
                let tile = &mut tile[..S::PAIRS.min(pairs.end - pair) * cells];
                for (index, to) in tile.chunks_exact_mut(cells).enumerate() {
                    if E::QUANTIZED {
                        keys.interleave_pair(simd, pair + index, start, to);
                    } else {
                        keys.widen_pair(simd, pair + index, start, to);
                    }
                }
                if E::QUANTIZED {
                    integer_product(simd, integers, tile, add, next, out, WEIGHTS);
                } else {
                    tile_product(simd, queries, tile, add, next, out, WEIGHTS);
                }
            }
        }
    }

    /// The products of weights with the values; the rows of `out` are `stride` pairs apart. Quantized values are multiplied with `integers`,
    /// whose elements behind the last key that a row attends to are 0 up to a multiple of eight.
    #[inline(always)]
    pub(super) fn outputs<S: Simd>(
        &mut self,
        simd: S,
        weights: Rows<'_>,
        integers: &IntegerRows,
        out: &mut [Pair],
        stride: usize,
    ) {
        let Self { keys, value_size, tile, .. } = self;
        let pairs = value_size.div_ceil(2 * LANES);
        let positions = weights.depth;
        let cells = if E::QUANTIZED { positions.next_multiple_of(LANES) / 2 } else { positions };
        let count = weights.count;
        let integers = IntegerPart { rows: integers, part: 0, depth: cells, count };
        for pair in (0..pairs).step_by(S::PAIRS) {
            let tile = &mut tile[..S::PAIRS.min(pairs - pair) * cells];
            let out = &mut out[pair..];
            for (index, to) in tile.chunks_exact_mut(cells).enumerate() {
                if E::QUANTIZED {
                    keys.interleave_lanes(simd, pair + index, to);
                } else {
                    keys.widen_lanes(simd, pair + index, to);
                }
            }
            if E::QUANTIZED {
                integer_product(simd, integers, tile, false, &[], out, stride);
            } else {
                tile_product(simd, weights, tile, false, &[], out, stride);
            }
        }
    }
}
