//! The dimensions of a KV cache, and what follows from them: layouts and sizes of its pages.

use super::element::Number;
use super::product::Strips;
use super::{Cached, KEYS};
use crate::rotation;
use crate::simd::LANES;

/// Vectors with one lane per position of a page.
pub(super) const PANELS: usize = KEYS / LANES;

/// Dimensions of the KV cache of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Layers.
    pub layers: usize,
    /// KV heads of a layer.
    pub heads: usize,
    /// Elements of a head, a multiple of 8 up to [`MAX_HEAD_SIZE`](super::MAX_HEAD_SIZE).
    pub head_size: usize,
    /// What the values are.
    pub values: Values,
}

/// What the values of a KV cache are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Vectors of their own.
    Own,
    /// The first so many elements of the keys, one to all, as in latent attention (MLA) with absorbed projections. A page holds a position
    /// once.
    Keys(usize),
}

impl KvShape {
    /// Elements of a value, and of an output of the attention. If the values are a part of the keys, it may be larger than that, up to a
    /// whole key: quantized keys are rotated in parts, whose size is the largest power of two that divides a key, and a value is a number of
    /// whole parts, in a cache of any type.
    #[inline(always)]
    pub fn value_size(&self) -> usize {
        match self.values {
            Values::Own => self.head_size,
            // Of a size that no page can have, anything will do.
            Values::Keys(size) => {
                size.checked_next_multiple_of(LANES * self.rotated()).unwrap_or(size)
            }
        }
    }

    /// Whether the values are a part of the keys.
    #[inline(always)]
    pub(super) fn shares(&self) -> bool {
        matches!(self.values, Values::Keys(_))
    }

    /// Vectors of a head that are rotated together, if the elements are quantized.
    #[inline(always)]
    pub(super) fn rotated(&self) -> usize {
        rotation::part((self.head_size / LANES).max(1))
    }

    /// Words of the keys and of the values of one head in a page.
    #[inline(always)]
    pub(super) fn words<E: Cached>(&self) -> [usize; 2] {
        [words::<E::Key>(self.key_strips()), words::<E::Value>(self.value_strips())]
    }

    /// Vectors of the grids of the keys and of the values of one head in a page, and of its anchor.
    #[inline(always)]
    pub(super) fn grids<E: Cached>(&self) -> [usize; 3] {
        let panels = |quantized| if quantized { PANELS } else { 0 };
        [
            panels(E::Key::QUANTIZED),
            panels(E::Value::QUANTIZED && !self.shares()),
            if E::Key::MINIMUM { self.head_size / LANES } else { 0 },
        ]
    }

    /// Layout of the keys of one head: a column is eight positions.
    #[inline(always)]
    pub(super) fn key_strips(&self) -> Strips {
        Strips { depth: self.head_size, columns: PANELS }
    }

    /// Layout of the values of one head: a column is eight elements. There are none if the values are a part of the keys.
    #[inline(always)]
    pub(super) fn value_strips(&self) -> Strips {
        let columns = if self.shares() { 0 } else { self.head_size / LANES };
        Strips { depth: KEYS, columns }
    }

    /// Bytes of a page whose elements have type `E`.
    ///
    /// # Panics
    /// If the size overflows.
    #[track_caller]
    pub fn page_bytes<E: Cached>(&self) -> usize {
        // More than the vectors and grids of any type.
        self.head_size.checked_mul(16 * KEYS).expect("bytes of a page");
        let [keys, values] = self.words::<E>();
        let head = (keys + values).checked_mul(size_of::<u64>());
        let grids = self.grids::<E>().iter().sum::<usize>() * size_of::<[f32; LANES]>();
        head.and_then(|bytes| bytes.checked_add(grids))
            .and_then(|bytes| bytes.checked_mul(self.layers))
            .and_then(|bytes| bytes.checked_mul(self.heads))
            .expect("bytes of a page")
    }
}

/// Words of a matrix of the page.
#[inline(always)]
fn words<N: Number>(strips: Strips) -> usize {
    const { assert!(size_of::<N::Vector>().is_multiple_of(size_of::<u64>())) };
    strips.vectors::<N>() * (size_of::<N::Vector>() / size_of::<u64>())
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::Int4;

    #[test]
    fn a_page_whose_values_are_its_keys_holds_each_position_once() {
        let own = KvShape { layers: 3, heads: 2, head_size: 576, values: Values::Own };
        let keys = KvShape { values: Values::Keys(512), ..own };
        let heads = 3 * 2;
        assert_eq!(keys.page_bytes::<f32>(), heads * KEYS * 576 * 4);
        assert_eq!(keys.page_bytes::<f16>(), heads * KEYS * 576 * 2);
        // A scale.
        assert_eq!(keys.page_bytes::<i16>(), heads * KEYS * (576 * 2 + 4));
        assert_eq!(keys.page_bytes::<i8>(), heads * KEYS * (576 + 4));
        // Five bits, a scale and a minimum of 16 bits, and the anchor.
        assert_eq!(keys.page_bytes::<Int4>(), heads * (KEYS * (360 + 4) + 576 * 4));
        assert_eq!(own.page_bytes::<f32>(), 2 * keys.page_bytes::<f32>());
        assert_eq!(own.page_bytes::<i8>(), 2 * keys.page_bytes::<i8>());
        let values = heads * KEYS * (288 + 4);
        assert_eq!(own.page_bytes::<Int4>(), keys.page_bytes::<Int4>() + values);
    }
}
