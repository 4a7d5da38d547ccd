//! Products of integers with AVX-VNNI (Alder Lake, Zen 5 and later): `vpdpbusd` multiplies four unsigned by four signed bytes and adds
//! the products to an i32, so there is no intermediate overflow. Adding 128 makes Q8 weights unsigned.

use core::arch::asm;
use core::arch::x86_64::*;

use half::f16;

use super::avx2::Avx2;
use super::{X86, load_bytes, nibbles, store_bytes};
use crate::simd::{
    BLOCK, Block, Interleaved, LANES, PairKernel, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES, Simd,
    UNPACKED_BLOCK_BYTES, Vectors,
};

/// Vectors of a pair of panels.
const HALVES: usize = 2;

/// Proof that the CPU has AVX-VNNI, and what [`Avx2`] proves.
#[derive(Clone, Copy, Debug)]
pub struct AvxVnni(Avx2);

// SAFETY: it contains an `Avx2`.
unsafe impl X86 for AvxVnni {}

impl AvxVnni {
    /// A proof, if the CPU has the features.
    pub fn detect() -> Option<Self> {
        Avx2::detect().filter(|_| is_x86_feature_detected!("avxvnni")).map(Self)
    }

    /// The proof of AVX2.
    pub fn avx2(self) -> Avx2 {
        self.0
    }

    /// Runs `kernel` compiled for these instructions.
    #[inline]
    pub fn run_pairs<K: PairKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn shell<K: PairKernel>(simd: AvxVnni, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: an `AvxVnni` exists only where `detect` found all four features.
        unsafe { shell(self, kernel) }
    }
}

/// Adds the products of four unsigned and four signed bytes to each 32-bit sum.
#[inline(always)]
fn multiply_add(_: AvxVnni, unsigned: __m256i, signed: __m256i, sums: __m256i) -> __m256i {
    x86!(_mm256_dpbusd_avx_epi32(sums, unsigned, signed))
}

/// `sum` plus the two products in each 32-bit lane. As asm for the same reason as [`accumulate`](super::accumulate).
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn dot(a: __m256i, b: __m256i, mut sum: __m256i) -> __m256i {
    // SAFETY: it accesses no memory. Without `nomem`, LLVM keeps its order with loads.
    unsafe {
        asm!(
            "{{vex}} vpdpwssd {sum}, {a}, {b}",
            sum = inout(ymm_reg) sum,
            a = in(ymm_reg) a,
            b = in(ymm_reg) b,
            options(nostack, preserves_flags),
        );
    }
    sum
}

#[inline(always)]
fn start(_: AvxVnni, offset: i32) -> __m256i {
    x86!(_mm256_set1_epi32(offset))
}

/// Sums start with the offset, so nothing is left to do.
#[inline(always)]
fn finish(_: AvxVnni, sums: __m256i, _offset: i32) -> __m256i {
    sums
}

/// Four activations, `values[at..at + 4]`, in every 32-bit lane.
#[inline(always)]
fn broadcast(_: AvxVnni, values: &[i8; BLOCK], at: usize) -> __m256i {
    x86!(_mm256_set1_epi32(super::four(values, at)))
}

impl Simd for AvxVnni {
    pair_words!();

    #[inline(always)]
    fn multiply_adds(self, rounds: usize) -> usize {
        // Enough to hide the latency; they fit into the registers.
        const CHAINS: usize = 12;
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
        // −128·Σx is sixteen times the offset.
        dot_block!(self, x, P, T, 16, |p, h, i| {
            let (runs, _) = weights[p][h].as_chunks();
            [unsigned(self, &runs[2 * i]), unsigned(self, &runs[2 * i + 1])]
        })
    }
}

/// The signed bytes with 128 added to each.
#[inline(always)]
fn unsigned(simd: AvxVnni, run: &[u8; 32]) -> __m256i {
    let run = load_bytes(simd, run);
    x86!(_mm256_xor_si256(run, _mm256_set1_epi8(-128)))
}
