//! Products of bytes with DotProd (Armv8.4; Neoverse N1, Cortex-A75, Apple M1 and later): `sdot` multiplies four signed bytes by
//! four and adds them to an i32. Its second factor may be any quarter of a register, so activations need no broadcast. Nibbles stay
//! unsigned; they are valid signed bytes.

use core::arch::aarch64::*;
use core::arch::asm;
use std::arch::is_aarch64_feature_detected;

use half::f16;

use super::plain::Plain;
use super::{Integers, Neon, load_both, load_half};
use crate::simd::{
    BLOCK, Block, Interleaved, LANES, PairKernel, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES, Simd,
    UNPACKED_BLOCK_BYTES, Vectors,
};

/// Proof that the CPU has DotProd, and what [`Plain`] proves.
#[derive(Clone, Copy, Debug)]
pub struct Dotprod(Plain);

// SAFETY: it contains a `Plain`.
unsafe impl Neon for Dotprod {}

impl Dotprod {
    /// A proof, if the CPU has the features.
    pub fn detect() -> Option<Self> {
        Plain::detect().filter(|_| is_aarch64_feature_detected!("dotprod")).map(Self)
    }

    /// The proof of NEON.
    pub fn plain(self) -> Plain {
        self.0
    }

    /// Runs `kernel` compiled for these instructions.
    #[inline]
    pub fn run_pairs<K: PairKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod")]
        fn shell<K: PairKernel>(simd: Dotprod, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: a `Dotprod` exists only where `detect` found both features.
        unsafe { shell(self, kernel) }
    }
}

/// Adds the products of four bytes of each row with the four bytes of quarter `Q` of `x`.
///
/// As asm because the intrinsic is not stable.
#[inline(always)]
fn multiply_add<const Q: i32>(
    _: Dotprod,
    sums: int32x4_t,
    weights: int8x16_t,
    x: int8x16_t,
) -> int32x4_t {
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    fn sdot<const Q: i32>(mut sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: it accesses registers only.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {weights:v}.16b, {x:v}.4b[{quarter}]",
                sums = inout(vreg) sums,
                weights = in(vreg) weights,
                x = in(vreg) x,
                quarter = const Q,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
    neon!(sdot::<Q>(sums, weights, x))
}

/// Adds the products of the tokens with sixteen columns of a panel. `PANEL` is a constant so that the sums stay in registers.
#[inline(always)]
fn add<W: Integers, const PANEL: usize, const T: usize>(
    simd: Dotprod,
    sums: &mut [[int32x4_t; 4]; T],
    weights: W,
    half: usize,
    x: &[int8x16_t; T],
) {
    let [first, second] = weights.columns(simd, PANEL, 2 * half);
    let [third, fourth] = weights.columns(simd, PANEL, 2 * half + 1);
    add_quarter::<0, PANEL, T>(simd, sums, first, x);
    add_quarter::<1, PANEL, T>(simd, sums, second, x);
    add_quarter::<2, PANEL, T>(simd, sums, third, x);
    add_quarter::<3, PANEL, T>(simd, sums, fourth, x);
}

#[inline(always)]
fn add_quarter<const Q: i32, const PANEL: usize, const T: usize>(
    simd: Dotprod,
    sums: &mut [[int32x4_t; 4]; T],
    rows: [int8x16_t; 2],
    x: &[int8x16_t; T],
) {
    for t in 0..T {
        let [first, last] = [2 * PANEL, 2 * PANEL + 1];
        sums[t][first] = multiply_add::<Q>(simd, sums[t][first], rows[0], x[t]);
        sums[t][last] = multiply_add::<Q>(simd, sums[t][last], rows[1], x[t]);
    }
}

/// Dot products of integers in any storage, to which `OFFSET` adds [`Block::offset`].
#[inline(always)]
fn dot<W: Integers, const P: usize, const T: usize, const OFFSET: bool>(
    simd: Dotprod,
    weights: [W; P],
    x: &[Block; T],
) -> [[[int32x4_t; 4]; T]; P] {
    let mut sums = neon!([[[vdupq_n_s32(0); 4]; T]; P]);
    for p in 0..P {
        for t in 0..T {
            sums[p][t] = neon!([vdupq_n_s32(i32::from(OFFSET) * x[t].offset); 4]);
        }
    }
    for half in 0..2 {
        let mut values = neon!([vdupq_n_s8(0); T]);
        for t in 0..T {
            values[t] = load_half(simd, &x[t].values, half);
        }
        for p in 0..P {
            add::<W, 0, T>(simd, &mut sums[p], weights[p], half, &values);
            add::<W, 1, T>(simd, &mut sums[p], weights[p], half, &values);
        }
    }
    sums
}

impl Simd for Dotprod {
    pair_words!();

    #[inline(always)]
    fn multiply_adds(self, rounds: usize) -> usize {
        // Enough to hide the latency.
        const CHAINS: usize = 16;
        let mut sums = neon!([vdupq_n_s32(0); CHAINS]);
        let factors = std::hint::black_box(load_half(self, &[3; BLOCK], 0));
        for _ in 0..rounds {
            for i in 0..CHAINS {
                sums[i] = multiply_add::<0>(self, sums[i], factors, factors);
            }
        }
        std::hint::black_box(sums);
        CHAINS * 16
    }

    #[inline(always)]
    fn dot_q4<const P: usize, const T: usize, const SIGNED: bool>(
        self,
        weights: [[&[u8; Q4_BLOCK_BYTES]; 2]; P],
        x: &[Block; T],
    ) -> [[[int32x4_t; 4]; T]; P] {
        dot::<_, P, T, SIGNED>(self, weights, x)
    }
    #[inline(always)]
    fn dot_unpacked<const P: usize, const T: usize, const SIGNED: bool>(
        self,
        weights: [&[u8; UNPACKED_BLOCK_BYTES]; P],
        x: &[Block; T],
    ) -> [[[int32x4_t; 4]; T]; P] {
        dot::<_, P, T, SIGNED>(self, weights, x)
    }
    #[inline(always)]
    fn dot_q8<const P: usize, const T: usize>(
        self,
        weights: [[&[u8; Q8_BLOCK_BYTES]; 2]; P],
        x: &[Block; T],
    ) -> [[[int32x4_t; 4]; T]; P] {
        dot::<_, P, T, false>(self, weights, x)
    }
}
