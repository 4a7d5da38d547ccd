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
//! Queries of a prompt and heads that share a head of the cache are rows of the same products, for which a block is widened
//! to `f32` once.

use std::cell::RefCell;

use blocks::{Blocks, MergeParts, Scratch, Share, To, part_len};
use product::TILE_ROWS;

use crate::Isa;
use crate::parallel::{SharedRows, for_each};
use crate::simd::LANES;

mod blocks;
mod cache;
mod element;
mod product;

pub use cache::{HeadRows, Heads, KvCache, KvShape, OutOfMemory};
pub use element::Cached;

/// Positions of a block of keys and values.
pub const KEYS: usize = 128;

/// Rows that a thread takes at a time: enough to pay for widening a block.
const TASK_ROWS: usize = if cfg!(test) { 12 } else { 192 };
const _: () = assert!(TASK_ROWS.is_multiple_of(TILE_ROWS));

/// Tasks that there should be for each thread, if there is enough to do.
const TASKS: usize = if cfg!(test) { 1 } else { 8 };

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
    /// the parts of a single query, whose blocks of keys are shared out, too, where heads are few.
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
        let tasks = TASKS * rayon::current_num_threads();
        let runs = if queries > 1 { 1 } else { tasks.div_ceil(shape.heads).min(blocks) };
        if runs == 1 {
            // A few queries are shared out, too, where heads of the cache are few.
            let most = (rows * shape.heads / tasks).clamp(TILE_ROWS, TASK_ROWS);
            // As even as whole tiles let them be.
            let step = rows.div_ceil(rows.div_ceil(most)).next_multiple_of(TILE_ROWS);
            let chunks = rows.div_ceil(step);
            for_each(chunks * shape.heads, |task| {
                let (first, head) = (task % chunks * step, task / chunks);
                let rows = first..(first + step).min(rows);
                self.run(isa, Share { head, rows, blocks: 0..blocks, to: To::Out(out) });
            });
            return;
        }
        let len = part_len(shape.head_size);
        let room = room.as_chunks_mut().0.as_chunks_mut().0;
        let parts = &SharedRows::new(room, shape.capacity / KEYS * len);
        for_each(runs * shape.heads, |task| {
            let (run, head) = (task % runs, task / runs);
            // Blocks that lie behind each other, for memory is read fastest in its order.
            for block in run * blocks / runs..(run + 1) * blocks / runs {
                let blocks = block..block + 1;
                self.run(isa, Share { head, rows: 0..rows, blocks, to: To::Parts(parts) });
            }
        });
        for_each(self.heads, |head| {
            // SAFETY: all parts are written, and this head's parts and output are this task's alone.
            let (parts, out) = unsafe {
                (parts.row(head, 0..blocks * len), out.row(head, 0..shape.head_size / LANES))
            };
            isa.run_pairs(MergeParts { parts, out });
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

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
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

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::LazyLock;

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
        // Often rows of a task do not see a block at all that others see.
        let position = prop_oneof![0usize..200, 120usize..128];
        let prefix = prop_oneof![Just(0), 0usize..290];
        (1usize..3, 1usize..4, 1usize..10, 1usize..9, position, prefix).prop_flat_map(
            |(heads, share, eighths, queries, position, prefix)| {
                let mask = Mask { prefix };
                let total = mask.visible(position + queries - 1);
                let head_size = eighths * 8;
                let capacity = (total + 1).next_multiple_of(KEYS);
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
        // In two parts, as prompts come, and then what no query sees.
        let (first, rest) = rows.split_at(rows.len() / width / 4 * 2 * width);
        let second = first.len() / 2 / width;
        let end = second + rest.len() / 2 / width;
        let unseen = vec![f32::NAN; (shape.capacity - end) * 2 * width];
        for (position, rows) in [(0, first), (second, rest), (end, &unseen[..])] {
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
                    bits_are_the_same(&case, &store::<f32>(&case, isa), isa);
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

    static ONE_THREAD: LazyLock<rayon::ThreadPool> =
        LazyLock::new(|| rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());

    fn bits_are_the_same<E: Cached>(case: &Case, cache: &KvCache<E>, isa: Isa) {
        let width = case.shape.heads * case.share * case.shape.head_size;
        let queries = case.queries.len() / width;
        let bits = |out: Vec<f32>| out.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let together = bits(run(case, cache, isa, 0..queries));
        let one_by_one: Vec<_> =
            (0..queries).flat_map(|q| bits(run(case, cache, isa, q..q + 1))).collect();
        assert_eq!(together, one_by_one, "{isa}");
        let by_one_thread = bits(ONE_THREAD.install(|| run(case, cache, isa, 0..queries)));
        assert_eq!(together, by_one_thread, "{isa}");
    }

    #[test]
    fn a_mask_is_a_run_of_keys() {
        let prefix = Mask { prefix: 3 };
        assert_eq!([0, 2, 3, 7].map(|q| prefix.visible(q)), [3, 3, 4, 8]);
        let causal = Mask { prefix: 0 };
        assert_eq!([0, 2, 7].map(|q| causal.visible(q)), [1, 3, 8]);
    }
}
