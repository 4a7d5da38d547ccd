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
//! each page is widened to `f32` once for all of them. Where the values are a part of the keys, they are widened for each of
//! the two products, a few at a time: to `f32`, or to 16-bit integers if they are quantized. Then queries and weights are rounded to 16-bit
//! integers, too: an instruction of x86-64 multiplies twice as many of those as of floats.

use std::cell::RefCell;

use element::Number;
use partial::{MergePartials, partial_len};
use product::{Pair, TILE_ROWS, ZEROS};
use task::{AttendTask, Destination, Scratch, Task};

use crate::Isa;
use crate::parallel::{SharedRows, for_each};
use crate::simd::LANES;

mod cache;
mod element;
mod integers;
mod operands;
mod partial;
mod product;
mod shape;
mod shared;
mod softmax;
mod store;
mod task;

pub use cache::{HeadRows, Heads, KvCache, KvPage, OutOfMemory};
pub use element::{Cached, Int4};
pub use shape::{KvShape, Values};

/// Positions of a page of keys and values.
pub const KEYS: usize = 128;

/// Most rows of a task: enough to amortize the widening of a page.
const TASK_ROWS: usize = if cfg!(test) { 12 } else { 192 };
const _: () = assert!(TASK_ROWS.is_multiple_of(TILE_ROWS));

/// Most rows that a task must have, if the values are a part of the keys: a task widens them twice.
const SPLIT_ROWS: usize = if cfg!(test) { TILE_ROWS } else { 24 };

/// Tasks per thread, if there is enough work.
const TASKS: usize = if cfg!(test) { 1 } else { 8 };

/// Widening a page takes as long as its products with this many rows, about; for keys twice, once transposed.
const WIDENING_ROWS: usize = 3;

/// Largest supported head size.
pub const MAX_HEAD_SIZE: usize = 1024;

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

/// Buffer for the partial results of a single query, `[pages][heads]`, reused by later calls. It grows to the longest context.
#[derive(Default)]
pub struct Partials(Vec<Pair>);

impl Partials {
    /// Bytes for a query with `heads` heads, with [values of `value_size` elements](KvShape::value_size), that attends to `positions` keys.
    ///
    /// # Panics
    /// If the size overflows.
    #[track_caller]
    pub fn bytes(heads: usize, value_size: usize, positions: usize) -> usize {
        heads
            .checked_mul(positions.div_ceil(KEYS))
            .and_then(|partials| partials.checked_mul(partial_len(value_size)))
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
        value_size: usize,
        positions: usize,
    ) -> Result<(), OutOfMemory> {
        let pairs = Self::bytes(heads, value_size, positions) / size_of::<Pair>();
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
    /// Writes `[queries][heads]`[`[value size]`](KvShape::value_size) to `out`, on the threads of the current pool.
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
        let queries = self.queries.len() / width;
        let value_size = shape.value_size();
        assert_eq!(out.len(), queries * self.heads * value_size, "outputs of the queries");
        if queries == 0 {
            return;
        }
        let last = self.position.checked_add(queries - 1).expect("position of the last query");
        let visible = self.mask.visible(last);
        let pages = visible.div_ceil(KEYS);
        let cached = self.cache.pages();
        assert!(pages <= cached, "{visible} visible keys in {cached} pages");
        let rows = queries * self.group_size();
        let out = &SharedRows::new(out.as_chunks_mut().0, value_size / LANES);
        let threads = rayon::current_num_threads();
        if queries > 1 || pages == 1 {
            let parts = match queries {
                1 => row_parts(shape.heads, rows, threads),
                _ => {
                    // The rows of a KV head are split even if they are few: with few KV heads there would be too few tasks
                    // otherwise.
                    let all = rows * shape.heads;
                    let least = match shape.shares() {
                        true => all.div_ceil(threads).clamp(TILE_ROWS, SPLIT_ROWS),
                        false => TILE_ROWS,
                    };
                    rows.div_ceil((all / (TASKS * threads)).clamp(least, TASK_ROWS))
                }
            };
            // Tasks of equal size. An even number of rows is a number of whole tiles.
            let step = rows.div_ceil(parts).next_multiple_of(2);
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
        let len = partial_len(value_size);
        partials.0.resize(partials.0.len().max(self.heads * pages * len), ZEROS);
        let width = self.heads * len;
        let partials = &mut partials.0[..pages * width];
        let shared = &SharedRows::new(partials, width);
        let items = pages * shape.heads;
        let step = rows.div_ceil(row_parts(items, rows, threads)).next_multiple_of(2);
        let parts = rows.div_ceil(step);
        // Each task rotates its queries, if the keys are quantized.
        let rotates = E::Key::QUANTIZED && shape.heads == 1;
        let each = if rotates { TASKS.div_ceil(2) } else { TASKS };
        let tasks = (each * threads).min(items);
        for_each(tasks * parts, |task| {
            let (task, first) = (task / parts, task % parts * step);
            let rows = first..(first + step).min(rows);
            let (mut item, end) = (task * items / tasks, (task + 1) * items / tasks);
            while item < end {
                let (page, head) = (item / shape.heads, item % shape.heads);
                // The pages of a single KV head are one task, which rotates its queries once.
                let pages = page..if shape.heads == 1 { end } else { page + 1 };
                item += pages.len();
                let to = Destination::Partials(shared);
                self.run(isa, Task { head, rows: rows.clone(), pages, to });
            }
        });
        let (first, others) = partials.split_at_mut(width);
        let first = &SharedRows::new(first, len);
        for_each(self.heads, |head| {
            // SAFETY: each head is used by one task only.
            let (merged, out) =
                unsafe { (first.row(head, 0..len), out.row(head, 0..value_size / LANES)) };
            let rotated = <E::Value as Number>::QUANTIZED.then(|| shape.rotated());
            isa.run_pairs(MergePartials { merged, others, width, at: head * len, rotated, out });
        });
    }

    /// Query heads of a GQA group: those that read one KV head.
    fn group_size(&self) -> usize {
        self.heads / self.cache.shape().heads
    }

    fn run(&self, isa: Isa, task: Task<'_>) {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.fit::<E>(task.rows.len(), self.cache.shape());
            E::attend(isa, AttendTask { attention: self, task, scratch });
        });
    }
}

/// Into how many parts the rows of `items` products are split, so that `threads` threads end first: each part widens its page again.
fn row_parts(items: usize, rows: usize, threads: usize) -> usize {
    let time =
        |&parts: &usize| (items * parts).div_ceil(threads) * (rows.div_ceil(parts) + WIDENING_ROWS);
    (1..=rows.div_ceil(TILE_ROWS)).min_by_key(time).unwrap_or(1)
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
mod tests;
