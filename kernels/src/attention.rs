//! `softmax(q·kᵀ · scale)·v` by blocks of keys.
//!
//! For each block of 128 keys, a page of the cache, a query has a partial result: the largest score `m`, the sum `s` of the
//! weights `p = e^(score − m)`, and `o = p·v`. Partial results are merged in the order of the blocks,
//!
//! ```text
//! m″ = max(m, m′)     s″ = s · e^(m − m″) + s′ · e^(m′ − m″)     o″ = o · e^(m − m″) + o′ · e^(m′ − m″)
//! ```
//!
//! and the output of a query is `o / s`, so that a whole row of scores is never stored. Blocks start at multiples of 128 of the
//! key position and are merged in their order, whichever thread computes them and whatever other queries are computed with
//! them: a query gets the same bits alone and among others, and on any number of threads, as long as the values are finite.
//!
//! Queries of a prompt and query heads that share a head of the cache are rows of the same products, for which a block is
//! widened to `f32` once.

use std::cell::RefCell;

use blocks::{Blocks, MergeParts, Scratch, Share, To, part_len};
use product::{Pair, TILE_ROWS, ZEROS};

use crate::Isa;
use crate::parallel::{SharedRows, for_each};
use crate::simd::LANES;

mod blocks;
mod cache;
mod element;
mod product;

pub use cache::{HeadRows, Heads, KvCache, KvPage, KvShape, OutOfMemory};
pub use element::Cached;

/// Positions of a page of keys and values.
pub const KEYS: usize = 128;

/// Rows of a task: enough to pay for widening a block.
const TASK_ROWS: usize = if cfg!(test) { 12 } else { 192 };
const _: () = assert!(TASK_ROWS.is_multiple_of(TILE_ROWS));

/// Tasks for each thread, if there is enough work.
const TASKS: usize = if cfg!(test) { 1 } else { 8 };

/// Largest head: 256 elements.
pub const MAX_HEAD_SIZE: usize = 256;

/// Which keys a query sees: a rule, not a matrix.
///
/// The first `prefix` positions see each other in both directions; every later one sees them, those before it and itself.
/// A prefix of 0 is the causal mask. The keys that a query sees always start at the first, so a count describes them.
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

/// Partial results of a single query, `[heads][blocks]`, kept from one call to the next. Grows to the longest context seen.
#[derive(Default)]
pub struct Partials(Vec<Pair>);

impl Partials {
    /// Bytes for a query of `heads` heads of `head_size` elements behind `positions` positions.
    pub fn bytes(heads: usize, head_size: usize, positions: usize) -> usize {
        heads * positions.div_ceil(KEYS) * part_len(head_size) * size_of::<Pair>()
    }
}

/// Attention of queries of one sequence to its cached keys and values.
#[derive(Clone, Copy)]
pub struct Attention<'a, E> {
    /// `[queries][heads][head size]`
    pub queries: &'a [f32],
    /// Heads of the queries; consecutive ones share a head of the cache.
    pub heads: usize,
    /// Keys and values of all positions that any query sees.
    pub cache: &'a KvCache<E>,
    /// Which layer of the cache.
    pub layer: usize,
    /// Position of the first query.
    pub position: usize,
    /// Which keys a query sees.
    pub mask: Mask,
    /// Multiplies the scores; 1/√(head size).
    pub scale: f32,
}

impl<E: Cached> Attention<'_, E> {
    /// Writes `[queries][heads][head size]` to `out`, on the threads of the current pool.
    ///
    /// # Panics
    /// If a length does not fit, the heads are no multiple of the cache's, there is no such layer, or a query sees past the
    /// cache.
    #[track_caller]
    pub fn forward(&self, isa: Isa, partials: &mut Partials, out: &mut [f32]) {
        let shape = self.cache.shape();
        let width = self.heads * shape.head_size;
        let shares = shape.heads > 0 && self.heads.is_multiple_of(shape.heads);
        assert!(shares, "{} heads share {}", self.heads, shape.heads);
        assert!(self.layer < shape.layers, "layer {} of {}", self.layer, shape.layers);
        assert!(width > 0 && self.queries.len().is_multiple_of(width), "queries of {width}");
        assert_eq!(out.len(), self.queries.len(), "outputs of the queries");
        let queries = self.queries.len() / width;
        if queries == 0 {
            return;
        }
        let last = self.mask.visible(self.position + queries - 1);
        let blocks = last.div_ceil(KEYS);
        assert!(
            blocks <= self.cache.pages(),
            "{last} visible keys in {} pages",
            self.cache.pages()
        );
        let rows = queries * self.share();
        let out = &SharedRows::new(out.as_chunks_mut().0, shape.head_size / LANES);
        let tasks = TASKS * rayon::current_num_threads();
        if queries > 1 || blocks == 1 {
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
        // The heads of a page follow each other in memory, so a task takes a run of them.
        let len = part_len(shape.head_size);
        partials.0.resize(partials.0.len().max(self.heads * blocks * len), ZEROS);
        let parts = &SharedRows::new(&mut partials.0[..self.heads * blocks * len], blocks * len);
        let pairs = blocks * shape.heads;
        let tasks = tasks.min(pairs);
        for_each(tasks, |task| {
            for pair in task * pairs / tasks..(task + 1) * pairs / tasks {
                let (block, head) = (pair / shape.heads, pair % shape.heads);
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
                let shape = KvShape { layers: 2, heads, head_size };
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
        let mut cache = KvCache::new(shape);
        let width = shape.heads * shape.head_size;
        let rows = case.keys.chunks(width).zip(case.values.chunks(width));
        let rows: Vec<_> = rows.flat_map(|(k, v)| [k, v].concat()).collect();
        let stride = shape.head_size;
        let (k, v) = (Heads { first: 0, stride }, Heads { first: width, stride });
        // In two parts, as prompts come, and then what no query sees.
        let (first, rest) = rows.split_at(rows.len() / width / 4 * 2 * width);
        let second = first.len() / 2 / width;
        let end = second + rest.len() / 2 / width;
        let pages = (end + 1).div_ceil(KEYS);
        (0..pages).for_each(|_| cache.push(KvPage::new(shape).unwrap()));
        let unseen = vec![f32::NAN; pages * KEYS * 2 * width];
        let rest_of_page = &unseen[end * 2 * width..];
        for (layer, position, rows) in [
            (0, 0, &unseen[..]),
            (LAYER, 0, first),
            (LAYER, second, rest),
            (LAYER, end, rest_of_page),
        ] {
            let rows = HeadRows { rows, width: 2 * width, keys: k, values: v };
            cache.store(isa, layer, position, rows);
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
            layer: LAYER,
            position: case.position + queries.start,
            mask: case.mask,
            scale: SCALE,
        };
        let mut out = vec![f32::NAN; attention.queries.len()];
        attention.forward(isa, &mut Partials::default(), &mut out);
        out
    }

    /// The layer under test; the one before it holds what must not be read.
    const LAYER: usize = 1;

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
                let held = cache.values(LAYER, case.keys.len() / case.shape.heads / case.shape.head_size);
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
    fn a_shared_page_is_replaced_before_it_is_written() {
        let shape = KvShape { layers: 1, heads: 1, head_size: 8 };
        let page = || KvPage::<f32>::new(shape).unwrap();
        let mut a = KvCache::new(shape);
        a.push(page());
        let heads = Heads { first: 0, stride: 8 };
        let isa = Isa::available().pop().unwrap();
        let store = |cache: &mut KvCache<f32>, position: usize, value: f32| {
            let rows = HeadRows { rows: &[value; 8], width: 8, keys: heads, values: heads };
            cache.store(isa, 0, position, rows);
        };
        store(&mut a, 0, 1.0);
        let mut b = a.fork(1);
        assert!(a.is_shared(0) && b.is_shared(0));
        let refused =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store(&mut b, 1, 2.0)));
        assert!(refused.is_err());
        assert!(b.replace(0, page()).is_none(), "the other cache still has it");
        store(&mut b, 1, 2.0);
        store(&mut a, 1, 3.0);
        let keys = |cache: &KvCache<f32>| cache.values(0, 2)[0].clone();
        assert_eq!((keys(&a)[0], keys(&a)[8]), (1.0, 3.0));
        assert_eq!((keys(&b)[0], keys(&b)[8]), (1.0, 2.0));
        let mut freed = 0;
        let c = a.fork(1);
        a.truncate(0, |_| freed += 1);
        assert_eq!(freed, 0);
        drop(c);
        b.truncate(0, |_| freed += 1);
        assert_eq!((freed, b.pages()), (1, 0));
    }

    #[test]
    fn a_mask_is_a_run_of_keys() {
        let prefix = Mask { prefix: 3 };
        assert_eq!([0, 2, 3, 7].map(|q| prefix.visible(q)), [3, 3, 4, 8]);
        let causal = Mask { prefix: 0 };
        assert_eq!([0, 2, 7].map(|q| causal.visible(q)), [1, 3, 8]);
    }
}
