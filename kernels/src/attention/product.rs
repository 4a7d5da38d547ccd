//! Products of rows and a block: queries and its keys, weights and its values.

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

/// Keys or values of a block as the cache holds them: `depth` vectors, to be weighed and summed, in each of `columns`.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a, E> {
    vectors: &'a [[E; LANES]],
    depth: usize,
    columns: usize,
    down: usize,
    across: usize,
}

impl<'a, E: Element> Columns<'a, E> {
    /// A vector of a column lies `down` vectors behind the one before, and a column `across` behind the one before; `vectors`
    /// end with the last.
    #[track_caller]
    #[inline(always)]
    pub(super) fn new(
        vectors: &'a [[E; LANES]],
        depth: usize,
        columns: usize,
        down: usize,
        across: usize,
    ) -> Self {
        assert!(columns > 0 && depth > 0);
        let along = |n: usize, step| (n - 1).checked_mul(step);
        let last =
            along(columns, across).zip(along(depth, down)).and_then(|(a, b)| a.checked_add(b));
        assert_eq!(last, Some(vectors.len() - 1), "{columns} columns of {depth} vectors");
        Self { vectors, depth, columns, down, across }
    }

    /// A vector of a column.
    ///
    /// # Safety
    /// There are more than `column` columns, and they are deeper than `i`.
    #[inline(always)]
    unsafe fn at(&self, column: usize, i: usize) -> &'a [E; LANES] {
        debug_assert!(column < self.columns && i < self.depth);
        // SAFETY: no vector of any column is behind the last one's last, which `new` has found among `vectors`; the products do
        // not overflow, since those for the last did not. To look again costs a fifth of the time.
        unsafe { self.vectors.get_unchecked(column * self.across + i * self.down) }
    }

    /// All of it as `f32`, two columns side by side: `[columns / 2][depth]`. A last one that is left alone stands there twice.
    #[inline(always)]
    pub(super) fn widen<'b, S: Vectors>(&self, simd: S, to: &'b mut [Wide]) -> &'b [Wide] {
        let to = &mut to[..self.columns.div_ceil(2) * self.depth];
        for (pair, to) in to.chunks_exact_mut(self.depth).enumerate() {
            let columns = [2 * pair, (2 * pair + 1).min(self.columns - 1)];
            for i in 0..to.len() {
                for half in 0..2 {
                    // SAFETY: `to` has a pair for every two columns, each of their depth.
                    let vector = unsafe { self.at(columns[half], i) };
                    simd.store(E::load(simd, vector), &mut to[i].0[half]);
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
pub(super) fn product<S: Simd, E: Element>(
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

/// `out[column] = Σ row[i] · columns[column][i]`, for one row.
#[inline(always)]
fn one_row<S: Vectors, E: Element>(
    simd: S,
    row: &[f32],
    columns: Columns<'_, E>,
    out: &mut [[f32; LANES]],
) {
    // As many sums at a time as hide the latency of the multiply-add.
    const SUMS: usize = 8;
    let mut column = 0;
    while column + SUMS <= columns.columns {
        sums_of_one::<SUMS, S, E>(simd, row, columns, column, out);
        column += SUMS;
    }
    for column in column..columns.columns {
        sums_of_one::<1, S, E>(simd, row, columns, column, out);
    }
}

#[inline(always)]
fn sums_of_one<const C: usize, S: Vectors, E: Element>(
    simd: S,
    row: &[f32],
    columns: Columns<'_, E>,
    first: usize,
    out: &mut [[f32; LANES]],
) {
    let row = &row[..columns.depth];
    assert!(first + C <= columns.columns);
    let mut sums = [simd.splat(0.0); C];
    for i in 0..row.len() {
        let factor = simd.splat(row[i]);
        for c in 0..C {
            // SAFETY: as asserted above, and the row is as long as columns are deep.
            let vector = unsafe { columns.at(first + c, i) };
            sums[c] = simd.fma(factor, E::load(simd, vector), sums[c]);
        }
    }
    for c in 0..C {
        simd.store(sums[c], &mut out[first + c]);
    }
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
