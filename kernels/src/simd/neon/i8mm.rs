//! Products of bytes with I8MM (Armv8.6; Neoverse V1 and N2, Apple M2 and later): `smmla` multiplies eight columns of two rows by
//! eight columns of two tokens, twice as many products as `sdot`. For one token, half of them would be wasted, so `sdot` is used.
//!
//! Unpacked weights are in the layout of `smmla`; others are interleaved in registers.

use core::arch::aarch64::*;
use core::arch::asm;
use std::arch::is_aarch64_feature_detected;

use half::f16;

use super::dotprod::Dotprod;
use super::plain::Plain;
use super::{Integers, Neon, eight_columns, load_both, load_half};
use crate::simd::{
    BLOCK, Block, Interleaved, LANES, PairKernel, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES, Simd,
    UNPACKED_BLOCK_BYTES, Vectors,
};

/// Proof that the CPU has I8MM, and what [`Dotprod`] proves.
#[derive(Clone, Copy, Debug)]
pub struct I8mm(Dotprod);

// SAFETY: it contains a `Dotprod`.
unsafe impl Neon for I8mm {
    const EIGHT_COLUMNS: bool = true;
}

impl I8mm {
    /// A proof, if the CPU has the features.
    pub fn detect() -> Option<Self> {
        Dotprod::detect().filter(|_| is_aarch64_feature_detected!("i8mm")).map(Self)
    }

    /// The proof of NEON.
    pub fn plain(self) -> Plain {
        self.0.plain()
    }

    /// Runs `kernel` compiled for these instructions.
    #[inline]
    pub fn run_pairs<K: PairKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod,i8mm")]
        fn shell<K: PairKernel>(simd: I8mm, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: an `I8mm` exists only where `detect` found all three features.
        unsafe { shell(self, kernel) }
    }
}

/// Adds the dot products of eight columns of two rows with two tokens: both of the first row, then both of the second.
///
/// As asm because the intrinsic is not stable.
#[inline(always)]
fn multiply_add(_: I8mm, sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    #[inline]
    #[target_feature(enable = "neon,i8mm")]
    fn smmla(mut sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: it accesses registers only.
        unsafe {
            asm!(
                "smmla {sums:v}.4s, {weights:v}.16b, {x:v}.16b",
                sums = inout(vreg) sums,
                weights = in(vreg) weights,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
    neon!(smmla(sums, weights, x))
}

/// Columns `16 · half..` of two tokens: eight of each, then the next eight of each.
#[inline(always)]
fn two_tokens(simd: I8mm, x: [&[i8; BLOCK]; 2], half: usize) -> [int8x16_t; 2] {
    let (a, b) = (load_half(simd, x[0], half), load_half(simd, x[1], half));
    neon!({
        let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
        [vreinterpretq_s8_s64(vzip1q_s64(a, b)), vreinterpretq_s8_s64(vzip2q_s64(a, b))]
    })
}

/// The sums of a pair of panels, `[token pair][panel][row pair]`. Half of the `T` elements are used.
type Sums<const T: usize> = [[[int32x4_t; 4]; 2]; T];

/// Adds the products of the tokens with sixteen columns of a panel. `PANEL` is a constant so that the sums stay in registers.
#[inline(always)]
fn add<W: Integers, const PANEL: usize, const T: usize>(
    simd: I8mm,
    sums: &mut Sums<T>,
    weights: W,
    half: usize,
    x: &[[int8x16_t; 2]; T],
) {
    for i in 0..2 {
        let [mut first, mut last] = weights.columns(simd, PANEL, 2 * half + i);
        if !W::UNPACKED {
            let [a, b] = [first, last];
            first = eight_columns(simd, a[0], b[0]);
            last = eight_columns(simd, a[1], b[1]);
        }
        for two in 0..T.div_ceil(2) {
            let sums = &mut sums[two][PANEL];
            sums[0] = multiply_add(simd, sums[0], first[0], x[two][i]);
            sums[1] = multiply_add(simd, sums[1], first[1], x[two][i]);
            sums[2] = multiply_add(simd, sums[2], last[0], x[two][i]);
            sums[3] = multiply_add(simd, sums[3], last[1], x[two][i]);
        }
    }
}

/// Dot products of integers in any storage, to which `OFFSET` adds [`Block::offset`]. Tokens are multiplied in pairs; an odd last token
/// is paired with itself.
#[inline(always)]
fn dot<W: Integers, const P: usize, const T: usize, const OFFSET: bool>(
    simd: I8mm,
    weights: [W; P],
    x: &[Block; T],
) -> [[[int32x4_t; 4]; T]; P] {
    let twos = T.div_ceil(2);
    let mut sums: [Sums<T>; P] = neon!([[[[vdupq_n_s32(0); 4]; 2]; T]; P]);
    for two in 0..twos {
        let (a, b) = (x[2 * two].offset, x[(2 * two + 1).min(T - 1)].offset);
        let first = neon!({
            let (a, b) = (vdupq_n_s32(a), vdupq_n_s32(b));
            if OFFSET { vzip1q_s32(a, b) } else { vdupq_n_s32(0) }
        });
        for p in 0..P {
            sums[p][two] = [[first; 4]; 2];
        }
    }
    for half in 0..2 {
        let mut values = neon!([[vdupq_n_s8(0); 2]; T]);
        for two in 0..twos {
            let tokens = [&x[2 * two].values, &x[(2 * two + 1).min(T - 1)].values];
            values[two] = two_tokens(simd, tokens, half);
        }
        for p in 0..P {
            add::<W, 0, T>(simd, &mut sums[p], weights[p], half, &values);
            add::<W, 1, T>(simd, &mut sums[p], weights[p], half, &values);
        }
    }
    let mut all = neon!([[[vdupq_n_s32(0); 4]; T]; P]);
    for p in 0..P {
        for t in 0..T {
            let [a, b] = sums[p][t / 2];
            all[p][t] = neon!(if t % 2 == 0 {
                [
                    vuzp1q_s32(a[0], a[1]),
                    vuzp1q_s32(a[2], a[3]),
                    vuzp1q_s32(b[0], b[1]),
                    vuzp1q_s32(b[2], b[3]),
                ]
            } else {
                [
                    vuzp2q_s32(a[0], a[1]),
                    vuzp2q_s32(a[2], a[3]),
                    vuzp2q_s32(b[0], b[1]),
                    vuzp2q_s32(b[2], b[3]),
                ]
            });
        }
    }
    all
}

impl Simd for I8mm {
    pair_words!();

    #[inline(always)]
    fn multiply_adds(self, rounds: usize) -> usize {
        // Enough to hide the latency.
        const CHAINS: usize = 16;
        let mut sums = neon!([vdupq_n_s32(0); CHAINS]);
        let factors = std::hint::black_box(load_half(self, &[3; BLOCK], 0));
        for _ in 0..rounds {
            for i in 0..CHAINS {
                sums[i] = multiply_add(self, sums[i], factors, factors);
            }
        }
        std::hint::black_box(sums);
        CHAINS * 32
    }

    #[inline(always)]
    fn dot_q4<const P: usize, const T: usize, const SIGNED: bool>(
        self,
        weights: [[&[u8; Q4_BLOCK_BYTES]; 2]; P],
        x: &[Block; T],
    ) -> [[[int32x4_t; 4]; T]; P] {
        if T == 1 {
            self.0.dot_q4::<P, T, SIGNED>(weights, x)
        } else {
            dot::<_, P, T, SIGNED>(self, weights, x)
        }
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
        if T == 1 { self.0.dot_q8(weights, x) } else { dot::<_, P, T, false>(self, weights, x) }
    }
}
