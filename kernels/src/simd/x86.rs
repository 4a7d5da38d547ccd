//! The operations on x86-64. Eight lanes are a 256-bit register with AVX2, FMA and F16C (Haswell, Zen and later), also on wider
//! instruction sets, which differ only in their pairs.

use core::arch::asm;
use core::arch::x86_64::*;

use half::{bf16, f16};

use super::{BLOCK, Interleaved, LANES, Q4_BLOCK_BYTES, UNPACKED_BLOCK_BYTES, Vectors};

/// The dot products of a block for `$tokens` tokens and `$pairs` pairs of `HALVES` vectors. `$weights` is an expression for the
/// unsigned bytes of half `$h` of pair `$p` at activations `8·$i..8·$i + 4`, and those at the next four.
///
/// A macro, because a closure that is not inlined loses the enclosing `target_feature`. The calling module defines `broadcast`,
/// which repeats four activations, and the steps of a sum: `start`, `multiply_add` and `finish`.
macro_rules! dot_block {
    ($simd:expr, $x:expr, $pairs:expr, $tokens:expr, $offset:expr,
     |$p:ident, $h:ident, $i:ident| $weights:expr) => {{
        let mut sums = [[[start($simd, 0); HALVES]; $tokens]; $pairs];
        for t in 0..$tokens {
            let first = start($simd, $offset * $x[t].offset);
            for p in 0..$pairs {
                sums[p][t] = [first; HALVES];
            }
        }
        for $i in 0..BLOCK / 8 {
            if $tokens == 1 {
                // Each weight is used once, so only one vector of them is in registers at a time.
                let first = broadcast($simd, &$x[0].values, 8 * $i);
                let second = broadcast($simd, &$x[0].values, 8 * $i + 4);
                for $p in 0..$pairs {
                    for $h in 0..HALVES {
                        let weights = $weights;
                        let sum = multiply_add($simd, weights[0], first, sums[$p][0][$h]);
                        sums[$p][0][$h] = multiply_add($simd, weights[1], second, sum);
                    }
                }
                continue;
            }
            let mut weights = [[[start($simd, 0); 2]; HALVES]; $pairs];
            for $p in 0..$pairs {
                for $h in 0..HALVES {
                    weights[$p][$h] = $weights;
                }
            }
            for t in 0..$tokens {
                for j in 0..2 {
                    let values = broadcast($simd, &$x[t].values, 8 * $i + 4 * j);
                    for p in 0..$pairs {
                        for h in 0..HALVES {
                            sums[p][t][h] =
                                multiply_add($simd, weights[p][h][j], values, sums[p][t][h]);
                        }
                    }
                }
            }
        }
        for t in 0..$tokens {
            let offset = $offset * $x[t].offset;
            for p in 0..$pairs {
                for h in 0..HALVES {
                    sums[p][t][h] = finish($simd, sums[p][t][h], offset);
                }
            }
        }
        sums
    }};
}

/// Calls intrinsics that are safe if the CPU has the instructions.
macro_rules! x86 {
    ($e:expr) => {
        // SAFETY: the caller has a value of the instruction set, which proves them; no pointer is involved.
        unsafe { $e }
    };
}

/// The methods of [`Simd`](super::Simd) for pairs of two registers, except products with signed weights. Products of 16-bit integers are those of
/// a function `dot`.
macro_rules! pair_words {
    () => {
        type Pair = [__m256; 2];
        type PairI32 = [__m256i; 2];
        type PairI16 = [__m256i; 2];

        const PAIRS: usize = 1;
        const TOKENS: usize = 4;

        #[inline(always)]
        fn pair_splat(self, x: f32) -> [__m256; 2] {
            [self.splat(x); 2]
        }
        #[inline(always)]
        fn pair_scales(self, [a, b]: [&[f16; LANES]; 2]) -> [__m256; 2] {
            [self.load_f16(a), self.load_f16(b)]
        }
        #[inline(always)]
        fn pair_zeros(self) -> [__m256i; 2] {
            x86!([_mm256_setzero_si256(); 2])
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
            let halves = x86!({
                let (low, high) = (_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b));
                [
                    _mm256_permute2x128_si256::<0x20>(low, high),
                    _mm256_permute2x128_si256::<0x31>(low, high),
                ]
            });
            for (half, to) in halves.into_iter().zip(to) {
                store_bytes(self, half, bytemuck::cast_mut(to));
            }
        }
        #[inline(always)]
        fn pair_load_interleaved(self, [a, b]: &[Interleaved; 2]) -> [__m256i; 2] {
            [load_bytes(self, bytemuck::cast_ref(a)), load_bytes(self, bytemuck::cast_ref(b))]
        }
        #[inline(always)]
        fn pair_dot_i16(
            self,
            columns: [__m256i; 2],
            row: [i16; 2],
            sums: [__m256i; 2],
        ) -> [__m256i; 2] {
            let row = x86!(_mm256_set1_epi32(bytemuck::cast(row)));
            x86!([dot(columns[0], row, sums[0]), dot(columns[1], row, sums[1])])
        }
        #[inline(always)]
        fn pair_to_f32(self, [a, b]: [__m256i; 2]) -> [__m256; 2] {
            x86!([_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b)])
        }
        #[inline(always)]
        fn pair_mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            [self.mul(a[0], b[0]), self.mul(a[1], b[1])]
        }
        #[inline(always)]
        fn pair_fma(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
            [self.fma(a[0], b[0], c[0]), self.fma(a[1], b[1], c[1])]
        }
        #[inline(always)]
        fn pair_accumulate(self, a: [__m256; 2], b: [__m256; 2], sum: [__m256; 2]) -> [__m256; 2] {
            x86!([super::accumulate(a[0], b[0], sum[0]), super::accumulate(a[1], b[1], sum[1])])
        }
        #[inline(always)]
        fn pair_load(self, [a, b]: &[[f32; LANES]; 2]) -> [__m256; 2] {
            [self.load(a), self.load(b)]
        }
        #[inline(always)]
        fn pair_load_f16(self, [a, b]: &[[f16; LANES]; 2]) -> [__m256; 2] {
            [self.load_f16(a), self.load_f16(b)]
        }
        #[inline(always)]
        fn pair_load_i8(self, [a, b]: &[[i8; LANES]; 2]) -> [__m256; 2] {
            [self.load_i8(a), self.load_i8(b)]
        }
        #[inline(always)]
        fn pair_load_i16(self, [a, b]: &[[i16; LANES]; 2]) -> [__m256; 2] {
            [self.load_i16(a), self.load_i16(b)]
        }
        #[inline(always)]
        fn pair_load_5_bits(self, from: &[u32; 10], pair: usize) -> [__m256; 2] {
            [self.load_5_bits(from, 2 * pair), self.load_5_bits(from, 2 * pair + 1)]
        }
        #[inline(always)]
        fn pair_load_nibbles(self, from: &[u32; LANES], pair: usize) -> [__m256; 2] {
            [self.load_nibbles(from, 2 * pair), self.load_nibbles(from, 2 * pair + 1)]
        }
        #[inline(always)]
        fn pair_store(self, v: [__m256; 2], [a, b]: &mut [[f32; LANES]; 2]) {
            self.store(v[0], a);
            self.store(v[1], b);
        }

        #[inline(always)]
        fn dot_q4<const P: usize, const T: usize, const SIGNED: bool>(
            self,
            weights: [[&[u8; Q4_BLOCK_BYTES]; 2]; P],
            x: &[Block; T],
        ) -> [[[__m256i; 2]; T]; P] {
            dot_block!(self, x, P, T, i32::from(SIGNED), |p, h, i| nibbles(
                self,
                &weights[p][h].as_chunks().0[i]
            ))
        }
        #[inline(always)]
        fn dot_unpacked<const P: usize, const T: usize, const SIGNED: bool>(
            self,
            weights: [&[u8; UNPACKED_BLOCK_BYTES]; P],
            x: &[Block; T],
        ) -> [[[__m256i; 2]; T]; P] {
            dot_block!(self, x, P, T, i32::from(SIGNED), |p, h, i| {
                let (vectors, _) = weights[p].as_chunks();
                [load_bytes(self, &vectors[4 * i + h]), load_bytes(self, &vectors[4 * i + 2 + h])]
            })
        }
    };
}

pub(crate) mod avx2;
pub(crate) mod avx512;
pub(crate) mod avx_vnni;

/// Instruction sets that include AVX2, FMA and F16C.
///
/// # Safety
/// A value exists only where the CPU has the three.
pub(crate) unsafe trait X86: Copy + Send + Sync + 'static {}

/// Loads eight 16-bit integers.
#[inline(always)]
fn load_words(_: impl X86, from: &[i16; LANES]) -> __m128i {
    // SAFETY: `from` is sixteen readable bytes, any alignment; the proof is the first argument.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// Loads 32 bytes.
#[inline(always)]
fn load_bytes(_: impl X86, from: &[u8; 32]) -> __m256i {
    // SAFETY: `from` is 32 readable bytes, any alignment; the proof is the first argument.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// Stores 32 bytes.
#[inline(always)]
fn store_bytes(_: impl X86, bytes: __m256i, to: &mut [u8; 32]) {
    // SAFETY: `to` is 32 writable bytes, any alignment; the proof is the first argument.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), bytes) }
}

/// `a · b + sum`. FMA as asm so that LLVM cannot hoist later loads above it and spill accumulators.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn accumulate(a: __m256, b: __m256, mut sum: __m256) -> __m256 {
    // SAFETY: it accesses no memory. Without `nomem`, LLVM keeps its order with loads.
    unsafe {
        asm!(
            "vfmadd231ps {sum}, {a}, {b}",
            sum = inout(ymm_reg) sum,
            a = in(ymm_reg) a,
            b = in(ymm_reg) b,
            options(nostack),
        );
    }
    sum
}

/// Four activations, `values[at..at + 4]`, as one integer.
#[inline(always)]
fn four(values: &[i8; BLOCK], at: usize) -> i32 {
    let [a, b, c, d] = *values[at..].first_chunk().expect("four values");
    i32::from_le_bytes([a as u8, b as u8, c as u8, d as u8])
}

/// The low and the high nibbles of a run, one byte each.
#[inline(always)]
fn nibbles(simd: impl X86, run: &[u8; 32]) -> [__m256i; 2] {
    let run = load_bytes(simd, run);
    x86!({
        let mask = _mm256_set1_epi8(15);
        [_mm256_and_si256(run, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(run), mask)]
    })
}

impl<S: X86> Vectors for S {
    type F32 = __m256;

    const TILE: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        x86!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    fn prefetch(self, from: &[u8]) {
        let start = from.as_ptr().cast::<i8>();
        for line in (0..from.len()).step_by(64) {
            // SAFETY: the address is within `from`, and a prefetch does not read it. Every x86-64 CPU has the instruction.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(start.add(line)) };
        }
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m256 {
        // SAFETY: eight readable f32, any alignment. `self` proves the rest.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> __m256 {
        // SAFETY: sixteen readable bytes, any alignment; `f16` is a transparent u16. `self` proves the rest.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> __m256 {
        // SAFETY: sixteen readable bytes, any alignment; `bf16` is the upper half of an f32. `self` proves the rest.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> __m256 {
        // SAFETY: eight readable bytes, any alignment. `self` proves the rest.
        unsafe {
            let bytes = _mm_loadl_epi64(from.as_ptr().cast());
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
        }
    }
    #[inline(always)]
    fn load_i16(self, from: &[i16; LANES]) -> __m256 {
        x86!(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(load_words(self, from))))
    }
    #[inline(always)]
    fn load_nibbles(self, from: &[u32; LANES], column: usize) -> __m256 {
        // SAFETY: 32 readable bytes, any alignment. `self` proves the rest.
        unsafe {
            let words = _mm256_loadu_si256(from.as_ptr().cast());
            let words = _mm256_srl_epi32(words, _mm_cvtsi32_si128(4 * column as i32));
            _mm256_cvtepi32_ps(_mm256_and_si256(words, _mm256_set1_epi32(15)))
        }
    }
    #[inline(always)]
    fn load_5_bits(self, from: &[u32; 10], column: usize) -> __m256 {
        let from: *const u32 = from.as_ptr();
        // SAFETY: 40 readable bytes, any alignment. `self` proves the rest.
        unsafe {
            let count = |n: usize| _mm_cvtsi32_si128(n as i32);
            let words = _mm256_srl_epi32(_mm256_loadu_si256(from.cast()), count(4 * column));
            let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.add(LANES).cast()));
            // Bit `column` becomes bit 4.
            let fifth = match column {
                0..=4 => _mm256_sll_epi32(bytes, count(4 - column)),
                _ => _mm256_srl_epi32(bytes, count(column - 4)),
            };
            let low = _mm256_and_si256(words, _mm256_set1_epi32(15));
            let fifth = _mm256_and_si256(fifth, _mm256_set1_epi32(16));
            _mm256_cvtepi32_ps(_mm256_or_si256(low, fifth))
        }
    }
    #[inline(always)]
    fn store(self, v: __m256, to: &mut [f32; LANES]) {
        // SAFETY: eight writable f32, any alignment. `self` proves the rest.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn store_f16(self, v: __m256, to: &mut [f16; LANES]) {
        // SAFETY: sixteen writable bytes, any alignment; `f16` is a transparent u16. `self` proves the rest.
        unsafe {
            let narrow = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v);
            _mm_storeu_si128(to.as_mut_ptr().cast(), narrow);
        }
    }
    #[inline(always)]
    fn store_i8(self, v: __m256, to: &mut [i8; LANES]) {
        // SAFETY: eight writable bytes, any alignment. `self` proves the rest.
        unsafe {
            let wide = _mm256_cvtps_epi32(v);
            let words =
                _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256::<1>(wide));
            _mm_storel_epi64(to.as_mut_ptr().cast(), _mm_packs_epi16(words, words));
        }
    }
    #[inline(always)]
    fn store_i16(self, v: __m256, to: &mut [i16; LANES]) {
        // SAFETY: sixteen writable bytes, any alignment. `self` proves the rest.
        unsafe {
            let wide = _mm256_cvtps_epi32(v);
            let words =
                _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256::<1>(wide));
            _mm_storeu_si128(to.as_mut_ptr().cast(), words);
        }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        x86!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        x86!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        x86!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        x86!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        x86!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        x86!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        x86!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        x86!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a))
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        x86!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn exp2_integral(self, n: __m256) -> __m256 {
        x86!({
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        })
    }
    #[inline(always)]
    fn keep_ge(self, a: __m256, b: __m256, v: __m256) -> __m256 {
        x86!(_mm256_and_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(a, b), v))
    }
    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        x86!({
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        })
    }
    #[inline(always)]
    fn max_lane(self, v: __m256) -> f32 {
        x86!({
            let four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        })
    }
    #[inline(always)]
    fn hadamard(self, v: __m256) -> __m256 {
        x86!({
            // The other lane of each pair, plus the lane or minus it.
            let other = _mm256_permute2f128_ps::<1>(v, v);
            let minus = _mm256_setr_ps(0.0, 0.0, 0.0, 0.0, -0.0, -0.0, -0.0, -0.0);
            let v = _mm256_add_ps(other, _mm256_xor_ps(v, minus));
            let other = _mm256_permute_ps::<0b01_00_11_10>(v);
            let minus = _mm256_setr_ps(0.0, 0.0, -0.0, -0.0, 0.0, 0.0, -0.0, -0.0);
            let v = _mm256_add_ps(other, _mm256_xor_ps(v, minus));
            let other = _mm256_permute_ps::<0b10_11_00_01>(v);
            let minus = _mm256_setr_ps(0.0, -0.0, 0.0, -0.0, 0.0, -0.0, 0.0, -0.0);
            _mm256_add_ps(other, _mm256_xor_ps(v, minus))
        })
    }
    #[inline(always)]
    fn transpose(self, v: [__m256; LANES]) -> [__m256; LANES] {
        let mut rows = [self.splat(0.0); LANES];
        // Rows 0..4 of four columns in the lower halves, rows 4..8 in the upper ones.
        let mut fours = [rows[0]; LANES];
        for first in [0, 4] {
            let [a, b, c, d] = [v[first], v[first + 1], v[first + 2], v[first + 3]];
            x86!({
                let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                let (ab_next, cd_next) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                fours[first] = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
                fours[first + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd);
                fours[first + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(ab_next, cd_next);
                fours[first + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(ab_next, cd_next);
            });
        }
        for i in 0..4 {
            x86!({
                rows[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
                rows[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
            });
        }
        rows
    }

    #[inline(always)]
    fn interleave_lanes(self, v: [[i16; LANES]; LANES], to: [&mut Interleaved; LANES / 2]) {
        // The lower half is a vector, the upper half the fourth vector after it. Two adjacent lanes are one of 32 bits.
        let both = |i: usize| {
            let (low, high) = (load_words(self, &v[i]), load_words(self, &v[i + 4]));
            x86!(_mm256_set_m128i(high, low))
        };
        let [a, b, c, d] = [both(0), both(1), both(2), both(3)];
        let rows = x86!({
            let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
            let (ab_next, cd_next) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab, cd),
                _mm256_unpackhi_epi64(ab, cd),
                _mm256_unpacklo_epi64(ab_next, cd_next),
                _mm256_unpackhi_epi64(ab_next, cd_next),
            ]
        });
        for (row, to) in rows.into_iter().zip(to) {
            store_bytes(self, row, bytemuck::cast_mut(to));
        }
    }

    #[inline(always)]
    fn widen_q4(self, run: &[u8; 32]) -> [__m256; 8] {
        let run = load_bytes(self, run);
        x86!({
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
        x86!({
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
    fn unpack_q4(self, blocks: [&[u8; Q4_BLOCK_BYTES]; 2], to: &mut [u8; UNPACKED_BLOCK_BYTES]) {
        let (to, _) = to.as_chunks_mut();
        for panel in 0..2 {
            let (runs, _) = blocks[panel].as_chunks();
            for i in 0..Q4_BLOCK_BYTES / 32 {
                let [low, high] = nibbles(self, &runs[i]);
                store_bytes(self, low, &mut to[4 * i + panel]);
                store_bytes(self, high, &mut to[4 * i + 2 + panel]);
            }
        }
    }
}
