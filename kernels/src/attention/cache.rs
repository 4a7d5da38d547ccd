//! How cached keys and values lie in memory: as the attention kernel reads them.

use crate::Isa;
use crate::attention::MAX_HEAD_SIZE;
use crate::parallel::{SharedRows, for_each};
use crate::simd::{Cached, Element, Kernel, LANES, Simd};

/// Sizes of one layer's cache.
///
/// Keys lie in panels of eight positions, `[heads][capacity / 8][head size][8]`, so that a vector holds the scores of eight
/// keys; values lie one position after the other, `[heads][capacity][head size]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Heads of keys and values.
    pub heads: usize,
    /// Elements of a head, a multiple of 8 up to [`MAX_HEAD_SIZE`].
    pub head_size: usize,
    /// Positions, a multiple of 8.
    pub capacity: usize,
}

impl KvShape {
    /// Elements of the keys, and of the values.
    pub fn len(&self) -> usize {
        self.heads * self.head_size * self.capacity
    }

    /// Whether there is no room at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stores keys and values of positions from `position` on, one for each of `rows`, narrowed to the cache's type, on the
    /// threads that there are.
    ///
    /// # Panics
    /// If a length does not fit or a position is not below the capacity.
    #[track_caller]
    pub fn store<E: Cached>(
        &self,
        isa: Isa,
        position: usize,
        rows: HeadRows<'_>,
        keys: &mut [E],
        values: &mut [E],
    ) {
        let count = rows.rows.len() / rows.width;
        assert!(rows.rows.len().is_multiple_of(rows.width), "rows of {}", rows.width);
        assert!(position + count <= self.capacity, "position {position} and {count} more");
        assert!(keys.len() == self.len() && values.len() == self.len(), "length of the cache");
        let keys = &SharedRows::new(keys, self.capacity * self.head_size);
        let values = &SharedRows::new(values, self.capacity * self.head_size);
        for_each(self.heads, |head| {
            // SAFETY: each head is one task's.
            let (keys, values) = unsafe {
                let all = 0..self.capacity * self.head_size;
                (keys.row(head, all.clone()), values.row(head, all))
            };
            isa.run(Store { size: self.head_size, head, position, rows, keys, values });
        });
    }
}

/// Keys and values of some tokens among other things, a row for each token.
#[derive(Clone, Copy)]
pub struct HeadRows<'a> {
    /// `[tokens][width]`
    pub rows: &'a [f32],
    /// Elements of a row.
    pub width: usize,
    /// Where the keys of the heads are.
    pub keys: Heads,
    /// Where the values of the heads are.
    pub values: Heads,
}

/// Where heads stand in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Where the first begins.
    pub first: usize,
    /// How much farther the next one begins.
    pub stride: usize,
}

impl Heads {
    /// Where a head begins.
    #[inline(always)]
    pub fn at(self, head: usize) -> usize {
        self.first + head * self.stride
    }
}

struct Store<'a, E> {
    size: usize,
    head: usize,
    position: usize,
    rows: HeadRows<'a>,
    /// `[capacity / 8][head size][8]`
    keys: &'a mut [E],
    /// `[capacity][head size]`
    values: &'a mut [E],
}

impl<E: Cached> Kernel for Store<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let size = self.size;
        for (row, position) in self.rows.rows.chunks_exact(self.rows.width).zip(self.position..) {
            let (panel, lane) = (position / LANES, position % LANES);
            let panel = &mut self.keys[panel * size * LANES..][..size * LANES];
            let (keys, _) = row[self.rows.keys.at(self.head)..][..size].as_chunks::<LANES>();
            for (to, key) in panel.chunks_exact_mut(LANES * LANES).zip(keys) {
                let narrow = E::narrow(simd, simd.load(key));
                to[lane..].iter_mut().step_by(LANES).zip(narrow).for_each(|(to, key)| *to = key);
            }
            let (to, _) = self.values[position * size..][..size].as_chunks_mut::<LANES>();
            let (values, _) = row[self.rows.values.at(self.head)..][..size].as_chunks::<LANES>();
            for (to, value) in to.iter_mut().zip(values) {
                *to = E::narrow(simd, simd.load(value));
            }
        }
    }
}

/// Keys and values of one layer.
#[derive(Clone, Copy)]
pub struct KeyValues<'a, E> {
    shape: KvShape,
    keys: &'a [[E; LANES]],
    values: &'a [[E; LANES]],
}

impl<'a, E: Element> KeyValues<'a, E> {
    /// Views of a cache laid out as [`KvShape`] says.
    ///
    /// # Panics
    /// If a length does not fit, or the head size or capacity is not what [`KvShape`] asks for.
    #[track_caller]
    pub fn new(shape: KvShape, keys: &'a [E], values: &'a [E]) -> Self {
        assert!(shape.head_size.is_multiple_of(LANES) && shape.capacity.is_multiple_of(LANES));
        assert!(shape.head_size <= MAX_HEAD_SIZE, "head of {}", shape.head_size);
        assert!(keys.len() == shape.len() && values.len() == shape.len(), "length of the cache");
        Self { shape, keys: keys.as_chunks().0, values: values.as_chunks().0 }
    }

    /// Its sizes.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Keys and values of one head.
    pub(crate) fn head(&self, head: usize) -> (&'a [[E; LANES]], &'a [[E; LANES]]) {
        let n = self.shape.capacity * self.shape.head_size / LANES;
        (&self.keys[head * n..][..n], &self.values[head * n..][..n])
    }
}
