//! The words on x86-64 with AVX2, FMA and F16C (Haswell, Zen and later).
//!
//! The integer dot products keep Q4 nibbles unsigned: `maddubs` multiplies u8 by s8 and adds pairs into i16, at most
//! 15·127·2 = 3810, and eight of those fit (30 480 < 32 767), so one widening `madd` per block suffices. Q8 weights move
//! their sign to the activation first; there one pair already reaches 128·127·2 = 32 512, so each is widened at once.

use core::arch::asm;
use core::arch::x86_64::*;
use half::{bf16, f16};

use super::{BLOCK, Block, LANES, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES, Simd};
use crate::simd::Kernel;

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The proof, where the CPU gives it.
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }

    /// Runs `kernel`, compiled for these instructions.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn shell<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: an `Avx2` exists only where `detect` found all three features.
        unsafe { shell(self, kernel) }
    }
}

/// Adds the products of unsigned and signed bytes, in pairs, to 16-bit sums.
///
/// Assembly for its place, not for its instructions: what is written before it stays before it. Left to the compiler, an unrolled
/// loop loads and unpacks all of a block first, and what is summed goes to the stack.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply_add(unsigned: __m256i, signed: __m256i, mut sums: __m256i) -> __m256i {
    // SAFETY: registers are all that is touched.
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

/// Calls intrinsics that are safe wherever an [`Avx2`] exists.
macro_rules! avx2 {
    ($e:expr) => {
        // SAFETY: `self` proves AVX2, FMA and F16C; no pointer is involved.
        unsafe { $e }
    };
}

/// Loads 32 bytes.
#[inline(always)]
fn load_bytes(_: Avx2, from: &[u8; 32]) -> __m256i {
    // SAFETY: `from` is 32 readable bytes, any alignment; the proof is the first argument.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// Four activations, `values[at..at + 4]`, in every lane.
#[inline(always)]
fn broadcast(_: Avx2, values: &[i8; BLOCK], at: usize) -> __m256i {
    let four = &values[at..at + 4];
    // SAFETY: `four` is four readable bytes, any alignment; the proof is the first argument.
    unsafe { _mm256_set1_epi32(four.as_ptr().cast::<i32>().read_unaligned()) }
}

/// Stores 32 bytes.
#[inline(always)]
fn store_bytes(_: Avx2, bytes: __m256i, to: &mut [u8; 32]) {
    // SAFETY: `to` is 32 writable bytes, any alignment; the proof is the first argument.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), bytes) }
}

/// Dot products of a block of nibbles: of panel `p` and run `i`, those for activations `8·i..8·i + 4` and for the four after.
macro_rules! dot_nibbles {
    ($simd:expr, $x:expr, $panels:expr, $tokens:expr, |$p:ident, $i:ident| $nibbles:expr) => {
        avx2!({
            let mut pairs = [[_mm256_setzero_si256(); $tokens]; $panels];
            for $i in 0..BLOCK / 8 {
                let (mut low, mut high) =
                    ([_mm256_setzero_si256(); $panels], [_mm256_setzero_si256(); $panels]);
                for $p in 0..$panels {
                    (low[$p], high[$p]) = $nibbles;
                }
                for t in 0..$tokens {
                    let values = broadcast($simd, $x[t].values, 8 * $i);
                    for p in 0..$panels {
                        pairs[p][t] = multiply_add(low[p], values, pairs[p][t]);
                    }
                    let values = broadcast($simd, $x[t].values, 8 * $i + 4);
                    for p in 0..$panels {
                        pairs[p][t] = multiply_add(high[p], values, pairs[p][t]);
                    }
                }
            }
            for t in 0..$tokens {
                let offset = _mm256_set1_epi32(8 * $x[t].sum);
                for p in 0..$panels {
                    let dot = _mm256_madd_epi16(pairs[p][t], _mm256_set1_epi16(1));
                    pairs[p][t] = _mm256_sub_epi32(dot, offset);
                }
            }
            pairs
        })
    };
}

impl Simd for Avx2 {
    type F32 = __m256;
    type I32 = __m256i;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        avx2!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m256 {
        // SAFETY: eight readable f32, any alignment.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> __m256 {
        // SAFETY: sixteen readable bytes, any alignment; `f16` is a transparent u16.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> __m256 {
        // SAFETY: sixteen readable bytes, any alignment; `bf16` is the upper half of an f32.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> __m256 {
        // SAFETY: eight readable bytes, any alignment.
        unsafe {
            let bytes = _mm_loadl_epi64(from.as_ptr().cast());
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
        }
    }
    #[inline(always)]
    fn store(self, v: __m256, to: &mut [f32; LANES]) {
        // SAFETY: eight writable f32, any alignment.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn store_f16(self, v: __m256, to: &mut [f16; LANES]) {
        // SAFETY: sixteen writable bytes, any alignment; `f16` is a transparent u16.
        unsafe {
            let narrow = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v);
            _mm_storeu_si128(to.as_mut_ptr().cast(), narrow);
        }
    }
    #[inline(always)]
    fn store_i8(self, v: __m256, to: &mut [i8; LANES]) {
        // SAFETY: eight writable bytes, any alignment.
        unsafe {
            let wide = _mm256_cvtps_epi32(v);
            let words =
                _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256::<1>(wide));
            _mm_storel_epi64(to.as_mut_ptr().cast(), _mm_packs_epi16(words, words));
        }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        avx2!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        avx2!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a))
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        avx2!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn exp2_integral(self, n: __m256) -> __m256 {
        avx2!({
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        })
    }
    #[inline(always)]
    fn keep_ge(self, a: __m256, b: __m256, v: __m256) -> __m256 {
        avx2!(_mm256_and_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(a, b), v))
    }
    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        avx2!({
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        })
    }
    #[inline(always)]
    fn max_lane(self, v: __m256) -> f32 {
        avx2!({
            let four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        })
    }

    #[inline(always)]
    fn multiply_adds(self, rounds: usize) -> usize {
        // As many as hide the latency, and fit into registers.
        const CHAINS: usize = 8;
        avx2!({
            let mut sums = [_mm256_setzero_si256(); CHAINS];
            let factors = _mm256_set1_epi8(3);
            for _ in 0..rounds {
                for i in 0..CHAINS {
                    sums[i] = multiply_add(factors, factors, sums[i]);
                }
            }
            std::hint::black_box(sums);
        });
        CHAINS * 32
    }
    #[inline(always)]
    fn to_f32(self, v: __m256i) -> __m256 {
        avx2!(_mm256_cvtepi32_ps(v))
    }
    #[inline(always)]
    fn widen_q4(self, run: &[u8; 32]) -> [__m256; 8] {
        let run = load_bytes(self, run);
        avx2!({
            let nibble = |shifted| {
                let low = _mm256_and_si256(shifted, _mm256_set1_epi32(15));
                _mm256_cvtepi32_ps(_mm256_sub_epi32(low, _mm256_set1_epi32(8)))
            };
            [
                nibble(run),
                nibble(_mm256_srli_epi32::<8>(run)),
                nibble(_mm256_srli_epi32::<16>(run)),
                nibble(_mm256_srli_epi32::<24>(run)),
                nibble(_mm256_srli_epi32::<4>(run)),
                nibble(_mm256_srli_epi32::<12>(run)),
                nibble(_mm256_srli_epi32::<20>(run)),
                nibble(_mm256_srli_epi32::<28>(run)),
            ]
        })
    }
    #[inline(always)]
    fn widen_q8(self, run: &[u8; 32]) -> [__m256; 4] {
        let run = load_bytes(self, run);
        avx2!({
            let byte = |shifted| _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(shifted));
            [
                byte(_mm256_slli_epi32::<24>(run)),
                byte(_mm256_slli_epi32::<16>(run)),
                byte(_mm256_slli_epi32::<8>(run)),
                byte(run),
            ]
        })
    }
    #[inline(always)]
    fn dot_q4<const P: usize, const T: usize>(
        self,
        weights: [&[u8; Q4_BLOCK_BYTES]; P],
        x: [Block<'_>; T],
    ) -> [[__m256i; T]; P] {
        dot_nibbles!(self, x, P, T, |p, i| {
            let mask = _mm256_set1_epi8(15);
            let run = load_bytes(self, &weights[p].as_chunks().0[i]);
            (_mm256_and_si256(run, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(run), mask))
        })
    }
    #[inline(always)]
    fn unpack_q4(self, block: &[u8; Q4_BLOCK_BYTES], to: &mut [u8; Q8_BLOCK_BYTES]) {
        let (runs, to) = (block.as_chunks().0, to.as_chunks_mut().0);
        for i in 0..Q4_BLOCK_BYTES / 32 {
            let run = load_bytes(self, &runs[i]);
            avx2!({
                let mask = _mm256_set1_epi8(15);
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(run), mask);
                store_bytes(self, _mm256_and_si256(run, mask), &mut to[2 * i]);
                store_bytes(self, high, &mut to[2 * i + 1]);
            });
        }
    }
    #[inline(always)]
    fn dot_unpacked<const P: usize, const T: usize>(
        self,
        weights: [&[u8; Q8_BLOCK_BYTES]; P],
        x: [Block<'_>; T],
    ) -> [[__m256i; T]; P] {
        dot_nibbles!(self, x, P, T, |p, i| {
            let (runs, _) = weights[p].as_chunks();
            (load_bytes(self, &runs[2 * i]), load_bytes(self, &runs[2 * i + 1]))
        })
    }
    #[inline(always)]
    fn dot_q8<const P: usize, const T: usize>(
        self,
        weights: [&[u8; Q8_BLOCK_BYTES]; P],
        x: [Block<'_>; T],
    ) -> [[__m256i; T]; P] {
        avx2!({
            let mut sums = [[_mm256_setzero_si256(); T]; P];
            for i in 0..Q8_BLOCK_BYTES / 32 {
                for p in 0..P {
                    let run = load_bytes(self, &weights[p].as_chunks().0[i]);
                    let size = _mm256_abs_epi8(run);
                    for t in 0..T {
                        let signed = _mm256_sign_epi8(broadcast(self, x[t].values, 4 * i), run);
                        let pairs = _mm256_maddubs_epi16(size, signed);
                        let four = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                        sums[p][t] = _mm256_add_epi32(sums[p][t], four);
                    }
                }
            }
            sums
        })
    }
}
