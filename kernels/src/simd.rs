//! The vector operations that kernels are written in.
//!
//! A kernel is a struct of arguments with a [`Kernel::run`] that is generic over [`Vectors`] or [`Simd`]; each instruction set
//! implements those once. Vectors have eight `f32` lanes on every ISA, because weights are stored in panels of eight rows: one
//! lane, one output row. Integer dot products, and attention, use two vectors at once, a *pair*, which is one register where
//! registers are wide enough. An operation whose best shape depends on the ISA is one method, so that no kernel needs a `cfg`.
//!
//! All instruction sets with a fused multiply-add give the same bits: integer arithmetic is exact, and the float operations and
//! their order are the same.

use half::{bf16, f16};

#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

/// Lanes of a vector, and rows of a weight panel.
pub const LANES: usize = 8;

/// Columns that share one activation scale; kernels step through the weights by blocks.
pub const BLOCK: usize = 32;

/// Bytes of one block of a Q4 panel: eight rows of 32 nibbles.
pub const Q4_BLOCK_BYTES: usize = LANES * BLOCK / 2;

/// Bytes of one block of a Q8 panel: eight rows of 32 bytes.
pub const Q8_BLOCK_BYTES: usize = LANES * BLOCK;

/// Bytes of one block of a pair of Q4 panels with one byte per nibble.
pub const UNPACKED_BLOCK_BYTES: usize = 2 * Q8_BLOCK_BYTES;

/// Two 16-bit integers in each of eight lanes.
pub type Interleaved = [i16; 2 * LANES];

/// Thirty-two activations: `x = scale · integer`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Block {
    /// Integers in −127..=127.
    pub values: [i8; BLOCK],
    /// `−8 · Σ values`: the correction of a dot product with nibbles, which are stored with 8 added.
    pub offset: i32,
    /// Applied after the dot product.
    pub scale: f32,
    /// `scale · Σ values`: the sum of the activations.
    pub sum: f32,
}

/// A computation with its arguments as fields, written once for all instruction sets.
pub trait Kernel {
    /// The result, if it is not written to an argument.
    type Output;
    /// Runs the computation. Implementations are `#[inline(always)]`, and so is everything they call that uses `S`, so that the
    /// body is compiled with its instructions.
    fn run<S: Vectors>(self, simd: S) -> Self::Output;
}

/// A computation on pairs of vectors: with the widest registers, and with products of integers. Separate from [`Kernel`], whose code
/// is shared by instruction sets that differ only in pairs.
pub trait PairKernel {
    /// The result, if it is not written to an argument.
    type Output;
    /// Whether it multiplies integers. The code of others is shared by instruction sets that differ only in these products.
    const INTEGERS: bool = false;
    /// Runs the computation, as [`Kernel::run`].
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An element type that loads widen to `f32`.
pub trait Element: Copy + Send + Sync + 'static {
    /// The value as `f32`, exact.
    fn widen(self) -> f32;
    /// Loads eight elements.
    fn load<S: Vectors>(simd: S, from: &[Self; LANES]) -> S::F32;
}

/// Eight-lane arithmetic of an instruction set. A value proves that the CPU has the instructions.
pub trait Vectors: Copy + Send + Sync + 'static {
    /// Eight `f32`.
    type F32: Copy;

    /// Tokens of a GEMM register tile: 1 or 4.
    const TILE: usize;

    /// `[x; 8]`
    fn splat(self, x: f32) -> Self::F32;
    /// Loads eight `f32`.
    fn load(self, from: &[f32; LANES]) -> Self::F32;
    /// Loads eight `f16`, widened.
    fn load_f16(self, from: &[f16; LANES]) -> Self::F32;
    /// Loads eight `bf16`, widened.
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::F32;
    /// Loads eight bytes, widened.
    fn load_i8(self, from: &[i8; LANES]) -> Self::F32;
    /// Loads eight 16-bit integers, widened.
    fn load_i16(self, from: &[i16; LANES]) -> Self::F32;
    /// Column `column` of eight columns of unsigned nibbles, widened: lane `i` is nibble `column` of `from[i]`, the lowest first.
    fn load_nibbles(self, from: &[u32; LANES], column: usize) -> Self::F32;
    /// As [`load_nibbles`](Vectors::load_nibbles), with a fifth bit for each: bit `column` of byte `i` behind the eight words.
    fn load_5_bits(self, from: &[u32; 10], column: usize) -> Self::F32;
    /// Requests the cache lines of `from` for the L2 cache, where the instruction set can: one for every 64 bytes.
    #[inline(always)]
    fn prefetch(self, from: &[u8]) {
        let _ = from;
    }
    /// Stores eight `f32`.
    fn store(self, v: Self::F32, to: &mut [f32; LANES]);
    /// Stores eight values as `f16`, rounded to the nearest, ties to even.
    fn store_f16(self, v: Self::F32, to: &mut [f16; LANES]);
    /// Stores eight integral values of −128..=127 as bytes.
    fn store_i8(self, v: Self::F32, to: &mut [i8; LANES]);
    /// Stores eight integral values of −32768..=32767 as 16-bit integers.
    fn store_i16(self, v: Self::F32, to: &mut [i16; LANES]);

    /// `a + b`
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a − b`
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b + c`, rounded once where the instruction set has a fused multiply-add.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The larger of each pair; `b` where either is NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The smaller of each pair; `b` where either is NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `|a|`
    fn abs(self, a: Self::F32) -> Self::F32;
    /// The nearest integer, ties to even.
    fn round(self, a: Self::F32) -> Self::F32;
    /// `2ⁿ` for integral `n` in −127..=127 (−127 gives 0).
    fn exp2_integral(self, n: Self::F32) -> Self::F32;
    /// `v` where `a ≥ b`, else 0.
    fn keep_ge(self, a: Self::F32, b: Self::F32, v: Self::F32) -> Self::F32;
    /// The sum of the lanes, always in the order `((0+4)+(2+6)) + ((1+5)+(3+7))`.
    fn sum(self, v: Self::F32) -> f32;
    /// The largest lane.
    fn max_lane(self, v: Self::F32) -> f32;
    /// The Walsh–Hadamard transform of the lanes, without its scale: sums and differences of lanes that are 4 apart, then 2, then 1.
    fn hadamard(self, v: Self::F32) -> Self::F32;
    /// Transposes a matrix of 8 × 8: lane `j` of `[i]` is lane `i` of `v[j]`.
    fn transpose(self, v: [Self::F32; LANES]) -> [Self::F32; LANES];
    /// Interleaves the columns of a matrix of 8 × 8, for [`pair_load_interleaved`](Simd::pair_load_interleaved): lane `i` of `to[j]` is lanes
    /// `2 · j` and `2 · j + 1` of `v[i]`. An ISA may choose another order.
    fn interleave_lanes(self, v: [[i16; LANES]; LANES], to: [&mut Interleaved; LANES / 2]);

    /// Widens a run of a Q4 panel: `[i]` is `nibble − 8` of the eight rows at column `k + i`.
    fn widen_q4(self, run: &[u8; 32]) -> [Self::F32; 8];
    /// Widens a run of a Q8 panel: `[i]` is the eight rows at column `k + i`.
    fn widen_q8(self, run: &[u8; 32]) -> [Self::F32; 4];
    /// Unpacks a block of two panels to one byte per nibble, for [`dot_unpacked`](Simd::dot_unpacked). For each run: the low nibbles
    /// of both panels, then the high nibbles of both. An ISA may choose another order within a run of a panel.
    fn unpack_q4(self, blocks: [&[u8; Q4_BLOCK_BYTES]; 2], to: &mut [u8; UNPACKED_BLOCK_BYTES]);
}

/// An instruction set: [`Vectors`], pairs of them, and dot products of 8-bit integers.
pub trait Simd: Vectors {
    /// Two vectors; for weights, those of two panels.
    type Pair: Copy;
    /// Eight `i32` for each of two panels.
    type PairI32: Copy;
    /// Two 16-bit integers in each lane of two vectors.
    type PairI16: Copy;

    /// Height of the GEMM register tile, in panel pairs: 1 or 2.
    const PAIRS: usize;
    /// Width of the GEMM register tile, in tokens: 1, 4 or 6.
    const TOKENS: usize;

    /// Runs `rounds` rounds of 8-bit multiply-adds in registers at full throughput (plain Rust: its own kernel, on data in the cache);
    /// returns the number of multiply-adds in a round.
    fn multiply_adds(self, rounds: usize) -> usize;

    /// `[x; 16]`
    fn pair_splat(self, x: f32) -> Self::Pair;
    /// Loads the scales of two panels, widened.
    fn pair_scales(self, from: [&[f16; LANES]; 2]) -> Self::Pair;
    /// Sixteen zeros.
    fn pair_zeros(self) -> Self::PairI32;
    /// Interleaves two times eight integers, as [`interleave_lanes`](Vectors::interleave_lanes): lane `i` of `to[h]` is `a[h][i]` and
    /// `b[h][i]`.
    fn pair_interleave(self, a: [[i16; LANES]; 2], b: [[i16; LANES]; 2], to: &mut [Interleaved; 2]);
    /// Loads what [`pair_interleave`](Self::pair_interleave) or [`interleave_lanes`](Vectors::interleave_lanes) has stored.
    fn pair_load_interleaved(self, from: &[Interleaved; 2]) -> Self::PairI16;
    /// Adds `a · row[0] + b · row[1]` to each lane of `sums`, which has `a` and `b`; modulo 2³².
    fn pair_dot_i16(
        self,
        columns: Self::PairI16,
        row: [i16; 2],
        sums: Self::PairI32,
    ) -> Self::PairI32;
    /// Converts each integer to the nearest `f32`.
    fn pair_to_f32(self, v: Self::PairI32) -> Self::Pair;
    /// `a · b`
    fn pair_mul(self, a: Self::Pair, b: Self::Pair) -> Self::Pair;
    /// `a · b + c`, as [`fma`](Vectors::fma).
    fn pair_fma(self, a: Self::Pair, b: Self::Pair, c: Self::Pair) -> Self::Pair;
    /// `a · b + sum`, as [`pair_fma`](Self::pair_fma). Where registers are few, LLVM cannot hoist later loads above it: in a loop with
    /// many sums, those would spill the sums.
    #[inline(always)]
    fn pair_accumulate(self, a: Self::Pair, b: Self::Pair, sum: Self::Pair) -> Self::Pair {
        self.pair_fma(a, b, sum)
    }
    /// Loads two vectors.
    fn pair_load(self, from: &[[f32; LANES]; 2]) -> Self::Pair;
    /// Loads two times eight `f16`, widened.
    fn pair_load_f16(self, from: &[[f16; LANES]; 2]) -> Self::Pair;
    /// Loads two times eight bytes, widened.
    fn pair_load_i8(self, from: &[[i8; LANES]; 2]) -> Self::Pair;
    /// Loads two times eight 16-bit integers, widened.
    fn pair_load_i16(self, from: &[[i16; LANES]; 2]) -> Self::Pair;
    /// Columns `2 · pair` and `2 · pair + 1` of eight columns of nibbles, as [`load_nibbles`](Vectors::load_nibbles).
    fn pair_load_nibbles(self, from: &[u32; LANES], pair: usize) -> Self::Pair;
    /// Columns `2 · pair` and `2 · pair + 1`, as [`load_5_bits`](Vectors::load_5_bits).
    fn pair_load_5_bits(self, from: &[u32; 10], pair: usize) -> Self::Pair;
    /// Stores two vectors.
    fn pair_store(self, v: Self::Pair, to: &mut [[f32; LANES]; 2]);

    /// `Σ (nibble − 8) · x` over a block, for the rows of `P` pairs of panels and `T` tokens; or `Σ nibble · x`, unless `SIGNED`.
    fn dot_q4<const P: usize, const T: usize, const SIGNED: bool>(
        self,
        weights: [[&[u8; Q4_BLOCK_BYTES]; 2]; P],
        x: &[Block; T],
    ) -> [[Self::PairI32; T]; P];
    /// As [`dot_q4`](Self::dot_q4), of unpacked blocks.
    fn dot_unpacked<const P: usize, const T: usize, const SIGNED: bool>(
        self,
        weights: [&[u8; UNPACKED_BLOCK_BYTES]; P],
        x: &[Block; T],
    ) -> [[Self::PairI32; T]; P];
    /// `Σ byte · x` over a block, for the rows of `P` pairs of panels and `T` tokens.
    fn dot_q8<const P: usize, const T: usize>(
        self,
        weights: [[&[u8; Q8_BLOCK_BYTES]; 2]; P],
        x: &[Block; T],
    ) -> [[Self::PairI32; T]; P];
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn load<S: Vectors>(simd: S, from: &[Self; LANES]) -> S::F32 {
        simd.load(from)
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn load<S: Vectors>(simd: S, from: &[Self; LANES]) -> S::F32 {
        simd.load_f16(from)
    }
}

impl Element for i8 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    fn load<S: Vectors>(simd: S, from: &[Self; LANES]) -> S::F32 {
        simd.load_i8(from)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn load<S: Vectors>(simd: S, from: &[Self; LANES]) -> S::F32 {
        simd.load_bf16(from)
    }
}
