//! Every operation of every instruction set against plain Rust, to the bit.

use half::{bf16, f16};
use proptest::prelude::*;

use super::scalar::Scalar;
use super::*;
use crate::Isa;

type Lanes = [f32; LANES];

/// The operations on vectors. The values of `small` are integral and in −127..=127.
#[derive(Clone, Copy, Debug)]
struct Floats {
    a: Lanes,
    b: Lanes,
    small: Lanes,
    integers: [i16; LANES],
    halves: [u16; LANES],
    run: [u8; 32],
    words: [u32; LANES],
    fives: [u32; 10],
    column: usize,
}

impl Kernel for Floats {
    type Output = Vec<(&'static str, Lanes)>;

    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) -> Self::Output {
        let (a, b, small) = (simd.load(&self.a), simd.load(&self.b), simd.load(&self.small));
        let (mut halves, mut bytes) = ([f16::ZERO; LANES], [0; LANES]);
        simd.store_f16(a, &mut halves);
        simd.store_i8(small, &mut bytes);
        let mut integers = [0; LANES];
        simd.store_i16(simd.load(&self.integers.map(f32::from)), &mut integers);
        let vectors = [
            ("load_f16", simd.load_f16(&self.halves.map(f16::from_bits))),
            ("load_bf16", simd.load_bf16(&self.halves.map(bf16::from_bits))),
            ("load_i8", simd.load_i8(&bytes)),
            ("load_i16", simd.load_i16(&self.integers)),
            ("store_i16", simd.load(&integers.map(f32::from))),
            ("load_nibbles", simd.load_nibbles(&self.words, self.column)),
            ("load_5_bits", simd.load_5_bits(&self.fives, self.column)),
            ("add", simd.add(a, b)),
            ("sub", simd.sub(a, b)),
            ("mul", simd.mul(a, b)),
            ("div", simd.div(a, b)),
            ("max", simd.max(a, b)),
            ("min", simd.min(a, b)),
            ("abs", simd.abs(a)),
            ("round", simd.round(a)),
            ("exp2_integral", simd.exp2_integral(small)),
            ("keep_ge", simd.keep_ge(a, b, small)),
            ("sum", simd.splat(simd.sum(a))),
            ("max_lane", simd.splat(simd.max_lane(small))),
        ];
        let mut all = vec![("store_f16", halves.map(f16::to_f32))];
        let vectors = vectors.into_iter().chain(simd.widen_q4(&self.run).map(|v| ("widen_q4", v)));
        for (word, v) in vectors.chain(simd.widen_q8(&self.run).map(|v| ("widen_q8", v))) {
            let mut lanes = [f32::NAN; LANES];
            simd.store(v, &mut lanes);
            all.push((word, lanes));
        }
        all
    }
}

/// The operations on pairs.
#[derive(Clone, Copy, Debug)]
struct Pairs {
    a: [Lanes; 2],
    b: [Lanes; 2],
    scales: [[u16; LANES]; 2],
    bytes: [[i8; LANES]; 2],
    integers: [[i16; LANES]; 2],
    words: [u32; LANES],
    fives: [u32; 10],
    pair: usize,
}

impl PairKernel for Pairs {
    type Output = Vec<(&'static str, [Lanes; 2])>;
    const INTEGERS: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let (a, b) = (simd.pair_load(&self.a), simd.pair_load(&self.b));
        let scales = self.scales.map(|scales| scales.map(f16::from_bits));
        let mut all = Vec::new();
        for (word, v) in [
            ("pair_load", a),
            ("pair_splat", simd.pair_splat(self.b[1][7])),
            ("pair_load_f16", simd.pair_load_f16(&scales)),
            ("pair_load_i8", simd.pair_load_i8(&self.bytes)),
            ("pair_load_i16", simd.pair_load_i16(&self.integers)),
            ("pair_load_nibbles", simd.pair_load_nibbles(&self.words, self.pair)),
            ("pair_load_5_bits", simd.pair_load_5_bits(&self.fives, self.pair)),
            ("pair_scales", simd.pair_scales([&scales[0], &scales[1]])),
            ("pair_mul", simd.pair_mul(a, b)),
        ] {
            let mut lanes = [[f32::NAN; LANES]; 2];
            simd.pair_store(v, &mut lanes);
            all.push((word, lanes));
        }
        all
    }
}

struct Transpose([Lanes; LANES]);

impl Kernel for Transpose {
    type Output = [Lanes; LANES];

    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) -> [Lanes; LANES] {
        let mut rows = [[f32::NAN; LANES]; LANES];
        let columns = self.0.each_ref().map(|column| simd.load(column));
        for (row, to) in simd.transpose(columns).into_iter().zip(&mut rows) {
            simd.store(row, to);
        }
        rows
    }
}

/// Products of 16-bit integers of a matrix of 8 × 16 with `row`.
#[derive(Clone, Copy, Debug)]
struct Integers {
    /// `[8]`, pairs of vectors
    matrix: [[[i16; LANES]; 2]; LANES],
    row: [i16; LANES],
}

impl PairKernel for Integers {
    /// Sums over the vectors, and sums over the lanes of each vector.
    type Output = [[Lanes; 2]; 2];
    const INTEGERS: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Self { matrix, row } = self;
        let mut interleaved = [[[[0; 2 * LANES]; 2]; LANES / 2]; 2];
        for (i, to) in interleaved[0].iter_mut().enumerate() {
            simd.pair_interleave(matrix[2 * i], matrix[2 * i + 1], to);
        }
        for half in 0..2 {
            let to = interleaved[1].each_mut().map(|to| &mut to[half]);
            simd.interleave_lanes(matrix.map(|vectors| vectors[half]), to);
        }
        interleaved.map(|vectors| {
            let mut sums = simd.pair_zeros();
            for (vector, &row) in vectors.iter().zip(row.as_chunks().0) {
                sums = simd.pair_dot_i16(simd.pair_load_interleaved(vector), row, sums);
            }
            let mut lanes = [[f32::NAN; LANES]; 2];
            simd.pair_store(simd.pair_to_f32(sums), &mut lanes);
            lanes
        })
    }
}

struct Fma(Lanes, Lanes, Lanes);

/// A pair of the same operands, in reverse order in the second vector.
struct PairFma(Lanes, Lanes, Lanes);

impl PairKernel for PairFma {
    /// By `pair_fma` and by `pair_accumulate`.
    type Output = [[Lanes; 2]; 2];
    const INTEGERS: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let pair = |a: Lanes| {
            let mut reversed = a;
            reversed.reverse();
            [a, reversed]
        };
        let [a, b, c] = [self.0, self.1, self.2].map(|x| simd.pair_load(&pair(x)));
        let mut lanes = [[[f32::NAN; LANES]; 2]; 2];
        simd.pair_store(simd.pair_fma(a, b, c), &mut lanes[0]);
        simd.pair_store(simd.pair_accumulate(a, b, c), &mut lanes[1]);
        lanes
    }
}

impl Kernel for Fma {
    type Output = Lanes;

    #[inline(always)]
    fn run<S: Vectors>(self, simd: S) -> Lanes {
        let mut lanes = [f32::NAN; LANES];
        simd.store(
            simd.fma(simd.load(&self.0), simd.load(&self.1), simd.load(&self.2)),
            &mut lanes,
        );
        lanes
    }
}

/// Dot products of two pairs of panels with several tokens, and with one.
#[derive(Clone, Debug)]
struct Dots {
    q4: [[[u8; Q4_BLOCK_BYTES]; 2]; 2],
    q8: [[[u8; Q8_BLOCK_BYTES]; 2]; 2],
    x: [[i8; BLOCK]; 6],
}

#[derive(Clone, Copy, Debug)]
enum Word {
    Q4 { signed: bool },
    Unpacked { signed: bool },
    Q8,
}

impl Dots {
    /// The weight of a row of a pair's panel at column `k`, by the definition of the layout.
    fn weight(&self, word: Word, pair: usize, panel: usize, row: usize, k: usize) -> i32 {
        match word {
            Word::Q4 { signed } | Word::Unpacked { signed } => {
                let byte = self.q4[pair][panel][k / 8 * 32 + row * 4 + k % 4];
                i32::from(if k % 8 < 4 { byte & 15 } else { byte >> 4 })
                    - if signed { 8 } else { 0 }
            }
            Word::Q8 => i32::from(self.q8[pair][panel][k / 4 * 32 + row * 4 + k % 4] as i8),
        }
    }

    /// `Σ weight · x`.
    fn dot(&self, word: Word, pair: usize, panel: usize, row: usize, token: usize) -> i32 {
        let product = |k| self.weight(word, pair, panel, row, k) * i32::from(self.x[token][k]);
        (0..BLOCK).map(product).sum()
    }
}

impl PairKernel for &Dots {
    /// For each operation, pair and token: the rows.
    type Output = Vec<(Word, usize, usize, [Lanes; 2])>;
    const INTEGERS: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let mut all = Vec::new();
        dots::<S, 1, 1>(simd, self, &mut all);
        dots::<S, 2, 1>(simd, self, &mut all);
        dots::<S, 1, 2>(simd, self, &mut all);
        dots::<S, 1, 3>(simd, self, &mut all);
        dots::<S, 1, 4>(simd, self, &mut all);
        dots::<S, 2, 6>(simd, self, &mut all);
        all
    }
}

#[inline(always)]
fn dots<S: Simd, const P: usize, const T: usize>(
    simd: S,
    Dots { q4, q8, x }: &Dots,
    all: &mut <&Dots as PairKernel>::Output,
) {
    let mut unpacked = [[0; UNPACKED_BLOCK_BYTES]; 2];
    for (pair, to) in q4.iter().zip(&mut unpacked) {
        simd.unpack_q4([&pair[0], &pair[1]], to);
    }
    let tokens = &std::array::from_fn(|t| {
        let sum = x[t].iter().map(|x| i32::from(*x)).sum::<i32>();
        Block { values: x[t], offset: -8 * sum, scale: 1.0, sum: sum as f32 }
    });
    let packed = std::array::from_fn(|p| [&q4[p][0], &q4[p][1]]);
    let unpacked = std::array::from_fn(|p| &unpacked[p]);
    let bytes = std::array::from_fn(|p| [&q8[p][0], &q8[p][1]]);
    let products: [(Word, [[S::PairI32; T]; P]); 5] = [
        (Word::Q4 { signed: true }, simd.dot_q4::<P, T, true>(packed, tokens)),
        (Word::Q4 { signed: false }, simd.dot_q4::<P, T, false>(packed, tokens)),
        (Word::Unpacked { signed: true }, simd.dot_unpacked::<P, T, true>(unpacked, tokens)),
        (Word::Unpacked { signed: false }, simd.dot_unpacked::<P, T, false>(unpacked, tokens)),
        (Word::Q8, simd.dot_q8(bytes, tokens)),
    ];
    for (word, products) in products {
        for (p, t) in (0..P).flat_map(|p| (0..T).map(move |t| (p, t))) {
            let mut rows = [[f32::NAN; LANES]; 2];
            simd.pair_store(simd.pair_to_f32(products[p][t]), &mut rows);
            all.push((word, p, t, rows));
        }
    }
}

/// Instruction sets differ in the bits of a NaN.
fn bits(x: f32) -> u32 {
    if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }
}

fn any_f32() -> impl Strategy<Value = f32> {
    use prop::num::f32::{INFINITE, NEGATIVE, NORMAL, POSITIVE, QUIET_NAN, SUBNORMAL, ZERO};
    let any = POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO | INFINITE | QUIET_NAN;
    // Also values near integers and half-integers, and within and around the range of f16.
    prop_oneof![any, -70_000f32..70_000.0, (-300i16..300).prop_map(|n| f32::from(n) / 2.0)]
}

fn lanes() -> impl Strategy<Value = Lanes> {
    prop::array::uniform8(any_f32())
}

prop_compose! {
    fn floats()(
        a in lanes(),
        b in lanes(),
        small in any::<[i8; LANES]>(),
        integers in any::<[i16; LANES]>(),
        halves in any::<[u16; LANES]>(),
        run in any::<[u8; 32]>(),
        words in any::<[u32; LANES]>(),
        fives in any::<[u32; 10]>(),
        column in 0..LANES,
    ) -> Floats {
        let small = small.map(|x| f32::from(x.max(-127)));
        Floats { a, b, small, integers, halves, run, words, fives, column }
    }
}

prop_compose! {
    fn any_pairs()(
        a in [lanes(), lanes()],
        b in [lanes(), lanes()],
        scales in any::<[[u16; LANES]; 2]>(),
        bytes in any::<[[i8; LANES]; 2]>(),
        integers in any::<[[i16; LANES]; 2]>(),
        words in any::<[u32; LANES]>(),
        fives in any::<[u32; 10]>(),
        pair in 0..LANES / 2,
    ) -> Pairs {
        Pairs { a, b, scales, bytes, integers, words, fives, pair }
    }
}

/// Any bytes, or all of them the same extreme one.
fn bytes(n: usize) -> impl Strategy<Value = Vec<u8>> {
    let extreme = prop::sample::select(vec![0u8, 127, 128, 255]);
    prop_oneof![prop::collection::vec(any::<u8>(), n), extreme.prop_map(move |byte| vec![byte; n]),]
}

prop_compose! {
    fn dot_cases()(
        q4 in bytes(4 * Q4_BLOCK_BYTES),
        q8 in bytes(4 * Q8_BLOCK_BYTES),
        x in bytes(6 * BLOCK),
    ) -> Dots {
        let x: Vec<_> = x.iter().map(|x| (*x as i8).max(-127)).collect();
        let block = |x: &[i8]| -> [i8; BLOCK] { x.try_into().unwrap() };
        Dots {
            q4: pairs(&q4),
            q8: pairs(&q8),
            x: std::array::from_fn(|t| block(&x[t * BLOCK..][..BLOCK])),
        }
    }
}

fn pairs<const B: usize>(bytes: &[u8]) -> [[[u8; B]; 2]; 2] {
    let blocks = bytes.as_chunks().0;
    [[blocks[0], blocks[1]], [blocks[2], blocks[3]]]
}

/// Any integers, or all of them the same extreme one.
fn integers(n: usize) -> impl Strategy<Value = Vec<i16>> {
    let extreme = prop::sample::select(vec![0, i16::MAX, i16::MIN]);
    prop_oneof![prop::collection::vec(any::<i16>(), n), extreme.prop_map(move |x| vec![x; n])]
}

#[test]
fn a_transpose_has_rows_for_columns() {
    let columns: [Lanes; LANES] =
        std::array::from_fn(|j| std::array::from_fn(|i| (10 * i + j) as f32));
    let expected: [Lanes; LANES] =
        std::array::from_fn(|i| std::array::from_fn(|j| (10 * i + j) as f32));
    for isa in Isa::available() {
        assert_eq!(isa.run(Transpose(columns)), expected, "{isa}");
    }
}

proptest! {
    #[test]
    fn floats_have_the_bits_of_plain_rust(case in floats()) {
        let expected = case.run(Scalar);
        for isa in Isa::available() {
            for ((word, found), (_, expected)) in isa.run(case).iter().zip(&expected) {
                prop_assert_eq!(found.map(bits), expected.map(bits), "{}: {} {:?}", isa, word, case);
            }
        }
    }

    #[test]
    fn a_fused_multiply_add_rounds_once(a in lanes(), b in lanes(), c in lanes()) {
        let expected: Lanes = std::array::from_fn(|i| a[i].mul_add(b[i], c[i]));
        for isa in Isa::available().into_iter().skip(1) {
            let found = isa.run(Fma(a, b, c));
            prop_assert_eq!(found.map(bits), expected.map(bits), "{}", isa);
            for [first, mut second] in isa.run_pairs(PairFma(a, b, c)) {
                second.reverse();
                let found = [first, second].map(|x| x.map(bits));
                prop_assert_eq!(found, [expected.map(bits); 2], "{}", isa);
            }
        }
    }

    #[test]
    fn pairs_have_the_bits_of_plain_rust(case in any_pairs()) {
        let expected = case.run(Scalar);
        for isa in Isa::available() {
            for ((word, found), (_, expected)) in isa.run_pairs(case).iter().zip(&expected) {
                let [found, expected] = [found, expected].map(|x| x.map(|x| x.map(bits)));
                prop_assert_eq!(found, expected, "{}: {} {:?}", isa, word, case);
            }
        }
    }

    #[test]
    fn products_of_16_bit_integers_are_exact(matrix in integers(128), row in integers(LANES)) {
        let (vectors, _) = matrix.as_chunks();
        let case = Integers {
            matrix: std::array::from_fn(|i| [vectors[2 * i], vectors[2 * i + 1]]),
            row: std::array::from_fn(|i| row[i]),
        };
        let product = |x: i16, y: i16| i32::from(x) * i32::from(y);
        let sum = |products: [i32; LANES]| products.into_iter().fold(0i32, i32::wrapping_add) as f32;
        let over_vectors = [0, 1].map(|half| {
            std::array::from_fn(|lane| {
                sum(std::array::from_fn(|i| product(case.matrix[i][half][lane], case.row[i])))
            })
        });
        let over_lanes = [0, 1].map(|half| {
            case.matrix.map(|vectors| sum(std::array::from_fn(|i| product(vectors[half][i], case.row[i]))))
        });
        for isa in Isa::available() {
            prop_assert_eq!(isa.run_pairs(case), [over_vectors, over_lanes], "{}", isa);
        }
    }

    #[test]
    fn dot_products_are_exact(case in dot_cases()) {
        for isa in Isa::available() {
            for (word, pair, token, found) in isa.run_pairs(&case) {
                for (panel, row) in (0..2).flat_map(|panel| (0..LANES).map(move |row| (panel, row))) {
                    let expected = case.dot(word, pair, panel, row, token) as f32;
                    prop_assert_eq!(found[panel][row], expected, "{}: {:?}", isa, word);
                }
            }
        }
    }
}
