//! What a cache may be made of.

use half::f16;

use super::blocks::Blocks;
use super::cache::Store;
use crate::Isa;
use crate::simd::{Element, LANES, Simd, Vectors};

/// An element type of a cache.
pub trait Cached: Element + bytemuck::Zeroable {
    /// Whether it counts steps, of a size that each head of a token has for itself.
    const SCALED: bool;
    /// Twice eight of them, as a pair.
    fn load_pair<S: Simd>(simd: S, from: &[[Self; LANES]; 2]) -> S::Pair;
    /// Eight values, rounded to the nearest; those of a type that counts steps lie in −127..=127.
    fn narrow<S: Vectors>(simd: S, v: S::F32) -> [Self; LANES];

    // Functions of their own, so that they are compiled here, once, and not wherever a cache is used.

    #[doc(hidden)]
    fn store(isa: Isa, heads: Store<'_, Self>);
    #[doc(hidden)]
    fn attend(isa: Isa, blocks: Blocks<'_, Self>);
}

macro_rules! compiled_here {
    () => {
        #[inline(never)]
        fn store(isa: Isa, heads: Store<'_, Self>) {
            isa.run(heads);
        }
        #[inline(never)]
        fn attend(isa: Isa, blocks: Blocks<'_, Self>) {
            isa.run_pairs(blocks);
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
