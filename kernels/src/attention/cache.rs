//! How cached keys and values lie in memory: as the attention kernel reads them.

use crate::attention::MAX_HEAD_SIZE;
use crate::simd::{Element, LANES};

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

    /// Stores one position's key and value, `[heads][head size]`, narrowed to the cache's type.
    ///
    /// # Panics
    /// If a length does not fit or `position` is not below the capacity.
    #[track_caller]
    pub fn store<E: Element>(
        &self,
        position: usize,
        key: &[f32],
        value: &[f32],
        keys: &mut [E],
        values: &mut [E],
        narrow: fn(f32) -> E,
    ) {
        assert!(position < self.capacity, "position {position} of {}", self.capacity);
        assert!(key.len() == self.heads * self.head_size && value.len() == key.len());
        assert!(keys.len() == self.len() && values.len() == self.len());
        let (panel, lane) = (position / LANES, position % LANES);
        for head in 0..self.heads {
            let part = head * self.head_size..(head + 1) * self.head_size;
            let at = head * self.capacity * self.head_size;
            let panel = &mut keys[at + panel * self.head_size * LANES..][..self.head_size * LANES];
            for (to, &from) in panel.iter_mut().skip(lane).step_by(LANES).zip(&key[part.clone()]) {
                *to = narrow(from);
            }
            let row = &mut values[at + position * self.head_size..][..self.head_size];
            for (to, &from) in row.iter_mut().zip(&value[part]) {
                *to = narrow(from);
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
