//! What one thread computes: some rows (queries, and within them heads) that share a head of the cache, by blocks of its keys.

use std::ops::Range;

use super::product::{Block, Pair, Rows, Wide, ZEROS, product};
use super::{Attention, Cached, KEYS};
use crate::math::exp;
use crate::parallel::SharedRows;
use crate::simd::{LANES, PairKernel, Simd, Vectors};

/// Rows of a head of the cache, and blocks of its keys.
pub(super) struct Share<'a> {
    pub(super) head: usize,
    pub(super) rows: Range<usize>,
    pub(super) blocks: Range<usize>,
    pub(super) to: To<'a>,
}

/// Where what is computed goes.
#[derive(Clone, Copy)]
pub(super) enum To<'a> {
    /// Of all blocks: `[queries · heads][head size / 8]`
    Out(&'a SharedRows<'a, [f32; LANES]>),
    /// Of one block: `[heads][blocks · part length]`
    Parts(&'a SharedRows<'a, Pair>),
}

/// Pairs of a part: its maximum and its sum, and what it weighs together.
pub(super) fn part_len(head_size: usize) -> usize {
    1 + head_size.div_ceil(2 * LANES)
}

/// The first pair of a part: `m`, `s` and zeros.
fn part_head(max: f32, sum: f32) -> Pair {
    let mut head = ZEROS;
    (head[0][0], head[0][1]) = (max, sum);
    head
}

/// Rows that a few columns of a block meet while those are in the nearest cache, where the rows and their weights fit, too: whole
/// tiles (in tests not, so that all sizes of tiles are there).
const GROUP: usize = if cfg!(test) { 5 } else { 24 };

/// Pairs of a row of weights.
const WEIGHTS: usize = KEYS / (2 * LANES);

/// What a thread needs while it computes, kept from one time to the next.
#[derive(Default)]
pub(super) struct Scratch {
    /// Keys of a block, and its values.
    keys: Vec<Wide>,
    values: Vec<Wide>,
    /// Queries of all rows.
    queries: Vec<f32>,
    /// Scores of each row of a group, and then weights.
    weights: Vec<Pair>,
    /// A part of each row of a group.
    parts: Vec<Pair>,
    /// What is merged so far of each row.
    merged: Vec<Pair>,
}

impl Scratch {
    /// Makes room for that many rows.
    pub(super) fn fit(&mut self, rows: usize, head_size: usize) {
        let (len, group) = (part_len(head_size), rows.min(GROUP));
        if rows > 1 {
            self.keys.resize(WEIGHTS * head_size, Wide::ZEROS);
            self.values.resize(KEYS * (len - 1), Wide::ZEROS);
        }
        self.queries.resize(rows * head_size, 0.0);
        self.weights.resize(group * WEIGHTS, ZEROS);
        self.parts.resize(group * len, ZEROS);
        self.merged.resize(rows * len, ZEROS);
    }
}

/// What is computed of a share; `scratch` fits it.
pub struct Blocks<'a, E> {
    pub(super) attention: &'a Attention<'a, E>,
    pub(super) share: Share<'a>,
    pub(super) scratch: &'a mut Scratch,
}

impl<E: Cached> PairKernel for Blocks<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { attention, share, scratch } = self;
        let head_size = attention.cache.shape().head_size;
        let (rows, len) = (share.rows.len(), part_len(head_size));
        let Scratch { keys: wide_keys, values: wide_values, queries, weights, parts, merged } =
            scratch;
        for row in 0..rows {
            let query = attention.query(share.head, share.rows.start + row);
            queries[row * head_size..][..head_size].copy_from_slice(query);
        }
        for block in share.blocks.clone() {
            // Visibility only grows with the position, so the last row sees the most.
            let most = attention.seen(share.rows.end - 1, block);
            if most == 0 {
                break;
            }
            let cached = attention.cache.head(block, attention.layer, share.head);
            let keys = Block::new(simd, rows, cached.keys(most), wide_keys);
            let values = Block::new(simd, rows, cached.values(most), wide_values);
            for first in (0..rows).step_by(GROUP) {
                let count = GROUP.min(rows - first);
                let group = &queries[first * head_size..];
                let group = Rows { values: group, depth: head_size, stride: head_size, count };
                product(simd, group, keys, weights, WEIGHTS);
                for row in 0..count {
                    let seen = attention.seen(share.rows.start + first + row, block);
                    let weights = weights[row * WEIGHTS..][..WEIGHTS].as_flattened_mut();
                    parts[row * len] = softmax::<S, E>(
                        simd,
                        attention.scale,
                        cached.scales,
                        [seen, most],
                        weights,
                    );
                }
                let group = weights.as_flattened().as_flattened();
                let group = Rows { values: group, depth: most, stride: KEYS, count };
                product(simd, group, values, &mut parts[1..], len);
                for row in 0..count {
                    let part = &parts[row * len..][..len];
                    let merged = &mut merged[(first + row) * len..][..len];
                    if block == share.blocks.start {
                        // Which all rows see: of the first key on, or those of one query.
                        merged.copy_from_slice(part);
                    } else if attention.seen(share.rows.start + first + row, block) > 0 {
                        // Else nothing would change, but for a −0 and what is not finite in values that it does not see.
                        merge(simd, merged, part);
                    }
                }
            }
        }
        for (row, merged) in share.rows.clone().zip(merged.chunks_exact(len)) {
            let (query, head) = (row / attention.share(), row % attention.share());
            let head = share.head * attention.share() + head;
            // SAFETY: a row, and each of its blocks where they are shared out, belongs to one task.
            unsafe {
                match share.to {
                    To::Out(out) => {
                        let row = query * attention.heads + head;
                        finish(simd, merged, out.row(row, 0..head_size / LANES));
                    }
                    To::Parts(parts) => {
                        let at = share.blocks.start * len;
                        parts.row(head, at..at + len).copy_from_slice(merged);
                    }
                }
            }
        }
    }
}

/// Turns the scores of a row, of which it sees the first `seen` and others beside it `most`, into weights relative to the
/// largest; returns that and their sum, the head of a part.
///
/// Keys that the row does not see get weight 0.
#[inline(always)]
fn softmax<S: Vectors, E: Cached>(
    simd: S,
    scale: f32,
    [key_scales, value_scales]: [&[[f32; LANES]]; 2],
    [seen, most]: [usize; 2],
    weights: &mut [[f32; LANES]],
) -> Pair {
    let panels = &mut weights[..most.div_ceil(LANES)];
    if seen == 0 {
        panels.fill([0.0; LANES]);
        return part_head(f32::NEG_INFINITY, 0.0);
    }
    let scale = simd.splat(scale);
    for (i, panel) in panels.iter_mut().enumerate() {
        let mut score = simd.mul(simd.load(panel), scale);
        if E::SCALED {
            score = simd.mul(score, simd.load(&key_scales[i]));
        }
        simd.store(score, panel);
    }
    panels.as_flattened_mut()[seen..].fill(f32::NEG_INFINITY);
    let mut max = simd.splat(f32::NEG_INFINITY);
    for panel in &*panels {
        max = simd.max(simd.load(panel), max);
    }
    let max = simd.max_lane(max);
    let mut sum = simd.splat(0.0);
    for (i, panel) in panels.iter_mut().enumerate() {
        let mut weight = exp(simd, simd.sub(simd.load(panel), simd.splat(max)));
        sum = simd.add(sum, weight);
        if E::SCALED {
            weight = simd.mul(weight, simd.load(&value_scales[i]));
        }
        simd.store(weight, panel);
    }
    part_head(max, simd.sum(sum))
}

/// Merges `part` into `merged`.
#[inline(always)]
fn merge<S: Simd>(simd: S, merged: &mut [Pair], part: &[Pair]) {
    let max = merged[0][0][0].max(part[0][0][0]);
    let old = factor(simd, merged[0][0][0] - max);
    let new = factor(simd, part[0][0][0] - max);
    for i in 0..merged.len() {
        let old = simd.pair_mul(simd.pair_load(&merged[i]), old);
        let sum = simd.pair_fma(simd.pair_load(&part[i]), new, old);
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

/// Divides by the sum of the weights.
#[inline(always)]
fn finish<S: Vectors>(simd: S, merged: &[Pair], out: &mut [[f32; LANES]]) {
    let inverse = simd.splat(1.0 / merged[0][0][1]);
    let merged = merged[1..].as_flattened();
    for i in 0..out.len() {
        simd.store(simd.mul(simd.load(&merged[i]), inverse), &mut out[i]);
    }
}

/// The parts of a head's blocks, one after the other, as its output.
pub(super) struct MergeParts<'a> {
    pub(super) parts: &'a mut [Pair],
    pub(super) out: &'a mut [[f32; LANES]],
}

impl PairKernel for MergeParts<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (merged, rest) = self.parts.split_at_mut(part_len(self.out.len() * LANES));
        for part in rest.chunks_exact(merged.len()) {
            merge(simd, merged, part);
        }
        finish(simd, merged, self.out);
    }
}
