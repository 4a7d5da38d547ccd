//! The words that kernels are written in.
//!
//! A kernel is a struct of arguments with a [`Kernel::run`] that is generic over [`Simd`]; each instruction set says the words once.
//! Vectors have eight `f32` lanes everywhere, because weights come in panels of eight rows: one lane, one output row. Integer
//! dot products, and floats that are many, take two vectors side by side, a *pair*, which is one register where those are wide
//! enough. Work whose shape depends on the instruction set is one word, so that no kernel needs a `cfg`.
//!
//! All instruction sets with a fused multiply-add give the same bits: integers are exact, and what is done to the floats and
//! in which order is the same.

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

/// Values along `k` that share one activation scale, and the step in which weights are consumed.
pub const BLOCK: usize = 32;

/// Bytes of one block of a Q4 panel: eight rows of 32 nibbles.
pub const Q4_BLOCK_BYTES: usize = LANES * BLOCK / 2;

/// Bytes of one block of a Q8 panel: eight rows of 32 bytes.
pub const Q8_BLOCK_BYTES: usize = LANES * BLOCK;

/// Bytes of one block of a pair of Q4 panels whose nibbles have a byte each.
pub const UNPACKED_BLOCK_BYTES: usize = 2 * Q8_BLOCK_BYTES;

/// Thirty-two activations: `x = scale · integer`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Block {
    /// Integers in −127..=127.
    pub values: [i8; BLOCK],
    /// `−8 · Σ values`: what a dot product with nibbles lacks, which are stored 8 too large.
    pub offset: i32,
    /// What the integers count; applied after the dot product.
    pub scale: f32,
}

/// One computation, its arguments as fields, written once for all instruction sets.
pub trait Kernel {
    /// What it computes, where that is not written into an argument.
    type Output;
    /// Computes. Implementations are `#[inline(always)]`, as is all they call that uses the instructions of `S`, so that the body
    /// is compiled with them.
    fn run<S: Vectors>(self, simd: S) -> Self::Output;
}

/// A computation in pairs of vectors: with the widest registers, and products of bytes. Kept apart from [`Kernel`], of which
/// instruction sets that differ in nothing else can share the code.
pub trait PairKernel {
    /// What it computes, where that is not written into an argument.
    type Output;
    /// Computes, as [`Kernel::run`].
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An element type that is widened to `f32` on loading.
pub trait Element: Copy + Send + Sync + 'static {
    /// Its value as `f32`, exact.
    fn widen(self) -> f32;
    /// Eight of them as a vector.
    fn load<S: Vectors>(simd: S, from: &[Self; LANES]) -> S::F32;
}

/// Eight-lane arithmetic of an instruction set. A value of the type proves that the CPU has the instructions.
pub trait Vectors: Copy + Send + Sync + 'static {
    /// Eight `f32`.
    type F32: Copy;

    /// Tokens that weights meet at a time, as the registers allow: 1 or 4.
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
    /// Stores eight `f32`.
    fn store(self, v: Self::F32, to: &mut [f32; LANES]);
    /// Stores eight values as `f16`, rounded to the nearest, ties to even.
    fn store_f16(self, v: Self::F32, to: &mut [f16; LANES]);
    /// Stores eight integral values of −128..=127 as bytes.
    fn store_i8(self, v: Self::F32, to: &mut [i8; LANES]);

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

    /// Widens a run of a Q4 panel: `[i]` holds `nibble − 8` of the eight rows at `k + i`.
    fn widen_q4(self, run: &[u8; 32]) -> [Self::F32; 8];
    /// Widens a run of a Q8 panel: `[i]` holds the eight rows at `k + i`.
    fn widen_q8(self, run: &[u8; 32]) -> [Self::F32; 4];
    /// A byte for each nibble of a block of two panels, as [`dot_unpacked`](Simd::dot_unpacked) takes them: for each run first the
    /// low ones of both, then the high ones of both, or another order within the run and panel.
    fn unpack_q4(self, blocks: [&[u8; Q4_BLOCK_BYTES]; 2], to: &mut [u8; UNPACKED_BLOCK_BYTES]);
}

/// An instruction set: its floats, and pairs of vectors, also as dot products of 8-bit integers.
pub trait Simd: Vectors {
    /// Two vectors, of two panels where weights are multiplied.
    type Pair: Copy;
    /// Eight `i32` for each of two panels.
    type PairI32: Copy;

    /// Pairs of panels that many tokens meet at a time, as the registers allow: 1 or 2.
    const PAIRS: usize;
    /// Tokens that they meet at a time: 1, 4 or 6.
    const TOKENS: usize;

    /// Multiplies and adds 8-bit integers in registers for `rounds` rounds, as fast as that can be done (plain Rust: its own kernel, all
    /// at hand); returns how many multiply-adds a round has.
    fn multiply_adds(self, rounds: usize) -> usize;

    /// `[x; 16]`
    fn pair_splat(self, x: f32) -> Self::Pair;
    /// Loads the scales of two panels, widened.
    fn pair_scales(self, from: [&[f16; LANES]; 2]) -> Self::Pair;
    /// Each integer as the nearest `f32`.
    fn pair_to_f32(self, v: Self::PairI32) -> Self::Pair;
    /// `a · b`
    fn pair_mul(self, a: Self::Pair, b: Self::Pair) -> Self::Pair;
    /// `a · b + c`, as [`fma`](Vectors::fma).
    fn pair_fma(self, a: Self::Pair, b: Self::Pair, c: Self::Pair) -> Self::Pair;
    /// `a · b + sum`, as [`pair_fma`](Self::pair_fma). What is written before it is loaded before it, where registers are few: a loop
    /// with many sums would otherwise load so much in advance that it has to put sums aside.
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
    /// Stores two vectors.
    fn pair_store(self, v: Self::Pair, to: &mut [[f32; LANES]; 2]);

    /// `Σ (nibble − 8) · x` over a block, for the rows of `P` pairs of panels and `T` tokens.
    fn dot_q4<const P: usize, const T: usize>(
        self,
        weights: [[&[u8; Q4_BLOCK_BYTES]; 2]; P],
        x: &[Block; T],
    ) -> [[Self::PairI32; T]; P];
    /// As [`dot_q4`](Self::dot_q4), of blocks that are unpacked.
    fn dot_unpacked<const P: usize, const T: usize>(
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
