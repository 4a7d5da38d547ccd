//! `softmax(q·kᵀ · scale)·v` by blocks of keys.
//!
//! For each block of 128 keys a query has a part: the largest score `m`, the sum `s` of the weights `p = e^(score − m)`, and
//! `o = p·v`. Parts are merged one after the other,
//!
//! ```text
//! m″ = max(m, m′)     s″ = s · e^(m − m″) + s′ · e^(m′ − m″)     o″ = o · e^(m − m″) + o′ · e^(m′ − m″)
//! ```
//!
//! and a query gets `o / s`, so that no row of scores is ever whole. Blocks start at multiples of 128 of the key position
//! and are merged in their order, whoever computes them and whatever queries are beside each other: a query gets the same
//! bits alone and among others, and on any number of threads, as long as the values are finite.
//!
//! Queries of a prompt and heads that share a head of the cache are rows of the same product, for which a block is widened
//! to `f32` once.

use std::cell::RefCell;
use std::ops::Range;

use crate::Isa;
use crate::math::exp;
use crate::parallel::{SharedRows, Tile, for_each, tiles};
use crate::simd::{Element, Kernel, LANES, Vectors};

mod cache;
mod element;

pub use cache::{HeadRows, Heads, KvCache, KvShape, OutOfMemory};
pub use element::Cached;

/// Keys of a block.
const KEYS: usize = 128;

/// Rows that a thread takes at a time: enough to pay for widening a block.
const TASK_ROWS: usize = if cfg!(test) { 6 } else { 64 };

/// Tasks that there should be, if rows are enough.
const TASKS: usize = 16;

/// Rows that a thread takes at least, but for what is left at last: those of the widest tile.
const LEAST_ROWS: usize = 4;

/// Largest head: 256 elements.
pub const MAX_HEAD_SIZE: usize = 256;

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
    pub cache: &'a KvCache<E>,
    /// Position of the first query.
    pub position: usize,
    /// What a query sees.
    pub mask: Mask,
    /// Multiplies the scores; 1/√(head size).
    pub scale: f32,
}

impl<E: Cached> Attention<'_, E> {
    /// Writes `[queries][heads][head size]` to `out`, on the threads that there are. `room`, of [`KvShape::room`] elements, holds
    /// the parts of a single query, whose blocks of keys are shared out, too.
    ///
    /// # Panics
    /// If a length does not fit, the heads are no multiple of the cache's, or a query sees past the cache.
    #[track_caller]
    pub fn forward(&self, isa: Isa, room: &mut [f32], out: &mut [f32]) {
        let shape = self.cache.shape();
        let width = self.heads * shape.head_size;
        assert!(
            self.heads.is_multiple_of(shape.heads),
            "{} heads share {}",
            self.heads,
            shape.heads
        );
        assert!(self.queries.len().is_multiple_of(width) && out.len() == self.queries.len());
        assert_eq!(room.len(), shape.room(self.heads), "room for the parts");
        let queries = self.queries.len() / width;
        if queries == 0 {
            return;
        }
        let last = self.mask.visible(self.position + queries - 1);
        assert!(last <= shape.capacity, "{last} visible keys in a cache of {}", shape.capacity);
        let blocks = last.div_ceil(KEYS);
        let rows = queries * self.share();
        let out = &SharedRows::new(out.as_chunks_mut().0, shape.head_size / LANES);
        if queries > 1 || blocks == 1 {
            // A few queries are shared out, too, where heads of the cache are few.
            let step = (rows * shape.heads / TASKS).clamp(LEAST_ROWS, TASK_ROWS);
            for_each(rows.div_ceil(step) * shape.heads, |task| {
                let (first, head) = (task / shape.heads * step, task % shape.heads);
                let rows = first..(first + step).min(rows);
                self.run(isa, Share { head, rows, blocks: 0..blocks, to: To::Out(out) });
            });
            return;
        }
        let len = part_len(shape.head_size);
        let parts = &SharedRows::new(room.as_chunks_mut().0, shape.capacity.div_ceil(KEYS) * len);
        for_each(blocks * shape.heads, |task| {
            let (block, head) = (task / shape.heads, task % shape.heads);
            self.run(
                isa,
                Share { head, rows: 0..rows, blocks: block..block + 1, to: To::Parts(parts) },
            );
        });
        for_each(self.heads, |head| {
            // SAFETY: all parts are written, and this head's parts and output are this task's alone.
            let (parts, out) =
                unsafe { (parts.row(head, 0..blocks * len), out.row(head, 0..len - 1)) };
            isa.run(MergeParts { parts, out });
        });
    }

    /// Heads that share one of the cache.
    fn share(&self) -> usize {
        self.heads / self.cache.shape().heads
    }

    fn run(&self, isa: Isa, share: Share<'_>) {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.fit(share.rows.len(), self.cache.shape().head_size);
            E::attend(isa, Blocks { attention: self, share, scratch });
        });
    }
}

/// What one thread computes: rows (queries, and within them heads) that share a head of the cache, and blocks of its keys.
struct Share<'a> {
    head: usize,
    rows: Range<usize>,
    blocks: Range<usize>,
    to: To<'a>,
}

/// Where it goes.
#[derive(Clone, Copy)]
enum To<'a> {
    /// Of all blocks: `[queries · heads][head size / 8]`
    Out(&'a SharedRows<'a, [f32; LANES]>),
    /// Of one block: `[heads][blocks · part length]`
    Parts(&'a SharedRows<'a, [f32; LANES]>),
}

/// Vectors of a part: its maximum and its sum, and what it weighs together.
fn part_len(head_size: usize) -> usize {
    1 + head_size / LANES
}

/// A part of no keys.
const NOTHING: [f32; LANES] = [f32::NEG_INFINITY, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];

/// What a thread needs while it computes, kept from one time to the next.
#[derive(Default)]
struct Scratch {
    /// Keys or values of a block.
    widened: Vec<[f32; LANES]>,
    /// Scores of each row, and then weights.
    weights: Vec<[f32; KEYS]>,
    /// A part of each row.
    parts: Vec<[f32; LANES]>,
    /// What is merged so far of each row.
    merged: Vec<[f32; LANES]>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Scratch {
    fn fit(&mut self, rows: usize, head_size: usize) {
        let len = part_len(head_size);
        if rows > 1 {
            self.widened.resize(KEYS * head_size / LANES, [0.0; LANES]);
        }
        self.weights.resize(rows, [0.0; KEYS]);
        self.parts.resize(rows * len, [0.0; LANES]);
        self.merged.resize(rows * len, [0.0; LANES]);
    }
}

/// What is computed of a share.
pub struct Blocks<'a, E> {
    attention: &'a Attention<'a, E>,
    share: Share<'a>,
    scratch: &'a mut Scratch,
}

impl<E: Cached> Kernel for Blocks<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) {
        let Self { attention, share, scratch } = self;
        let Scratch { widened, weights, parts, merged } = scratch;
        let cache = attention.cache.head(share.head);
        let rows = share.rows.len();
        let vectors = attention.cache.shape().head_size / LANES;
        let len = vectors + 1;
        for part in merged.chunks_exact_mut(len) {
            part[0] = NOTHING;
            part[1..].fill([0.0; LANES]);
        }
        for block in share.blocks.clone() {
            // Visibility only grows with the position, so the last row sees the most.
            let most = attention.seen(share.rows.end - 1, block);
            if most == 0 {
                break;
            }
            let keys = cache.keys(block, most);
            let (head, first) = (share.head, share.rows.start);
            if rows == 1 {
                Scores { simd, attention, head, first, keys, weights }.tile([0]);
            } else {
                let keys = widen(simd, keys, widened);
                tiles(rows, &mut Scores { simd, attention, head, first, keys, weights });
            }
            for row in 0..rows {
                let seen = [attention.seen(first + row, block), most];
                let weights = &mut weights[row];
                parts[row * len] =
                    softmax::<S, E>(simd, attention.scale, cache.scales(block), seen, weights);
            }
            let values = cache.values(block, most);
            if rows == 1 {
                Weighted { simd, weights, values, vectors, parts }.tile([0]);
            } else {
                let values = widen(simd, values, widened);
                tiles(rows, &mut Weighted { simd, weights, values, vectors, parts });
            }
            for row in 0..rows {
                // A row that sees nothing of the block must stay what it is, to the last bit.
                if attention.seen(share.rows.start + row, block) > 0 {
                    merge(simd, &mut merged[row * len..][..len], &parts[row * len..][..len]);
                }
            }
        }
        for (row, merged) in share.rows.clone().zip(merged.chunks_exact_mut(len)) {
            let (query, head) = (row / attention.share(), row % attention.share());
            let head = share.head * attention.share() + head;
            // SAFETY: a row, and each of its blocks where they are shared out, belongs to one task.
            unsafe {
                match share.to {
                    To::Out(out) => {
                        finish(simd, merged, out.row(query * attention.heads + head, 0..vectors));
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

impl<E: Cached> Attention<'_, E> {
    /// How many keys of a block a row sees.
    #[inline(always)]
    fn seen(&self, row: usize, block: usize) -> usize {
        let visible = self.mask.visible(self.position + row / self.share());
        visible.saturating_sub(block * KEYS).min(KEYS)
    }

    /// The query of a row of a head of the cache.
    #[inline(always)]
    fn query(&self, head: usize, row: usize) -> &[f32] {
        let (size, share) = (self.cache.shape().head_size, self.share());
        let head = row / share * self.heads + head * share + row % share;
        &self.queries[head * size..][..size]
    }
}

/// All of `from` as `f32`.
#[inline(always)]
fn widen<'a, S: Vectors, E: Element>(
    simd: S,
    from: &[[E; LANES]],
    to: &'a mut [[f32; LANES]],
) -> &'a [[f32; LANES]] {
    let to = &mut to[..from.len()];
    for i in 0..from.len() {
        simd.store(E::load(simd, &from[i]), &mut to[i]);
    }
    to
}

/// `q·k` of rows and keys.
struct Scores<'a, S, E, K> {
    simd: S,
    attention: &'a Attention<'a, E>,
    head: usize,
    first: usize,
    /// `[panels][head size][8]`
    keys: &'a [[K; LANES]],
    weights: &'a mut [[f32; KEYS]],
}

impl<E: Cached, K: Element, S: Vectors> Tile for Scores<'_, S, E, K> {
    const TOKENS: usize = S::TILE;

    #[inline(always)]
    fn tile<const T: usize>(&mut self, rows: [usize; T]) {
        let mut queries = [&[][..]; T];
        for t in 0..T {
            queries[t] = self.attention.query(self.head, self.first + rows[t]);
        }
        let panels = self.keys.len() / queries[0].len();
        // Eight sums at a time hide the latency of the multiply-add.
        let mut panel = 0;
        let step = match T {
            1 => 8,
            2 => 4,
            _ => 2,
        };
        while panel + step <= panels {
            match T {
                1 => self.panels::<8, T>(rows, &queries, panel),
                2 => self.panels::<4, T>(rows, &queries, panel),
                _ => self.panels::<2, T>(rows, &queries, panel),
            }
            panel += step;
        }
        for panel in panel..panels {
            self.panels::<1, T>(rows, &queries, panel);
        }
    }
}

impl<E: Cached, K: Element, S: Vectors> Scores<'_, S, E, K> {
    #[inline(always)]
    fn panels<const P: usize, const T: usize>(
        &mut self,
        rows: [usize; T],
        queries: &[&[f32]; T],
        panel: usize,
    ) {
        let (simd, size) = (self.simd, queries[0].len());
        let mut panels = [&self.keys[..0]; P];
        for p in 0..P {
            panels[p] = &self.keys[(panel + p) * size..][..size];
        }
        let mut sums = [[simd.splat(0.0); T]; P];
        for i in 0..size {
            let mut keys = [simd.splat(0.0); P];
            for p in 0..P {
                keys[p] = K::load(simd, &panels[p][i]);
            }
            for t in 0..T {
                let query = simd.splat(queries[t][i]);
                for p in 0..P {
                    sums[p][t] = simd.fma(query, keys[p], sums[p][t]);
                }
            }
        }
        for t in 0..T {
            let (scores, _) = self.weights[rows[t]].as_chunks_mut::<LANES>();
            for p in 0..P {
                simd.store(sums[p][t], &mut scores[panel + p]);
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
    weights: &mut [f32; KEYS],
) -> [f32; LANES] {
    let (panels, _) = weights[..most.next_multiple_of(LANES)].as_chunks_mut::<LANES>();
    if seen == 0 {
        panels.fill([0.0; LANES]);
        return NOTHING;
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
    let mut head = NOTHING;
    (head[0], head[1]) = (max, simd.sum(sum));
    head
}

/// `p·v` of rows and values.
struct Weighted<'a, S, V> {
    simd: S,
    weights: &'a [[f32; KEYS]],
    /// `[keys][vectors][8]`
    values: &'a [[V; LANES]],
    vectors: usize,
    parts: &'a mut [[f32; LANES]],
}

impl<V: Element, S: Vectors> Tile for Weighted<'_, S, V> {
    const TOKENS: usize = S::TILE;

    #[inline(always)]
    fn tile<const T: usize>(&mut self, rows: [usize; T]) {
        let mut vector = 0;
        let step = match T {
            1 => 8,
            2 => 4,
            _ => 2,
        };
        while vector + step <= self.vectors {
            match T {
                1 => self.vectors::<8, T>(rows, vector),
                2 => self.vectors::<4, T>(rows, vector),
                _ => self.vectors::<2, T>(rows, vector),
            }
            vector += step;
        }
        for vector in vector..self.vectors {
            self.vectors::<1, T>(rows, vector);
        }
    }
}

impl<V: Element, S: Vectors> Weighted<'_, S, V> {
    #[inline(always)]
    fn vectors<const D: usize, const T: usize>(&mut self, rows: [usize; T], vector: usize) {
        let simd = self.simd;
        let mut sums = [[simd.splat(0.0); D]; T];
        let mut weights = [&self.weights[rows[0]]; T];
        for t in 1..T {
            weights[t] = &self.weights[rows[t]];
        }
        for (key, values) in self.values.chunks_exact(self.vectors).enumerate() {
            if key == KEYS {
                break;
            }
            let values = &values[vector..][..D];
            let mut wide = [simd.splat(0.0); D];
            for d in 0..D {
                wide[d] = V::load(simd, &values[d]);
            }
            for t in 0..T {
                let weight = simd.splat(weights[t][key]);
                for d in 0..D {
                    sums[t][d] = simd.fma(weight, wide[d], sums[t][d]);
                }
            }
        }
        for t in 0..T {
            let part = &mut self.parts[rows[t] * (1 + self.vectors) + 1..];
            for d in 0..D {
                simd.store(sums[t][d], &mut part[vector + d]);
            }
        }
    }
}

/// Merges `part` into `merged`.
#[inline(always)]
fn merge<S: Vectors>(simd: S, merged: &mut [[f32; LANES]], part: &[[f32; LANES]]) {
    let max = merged[0][0].max(part[0][0]);
    let old = exp(simd, simd.splat(merged[0][0] - max));
    let new = exp(simd, simd.splat(part[0][0] - max));
    for i in 0..merged.len() {
        let sum = simd.fma(simd.load(&part[i]), new, simd.mul(simd.load(&merged[i]), old));
        simd.store(sum, &mut merged[i]);
    }
    merged[0][0] = max;
}

/// Divides by the sum of the weights.
#[inline(always)]
fn finish<S: Vectors>(simd: S, merged: &[[f32; LANES]], out: &mut [[f32; LANES]]) {
    let inverse = simd.splat(1.0 / merged[0][1]);
    for i in 0..out.len() {
        simd.store(simd.mul(simd.load(&merged[1 + i]), inverse), &mut out[i]);
    }
}

/// The parts of a head's blocks, one after the other, as its output.
struct MergeParts<'a> {
    parts: &'a mut [[f32; LANES]],
    out: &'a mut [[f32; LANES]],
}

impl Kernel for MergeParts<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) {
        let (merged, rest) = self.parts.split_at_mut(1 + self.out.len());
        for part in rest.chunks_exact(merged.len()) {
            merge(simd, merged, part);
        }
        finish(simd, merged, self.out);
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;
    use crate::reference;
    use crate::testing::{close_to, values};

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
        (1usize..3, 1usize..4, 1usize..10, 1usize..9, 0usize..200, 0usize..290).prop_flat_map(
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

    fn store<E: Cached>(case: &Case, isa: Isa) -> KvCache<E> {
        let shape = case.shape;
        let mut cache = KvCache::new(shape).unwrap();
        let width = shape.heads * shape.head_size;
        let rows = case.keys.chunks(width).zip(case.values.chunks(width));
        let rows: Vec<_> = rows.flat_map(|(k, v)| [k, v].concat()).collect();
        let stride = shape.head_size;
        let (k, v) = (Heads { first: 0, stride }, Heads { first: width, stride });
        // In two parts, as prompts come.
        let (first, rest) = rows.split_at(rows.len() / width / 4 * 2 * width);
        for (position, rows) in [(0, first), (first.len() / 2 / width, rest)] {
            let rows = HeadRows { rows, width: 2 * width, keys: k, values: v };
            cache.store(isa, position, rows);
        }
        cache
    }

    fn run<E: Cached>(
        case: &Case,
        cache: &KvCache<E>,
        isa: Isa,
        queries: Range<usize>,
    ) -> Vec<f32> {
        let heads = case.shape.heads * case.share;
        let width = heads * case.shape.head_size;
        let attention = Attention {
            queries: &case.queries[queries.start * width..queries.end * width],
            heads,
            cache,
            position: case.position + queries.start,
            mask: case.mask,
            scale: SCALE,
        };
        let mut room = vec![f32::NAN; case.shape.room(heads)];
        let mut out = vec![f32::NAN; attention.queries.len()];
        attention.forward(isa, &mut room, &mut out);
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
            for isa in Isa::available() {
                let cache = store::<f32>(&case, isa);
                is_its_definition(&case, &cache, isa);
            }
        }

        /// Of what the cache holds; that is within half a step of what was stored.
        #[test]
        fn attention_to_integers_is_its_definition(case in cases()) {
            for isa in Isa::available() {
                let cache = store::<i8>(&case, isa);
                let held = cache.values(case.keys.len() / case.shape.heads / case.shape.head_size);
                let stored = [&case.keys, &case.values];
                for (held, stored) in held.iter().zip(stored) {
                    let size = case.shape.head_size;
                    for (held, stored) in held.chunks(size).zip(stored.chunks(size)) {
                        let half = stored.iter().fold(0f32, |max, x| max.max(x.abs())) / 254.0;
                        let near = held.iter().zip(stored).all(|(a, b)| (a - b).abs() <= half * 1.001);
                        prop_assert!(near, "{} {:?} {:?}", isa, held, stored);
                    }
                }
                let [keys, values] = held;
                let case = Case { keys, values, ..case.clone() };
                is_its_definition(&case, &cache, isa);
            }
        }

        /// A query gets the same bits alone and in a tile, on any number of threads.
        #[test]
        fn tiles_and_threads_do_not_change_bits(case in cases(), threads in 1usize..5) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for isa in Isa::available() {
                pool.install(|| {
                    bits_are_the_same(&case, &store::<f16>(&case, isa), isa);
                    bits_are_the_same(&case, &store::<i8>(&case, isa), isa);
                });
            }
        }
    }

    fn is_its_definition<E: Cached>(case: &Case, cache: &KvCache<E>, isa: Isa) {
        let width = case.shape.heads * case.share * case.shape.head_size;
        let expected = reference::attention(
            &case.queries,
            &case.keys,
            &case.values,
            case.shape,
            case.share,
            case.position,
            case.mask,
            SCALE,
        );
        let bound = vec![conditioning(case); expected.len()];
        let out = run(case, cache, isa, 0..case.queries.len() / width);
        close_to(&out, &expected, &bound, ATTENTION_ERROR, isa);
    }

    fn bits_are_the_same<E: Cached>(case: &Case, cache: &KvCache<E>, isa: Isa) {
        let width = case.shape.heads * case.share * case.shape.head_size;
        let queries = case.queries.len() / width;
        let bits = |out: Vec<f32>| out.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let together = bits(run(case, cache, isa, 0..queries));
        let alone: Vec<_> =
            (0..queries).flat_map(|q| bits(run(case, cache, isa, q..q + 1))).collect();
        assert_eq!(together, alone, "{isa}");
    }

    #[test]
    fn a_mask_is_a_run_of_keys() {
        let prefix = Mask { prefix: 3 };
        assert_eq!([0, 2, 3, 7].map(|q| prefix.visible(q)), [3, 3, 4, 8]);
        let causal = Mask { prefix: 0 };
        assert_eq!([0, 2, 7].map(|q| causal.visible(q)), [1, 3, 8]);
    }
}
