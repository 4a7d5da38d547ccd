//! Activations as 8-bit integers with a scale for every 32 of a row.
//!
//! GLM's activations have outliers, so a scale for a whole row would drown the rest; scales and sums stay in `f32` and `i32`
//! because `f16` overflows on some models.

use crate::Isa;
use crate::parallel::{SharedRows, for_each, for_each_row};
use crate::simd::{BLOCK, Block, Kernel, LANES, Vectors};

/// Blocks of a row that a thread takes at a time.
const TASK_BLOCKS: usize = if cfg!(test) { 2 } else { 128 };

/// Rows that lie side by side, block by block: a multiple of what any instruction set multiplies at a time, so that it reads one run
/// of memory and no row's address is needed but the first's.
pub(crate) const BUNDLE: usize = 12;

/// Rows of activations, quantised.
#[derive(Default)]
pub struct Q8Rows {
    cols: usize,
    places: Places,
    /// `[bundles][blocks][rows of the bundle]`
    blocks: Vec<Block>,
}

/// Where blocks are.
#[derive(Clone, Copy, Default)]
struct Places {
    /// Those that there are.
    rows: usize,
    /// Of a row.
    blocks: usize,
}

impl Places {
    fn new(rows: usize, cols: usize) -> Self {
        Self { rows, blocks: cols.div_ceil(BLOCK) }
    }

    /// Rows that there is room for: the last bundle has an even number or one alone, so that tiles of 6, 4, 2 and 1 fill it.
    fn padded_rows(self) -> usize {
        if self.rows % BUNDLE == 1 { self.rows } else { self.rows.next_multiple_of(2) }
    }

    fn len(self) -> usize {
        self.padded_rows() * self.blocks
    }

    /// Where the first block of a row is, and how far from one to the next.
    #[inline(always)]
    fn row(self, row: usize) -> (usize, usize) {
        let first = row - row % BUNDLE;
        (first * self.blocks + row % BUNDLE, (self.padded_rows() - first).min(BUNDLE))
    }
}

impl Q8Rows {
    /// Bytes of `rows` rows of `cols` columns.
    pub fn bytes(rows: usize, cols: usize) -> usize {
        Places::new(rows, cols).len() * size_of::<Block>()
    }

    /// Room for `rows` rows of `cols` columns; nothing up to that size allocates again.
    pub fn with_capacity(rows: usize, cols: usize) -> Self {
        let places = Places::new(rows, cols);
        Self { blocks: Vec::with_capacity(places.len()), ..Self::default() }
    }

    /// Replaces the contents by `x`, `[rows][cols]`; missing columns of the last block count as 0.
    ///
    /// # Panics
    /// If `x` is no whole number of rows.
    #[track_caller]
    pub fn quantize(&mut self, isa: Isa, x: &[f32], cols: usize) {
        let (rows, writer) = self.fit(x.len(), cols);
        let tasks = cols.div_ceil(BLOCK * TASK_BLOCKS);
        for_each(rows * tasks, |task| {
            let (row, first) = (task / tasks, task % tasks * TASK_BLOCKS);
            let x = &x[row * cols..][..cols][first * BLOCK..];
            let x = &x[..x.len().min(TASK_BLOCKS * BLOCK)];
            // SAFETY: these blocks are this task's alone.
            isa.run(unsafe { writer.blocks(x, row, first) });
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
            isa.run(unsafe { writer.blocks(x, row, 0) });
        });
    }

    /// Makes room for `n` values in rows of `cols`; returns the number of rows, and what writes them.
    #[track_caller]
    fn fit(&mut self, n: usize, cols: usize) -> (usize, Writer<'_>) {
        assert!(cols > 0 && n.is_multiple_of(cols), "rows of {cols}");
        let places = Places::new(n / cols, cols);
        (self.cols, self.places) = (cols, places);
        // What was there before stays where nothing is written, and nothing is made of it.
        self.blocks.resize(places.len(), Block::default());
        (places.rows, Writer { places, blocks: SharedRows::new(&mut self.blocks, 1) })
    }

    /// Columns of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.places.rows
    }

    /// Rows in tiles of 6, 4, 2 or 1: as many as there are, or one more, of which nothing is to be used.
    pub(crate) fn padded_rows(&self) -> usize {
        self.places.padded_rows()
    }

    /// From row `first` and block `block` on, and how far it is from there to the same row's next block. The rows of a tile of
    /// [`padded_rows`](Self::padded_rows) lie side by side.
    #[inline(always)]
    pub(crate) fn tile(&self, first: usize, block: usize) -> (&[Block], usize) {
        let (start, stride) = self.places.row(first);
        (&self.blocks[start + block * stride..], stride)
    }

    /// A block of a row.
    #[cfg(test)]
    pub(crate) fn block(&self, row: usize, block: usize) -> &Block {
        &self.tile(row, block).0[0]
    }
}

/// What tasks write to, each its own blocks.
struct Writer<'a> {
    places: Places,
    blocks: SharedRows<'a, Block>,
}

impl Writer<'_> {
    /// The quantisation of `x` to blocks of a row, from block `first` on.
    ///
    /// # Safety
    /// Until it is done, nobody else uses any of these blocks.
    unsafe fn blocks<'b>(&'b self, x: &'b [f32], row: usize, first: usize) -> QuantizeBlocks<'b> {
        let (start, stride) = self.places.row(row);
        QuantizeBlocks { x, blocks: &self.blocks, start: start + first * stride, stride }
    }
}

/// Made by [`Writer::blocks`] alone.
struct QuantizeBlocks<'a> {
    x: &'a [f32],
    blocks: &'a SharedRows<'a, Block>,
    start: usize,
    stride: usize,
}

impl Kernel for QuantizeBlocks<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) {
        for (index, x) in self.x.chunks(BLOCK).enumerate() {
            // SAFETY: who made this promised to be the only user of these blocks.
            let to = unsafe { &mut self.blocks.row(self.start + index * self.stride, 0..1)[0] };
            match x.as_array() {
                Some(x) => quantize_block(simd, x, to),
                None => {
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
    let step = step(simd, xs);
    let mut sum = simd.splat(0.0);
    for (x, values) in xs.iter().zip(values) {
        let integers = simd.round(simd.mul(simd.load(x), simd.splat(step.inverse)));
        sum = simd.add(sum, integers);
        simd.store_i8(integers, values);
    }
    to.scale = step.scale;
    // Exact: at most 32 · 127. Where the scale is NaN, so is what becomes of the block, whatever its integers are.
    to.offset = -8 * simd.sum(sum) as i32;
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
                assert!(rows.block(0, 0).scale > 0.0 && rows.block(0, 1).scale.is_nan(), "{isa}");
            }
        }
    }

    proptest! {
        #[test]
        fn each_value_is_within_half_a_step_and_offsets_are_exact(
            (x, cols) in (1usize..28, 1usize..140).prop_flat_map(|(r, c)| (values(r * c), Just(c))),
        ) {
            for isa in Isa::available() {
                let mut rows = Q8Rows::default();
                rows.quantize(isa, &vec![9.0; 3 * 200], 200);
                rows.quantize(isa, &x, cols);
                prop_assert_eq!(rows.rows(), x.len() / cols);
                prop_assert_eq!(size_of_val(&rows.blocks[..]), Q8Rows::bytes(rows.rows(), cols));
                let (mut filled, mut copy) = (Q8Rows::default(), vec![f32::NAN; x.len()]);
                filled.fill(isa, &mut copy, cols, |row, to| {
                    to.copy_from_slice(&x[row * cols..][..cols]);
                });
                prop_assert_eq!(&copy, &x);
                for (row, x) in x.chunks(cols).enumerate() {
                    for (block, x) in x.chunks(BLOCK).enumerate() {
                        let q = rows.block(row, block);
                        prop_assert_eq!(q, filled.block(row, block));
                        prop_assert_eq!(q.offset, -8 * q.values.iter().map(|&v| i32::from(v)).sum::<i32>());
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
