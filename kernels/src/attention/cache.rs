//! The paged KV cache. Keys and values are stored in the order in which the attention kernel reads them.

use std::marker::PhantomData;
use std::sync::Arc;

use bytemuck::Zeroable;
use bytemuck::allocation::try_zeroed_vec;

use super::element::Number;
use super::product::Columns;
use super::shape::{KvShape, Values};
use super::store::Store;
use super::{Cached, KEYS, MAX_HEAD_SIZE};
use crate::Isa;
use crate::parallel::{SharedRows, for_each};
use crate::simd::{LANES, Vectors};

/// The operating system refused an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// Keys and values of [`KEYS`] consecutive positions of one sequence, in all layers.
///
/// A query of one token reads a layer sequentially: the keys of a head, its values, the keys of the next head. A vector of keys
/// holds one element of eight positions, so a weighted sum of them gives eight scores. A vector of values holds eight elements
/// of one position. Both are stored in the order of summation.
///
/// Integers have one scale per head and position, and those of [`Int4`](super::Int4) a minimum, too. They are those of the [rotated](crate::reference::rotated) head: a rotation spreads
/// the few large elements of a head, which would take the precision of all others. Queries are rotated too, so the scores are the
/// same, and the weighted sum of the values is rotated back. Keys of [`Int4`](super::Int4) are stored as differences from the anchor of the page:
/// most of a key is the same for all positions. The anchor is the mean of the keys of the page before; in the first page, it is the
/// first key. So it depends on earlier positions only.
///
/// Where the [values are a part of the keys](Values::Keys), a page has no values and no grids of them.
pub struct KvPage<E: Cached> {
    shape: KvShape,
    /// `[layers][heads]`; each head is its keys ([`Strips`](super::product::Strips) of 16 columns of `head size` vectors) followed by
    /// its values ([`Strips`](super::product::Strips) of `head size / 8` columns of 128 vectors).
    words: Vec<u64>,
    /// `[layers][heads]`; each head has the grids of its keys and of its values, `[2][16]` times those of eight positions, and its
    /// anchor; empty for floats
    grids: Vec<[f32; LANES]>,
    types: PhantomData<E>,
}

impl<E: Cached> KvPage<E> {
    /// A page of zeros. The operating system allocates its memory on the first write.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    ///
    /// # Panics
    /// If the head size is not a multiple of 8 in 8..=[`MAX_HEAD_SIZE`], values are an empty or too large part of keys, or the size overflows.
    #[track_caller]
    pub fn new(shape: KvShape) -> Result<Self, OutOfMemory> {
        let KvShape { layers, heads, head_size, values } = shape;
        assert!(head_size.is_multiple_of(LANES), "head of {head_size}, no multiple of {LANES}");
        assert!((1..=MAX_HEAD_SIZE).contains(&head_size), "head of {head_size}");
        if let Values::Keys(size) = values {
            assert!((1..=head_size).contains(&size), "value of {size} in a key of {head_size}");
        }
        let heads = layers.checked_mul(heads).expect("heads of all layers");
        let zeroed_of = |each: usize| heads.checked_mul(each).expect("elements of a page");
        let words = zeroed_of(shape.words::<E>().iter().sum());
        let grids = zeroed_of(shape.grids::<E>().iter().sum());
        Ok(Self { shape, words: zeroed(words)?, grids: zeroed(grids)?, types: PhantomData })
    }

    /// Makes this page a copy of `other`.
    ///
    /// # Panics
    /// If their shapes differ.
    #[track_caller]
    pub fn copy_from(&mut self, other: &Self) {
        assert_eq!(self.shape, other.shape, "shapes of the pages");
        self.words.copy_from_slice(&other.words);
        self.grids.copy_from_slice(&other.grids);
    }

    /// One head of a layer.
    #[inline(always)]
    fn head(&self, layer: usize, head: usize) -> CachedHead<'_, E> {
        let shape = self.shape;
        let at = layer * shape.heads + head;
        let [keys, values] = shape.words::<E>();
        let words = &self.words[at * (keys + values)..][..keys + values];
        let (keys, values) = words.split_at(keys);
        let (keys, values) = (bytemuck::cast_slice(keys), bytemuck::cast_slice(values));
        let [of_keys, of_values, of_anchor] = shape.grids::<E>();
        let len = of_keys + of_values + of_anchor;
        let (key_grids, grids) = self.grids[at * len..][..len].split_at(of_keys);
        let (value_grids, anchor) = grids.split_at(of_values);
        CachedHead { shape, keys, values, grids: [key_grids, value_grids], anchor }
    }
}

/// Keys and values of one sequence: its pages in order. Sequences with a common prefix may share pages. A shared page is never
/// written.
pub struct KvCache<E: Cached> {
    shape: KvShape,
    pages: Vec<Arc<KvPage<E>>>,
}

impl<E: Cached> KvCache<E> {
    /// A cache without pages.
    pub fn new(shape: KvShape) -> Self {
        Self { shape, pages: Vec::new() }
    }

    /// Its dimensions.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Number of pages, of [`KEYS`] positions each.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Appends `page`.
    ///
    /// # Panics
    /// If its shape is not that of the cache.
    #[track_caller]
    pub fn push(&mut self, page: KvPage<E>) {
        assert_eq!(page.shape, self.shape, "shape of a page");
        self.pages.push(Arc::new(page));
    }

    /// Removes all pages but the first `len`. Those that no other cache shares are passed to `free`.
    pub fn truncate(&mut self, len: usize, mut free: impl FnMut(KvPage<E>)) {
        // If several owners drop a page at the same time, `into_inner` returns it to exactly one of them.
        self.pages
            .drain(len.min(self.pages.len())..)
            .filter_map(Arc::into_inner)
            .for_each(&mut free);
    }

    /// A cache that shares the first `len` pages.
    #[must_use]
    pub fn fork(&self, len: usize) -> Self {
        Self { shape: self.shape, pages: self.pages[..len.min(self.pages.len())].to_vec() }
    }

    /// The bytes of page `index`, elements and grids, in the order of this machine. They do not depend on the instruction set.
    ///
    /// # Panics
    /// If the page does not exist.
    #[track_caller]
    pub fn page_bytes(&self, index: usize) -> [&[u8]; 2] {
        self.check_page(index);
        let KvPage { words, grids, .. } = &*self.pages[index];
        [bytemuck::cast_slice(words), bytemuck::cast_slice(grids)]
    }

    /// As [`KvCache::page_bytes`], to be written. `None` if another cache shares the page.
    ///
    /// # Panics
    /// If the page does not exist.
    #[track_caller]
    pub fn page_bytes_mut(&mut self, index: usize) -> Option<[&mut [u8]; 2]> {
        self.check_page(index);
        let KvPage { words, grids, .. } = Arc::get_mut(&mut self.pages[index])?;
        Some([bytemuck::cast_slice_mut(words), bytemuck::cast_slice_mut(grids)])
    }

    /// A number for each page: its address. Caches that share a page have the same number for it.
    pub fn page_numbers(&self) -> impl Iterator<Item = usize> {
        self.pages.iter().map(|page| Arc::as_ptr(page).addr())
    }

    /// Whether another cache shares page `index`, which must then be replaced by a copy before it is written (copy-on-write).
    ///
    /// # Panics
    /// If the page does not exist.
    #[track_caller]
    pub fn is_shared(&self, index: usize) -> bool {
        self.check_page(index);
        Arc::strong_count(&self.pages[index]) > 1
    }

    #[track_caller]
    fn check_page(&self, index: usize) {
        assert!(index < self.pages.len(), "page {index} of {}", self.pages.len());
    }

    /// Replaces page `index` by a copy of it in `page`. Returns the old page if no other cache shares it.
    ///
    /// # Panics
    /// If the shapes differ or the page does not exist.
    #[track_caller]
    pub fn replace(&mut self, index: usize, mut page: KvPage<E>) -> Option<KvPage<E>> {
        self.check_page(index);
        page.copy_from(&self.pages[index]);
        let old = std::mem::replace(&mut self.pages[index], Arc::new(page));
        Arc::into_inner(old)
    }

    /// Stores keys and values in `layer`: those of row `i` at `position + i`, converted to the element type of the cache. Runs on
    /// the threads of the current pool.
    ///
    /// # Panics
    /// If a length does not match, the layer does not exist, a position is beyond the pages, or its page is shared.
    #[track_caller]
    pub fn store(&mut self, isa: Isa, layer: usize, position: usize, rows: HeadRows<'_>) {
        let shape = self.shape;
        rows.check(shape);
        assert!(layer < shape.layers, "layer {layer} of {}", shape.layers);
        let count = rows.rows.len() / rows.width;
        let end = position.checked_add(count).expect("position of the last row");
        let pages = self.pages.len();
        assert!(count == 0 || end.div_ceil(KEYS) <= pages, "{end} positions in {pages} pages");
        let mut stored = 0;
        while stored < count {
            let (page, first) = ((position + stored) / KEYS, (position + stored) % KEYS);
            let here = (KEYS - first).min(count - stored);
            let (before, pages) = self.pages.split_at_mut(page);
            let page = Arc::get_mut(&mut pages[0]).expect("a shared page is not written");
            let before = before.last();
            let [key_words, value_words] = shape.words::<E>();
            let words_len = key_words + value_words;
            let grids_len = shape.grids::<E>().iter().sum();
            let words = layer_of(&mut page.words, layer, shape.heads * words_len);
            let grids = layer_of(&mut page.grids, layer, shape.heads * grids_len);
            let words = &SharedRows::new(words, words_len);
            let grids = (grids_len > 0).then(|| SharedRows::new(grids, grids_len));
            let rows =
                HeadRows { rows: &rows.rows[stored * rows.width..][..here * rows.width], ..rows };
            for_each(shape.heads, |head| {
                // SAFETY: each head is used by one task only.
                let words = unsafe { words.row(head, 0..words_len) };
                let (keys, values) = words.split_at_mut(key_words);
                let (keys, values) =
                    (bytemuck::cast_slice_mut(keys), bytemuck::cast_slice_mut(values));
                let grids = match &grids {
                    // SAFETY: each head is used by one task only.
                    Some(grids) => unsafe { grids.row(head, 0..grids_len) },
                    None => &mut [],
                };
                let before = before.map(|page| page.head(layer, head));
                E::store(isa, Store { shape, head, first, rows, before, keys, values, grids });
            });
            stored += here;
        }
    }

    /// One head of a layer in a page.
    #[inline(always)]
    pub(super) fn head(&self, page: usize, layer: usize, head: usize) -> CachedHead<'_, E> {
        self.pages[page].head(layer, head)
    }
}

/// The slice of a page that belongs to a layer.
fn layer_of<T>(values: &mut [T], layer: usize, len: usize) -> &mut [T] {
    &mut values[layer * len..][..len]
}

#[cfg(test)]
impl<E: Cached> KvCache<E> {
    /// Keys and values of the first positions in a layer, `[positions][heads][head size]`, as `f32`; rotated if they are quantized.
    /// The values may be a part of the keys: then they are whole keys here.
    pub(super) fn values(&self, layer: usize, positions: usize) -> [Vec<f32>; 2] {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for position in 0..positions {
            let (index, lane) = (position % KEYS, position % LANES);
            let panel = index / LANES;
            for head in 0..self.shape.heads {
                let block = self.head(position / KEYS, layer, head);
                let [keys_of_page, values_of_page] = block.grids;
                let [key_scale, key_minimum] = grid::<E::Key>(keys_of_page, panel, lane);
                for i in 0..self.shape.head_size {
                    let anchor = if E::Key::MINIMUM { block.anchor.as_flattened()[i] } else { 0.0 };
                    let (first, step) = self.shape.key_strips().column::<E::Key>(panel);
                    let vector = &block.keys[first + i * step];
                    let key = E::Key::get(vector, panel % E::Key::COLUMNS, lane);
                    keys.push(key.widen() * key_scale + key_minimum + anchor);
                }
                if self.shape.shares() {
                    values.extend_from_slice(&keys[values.len()..]);
                    continue;
                }
                let [value_scale, value_minimum] = grid::<E::Value>(values_of_page, panel, lane);
                for i in 0..self.shape.head_size {
                    let column = i / LANES;
                    let (first, step) = self.shape.value_strips().column::<E::Value>(column);
                    let vector = &block.values[first + index * step];
                    let value = E::Value::get(vector, column % E::Value::COLUMNS, i % LANES);
                    values.push(value.widen() * value_scale + value_minimum);
                }
            }
        }
        [keys, values]
    }
}

/// Scale and minimum of one position.
#[cfg(test)]
fn grid<N: Number>(grids: &[[f32; LANES]], panel: usize, lane: usize) -> [f32; 2] {
    match grids.get(panel) {
        Some(grids) => N::grids(crate::simd::scalar::Scalar, grids).map(|x| x[lane]),
        None => [1.0, 0.0],
    }
}

fn zeroed<T: Zeroable>(n: usize) -> Result<Vec<T>, OutOfMemory> {
    try_zeroed_vec(n).map_err(|()| OutOfMemory)
}

/// Keys and values of one head in a page.
pub(super) struct CachedHead<'a, E: Cached> {
    pub(super) shape: KvShape,
    pub(super) keys: &'a [<E::Key as Number>::Vector],
    values: &'a [<E::Value as Number>::Vector],
    /// Grids of the keys and of the values, those of eight positions in a vector; empty for floats.
    pub(super) grids: [&'a [[f32; LANES]]; 2],
    /// What was subtracted from the keys; empty if the type has no anchors.
    pub(super) anchor: &'a [[f32; LANES]],
}

impl<'a, E: Cached> CachedHead<'a, E> {
    /// The first `n` keys, rounded up to a multiple of eight. Eight keys form a column.
    #[inline(always)]
    pub(super) fn keys(&self, n: usize) -> Columns<'a, E::Key> {
        let strips = self.shape.key_strips();
        Columns::new(self.keys, strips, strips.depth, n.div_ceil(LANES))
    }

    /// The first `n` values that are no keys. Eight elements of all of them form a column.
    #[inline(always)]
    pub(super) fn values(&self, n: usize) -> Columns<'a, E::Value> {
        let strips = self.shape.value_strips();
        Columns::new(self.values, strips, n, strips.columns)
    }

    /// The scales and the minima of the values of eight positions.
    #[inline(always)]
    pub(super) fn value_grids<S: Vectors>(&self, simd: S, panel: usize) -> [S::F32; 2] {
        if self.shape.shares() {
            E::Key::grids(simd, &self.grids[0][panel])
        } else {
            E::Value::grids(simd, &self.grids[1][panel])
        }
    }
}

/// Rows of activations, one per token, that contain keys and values among other elements (the output of a fused QKV layer).
#[derive(Clone, Copy)]
pub struct HeadRows<'a> {
    /// `[tokens][width]`
    pub rows: &'a [f32],
    /// Elements of a row.
    pub width: usize,
    /// Offsets of the keys in a row.
    pub keys: Heads,
    /// Offsets of the values in a row; not read if the [values are a part of the keys](Values::Keys).
    pub values: Heads,
}

/// Offsets of the heads in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Offset of the first head.
    pub first: usize,
    /// Distance from one head to the next.
    pub stride: usize,
}

impl HeadRows<'_> {
    /// Checks that each row has all heads of `shape`.
    #[track_caller]
    fn check(&self, shape: KvShape) {
        let HeadRows { rows, width, keys, values } = *self;
        assert!(width > 0 && rows.len().is_multiple_of(width), "rows of {width}");
        let stored = if shape.shares() { &[keys][..] } else { &[keys, values] };
        for heads in stored {
            let last = shape.heads.checked_sub(1).and_then(|last| last.checked_mul(heads.stride));
            let end =
                last.and_then(|last| last.checked_add(heads.first)?.checked_add(shape.head_size));
            assert!(end.is_some_and(|end| end <= width), "heads in rows of {width}");
        }
    }
}

impl Heads {
    /// Offset of head `head`.
    #[inline(always)]
    pub fn at(self, head: usize) -> usize {
        self.first + head * self.stride
    }
}
