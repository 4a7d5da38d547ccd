//! Cached keys and values, as the attention kernel reads them.

use bytemuck::Zeroable;
use bytemuck::allocation::try_zeroed_vec;

use super::blocks::part_len;
use super::product::{Columns, Strips};
use super::{Cached, KEYS, MAX_HEAD_SIZE};
use crate::Isa;
use crate::parallel::{SharedRows, for_each};
use crate::quantized::step;
use crate::simd::{Kernel, LANES, Vectors};

/// Vectors that hold a number for each position of a block.
const PANELS: usize = KEYS / LANES;

/// Sizes of one layer's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Heads of keys and values.
    pub heads: usize,
    /// Elements of a head, a multiple of 8 up to [`MAX_HEAD_SIZE`].
    pub head_size: usize,
    /// Positions, a multiple of [`KEYS`].
    pub capacity: usize,
}

impl KvShape {
    /// Elements of the room in which the parts of a query of `heads` heads are put together.
    pub fn room(&self, heads: usize) -> usize {
        heads * self.blocks() * part_len(self.head_size) * 2 * LANES
    }

    /// Blocks of a head.
    fn blocks(&self) -> usize {
        self.capacity / KEYS
    }

    /// Vectors of the keys of a block, and of its values.
    #[inline(always)]
    fn vectors(&self) -> usize {
        self.head_size * PANELS
    }

    /// Where the keys of a block are.
    #[inline(always)]
    fn keys(&self) -> Strips {
        Strips { depth: self.head_size, columns: PANELS }
    }

    /// Where the values of a block are.
    #[inline(always)]
    fn values(&self) -> Strips {
        Strips { depth: KEYS, columns: self.head_size / LANES }
    }

    /// Bytes that keys and values of type `E` take when it is full, of whatever capacity.
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
/// A query reads it from the first byte of a head to the last: the keys of a block of [`KEYS`] positions, its values, the keys of
/// the next. A vector of keys holds an element of eight positions, so that a sum of such vectors holds their scores; a vector of
/// values holds eight elements of a position. Both are columns of vectors to be summed, and lie in the order of that sum. Integers have
/// a scale for each head of a position. Floats have none: that memory is never touched, so it costs nothing.
pub struct KvCache<E> {
    shape: KvShape,
    /// `[heads][capacity / 128]`, and of each block its keys, [`Strips`] of 16 columns of `head size` vectors, and its values,
    /// [`Strips`] of `head size / 8` columns of 128
    vectors: Vec<[E; LANES]>,
    /// `[heads][capacity / 128][keys, values][16][8]`
    scales: Vec<[f32; LANES]>,
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
        assert!(shape.head_size.is_multiple_of(LANES) && shape.capacity.is_multiple_of(KEYS));
        assert!(shape.head_size <= MAX_HEAD_SIZE, "head of {}", shape.head_size);
        let blocks = shape.heads * shape.blocks();
        Ok(Self {
            shape,
            vectors: zeroed(blocks * 2 * shape.vectors())?,
            scales: zeroed(blocks * 2 * PANELS)?,
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
        let KvShape { heads, capacity, .. } = self.shape;
        let count = rows.rows.len() / rows.width;
        assert!(rows.rows.len().is_multiple_of(rows.width), "rows of {}", rows.width);
        assert!(position + count <= capacity, "position {position} and {count} more");
        let blocks = self.shape.blocks();
        let [len, scales_len] = [self.shape.vectors(), PANELS].map(|block| blocks * 2 * block);
        let vectors = &SharedRows::new(&mut self.vectors, len);
        let scales = &SharedRows::new(&mut self.scales, scales_len);
        for_each(heads, |head| {
            // SAFETY: each head is one task's.
            let (vectors, scales) =
                unsafe { (vectors.row(head, 0..len), scales.row(head, 0..scales_len)) };
            E::store(isa, Store { shape: self.shape, head, position, rows, vectors, scales });
        });
    }

    /// A block of a head.
    #[inline(always)]
    pub(super) fn block(&self, head: usize, block: usize) -> CachedBlock<'_, E> {
        let (shape, at) = (self.shape, head * self.shape.blocks() + block);
        let vectors = &self.vectors[at * 2 * shape.vectors()..][..2 * shape.vectors()];
        let (keys, values) = vectors.split_at(shape.vectors());
        let scales = self.scales[at * 2 * PANELS..][..2 * PANELS].split_at(PANELS);
        CachedBlock { shape, keys, values, scales: scales.into() }
    }
}

#[cfg(test)]
impl<E: Cached> KvCache<E> {
    /// The keys and the values of the first positions, `[positions][heads][head size]`, as `f32`.
    pub(super) fn values(&self, positions: usize) -> [Vec<f32>; 2] {
        let scaled = |x: E, scale: f32| if E::SCALED { x.widen() * scale } else { x.widen() };
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for position in 0..positions {
            let (place, lane) = (position % KEYS, position % LANES);
            let panel = place / LANES;
            for head in 0..self.shape.heads {
                let block = self.block(head, position / KEYS);
                let [key_scale, value_scale] = block.scales.map(|scales| scales[panel][lane]);
                for i in 0..self.shape.head_size {
                    let (first, step) = self.shape.keys().column(panel);
                    keys.push(scaled(block.keys[first + i * step][lane], key_scale));
                    let (first, step) = self.shape.values().column(i / LANES);
                    let value = block.values[first + place * step][i % LANES];
                    values.push(scaled(value, value_scale));
                }
            }
        }
        [keys, values]
    }
}

fn zeroed<T: Zeroable>(n: usize) -> Result<Vec<T>, OutOfMemory> {
    try_zeroed_vec(n).map_err(|()| OutOfMemory)
}

/// A block of a head.
pub(super) struct CachedBlock<'a, E> {
    shape: KvShape,
    keys: &'a [[E; LANES]],
    values: &'a [[E; LANES]],
    /// Of the keys and of the values.
    pub(super) scales: [&'a [[f32; LANES]]; 2],
}

impl<'a, E: Cached> CachedBlock<'a, E> {
    /// The first `n` keys, rounded up to eight, of which eight are a column.
    #[inline(always)]
    pub(super) fn keys(&self, n: usize) -> Columns<'a, E> {
        let strips = self.shape.keys();
        Columns::new(self.keys, strips, strips.depth, n.div_ceil(LANES))
    }

    /// The first `n` values; eight elements of all are a column.
    #[inline(always)]
    pub(super) fn values(&self, n: usize) -> Columns<'a, E> {
        let strips = self.shape.values();
        Columns::new(self.values, strips, n, strips.columns)
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
    shape: KvShape,
    head: usize,
    position: usize,
    rows: HeadRows<'a>,
    /// As in the cache.
    vectors: &'a mut [[E; LANES]],
    scales: &'a mut [[f32; LANES]],
}

impl<E: Cached> Kernel for Store<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) {
        let (size, len) = (self.shape.head_size, self.shape.vectors());
        for (row, position) in self.rows.rows.chunks_exact(self.rows.width).zip(self.position..) {
            let (block, place) = (position / KEYS, position % KEYS);
            let (panel, lane) = (place / LANES, place % LANES);
            let vectors = &mut self.vectors[block * 2 * len..][..2 * len];
            let (keys, values) = vectors.split_at_mut(len);
            let scales = &mut self.scales[block * 2 * PANELS..][..2 * PANELS];

            let (from, _) = row[self.rows.keys.at(self.head)..][..size].as_chunks::<LANES>();
            let inverse = scale::<S, E>(simd, from, &mut scales[panel][lane]);
            let (first, step) = self.shape.keys().column(panel);
            for (i, key) in from.iter().enumerate() {
                let narrow = E::narrow(simd, simd.mul(simd.load(key), inverse));
                for (j, key) in narrow.into_iter().enumerate() {
                    keys[first + (i * LANES + j) * step][lane] = key;
                }
            }

            let (from, _) = row[self.rows.values.at(self.head)..][..size].as_chunks::<LANES>();
            let inverse = scale::<S, E>(simd, from, &mut scales[PANELS + panel][lane]);
            for (column, value) in from.iter().enumerate() {
                let (first, step) = self.shape.values().column(column);
                values[first + place * step] = E::narrow(simd, simd.mul(simd.load(value), inverse));
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
