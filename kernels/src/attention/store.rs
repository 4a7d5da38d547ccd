//! Storing keys and values in a page, in the element type of the cache.

use super::cache::{CachedHead, HeadRows, KvShape, PANELS};
use super::{Cached, KEYS, MAX_HEAD_SIZE};
use crate::rotation::rotate;
use crate::simd::{Kernel, LANES, Vectors};

/// Stores the keys and values of one head in a page.
pub struct Store<'a, E: Cached> {
    pub(super) shape: KvShape,
    pub(super) head: usize,
    /// Index in the page of the first row.
    pub(super) first: usize,
    pub(super) rows: HeadRows<'a>,
    /// The head in the page before.
    pub(super) before: Option<CachedHead<'a, E>>,
    /// Those of the head in the page: keys, then values.
    pub(super) vectors: &'a mut [E::Vector],
    /// Those of the head in the page: of keys, of values, and the anchor.
    pub(super) scales: &'a mut [[f32; LANES]],
}

impl<E: Cached> Kernel for Store<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) {
        let Self { shape, head, first, rows, before, vectors, scales } = self;
        let size = shape.head_size;
        let (keys, values) = vectors.split_at_mut(shape.vectors::<E>()[0]);
        let (scales, anchor) = scales.split_at_mut(if E::QUANTIZED { 2 * PANELS } else { 0 });
        let mut rotated = [[0.0; LANES]; MAX_HEAD_SIZE / LANES];
        let rotated = &mut rotated[..size / LANES];
        for (row, index) in rows.rows.chunks_exact(rows.width).zip(first..) {
            let (panel, lane) = (index / LANES, index % LANES);

            let key = load_head::<S, E>(simd, &row[rows.keys.at(head)..][..size], rotated);
            if E::ANCHORED {
                if index == 0 {
                    match &before {
                        Some(before) => mean_key(simd, before, anchor),
                        None => anchor.copy_from_slice(key),
                    }
                }
                for (key, anchor) in key.iter_mut().zip(&*anchor) {
                    simd.store(simd.sub(simd.load(key), simd.load(anchor)), key);
                }
            }
            let inverse = scale::<S, E>(simd, key, scales, panel, lane);
            let (first, step) = shape.keys().column::<E>(panel);
            for (i, key) in key.iter().enumerate() {
                let narrow = E::narrow(simd, simd.mul(simd.load(key), inverse));
                for (j, key) in narrow.into_iter().enumerate() {
                    let vector = &mut keys[first + (i * LANES + j) * step];
                    key.set(vector, panel % E::COLUMNS, lane);
                }
            }

            let value = load_head::<S, E>(simd, &row[rows.values.at(head)..][..size], rotated);
            let inverse = scale::<S, E>(simd, value, scales, PANELS + panel, lane);
            for (column, value) in value.iter().enumerate() {
                let (first, step) = shape.values().column::<E>(column);
                let vector = &mut values[first + index * step];
                let narrow = E::narrow(simd, simd.mul(simd.load(value), inverse));
                for (lane, value) in narrow.into_iter().enumerate() {
                    value.set(vector, column % E::COLUMNS, lane);
                }
            }
        }
    }
}

/// Copies a head, rotated if the element type is quantized.
#[inline(always)]
fn load_head<'a, S: Vectors, E: Cached>(
    simd: S,
    head: &[f32],
    to: &'a mut [[f32; LANES]],
) -> &'a mut [[f32; LANES]] {
    to.as_flattened_mut().copy_from_slice(head);
    if E::QUANTIZED {
        rotate(simd, to);
    }
    to
}

/// Writes the mean of all keys of a page.
#[inline(always)]
fn mean_key<S: Vectors, E: Cached>(simd: S, page: &CachedHead<'_, E>, mean: &mut [[f32; LANES]]) {
    let mean = mean.as_flattened_mut();
    for i in 0..mean.len() {
        let mut sum = simd.splat(0.0);
        for panel in 0..PANELS {
            let (first, step) = page.shape.keys().column::<E>(panel);
            let keys = E::load(simd, &page.keys[first + i * step], panel % E::COLUMNS);
            sum = simd.fma(keys, simd.load(&page.scales[0][panel]), sum);
        }
        mean[i] = simd.sum(sum) / KEYS as f32 + page.anchor.as_flattened()[i];
    }
}

/// Computes and stores the quantization scale of one head of one position, if the element type has scales. Returns the factor to
/// multiply the values with before they are rounded.
#[inline(always)]
fn scale<S: Vectors, E: Cached>(
    simd: S,
    head: &[[f32; LANES]],
    scales: &mut [[f32; LANES]],
    panel: usize,
    lane: usize,
) -> S::F32 {
    if !E::QUANTIZED {
        return simd.splat(1.0);
    }
    let step = E::step(simd, head);
    scales[panel][lane] = step.scale;
    simd.splat(step.inverse)
}
