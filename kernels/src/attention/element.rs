//! The element types of a KV cache.

use half::f16;

use super::integers::MOST;
use super::product::STRIP;
use super::store::Store;
use super::task::AttendTask;
use crate::Isa;
use crate::quantized::{Step, step};
use crate::simd::{LANES, Simd, Vectors};

/// What the integers `n` of a head mean: the values `minimum + scale · n`.
#[derive(Clone, Copy)]
pub struct Grid {
    pub(super) scale: f32,
    pub(super) minimum: f32,
    /// The factor from values to integers: 1/scale, or 0 where that overflows.
    inverse: f32,
}

impl Grid {
    /// That of a type which is not quantized.
    const NONE: Self = Self { scale: 1.0, minimum: 0.0, inverse: 1.0 };

    fn new(step: Step, minimum: f32) -> Self {
        Self { scale: step.scale, minimum, inverse: step.inverse }
    }
}

/// What a KV cache stores: `f32`, `f16`, `i16`, `i8` or [`Int4`].
pub trait Cached: Copy + Send + Sync + 'static {
    /// An element of a key.
    type Key: Number;
    /// An element of a value.
    type Value: Number;

    // Not generic over the caller: the kernels are compiled once, in this crate, instead of in every crate that uses a cache.

    #[doc(hidden)]
    fn store(isa: Isa, heads: Store<'_, Self>);
    #[doc(hidden)]
    fn attend(isa: Isa, task: AttendTask<'_, Self>);
}

macro_rules! cached {
    ($($cached:ty: $key:ty, $value:ty;)*) => {$(
        impl Cached for $cached {
            type Key = $key;
            type Value = $value;
            #[inline(never)]
            fn store(isa: Isa, heads: Store<'_, Self>) {
                isa.run(heads);
            }
            #[inline(never)]
            fn attend(isa: Isa, task: AttendTask<'_, Self>) {
                isa.run_pairs(task);
            }
        }
    )*};
}

cached! {
    f32: f32, f32;
    f16: f16, f16;
    i16: i16, i16;
    i8: i8, i8;
    Int4: Unsigned5, Unsigned4;
}

/// A cache of 4-bit integers. Keys have a fifth bit: what their rounding costs is three times the cost of the values' rounding.
#[derive(Clone, Copy)]
pub enum Int4 {}

/// The type of an element of a key or value.
pub trait Number: Copy + Send + Sync + 'static {
    /// Eight elements of each of [`Self::COLUMNS`] adjacent columns.
    type Vector: bytemuck::Pod + Send + Sync;
    /// Eight elements of each of eight adjacent columns.
    type Strip: bytemuck::Pod;
    /// Columns of a vector: 1 or 8.
    const COLUMNS: usize;
    /// Whether the type is quantized: a head is [rotated](crate::reference::rotated) and has one scale per token, or a scale and a minimum.
    const QUANTIZED: bool;
    /// Whether a head has a minimum, too, and the keys of a page are stored as differences from its anchor, which is near their mean.
    const MINIMUM: bool;

    /// The grid of a head; that of a type which is not quantized is unused.
    fn grid<S: Vectors>(simd: S, head: &[[f32; LANES]]) -> Grid;
    /// Stores the grid of one of eight tokens.
    fn set_grid(grid: &Grid, to: &mut [f32; LANES], lane: usize);
    /// The scales and the minima of eight tokens.
    fn grids<S: Vectors>(simd: S, from: &[f32; LANES]) -> [S::F32; 2];
    /// Rounds eight values to the nearest elements; those of a quantized type are the integers of the grid.
    fn narrow<S: Vectors>(simd: S, v: S::F32, grid: &Grid) -> [Self; LANES];
    /// The value as `f32`, exact.
    fn widen(self) -> f32;
    /// Element `lane` of column `column` of a vector.
    fn get(from: &Self::Vector, column: usize, lane: usize) -> Self;
    /// Replaces element `lane` of column `column` of a vector.
    fn set(self, to: &mut Self::Vector, column: usize, lane: usize);
    /// Loads column `column` of a vector, widened to `f32`.
    fn load<S: Vectors>(simd: S, from: &Self::Vector, column: usize) -> S::F32;
    /// Loads columns `2 · pair` and `2 · pair + 1` of a strip, widened to `f32`.
    fn load_pair<S: Simd>(simd: S, from: &Self::Strip, pair: usize) -> S::Pair;
    /// Loads column `column` of a vector as 16-bit integers; of a type that is quantized.
    #[inline(always)]
    fn integers<S: Vectors>(simd: S, from: &Self::Vector, column: usize) -> [i16; LANES] {
        let mut integers = [0; LANES];
        simd.store_i16(Self::load(simd, from, column), &mut integers);
        integers
    }
    /// Loads columns `2 · pair` and `2 · pair + 1` of a strip, as [`integers`](Self::integers).
    #[inline(always)]
    fn integer_pair<S: Simd>(simd: S, from: &Self::Strip, pair: usize) -> [[i16; LANES]; 2] {
        let mut lanes = [[0.0; LANES]; 2];
        simd.pair_store(Self::load_pair(simd, from, pair), &mut lanes);
        lanes.map(|lanes| {
            let mut integers = [0; LANES];
            simd.store_i16(simd.load(&lanes), &mut integers);
            integers
        })
    }
}

/// What types with one column in a vector have in common.
macro_rules! one_column {
    ($load:ident, $load_pair:ident) => {
        type Vector = [Self; LANES];
        type Strip = [[Self; LANES]; STRIP];
        const COLUMNS: usize = 1;
        const MINIMUM: bool = false;
        #[inline(always)]
        fn set_grid(grid: &Grid, to: &mut [f32; LANES], lane: usize) {
            to[lane] = grid.scale;
        }
        #[inline(always)]
        fn grids<S: Vectors>(simd: S, from: &[f32; LANES]) -> [S::F32; 2] {
            [simd.load(from), simd.splat(0.0)]
        }
        #[inline(always)]
        fn get(from: &[Self; LANES], _: usize, lane: usize) -> Self {
            from[lane]
        }
        #[inline(always)]
        fn set(self, to: &mut [Self; LANES], _: usize, lane: usize) {
            to[lane] = self;
        }
        #[inline(always)]
        fn load<S: Vectors>(simd: S, from: &[Self; LANES], _: usize) -> S::F32 {
            simd.$load(from)
        }
        #[inline(always)]
        fn load_pair<S: Simd>(simd: S, from: &[[Self; LANES]; STRIP], pair: usize) -> S::Pair {
            simd.$load_pair(&from.as_chunks().0[pair])
        }
    };
}

impl Number for f32 {
    const QUANTIZED: bool = false;
    fn grid<S: Vectors>(_: S, _: &[[f32; LANES]]) -> Grid {
        Grid::NONE
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow<S: Vectors>(simd: S, v: S::F32, _: &Grid) -> [Self; LANES] {
        let mut narrow = [0.0; LANES];
        simd.store(v, &mut narrow);
        narrow
    }
    one_column!(load, pair_load);
}

impl Number for f16 {
    const QUANTIZED: bool = false;
    fn grid<S: Vectors>(_: S, _: &[[f32; LANES]]) -> Grid {
        Grid::NONE
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn narrow<S: Vectors>(simd: S, v: S::F32, _: &Grid) -> [Self; LANES] {
        let mut narrow = [f16::ZERO; LANES];
        simd.store_f16(v, &mut narrow);
        narrow
    }
    one_column!(load_f16, pair_load_f16);
}

impl Number for i16 {
    const QUANTIZED: bool = true;
    #[inline(always)]
    fn grid<S: Vectors>(simd: S, head: &[[f32; LANES]]) -> Grid {
        Grid::new(step(simd, head, f32::from(MOST)), 0.0)
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    fn narrow<S: Vectors>(simd: S, v: S::F32, grid: &Grid) -> [Self; LANES] {
        let mut narrow = [0; LANES];
        simd.store_i16(simd.round(simd.mul(v, simd.splat(grid.inverse))), &mut narrow);
        narrow
    }
    #[inline(always)]
    fn integers<S: Vectors>(_: S, from: &[i16; LANES], _: usize) -> [i16; LANES] {
        *from
    }
    #[inline(always)]
    fn integer_pair<S: Simd>(_: S, from: &Self::Strip, pair: usize) -> [[i16; LANES]; 2] {
        from.as_chunks().0[pair]
    }
    one_column!(load_i16, pair_load_i16);
}

impl Number for i8 {
    const QUANTIZED: bool = true;
    #[inline(always)]
    fn integers<S: Vectors>(_: S, from: &[i8; LANES], _: usize) -> [i16; LANES] {
        from.map(i16::from)
    }
    #[inline(always)]
    fn integer_pair<S: Simd>(_: S, from: &Self::Strip, pair: usize) -> [[i16; LANES]; 2] {
        from.as_chunks().0[pair].map(|lanes| lanes.map(i16::from))
    }
    #[inline(always)]
    fn grid<S: Vectors>(simd: S, head: &[[f32; LANES]]) -> Grid {
        Grid::new(step(simd, head, 127.0), 0.0)
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    fn narrow<S: Vectors>(simd: S, v: S::F32, grid: &Grid) -> [Self; LANES] {
        let mut narrow = [0; LANES];
        let integers = simd.round(simd.mul(v, simd.splat(grid.inverse)));
        simd.store_i8(integers, &mut narrow);
        narrow
    }
    one_column!(load_i8, pair_load_i8);
}

/// An integer of `BITS` bits, 4 or 5, stored without a sign. Its four lower bits are nibble `column` of word `lane` of a vector, the
/// lowest bits first. The fifth bits follow the eight words: bit `column` of byte `lane`.
///
/// Scale and minimum of a token are `f16`: values beyond ±65504 become infinite, as in a cache of `f16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsigned<const BITS: u32>(u8);

type Unsigned4 = Unsigned<4>;
type Unsigned5 = Unsigned<5>;

/// Parts of the range of a head that the grid may cover: a smaller one clips the extreme values and rounds the others less.
const RANGES: [f32; 8] = [1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.76, 0.72];

/// Most fits of a grid. Each takes a few percent of the squared error.
const FITS: usize = 4;

impl<const BITS: u32> Unsigned<BITS> {
    /// The largest integer.
    const MOST: f32 = ((1 << BITS) - 1) as f32;

    #[inline(always)]
    fn integers<S: Vectors>(simd: S, v: S::F32, grid: &Grid) -> S::F32 {
        let steps = simd.mul(simd.sub(v, simd.splat(grid.minimum)), simd.splat(grid.inverse));
        simd.max(simd.min(simd.round(steps), simd.splat(Self::MOST)), simd.splat(0.0))
    }

    /// The grid with the least squared error of a few ranges, moved to the least squares fit of its integers a few times.
    #[inline(always)]
    fn grid<S: Vectors>(simd: S, head: &[[f32; LANES]]) -> Grid {
        let largest = step(simd, head, 1.0).scale;
        if largest.is_nan() {
            return Grid::new(Step::of(largest), largest);
        }
        let [mut highest, mut lowest] = [f32::NEG_INFINITY; 2].map(|x| simd.splat(x));
        for x in head {
            let x = simd.load(x);
            highest = simd.max(x, highest);
            lowest = simd.max(simd.sub(simd.splat(0.0), x), lowest);
        }
        let (highest, lowest) = (simd.max_lane(highest), -simd.max_lane(lowest));
        let (center, range) = (0.5 * (highest + lowest), highest - lowest);
        let (mut best, mut least) = (Grid::NONE, f32::INFINITY);
        for part in RANGES {
            let range = part * range;
            let grid = Self::stored(range / Self::MOST, center - 0.5 * range);
            let error = Self::error(simd, head, &grid);
            if error < least || part == 1.0 {
                (best, least) = (grid, error);
            }
        }
        for _ in 0..FITS {
            let grid = Self::fit(simd, head, &best);
            let error = Self::error(simd, head, &grid);
            if error < least {
                (best, least) = (grid, error);
            } else {
                break;
            }
        }
        best
    }

    /// The grid as it is stored.
    #[inline(always)]
    fn stored(scale: f32, minimum: f32) -> Grid {
        let stored = |x: f32| f16::from_f32(x).to_f32();
        Grid::new(Step::of(stored(scale)), stored(minimum))
    }

    /// The sum of the squared errors.
    #[inline(always)]
    fn error<S: Vectors>(simd: S, head: &[[f32; LANES]], grid: &Grid) -> f32 {
        let mut errors = simd.splat(0.0);
        for x in head {
            let x = simd.load(x);
            let integers = Self::integers(simd, x, grid);
            let rounded = simd.fma(integers, simd.splat(grid.scale), simd.splat(grid.minimum));
            let error = simd.sub(x, rounded);
            errors = simd.fma(error, error, errors);
        }
        simd.sum(errors)
    }

    /// The least squares fit of the integers of a grid.
    #[inline(always)]
    fn fit<S: Vectors>(simd: S, head: &[[f32; LANES]], grid: &Grid) -> Grid {
        // Of `x − minimum`, so that a mean far from 0 does not cost precision.
        let [mut n, mut x, mut nn, mut nx] = [simd.splat(0.0); 4];
        for value in head {
            let value = simd.load(value);
            let integers = Self::integers(simd, value, grid);
            let value = simd.sub(value, simd.splat(grid.minimum));
            n = simd.add(integers, n);
            x = simd.add(value, x);
            nn = simd.fma(integers, integers, nn);
            nx = simd.fma(integers, value, nx);
        }
        let count = (head.len() * LANES) as f32;
        let [n, x, nn, nx] = [n, x, nn, nx].map(|sum| simd.sum(sum) / count);
        let scale = (nx - n * x) / (nn - n * n);
        Self::stored(scale, grid.minimum + (x - scale * n))
    }
}

macro_rules! unsigned {
    ($bits:literal, $words:literal, $load:ident, $load_pair:ident) => {
        impl Number for Unsigned<$bits> {
            type Vector = [u32; $words];
            type Strip = [u32; $words];
            const COLUMNS: usize = STRIP;
            const QUANTIZED: bool = true;
            const MINIMUM: bool = true;

            #[inline(always)]
            fn grid<S: Vectors>(simd: S, head: &[[f32; LANES]]) -> Grid {
                Self::grid(simd, head)
            }
            #[inline(always)]
            fn set_grid(grid: &Grid, to: &mut [f32; LANES], lane: usize) {
                // Eight scales, then eight minima.
                let [scales, minima]: &mut [[f16; LANES]; 2] = bytemuck::cast_mut(to);
                scales[lane] = f16::from_f32(grid.scale);
                minima[lane] = f16::from_f32(grid.minimum);
            }
            #[inline(always)]
            fn grids<S: Vectors>(simd: S, from: &[f32; LANES]) -> [S::F32; 2] {
                let halves: &[[f16; LANES]; 2] = bytemuck::cast_ref(from);
                halves.each_ref().map(|halves| simd.load_f16(halves))
            }
            #[inline(always)]
            fn widen(self) -> f32 {
                f32::from(self.0)
            }
            #[inline(always)]
            fn narrow<S: Vectors>(simd: S, v: S::F32, grid: &Grid) -> [Self; LANES] {
                let mut narrow = [0; LANES];
                simd.store_i8(Self::integers(simd, v, grid), &mut narrow);
                narrow.map(|n| Self(n as u8))
            }
            #[inline(always)]
            fn get(from: &[u32; $words], column: usize, lane: usize) -> Self {
                let mut integer = from[lane] >> (4 * column) & 15;
                if $bits == 5 {
                    let (word, byte) = fifth_bit(lane);
                    integer |= (from[word] >> (byte + column) & 1) << 4;
                }
                Self(integer as u8)
            }
            #[inline(always)]
            fn set(self, to: &mut [u32; $words], column: usize, lane: usize) {
                let integer = u32::from(self.0);
                let others = to[lane] & !(15 << (4 * column));
                to[lane] = others | (integer & 15) << (4 * column);
                if $bits == 5 {
                    let (word, byte) = fifth_bit(lane);
                    let others = to[word] & !(1 << (byte + column));
                    to[word] = others | (integer >> 4) << (byte + column);
                }
            }
            #[inline(always)]
            fn load<S: Vectors>(simd: S, from: &[u32; $words], column: usize) -> S::F32 {
                simd.$load(from, column)
            }
            #[inline(always)]
            fn load_pair<S: Simd>(simd: S, from: &[u32; $words], pair: usize) -> S::Pair {
                simd.$load_pair(from, pair)
            }
        }
    };
}

/// The word of a vector that holds the byte of `lane`, and the byte's lowest bit.
fn fifth_bit(lane: usize) -> (usize, usize) {
    (LANES + lane / 4, 8 * (lane % 4))
}

unsigned!(4, 8, load_nibbles, pair_load_nibbles);
unsigned!(5, 10, load_5_bits, pair_load_5_bits);
