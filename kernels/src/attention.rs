//! `softmax(q·kᵀ · scale)·v` by blocks of keys.
//!
//! The softmax is online: with a running maximum `m` and sum `s`, each block of 64 keys gives
//!
//! ```text
//! m' = max(m, max scores)     p = e^(scores − m')     s' = s · e^(m − m') + Σ p     out' = out · e^(m − m') + p·v
//! ```
//!
//! so that no row of scores is ever whole. Blocks start at multiples of 64 of the key position, whatever queries are computed
//! beside each other: a query gets the same bits alone and in a tile, and on any number of threads.

use std::ops::Range;

use crate::Isa;
use crate::math::exp;
use crate::parallel::{SharedRows, Tile, for_each, tiles};
use crate::simd::{Element, Kernel, LANES, Simd};

mod cache;

pub use cache::{HeadRows, Heads, KeyValues, KvShape};

/// Keys whose scores are held at once.
const KEYS: usize = 64;

/// Queries of one head that a thread takes at a time.
const TASK_QUERIES: usize = if cfg!(test) { 6 } else { 32 };

/// What a query may look at: a rule, not a matrix.
///
/// The first `prefix` positions see each other in both directions; every later one sees them, those before it and itself.
/// A prefix of 0 is the causal mask. What any query sees is a run of keys from the first on, so one number says it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Positions that see each other in both directions.
    pub prefix: usize,
}

impl Mask {
    /// How many keys, from the first on, the query at `position` sees.
    #[inline(always)]
    pub fn visible(self, position: usize) -> usize {
        self.prefix.max(position + 1)
    }
}

/// Attention of some queries to the cached keys and values.
#[derive(Clone, Copy)]
pub struct Attention<'a, E> {
    /// `[queries][heads][head size]`
    pub queries: &'a [f32],
    /// Heads of the queries; consecutive ones share a head of the cache.
    pub heads: usize,
    /// Keys and values of all positions that any query sees.
    pub cache: KeyValues<'a, E>,
    /// Position of the first query.
    pub position: usize,
    /// What a query sees.
    pub mask: Mask,
    /// Multiplies the scores; 1/√(head size).
    pub scale: f32,
}

impl<E: Element> Attention<'_, E> {
    /// Writes `[queries][heads][head size]` to `out`, on the threads of the current rayon pool.
    ///
    /// # Panics
    /// If a length does not fit, the heads are no multiple of the cache's, or a query sees past the cache.
    #[track_caller]
    pub fn forward(&self, isa: Isa, out: &mut [f32]) {
        let KvShape { heads, head_size, capacity } = self.cache.shape();
        let width = self.heads * head_size;
        assert!(self.heads.is_multiple_of(heads), "{} heads share {heads}", self.heads);
        assert!(self.queries.len().is_multiple_of(width) && out.len() == self.queries.len());
        let queries = self.queries.len() / width;
        if queries == 0 {
            return;
        }
        let last = self.mask.visible(self.position + queries - 1);
        assert!(last <= capacity, "{last} visible keys in a cache of {capacity}");
        let out = &SharedRows::new(out, width);
        let tasks = queries.div_ceil(TASK_QUERIES);
        for_each(tasks * self.heads, |task| {
            let first = task / self.heads * TASK_QUERIES;
            let queries = first..(first + TASK_QUERIES).min(queries);
            isa.run(Share { attention: self, head: task % self.heads, queries, out });
        });
    }
}

/// The queries of one head that one thread computes.
struct Share<'a, E> {
    attention: &'a Attention<'a, E>,
    head: usize,
    queries: Range<usize>,
    out: &'a SharedRows<'a>,
}

impl<E: Element> Kernel for Share<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let shape = self.attention.cache.shape();
        let head = self.head / (self.attention.heads / shape.heads);
        let (keys, values) = self.attention.cache.head(head);
        let first = self.queries.start;
        tiles(self.queries.len(), &mut Queries { simd, share: &self, first, keys, values });
    }
}

struct Queries<'a, E, S> {
    simd: S,
    share: &'a Share<'a, E>,
    first: usize,
    /// `[capacity / 8][head size][8]`
    keys: &'a [[E; LANES]],
    /// `[capacity][head size / 8][8]`
    values: &'a [[E; LANES]],
}

impl<E: Element, S: Simd> Tile for Queries<'_, E, S> {
    #[inline(always)]
    fn tile<const T: usize>(&mut self, tile: usize) {
        let (simd, attention) = (self.simd, self.share.attention);
        let size = attention.cache.shape().head_size;
        let width = attention.heads * size;
        let head = self.share.head * size;
        let query = self.first + tile;

        let mut queries = [&attention.queries[..0]; T];
        let mut visible = [0; T];
        for t in 0..T {
            queries[t] = &attention.queries[(query + t) * width + head..][..size];
            visible[t] = attention.mask.visible(attention.position + query + t);
        }
        let mut state = Online::<T>::new();
        // Visibility only grows with the position, so the last query of the tile sees the most.
        for block in (0..visible[T - 1]).step_by(KEYS) {
            let mut seen = [0; T];
            for t in 0..T {
                seen[t] = visible[t].saturating_sub(block).min(KEYS);
            }
            let mut scores = [[0.0; KEYS]; T];
            self.scores(&queries, block, seen[T - 1], &mut scores);
            state.softmax(simd, attention.scale, &seen, &mut scores, size);
            self.accumulate(&scores, block, seen[T - 1], size, &mut state);
        }
        for t in 0..T {
            state.finish(simd, t, size);
            // SAFETY: each query and head belongs to one task, and this is its part of `out`.
            let out = unsafe { self.share.out.row(query + t, head..head + size) };
            out.copy_from_slice(state.out(t, size));
        }
    }
}

impl<E: Element, S: Simd> Queries<'_, E, S> {
    /// `q·k` for keys `block..block + seen`, rounded up to whole panels of eight.
    #[inline(always)]
    fn scores<const T: usize>(
        &self,
        queries: &[&[f32]; T],
        block: usize,
        seen: usize,
        scores: &mut [[f32; KEYS]; T],
    ) {
        let size = queries[0].len();
        let panels = seen.div_ceil(LANES);
        let mut panel = 0;
        // Eight sums at a time hide the latency of the multiply-add: T queries by 8 / T panels.
        let together = 8 / T.next_power_of_two();
        while panel + together <= panels {
            let at = (block / LANES + panel) * size;
            match T {
                1 => self.score_panels::<8, T>(queries, at, panel, scores),
                2 => self.score_panels::<4, T>(queries, at, panel, scores),
                _ => self.score_panels::<2, T>(queries, at, panel, scores),
            }
            panel += together;
        }
        for panel in panel..panels {
            let at = (block / LANES + panel) * size;
            self.score_panels::<1, T>(queries, at, panel, scores);
        }
    }

    #[inline(always)]
    fn score_panels<const P: usize, const T: usize>(
        &self,
        queries: &[&[f32]; T],
        at: usize,
        first: usize,
        scores: &mut [[f32; KEYS]; T],
    ) {
        let (simd, size) = (self.simd, queries[0].len());
        let keys = &self.keys[at..][..P * size];
        let mut sums = [[simd.splat(0.0); T]; P];
        for i in 0..size {
            for (p, sums) in sums.iter_mut().enumerate() {
                let key = E::load(simd, &keys[p * size + i]);
                for (sum, query) in sums.iter_mut().zip(queries) {
                    *sum = simd.fma(simd.splat(query[i]), key, *sum);
                }
            }
        }
        for (p, sums) in sums.into_iter().enumerate() {
            for (sum, scores) in sums.into_iter().zip(scores.iter_mut()) {
                let (panels, _) = scores.as_chunks_mut::<LANES>();
                simd.store(sum, &mut panels[first + p]);
            }
        }
    }

    /// `out += p·v` for keys `block..block + seen`.
    #[inline(always)]
    fn accumulate<const T: usize>(
        &self,
        weights: &[[f32; KEYS]; T],
        block: usize,
        seen: usize,
        size: usize,
        state: &mut Online<T>,
    ) {
        let vectors = size / LANES;
        let mut vector = 0;
        while vector + 4 <= vectors {
            self.accumulate_vectors::<4, T>(weights, block, seen, vectors, vector, state);
            vector += 4;
        }
        for vector in vector..vectors {
            self.accumulate_vectors::<1, T>(weights, block, seen, vectors, vector, state);
        }
    }

    #[inline(always)]
    fn accumulate_vectors<const D: usize, const T: usize>(
        &self,
        weights: &[[f32; KEYS]; T],
        block: usize,
        seen: usize,
        vectors: usize,
        vector: usize,
        state: &mut Online<T>,
    ) {
        let simd = self.simd;
        let mut sums = [[simd.splat(0.0); D]; T];
        for (sums, out) in sums.iter_mut().zip(&state.out) {
            for (sum, out) in sums.iter_mut().zip(&out[vector..]) {
                *sum = simd.load(out);
            }
        }
        for key in 0..seen {
            let values = &self.values[(block + key) * vectors + vector..][..D];
            for (d, value) in values.iter().enumerate() {
                let value = E::load(simd, value);
                for (sums, weights) in sums.iter_mut().zip(weights) {
                    sums[d] = simd.fma(simd.splat(weights[key]), value, sums[d]);
                }
            }
        }
        for (sums, out) in sums.into_iter().zip(&mut state.out) {
            for (sum, out) in sums.into_iter().zip(&mut out[vector..]) {
                simd.store(sum, out);
            }
        }
    }
}

/// Largest head: 256 elements.
pub const MAX_HEAD_SIZE: usize = 256;

/// The running softmax of `T` queries.
struct Online<const T: usize> {
    max: [f32; T],
    sum: [f32; T],
    out: [[[f32; LANES]; MAX_HEAD_SIZE / LANES]; T],
}

impl<const T: usize> Online<T> {
    #[inline(always)]
    fn new() -> Self {
        let out = [[[0.0; LANES]; MAX_HEAD_SIZE / LANES]; T];
        Self { max: [f32::NEG_INFINITY; T], sum: [0.0; T], out }
    }

    /// Turns scores into weights relative to the new maximum and rescales what was summed before.
    ///
    /// Keys that a query does not see get weight 0.
    #[inline(always)]
    fn softmax<S: Simd>(
        &mut self,
        simd: S,
        scale: f32,
        seen: &[usize; T],
        scores: &mut [[f32; KEYS]; T],
        size: usize,
    ) {
        for t in 0..T {
            scores[t][seen[t]..].fill(f32::NEG_INFINITY);
            if seen[t] == 0 {
                scores[t].fill(0.0);
                continue;
            }
            let (panels, _) = scores[t].as_chunks_mut::<LANES>();
            let mut max = simd.splat(f32::NEG_INFINITY);
            for panel in panels.iter_mut() {
                let scaled = simd.mul(simd.load(panel), simd.splat(scale));
                simd.store(scaled, panel);
                max = simd.max(scaled, max);
            }
            let max = simd.max_lane(max).max(self.max[t]);
            let mut sum = simd.splat(0.0);
            for panel in panels.iter_mut() {
                let weight = exp(simd, simd.sub(simd.load(panel), simd.splat(max)));
                simd.store(weight, panel);
                sum = simd.add(sum, weight);
            }
            let rescale = exp(simd, simd.splat(self.max[t] - max));
            let mut first = [0.0; LANES];
            simd.store(rescale, &mut first);
            self.sum[t] = self.sum[t] * first[0] + simd.sum(sum);
            self.max[t] = max;
            for out in &mut self.out[t][..size / LANES] {
                simd.store(simd.mul(simd.load(out), rescale), out);
            }
        }
    }

    /// Divides by the sum of the weights.
    #[inline(always)]
    fn finish<S: Simd>(&mut self, simd: S, t: usize, size: usize) {
        let inverse = simd.splat(1.0 / self.sum[t]);
        for out in &mut self.out[t][..size / LANES] {
            simd.store(simd.mul(simd.load(out), inverse), out);
        }
    }

    #[inline(always)]
    fn out(&self, t: usize, size: usize) -> &[f32] {
        &self.out[t].as_flattened()[..size]
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;
    use crate::simd::Cached;
    use crate::testing::{close_to, values};
    use crate::{KvShape, reference};

    #[derive(Debug, Clone)]
    struct Case {
        shape: KvShape,
        share: usize,
        position: usize,
        mask: Mask,
        queries: Vec<f32>,
        keys: Vec<f32>,
        values: Vec<f32>,
    }

    fn cases() -> impl Strategy<Value = Case> {
        (1usize..3, 1usize..3, 1usize..6, 1usize..20, 0usize..150, 0usize..160).prop_flat_map(
            |(heads, share, eighths, queries, position, prefix)| {
                let mask = Mask { prefix };
                let total = mask.visible(position + queries - 1);
                let head_size = eighths * 8;
                let capacity = total.next_multiple_of(LANES) + 8;
                let shape = KvShape { heads, head_size, capacity };
                let kv = heads * total * head_size;
                let q = queries * heads * share * head_size;
                (values(q), values(kv), values(kv)).prop_map(move |(queries, keys, values)| Case {
                    shape,
                    share,
                    position,
                    mask,
                    queries,
                    keys,
                    values,
                })
            },
        )
    }

    fn store<E: Cached + Default>(case: &Case, isa: Isa) -> (Vec<E>, Vec<E>) {
        let shape = case.shape;
        let (mut keys, mut values) =
            (vec![E::default(); shape.len()], vec![E::default(); shape.len()]);
        let width = shape.heads * shape.head_size;
        let rows = case.keys.chunks(width).zip(case.values.chunks(width));
        let rows: Vec<_> = rows.flat_map(|(k, v)| [k, v].concat()).collect();
        let stride = shape.head_size;
        let (k, v) = (Heads { first: 0, stride }, Heads { first: width, stride });
        // In two parts, as prompts come.
        let (first, rest) = rows.split_at(rows.len() / width / 4 * 2 * width);
        for (position, rows) in [(0, first), (first.len() / 2 / width, rest)] {
            let rows = HeadRows { rows, width: 2 * width, keys: k, values: v };
            shape.store(isa, position, rows, &mut keys, &mut values);
        }
        (keys, values)
    }

    fn run<E: Element>(
        case: &Case,
        keys: &[E],
        values: &[E],
        isa: Isa,
        queries: Range<usize>,
    ) -> Vec<f32> {
        let width = case.shape.heads * case.share * case.shape.head_size;
        let attention = Attention {
            queries: &case.queries[queries.start * width..queries.end * width],
            heads: case.shape.heads * case.share,
            cache: KeyValues::new(case.shape, keys, values),
            position: case.position + queries.start,
            mask: case.mask,
            scale: SCALE,
        };
        let mut out = vec![f32::NAN; attention.queries.len()];
        attention.forward(isa, &mut out);
        out
    }

    /// Keeps scores, whose size the rounding error of their exponentials follows, below about 100.
    const SCALE: f32 = 0.02;

    /// Largest error seen in 400 cases, relative to [`conditioning`]: 4.4e-8.
    const ATTENTION_ERROR: f32 = 1.5e-7;

    /// What rounding errors are relative to: a weight is known to a rounding of its score, which grows with the terms it is
    /// summed from, and an output to that of the largest value.
    fn conditioning(case: &Case) -> f32 {
        let size = case.shape.head_size;
        let largest = |x: &[f32]| x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let length = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
        let longest = |x: &[f32]| x.chunks(size).map(length).fold(0.0, f32::max);
        let score = longest(&case.queries) * longest(&case.keys) * SCALE;
        largest(&case.values).max(1.0) * score.max(1.0)
    }

    proptest! {
        #[test]
        fn attention_is_its_definition(case in cases()) {
            let width = case.shape.heads * case.share * case.shape.head_size;
            let queries = case.queries.len() / width;
            let expected = reference::attention(
                &case.queries, &case.keys, &case.values, case.shape, case.share,
                case.position, case.mask, SCALE,
            );
            let bound = vec![conditioning(&case); expected.len()];
            for isa in Isa::available() {
                let (keys, values) = store::<f32>(&case, isa);
                let out = run(&case, &keys, &values, isa, 0..queries);
                close_to(&out, &expected, &bound, ATTENTION_ERROR, isa);
            }
        }

        /// A query gets the same bits alone and in a tile, on any number of threads.
        #[test]
        fn tiles_and_threads_do_not_change_bits(case in cases(), threads in 1usize..5) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let width = case.shape.heads * case.share * case.shape.head_size;
            let queries = case.queries.len() / width;
            for isa in Isa::available() {
                let (keys, values) = store::<f16>(&case, isa);
                let bits = |out: Vec<f32>| out.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                let together = bits(pool.install(|| run(&case, &keys, &values, isa, 0..queries)));
                let alone: Vec<_> =
                    (0..queries).flat_map(|q| bits(run(&case, &keys, &values, isa, q..q + 1))).collect();
                prop_assert_eq!(together, alone, "{}", isa);
            }
        }
    }

    #[test]
    fn a_mask_is_a_run_of_keys() {
        let prefix = Mask { prefix: 3 };
        assert_eq!([0, 2, 3, 7].map(|q| prefix.visible(q)), [3, 3, 4, 8]);
        let causal = Mask { prefix: 0 };
        assert_eq!([0, 2, 7].map(|q| causal.visible(q)), [1, 3, 8]);
    }
}
