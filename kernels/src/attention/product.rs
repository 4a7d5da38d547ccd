//! Matrix products of rows with a page of the cache: queries with its keys, softmax weights with its values.

use std::slice::Chunks;

use super::element::Number;
use crate::parallel::{Tile, tiles};
use crate::simd::{Interleaved, LANES, Simd, Vectors};

/// Two vectors: one register on an ISA with registers of 512 bits, otherwise two.
pub(super) type Pair = [[f32; LANES]; 2];

/// A pair, aligned to a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct AlignedPair(pub(super) Pair);

impl AlignedPair {
    pub(super) const ZEROS: Self = Self(ZEROS);
}

/// A pair of zeros.
pub(super) const ZEROS: Pair = [[0.0; LANES]; 2];

/// Height of the register tile. Its accumulators take twelve registers (NEON: 24), enough to hide the latency of the FMA.
pub(super) const TILE_ROWS: usize = 6;

/// Columns of a strip. A single row accumulates all of them at once, enough to hide the latency of the FMA.
pub(super) const STRIP: usize = 8;

/// Memory layout of a matrix whose columns, of `depth` vectors each, are interleaved in strips of eight:
/// `[columns / 8][depth][8]`. The last strip may have fewer than eight columns. Where a vector has eight columns, a strip is
/// `[depth]` vectors, and the last one is padded.
#[derive(Clone, Copy)]
pub(super) struct Strips {
    /// Vectors in a column.
    pub(super) depth: usize,
    pub(super) columns: usize,
}

impl Strips {
    /// Vectors of the matrix.
    #[inline(always)]
    pub(super) fn vectors<E: Number>(self) -> usize {
        self.depth * self.columns.div_ceil(E::COLUMNS)
    }

    /// Index of the first vector of a column, and the stride between its vectors. The column is number `column % E::COLUMNS` of
    /// those vectors.
    #[inline(always)]
    pub(super) fn column<E: Number>(self, column: usize) -> (usize, usize) {
        let (strip, first) = (column % STRIP, column - column % STRIP);
        let step = (self.columns - first).min(STRIP).div_ceil(E::COLUMNS);
        (first / E::COLUMNS * self.depth + strip / E::COLUMNS, step)
    }
}

/// The keys or values of one head in a page, in the element type of the cache. Only the first `columns` columns, and the first
/// `depth` vectors of each, are used.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a, E: Number> {
    vectors: &'a [E::Vector],
    strips: Strips,
    depth: usize,
    columns: usize,
}

impl<'a, E: Number> Columns<'a, E> {
    /// The first `columns` columns of a matrix with layout `strips`, and the first `depth` vectors of each.
    #[track_caller]
    #[inline(always)]
    pub(super) fn new(
        vectors: &'a [E::Vector],
        strips: Strips,
        depth: usize,
        columns: usize,
    ) -> Self {
        assert!(depth <= strips.depth && columns <= strips.columns, "columns of the page");
        assert_eq!(vectors.len(), strips.vectors::<E>(), "vectors of the page");
        Self { vectors, strips, depth, columns }
    }

    /// The vectors of the strip that contains `column`, and the stride between those of a column.
    #[inline(always)]
    fn strip(&self, column: usize) -> (&'a [E::Vector], usize) {
        let (start, step) = self.strips.column::<E>(column - column % STRIP);
        (&self.vectors[start..][..self.depth * step], step)
    }

    /// `depth` vectors from `start` on of each column in the strip that contains the columns of `pair`, and the stride between those of a
    /// column.
    #[inline(always)]
    pub(super) fn block(
        &self,
        pair: usize,
        start: usize,
        depth: usize,
    ) -> (&'a [E::Vector], usize) {
        let (vectors, step) = self.strip(2 * pair);
        (&vectors[start * step..(start + depth) * step], step)
    }

    /// Pairs of columns.
    #[inline(always)]
    pub(super) fn pairs(&self) -> usize {
        self.columns.div_ceil(2)
    }

    /// Widens the matrix to `f32`, two columns in a pair: `[columns / 2][depth]`. An odd last column is paired with itself.
    #[inline(always)]
    pub(super) fn widen<'b, S: Simd>(
        &self,
        simd: S,
        to: &'b mut [AlignedPair],
    ) -> &'b [AlignedPair] {
        let to = &mut to[..self.pairs() * self.depth];
        for (pair, to) in to.chunks_exact_mut(self.depth).enumerate() {
            self.widen_pair(simd, pair, 0, to);
        }
        to
    }

    /// Widens vectors `start..` of columns `2 · pair` and `2 · pair + 1`, as many as `to` has. An odd last column is paired with itself.
    #[inline(always)]
    pub(super) fn widen_pair<S: Simd>(
        &self,
        simd: S,
        pair: usize,
        start: usize,
        to: &mut [AlignedPair],
    ) {
        let (vectors, step) = self.block(pair, start, to.len());
        let columns = [2 * pair, (2 * pair + 1).min(self.columns - 1)].map(|x| x % STRIP);
        if step * E::COLUMNS == STRIP && columns[0] < columns[1] {
            let vectors: &[E::Strip] = bytemuck::cast_slice(vectors);
            let vectors = &vectors[..to.len()];
            for i in 0..to.len() {
                simd.pair_store(E::load_pair(simd, &vectors[i], columns[0] / 2), &mut to[i].0);
            }
            return;
        }
        for (to, vectors) in to.iter_mut().zip(vectors.chunks_exact(step)) {
            for half in 0..2 {
                let (vector, column) = (columns[half] / E::COLUMNS, columns[half] % E::COLUMNS);
                simd.store(E::load(simd, &vectors[vector], column), &mut to.0[half]);
            }
        }
    }

    /// As [`widen_pair`](Self::widen_pair), to integers: two vectors of both columns, [interleaved](Simd::pair_interleave), for each pair of `to`.
    #[inline(always)]
    pub(super) fn interleave_pair<S: Simd>(
        &self,
        simd: S,
        pair: usize,
        start: usize,
        to: &mut [AlignedPair],
    ) {
        let (vectors, step) = self.block(pair, start, 2 * to.len());
        let columns = [2 * pair, (2 * pair + 1).min(self.columns - 1)].map(|x| x % STRIP);
        let to = to.iter_mut().map(|to| bytemuck::cast_mut(&mut to.0));
        if step * E::COLUMNS == STRIP && columns[0] < columns[1] {
            let vectors: &[E::Strip] = bytemuck::cast_slice(vectors);
            for (to, both) in to.zip(vectors.as_chunks::<2>().0) {
                let [a, b] = both.each_ref().map(|x| E::integer_pair(simd, x, columns[0] / 2));
                simd.pair_interleave(a, b, to);
            }
            return;
        }
        for (to, vectors) in to.zip(vectors.chunks_exact(2 * step)) {
            let [a, b] = [0, step].map(|first| {
                columns.map(|x| E::integers(simd, &vectors[first + x / E::COLUMNS], x % E::COLUMNS))
            });
            simd.pair_interleave(a, b, to);
        }
    }

    /// As [`widen_lanes`](Self::widen_lanes), to integers: `to[4 · c + j]` is lanes `2 · j` and `2 · j + 1` of sixteen vectors of column `c`,
    /// [interleaved](Vectors::interleave_lanes).
    #[inline(always)]
    pub(super) fn interleave_lanes<S: Vectors>(
        &self,
        simd: S,
        pair: usize,
        to: &mut [AlignedPair],
    ) {
        let (cells, _) = to.as_chunks_mut::<{ LANES / 2 }>();
        for half in 0..2 {
            let start = (2 * pair + half).min(self.depth / LANES - 1) * LANES;
            for (column, to) in cells.iter_mut().enumerate() {
                let to = to
                    .each_mut()
                    .map(|to| &mut bytemuck::cast_mut::<_, [Interleaved; 2]>(&mut to.0)[half]);
                let (first, step) = self.strips.column::<E>(column);
                let mut lanes = [[0; LANES]; LANES];
                let column = column % E::COLUMNS;
                if step == STRIP {
                    let vectors = &self.vectors[first + start * STRIP..][..(LANES - 1) * STRIP + 1];
                    for i in 0..LANES {
                        lanes[i] = E::integers(simd, &vectors[i * STRIP], column);
                    }
                } else {
                    let vectors = &self.vectors[first + start * step..][..(LANES - 1) * step + 1];
                    for i in 0..LANES {
                        lanes[i] = E::integers(simd, &vectors[i * step], column);
                    }
                }
                simd.interleave_lanes(lanes, to);
            }
        }
    }

    /// Widens vectors `16 · pair..` of all columns and transposes them: `to[8 · c + i]` is lane `i` of sixteen vectors of column `c`.
    /// Behind the last vector, the eight before are repeated.
    #[inline(always)]
    pub(super) fn widen_lanes<S: Vectors>(&self, simd: S, pair: usize, to: &mut [AlignedPair]) {
        for half in 0..2 {
            let start = (2 * pair + half).min(self.depth / LANES - 1) * LANES;
            for (column, to) in to.chunks_mut(LANES).enumerate() {
                let (first, step) = self.strips.column::<E>(column);
                let vectors = &self.vectors[first + start * step..][..(LANES - 1) * step + 1];
                let mut lanes = [simd.splat(0.0); LANES];
                for i in 0..LANES {
                    lanes[i] = E::load(simd, &vectors[i * step], column % E::COLUMNS);
                }
                let lanes = simd.transpose(lanes);
                if let Some(to) = to.first_chunk_mut::<LANES>() {
                    for i in 0..LANES {
                        simd.store(lanes[i], &mut to[i].0[half]);
                    }
                } else {
                    for i in 0..to.len() {
                        simd.store(lanes[i], &mut to[i].0[half]);
                    }
                }
            }
        }
    }
}

/// The second operand of a product.
#[derive(Clone, Copy)]
pub(super) enum Operand<'a, E: Number> {
    /// In the element type of the cache, for a single row.
    Cached(Columns<'a, E>),
    /// The result of [`Columns::widen`], for several rows.
    Widened(&'a [AlignedPair]),
}

/// The first operand: `count` rows of `depth` elements, `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) depth: usize,
    pub(super) stride: usize,
    pub(super) count: usize,
}

/// `out[row][column] = Σ rows[row][i] · columns[column][i]`; the rows of `out` are `stride` pairs apart.
#[inline(always)]
pub(super) fn product<S: Simd, E: Number>(
    simd: S,
    rows: Rows<'_>,
    operand: Operand<'_, E>,
    out: &mut [Pair],
    stride: usize,
) {
    let columns = match operand {
        Operand::Cached(columns) => {
            return one_row(simd, rows.values, columns, out.as_flattened_mut());
        }
        Operand::Widened(columns) => columns,
    };
    // Outer loop over columns: they stay in the L1 cache while all rows are multiplied with them.
    for (index, columns) in columns.chunks(rows.depth * S::PAIRS).enumerate() {
        tile_product(simd, rows, columns, false, &[], &mut out[index * S::PAIRS..], stride);
    }
}

/// Parts of `next` for the tiles of `rows` rows, each of which requests one.
#[inline(always)]
pub(super) fn requests(next: &[u8], rows: usize) -> Chunks<'_, u8> {
    next.chunks(next.len().div_ceil(rows.div_ceil(TILE_ROWS).max(1)).max(1))
}

/// [`product`] with one pair of columns, or with two where `S::PAIRS` is 2; or, if `add`, added to `out`.
#[inline(always)]
pub(super) fn tile_product<S: Simd>(
    simd: S,
    rows: Rows<'_>,
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

/// `out[column] = Σ row[i] · columns[column][i]`, for one row. A strip of eight is always computed as a whole, so `out` needs
/// space for it; the results for its unused columns are unspecified.
#[inline(always)]
fn one_row<S: Simd, E: Number>(
    simd: S,
    row: &[f32],
    columns: Columns<'_, E>,
    out: &mut [[f32; LANES]],
) {
    let row = &row[..columns.depth];
    for first in (0..columns.columns).step_by(STRIP) {
        let (vectors, step) = columns.strip(first);
        let out = &mut out[first..];
        if step * E::COLUMNS == STRIP {
            whole_strip::<S, E>(simd, row, bytemuck::cast_slice(vectors), out);
        } else {
            for column in 0..step {
                one_column::<S, E>(simd, row, &vectors[column..], step, &mut out[column]);
            }
        }
    }
}

/// `out[column] = Σ row[i] · strip[i][column]`, for as many columns as `out` has.
#[inline(always)]
fn whole_strip<S: Simd, E: Number>(
    simd: S,
    row: &[f32],
    strip: &[E::Strip],
    out: &mut [[f32; LANES]],
) {
    let row = &row[..strip.len()];
    let mut sums = [simd.pair_splat(0.0); STRIP / 2];
    for i in 0..row.len() {
        let factor = simd.pair_splat(row[i]);
        for p in 0..STRIP / 2 {
            sums[p] = simd.pair_fma(factor, E::load_pair(simd, &strip[i], p), sums[p]);
        }
    }
    let (out, _) = out.as_chunks_mut();
    for p in 0..STRIP / 2 {
        if p < out.len() {
            simd.pair_store(sums[p], &mut out[p]);
        }
    }
}

/// `out = Σ row[i] · vectors[i · step]`
#[inline(always)]
fn one_column<S: Vectors, E: Number>(
    simd: S,
    row: &[f32],
    vectors: &[E::Vector],
    step: usize,
    out: &mut [f32; LANES],
) {
    let mut sum = simd.splat(0.0);
    for i in 0..row.len() {
        sum = simd.fma(simd.splat(row[i]), E::load(simd, &vectors[i * step], 0), sum);
    }
    simd.store(sum, out);
}

/// The products of rows with `P` pairs of columns.
struct Sums<'a, const P: usize, S> {
    simd: S,
    rows: Rows<'a>,
    columns: &'a [AlignedPair],
    /// Whether the sums begin with `out`.
    add: bool,
    /// What is requested for the L2 cache during the product: a part before each tile.
    next: Chunks<'a, u8>,
    out: &'a mut [Pair],
    stride: usize,
}

impl<const P: usize, S: Simd> Tile for Sums<'_, P, S> {
    const TOKENS: usize = if S::TILE == 1 { 1 } else { TILE_ROWS };
    // The two sums of a tile of one row or two do not hide the latency of the FMA.
    const FOUR_AND_FOUR: bool = true;

    #[inline(always)]
    fn tile<const T: usize>(&mut self, tile_rows: [usize; T]) {
        let Self { simd, rows, columns, add, stride, .. } = *self;
        simd.prefetch(self.next.next().unwrap_or_default());
        let depth = rows.depth;
        let mut row = [&[][..]; T];
        for t in 0..T {
            row[t] = &rows.values[tile_rows[t] * rows.stride..][..depth];
        }
        let mut pairs = [&[][..]; P];
        for p in 0..P {
            pairs[p] = &columns[p * depth..][..depth];
        }
        let mut sums = [[simd.pair_splat(0.0); P]; T];
        if add {
            for t in 0..T {
                for p in 0..P {
                    sums[t][p] = simd.pair_load(&self.out[tile_rows[t] * stride + p]);
                }
            }
        }
        for i in 0..depth {
            let mut values = [simd.pair_splat(0.0); P];
            for p in 0..P {
                values[p] = simd.pair_load(&pairs[p][i].0);
            }
            for t in 0..T {
                let factor = simd.pair_splat(row[t][i]);
                for p in 0..P {
                    sums[t][p] = simd.pair_accumulate(factor, values[p], sums[t][p]);
                }
            }
        }
        for t in 0..T {
            for p in 0..P {
                simd.pair_store(sums[t][p], &mut self.out[tile_rows[t] * stride + p]);
            }
        }
    }
}
