//! The two products of a page: rows of queries with its keys, and rows of weights with its values.

use super::cache::CachedHead;
use super::element::Number;
use super::integers::IntegerRows;
use super::product::{AlignedPair, Operand, Pair, Rows, product};
use super::shape::KvShape;
use super::shared::{self, Shared};
use super::{Cached, KEYS};
use crate::simd::{LANES, Simd};

/// Pairs of a row of scores, or of softmax weights, for one page.
pub(super) const WEIGHTS: usize = KEYS / (2 * LANES);

/// The second operands of the products.
pub(super) enum Operands<'a, E: Cached> {
    /// Both for themselves.
    Own { keys: Operand<'a, E::Key>, values: Operand<'a, E::Value> },
    /// The values are a part of the keys.
    Shared(Shared<'a, E::Key>),
}

/// Pairs that [`Operands::new`] needs for the keys and for the values.
pub(super) fn scratch(rows: usize, shape: KvShape) -> [usize; 2] {
    if shape.shares() {
        [shared::TILE, 0]
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
            Self::Shared(Shared { keys, value_size, next, tile: wide_keys })
        } else if rows == 1 {
            let values = Operand::Cached(cached.values(most));
            Self::Own { keys: Operand::Cached(keys), values }
        } else {
            let keys = Operand::Widened(keys.widen(simd, wide_keys));
            let values = Operand::Widened(cached.values(most).widen(simd, wide_values));
            Self::Own { keys, values }
        }
    }

    /// The products of queries with the keys: `[rows][WEIGHTS]`. [Shared] keys that are quantized are multiplied with `integers`.
    #[inline(always)]
    pub(super) fn scores<S: Simd>(
        &mut self,
        simd: S,
        queries: Rows<'_>,
        integers: &IntegerRows,
        out: &mut [Pair],
    ) {
        match self {
            Self::Own { keys, .. } => product(simd, queries, *keys, out, WEIGHTS),
            Self::Shared(shared) => shared.scores(simd, queries, integers, out),
        }
    }

    /// The products of weights with the values; the rows of `out` are `stride` pairs apart. [Shared] values that are quantized are multiplied with
    /// `integers`.
    #[inline(always)]
    pub(super) fn outputs<S: Simd>(
        &mut self,
        simd: S,
        weights: Rows<'_>,
        integers: &IntegerRows,
        out: &mut [Pair],
        stride: usize,
    ) {
        match self {
            Self::Own { values, .. } => product(simd, weights, *values, out, stride),
            Self::Shared(shared) => shared.outputs(simd, weights, integers, out, stride),
        }
    }
}
