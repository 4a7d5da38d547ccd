//! Cached keys and values, as the attention kernel reads them.

use bytemuck::Zeroable;
use bytemuck::allocation::try_zeroed_vec;

use super::blocks::part_len;
use super::product::Columns;
use super::{Cached, KEYS, MAX_HEAD_SIZE};
use crate::Isa;
use crate::parallel::{SharedRows, for_each};
use crate::quantized::step;
use crate::simd::{Kernel, LANES, Vectors};

/// Sizes of one layer's cache.
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
    /// Elements of the room in which the parts of a query of `heads` heads are put together.
    pub fn room(&self, heads: usize) -> usize {
        heads * self.capacity.div_ceil(KEYS) * part_len(self.head_size) * 2 * LANES
    }

    /// Bytes that keys and values of type `E` take when it is full.
    pub fn bytes<E: Cached>(&self) -> usize {
        let scale = if E::SCALED { size_of::<f32>() } else { 0 };
        2 * self.heads * self.capacity * (self.head_size * size_of::<E>() + scale)
    }
}

/// The operating system has no memory left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// Keys and values of one layer.
///
/// Keys lie in panels of eight positions, so that a vector holds the scores of eight keys; values lie one position after the
/// other. Integers have a scale for each head of a position. Floats have none: that memory is never touched, so it costs
/// nothing.
pub struct KvCache<E> {
    shape: KvShape,
    /// `[heads][capacity / 8][head size][8]`
    keys: Vec<[E; LANES]>,
    /// `[heads][capacity][head size / 8][8]`
    values: Vec<[E; LANES]>,
    /// `[heads][capacity / 8][8]`
    key_scales: Vec<[f32; LANES]>,
    /// `[heads][capacity / 8][8]`
    value_scales: Vec<[f32; LANES]>,
}

impl<E: Cached> KvCache<E> {
    /// An empty cache. The system gives its pages as they are first written.
    ///
    /// # Errors
    /// If there is no memory for it.
    ///
    /// # Panics
    /// If the head size or the capacity is not what [`KvShape`] asks for.
    #[track_caller]
    pub fn new(shape: KvShape) -> Result<Self, OutOfMemory> {
        assert!(shape.head_size.is_multiple_of(LANES) && shape.capacity.is_multiple_of(LANES));
        assert!(shape.head_size <= MAX_HEAD_SIZE, "head of {}", shape.head_size);
        let panels = shape.heads * shape.capacity / LANES;
        Ok(Self {
            shape,
            keys: zeroed(panels * shape.head_size)?,
            values: zeroed(panels * shape.head_size)?,
            key_scales: zeroed(panels)?,
            value_scales: zeroed(panels)?,
        })
    }

    /// Its sizes.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Stores keys and values of positions from `position` on, one for each of `rows`, narrowed to the cache's type, on the
    /// threads that there are.
    ///
    /// # Panics
    /// If a length does not fit or a position is not below the capacity.
    #[track_caller]
    pub fn store(&mut self, isa: Isa, position: usize, rows: HeadRows<'_>) {
        let KvShape { heads, head_size, capacity } = self.shape;
        let count = rows.rows.len() / rows.width;
        assert!(rows.rows.len().is_multiple_of(rows.width), "rows of {}", rows.width);
        assert!(position + count <= capacity, "position {position} and {count} more");
        let panels = capacity / LANES;
        let keys = &SharedRows::new(&mut self.keys, panels * head_size);
        let values = &SharedRows::new(&mut self.values, panels * head_size);
        let key_scales = &SharedRows::new(&mut self.key_scales, panels);
        let value_scales = &SharedRows::new(&mut self.value_scales, panels);
        for_each(heads, |head| {
            // SAFETY: each head is one task's.
            let (keys, values) = unsafe {
                (
                    (keys.row(head, 0..panels * head_size), key_scales.row(head, 0..panels)),
                    (values.row(head, 0..panels * head_size), value_scales.row(head, 0..panels)),
                )
            };
            E::store(isa, Store { size: head_size, head, position, rows, keys, values });
        });
    }

    /// Keys and values of one head.
    pub(super) fn head(&self, head: usize) -> HeadCache<'_, E> {
        let KvShape { head_size, capacity, .. } = self.shape;
        let panels = capacity / LANES;
        HeadCache {
            size: head_size,
            keys: &self.keys[head * panels * head_size..][..panels * head_size],
            values: &self.values[head * panels * head_size..][..panels * head_size],
            key_scales: &self.key_scales[head * panels..][..panels],
            value_scales: &self.value_scales[head * panels..][..panels],
        }
    }
}

#[cfg(test)]
impl<E: Cached> KvCache<E> {
    /// The keys and the values of the first positions, `[positions][heads][head size]`, as `f32`.
    pub(super) fn values(&self, positions: usize) -> [Vec<f32>; 2] {
        let scaled = |x: E, scale: f32| if E::SCALED { x.widen() * scale } else { x.widen() };
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for position in 0..positions {
            let (panel, lane) = (position / LANES, position % LANES);
            for head in (0..self.shape.heads).map(|head| self.head(head)) {
                for i in 0..head.size {
                    let key = head.keys[panel * head.size + i][lane];
                    keys.push(scaled(key, head.key_scales[panel][lane]));
                    let value = head.values.as_flattened()[position * head.size + i];
                    values.push(scaled(value, head.value_scales[panel][lane]));
                }
            }
        }
        [keys, values]
    }
}

fn zeroed<T: Zeroable>(n: usize) -> Result<Vec<T>, OutOfMemory> {
    try_zeroed_vec(n).map_err(|()| OutOfMemory)
}

/// One head of a cache.
pub(super) struct HeadCache<'a, E> {
    size: usize,
    keys: &'a [[E; LANES]],
    values: &'a [[E; LANES]],
    key_scales: &'a [[f32; LANES]],
    value_scales: &'a [[f32; LANES]],
}

impl<'a, E: Cached> HeadCache<'a, E> {
    /// The first `n` keys of a block, rounded up to panels, each a column.
    #[inline(always)]
    pub(super) fn keys(&self, block: usize, n: usize) -> Columns<'a, E> {
        let (depth, columns) = (self.size, n.div_ceil(LANES));
        let vectors = &self.keys[block * KEYS / LANES * depth..][..columns * depth];
        Columns::new(vectors, depth, columns, 1, depth)
    }

    /// The first `n` values of a block; eight elements of all are a column.
    #[inline(always)]
    pub(super) fn values(&self, block: usize, n: usize) -> Columns<'a, E> {
        let (depth, columns) = (n, self.size / LANES);
        let vectors = &self.values[block * KEYS * columns..][..depth * columns];
        Columns::new(vectors, depth, columns, columns, 1)
    }

    /// Of the keys and of the values of a block on.
    #[inline(always)]
    pub(super) fn scales(&self, block: usize) -> [&'a [[f32; LANES]]; 2] {
        [self.key_scales, self.value_scales].map(|scales| &scales[block * KEYS / LANES..])
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

/// Keys and values of one head that are to be stored.
pub struct Store<'a, E> {
    size: usize,
    head: usize,
    position: usize,
    rows: HeadRows<'a>,
    /// `[capacity / 8][head size][8]`, and their scales
    keys: (&'a mut [[E; LANES]], &'a mut [[f32; LANES]]),
    /// `[capacity][head size / 8][8]`, and their scales
    values: (&'a mut [[E; LANES]], &'a mut [[f32; LANES]]),
}

impl<E: Cached> Kernel for Store<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) {
        let size = self.size;
        let (keys, key_scales) = self.keys;
        let (values, value_scales) = self.values;
        for (row, position) in self.rows.rows.chunks_exact(self.rows.width).zip(self.position..) {
            let (panel, lane) = (position / LANES, position % LANES);
            let (from, _) = row[self.rows.keys.at(self.head)..][..size].as_chunks::<LANES>();
            let inverse = scale::<S, E>(simd, from, &mut key_scales[panel][lane]);
            let panel = &mut keys[panel * size..][..size];
            for (to, key) in panel.chunks_exact_mut(LANES).zip(from) {
                let narrow = E::narrow(simd, simd.mul(simd.load(key), inverse));
                to.iter_mut().zip(narrow).for_each(|(to, key)| to[lane] = key);
            }
            let (from, _) = row[self.rows.values.at(self.head)..][..size].as_chunks::<LANES>();
            let inverse = scale::<S, E>(simd, from, &mut value_scales[position / LANES][lane]);
            let vectors = size / LANES;
            for (to, value) in values[position * vectors..][..vectors].iter_mut().zip(from) {
                *to = E::narrow(simd, simd.mul(simd.load(value), inverse));
            }
        }
    }
}

/// Writes the scale of a head, where it has one; returns what its values are multiplied by before they are narrowed.
#[inline(always)]
fn scale<S: Vectors, E: Cached>(simd: S, head: &[[f32; LANES]], scale: &mut f32) -> S::F32 {
    if !E::SCALED {
        return simd.splat(1.0);
    }
    let step = step(simd, head);
    *scale = step.scale;
    simd.splat(step.inverse)
}
