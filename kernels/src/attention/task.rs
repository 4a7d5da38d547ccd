//! One task of an attention: some rows (a query head of a token each) of one KV head, page by page.

use std::ops::Range;

use super::cache::CachedHead;
use super::element::Number;
use super::integers::IntegerRows;
use super::operands::{self, Operands, WEIGHTS};
use super::partial::{finish, merge, partial_len};
use super::product::{AlignedPair, Pair, Rows, ZEROS};
use super::shape::KvShape;
use super::softmax::softmax;
use super::{Attention, Cached, KEYS, shared};
use crate::parallel::SharedRows;
use crate::rotation::rotate;
use crate::simd::{LANES, PairKernel, Simd};

/// Which rows and pages of a KV head a task computes, and where it writes the result.
pub(super) struct Task<'a> {
    pub(super) head: usize,
    pub(super) rows: Range<usize>,
    pub(super) pages: Range<usize>,
    pub(super) to: Destination<'a>,
}

/// Where a task writes its result.
#[derive(Clone, Copy)]
pub(super) enum Destination<'a> {
    /// The output, for a task over all pages: `[queries · heads][value size / 8]`
    Out(&'a SharedRows<'a, [f32; LANES]>),
    /// The partial results of each page, for a single query: `[pages][heads · partial_len]`
    Partials(&'a SharedRows<'a, Pair>),
}

/// Rows for which a few columns of a page stay in the L1 cache, together with the rows and their weights. A multiple of the tile
/// height (in tests not, so that tiles of all heights occur).
const ROW_BLOCK: usize = if cfg!(test) { 5 } else { 24 };

/// Most rows of a task that are multiplied with a page at a time. Values that are a part of keys are widened a few columns at a time, twice: so
/// once for all rows.
fn row_block(rows: usize, shape: KvShape) -> usize {
    if shape.shares() { rows } else { rows.min(ROW_BLOCK) }
}

/// Whether integers are multiplied.
#[inline(always)]
fn integers<E: Cached>(shape: KvShape) -> bool {
    E::Key::QUANTIZED && shape.shares()
}

/// Buffers of a thread, reused by its next task.
#[derive(Default)]
pub(super) struct Scratch {
    /// Keys of a page, widened to `f32`; or a few columns of what is both keys and values, also as integers.
    keys: Vec<AlignedPair>,
    /// Values of a page, widened to `f32`.
    values: Vec<AlignedPair>,
    /// `[rows][head size]`
    queries: Vec<[f32; LANES]>,
    /// The same as integers, for quantized keys that values are a part of.
    query_integers: IntegerRows,
    /// Scores, then softmax weights: `[row_block][WEIGHTS]`
    weights: Vec<Pair>,
    /// The weights as integers, for values that are a part of quantized keys.
    weight_integers: IntegerRows,
    /// `Σ p · minimum` of the values: `[row_block]`
    minima: Vec<f32>,
    /// Partial results for one page: `[row_block][partial_len]`
    partials: Vec<Pair>,
    /// Merged partial results of all pages so far: `[rows][partial_len]`
    merged: Vec<Pair>,
}

impl Scratch {
    /// Resizes the buffers for a task of `rows` rows.
    pub(super) fn fit<E: Cached>(&mut self, rows: usize, shape: KvShape) {
        let (len, row_block) = (partial_len(shape.value_size()), row_block(rows, shape));
        for (wide, len) in
            [&mut self.keys, &mut self.values].into_iter().zip(operands::scratch(rows, shape))
        {
            wide.resize(wide.len().max(len), AlignedPair::ZEROS);
        }
        self.queries.resize(rows * shape.head_size / LANES, [0.0; LANES]);
        self.weights.resize(row_block * WEIGHTS, ZEROS);
        self.minima.resize(row_block, 0.0);
        if integers::<E>(shape) {
            self.query_integers.fit(rows, shape.head_size, shared::part(shape.head_size));
            self.weight_integers.fit(row_block, KEYS, KEYS);
        }
        self.partials.resize(row_block * len, ZEROS);
        self.merged.resize(rows * len, ZEROS);
    }
}

/// The computation of a [`Task`], for which `scratch` has the right sizes.
pub struct AttendTask<'a, E: Cached> {
    pub(super) attention: &'a Attention<'a, E>,
    pub(super) task: Task<'a>,
    pub(super) scratch: &'a mut Scratch,
}

impl<E: Cached> PairKernel for AttendTask<'_, E> {
    type Output = ();
    // Those of 16 bits, which only x86-64's instruction sets differ in.
    const INTEGERS: bool = E::Key::QUANTIZED && cfg!(target_arch = "x86_64");

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { attention, task, scratch } = self;
        let shape = attention.cache.shape();
        let (head_size, value_size) = (shape.head_size, shape.value_size());
        let (rows, len) = (task.rows.len(), partial_len(value_size));
        let Scratch { keys: wide_keys, values: wide_values, queries, merged, .. } = scratch;
        let Scratch { weights, minima, partials, query_integers, weight_integers, .. } = scratch;
        for row in 0..rows {
            let query = attention.query(task.head, task.rows.start + row);
            let copy = &mut queries[row * head_size / LANES..][..head_size / LANES];
            copy.as_flattened_mut().copy_from_slice(query);
            if E::Key::QUANTIZED {
                rotate(simd, copy);
            }
            if integers::<E>(shape) {
                query_integers.set(simd, row, copy);
            }
        }
        for page in task.pages.clone() {
            // The number of visible keys grows with the position, so the last row has the most.
            let most = attention.visible(task.rows.end - 1, page);
            if most == 0 {
                break;
            }
            // Every row has visible keys in the first page: it is page 0, or the task has the rows of one query only.
            let first_page =
                page == task.pages.start || matches!(task.to, Destination::Partials(_));
            let cached = attention.cache.head(page, attention.layer, task.head);
            let next = match shape.shares() && page + 1 < task.pages.end {
                true => attention.cache.head(page + 1, attention.layer, task.head).keys,
                false => &[],
            };
            let mut operands =
                Operands::new(simd, &cached, most, rows, next, wide_keys, wide_values);
            let step = row_block(rows, shape);
            for first in (0..rows).step_by(step) {
                debug_assert!(first == 0 || !integers::<E>(shape), "rows of integers");
                let count = step.min(rows - first);
                let values = &queries.as_flattened()[first * head_size..];
                let of_queries = Rows { values, depth: head_size, stride: head_size, count };
                operands.scores(simd, of_queries, query_integers, weights);
                let merged = &mut merged[first * len..];
                let to = if first_page { &mut *merged } else { &mut partials[..] };
                for row in 0..count {
                    let visible = attention.visible(task.rows.start + first + row, page);
                    let weights = weights[row * WEIGHTS..][..WEIGHTS].as_flattened_mut();
                    let query = &queries[(first + row) * head_size / LANES..];
                    (to[row * len], minima[row]) = softmax::<S, E>(
                        simd,
                        attention.scale,
                        &query[..head_size / LANES],
                        &cached,
                        [visible, most],
                        weights,
                    );
                    if integers::<E>(shape) {
                        // Whole vectors, without what is behind the last key.
                        weights.as_flattened_mut()[most..].fill(0.0);
                        weight_integers.set(simd, row, &weights[..most.div_ceil(LANES)]);
                    }
                }
                let weights = weights.as_flattened().as_flattened();
                let weights = Rows { values: weights, depth: most, stride: KEYS, count };
                operands.outputs(simd, weights, weight_integers, &mut to[1..], len);
                if E::Value::MINIMUM {
                    for row in 0..count {
                        add_minimum(simd, &mut to[row * len..][..len], minima[row], &cached);
                    }
                }
                if first_page {
                    continue;
                }
                for row in 0..count {
                    if attention.visible(task.rows.start + first + row, page) > 0 {
                        // A row without visible keys skips the merge: it could only turn −0 into 0 and propagate NaN and
                        // infinity from masked values.
                        let partial = &partials[row * len..][..len];
                        merge(simd, &mut merged[row * len..][..len], partial);
                    }
                }
            }
            if let Destination::Partials(partials) = task.to {
                let first = task.head * attention.group_size() + task.rows.start;
                // SAFETY: exactly one task has these rows of this page.
                let partials = unsafe { partials.row(page, first * len..(first + rows) * len) };
                // Not computed in place: that memory is not in the cache, and a product would wait for it.
                partials.copy_from_slice(merged);
            }
        }
        let Destination::Out(out) = task.to else { return };
        for (row, merged) in task.rows.clone().zip(merged.chunks_exact(len)) {
            let (query, head) = (row / attention.group_size(), row % attention.group_size());
            let row = query * attention.heads + task.head * attention.group_size() + head;
            // SAFETY: exactly one task has this row.
            let out = unsafe { out.row(row, 0..value_size / LANES) };
            finish(simd, merged, E::Value::QUANTIZED.then(|| shape.rotated()), out);
        }
    }
}

/// Adds to `o` what the integers of the values leave out: `minimum`, which is `Σ p · minimum`; where the values are a part of the keys, also
/// `Σ p` times the anchor.
#[inline(always)]
fn add_minimum<S: Simd, E: Cached>(
    simd: S,
    partial: &mut [Pair],
    minimum: f32,
    cached: &CachedHead<'_, E>,
) {
    let sum = simd.splat(partial[0][0][1]);
    let (one, minimum) = (simd.pair_splat(1.0), simd.pair_splat(minimum));
    for pair in &mut partial[1..] {
        simd.pair_store(simd.pair_fma(simd.pair_load(pair), one, minimum), pair);
    }
    if cached.shape.shares() {
        for (o, anchor) in partial[1..].as_flattened_mut().iter_mut().zip(cached.anchor) {
            simd.store(simd.fma(simd.load(anchor), sum, simd.load(o)), o);
        }
    }
}
