//! Storing keys and values in a page, in the element type of the cache.

use super::cache::{CachedHead, HeadRows};
use super::element::{Grid, Number};
use super::shape::{KvShape, PANELS};
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
    /// The keys of the head in the page.
    pub(super) keys: &'a mut [<E::Key as Number>::Vector],
    /// The values of the head in the page.
    pub(super) values: &'a mut [<E::Value as Number>::Vector],
    /// Those of the head in the page: of keys, of values, and the anchor.
    pub(super) grids: &'a mut [[f32; LANES]],
}

impl<E: Cached> Kernel for Store<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) {
        let Self { shape, head, first, rows, before, keys, values, grids } = self;
        let size = shape.head_size;
        let [of_keys, of_values, _] = shape.grids::<E>();
        let (grids, anchor) = grids.split_at_mut(of_keys + of_values);
        let mut rotated = [[0.0; LANES]; MAX_HEAD_SIZE / LANES];
        let rotated = &mut rotated[..size / LANES];
        for (row, index) in rows.rows.chunks_exact(rows.width).zip(first..) {
            let (panel, lane) = (index / LANES, index % LANES);

            let key = load_head::<S, E::Key>(simd, &row[rows.keys.at(head)..][..size], rotated);
            if E::Key::MINIMUM {
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
            let grid = new_grid::<S, E::Key>(simd, key, grids, panel, lane);
            let (first, step) = shape.key_strips().column::<E::Key>(panel);
            for (i, key) in key.iter().enumerate() {
                let narrow = E::Key::narrow(simd, simd.load(key), &grid);
                for (j, key) in narrow.into_iter().enumerate() {
                    let vector = &mut keys[first + (i * LANES + j) * step];
                    key.set(vector, panel % E::Key::COLUMNS, lane);
                }
            }

            if shape.shares() {
                continue;
            }
            let value =
                load_head::<S, E::Value>(simd, &row[rows.values.at(head)..][..size], rotated);
            let grid = new_grid::<S, E::Value>(simd, value, grids, PANELS + panel, lane);
            for (column, value) in value.iter().enumerate() {
                let (first, step) = shape.value_strips().column::<E::Value>(column);
                let vector = &mut values[first + index * step];
                let narrow = E::Value::narrow(simd, simd.load(value), &grid);
                for (lane, value) in narrow.into_iter().enumerate() {
                    value.set(vector, column % E::Value::COLUMNS, lane);
                }
            }
        }
    }
}

/// Copies a head, rotated if the element type is quantized.
#[inline(always)]
fn load_head<'a, S: Vectors, E: Number>(
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
    let mut grids = [[simd.splat(0.0); 2]; PANELS];
    let mut minima = simd.splat(0.0);
    for (grid, stored) in grids.iter_mut().zip(page.grids[0]) {
        *grid = E::Key::grids(simd, stored);
        minima = simd.add(minima, grid[1]);
    }
    for i in 0..mean.len() {
        let mut sum = minima;
        for (panel, [scales, _]) in grids.into_iter().enumerate() {
            let (first, step) = page.shape.key_strips().column::<E::Key>(panel);
            let keys = E::Key::load(simd, &page.keys[first + i * step], panel % E::Key::COLUMNS);
            sum = simd.fma(keys, scales, sum);
        }
        mean[i] = simd.sum(sum) / KEYS as f32 + page.anchor.as_flattened()[i];
    }
}

/// Computes and stores the grid of one head of one position, if the element type has any.
#[inline(always)]
fn new_grid<S: Vectors, E: Number>(
    simd: S,
    head: &[[f32; LANES]],
    grids: &mut [[f32; LANES]],
    panel: usize,
    lane: usize,
) -> Grid {
    let grid = E::grid(simd, head);
    if E::QUANTIZED {
        E::set_grid(&grid, &mut grids[panel], lane);
    }
    grid
}
