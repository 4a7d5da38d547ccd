//! The operations on AArch64. Eight lanes are two NEON registers, which every such CPU has; instruction sets differ in their products
//! of bytes.
//!
//! The float operations and their order are those of x86-64, so the bits are the same. Only a NaN that is made of numbers has another
//! sign.

use core::arch::aarch64::*;

use half::{bf16, f16};

use super::{
    BLOCK, Interleaved, LANES, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES, UNPACKED_BLOCK_BYTES, Vectors,
};

/// Calls intrinsics that are safe if the CPU has the instructions.
macro_rules! neon {
    ($e:expr) => {
        // SAFETY: the caller has a value of the instruction set, which proves them; no pointer is involved.
        unsafe { $e }
    };
}

/// The methods of [`Simd`](super::Simd) for pairs, except products of bytes. A pair is four registers, the first two of them for the
/// first panel.
macro_rules! pair_words {
    () => {
        type Pair = [[float32x4_t; 2]; 2];
        type PairI32 = [int32x4_t; 4];
        type PairI16 = [int16x8_t; 4];

        // 16 of the 32 registers are sums.
        const PAIRS: usize = 1;
        const TOKENS: usize = 4;

        #[inline(always)]
        fn pair_splat(self, x: f32) -> Self::Pair {
            [self.splat(x); 2]
        }
        #[inline(always)]
        fn pair_scales(self, [a, b]: [&[f16; LANES]; 2]) -> Self::Pair {
            [self.load_f16(a), self.load_f16(b)]
        }
        #[inline(always)]
        fn pair_zeros(self) -> Self::PairI32 {
            neon!([vdupq_n_s32(0); 4])
        }
        #[inline(always)]
        fn pair_interleave(
            self,
            a: [[i16; LANES]; 2],
            b: [[i16; LANES]; 2],
            to: &mut [Interleaved; 2],
        ) {
            for h in 0..2 {
                to[h][..LANES].copy_from_slice(&a[h]);
                to[h][LANES..].copy_from_slice(&b[h]);
            }
        }
        #[inline(always)]
        fn pair_load_interleaved(self, [a, b]: &[Interleaved; 2]) -> Self::PairI16 {
            let ([a, b], [c, d]) = (load_both(self, a), load_both(self, b));
            [a, b, c, d]
        }
        #[inline(always)]
        fn pair_dot_i16(
            self,
            columns: Self::PairI16,
            [first, second]: [i16; 2],
            sums: Self::PairI32,
        ) -> Self::PairI32 {
            let [a, b, c, d] = columns;
            neon!([
                vmlal_n_s16(vmlal_n_s16(sums[0], vget_low_s16(a), first), vget_low_s16(b), second),
                vmlal_high_n_s16(vmlal_high_n_s16(sums[1], a, first), b, second),
                vmlal_n_s16(vmlal_n_s16(sums[2], vget_low_s16(c), first), vget_low_s16(d), second),
                vmlal_high_n_s16(vmlal_high_n_s16(sums[3], c, first), d, second),
            ])
        }
        #[inline(always)]
        fn pair_to_f32(self, [a, b, c, d]: Self::PairI32) -> Self::Pair {
            neon!([[vcvtq_f32_s32(a), vcvtq_f32_s32(b)], [vcvtq_f32_s32(c), vcvtq_f32_s32(d)]])
        }
        #[inline(always)]
        fn pair_mul(self, a: Self::Pair, b: Self::Pair) -> Self::Pair {
            [self.mul(a[0], b[0]), self.mul(a[1], b[1])]
        }
        #[inline(always)]
        fn pair_fma(self, a: Self::Pair, b: Self::Pair, c: Self::Pair) -> Self::Pair {
            [self.fma(a[0], b[0], c[0]), self.fma(a[1], b[1], c[1])]
        }
        #[inline(always)]
        fn pair_load(self, [a, b]: &[[f32; LANES]; 2]) -> Self::Pair {
            [self.load(a), self.load(b)]
        }
        #[inline(always)]
        fn pair_load_f16(self, [a, b]: &[[f16; LANES]; 2]) -> Self::Pair {
            [self.load_f16(a), self.load_f16(b)]
        }
        #[inline(always)]
        fn pair_load_i8(self, [a, b]: &[[i8; LANES]; 2]) -> Self::Pair {
            [self.load_i8(a), self.load_i8(b)]
        }
        #[inline(always)]
        fn pair_load_i16(self, [a, b]: &[[i16; LANES]; 2]) -> Self::Pair {
            [self.load_i16(a), self.load_i16(b)]
        }
        #[inline(always)]
        fn pair_load_5_bits(self, from: &[u32; 10], pair: usize) -> Self::Pair {
            [self.load_5_bits(from, 2 * pair), self.load_5_bits(from, 2 * pair + 1)]
        }
        #[inline(always)]
        fn pair_load_nibbles(self, from: &[u32; LANES], pair: usize) -> Self::Pair {
            [self.load_nibbles(from, 2 * pair), self.load_nibbles(from, 2 * pair + 1)]
        }
        #[inline(always)]
        fn pair_store(self, v: Self::Pair, [a, b]: &mut [[f32; LANES]; 2]) {
            self.store(v[0], a);
            self.store(v[1], b);
        }
    };
}

pub(crate) mod dotprod;
pub(crate) mod i8mm;
pub(crate) mod plain;

/// Instruction sets that include NEON.
///
/// # Safety
/// A value exists only where the CPU has it.
pub(crate) unsafe trait Neon: Copy + Send + Sync + 'static {
    /// Whether unpacked bytes are stored eight columns of a row at a time, and not four.
    const EIGHT_COLUMNS: bool = false;
}

/// The integers of a block of two panels, in any storage.
trait Integers: Copy {
    /// Whether they are in the layout of [`unpack_q4`](Vectors::unpack_q4).
    const UNPACKED: bool = false;

    /// Columns `8·i..8·i + 4` of the first and of the last four rows of a panel, then the next four columns. For unpacked bytes with
    /// [`Neon::EIGHT_COLUMNS`]: eight columns of two rows each.
    fn columns(self, simd: impl Neon, panel: usize, i: usize) -> [[int8x16_t; 2]; 2];
}

impl Integers for [&[u8; Q4_BLOCK_BYTES]; 2] {
    #[inline(always)]
    fn columns(self, simd: impl Neon, panel: usize, i: usize) -> [[int8x16_t; 2]; 2] {
        nibbles(simd, &self[panel].as_chunks().0[i])
    }
}

impl Integers for &[u8; UNPACKED_BLOCK_BYTES] {
    const UNPACKED: bool = true;

    #[inline(always)]
    fn columns(self, simd: impl Neon, panel: usize, i: usize) -> [[int8x16_t; 2]; 2] {
        let (runs, _) = self.as_chunks();
        [load_run(simd, &runs[4 * i + panel]), load_run(simd, &runs[4 * i + 2 + panel])]
    }
}

impl Integers for [&[u8; Q8_BLOCK_BYTES]; 2] {
    #[inline(always)]
    fn columns(self, simd: impl Neon, panel: usize, i: usize) -> [[int8x16_t; 2]; 2] {
        let (runs, _) = self[panel].as_chunks();
        [load_run(simd, &runs[2 * i]), load_run(simd, &runs[2 * i + 1])]
    }
}

/// Loads 32 bytes.
#[inline(always)]
fn load_run(_: impl Neon, from: &[u8; 32]) -> [int8x16_t; 2] {
    let from = from.as_ptr().cast();
    // SAFETY: 32 readable bytes, any alignment; the proof is the first argument.
    unsafe { [vld1q_s8(from), vld1q_s8(from.add(16))] }
}

/// Stores 32 bytes.
#[inline(always)]
fn store_run(_: impl Neon, [a, b]: [int8x16_t; 2], to: &mut [u8; 32]) {
    let to = to.as_mut_ptr().cast();
    // SAFETY: 32 writable bytes, any alignment; the proof is the first argument.
    unsafe {
        vst1q_s8(to, a);
        vst1q_s8(to.add(16), b);
    }
}

/// Sixteen activations, `values[16 · half..]`.
#[inline(always)]
fn load_half(_: impl Neon, values: &[i8; BLOCK], half: usize) -> int8x16_t {
    let values: &[i8; 16] = &values.as_chunks().0[half];
    // SAFETY: sixteen readable bytes, any alignment; the proof is the first argument.
    unsafe { vld1q_s8(values.as_ptr()) }
}

/// Loads eight 16-bit integers.
#[inline(always)]
fn load_words(_: impl Neon, from: &[i16; LANES]) -> int16x8_t {
    // SAFETY: eight readable integers, any alignment; the proof is the first argument.
    unsafe { vld1q_s16(from.as_ptr()) }
}

/// Stores eight 16-bit integers.
#[inline(always)]
fn store_words(_: impl Neon, v: int16x8_t, to: &mut [i16; LANES]) {
    // SAFETY: eight writable integers, any alignment; the proof is the first argument.
    unsafe { vst1q_s16(to.as_mut_ptr(), v) }
}

/// Loads interleaved integers: here one vector after the other, because a product has a scalar operand.
#[inline(always)]
fn load_both(simd: impl Neon, from: &Interleaved) -> [int16x8_t; 2] {
    let (words, _) = from.as_chunks();
    [load_words(simd, &words[0]), load_words(simd, &words[1])]
}

/// The low and the high nibbles of a run, one byte each.
#[inline(always)]
fn nibbles(simd: impl Neon, run: &[u8; 32]) -> [[int8x16_t; 2]; 2] {
    let [a, b] = load_run(simd, run);
    neon!({
        let (a, b) = (vreinterpretq_u8_s8(a), vreinterpretq_u8_s8(b));
        let low = [vandq_u8(a, vdupq_n_u8(15)), vandq_u8(b, vdupq_n_u8(15))];
        let high = [vshrq_n_u8::<4>(a), vshrq_n_u8::<4>(b)];
        [
            [vreinterpretq_s8_u8(low[0]), vreinterpretq_s8_u8(low[1])],
            [vreinterpretq_s8_u8(high[0]), vreinterpretq_s8_u8(high[1])],
        ]
    })
}

/// Rearranges two vectors of four columns of four rows into two of eight columns of two rows.
#[inline(always)]
fn eight_columns(_: impl Neon, four: int8x16_t, next: int8x16_t) -> [int8x16_t; 2] {
    neon!({
        let (four, next) = (vreinterpretq_s32_s8(four), vreinterpretq_s32_s8(next));
        let (first, last) = (vzip1q_s32(four, next), vzip2q_s32(four, next));
        [vreinterpretq_s8_s32(first), vreinterpretq_s8_s32(last)]
    })
}

/// Widens the bytes of four rows: one vector for each column.
#[inline(always)]
fn widen(_: impl Neon, bytes: int8x16_t) -> [float32x4_t; 4] {
    neon!({
        let row = vreinterpretq_s32_s8(bytes);
        [
            vcvtq_f32_s32(vshrq_n_s32::<24>(vshlq_n_s32::<24>(row))),
            vcvtq_f32_s32(vshrq_n_s32::<24>(vshlq_n_s32::<16>(row))),
            vcvtq_f32_s32(vshrq_n_s32::<24>(vshlq_n_s32::<8>(row))),
            vcvtq_f32_s32(vshrq_n_s32::<24>(row)),
        ]
    })
}

impl<S: Neon> Vectors for S {
    type F32 = [float32x4_t; 2];

    const TILE: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        neon!([vdupq_n_f32(x); 2])
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F32 {
        let from = from.as_ptr();
        // SAFETY: eight readable f32, any alignment. `self` proves the rest.
        unsafe { [vld1q_f32(from), vld1q_f32(from.add(4))] }
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> Self::F32 {
        let from = from.as_ptr().cast();
        // SAFETY: eight readable u16, any alignment; `f16` is a transparent u16.
        unsafe {
            let (low, high) = (vld1_u16(from), vld1_u16(from.add(4)));
            [vcvt_f32_f16(vreinterpret_f16_u16(low)), vcvt_f32_f16(vreinterpret_f16_u16(high))]
        }
    }
    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::F32 {
        let from = from.as_ptr().cast();
        // SAFETY: eight readable u16, any alignment; `bf16` is the upper half of an f32.
        unsafe {
            let (low, high) = (vmovl_u16(vld1_u16(from)), vmovl_u16(vld1_u16(from.add(4))));
            [
                vreinterpretq_f32_u32(vshlq_n_u32::<16>(low)),
                vreinterpretq_f32_u32(vshlq_n_u32::<16>(high)),
            ]
        }
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::F32 {
        // SAFETY: eight readable bytes, any alignment. `self` proves the rest.
        unsafe {
            let words = vmovl_s8(vld1_s8(from.as_ptr()));
            let (low, high) = (vmovl_s16(vget_low_s16(words)), vmovl_high_s16(words));
            [vcvtq_f32_s32(low), vcvtq_f32_s32(high)]
        }
    }
    #[inline(always)]
    fn load_i16(self, from: &[i16; LANES]) -> Self::F32 {
        let words = load_words(self, from);
        neon!({
            let (low, high) = (vmovl_s16(vget_low_s16(words)), vmovl_high_s16(words));
            [vcvtq_f32_s32(low), vcvtq_f32_s32(high)]
        })
    }
    #[inline(always)]
    fn load_nibbles(self, from: &[u32; LANES], column: usize) -> Self::F32 {
        let from = from.as_ptr().cast();
        // SAFETY: eight readable words, any alignment. `self` proves the rest.
        unsafe {
            let (count, mask) = (vdupq_n_s32(-4 * column as i32), vdupq_n_u32(15));
            let nibble = |words| vcvtq_f32_u32(vandq_u32(vshlq_u32(words, count), mask));
            [nibble(vld1q_u32(from)), nibble(vld1q_u32(from.add(4)))]
        }
    }
    #[inline(always)]
    fn load_5_bits(self, from: &[u32; 10], column: usize) -> Self::F32 {
        let from: *const u32 = from.as_ptr();
        // SAFETY: ten readable words, any alignment. `self` proves the rest.
        unsafe {
            let (low, fifth) = (vdupq_n_s32(-4 * column as i32), vdupq_n_s32(4 - column as i32));
            let integer = |words, bytes| {
                let low = vandq_u32(vshlq_u32(words, low), vdupq_n_u32(15));
                // Bit `column` becomes bit 4.
                let fifth = vandq_u32(vshlq_u32(bytes, fifth), vdupq_n_u32(16));
                vcvtq_f32_u32(vorrq_u32(low, fifth))
            };
            let bytes = vmovl_u8(vld1_u8(from.add(LANES).cast()));
            let first = integer(vld1q_u32(from), vmovl_u16(vget_low_u16(bytes)));
            [first, integer(vld1q_u32(from.add(4)), vmovl_high_u16(bytes))]
        }
    }
    #[inline(always)]
    fn store(self, v: Self::F32, to: &mut [f32; LANES]) {
        let to = to.as_mut_ptr();
        // SAFETY: eight writable f32, any alignment. `self` proves the rest.
        unsafe {
            vst1q_f32(to, v[0]);
            vst1q_f32(to.add(4), v[1]);
        }
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F32, to: &mut [f16; LANES]) {
        let to = to.as_mut_ptr().cast();
        // SAFETY: eight writable u16, any alignment; `f16` is a transparent u16.
        unsafe {
            vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(v[0])));
            vst1_u16(to.add(4), vreinterpret_u16_f16(vcvt_f16_f32(v[1])));
        }
    }
    #[inline(always)]
    fn store_i8(self, v: Self::F32, to: &mut [i8; LANES]) {
        // SAFETY: eight writable bytes, any alignment. `self` proves the rest.
        unsafe {
            let (low, high) = (vcvtnq_s32_f32(v[0]), vcvtnq_s32_f32(v[1]));
            let words = vcombine_s16(vqmovn_s32(low), vqmovn_s32(high));
            vst1_s8(to.as_mut_ptr(), vqmovn_s16(words));
        }
    }
    #[inline(always)]
    fn store_i16(self, v: Self::F32, to: &mut [i16; LANES]) {
        let words = neon!({
            let (low, high) = (vcvtnq_s32_f32(v[0]), vcvtnq_s32_f32(v[1]));
            vcombine_s16(vqmovn_s32(low), vqmovn_s32(high))
        });
        store_words(self, words, to);
    }
    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        neon!([vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        neon!([vsubq_f32(a[0], b[0]), vsubq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        neon!([vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        neon!([vdivq_f32(a[0], b[0]), vdivq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        neon!([vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])])
    }
    // `fmax` and `fmin` return NaN if either is NaN.
    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        neon!([
            vbslq_f32(vcgtq_f32(a[0], b[0]), a[0], b[0]),
            vbslq_f32(vcgtq_f32(a[1], b[1]), a[1], b[1]),
        ])
    }
    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        neon!([
            vbslq_f32(vcltq_f32(a[0], b[0]), a[0], b[0]),
            vbslq_f32(vcltq_f32(a[1], b[1]), a[1], b[1]),
        ])
    }
    #[inline(always)]
    fn abs(self, a: Self::F32) -> Self::F32 {
        neon!([vabsq_f32(a[0]), vabsq_f32(a[1])])
    }
    #[inline(always)]
    fn round(self, a: Self::F32) -> Self::F32 {
        neon!([vrndnq_f32(a[0]), vrndnq_f32(a[1])])
    }
    #[inline(always)]
    fn exp2_integral(self, n: Self::F32) -> Self::F32 {
        neon!({
            let low = vaddq_s32(vcvtnq_s32_f32(n[0]), vdupq_n_s32(127));
            let high = vaddq_s32(vcvtnq_s32_f32(n[1]), vdupq_n_s32(127));
            [
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(low)),
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(high)),
            ]
        })
    }
    #[inline(always)]
    fn keep_ge(self, a: Self::F32, b: Self::F32, v: Self::F32) -> Self::F32 {
        neon!({
            let low = vandq_u32(vcgeq_f32(a[0], b[0]), vreinterpretq_u32_f32(v[0]));
            let high = vandq_u32(vcgeq_f32(a[1], b[1]), vreinterpretq_u32_f32(v[1]));
            [vreinterpretq_f32_u32(low), vreinterpretq_f32_u32(high)]
        })
    }
    #[inline(always)]
    fn sum(self, v: Self::F32) -> f32 {
        neon!({
            let four = vaddq_f32(v[0], v[1]);
            vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
        })
    }
    #[inline(always)]
    fn max_lane(self, v: Self::F32) -> f32 {
        let four = self.max([v[0]; 2], [v[1]; 2])[0];
        neon!({
            let (low, high) = (vget_low_f32(four), vget_high_f32(four));
            let two = vbsl_f32(vcgt_f32(low, high), low, high);
            let (a, b) = (vget_lane_f32::<0>(two), vget_lane_f32::<1>(two));
            if a > b { a } else { b }
        })
    }
    #[inline(always)]
    fn hadamard(self, [low, high]: Self::F32) -> Self::F32 {
        neon!({
            [vaddq_f32(low, high), vsubq_f32(low, high)].map(|v| {
                let (low, high) = (vget_low_f32(v), vget_high_f32(v));
                let v = vcombine_f32(vadd_f32(low, high), vsub_f32(low, high));
                let (even, odd) = (vtrn1q_f32(v, v), vtrn2q_f32(v, v));
                vtrn1q_f32(vaddq_f32(even, odd), vsubq_f32(even, odd))
            })
        })
    }
    #[inline(always)]
    fn transpose(self, v: [Self::F32; LANES]) -> [Self::F32; LANES] {
        let mut rows = [self.splat(0.0); LANES];
        for to in 0..2 {
            let [a, b, c, d] = [v[4 * to], v[4 * to + 1], v[4 * to + 2], v[4 * to + 3]];
            for from in 0..2 {
                neon!({
                    // Elements 0 and 2, then 1 and 3, of two columns.
                    let (ab, ab_odd) = (vtrn1q_f32(a[from], b[from]), vtrn2q_f32(a[from], b[from]));
                    let (cd, cd_odd) = (vtrn1q_f32(c[from], d[from]), vtrn2q_f32(c[from], d[from]));
                    let low = |x, y| vcombine_f32(vget_low_f32(x), vget_low_f32(y));
                    let high = |x, y| vcombine_f32(vget_high_f32(x), vget_high_f32(y));
                    rows[4 * from][to] = low(ab, cd);
                    rows[4 * from + 1][to] = low(ab_odd, cd_odd);
                    rows[4 * from + 2][to] = high(ab, cd);
                    rows[4 * from + 3][to] = high(ab_odd, cd_odd);
                })
            }
        }
        rows
    }

    #[inline(always)]
    fn interleave_lanes(self, v: [[i16; LANES]; LANES], to: [&mut Interleaved; LANES / 2]) {
        let v = v.each_ref().map(|v| load_words(self, v));
        // Lanes 0, 2, 4 and 6, or 1, 3, 5 and 7, of two vectors; then 0 and 4, 2 and 6, ..., of four; then one lane of eight.
        neon!({
            let wide = |i: usize| {
                let (even, odd) = (vtrn1q_s16(v[i], v[i + 1]), vtrn2q_s16(v[i], v[i + 1]));
                [vreinterpretq_s32_s16(even), vreinterpretq_s32_s16(odd)]
            };
            let [ab, cd, ef, gh] = [wide(0), wide(2), wide(4), wide(6)];
            let four = |a: [int32x4_t; 2], b: [int32x4_t; 2]| {
                let wide = |v| vreinterpretq_s64_s32(v);
                [
                    wide(vtrn1q_s32(a[0], b[0])),
                    wide(vtrn1q_s32(a[1], b[1])),
                    wide(vtrn2q_s32(a[0], b[0])),
                    wide(vtrn2q_s32(a[1], b[1])),
                ]
            };
            let (low, high) = (four(ab, cd), four(ef, gh));
            for (j, to) in to.into_iter().enumerate() {
                for k in 0..2 {
                    let (low, high) = (low[2 * (j % 2) + k], high[2 * (j % 2) + k]);
                    let lane = if j < 2 { vtrn1q_s64(low, high) } else { vtrn2q_s64(low, high) };
                    store_words(self, vreinterpretq_s16_s64(lane), &mut to.as_chunks_mut().0[k]);
                }
            }
        })
    }

    #[inline(always)]
    fn widen_q4(self, run: &[u8; 32]) -> [Self::F32; 8] {
        let [[a, b], [c, d]] = nibbles(self, run);
        neon!({
            let eight = vdupq_n_s8(8);
            let (a, b) = (widen(self, vsubq_s8(a, eight)), widen(self, vsubq_s8(b, eight)));
            let (c, d) = (widen(self, vsubq_s8(c, eight)), widen(self, vsubq_s8(d, eight)));
            [
                [a[0], b[0]],
                [a[1], b[1]],
                [a[2], b[2]],
                [a[3], b[3]],
                [c[0], d[0]],
                [c[1], d[1]],
                [c[2], d[2]],
                [c[3], d[3]],
            ]
        })
    }
    #[inline(always)]
    fn widen_q8(self, run: &[u8; 32]) -> [Self::F32; 4] {
        let [a, b] = load_run(self, run);
        let (a, b) = (widen(self, a), widen(self, b));
        [[a[0], b[0]], [a[1], b[1]], [a[2], b[2]], [a[3], b[3]]]
    }
    #[inline(always)]
    fn unpack_q4(self, blocks: [&[u8; Q4_BLOCK_BYTES]; 2], to: &mut [u8; UNPACKED_BLOCK_BYTES]) {
        let (to, _) = to.as_chunks_mut();
        for panel in 0..2 {
            for i in 0..BLOCK / 8 {
                let [mut first, mut last] = blocks.columns(self, panel, i);
                if S::EIGHT_COLUMNS {
                    let [a, b] = [first, last];
                    first = eight_columns(self, a[0], b[0]);
                    last = eight_columns(self, a[1], b[1]);
                }
                store_run(self, first, &mut to[4 * i + panel]);
                store_run(self, last, &mut to[4 * i + 2 + panel]);
            }
        }
    }
}
