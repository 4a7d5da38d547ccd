//! The operations in plain Rust: for CPUs without a supported instruction set, and as the reference of the tests.

use std::hint::black_box;

use half::{bf16, f16};

use super::{
    BLOCK, Block, Interleaved, LANES, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES, Simd, UNPACKED_BLOCK_BYTES,
    Vectors,
};

/// Plain Rust, which every CPU runs.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

type F32 = [f32; LANES];

#[inline(always)]
fn map(a: F32, f: impl Fn(f32) -> f32) -> F32 {
    a.map(f)
}

#[inline(always)]
fn zip(a: F32, b: F32, f: impl Fn(f32, f32) -> f32) -> F32 {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// Nibble `k` (0..8) of row `row` in a run: bytes `4·row..` hold k 0..4 in their low and k 4..8 in their high halves.
#[inline(always)]
fn nibble(run: &[u8], row: usize, k: usize) -> i32 {
    let byte = run[4 * row + k % 4];
    i32::from(if k < 4 { byte & 15 } else { byte >> 4 }) - 8
}

#[inline(always)]
fn byte(run: &[u8], row: usize, k: usize) -> i32 {
    i32::from(run[4 * row + k] as i8)
}

/// The rows of two panels.
type I32 = [[i32; LANES]; 2];

/// The products of four columns of eight rows, `[rows][4]`, with four activations. Elementwise in 16 bits, which LLVM vectorizes
/// on any CPU.
type Products = [i16; 4 * LANES];

/// `sums + run · x`
#[inline(always)]
fn add(sums: Products, run: impl Fn(usize) -> i16, x: &[i8]) -> Products {
    std::array::from_fn(|i| sums[i] + run(i) * i16::from(x[i % 4]))
}

/// Adds the four products of each row.
#[inline(always)]
fn add_rows(sums: &mut [i32; LANES], products: Products) {
    for (sum, products) in sums.iter_mut().zip(products.as_chunks::<4>().0) {
        *sum += products.iter().map(|&x| i32::from(x)).sum::<i32>();
    }
}

#[inline(always)]
fn interleave(a: [i16; LANES], b: [i16; LANES]) -> Interleaved {
    std::array::from_fn(|i| if i % 2 == 0 { a[i / 2] } else { b[i / 2] })
}

/// What a dot product with nibbles starts with.
#[inline(always)]
fn offset<const SIGNED: bool>(x: &Block) -> i32 {
    if SIGNED { x.offset } else { 0 }
}

// Long functions are not inlined here: they need no `target_feature`, and would be compiled a hundred times.

#[inline(never)]
fn unpack_q4(blocks: [&[u8; Q4_BLOCK_BYTES]; 2], to: &mut [u8; UNPACKED_BLOCK_BYTES]) {
    let (to, _) = to.as_chunks_mut::<32>();
    for (panel, block) in blocks.iter().enumerate() {
        for (i, run) in block.as_chunks::<32>().0.iter().enumerate() {
            to[4 * i + panel] = run.map(|byte| byte & 15);
            to[4 * i + 2 + panel] = run.map(|byte| byte >> 4);
        }
    }
}

fn dot_q4(panels: [&[u8; Q4_BLOCK_BYTES]; 2], x: &Block, offset: i32) -> I32 {
    let mut unpacked = [0; UNPACKED_BLOCK_BYTES];
    unpack_q4(panels, &mut unpacked);
    dot_unpacked(&unpacked, x, offset)
}

#[inline(never)]
fn dot_unpacked(pair: &[u8; UNPACKED_BLOCK_BYTES], x: &Block, offset: i32) -> I32 {
    // Sums of eight products of nibbles, at most 15·127 each, fit in 16 bits.
    let mut products = [[0; 4 * LANES]; 2];
    for (runs, x) in pair.as_chunks::<64>().0.iter().zip(x.values.as_chunks::<4>().0) {
        for (run, products) in runs.as_chunks::<32>().0.iter().zip(&mut products) {
            *products = add(*products, |i| i16::from(run[i]), x);
        }
    }
    let mut sums = [[offset; LANES]; 2];
    sums.iter_mut().zip(products).for_each(|(sums, products)| add_rows(sums, products));
    sums
}

fn dot_q8(panels: [&[u8; Q8_BLOCK_BYTES]; 2], x: &Block) -> I32 {
    // 128 is added to each weight; sixteen times the offset subtracts it again.
    let mut sums = [[16 * x.offset; LANES]; 2];
    for (panel, sums) in panels.iter().zip(&mut sums) {
        for (run, x) in panel.as_chunks::<32>().0.iter().zip(x.values.as_chunks::<4>().0) {
            add_q8(sums, run, x);
        }
    }
    sums
}

#[inline(never)]
fn add_q8(sums: &mut [i32; LANES], run: &[u8; 32], x: &[i8; 4]) {
    // Only one product of at most 255·127 fits in 16 bits.
    add_rows(sums, add([0; 4 * LANES], |i| i16::from(run[i] ^ 128), x));
}

impl Vectors for Scalar {
    type F32 = F32;

    const TILE: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> F32 {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> F32 {
        *from
    }
    #[inline(never)]
    fn load_f16(self, from: &[f16; LANES]) -> F32 {
        from.map(f16::to_f32)
    }
    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> F32 {
        from.map(bf16::to_f32)
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> F32 {
        from.map(f32::from)
    }
    #[inline(always)]
    fn load_i16(self, from: &[i16; LANES]) -> F32 {
        from.map(f32::from)
    }
    #[inline(always)]
    fn load_nibbles(self, from: &[u32; LANES], column: usize) -> F32 {
        from.map(|word| (word >> (4 * column) & 15) as f32)
    }
    #[inline(always)]
    fn load_5_bits(self, from: &[u32; 10], column: usize) -> F32 {
        std::array::from_fn(|lane| {
            let byte = from[LANES + lane / 4] >> (8 * (lane % 4));
            ((from[lane] >> (4 * column) & 15) | (byte >> column & 1) << 4) as f32
        })
    }
    #[inline(always)]
    fn store(self, v: F32, to: &mut [f32; LANES]) {
        *to = v;
    }
    #[inline(never)]
    fn store_f16(self, v: [f32; LANES], to: &mut [f16; LANES]) {
        *to = v.map(f16::from_f32);
    }
    #[inline(never)]
    fn store_i8(self, v: F32, to: &mut [i8; LANES]) {
        *to = v.map(|x| x as i8);
    }
    #[inline(always)]
    fn store_i16(self, v: F32, to: &mut [i16; LANES]) {
        *to = v.map(|x| x as i16);
    }
    #[inline(always)]
    fn add(self, a: F32, b: F32) -> F32 {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: F32, b: F32) -> F32 {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: F32, b: F32) -> F32 {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: F32, b: F32) -> F32 {
        zip(a, b, |a, b| a / b)
    }
    /// Rounds twice: `f32::mul_add` is a slow library call on the CPUs that need this implementation.
    #[inline(always)]
    fn fma(self, a: F32, b: F32, c: F32) -> F32 {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: F32, b: F32) -> F32 {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: F32, b: F32) -> F32 {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn abs(self, a: F32) -> F32 {
        map(a, f32::abs)
    }
    #[inline(never)]
    fn round(self, a: F32) -> F32 {
        map(a, f32::round_ties_even)
    }
    #[inline(never)]
    fn exp2_integral(self, n: F32) -> F32 {
        map(n, |n| f32::from_bits(((n as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    fn keep_ge(self, a: F32, b: F32, v: F32) -> F32 {
        std::array::from_fn(|i| if a[i] >= b[i] { v[i] } else { 0.0 })
    }
    #[inline(always)]
    fn sum(self, v: F32) -> f32 {
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
    #[inline(always)]
    fn max_lane(self, v: F32) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    fn hadamard(self, mut v: F32) -> F32 {
        for step in [4, 2, 1] {
            v = std::array::from_fn(|i| {
                if i & step == 0 { v[i] + v[i + step] } else { v[i - step] - v[i] }
            });
        }
        v
    }
    #[inline(always)]
    fn transpose(self, v: [F32; LANES]) -> [F32; LANES] {
        std::array::from_fn(|i| v.map(|v| v[i]))
    }
    #[inline(always)]
    fn interleave_lanes(self, v: [[i16; LANES]; LANES], to: [&mut Interleaved; LANES / 2]) {
        for (j, to) in to.into_iter().enumerate() {
            *to = interleave(v.map(|v| v[2 * j]), v.map(|v| v[2 * j + 1]));
        }
    }

    #[inline(never)]
    fn widen_q4(self, run: &[u8; 32]) -> [F32; 8] {
        std::array::from_fn(|k| std::array::from_fn(|row| nibble(run, row, k) as f32))
    }
    #[inline(never)]
    fn widen_q8(self, run: &[u8; 32]) -> [F32; 4] {
        std::array::from_fn(|k| std::array::from_fn(|row| byte(run, row, k) as f32))
    }
    #[inline(always)]
    fn unpack_q4(self, blocks: [&[u8; Q4_BLOCK_BYTES]; 2], to: &mut [u8; UNPACKED_BLOCK_BYTES]) {
        unpack_q4(blocks, to);
    }
}

impl Simd for Scalar {
    type Pair = [F32; 2];
    type PairI32 = I32;
    type PairI16 = [Interleaved; 2];

    const PAIRS: usize = 1;
    const TOKENS: usize = 1;

    #[inline(always)]
    fn multiply_adds(self, rounds: usize) -> usize {
        // The kernel itself, on data in the L1 cache.
        let (weights, x) =
            ([3; UNPACKED_BLOCK_BYTES], Block { values: [5; BLOCK], ..Block::default() });
        for _ in 0..rounds {
            black_box(dot_unpacked(black_box(&weights), black_box(&x), 0));
        }
        UNPACKED_BLOCK_BYTES
    }
    #[inline(always)]
    fn pair_splat(self, x: f32) -> [F32; 2] {
        [[x; LANES]; 2]
    }
    #[inline(always)]
    fn pair_scales(self, from: [&[f16; LANES]; 2]) -> [F32; 2] {
        [self.load_f16(from[0]), self.load_f16(from[1])]
    }
    #[inline(always)]
    fn pair_zeros(self) -> I32 {
        [[0; LANES]; 2]
    }
    #[inline(always)]
    fn pair_interleave(
        self,
        a: [[i16; LANES]; 2],
        b: [[i16; LANES]; 2],
        to: &mut [Interleaved; 2],
    ) {
        *to = std::array::from_fn(|h| interleave(a[h], b[h]));
    }
    #[inline(always)]
    fn pair_load_interleaved(self, from: &[Interleaved; 2]) -> [Interleaved; 2] {
        *from
    }
    #[inline(always)]
    fn pair_dot_i16(self, columns: [Interleaved; 2], row: [i16; 2], mut sums: I32) -> I32 {
        let [first, second] = row.map(i32::from);
        for (columns, sums) in columns.iter().zip(&mut sums) {
            for (sum, &[a, b]) in sums.iter_mut().zip(columns.as_chunks().0) {
                // The sum of two products wraps too, at −32768 four times.
                let dot = (i32::from(a) * first).wrapping_add(i32::from(b) * second);
                *sum = sum.wrapping_add(dot);
            }
        }
        sums
    }
    #[inline(always)]
    fn pair_to_f32(self, v: I32) -> [F32; 2] {
        v.map(|v| v.map(|x| x as f32))
    }
    #[inline(always)]
    fn pair_mul(self, a: [F32; 2], b: [F32; 2]) -> [F32; 2] {
        std::array::from_fn(|i| self.mul(a[i], b[i]))
    }
    #[inline(always)]
    fn pair_fma(self, a: [F32; 2], b: [F32; 2], c: [F32; 2]) -> [F32; 2] {
        std::array::from_fn(|i| self.fma(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn pair_load(self, from: &[F32; 2]) -> [F32; 2] {
        *from
    }
    #[inline(always)]
    fn pair_load_f16(self, [a, b]: &[[f16; LANES]; 2]) -> [F32; 2] {
        [self.load_f16(a), self.load_f16(b)]
    }
    #[inline(always)]
    fn pair_load_i8(self, [a, b]: &[[i8; LANES]; 2]) -> [F32; 2] {
        [self.load_i8(a), self.load_i8(b)]
    }
    #[inline(always)]
    fn pair_load_i16(self, [a, b]: &[[i16; LANES]; 2]) -> [F32; 2] {
        [self.load_i16(a), self.load_i16(b)]
    }
    #[inline(always)]
    fn pair_load_5_bits(self, from: &[u32; 10], pair: usize) -> [F32; 2] {
        [self.load_5_bits(from, 2 * pair), self.load_5_bits(from, 2 * pair + 1)]
    }
    #[inline(always)]
    fn pair_load_nibbles(self, from: &[u32; LANES], pair: usize) -> [F32; 2] {
        [self.load_nibbles(from, 2 * pair), self.load_nibbles(from, 2 * pair + 1)]
    }
    #[inline(always)]
    fn pair_store(self, v: [F32; 2], to: &mut [F32; 2]) {
        *to = v;
    }

    #[inline(always)]
    fn dot_q4<const P: usize, const T: usize, const SIGNED: bool>(
        self,
        weights: [[&[u8; Q4_BLOCK_BYTES]; 2]; P],
        x: &[Block; T],
    ) -> [[I32; T]; P] {
        weights.map(|panels| x.each_ref().map(|x| dot_q4(panels, x, offset::<SIGNED>(x))))
    }
    #[inline(always)]
    fn dot_unpacked<const P: usize, const T: usize, const SIGNED: bool>(
        self,
        weights: [&[u8; UNPACKED_BLOCK_BYTES]; P],
        x: &[Block; T],
    ) -> [[I32; T]; P] {
        weights.map(|pair| x.each_ref().map(|x| dot_unpacked(pair, x, offset::<SIGNED>(x))))
    }
    #[inline(always)]
    fn dot_q8<const P: usize, const T: usize>(
        self,
        weights: [[&[u8; Q8_BLOCK_BYTES]; 2]; P],
        x: &[Block; T],
    ) -> [[I32; T]; P] {
        weights.map(|panels| x.each_ref().map(|x| dot_q8(panels, x)))
    }
}
