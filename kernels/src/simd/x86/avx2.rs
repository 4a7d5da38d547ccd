//! Products of bytes with AVX2 alone.
//!
//! Q4 nibbles stay unsigned: `maddubs` multiplies u8 by s8 and adds pairs into i16, at most 15·127·2 = 3810. Eight of those fit
//! (30 480 < 32 767), so one widening `madd` per block suffices. For Q8 weights, `sign` first moves the sign of the weight to the
//! activation. One pair already reaches 128·127·2 = 32 512, so each pair is widened at once.

use core::arch::asm;
use core::arch::x86_64::*;

use half::f16;

use super::{X86, load_bytes, nibbles, store_bytes};
use crate::simd::{
    BLOCK, Block, Interleaved, Kernel, LANES, PairKernel, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES, Simd,
    UNPACKED_BLOCK_BYTES, Vectors,
};

/// Vectors of a pair of panels.
const HALVES: usize = 2;

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

// SAFETY: only `detect` makes one, and it checks all three.
unsafe impl X86 for Avx2 {}

impl Avx2 {
    /// A proof, if the CPU has the features.
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }

    /// Runs `kernel` compiled for these instructions.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn shell<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: an `Avx2` exists only where `detect` found all three features.
        unsafe { shell(self, kernel) }
    }

    /// Runs `kernel` compiled for these instructions.
    #[inline]
    pub fn run_pairs<K: PairKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn shell<K: PairKernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: an `Avx2` exists only where `detect` found all three features.
        unsafe { shell(self, kernel) }
    }
}

/// Adds the products of unsigned and signed bytes, in pairs, to 16-bit sums.
///
/// As asm so that LLVM cannot hoist later loads above it: in an unrolled loop it loads and unpacks the whole block first, and spills
/// the sums.
#[inline(always)]
fn multiply_add(_: Avx2, unsigned: __m256i, signed: __m256i, sums: __m256i) -> __m256i {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn maddubs_add(unsigned: __m256i, signed: __m256i, mut sums: __m256i) -> __m256i {
        // SAFETY: it accesses registers only.
        unsafe {
            asm!(
                "vpmaddubsw {products}, {unsigned}, {signed}",
                "vpaddw {sums}, {sums}, {products}",
                products = out(ymm_reg) _,
                unsigned = in(ymm_reg) unsigned,
                signed = in(ymm_reg) signed,
                sums = inout(ymm_reg) sums,
                options(nostack, preserves_flags),
            );
        }
        sums
    }
    x86!(maddubs_add(unsigned, signed, sums))
}

/// `sum` plus the two products in each 32-bit lane. As asm for the same reason as [`accumulate`](super::accumulate).
#[inline]
#[target_feature(enable = "avx2")]
fn dot(a: __m256i, b: __m256i, mut sum: __m256i) -> __m256i {
    // SAFETY: it accesses no memory. Without `nomem`, LLVM keeps its order with loads.
    unsafe {
        asm!(
            "vpmaddwd {products}, {a}, {b}",
            "vpaddd {sum}, {sum}, {products}",
            products = out(ymm_reg) _,
            sum = inout(ymm_reg) sum,
            a = in(ymm_reg) a,
            b = in(ymm_reg) b,
            options(nostack, preserves_flags),
        );
    }
    sum
}

/// Sums of 16 bits start at 0: an offset may not fit.
#[inline(always)]
fn start(_: Avx2, _offset: i32) -> __m256i {
    x86!(_mm256_setzero_si256())
}

/// Widens the sums and adds the offset.
#[inline(always)]
fn finish(_: Avx2, sums: __m256i, offset: i32) -> __m256i {
    x86!({
        let wide = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
        _mm256_add_epi32(wide, _mm256_set1_epi32(offset))
    })
}

/// Four activations, `values[at..at + 4]`, in every 32-bit lane.
#[inline(always)]
fn broadcast(_: Avx2, values: &[i8; BLOCK], at: usize) -> __m256i {
    x86!(_mm256_set1_epi32(super::four(values, at)))
}

impl Simd for Avx2 {
    pair_words!();

    #[inline(always)]
    fn multiply_adds(self, rounds: usize) -> usize {
        // Enough to hide the latency; they fit into the registers.
        const CHAINS: usize = 8;
        let mut sums = [start(self, 0); CHAINS];
        let factors = std::hint::black_box(broadcast(self, &[3; BLOCK], 0));
        for _ in 0..rounds {
            for i in 0..CHAINS {
                sums[i] = multiply_add(self, factors, factors, sums[i]);
            }
        }
        std::hint::black_box(sums);
        CHAINS * 32
    }

    #[inline(always)]
    fn dot_q8<const P: usize, const T: usize>(
        self,
        weights: [[&[u8; Q8_BLOCK_BYTES]; 2]; P],
        x: &[Block; T],
    ) -> [[[__m256i; 2]; T]; P] {
        let mut sums = [[[start(self, 0); 2]; T]; P];
        for i in 0..Q8_BLOCK_BYTES / 32 {
            for p in 0..P {
                for h in 0..2 {
                    let run = load_bytes(self, &weights[p][h].as_chunks().0[i]);
                    for t in 0..T {
                        let values = broadcast(self, &x[t].values, 4 * i);
                        sums[p][t][h] = x86!({
                            let signed = _mm256_sign_epi8(values, run);
                            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(run), signed);
                            let four = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                            _mm256_add_epi32(sums[p][t][h], four)
                        });
                    }
                }
            }
        }
        sums
    }
}
