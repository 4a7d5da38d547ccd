//! Pairs with AVX-512 and VNNI (Ice Lake, Zen 4 and later): one register each.

use core::arch::asm;
use core::arch::x86_64::*;

use half::f16;

use super::avx2::Avx2;
use super::{X86, load_bytes};
use crate::simd::{
    BLOCK, Block, Interleaved, LANES, PairKernel, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES, Simd,
    UNPACKED_BLOCK_BYTES,
};

/// Vectors of a pair of panels.
const HALVES: usize = 1;

/// Proof that the CPU has AVX-512 F, BW, DQ, VL and VNNI, and what [`Avx2`] proves.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(Avx2);

// SAFETY: it contains an `Avx2`.
unsafe impl X86 for Avx512 {}

impl Avx512 {
    /// A proof, if the CPU has the features.
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        Avx2::detect().filter(|_| found).map(Self)
    }

    /// The proof of AVX2.
    pub fn avx2(self) -> Avx2 {
        self.0
    }

    /// Runs `kernel` compiled for these instructions.
    #[inline]
    pub fn run_pairs<K: PairKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn shell<K: PairKernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: an `Avx512` exists only where `detect` found all of these features.
        unsafe { shell(self, kernel) }
    }
}

/// Adds the products of four unsigned and four signed bytes to each 32-bit sum.
#[inline(always)]
fn multiply_add(_: Avx512, unsigned: __m512i, signed: __m512i, sums: __m512i) -> __m512i {
    x86!(_mm512_dpbusd_epi32(sums, unsigned, signed))
}

/// `sum` plus the two products in each 32-bit lane. As asm, because LLVM splits the intrinsic into two instructions to shorten the chain of
/// sums.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot(a: __m512i, b: __m512i, mut sum: __m512i) -> __m512i {
    // SAFETY: it accesses registers only.
    unsafe {
        asm!(
            "vpdpwssd {sum}, {a}, {b}",
            sum = inout(zmm_reg) sum,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

#[inline(always)]
fn start(_: Avx512, offset: i32) -> __m512i {
    x86!(_mm512_set1_epi32(offset))
}

/// Sums start with the offset, so nothing is left to do.
#[inline(always)]
fn finish(_: Avx512, sums: __m512i, _offset: i32) -> __m512i {
    sums
}

/// Four activations, `values[at..at + 4]`, in every 32-bit lane.
#[inline(always)]
fn broadcast(_: Avx512, values: &[i8; BLOCK], at: usize) -> __m512i {
    x86!(_mm512_set1_epi32(super::four(values, at)))
}

/// The runs of two panels in one register.
#[inline(always)]
fn load_runs(simd: Avx512, [a, b]: [&[u8; 32]; 2]) -> __m512i {
    let (a, b) = (load_bytes(simd, a), load_bytes(simd, b));
    x86!(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b))
}

impl Simd for Avx512 {
    type Pair = __m512;
    type PairI32 = [__m512i; 1];
    type PairI16 = __m512i;

    const PAIRS: usize = 2;
    const TOKENS: usize = 6;

    #[inline(always)]
    fn multiply_adds(self, rounds: usize) -> usize {
        // Enough to hide the latency.
        const CHAINS: usize = 16;
        let mut sums = [start(self, 0); CHAINS];
        let factors = std::hint::black_box(broadcast(self, &[3; BLOCK], 0));
        for _ in 0..rounds {
            for i in 0..CHAINS {
                sums[i] = multiply_add(self, factors, factors, sums[i]);
            }
        }
        std::hint::black_box(sums);
        CHAINS * 64
    }

    #[inline(always)]
    fn pair_splat(self, x: f32) -> __m512 {
        x86!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn pair_scales(self, [a, b]: [&[f16; LANES]; 2]) -> __m512 {
        // SAFETY: sixteen readable bytes each, any alignment; `f16` is a transparent u16. `self` proves the rest.
        unsafe {
            let a = _mm_loadu_si128(a.as_ptr().cast());
            let b = _mm_loadu_si128(b.as_ptr().cast());
            _mm512_cvtph_ps(_mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b))
        }
    }
    #[inline(always)]
    fn pair_zeros(self) -> [__m512i; 1] {
        [start(self, 0)]
    }
    #[inline(always)]
    fn pair_interleave(
        self,
        a: [[i16; LANES]; 2],
        b: [[i16; LANES]; 2],
        to: &mut [Interleaved; 2],
    ) {
        let a = load_bytes(self, bytemuck::cast_ref(&a));
        let b = load_bytes(self, bytemuck::cast_ref(&b));
        // SAFETY: 64 writable bytes, any alignment; `self` proves the rest.
        unsafe {
            let high = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(b));
            let both = _mm512_or_si512(_mm512_cvtepu16_epi32(a), high);
            _mm512_storeu_si512(to.as_mut_ptr().cast(), both);
        }
    }
    #[inline(always)]
    fn pair_load_interleaved(self, from: &[Interleaved; 2]) -> __m512i {
        load_vector(self, bytemuck::cast_ref(from))
    }
    #[inline(always)]
    fn pair_dot_i16(self, columns: __m512i, row: [i16; 2], [sums]: [__m512i; 1]) -> [__m512i; 1] {
        x86!([dot(columns, _mm512_set1_epi32(bytemuck::cast(row)), sums)])
    }
    #[inline(always)]
    fn pair_to_f32(self, [v]: [__m512i; 1]) -> __m512 {
        x86!(_mm512_cvtepi32_ps(v))
    }
    #[inline(always)]
    fn pair_mul(self, a: __m512, b: __m512) -> __m512 {
        x86!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn pair_fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        x86!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn pair_load(self, from: &[[f32; LANES]; 2]) -> __m512 {
        // SAFETY: sixteen readable f32, any alignment; `self` proves the rest.
        unsafe { _mm512_loadu_ps(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn pair_load_f16(self, from: &[[f16; LANES]; 2]) -> __m512 {
        // SAFETY: 32 readable bytes, any alignment; `f16` is a transparent u16. `self` proves the rest.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn pair_load_i8(self, from: &[[i8; LANES]; 2]) -> __m512 {
        // SAFETY: sixteen readable bytes, any alignment. `self` proves the rest.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn pair_load_i16(self, from: &[[i16; LANES]; 2]) -> __m512 {
        let words = load_bytes(self, bytemuck::cast_ref(from));
        x86!(_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(words)))
    }
    #[inline(always)]
    fn pair_load_nibbles(self, from: &[u32; LANES], pair: usize) -> __m512 {
        // SAFETY: 32 readable bytes, any alignment; `self` proves the rest.
        unsafe {
            let words = _mm512_broadcast_i64x4(_mm256_loadu_si256(from.as_ptr().cast()));
            let (low, high) = (8 * pair as i32, 8 * pair as i32 + 4);
            let counts = _mm512_inserti64x4::<1>(_mm512_set1_epi32(low), _mm256_set1_epi32(high));
            // The table is read at the lowest four bits.
            let table = _mm512_setr_ps(
                0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0,
                15.0,
            );
            _mm512_permutexvar_ps(_mm512_srlv_epi32(words, counts), table)
        }
    }
    #[inline(always)]
    fn pair_load_5_bits(self, from: &[u32; 10], pair: usize) -> __m512 {
        let from: *const u32 = from.as_ptr();
        let both = |low: usize, high: usize| {
            let (low, high) = (low as i32, high as i32);
            // SAFETY: `self` proves the instruction set.
            unsafe { _mm512_inserti64x4::<1>(_mm512_set1_epi32(low), _mm256_set1_epi32(high)) }
        };
        // SAFETY: 40 readable bytes, any alignment; `self` proves the rest.
        unsafe {
            let words = _mm512_broadcast_i64x4(_mm256_loadu_si256(from.cast()));
            let words = _mm512_srlv_epi32(words, both(8 * pair, 8 * pair + 4));
            let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.add(LANES).cast()));
            let bytes = _mm512_broadcast_i64x4(bytes);
            // Bit `column` becomes bit 4.
            let fifth = _mm512_rolv_epi32(bytes, both((36 - 2 * pair) % 32, (35 - 2 * pair) % 32));
            // Bits of the mask are taken from `words`, the others from `fifth`.
            let integers = _mm512_ternarylogic_epi32::<0xCA>(_mm512_set1_epi32(15), words, fifth);
            // The tables are read at the lowest five bits.
            let low = _mm512_setr_ps(
                0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0,
                15.0,
            );
            let high = _mm512_add_ps(low, _mm512_set1_ps(16.0));
            _mm512_permutex2var_ps(low, integers, high)
        }
    }
    #[inline(always)]
    fn pair_store(self, v: __m512, to: &mut [[f32; LANES]; 2]) {
        // SAFETY: sixteen writable f32, any alignment; `self` proves the rest.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn dot_q4<const P: usize, const T: usize, const SIGNED: bool>(
        self,
        weights: [[&[u8; Q4_BLOCK_BYTES]; 2]; P],
        x: &[Block; T],
    ) -> [[[__m512i; 1]; T]; P] {
        dot_block!(self, x, P, T, i32::from(SIGNED), |p, _h, i| {
            let [a, b] = weights[p];
            let runs = load_runs(self, [&a.as_chunks().0[i], &b.as_chunks().0[i]]);
            x86!({
                let mask = _mm512_set1_epi8(15);
                let high = _mm512_and_si512(_mm512_srli_epi16::<4>(runs), mask);
                [_mm512_and_si512(runs, mask), high]
            })
        })
    }
    #[inline(always)]
    fn dot_unpacked<const P: usize, const T: usize, const SIGNED: bool>(
        self,
        weights: [&[u8; UNPACKED_BLOCK_BYTES]; P],
        x: &[Block; T],
    ) -> [[[__m512i; 1]; T]; P] {
        dot_block!(self, x, P, T, i32::from(SIGNED), |p, _h, i| {
            let (vectors, _) = weights[p].as_chunks();
            [load_vector(self, &vectors[2 * i]), load_vector(self, &vectors[2 * i + 1])]
        })
    }
    #[inline(always)]
    fn dot_q8<const P: usize, const T: usize>(
        self,
        weights: [[&[u8; Q8_BLOCK_BYTES]; 2]; P],
        x: &[Block; T],
    ) -> [[[__m512i; 1]; T]; P] {
        // −128·Σx is sixteen times the offset.
        dot_block!(self, x, P, T, 16, |p, _h, i| {
            let ([a, b], i) = (weights[p], 2 * i);
            let (a, b) = (a.as_chunks().0, b.as_chunks().0);
            [unsigned(self, [&a[i], &b[i]]), unsigned(self, [&a[i + 1], &b[i + 1]])]
        })
    }
}

/// Loads 64 bytes.
#[inline(always)]
fn load_vector(_: Avx512, from: &[u8; 64]) -> __m512i {
    // SAFETY: `from` is 64 readable bytes, any alignment; the proof is the first argument.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// The signed bytes of two panels in one register, with 128 added to each.
#[inline(always)]
fn unsigned(simd: Avx512, runs: [&[u8; 32]; 2]) -> __m512i {
    let runs = load_runs(simd, runs);
    x86!(_mm512_xor_si512(runs, _mm512_set1_epi8(-128)))
}
