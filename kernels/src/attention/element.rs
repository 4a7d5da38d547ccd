//! The element types of a KV cache.

use half::f16;

use super::cache::Store;
use super::task::AttendTask;
use crate::Isa;
use crate::simd::{Element, LANES, Simd, Vectors};

/// An element type of a KV cache: `f32`, `f16` or `i8`.
pub trait Cached: Element + bytemuck::Pod {
    /// Whether the type is quantized, with one scale per head and token.
    const SCALED: bool;
    /// Loads sixteen elements, widened to `f32`, as a pair.
    fn load_pair<S: Simd>(simd: S, from: &[[Self; LANES]; 2]) -> S::Pair;
    /// Rounds eight values to the nearest elements; for a quantized type they are in −127..=127.
    fn narrow<S: Vectors>(simd: S, v: S::F32) -> [Self; LANES];

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

impl Cached for f32 {
    const SCALED: bool = false;
    #[inline(always)]
    fn load_pair<S: Simd>(simd: S, from: &[[Self; LANES]; 2]) -> S::Pair {
        simd.pair_load(from)
    }
    #[inline(always)]
    fn narrow<S: Vectors>(simd: S, v: S::F32) -> [Self; LANES] {
        let mut narrow = [0.0; LANES];
        simd.store(v, &mut narrow);
        narrow
    }
    compiled_here!();
}

impl Cached for f16 {
    const SCALED: bool = false;
    #[inline(always)]
    fn load_pair<S: Simd>(simd: S, from: &[[Self; LANES]; 2]) -> S::Pair {
        simd.pair_load_f16(from)
    }
    #[inline(always)]
    fn narrow<S: Vectors>(simd: S, v: S::F32) -> [Self; LANES] {
        let mut narrow = [f16::ZERO; LANES];
        simd.store_f16(v, &mut narrow);
        narrow
    }
    compiled_here!();
}

impl Cached for i8 {
    const SCALED: bool = true;
    #[inline(always)]
    fn load_pair<S: Simd>(simd: S, from: &[[Self; LANES]; 2]) -> S::Pair {
        simd.pair_load_i8(from)
    }
    #[inline(always)]
    fn narrow<S: Vectors>(simd: S, v: S::F32) -> [Self; LANES] {
        let mut narrow = [0; LANES];
        simd.store_i8(simd.round(v), &mut narrow);
        narrow
    }
    compiled_here!();
}
