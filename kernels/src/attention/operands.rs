//! The two products of a page: rows of queries with its keys, and rows of weights with its values.

use super::cache::CachedHead;
use super::element::Number;
use super::product::{AlignedPair, Columns, Operand, Pair, Rows, STRIP, product, tile_product};
use super::shape::KvShape;
use super::{Cached, KEYS};
use crate::simd::{LANES, Simd};

/// Pairs of a row of scores, or of softmax weights, for one page.
pub(super) const WEIGHTS: usize = KEYS / (2 * LANES);

/// Most elements of a head for which a few columns of keys stay in the L1 cache, together with those of some queries.
const PART: usize = if cfg!(test) { 24 } else { 96 };

/// Pairs of columns that are widened at a time, at most.
const TILE_PAIRS: usize = 2;

/// The second operands of the products.
pub(super) enum Operands<'a, E: Cached> {
    /// Both for themselves.
    Own { keys: Operand<'a, E::Key>, values: Operand<'a, E::Value> },
    /// The values are a part of the keys. They are widened for each product, two or four columns at a time: all of them in `f32`, and
    /// transposed, would not stay in the L2 cache.
    Keys {
        keys: Columns<'a, E::Key>,
        value_size: usize,
        /// The keys of the next page.
        next: &'a [<E::Key as Number>::Vector],
        tile: &'a mut [AlignedPair],
    },
}

/// Pairs that [`Operands::new`] needs for the keys and for the values.
pub(super) fn scratch(rows: usize, shape: KvShape) -> [usize; 2] {
    if shape.shares() {
        [TILE_PAIRS * PART.max(KEYS), 0]
    } else if rows == 1 {
        [0, 0]
    } else {
        [WEIGHTS * shape.head_size, KEYS * shape.head_size.div_ceil(2 * LANES)]
    }
}

impl<'a, E: Cached> Operands<'a, E> {
    /// Those for `rows` rows, of which the last attends to `most` positions of a page. The keys and values of several rows are widened
    /// to `f32`, once for all.
    #[inline(always)]
    pub(super) fn new<S: Simd>(
        simd: S,
        cached: &CachedHead<'a, E>,
        most: usize,
        rows: usize,
        next: &'a [<E::Key as Number>::Vector],
        wide_keys: &'a mut [AlignedPair],
        wide_values: &'a mut [AlignedPair],
    ) -> Self {
        let keys = cached.keys(most);
        if cached.shape.shares() {
            let value_size = cached.shape.value_size();
            Self::Keys { keys, value_size, next, tile: wide_keys }
        } else if rows == 1 {
            let values = Operand::Cached(cached.values(most));
            Self::Own { keys: Operand::Cached(keys), values }
        } else {
            let keys = Operand::Widened(keys.widen(simd, wide_keys));
            let values = Operand::Widened(cached.values(most).widen(simd, wide_values));
            Self::Own { keys, values }
        }
    }

    /// The products of queries with the keys: `[rows][WEIGHTS]`
    #[inline(always)]
    pub(super) fn scores<S: Simd>(&mut self, simd: S, queries: Rows<'_>, out: &mut [Pair]) {
        let (keys, next, tile) = match self {
            Self::Own { keys, .. } => return product(simd, queries, *keys, out, WEIGHTS),
            Self::Keys { keys, next, tile, .. } => (keys, *next, tile),
        };
        let (pairs, depth) = (keys.pairs(), queries.depth);
        let parts = depth.div_ceil(PART);
        let part = depth.div_ceil(parts);
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
                &next[..next.len().min(part * STRIP / E::Key::COLUMNS)]
            };
            let queries = Rows { values: &queries.values[start..], depth, ..queries };
            let pairs = first..(first + STRIP / 2).min(pairs);
            let mut next = next.chunks(next.len().div_ceil(pairs.len().div_ceil(S::PAIRS)).max(1));
            for pair in pairs.clone().step_by(S::PAIRS) {
                let next = bytemuck::cast_slice(next.next().unwrap_or_default());
                let tile = &mut tile[..S::PAIRS.min(pairs.end - pair) * depth];
                for (index, to) in tile.chunks_exact_mut(depth).enumerate() {
                    keys.widen_pair(simd, pair + index, start, to);
                }
                tile_product(simd, queries, tile, start > 0, next, &mut out[pair..], WEIGHTS);
            }
        }
    }

    /// The products of weights with the values; the rows of `out` are `stride` pairs apart.
    #[inline(always)]
    pub(super) fn outputs<S: Simd>(
        &mut self,
        simd: S,
        weights: Rows<'_>,
        out: &mut [Pair],
        stride: usize,
    ) {
        let (keys, value_size, tile) = match self {
            Self::Own { values, .. } => return product(simd, weights, *values, out, stride),
            Self::Keys { keys, value_size, tile, .. } => (keys, *value_size, tile),
        };
        let (pairs, positions) = (value_size.div_ceil(2 * LANES), weights.depth);
        for pair in (0..pairs).step_by(S::PAIRS) {
            let tile = &mut tile[..S::PAIRS.min(pairs - pair) * positions];
            for (index, to) in tile.chunks_exact_mut(positions).enumerate() {
                keys.widen_lanes(simd, pair + index, to);
            }
            tile_product(simd, weights, tile, false, &[], &mut out[pair..], stride);
        }
    }
}
