//! One task of an attention: some rows (a query head of a token each) of one KV head, page by page.

use std::ops::Range;

use super::cache::CachedHead;
use super::element::Number;
use super::product::{AlignedPair, Operand, Pair, Rows, ZEROS, product};
use super::{Attention, Cached, KEYS};
use crate::math::exp;
use crate::parallel::SharedRows;
use crate::rotation::rotate;
use crate::simd::{LANES, PairKernel, Simd, Vectors};

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
    /// The output, for a task over all pages: `[queries · heads][head size / 8]`
    Out(&'a SharedRows<'a, [f32; LANES]>),
    /// The partial result of one page, for a single query: `[heads][pages · partial_len]`
    Partials(&'a SharedRows<'a, Pair>),
}

/// Pairs of a partial result: one for `m` and `s`, the others for `o`.
pub(super) fn partial_len(head_size: usize) -> usize {
    1 + head_size.div_ceil(2 * LANES)
}

/// The first pair of a partial result: `m`, `s` and zeros.
fn partial_head(max: f32, sum: f32) -> Pair {
    let mut head = ZEROS;
    (head[0][0], head[0][1]) = (max, sum);
    head
}

/// Rows for which a few columns of a page stay in the L1 cache, together with the rows and their weights. A multiple of the tile
/// height (in tests not, so that tiles of all heights occur).
const ROW_BLOCK: usize = if cfg!(test) { 5 } else { 24 };

/// Pairs of a row of softmax weights for one page.
const WEIGHTS: usize = KEYS / (2 * LANES);

/// Buffers of a thread, reused by its next task.
#[derive(Default)]
pub(super) struct Scratch {
    /// The keys of a page, widened to `f32`.
    keys: Vec<AlignedPair>,
    /// The values of a page, widened to `f32`.
    values: Vec<AlignedPair>,
    /// `[rows][head size]`
    queries: Vec<[f32; LANES]>,
    /// Scores, then softmax weights, of a row block: `[ROW_BLOCK][WEIGHTS]`
    weights: Vec<Pair>,
    /// Partial results of a row block for one page: `[ROW_BLOCK][partial_len]`
    partials: Vec<Pair>,
    /// Merged partial results of all pages so far: `[rows][partial_len]`
    merged: Vec<Pair>,
}

impl Scratch {
    /// Resizes the buffers for a task of `rows` rows.
    pub(super) fn fit(&mut self, rows: usize, head_size: usize) {
        let (len, row_block) = (partial_len(head_size), rows.min(ROW_BLOCK));
        if rows > 1 {
            self.keys.resize(WEIGHTS * head_size, AlignedPair::ZEROS);
            self.values.resize(KEYS * (len - 1), AlignedPair::ZEROS);
        }
        self.queries.resize(rows * head_size / LANES, [0.0; LANES]);
        self.weights.resize(row_block * WEIGHTS, ZEROS);
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

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { attention, task, scratch } = self;
        let head_size = attention.cache.shape().head_size;
        let (rows, len) = (task.rows.len(), partial_len(head_size));
        let Scratch { keys: wide_keys, values: wide_values, queries, weights, partials, merged } =
            scratch;
        for row in 0..rows {
            let query = attention.query(task.head, task.rows.start + row);
            let copy = &mut queries[row * head_size / LANES..][..head_size / LANES];
            copy.as_flattened_mut().copy_from_slice(query);
            if E::Key::QUANTIZED {
                rotate(simd, copy);
            }
        }
        // Of the rows of a block: `Σ p · minimum` of the values.
        let mut minima = [0.0; ROW_BLOCK];
        for page in task.pages.clone() {
            // The number of visible keys grows with the position, so the last row has the most.
            let most = attention.visible(task.rows.end - 1, page);
            if most == 0 {
                break;
            }
            let cached = attention.cache.head(page, attention.layer, task.head);
            let keys = Operand::new(simd, rows, cached.keys(most), wide_keys);
            let values = Operand::new(simd, rows, cached.values(most), wide_values);
            for first in (0..rows).step_by(ROW_BLOCK) {
                let count = ROW_BLOCK.min(rows - first);
                let values_of_rows = &queries.as_flattened()[first * head_size..];
                let row_block =
                    Rows { values: values_of_rows, depth: head_size, stride: head_size, count };
                product(simd, row_block, keys, weights, WEIGHTS);
                for row in 0..count {
                    let visible = attention.visible(task.rows.start + first + row, page);
                    let weights = weights[row * WEIGHTS..][..WEIGHTS].as_flattened_mut();
                    let query = &queries[(first + row) * head_size / LANES..];
                    (partials[row * len], minima[row]) = softmax::<S, E>(
                        simd,
                        attention.scale,
                        &query[..head_size / LANES],
                        &cached,
                        [visible, most],
                        weights,
                    );
                }
                let weights = weights.as_flattened().as_flattened();
                let row_block = Rows { values: weights, depth: most, stride: KEYS, count };
                product(simd, row_block, values, &mut partials[1..], len);
                for row in 0..count {
                    let partial = &mut partials[row * len..][..len];
                    if E::Value::MINIMUM {
                        let (one, minimum) = (simd.pair_splat(1.0), simd.pair_splat(minima[row]));
                        for pair in &mut partial[1..] {
                            simd.pair_store(
                                simd.pair_fma(simd.pair_load(pair), one, minimum),
                                pair,
                            );
                        }
                    }
                    let partial = &*partial;
                    let merged = &mut merged[(first + row) * len..][..len];
                    if page == task.pages.start {
                        // Every row has visible keys in it: it is page 0, or the task has the rows of one query only.
                        merged.copy_from_slice(partial);
                    } else if attention.visible(task.rows.start + first + row, page) > 0 {
                        // A row without visible keys skips the merge: it could only turn −0 into 0 and propagate NaN and
                        // infinity from masked values.
                        merge(simd, merged, partial);
                    }
                }
            }
        }
        for (row, merged) in task.rows.clone().zip(merged.chunks_exact(len)) {
            let (query, head) = (row / attention.group_size(), row % attention.group_size());
            let head = task.head * attention.group_size() + head;
            // SAFETY: exactly one task has this row and, with `Partials`, this page of it.
            unsafe {
                match task.to {
                    Destination::Out(out) => {
                        let row = query * attention.heads + head;
                        finish(
                            simd,
                            merged,
                            E::Value::QUANTIZED,
                            out.row(row, 0..head_size / LANES),
                        );
                    }
                    Destination::Partials(partials) => {
                        let at = task.pages.start * len;
                        partials.row(head, at..at + len).copy_from_slice(merged);
                    }
                }
            }
        }
    }
}

/// Turns the scores of a row into softmax weights relative to the largest score; returns that score and the sum of the weights as
/// the first pair of a partial result, and the weighted sum of the values' minima.
///
/// `weights` holds scores of the first `most` keys. The row attends to the first `visible` of them; the others get weight 0.
#[inline(always)]
fn softmax<S: Vectors, E: Cached>(
    simd: S,
    scale: f32,
    query: &[[f32; LANES]],
    cached: &CachedHead<'_, E>,
    [visible, most]: [usize; 2],
    weights: &mut [[f32; LANES]],
) -> (Pair, f32) {
    let panels = &mut weights[..most.div_ceil(LANES)];
    if visible == 0 {
        panels.fill([0.0; LANES]);
        return (partial_head(f32::NEG_INFINITY, 0.0), 0.0);
    }
    let scale = simd.splat(scale);
    let [key_grids, value_grids] = cached.grids;
    // What the minimum of a key is multiplied with, and what the anchor adds to each score.
    let (elements, anchor) = match E::Key::MINIMUM {
        true => (simd.splat(sum(simd, query)), simd.splat(dot(simd, query, cached.anchor))),
        false => (simd.splat(0.0), simd.splat(0.0)),
    };
    for (i, panel) in panels.iter_mut().enumerate() {
        let mut score = simd.load(panel);
        if E::Key::QUANTIZED {
            let [scales, minima] = E::Key::grids(simd, &key_grids[i]);
            score = match E::Key::MINIMUM {
                true => simd.fma(score, scales, simd.fma(elements, minima, anchor)),
                false => simd.mul(score, scales),
            };
        }
        simd.store(simd.mul(score, scale), panel);
    }
    panels.as_flattened_mut()[visible..].fill(f32::NEG_INFINITY);
    let mut max = simd.splat(f32::NEG_INFINITY);
    for panel in &*panels {
        max = simd.max(simd.load(panel), max);
    }
    let max = simd.max_lane(max);
    let mut sum = simd.splat(0.0);
    let mut minimum = simd.splat(0.0);
    for (i, panel) in panels.iter_mut().enumerate() {
        let mut weight = exp(simd, simd.sub(simd.load(panel), simd.splat(max)));
        sum = simd.add(sum, weight);
        if E::Value::QUANTIZED {
            let [scales, mut minima] = E::Value::grids(simd, &value_grids[i]);
            if E::Value::MINIMUM {
                if (i + 1) * LANES > most {
                    // Nothing is stored yet behind the last key that a row of the task attends to.
                    let mut lanes = [0.0; LANES];
                    simd.store(minima, &mut lanes);
                    lanes[most % LANES..].fill(0.0);
                    minima = simd.load(&lanes);
                }
                minimum = simd.fma(weight, minima, minimum);
            }
            weight = simd.mul(weight, scales);
        }
        simd.store(weight, panel);
    }
    (partial_head(max, simd.sum(sum)), simd.sum(minimum))
}

/// Merges `partial` into `merged`.
#[inline(always)]
fn merge<S: Simd>(simd: S, merged: &mut [Pair], partial: &[Pair]) {
    let max = merged[0][0][0].max(partial[0][0][0]);
    let old = factor(simd, merged[0][0][0] - max);
    let new = factor(simd, partial[0][0][0] - max);
    for i in 0..merged.len() {
        let old = simd.pair_mul(simd.pair_load(&merged[i]), old);
        let sum = simd.pair_fma(simd.pair_load(&partial[i]), new, old);
        simd.pair_store(sum, &mut merged[i]);
    }
    merged[0][0][0] = max;
}

/// `e^x` in every lane.
#[inline(always)]
fn factor<S: Simd>(simd: S, x: f32) -> S::Pair {
    let mut lanes = [0.0; LANES];
    simd.store(exp(simd, simd.splat(x)), &mut lanes);
    simd.pair_splat(lanes[0])
}

/// `Σ x[i]`
#[inline(always)]
fn sum<S: Vectors>(simd: S, x: &[[f32; LANES]]) -> f32 {
    let mut sum = simd.splat(0.0);
    for x in x {
        sum = simd.add(simd.load(x), sum);
    }
    simd.sum(sum)
}

/// `Σ a[i] · b[i]`, of as many elements as `b` has.
#[inline(always)]
fn dot<S: Vectors>(simd: S, a: &[[f32; LANES]], b: &[[f32; LANES]]) -> f32 {
    let mut sum = simd.splat(0.0);
    for i in 0..b.len() {
        sum = simd.fma(simd.load(&a[i]), simd.load(&b[i]), sum);
    }
    simd.sum(sum)
}

/// Writes `o / s`; rotated back, if the values are rotated.
#[inline(always)]
fn finish<S: Vectors>(simd: S, merged: &[Pair], rotated: bool, out: &mut [[f32; LANES]]) {
    let inverse = simd.splat(1.0 / merged[0][0][1]);
    let merged = merged[1..].as_flattened();
    for i in 0..out.len() {
        simd.store(simd.mul(simd.load(&merged[i]), inverse), &mut out[i]);
    }
    if rotated {
        rotate(simd, out);
    }
}

/// Merges the partial results of all pages of a head, in page order, and writes its output.
pub(super) struct MergePartials<'a> {
    pub(super) partials: &'a mut [Pair],
    /// Whether the values are rotated.
    pub(super) rotated: bool,
    pub(super) out: &'a mut [[f32; LANES]],
}

impl PairKernel for MergePartials<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (merged, rest) = self.partials.split_at_mut(partial_len(self.out.len() * LANES));
        for partial in rest.chunks_exact(merged.len()) {
            merge(simd, merged, partial);
        }
        finish(simd, merged, self.rotated, self.out);
    }
}
