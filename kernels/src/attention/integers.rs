//! Products of 16-bit integers: of queries with quantized keys, and of softmax weights with values that are a part of those keys.
//!
//! Rows are rounded to integers in parts, each with a scale of its own: the least for which the integers fit into 16 bits, and every sum of
//! their products into 32. So they are multiplied exactly, and in any order.

use std::slice::Chunks;

use super::product::{AlignedPair, Pair, TILE_ROWS, requests};
use crate::parallel::{Tile, tiles};
use crate::quantized::Step;
use crate::simd::{LANES, Simd, Vectors};

/// The largest magnitude of an element of a key.
pub(super) const MOST: i16 = 8191;

/// Most elements of a part.
const PART: usize = 128;

/// Cells of a column, of two elements each, that are multiplied in a step.
const CELLS: usize = LANES / 2;

/// The largest sum of the magnitudes of a part, before each is rounded by up to a half. The other half is for the rounding of the sum itself.
const SUM: f32 = (i32::MAX / MOST as i32 - PART as i32) as f32;

/// Rows of integers.
#[derive(Default)]
pub(super) struct IntegerRows {
    /// `[rows][elements]`
    values: Vec<[i16; LANES]>,
    /// `[rows][parts]`: an element is `scale · integer`.
    scales: Vec<f32>,
    /// Vectors of a row.
    vectors: usize,
    /// Vectors of a part; the last one may have fewer.
    part: usize,
}

impl IntegerRows {
    /// Resizes to `rows` rows of `elements` elements, in parts of `part` elements. The integers are unspecified.
    pub(super) fn fit(&mut self, rows: usize, elements: usize, part: usize) {
        assert!(part <= PART && part.is_multiple_of(LANES), "part of {part} elements");
        (self.vectors, self.part) = (elements / LANES, part / LANES);
        self.values.resize(rows * self.vectors, [0; LANES]);
        self.scales.resize(rows * self.parts(), 0.0);
    }

    #[inline(always)]
    fn parts(&self) -> usize {
        self.vectors.div_ceil(self.part)
    }

    /// Rounds `x` to the first integers of a row. Those behind are not changed.
    #[inline(always)]
    pub(super) fn set<S: Vectors>(&mut self, simd: S, row: usize, x: &[[f32; LANES]]) {
        let parts = self.parts();
        let values = self.values[row * self.vectors..][..x.len()].chunks_mut(self.part);
        let scales = &mut self.scales[row * parts..][..parts];
        for ((x, values), scale) in x.chunks(self.part).zip(values).zip(scales) {
            *scale = integers(simd, x, values);
        }
    }

    /// The integers of a part of a row, two together, and their scale.
    #[inline(always)]
    fn part(&self, row: usize, part: usize) -> (&[[i16; 2]], f32) {
        let values = &self.values[row * self.vectors..][..self.vectors][part * self.part..];
        (bytemuck::cast_slice(values), self.scales[row * self.parts() + part])
    }
}

/// Rounds a part to integers; returns their scale, which is not finite if an element is not.
#[inline(always)]
fn integers<S: Vectors>(simd: S, x: &[[f32; LANES]], to: &mut [[i16; LANES]]) -> f32 {
    let (mut sum, mut largest) = (simd.splat(0.0), simd.splat(0.0));
    for x in x {
        let x = simd.abs(simd.load(x));
        sum = simd.add(x, sum);
        largest = simd.max(x, largest);
    }
    let (sum, largest) = (simd.sum(sum) / SUM, simd.max_lane(largest) / f32::from(i16::MAX));
    let step = Step::of(if largest > sum { largest } else { sum });
    for (x, to) in x.iter().zip(to) {
        simd.store_i16(simd.round(simd.mul(simd.load(x), simd.splat(step.inverse))), to);
    }
    step.scale
}

/// Part `part` of the first `count` rows.
#[derive(Clone, Copy)]
pub(super) struct IntegerPart<'a> {
    pub(super) rows: &'a IntegerRows,
    pub(super) part: usize,
    /// Pairs of its integers that are multiplied: as many as a column has cells.
    pub(super) depth: usize,
    pub(super) count: usize,
}

/// As [`tile_product`](super::product::tile_product), of integers. A cell of `columns` has two elements of each of its sixteen columns.
#[inline(always)]
pub(super) fn integer_product<S: Simd>(
    simd: S,
    rows: IntegerPart<'_>,
    columns: &[AlignedPair],
    add: bool,
    next: &[u8],
    out: &mut [Pair],
    stride: usize,
) {
    let next = requests(next, rows.count);
    if S::PAIRS == 2 && columns.len() > rows.depth {
        tiles(0..rows.count, &mut Sums::<2, S> { simd, rows, columns, add, next, out, stride });
    } else {
        tiles(0..rows.count, &mut Sums::<1, S> { simd, rows, columns, add, next, out, stride });
    }
}

/// The products of rows with `P` pairs of columns.
struct Sums<'a, const P: usize, S> {
    simd: S,
    rows: IntegerPart<'a>,
    columns: &'a [AlignedPair],
    /// Whether the sums are added to `out`.
    add: bool,
    /// What is requested for the L2 cache during the product: a part before each tile.
    next: Chunks<'a, u8>,
    out: &'a mut [Pair],
    stride: usize,
}

impl<const P: usize, S: Simd> Tile for Sums<'_, P, S> {
    const TOKENS: usize = if S::TILE == 1 { 1 } else { TILE_ROWS };
    const FOUR_AND_FOUR: bool = true;

    #[inline(always)]
    fn tile<const T: usize>(&mut self, tile_rows: [usize; T]) {
        let Self { simd, rows, columns, add, stride, .. } = *self;
        simd.prefetch(self.next.next().unwrap_or_default());
        // Four cells at a time, so that their loads need few checks.
        let (columns, _) = columns.as_chunks::<CELLS>();
        let depth = columns.len() / P;
        let mut row = [&[][..]; T];
        let mut scales = [0.0; T];
        for t in 0..T {
            let (integers, scale) = rows.rows.part(tile_rows[t], rows.part);
            (row[t], scales[t]) = (&integers.as_chunks::<CELLS>().0[..depth], scale);
        }
        let mut pairs = [&[][..]; P];
        for p in 0..P {
            pairs[p] = &columns[p * depth..][..depth];
        }
        let mut sums = [[simd.pair_zeros(); P]; T];
        for i in 0..depth {
            for cell in 0..CELLS {
                let mut columns =
                    [simd.pair_load_interleaved(bytemuck::cast_ref(&pairs[0][i][cell].0)); P];
                for p in 1..P {
                    columns[p] =
                        simd.pair_load_interleaved(bytemuck::cast_ref(&pairs[p][i][cell].0));
                }
                for t in 0..T {
                    for p in 0..P {
                        sums[t][p] = simd.pair_dot_i16(columns[p], row[t][i][cell], sums[t][p]);
                    }
                }
            }
        }
        // All sums are added before any is stored: a row may be repeated.
        let mut results = [[simd.pair_splat(0.0); P]; T];
        for t in 0..T {
            let scale = simd.pair_splat(scales[t]);
            for p in 0..P {
                let sum = simd.pair_to_f32(sums[t][p]);
                results[t][p] = match add {
                    true => {
                        let out = simd.pair_load(&self.out[tile_rows[t] * stride + p]);
                        simd.pair_fma(sum, scale, out)
                    }
                    false => simd.pair_mul(sum, scale),
                };
            }
        }
        for t in 0..T {
            for p in 0..P {
                simd.pair_store(results[t][p], &mut self.out[tile_rows[t] * stride + p]);
            }
        }
    }
}
