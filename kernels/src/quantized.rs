//! Activations as 8-bit integers with a scale for every 32 of a row.
//!
//! GLM's activations have outliers, so a scale for a whole row would drown the rest; scales and sums stay in `f32` and `i32`
//! because `f16` overflows on some models.

use std::ops::Range;

use crate::Isa;
use crate::parallel::{SharedRows, for_each, for_each_row};
use crate::simd::{BLOCK, Block, Kernel, LANES, Vectors};

/// Blocks of a row that a thread takes at a time.
const TASK_BLOCKS: usize = if cfg!(test) { 2 } else { 128 };

/// Rows of activations, quantised: `x = scale · integer`, integers in −127..=127.
#[derive(Default, PartialEq)]
pub struct Q8Rows {
    cols: usize,
    blocks: usize,
    /// `[rows][blocks]`
    values: Vec<[i8; BLOCK]>,
    /// `[rows][blocks]`
    scales: Vec<f32>,
    /// `[rows][blocks]`
    offsets: Vec<i32>,
}

impl Q8Rows {
    /// Room for `rows` rows of `cols` columns; nothing up to that size allocates again.
    pub fn with_capacity(rows: usize, cols: usize) -> Self {
        let n = rows * cols.div_ceil(BLOCK);
        Self {
            cols: 0,
            blocks: 0,
            values: Vec::with_capacity(n),
            scales: Vec::with_capacity(n),
            offsets: Vec::with_capacity(n),
        }
    }

    /// Replaces the contents by `x`, `[rows][cols]`; missing columns of the last block count as 0.
    ///
    /// # Panics
    /// If `x` is no whole number of rows.
    #[track_caller]
    pub fn quantize(&mut self, isa: Isa, x: &[f32], cols: usize) {
        let (rows, writer) = self.fit(x.len(), cols);
        let (blocks, tasks) = (cols.div_ceil(BLOCK), cols.div_ceil(BLOCK * TASK_BLOCKS));
        for_each(rows * tasks, |task| {
            let (row, first) = (task / tasks, task % tasks * TASK_BLOCKS);
            let range = first..(first + TASK_BLOCKS).min(blocks);
            let x = &x[row * cols + first * BLOCK..row * cols + (range.end * BLOCK).min(cols)];
            // SAFETY: these blocks are this task's alone.
            isa.run(unsafe { writer.blocks(x, row, range) });
        });
    }

    /// Has each row of `x`, `[rows][cols]`, written by `fill`, and quantises it while it is at hand.
    ///
    /// # Panics
    /// If `x` is no whole number of rows.
    #[track_caller]
    pub fn fill(
        &mut self,
        isa: Isa,
        x: &mut [f32],
        cols: usize,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let (_, writer) = self.fit(x.len(), cols);
        for_each_row(x, cols, |row, x| {
            fill(row, x);
            // SAFETY: this row is this task's alone.
            isa.run(unsafe { writer.blocks(x, row, 0..cols.div_ceil(BLOCK)) });
        });
    }

    /// Makes room for `n` values in rows of `cols`; returns the number of rows, and what writes them.
    #[track_caller]
    fn fit(&mut self, n: usize, cols: usize) -> (usize, Writer<'_>) {
        assert!(cols > 0 && n.is_multiple_of(cols), "rows of {cols}");
        (self.cols, self.blocks) = (cols, cols.div_ceil(BLOCK));
        let (rows, n) = (n / cols, n / cols * self.blocks);
        self.values.resize(n, [0; BLOCK]);
        self.scales.resize(n, 0.0);
        self.offsets.resize(n, 0);
        let writer = Writer {
            values: SharedRows::new(&mut self.values, self.blocks),
            scales: SharedRows::new(&mut self.scales, self.blocks),
            offsets: SharedRows::new(&mut self.offsets, self.blocks),
        };
        (rows, writer)
    }

    /// Columns of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.values.len().checked_div(self.blocks).unwrap_or(0)
    }

    /// A row.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> Q8Row<'_> {
        let (at, n) = (row * self.blocks, self.blocks);
        Q8Row {
            values: &self.values[at..at + n],
            scales: &self.scales[at..at + n],
            offsets: &self.offsets[at..at + n],
        }
    }
}

/// A row of blocks.
#[derive(Clone, Copy)]
pub(crate) struct Q8Row<'a> {
    /// `[blocks]`
    pub(crate) values: &'a [[i8; BLOCK]],
    /// `[blocks]`
    pub(crate) scales: &'a [f32],
    /// `[blocks]`
    pub(crate) offsets: &'a [i32],
}

impl<'a> Q8Row<'a> {
    /// Blocks `range`.
    #[inline(always)]
    pub(crate) fn range(self, range: Range<usize>) -> Self {
        Self {
            values: &self.values[range.clone()],
            scales: &self.scales[range.clone()],
            offsets: &self.offsets[range],
        }
    }

    #[inline(always)]
    pub(crate) fn block(self, index: usize) -> Block<'a> {
        Block { values: &self.values[index], offset: &self.offsets[index] }
    }
}

/// What tasks write to, each its own blocks.
struct Writer<'a> {
    values: SharedRows<'a, [i8; BLOCK]>,
    scales: SharedRows<'a, f32>,
    offsets: SharedRows<'a, i32>,
}

impl Writer<'_> {
    /// The quantisation of `x` to blocks of a row.
    ///
    /// # Safety
    /// Until it is done, nobody else uses any of these blocks.
    unsafe fn blocks<'b>(
        &'b self,
        x: &'b [f32],
        row: usize,
        range: Range<usize>,
    ) -> QuantizeBlocks<'b> {
        // SAFETY: the caller promises to be the only user.
        unsafe {
            QuantizeBlocks {
                x,
                values: self.values.row(row, range.clone()),
                scales: self.scales.row(row, range.clone()),
                offsets: self.offsets.row(row, range),
            }
        }
    }
}

struct QuantizeBlocks<'a> {
    x: &'a [f32],
    values: &'a mut [[i8; BLOCK]],
    scales: &'a mut [f32],
    offsets: &'a mut [i32],
}

impl Kernel for QuantizeBlocks<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) {
        let blocks = self.values.iter_mut().zip(self.scales).zip(self.offsets);
        for (x, ((values, scale), offset)) in self.x.chunks(BLOCK).zip(blocks) {
            *scale = match x.as_array() {
                Some(x) => quantize_block(simd, x, values),
                None => {
                    let mut padded = [0.0; BLOCK];
                    padded[..x.len()].copy_from_slice(x);
                    quantize_block(simd, &padded, values)
                }
            };
            *offset = -8 * values.iter().map(|&v| i32::from(v)).sum::<i32>();
        }
    }
}

/// Rounds `x / scale`; returns the scale.
#[inline(always)]
fn quantize_block<S: Vectors>(simd: S, x: &[f32; BLOCK], values: &mut [i8; BLOCK]) -> f32 {
    let (xs, _) = x.as_chunks::<LANES>();
    let (values, _) = values.as_chunks_mut::<LANES>();
    let step = step(simd, xs);
    for (x, values) in xs.iter().zip(values) {
        simd.store_i8(simd.round(simd.mul(simd.load(x), simd.splat(step.inverse))), values);
    }
    step.scale
}

/// How far apart integers are.
pub(crate) struct Step {
    /// The values are `scale · integer`.
    pub(crate) scale: f32,
    /// What values are multiplied by to become integers: 1/scale, or 0 where that overflows; such values are as good as 0.
    pub(crate) inverse: f32,
}

/// The step that makes −127..=127 of `x`: `max|x| / 127`. One value that is not finite makes it NaN, so that damaged weights
/// show in the logits.
#[inline(always)]
pub(crate) fn step<S: Vectors>(simd: S, x: &[[f32; LANES]]) -> Step {
    let mut largest = simd.splat(0.0);
    let mut nothing = simd.splat(0.0);
    for x in x {
        let x = simd.load(x);
        largest = simd.max(simd.abs(x), largest);
        nothing = simd.fma(x, simd.splat(0.0), nothing);
    }
    let scale = simd.max_lane(largest) / 127.0 + simd.sum(nothing);
    Step { scale, inverse: if scale > 1e-37 { 1.0 / scale } else { 0.0 } }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::values;

    #[test]
    fn what_is_not_finite_shows() {
        for isa in Isa::available() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut rows = Q8Rows::default();
                let mut x = [1.0; 64];
                x[45] = bad;
                rows.quantize(isa, &x, 64);
                assert!(rows.row(0).scales[0] > 0.0 && rows.row(0).scales[1].is_nan(), "{isa}");
            }
        }
    }

    proptest! {
        #[test]
        fn each_value_is_within_half_a_step_and_offsets_are_exact(
            (x, cols) in (1usize..5, 1usize..140).prop_flat_map(|(r, c)| (values(r * c), Just(c))),
        ) {
            for isa in Isa::available() {
                let mut rows = Q8Rows::default();
                rows.quantize(isa, &vec![9.0; 3 * 200], 200);
                rows.quantize(isa, &x, cols);
                prop_assert_eq!(rows.rows(), x.len() / cols);
                let (mut filled, mut copy) = (Q8Rows::default(), vec![f32::NAN; x.len()]);
                filled.fill(isa, &mut copy, cols, |row, to| {
                    to.copy_from_slice(&x[row * cols..][..cols]);
                });
                prop_assert_eq!(&copy, &x);
                prop_assert!(filled == rows);
                for (row, x) in x.chunks(cols).enumerate() {
                    for (block, x) in x.chunks(BLOCK).enumerate() {
                        let q = rows.row(row).block(block);
                        let scale = rows.row(row).scales[block];
                        prop_assert_eq!(*q.offset, -8 * q.values.iter().map(|&v| i32::from(v)).sum::<i32>());
                        prop_assert!(q.values[x.len()..].iter().all(|&v| v == 0));
                        for (x, &v) in x.iter().zip(q.values) {
                            prop_assert!((x - scale * f32::from(v)).abs() <= scale * 0.5001);
                        }
                    }
                }
            }
        }
    }
}
