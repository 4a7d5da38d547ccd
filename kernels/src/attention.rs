//! Attention, `softmax(q·kᵀ · scale)·v`, computed one page of keys at a time (online softmax, as in FlashAttention).
//!
//! For each page of 128 keys a query has a partial result: the largest score `m`, the sum `s` of the weights
//! `p = e^(score − m)`, and `o = p·v`. Partial results are merged in the order of the pages,
//!
//! ```text
//! m″ = max(m, m′)     s″ = s · e^(m − m″) + s′ · e^(m′ − m″)     o″ = o · e^(m − m″) + o′ · e^(m′ − m″)
//! ```
//!
//! and the output of a query is `o / s`. A whole row of scores is never stored. Pages start at multiples of 128 positions, and
//! the order of the merges does not depend on the number of threads or on the other queries of the call. So a query gets the
//! same bits in any batch and on any number of threads, as long as the values are finite.
//!
//! The query heads of a GQA group read the same KV head. Their queries, for all tokens, are the rows of one matrix product, so
//! each page is widened to `f32` once for all of them.

use std::cell::RefCell;

use element::Number;
use product::{Pair, TILE_ROWS, ZEROS};
use task::{AttendTask, Destination, MergePartials, Scratch, Task, partial_len};

use crate::Isa;
use crate::parallel::{SharedRows, for_each};
use crate::simd::LANES;

mod cache;
mod element;
mod product;
mod store;
mod task;

pub use cache::{HeadRows, Heads, KvCache, KvPage, KvShape, OutOfMemory};
pub use element::{Cached, Int4};

/// Positions of a page of keys and values.
pub const KEYS: usize = 128;

/// Most rows of a task: enough to amortize the widening of a page.
const TASK_ROWS: usize = if cfg!(test) { 12 } else { 192 };
const _: () = assert!(TASK_ROWS.is_multiple_of(TILE_ROWS));

/// Tasks per thread, if there is enough work.
const TASKS: usize = if cfg!(test) { 1 } else { 8 };

/// Largest supported head size.
pub const MAX_HEAD_SIZE: usize = 256;

/// Which keys a query attends to, as a rule instead of a matrix.
///
/// The first `prefix` positions attend to each other in both directions. Every later position attends to all earlier ones and
/// to itself. With a prefix of 0 this is the causal mask. The visible keys always start at position 0, so their number
/// describes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Number of positions with bidirectional attention.
    pub prefix: usize,
}

impl Mask {
    /// Number of keys, from position 0, that the query at `position` attends to.
    #[inline(always)]
    pub fn visible(self, position: usize) -> usize {
        self.prefix.max(position.saturating_add(1))
    }
}

/// Buffer for the partial results of a single query, `[heads][pages]`, reused by later calls. It grows to the longest context.
#[derive(Default)]
pub struct Partials(Vec<Pair>);

impl Partials {
    /// Bytes for a query with `heads` heads of `head_size` elements that attends to `positions` keys.
    ///
    /// # Panics
    /// If the size overflows.
    #[track_caller]
    pub fn bytes(heads: usize, head_size: usize, positions: usize) -> usize {
        heads
            .checked_mul(positions.div_ceil(KEYS))
            .and_then(|partials| partials.checked_mul(partial_len(head_size)))
            .and_then(|pairs| pairs.checked_mul(size_of::<Pair>()))
            .expect("bytes of the partial results")
    }

    /// Makes room for such a query; those up to its size do not allocate then.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    ///
    /// # Panics
    /// As [`Partials::bytes`].
    #[track_caller]
    pub fn reserve(
        &mut self,
        heads: usize,
        head_size: usize,
        positions: usize,
    ) -> Result<(), OutOfMemory> {
        let pairs = Self::bytes(heads, head_size, positions) / size_of::<Pair>();
        let more = pairs.saturating_sub(self.0.len());
        self.0.try_reserve_exact(more).map_err(|_| OutOfMemory)
    }
}

/// Attention of the queries of one sequence to its cached keys and values.
#[derive(Clone, Copy)]
pub struct Attention<'a, E: Cached> {
    /// `[queries][heads][head size]`
    pub queries: &'a [f32],
    /// Query heads. Consecutive query heads form a GQA group, which shares one KV head.
    pub heads: usize,
    /// Keys and values of all positions that any of the queries attends to.
    pub cache: &'a KvCache<E>,
    /// The layer of the cache.
    pub layer: usize,
    /// Position of the first query.
    pub position: usize,
    /// Which keys a query attends to.
    pub mask: Mask,
    /// Multiplies the scores; 1/√(head size).
    pub scale: f32,
}

impl<E: Cached> Attention<'_, E> {
    /// Writes `[queries][heads][head size]` to `out`, on the threads of the current pool.
    ///
    /// # Panics
    /// If a length does not match, the number of query heads is no multiple of the number of KV heads, the layer does not
    /// exist, or a query attends to positions beyond the pages of the cache.
    #[track_caller]
    pub fn forward(&self, isa: Isa, partials: &mut Partials, out: &mut [f32]) {
        let shape = self.cache.shape();
        let grouped = shape.heads > 0 && self.heads.is_multiple_of(shape.heads);
        assert!(grouped, "{} query heads for {} KV heads", self.heads, shape.heads);
        let width = self.heads.checked_mul(shape.head_size).expect("elements of the query heads");
        assert!(self.layer < shape.layers, "layer {} of {}", self.layer, shape.layers);
        assert!(width > 0 && self.queries.len().is_multiple_of(width), "queries of {width}");
        assert_eq!(out.len(), self.queries.len(), "outputs of the queries");
        let queries = self.queries.len() / width;
        if queries == 0 {
            return;
        }
        let last = self.position.checked_add(queries - 1).expect("position of the last query");
        let visible = self.mask.visible(last);
        let pages = visible.div_ceil(KEYS);
        let cached = self.cache.pages();
        assert!(pages <= cached, "{visible} visible keys in {cached} pages");
        let rows = queries * self.group_size();
        let out = &SharedRows::new(out.as_chunks_mut().0, shape.head_size / LANES);
        let tasks = TASKS * rayon::current_num_threads();
        if queries > 1 || pages == 1 {
            // The rows of a KV head are split even if they are few: with few KV heads there would be too few tasks otherwise.
            let most = (rows * shape.heads / tasks).clamp(TILE_ROWS, TASK_ROWS);
            // Tasks of equal size, rounded up to whole tiles.
            let step = rows.div_ceil(rows.div_ceil(most)).next_multiple_of(TILE_ROWS);
            let chunks = rows.div_ceil(step);
            for_each(chunks * shape.heads, |task| {
                let (first, head) = (task % chunks * step, task / chunks);
                let rows = first..(first + step).min(rows);
                let to = Destination::Out(out);
                self.run(isa, Task { head, rows, pages: 0..pages, to });
            });
            return;
        }
        // Split KV: one query, whose pages are distributed among the threads. The KV heads of a page are contiguous in memory,
        // so a task takes consecutive ones.
        let len = partial_len(shape.head_size);
        partials.0.resize(partials.0.len().max(self.heads * pages * len), ZEROS);
        let partials = &SharedRows::new(&mut partials.0[..self.heads * pages * len], pages * len);
        let items = pages * shape.heads;
        let tasks = tasks.min(items);
        for_each(tasks, |task| {
            for item in task * items / tasks..(task + 1) * items / tasks {
                let (page, head) = (item / shape.heads, item % shape.heads);
                let to = Destination::Partials(partials);
                self.run(isa, Task { head, rows: 0..rows, pages: page..page + 1, to });
            }
        });
        for_each(self.heads, |head| {
            // SAFETY: the loop above has ended, and each head is used by one task only.
            let (partials, out) = unsafe {
                (partials.row(head, 0..pages * len), out.row(head, 0..shape.head_size / LANES))
            };
            isa.run_pairs(MergePartials {
                partials,
                rotated: <E::Value as Number>::QUANTIZED,
                out,
            });
        });
    }

    /// Query heads of a GQA group: those that read one KV head.
    fn group_size(&self) -> usize {
        self.heads / self.cache.shape().heads
    }

    fn run(&self, isa: Isa, task: Task<'_>) {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.fit(task.rows.len(), self.cache.shape().head_size);
            E::attend(isa, AttendTask { attention: self, task, scratch });
        });
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl<E: Cached> Attention<'_, E> {
    /// Number of keys of a page that a row attends to.
    #[inline(always)]
    fn visible(&self, row: usize, page: usize) -> usize {
        let visible = self.mask.visible(self.position + row / self.group_size());
        visible.saturating_sub(page * KEYS).min(KEYS)
    }

    /// The query of row `row` of KV head `head`; the rows are `[queries][GQA group]`.
    #[inline(always)]
    fn query(&self, head: usize, row: usize) -> &[f32] {
        let (size, group) = (self.cache.shape().head_size, self.group_size());
        let head = row / group * self.heads + head * group + row % group;
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
        group: usize,
        position: usize,
        mask: Mask,
        queries: Vec<f32>,
        keys: Vec<f32>,
        values: Vec<f32>,
    }

    fn cases() -> impl Strategy<Value = Case> {
        // In the second range, some rows of a task often see no key of a page that other rows see.
        let position = prop_oneof![0usize..200, 120usize..128];
        let prefix = prop_oneof![Just(0), 0usize..290];
        (1usize..3, 1usize..4, 1usize..10, 1usize..9, position, prefix).prop_flat_map(
            |(heads, group, eighths, queries, position, prefix)| {
                let mask = Mask { prefix };
                let total = mask.visible(position + queries - 1);
                let head_size = eighths * 8;
                let shape = KvShape { layers: 2, heads, head_size };
                let kv = heads * total * head_size;
                let q = queries * heads * group * head_size;
                (values(q), values(kv), values(kv)).prop_map(move |(queries, keys, values)| Case {
                    shape,
                    group,
                    position,
                    mask,
                    queries,
                    keys,
                    values,
                })
            },
        )
    }

    impl Case {
        /// Elements of a token's queries.
        fn width(&self) -> usize {
            self.shape.heads * self.group * self.shape.head_size
        }
    }

    fn store<E: Cached>(case: &Case, isa: Isa) -> KvCache<E> {
        let shape = case.shape;
        let mut cache = KvCache::new(shape);
        let width = shape.heads * shape.head_size;
        let rows = case.keys.chunks(width).zip(case.values.chunks(width));
        let rows: Vec<_> = rows.flat_map(|(k, v)| [k, v].concat()).collect();
        let stride = shape.head_size;
        let (k, v) = (Heads { first: 0, stride }, Heads { first: width, stride });
        // Two calls, as for a prompt in two chunks. Then NaN in all positions that no query may read.
        let (first, rest) = rows.split_at(rows.len() / width / 4 * 2 * width);
        let second = first.len() / 2 / width;
        let end = second + rest.len() / 2 / width;
        let pages = (end + 1).div_ceil(KEYS);
        (0..pages).for_each(|_| cache.push(KvPage::new(shape).unwrap()));
        let masked = vec![f32::NAN; pages * KEYS * 2 * width];
        let rest_of_page = &masked[end * 2 * width..];
        for (layer, position, rows) in [
            (0, 0, &masked[..]),
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
        let heads = case.shape.heads * case.group;
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

    /// The layer under test. Layer 0 holds NaN, which must not be read.
    const LAYER: usize = 1;

    /// Keeps scores below about 100: the error of `exp` grows with the rounding error of the score.
    const SCALE: f32 = 0.02;

    /// Largest error measured in 400 cases, relative to [`conditioning`]: 4.4e-8.
    const ATTENTION_ERROR: f32 = 1.5e-7;

    /// The magnitude that rounding errors are proportional to: the error of a weight grows with the terms of its score, and the
    /// error of an output with the largest value.
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
        fn attention_equals_reference(case in cases()) {
            for isa in Isa::available() {
                let cache = store::<f32>(&case, isa);
                equals_reference(&case, &cache, isa);
            }
        }

        /// Compared with the definition on the dequantized cache, whose values are near the stored ones.
        #[test]
        fn attention_to_integers_equals_reference(case in cases()) {
            for isa in Isa::available() {
                let cache = store::<i8>(&case, isa);
                equals_dequantized(&case, &cache, isa);
                let size = case.shape.head_size;
                for (cached, stored) in cached_and_stored(&case, &cache) {
                    for (cached, stored) in cached.chunks(size).zip(stored.chunks(size)) {
                        let largest = stored.iter().fold(0f32, |max, x| max.max(x.abs()));
                        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= largest * (0.5001 / 127.0 + 1e-6);
                        prop_assert!(cached.iter().zip(stored).all(near), "{} {:?} {:?}", isa, cached, stored);
                    }
                }
                let cache = store::<Int4>(&case, isa);
                equals_dequantized(&case, &cache, isa);
                // Values have no anchor. No error is larger than that of the grid over the whole range, but for the rounding of its
                // scale and minimum to 11 bits.
                let (cached, stored) = cached_and_stored(&case, &cache)[1].clone();
                for (cached, stored) in cached.chunks(size).zip(stored.chunks(size)) {
                    let largest = stored.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
                    let least = stored.iter().fold(f32::INFINITY, |min, &x| min.min(x));
                    let scale = (largest - least) / 15.0;
                    let error = |x: f32| x - least - ((x - least) / scale.max(1e-30)).round() * scale;
                    let length = |errors: &dyn Fn(usize) -> f32| (0..size).map(|i| errors(i).powi(2)).sum::<f32>().sqrt();
                    let found = length(&|i| cached[i] - stored[i]);
                    let rounding = (least.abs() + largest - least) / 2048.0 + 1e-6;
                    let bound = length(&|i| error(stored[i])) * 1.001 + (size as f32).sqrt() * rounding;
                    prop_assert!(found <= bound, "{}: {} > {}", isa, found, bound);
                }
            }
        }

        /// A query gets the same bits in any batch and on any number of threads.
        #[test]
        fn batch_and_threads_do_not_change_bits(case in cases(), threads in 1usize..5) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for isa in Isa::available() {
                pool.install(|| {
                    bits_are_the_same(&case, &store::<f32>(&case, isa), isa);
                    bits_are_the_same(&case, &store::<f16>(&case, isa), isa);
                    bits_are_the_same(&case, &store::<i8>(&case, isa), isa);
                    bits_are_the_same(&case, &store::<Int4>(&case, isa), isa);
                });
            }
        }
    }

    /// Of the same heads, five bits have half the error of four. In the second page, whose anchor is a mean: the anchor of the first
    /// one is a key, which adds its own noise to all others.
    #[test]
    fn keys_of_int4_have_five_bits() {
        let shape = KvShape { layers: 2, heads: 1, head_size: 64 };
        let page = KEYS * shape.head_size;
        let heads = prop::collection::vec(-1.0f32..1.0, 2 * page);
        proptest!(ProptestConfig::with_cases(4), |(keys in heads)| {
            let (position, queries) = (2 * KEYS - 1, vec![0.0; shape.head_size]);
            let (mask, values) = (Mask { prefix: 0 }, keys.clone());
            let case = Case { shape, group: 1, position, mask, queries, keys, values };
            for isa in Isa::available() {
                let [keys, values] = cached_and_stored(&case, &store::<Int4>(&case, isa)).map(|(cached, stored)| {
                    let errors = cached[page..].iter().zip(&stored[page..]).map(|(a, b)| (a - b).powi(2));
                    errors.sum::<f32>().sqrt()
                });
                prop_assert!(keys < 0.6 * values, "{}: {} {}", isa, keys, values);
            }
        });
    }

    /// All instruction sets with a fused multiply-add store the same bytes.
    #[test]
    fn all_isas_store_the_same_bytes() {
        proptest!(|(case in cases())| {
            let fused: Vec<_> = Isa::available().into_iter().skip(1).collect();
            let stored = |isa| {
                let (int8, int4) = (store::<i8>(&case, isa), store::<Int4>(&case, isa));
                let pages = case.mask.visible(case.position + case.queries.len() / case.width() - 1) / KEYS;
                let bytes = |page| [int8.page_bytes(page), int4.page_bytes(page)].concat().concat();
                (0..pages).map(bytes).collect::<Vec<_>>()
            };
            for pair in fused.windows(2) {
                prop_assert!(stored(pair[0]) == stored(pair[1]), "{} {}", pair[0], pair[1]);
            }
        });
    }

    /// What a page holds does not depend on how many positions are stored at a time.
    #[test]
    fn a_page_is_the_same_position_by_position() {
        proptest!(|(case in cases())| {
            let isa = Isa::available().pop().unwrap();
            let cache = store::<Int4>(&case, isa);
            let (shape, width) = (case.shape, case.shape.heads * case.shape.head_size);
            let mut each = KvCache::<Int4>::new(shape);
            (0..cache.pages()).for_each(|_| each.push(KvPage::new(shape).unwrap()));
            let rows = case.keys.chunks(width).zip(case.values.chunks(width));
            for (position, (k, v)) in rows.enumerate() {
                let stride = shape.head_size;
                let (keys, values) = (Heads { first: 0, stride }, Heads { first: width, stride });
                let rows = HeadRows { rows: &[k, v].concat(), width: 2 * width, keys, values };
                each.store(isa, LAYER, position, rows);
            }
            let positions = case.keys.len() / width;
            prop_assert_eq!(each.values(LAYER, positions), cache.values(LAYER, positions));
        });
    }

    /// The keys, and the values: of the cache, and those that were stored; all rotated.
    fn cached_and_stored<E: Cached>(case: &Case, cache: &KvCache<E>) -> [(Vec<f32>, Vec<f32>); 2] {
        let size = case.shape.head_size;
        let [keys, values] = cache.values(LAYER, case.keys.len() / case.shape.heads / size);
        let rotated = |x: &[f32]| x.chunks(size).flat_map(reference::rotated).collect();
        [(keys, rotated(&case.keys)), (values, rotated(&case.values))]
    }

    fn equals_dequantized<E: Cached>(case: &Case, cache: &KvCache<E>, isa: Isa) {
        let size = case.shape.head_size;
        let cached = cache.values(LAYER, case.keys.len() / case.shape.heads / size);
        // A rotation is its own inverse.
        let [keys, values] = cached.map(|x| x.chunks(size).flat_map(reference::rotated).collect());
        equals_reference(&Case { keys, values, ..case.clone() }, cache, isa);
    }

    fn equals_reference<E: Cached>(case: &Case, cache: &KvCache<E>, isa: Isa) {
        let width = case.shape.heads * case.group * case.shape.head_size;
        let expected = reference::attention(
            &case.queries,
            &case.keys,
            &case.values,
            case.shape,
            case.group,
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
        let width = case.shape.heads * case.group * case.shape.head_size;
        let queries = case.queries.len() / width;
        let bits = |out: Vec<f32>| out.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let batched = bits(run(case, cache, isa, 0..queries));
        let one_by_one: Vec<_> =
            (0..queries).flat_map(|q| bits(run(case, cache, isa, q..q + 1))).collect();
        assert_eq!(batched, one_by_one, "{isa}");
        let by_one_thread = bits(ONE_THREAD.install(|| run(case, cache, isa, 0..queries)));
        assert_eq!(batched, by_one_thread, "{isa}");
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
        assert!(b.replace(0, page()).is_none(), "the other cache still uses it");
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
    fn visible_keys_of_prefix_and_causal_masks() {
        let prefix = Mask { prefix: 3 };
        assert_eq!([0, 2, 3, 7].map(|q| prefix.visible(q)), [3, 3, 4, 8]);
        let causal = Mask { prefix: 0 };
        assert_eq!([0, 2, 7].map(|q| causal.visible(q)), [1, 3, 8]);
    }
}
