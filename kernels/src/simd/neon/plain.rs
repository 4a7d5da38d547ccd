//! Products of bytes with NEON alone: `smlal` adds them to i16 sums, of which four adjacent ones belong to a row.
//!
//! Q4 nibbles stay unsigned. A product is at most 15·127 = 1905, and a sum has eight of a block, which fit (15 240 < 32 767), so one
//! widening per block suffices. For Q8 weights two products fit, at most 128·127·2 = 32 512; `sadalp` then adds them to i32 sums.
//!
//! Panels are computed one after the other: the sums of both would need more than the 16 registers that are free for them.

use core::arch::aarch64::*;
use core::arch::asm;
use std::arch::is_aarch64_feature_detected;

use half::f16;

use super::{Integers, Neon, load_both};
use crate::simd::{
    BLOCK, Block, Interleaved, Kernel, LANES, PairKernel, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES, Simd,
    UNPACKED_BLOCK_BYTES, Vectors,
};

/// Proof that the CPU has NEON.
#[derive(Clone, Copy, Debug)]
pub struct Plain(());

// SAFETY: only `detect` makes one, and it checks for NEON.
unsafe impl Neon for Plain {}

impl Plain {
    /// A proof, if the CPU has the feature.
    pub fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    /// Runs `kernel` compiled for these instructions.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn shell<K: Kernel>(simd: Plain, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: a `Plain` exists only where `detect` found the feature.
        unsafe { shell(self, kernel) }
    }

    /// Runs `kernel` compiled for these instructions.
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

/// Adds the products of the first eight bytes and of the last eight bytes to 16-bit sums.
#[inline(always)]
fn multiply_add(_: Plain, sums: [int16x8_t; 2], a: int8x16_t, b: int8x16_t) -> [int16x8_t; 2] {
    neon!([vmlal_s8(sums[0], vget_low_s8(a), vget_low_s8(b)), vmlal_high_s8(sums[1], a, b)])
}

/// As [`multiply_add`], to sums of 0.
#[inline(always)]
fn multiply(_: Plain, a: int8x16_t, b: int8x16_t) -> [int16x8_t; 2] {
    neon!([vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b)])
}

/// Four activations, `values[at..at + 4]`, in every 32-bit lane.
#[inline(always)]
fn broadcast(_: Plain, values: &[i8; BLOCK], at: usize) -> int8x16_t {
    let [a, b, c, d] = *values[at..].first_chunk().expect("four values");
    let four = i32::from_le_bytes([a as u8, b as u8, c as u8, d as u8]);
    neon!(vreinterpretq_s8_s32(vdupq_n_s32(four)))
}

/// Dot products of the nibbles of a panel: its first four rows and its last four. They are signed, or not.
#[inline(always)]
fn nibbles<W: Integers, const T: usize, const SIGNED: bool>(
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
        let offset = neon!(vdupq_n_s32(i32::from(SIGNED) * x[t].offset));
        for h in 0..2 {
            let [a, b] = sums[t][h];
            rows[t][h] = neon!(vaddq_s32(vpaddq_s32(vpaddlq_s16(a), vpaddlq_s16(b)), offset));
        }
    }
    rows
}

/// Dot products of the bytes of a panel.
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

/// Joins the sums of the two panels of a pair.
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
fn dot_nibbles<W: Integers, const P: usize, const T: usize, const SIGNED: bool>(
    simd: Plain,
    weights: [W; P],
    x: &[Block; T],
) -> [[[int32x4_t; 4]; T]; P] {
    let mut all = neon!([[[vdupq_n_s32(0); 4]; T]; P]);
    for p in 0..P {
        let first = nibbles::<W, T, SIGNED>(simd, weights[p], 0, x);
        all[p] = pair([first, nibbles::<W, T, SIGNED>(simd, weights[p], 1, x)]);
    }
    all
}

impl Simd for Plain {
    pair_words!();

    #[inline(always)]
    fn multiply_adds(self, rounds: usize) -> usize {
        // Two registers each: enough to hide the latency, and they fit.
        const CHAINS: usize = 8;
        let mut sums = neon!([[vdupq_n_s16(0); 2]; CHAINS]);
        let factors = std::hint::black_box(broadcast(self, &[3; BLOCK], 0));
        for _ in 0..rounds {
            for i in 0..CHAINS {
                let [a, b] = &mut sums[i];
                // SAFETY: it accesses registers only. As asm because LLVM would hoist the product out of the loop.
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
    fn dot_q4<const P: usize, const T: usize, const SIGNED: bool>(
        self,
        weights: [[&[u8; Q4_BLOCK_BYTES]; 2]; P],
        x: &[Block; T],
    ) -> [[[int32x4_t; 4]; T]; P] {
        dot_nibbles::<_, P, T, SIGNED>(self, weights, x)
    }
    #[inline(always)]
    fn dot_unpacked<const P: usize, const T: usize, const SIGNED: bool>(
        self,
        weights: [&[u8; UNPACKED_BLOCK_BYTES]; P],
        x: &[Block; T],
    ) -> [[[int32x4_t; 4]; T]; P] {
        dot_nibbles::<_, P, T, SIGNED>(self, weights, x)
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
