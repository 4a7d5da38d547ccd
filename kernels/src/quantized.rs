//! Activations as 8-bit integers, with one scale for every 32 columns of a row.
//!
//! GLM's activations have outliers, and one scale per row would round the other values away. Scales are `f32` and sums `i32`,
//! because `f16` overflows on some models.
//!
//! One outlier still rounds the other 31 values of its block away. For weights that are [rotated](Rotation), the block is rotated first.

use crate::parallel::{SharedRows, for_each, for_each_row};
use crate::rotation::{Rotation, rotate};
use crate::simd::{BLOCK, Block, Kernel, LANES, Vectors};
use crate::{Isa, OutOfMemory};

/// Blocks of a task, all of one row.
const TASK_BLOCKS: usize = if cfg!(test) { 2 } else { 128 };

/// Rows that are interleaved block by block: a multiple of every ISA's tile of tokens, so that a kernel reads contiguous memory and
/// needs the address of the first row only.
pub(crate) const BUNDLE: usize = 12;

/// Quantized rows of activations, in one section or several.
#[derive(Default)]
pub struct Q8Rows {
    cols: usize,
    rotation: Rotation,
    sections: Vec<Section>,
    /// Of each section `[bundles][blocks][rows of the bundle]`
    blocks: Vec<Block>,
}

/// Consecutive rows that belong together, with padding of their own.
#[derive(Clone, Copy)]
struct Section {
    /// Index of the first row.
    first: usize,
    /// Index of the first block.
    start: usize,
    places: Places,
}

/// The rows of a section.
#[derive(Clone, Copy)]
pub(crate) struct Q8Section<'a> {
    places: Places,
    blocks: &'a [Block],
}

/// The layout of the blocks of a section.
#[derive(Clone, Copy, Default)]
struct Places {
    rows: usize,
    /// Blocks of a row.
    blocks: usize,
}

impl Places {
    fn new(rows: usize, cols: usize) -> Self {
        Self { rows, blocks: cols.div_ceil(BLOCK) }
    }

    /// Rows with padding: the last bundle has an even number of rows, or one, so that tiles of 6, 4, 2 and 1 fill it.
    fn padded_rows(self) -> usize {
        if self.rows % BUNDLE == 1 { self.rows } else { self.rows.next_multiple_of(2) }
    }

    /// All blocks.
    #[track_caller]
    fn len(self) -> usize {
        let fits = self.rows < usize::MAX && self.padded_rows().checked_mul(self.blocks).is_some();
        assert!(fits, "{} quantized rows of {} blocks", self.rows, self.blocks);
        self.padded_rows() * self.blocks
    }

    /// The index of a row's first block, and the distance from each of its blocks to the next.
    #[inline(always)]
    fn row(self, row: usize) -> (usize, usize) {
        let first = row - row % BUNDLE;
        (first * self.blocks + row % BUNDLE, (self.padded_rows() - first).min(BUNDLE))
    }
}

impl Q8Rows {
    /// Bytes of `rows` rows of `cols` columns.
    ///
    /// # Panics
    /// If the result overflows.
    #[track_caller]
    pub fn bytes(rows: usize, cols: usize) -> usize {
        let blocks = Places::new(rows, cols).len();
        blocks.checked_mul(size_of::<Block>()).expect("bytes of the quantized rows")
    }

    /// Reserves memory for `rows` rows of `cols` columns; nothing up to that size allocates again.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    ///
    /// # Panics
    /// If the size overflows.
    #[track_caller]
    pub fn with_capacity(rows: usize, cols: usize) -> Result<Self, OutOfMemory> {
        let mut blocks = Vec::new();
        let len = Places::new(rows, cols).len();
        blocks.try_reserve_exact(len).map_err(|_| OutOfMemory)?;
        Ok(Self { blocks, ..Self::default() })
    }

    /// Replaces the contents by `x`, `[rows][cols]`, rotated as the weights are; missing columns of the last block count as 0.
    ///
    /// With [`Rotation::Blocks`], the magnitudes of a block must add up to less than the largest `f32`; otherwise its products are NaN.
    ///
    /// # Panics
    /// If `cols` is 0, `x` is not a whole number of rows, or a rotated row is not a whole number of blocks.
    #[track_caller]
    pub fn quantize(&mut self, isa: Isa, x: &[f32], cols: usize, rotation: Rotation) {
        let rows = rows_of(x.len(), cols);
        let writer = self.fit(&[rows], cols, rotation);
        let tasks = cols.div_ceil(BLOCK * TASK_BLOCKS);
        for_each(rows * tasks, |task| {
            let (row, first) = (task / tasks, task % tasks * TASK_BLOCKS);
            let x = &x[row * cols..][..cols][first * BLOCK..];
            let x = &x[..x.len().min(TASK_BLOCKS * BLOCK)];
            // SAFETY: these blocks belong to this task.
            isa.run(unsafe { writer.blocks(x, row, first) });
        });
    }

    /// Calls `fill` to write each row of `x`, `[rows][cols]`, and quantizes the row while it is in the cache. `x` is not rotated.
    ///
    /// # Panics
    /// As [`quantize`](Self::quantize), and if `fill` panics.
    #[track_caller]
    pub fn fill(
        &mut self,
        isa: Isa,
        x: &mut [f32],
        cols: usize,
        rotation: Rotation,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let rows = rows_of(x.len(), cols);
        self.fill_sections(isa, x, &[rows], cols, rotation, fill);
    }

    /// As [`fill`](Self::fill), in sections of as many rows as `sections` says, for
    /// [`Linear::forward_each`](crate::Linear::forward_each).
    ///
    /// # Panics
    /// As [`fill`](Self::fill), and if the sections have not as many rows as `x`.
    #[track_caller]
    pub fn fill_sections(
        &mut self,
        isa: Isa,
        x: &mut [f32],
        sections: &[usize],
        cols: usize,
        rotation: Rotation,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let rows = rows_of(x.len(), cols);
        assert_eq!(sections.iter().sum::<usize>(), rows, "rows of the sections");
        let writer = self.fit(sections, cols, rotation);
        for_each_row(x, cols, |row, x| {
            fill(row, x);
            // SAFETY: this row belongs to this task.
            isa.run(unsafe { writer.blocks(x, row, 0) });
        });
    }

    /// Resizes to sections of rows of `cols` columns; returns a writer.
    #[track_caller]
    fn fit(&mut self, sections: &[usize], cols: usize, rotation: Rotation) -> Writer<'_> {
        let whole = rotation == Rotation::None || cols.is_multiple_of(BLOCK);
        assert!(whole, "a rotation of part of a block");
        self.sections.clear();
        let (mut first, mut start) = (0, 0);
        for &rows in sections {
            let places = Places::new(rows, cols);
            self.sections.push(Section { first, start, places });
            (first, start) = (first + rows, start + places.len());
        }
        // Padding rows keep old contents; their outputs are not used.
        self.blocks.resize(start, Block::default());
        (self.cols, self.rotation) = (cols, rotation);
        let blocks = SharedRows::new(&mut self.blocks, 1);
        Writer { sections: &self.sections, rotation, blocks }
    }

    /// Columns of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How the rows are rotated.
    pub fn rotation(&self) -> Rotation {
        self.rotation
    }

    /// Rows of all sections.
    pub fn rows(&self) -> usize {
        self.sections.last().map_or(0, |last| last.first + last.places.rows)
    }

    /// The rows of each section.
    pub(crate) fn sections(&self) -> impl ExactSizeIterator<Item = usize> {
        self.sections.iter().map(|section| section.places.rows)
    }

    /// A section.
    pub(crate) fn section(&self, index: usize) -> Q8Section<'_> {
        let Section { start, places, .. } = self.sections[index];
        Q8Section { places, blocks: &self.blocks[start..][..places.len()] }
    }

    /// A block of a row of the first section.
    #[cfg(test)]
    pub(crate) fn block(&self, row: usize, block: usize) -> &Block {
        let (start, stride) = self.sections[0].places.row(row);
        &self.blocks[start + block * stride]
    }
}

impl<'a> Q8Section<'a> {
    /// Rows.
    #[inline(always)]
    pub(crate) fn rows(self) -> usize {
        self.places.rows
    }

    /// Rows in tiles of 6, 4, 2 or 1: [`rows`](Self::rows), or one more whose outputs must not be used.
    #[inline(always)]
    pub(crate) fn padded_rows(self) -> usize {
        self.places.padded_rows()
    }

    /// The blocks from row `first` and block `block` on, and the distance to the same row's next block. The rows of a tile of
    /// [`padded_rows`](Self::padded_rows) are adjacent.
    #[inline(always)]
    pub(crate) fn tile(self, first: usize, block: usize) -> (&'a [Block], usize) {
        let (start, stride) = self.places.row(first);
        (&self.blocks[start + block * stride..], stride)
    }
}

/// The rows of `cols` columns that `n` values are.
#[track_caller]
fn rows_of(n: usize, cols: usize) -> usize {
    assert!(cols > 0 && n.is_multiple_of(cols), "rows of {cols}");
    n / cols
}

/// The blocks that tasks write, each task its own.
struct Writer<'a> {
    sections: &'a [Section],
    rotation: Rotation,
    blocks: SharedRows<'a, Block>,
}

impl Writer<'_> {
    /// The kernel that quantizes `x` to the blocks of a row, from block `first` on.
    ///
    /// # Safety
    /// Until it has run, nothing else accesses these blocks.
    unsafe fn blocks<'b>(&'b self, x: &'b [f32], row: usize, first: usize) -> QuantizeBlocks<'b> {
        // Sections may be empty, so it is the last that begins at the row or before it.
        let section = &self.sections[self.sections.partition_point(|it| it.first <= row) - 1];
        let (start, stride) = section.places.row(row - section.first);
        let (start, rotation) = (section.start + start + first * stride, self.rotation);
        QuantizeBlocks { x, rotation, blocks: &self.blocks, start, stride }
    }
}

/// Only [`Writer::blocks`] makes one.
struct QuantizeBlocks<'a> {
    x: &'a [f32],
    rotation: Rotation,
    blocks: &'a SharedRows<'a, Block>,
    start: usize,
    stride: usize,
}

impl Kernel for QuantizeBlocks<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) {
        for (index, x) in self.x.chunks(BLOCK).enumerate() {
            // SAFETY: the caller of `Writer::blocks` promised exclusive access to these blocks.
            let to = unsafe { &mut self.blocks.row(self.start + index * self.stride, 0..1)[0] };
            match (x.as_array(), self.rotation) {
                (Some(x), Rotation::None) => quantize_block(simd, x, to),
                (Some(x), Rotation::Blocks) => {
                    let mut rotated = *x;
                    rotate(simd, rotated.as_chunks_mut().0);
                    quantize_block(simd, &rotated, to);
                }
                // Only whole blocks are rotated.
                (None, _) => {
                    let mut padded = [0.0; BLOCK];
                    padded[..x.len()].copy_from_slice(x);
                    quantize_block(simd, &padded, to);
                }
            }
        }
    }
}

#[inline(always)]
fn quantize_block<S: Vectors>(simd: S, x: &[f32; BLOCK], to: &mut Block) {
    let (xs, _) = x.as_chunks::<LANES>();
    let (values, _) = to.values.as_chunks_mut::<LANES>();
    let step = step(simd, xs, 127.0);
    let mut sum = simd.splat(0.0);
    for (x, values) in xs.iter().zip(values) {
        let integers = simd.round(simd.mul(simd.load(x), simd.splat(step.inverse)));
        sum = simd.add(sum, integers);
        simd.store_i8(integers, values);
    }
    to.scale = step.scale;
    // Exact: at most 32 · 127. A scale of NaN makes every product of the block NaN, whatever the integers.
    let sum = simd.sum(sum);
    to.offset = -8 * sum as i32;
    to.sum = step.scale * sum;
}

/// The step between adjacent integers.
#[derive(Clone, Copy)]
pub struct Step {
    /// The values are `scale · integer`.
    pub(crate) scale: f32,
    /// The factor from values to integers: 1/scale, or 0 where that overflows and the values are negligible.
    pub(crate) inverse: f32,
}

impl Step {
    /// The step of `scale`.
    #[inline(always)]
    pub(crate) fn of(scale: f32) -> Self {
        Self { scale, inverse: if scale.abs() > 1e-37 { 1.0 / scale } else { 0.0 } }
    }
}

/// The step that maps `x` to −`most`..=`most`: `max|x| / most`. A value that is not finite makes it NaN, so that damaged weights show
/// in the logits.
#[inline(always)]
pub(crate) fn step<S: Vectors>(simd: S, x: &[[f32; LANES]], most: f32) -> Step {
    let mut largest = simd.splat(0.0);
    let mut nothing = simd.splat(0.0);
    for x in x {
        let x = simd.load(x);
        largest = simd.max(simd.abs(x), largest);
        nothing = simd.fma(x, simd.splat(0.0), nothing);
    }
    Step::of(simd.max_lane(largest) / most + simd.sum(nothing))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::values;

    #[test]
    fn what_is_not_finite_shows() {
        for isa in Isa::available() {
            for (rotation, bad) in [Rotation::None, Rotation::Blocks]
                .into_iter()
                .flat_map(|r| [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(|bad| (r, bad)))
            {
                let mut rows = Q8Rows::default();
                let mut x = [1.0; 64];
                x[45] = bad;
                rows.quantize(isa, &x, 64, rotation);
                assert!(rows.block(0, 0).scale > 0.0 && rows.block(0, 1).scale.is_nan(), "{isa}");
            }
        }
    }

    proptest! {
        #[test]
        fn each_value_is_within_half_a_step_and_sums_are_exact(
            (x, cols, rotation) in (1usize..28, 1usize..140, any::<bool>()).prop_flat_map(|(r, c, rotated)| {
                let (c, rotation) = match rotated {
                    true => (c.next_multiple_of(BLOCK), Rotation::Blocks),
                    false => (c, Rotation::None),
                };
                (values(r * c), Just(c), Just(rotation))
            }),
        ) {
            for isa in Isa::available() {
                let mut rows = Q8Rows::default();
                rows.quantize(isa, &vec![9.0; 3 * 200], 200, Rotation::None);
                rows.quantize(isa, &x, cols, rotation);
                prop_assert_eq!(rows.rows(), x.len() / cols);
                prop_assert_eq!(size_of_val(&rows.blocks[..]), Q8Rows::bytes(rows.rows(), cols));
                let (mut filled, mut copy) = (Q8Rows::default(), vec![f32::NAN; x.len()]);
                filled.fill(isa, &mut copy, cols, rotation, |row, to| {
                    to.copy_from_slice(&x[row * cols..][..cols]);
                });
                prop_assert_eq!(&copy, &x);
                let mut expected = x.clone();
                rotation.apply(&mut expected);
                for (row, x) in expected.chunks(cols).enumerate() {
                    for (block, x) in x.chunks(BLOCK).enumerate() {
                        let q = rows.block(row, block);
                        prop_assert_eq!(q, filled.block(row, block));
                        let sum = q.values.iter().map(|&v| i32::from(v)).sum::<i32>();
                        prop_assert_eq!(q.offset, -8 * sum);
                        prop_assert_eq!(q.sum, q.scale * sum as f32);
                        prop_assert!(q.values[x.len()..].iter().all(|&v| v == 0));
                        for (x, &v) in x.iter().zip(&q.values) {
                            prop_assert!((x - q.scale * f32::from(v)).abs() <= q.scale * 0.5001);
                        }
                    }
                }
            }
        }
    }
}
