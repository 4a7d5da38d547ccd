//! Products of bytes with NEON alone: `smlal` multiplies them into i16 sums, four neighbours of which are a row.
//!
//! Q4 nibbles stay unsigned, at most 15·127 = 1905 a product, and the eight of a block that meet in a sum fit (15 240 < 32 767), so
//! one widening per block suffices. Of Q8 weights two products fit, at most 128·127·2 = 32 512, which `sadalp` then adds to i32 sums.
//!
//! Panels are done one after the other: sums of half the rows of one fill a register, and 16 are all that leave room for the rest.

use core::arch::aarch64::*;
use core::arch::asm;
use std::arch::is_aarch64_feature_detected;

use half::f16;

use super::{Integers, Neon};
use crate::simd::{
    BLOCK, Block, Kernel, LANES, PairKernel, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES, Simd,
    UNPACKED_BLOCK_BYTES, Vectors,
};

/// Proof that the CPU has NEON.
#[derive(Clone, Copy, Debug)]
pub struct Plain(());

// SAFETY: `detect`, the only way to one, asks for it.
unsafe impl Neon for Plain {}

impl Plain {
    /// The proof, where the CPU gives it.
    pub fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    /// Runs `kernel`, compiled for these instructions.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn shell<K: Kernel>(simd: Plain, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: a `Plain` exists only where `detect` found the feature.
        unsafe { shell(self, kernel) }
    }

    /// Runs `kernel`, compiled for these instructions.
    #[inline]
    pub fn run_pairs<K: PairKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn shell<K: PairKernel>(simd: Plain, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: a `Plain` exists only where `detect` found the feature.
        unsafe { shell(self, kernel) }
    }
}

/// Adds the products of eight bytes, which are the first or the last of `a`, to sums of 16 bits.
#[inline(always)]
fn multiply_add(_: Plain, sums: [int16x8_t; 2], a: int8x16_t, b: int8x16_t) -> [int16x8_t; 2] {
    neon!([vmlal_s8(sums[0], vget_low_s8(a), vget_low_s8(b)), vmlal_high_s8(sums[1], a, b)])
}

/// As [`multiply_add`], to nothing.
#[inline(always)]
fn multiply(_: Plain, a: int8x16_t, b: int8x16_t) -> [int16x8_t; 2] {
    neon!([vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b)])
}

/// Four activations, `values[at..at + 4]`, again and again.
#[inline(always)]
fn broadcast(_: Plain, values: &[i8; BLOCK], at: usize) -> int8x16_t {
    let [a, b, c, d] = *values[at..].first_chunk().expect("four values");
    let four = i32::from_le_bytes([a as u8, b as u8, c as u8, d as u8]);
    neon!(vreinterpretq_s8_s32(vdupq_n_s32(four)))
}

/// Dot products of nibbles of a panel: its first and its last rows.
#[inline(always)]
fn nibbles<W: Integers, const T: usize>(
    simd: Plain,
    weights: W,
    panel: usize,
    x: &[Block; T],
) -> [[int32x4_t; 2]; T] {
    let mut sums = neon!([[[vdupq_n_s16(0); 2]; 2]; T]);
    for i in 0..BLOCK / 8 {
        let columns = weights.columns(simd, panel, i);
        for t in 0..T {
            for j in 0..2 {
                let values = broadcast(simd, &x[t].values, 8 * i + 4 * j);
                for h in 0..2 {
                    sums[t][h] = multiply_add(simd, sums[t][h], columns[j][h], values);
                }
            }
        }
    }
    let mut rows = neon!([[vdupq_n_s32(0); 2]; T]);
    for t in 0..T {
        let offset = neon!(vdupq_n_s32(x[t].offset));
        for h in 0..2 {
            let [a, b] = sums[t][h];
            rows[t][h] = neon!(vaddq_s32(vpaddq_s32(vpaddlq_s16(a), vpaddlq_s16(b)), offset));
        }
    }
    rows
}

/// Dot products of bytes of a panel.
#[inline(always)]
fn bytes<W: Integers, const T: usize>(
    simd: Plain,
    weights: W,
    panel: usize,
    x: &[Block; T],
) -> [[int32x4_t; 2]; T] {
    let mut sums = neon!([[[vdupq_n_s32(0); 2]; 2]; T]);
    for i in 0..BLOCK / 8 {
        let [first, last] = weights.columns(simd, panel, i);
        for t in 0..T {
            let four = broadcast(simd, &x[t].values, 8 * i);
            let next = broadcast(simd, &x[t].values, 8 * i + 4);
            for h in 0..2 {
                let products = multiply(simd, first[h], four);
                let [a, b] = multiply_add(simd, products, last[h], next);
                sums[t][h] = neon!([vpadalq_s16(sums[t][h][0], a), vpadalq_s16(sums[t][h][1], b)]);
            }
        }
    }
    let mut rows = neon!([[vdupq_n_s32(0); 2]; T]);
    for t in 0..T {
        for h in 0..2 {
            let [a, b] = sums[t][h];
            rows[t][h] = neon!(vpaddq_s32(a, b));
        }
    }
    rows
}

/// Puts what each panel of a pair gave side by side.
#[inline(always)]
fn pair<const T: usize>([first, second]: [[[int32x4_t; 2]; T]; 2]) -> [[int32x4_t; 4]; T] {
    let mut all = [[first[0][0]; 4]; T];
    for t in 0..T {
        all[t] = [first[t][0], first[t][1], second[t][0], second[t][1]];
    }
    all
}

/// Dot products of nibbles.
#[inline(always)]
fn dot_nibbles<W: Integers, const P: usize, const T: usize>(
    simd: Plain,
    weights: [W; P],
    x: &[Block; T],
) -> [[[int32x4_t; 4]; T]; P] {
    let mut all = neon!([[[vdupq_n_s32(0); 4]; T]; P]);
    for p in 0..P {
        all[p] = pair([nibbles(simd, weights[p], 0, x), nibbles(simd, weights[p], 1, x)]);
    }
    all
}

impl Simd for Plain {
    pair_words!();

    #[inline(always)]
    fn multiply_adds(self, rounds: usize) -> usize {
        // Twice as many registers hide the latency, and fit.
        const CHAINS: usize = 8;
        let mut sums = neon!([[vdupq_n_s16(0); 2]; CHAINS]);
        let factors = std::hint::black_box(broadcast(self, &[3; BLOCK], 0));
        for _ in 0..rounds {
            for i in 0..CHAINS {
                let [a, b] = &mut sums[i];
                // SAFETY: registers are all that is touched. Assembly, since a compiler would multiply once for all.
                unsafe {
                    asm!(
                        "smlal {a:v}.8h, {x:v}.8b, {x:v}.8b",
                        "smlal2 {b:v}.8h, {x:v}.16b, {x:v}.16b",
                        a = inout(vreg) *a,
                        b = inout(vreg) *b,
                        x = in(vreg) factors,
                        options(nomem, nostack, preserves_flags),
                    );
                }
            }
        }
        std::hint::black_box(sums);
        CHAINS * 16
    }

    #[inline(always)]
    fn dot_q4<const P: usize, const T: usize>(
        self,
        weights: [[&[u8; Q4_BLOCK_BYTES]; 2]; P],
        x: &[Block; T],
    ) -> [[[int32x4_t; 4]; T]; P] {
        dot_nibbles(self, weights, x)
    }
    #[inline(always)]
    fn dot_unpacked<const P: usize, const T: usize>(
        self,
        weights: [&[u8; UNPACKED_BLOCK_BYTES]; P],
        x: &[Block; T],
    ) -> [[[int32x4_t; 4]; T]; P] {
        dot_nibbles(self, weights, x)
    }
    #[inline(always)]
    fn dot_q8<const P: usize, const T: usize>(
        self,
        weights: [[&[u8; Q8_BLOCK_BYTES]; 2]; P],
        x: &[Block; T],
    ) -> [[[int32x4_t; 4]; T]; P] {
        let mut all = neon!([[[vdupq_n_s32(0); 4]; T]; P]);
        for p in 0..P {
            all[p] = pair([bytes(self, weights[p], 0, x), bytes(self, weights[p], 1, x)]);
        }
        all
    }
}
