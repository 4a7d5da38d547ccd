//! Products of rows and a block: queries and its keys, weights and its values.

use super::Cached;
use crate::parallel::{Tile, tiles};
use crate::simd::{Element, LANES, Simd, Vectors};

/// Two vectors side by side: one register, where those are wide enough.
pub(super) type Pair = [[f32; LANES]; 2];

/// A pair in a line of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Wide(Pair);

impl Wide {
    pub(super) const ZEROS: Self = Self(ZEROS);
}

/// A pair of zeros.
pub(super) const ZEROS: Pair = [[0.0; LANES]; 2];

/// Rows that columns meet at a time: their sums take twelve registers (NEON: 24), more than hide the latency of the multiply-add.
pub(super) const TILE_ROWS: usize = 6;

/// Columns that stand together: as many sums as a query has at a time, enough to hide the latency of the multiply-add.
const STRIP: usize = 8;

/// Where the vectors of a matrix are whose columns stand together by eight, the first of all of them, then the second:
/// `[columns / 8][depth][8]`; of the last columns there may be less than eight.
#[derive(Clone, Copy)]
pub(super) struct Strips {
    /// Vectors of a column.
    pub(super) depth: usize,
    pub(super) columns: usize,
}

impl Strips {
    /// Where the first vector of a column is, and how far from one to the next.
    #[inline(always)]
    pub(super) fn column(self, column: usize) -> (usize, usize) {
        let first = column - column % STRIP;
        (first * self.depth + column % STRIP, (self.columns - first).min(STRIP))
    }
}

/// Keys or values of a block as the cache holds them, of which the first `columns` are looked at, and of those `depth` vectors.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a, E> {
    vectors: &'a [[E; LANES]],
    strips: Strips,
    depth: usize,
    columns: usize,
}

impl<'a, E: Element> Columns<'a, E> {
    /// The first `columns` of what is held in `strips`, and of those the first `depth` vectors.
    #[track_caller]
    #[inline(always)]
    pub(super) fn new(
        vectors: &'a [[E; LANES]],
        strips: Strips,
        depth: usize,
        columns: usize,
    ) -> Self {
        assert!(depth <= strips.depth && columns <= strips.columns, "more than there is");
        assert_eq!(Some(vectors.len()), strips.depth.checked_mul(strips.columns));
        Self { vectors, strips, depth, columns }
    }

    /// The first vectors of the columns that stand together with `column`, and how many those are.
    #[inline(always)]
    fn strip(&self, column: usize) -> (&'a [[E; LANES]], usize) {
        let (start, step) = self.strips.column(column - column % STRIP);
        (&self.vectors[start..][..self.depth * step], step)
    }

    /// All of it as `f32`, two columns side by side: `[columns / 2][depth]`. A last one that is left alone stands there twice.
    #[inline(always)]
    pub(super) fn widen<'b, S: Vectors>(&self, simd: S, to: &'b mut [Wide]) -> &'b [Wide] {
        let to = &mut to[..self.columns.div_ceil(2) * self.depth];
        for (pair, to) in to.chunks_exact_mut(self.depth).enumerate() {
            let columns = [2 * pair, (2 * pair + 1).min(self.columns - 1)];
            let (vectors, step) = self.strip(columns[0]);
            let vectors = vectors.chunks_exact(step);
            for (to, vectors) in to.iter_mut().zip(vectors) {
                for half in 0..2 {
                    let vector = &vectors[columns[half] % STRIP];
                    simd.store(E::load(simd, vector), &mut to.0[half]);
                }
            }
        }
        to
    }
}

/// What rows are multiplied by.
#[derive(Clone, Copy)]
pub(super) enum Block<'a, E> {
    /// As the cache holds it, for a single row.
    Held(Columns<'a, E>),
    /// As [`Columns::widen`] gives it, for more.
    Wide(&'a [Wide]),
}

impl<'a, E: Element> Block<'a, E> {
    /// For that many rows; `room` is where it may be widened.
    #[inline(always)]
    pub(super) fn new<S: Vectors>(
        simd: S,
        rows: usize,
        columns: Columns<'a, E>,
        room: &'a mut [Wide],
    ) -> Self {
        if rows == 1 { Self::Held(columns) } else { Self::Wide(columns.widen(simd, room)) }
    }
}

/// Rows of `depth` elements, of which one begins `stride` behind the other.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) depth: usize,
    pub(super) stride: usize,
    pub(super) count: usize,
}

/// `out[row][column] = Σ rows[row][i] · columns[column][i]`; one row of `out` begins `stride` pairs behind the other.
#[inline(always)]
pub(super) fn product<S: Simd, E: Cached>(
    simd: S,
    rows: Rows<'_>,
    block: Block<'_, E>,
    out: &mut [Pair],
    stride: usize,
) {
    let columns = match block {
        Block::Held(columns) => return one_row(simd, rows.values, columns, out.as_flattened_mut()),
        Block::Wide(columns) => columns,
    };
    // Columns that stay in the cache nearest to the core while all rows meet them.
    let mut first = 0;
    for columns in columns.chunks(rows.depth * S::PAIRS) {
        if S::PAIRS == 2 && columns.len() > rows.depth {
            tiles(rows.count, &mut Sums::<2, S> { simd, rows, columns, out, stride, first });
        } else {
            tiles(rows.count, &mut Sums::<1, S> { simd, rows, columns, out, stride, first });
        }
        first += S::PAIRS;
    }
}

/// `out[column] = Σ row[i] · columns[column][i]`, for one row. A strip of eight is summed whole, so there is room for eight in
/// `out`, and whatever comes of the columns that are not looked at stands there.
#[inline(always)]
fn one_row<S: Simd, E: Cached>(
    simd: S,
    row: &[f32],
    columns: Columns<'_, E>,
    out: &mut [[f32; LANES]],
) {
    let row = &row[..columns.depth];
    for first in (0..columns.columns).step_by(STRIP) {
        let (vectors, step) = columns.strip(first);
        let out = &mut out[first..][..step];
        if step == STRIP {
            whole_strip(simd, row, vectors.as_chunks().0, out);
        } else {
            for column in 0..step {
                one_column(simd, row, &vectors[column..], step, &mut out[column]);
            }
        }
    }
}

/// `out[column] = Σ row[i] · strip[i][column]`
#[inline(always)]
fn whole_strip<S: Simd, E: Cached>(
    simd: S,
    row: &[f32],
    strip: &[[[E; LANES]; STRIP]],
    out: &mut [[f32; LANES]],
) {
    let row = &row[..strip.len()];
    let mut sums = [simd.pair_splat(0.0); STRIP / 2];
    for i in 0..row.len() {
        let factor = simd.pair_splat(row[i]);
        let (pairs, _) = strip[i].as_chunks();
        for p in 0..STRIP / 2 {
            sums[p] = simd.pair_fma(factor, E::load_pair(simd, &pairs[p]), sums[p]);
        }
    }
    let (out, _) = out.as_chunks_mut();
    for p in 0..STRIP / 2 {
        simd.pair_store(sums[p], &mut out[p]);
    }
}

/// `out = Σ row[i] · vectors[i · step]`
#[inline(always)]
fn one_column<S: Vectors, E: Element>(
    simd: S,
    row: &[f32],
    vectors: &[[E; LANES]],
    step: usize,
    out: &mut [f32; LANES],
) {
    let mut sum = simd.splat(0.0);
    for i in 0..row.len() {
        sum = simd.fma(simd.splat(row[i]), E::load(simd, &vectors[i * step]), sum);
    }
    simd.store(sum, out);
}

struct Sums<'a, const P: usize, S> {
    simd: S,
    rows: Rows<'a>,
    columns: &'a [Wide],
    out: &'a mut [Pair],
    stride: usize,
    first: usize,
}

impl<const P: usize, S: Simd> Tile for Sums<'_, P, S> {
    const TOKENS: usize = if S::TILE == 1 { 1 } else { TILE_ROWS };

    #[inline(always)]
    fn tile<const T: usize>(&mut self, these: [usize; T]) {
        let Self { simd, rows, columns, stride, first, .. } = *self;
        let depth = rows.depth;
        let mut row = [&[][..]; T];
        for t in 0..T {
            row[t] = &rows.values[these[t] * rows.stride..][..depth];
        }
        let mut pairs = [&[][..]; P];
        for p in 0..P {
            pairs[p] = &columns[p * depth..][..depth];
        }
        let mut sums = [[simd.pair_splat(0.0); P]; T];
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
                simd.pair_store(sums[t][p], &mut self.out[these[t] * stride + first + p]);
            }
        }
    }
}
