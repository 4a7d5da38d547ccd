//! The element types of a KV cache.

use half::f16;

use super::product::STRIP;
use super::store::Store;
use super::task::AttendTask;
use crate::Isa;
use crate::quantized::{Step, step};
use crate::simd::{LANES, Simd, Vectors};

/// An element type of a KV cache: `f32`, `f16`, `i8` or [`Int4`].
pub trait Cached: Copy + Send + Sync + 'static {
    /// Eight elements of each of [`Self::COLUMNS`] adjacent columns.
    type Vector: bytemuck::Pod + Send + Sync;
    /// Eight elements of each of eight adjacent columns.
    type Strip: bytemuck::Pod;
    /// Columns of a vector: 1 or 8.
    const COLUMNS: usize;
    /// Whether the type is quantized: a head is [rotated](crate::reference::rotated) and has one scale per token.
    const QUANTIZED: bool;

    /// Whether the keys of a page are stored as differences from its anchor, which is near their mean.
    const ANCHORED: bool;

    /// The step between the integers of a head; only of a quantized type.
    fn step<S: Vectors>(simd: S, head: &[[f32; LANES]]) -> Step;
    /// Rounds eight values to the nearest elements; those of a quantized type are multiples of its step.
    fn narrow<S: Vectors>(simd: S, v: S::F32) -> [Self; LANES];
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

    // Not generic over the caller: the kernels are compiled once, in this crate, instead of in every crate that uses a cache.

    #[doc(hidden)]
    fn store(isa: Isa, heads: Store<'_, Self>);
    #[doc(hidden)]
    fn attend(isa: Isa, task: AttendTask<'_, Self>);
}

macro_rules! compiled_here {
    () => {
        #[inline(never)]
        fn store(isa: Isa, heads: Store<'_, Self>) {
            isa.run(heads);
        }
        #[inline(never)]
        fn attend(isa: Isa, task: AttendTask<'_, Self>) {
            isa.run_pairs(task);
        }
    };
}

/// What types with one column in a vector have in common.
macro_rules! one_column {
    ($load:ident, $load_pair:ident) => {
        type Vector = [Self; LANES];
        type Strip = [[Self; LANES]; STRIP];
        const COLUMNS: usize = 1;
        const ANCHORED: bool = false;
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
        compiled_here!();
    };
}

impl Cached for f32 {
    const QUANTIZED: bool = false;
    fn step<S: Vectors>(_: S, _: &[[f32; LANES]]) -> Step {
        Step::ONE
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow<S: Vectors>(simd: S, v: S::F32) -> [Self; LANES] {
        let mut narrow = [0.0; LANES];
        simd.store(v, &mut narrow);
        narrow
    }
    one_column!(load, pair_load);
}

impl Cached for f16 {
    const QUANTIZED: bool = false;
    fn step<S: Vectors>(_: S, _: &[[f32; LANES]]) -> Step {
        Step::ONE
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn narrow<S: Vectors>(simd: S, v: S::F32) -> [Self; LANES] {
        let mut narrow = [f16::ZERO; LANES];
        simd.store_f16(v, &mut narrow);
        narrow
    }
    one_column!(load_f16, pair_load_f16);
}

impl Cached for i8 {
    const QUANTIZED: bool = true;
    #[inline(always)]
    fn step<S: Vectors>(simd: S, head: &[[f32; LANES]]) -> Step {
        step(simd, head)
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    fn narrow<S: Vectors>(simd: S, v: S::F32) -> [Self; LANES] {
        let mut narrow = [0; LANES];
        simd.store_i8(simd.round(v), &mut narrow);
        narrow
    }
    one_column!(load_i8, pair_load_i8);
}

/// A 4-bit integer, −8..=7. Word `i` of a vector holds element `i` of eight columns, the first in the lowest bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int4(i8);

/// Factors of the step that maps the largest value of a head to −8: smaller steps clip the largest values and round the others less.
const STEP_FACTORS: [f32; 8] = [1.0, 0.94, 0.88, 0.82, 0.76, 0.7, 0.64, 0.58];

impl Int4 {
    #[inline(always)]
    fn integers<S: Vectors>(simd: S, v: S::F32) -> S::F32 {
        simd.max(simd.min(simd.round(v), simd.splat(7.0)), simd.splat(-8.0))
    }
}

impl Cached for Int4 {
    type Vector = [u32; LANES];
    type Strip = [u32; LANES];
    const COLUMNS: usize = STRIP;
    const QUANTIZED: bool = true;
    const ANCHORED: bool = true;

    /// The step with the least squared error of a few. Its sign makes the largest value negative: there is one more integer.
    #[inline(always)]
    fn step<S: Vectors>(simd: S, head: &[[f32; LANES]]) -> Step {
        let largest = step(simd, head).scale * 127.0;
        if largest.is_nan() {
            return Step::of(largest);
        }
        let mut highest = simd.splat(f32::NEG_INFINITY);
        for x in head {
            highest = simd.max(simd.load(x), highest);
        }
        let sign = if simd.max_lane(highest) >= largest { -1.0 } else { 1.0 };
        let (mut best, mut least) = (Step::of(0.0), f32::INFINITY);
        for factor in STEP_FACTORS {
            let step = Step::of(sign * largest / 8.0 * factor);
            let mut errors = simd.splat(0.0);
            for x in head {
                let x = simd.load(x);
                let integers = Self::integers(simd, simd.mul(x, simd.splat(step.inverse)));
                let error = simd.sub(x, simd.mul(integers, simd.splat(step.scale)));
                errors = simd.add(errors, simd.mul(error, error));
            }
            let error = simd.sum(errors);
            if error < least {
                (best, least) = (step, error);
            }
        }
        best
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self.0)
    }
    #[inline(always)]
    fn narrow<S: Vectors>(simd: S, v: S::F32) -> [Self; LANES] {
        let mut narrow = [0; LANES];
        simd.store_i8(Self::integers(simd, v), &mut narrow);
        narrow.map(Self)
    }
    #[inline(always)]
    fn get(from: &[u32; LANES], column: usize, lane: usize) -> Self {
        Self(((from[lane] << (28 - 4 * column)) as i32 >> 28) as i8)
    }
    #[inline(always)]
    fn set(self, to: &mut [u32; LANES], column: usize, lane: usize) {
        let others = to[lane] & !(15 << (4 * column));
        to[lane] = others | (self.0 as u32 & 15) << (4 * column);
    }
    #[inline(always)]
    fn load<S: Vectors>(simd: S, from: &[u32; LANES], column: usize) -> S::F32 {
        simd.load_nibbles(from, column)
    }
    #[inline(always)]
    fn load_pair<S: Simd>(simd: S, from: &[u32; LANES], pair: usize) -> S::Pair {
        simd.pair_load_nibbles(from, pair)
    }
    compiled_here!();
}
