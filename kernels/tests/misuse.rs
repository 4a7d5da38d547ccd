//! Every safe function that reaches unsafe code, called with arguments that do not fit: it panics with its own message, or is an
//! error, and never touches memory that is not its own.
//!
//! Tests run with overflow checks, releases without. So a message is expected, too: that of an overflow would be none of ours.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use glm_kernels::quantize::{pack_panel, pack_scales, quantize_row};
use glm_kernels::{
    Activation, Bits, Element, Gate, Input, Isa, Kernel, LANES, LayerNorm, Linear, Matrix, Output,
    PairKernel, Panels, Q8Rows, RmsNorm, Shape, SharedRows, Simd, Storage, Vectors, angles,
    for_each, for_each_row, parallel_region, probe, rotate_halves, rotate_pairs,
};
use half::f16;

/// Asserts that `call` panics with a message that contains `expected`.
#[track_caller]
fn refuses<R>(expected: &str, call: impl FnOnce() -> R) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(call)) else {
        panic!("accepted, but should say: {expected}");
    };
    let message = match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast::<&str>().map_or_else(|_| String::new(), |s| s.to_string()),
    };
    assert!(message.contains(expected), "{message:?} should contain {expected:?}");
}

/// A number of rows of which `cols` columns overflow to 0.
fn overflowing(cols: usize) -> usize {
    assert!(cols.is_power_of_two());
    (usize::MAX / cols) + 1
}

fn linear<'a>(weight: Matrix<'a>, bias: Option<&'a [f32]>) -> Linear<'a> {
    Linear { weight, bias, activation: Activation::None }
}

#[test]
fn matrices_of_other_sizes() {
    let shape = Shape::per_row(8, 32, Bits::Four);
    let (bytes, scales) = (vec![0; shape.bytes()], vec![f16::ONE; shape.scales()]);
    let panels = Panels::new(shape, &bytes, &scales);
    for (rows, cols) in [(2, 2), (0, 3), (3, 0), (usize::MAX, usize::MAX), (overflowing(2), 2)] {
        refuses("storage does not hold", || Matrix::new(rows, cols, Storage::F32(&[1.0; 3])));
        refuses("storage does not hold", || Matrix::new(rows, cols, Storage::F16(&[f16::ONE; 7])));
        refuses("storage does not hold", || Matrix::new(rows, cols, Storage::Panels(panels)));
    }
    // The product is 0 in 64 bits.
    refuses("storage does not hold", || Matrix::new(overflowing(4), 4, Storage::F32(&[])));
    refuses("storage does not hold", || Matrix::new(overflowing(4), 4, Storage::BF16(&[])));
    let matrix = Matrix::new(2, 2, Storage::F32(&[1.0; 4]));
    for (row, len) in [(2, 2), (usize::MAX, 2), (0, 1), (0, 3), (1, 0)] {
        refuses("row", || matrix.row(row, &mut vec![0.0; len]));
    }
    refuses("row", || Matrix::new(8, 32, Storage::Panels(panels)).row(8, &mut [0.0; 32]));
}

#[test]
fn panels_of_other_sizes() {
    let shape = Shape::grouped(9, 40, Bits::Eight, 32);
    let (bytes, scales) = (vec![0; shape.bytes()], vec![f16::ONE; shape.scales()]);
    refuses("bytes of the panels", || Panels::new(shape, &bytes[1..], &scales));
    refuses("scales of the panels", || Panels::new(shape, &bytes, &scales[1..]));
    refuses("bytes of the panels", || Panels::new(shape, &[], &[]));
    refuses("group of 0", || Shape::grouped(8, 32, Bits::Four, 0));
    refuses("group of 33", || Shape::grouped(8, 32, Bits::Four, 33));
    let no_groups = Shape { group_blocks: 0, ..shape };
    refuses("groups of no columns", || Panels::new(no_groups, &bytes, &scales));
    // Products that are 0 in 64 bits.
    for bits in [Bits::Four, Bits::Eight] {
        let rows = Shape { rows: overflowing(2), cols: 64, bits, group_blocks: 1 };
        refuses("overflow", || Panels::new(rows, &[], &[]));
        refuses("overflow", || rows.scales());
        let cols = Shape { rows: 8, cols: usize::MAX - 31, bits, group_blocks: usize::MAX };
        refuses("overflow", || Panels::new(cols, &[], &[]));
    }
}

/// A group may be longer than a row, even than memory.
#[test]
fn panels_of_one_endless_group() {
    let shape = Shape { rows: 8, cols: 64, bits: Bits::Four, group_blocks: usize::MAX };
    let weights = [0.5; 64];
    let (mut integers, mut scale) = ([0; 64], [f16::ZERO]);
    quantize_row(&shape, &weights, &mut integers, &mut scale).unwrap();
    let (mut bytes, mut scales) = (vec![0; shape.bytes()], vec![f16::ZERO; shape.scales()]);
    pack_panel(&shape, &integers, &mut bytes);
    pack_scales(1, &scale, &mut scales);
    let weight = Matrix::new(8, 64, Storage::Panels(Panels::new(shape, &bytes, &scales)));
    for isa in Isa::available() {
        let (mut y, mut q) = ([f32::NAN; 8], Q8Rows::default());
        linear(weight, None).forward(isa, Input::F32(&[1.0; 64]), &mut y);
        assert_eq!(y, [32.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], "{isa}");
        q.quantize(isa, &[1.0; 64], 64);
        linear(weight, None).forward(isa, Input::Q8(&q), &mut y);
        assert!((y[0] - 32.0).abs() < 1e-3, "{isa}: {}", y[0]);
    }
}

#[test]
fn linear_layers_with_other_lengths() {
    let weights = [1.0; 6];
    let weight = Matrix::new(2, 3, Storage::F32(&weights));
    for isa in Isa::available() {
        for output in [Output::Store, Output::Add] {
            let forward = |layer: Linear<'_>, x: Input<'_>, y: usize| {
                layer.forward_into(isa, x, output, &mut vec![0.0; y]);
            };
            let plain = linear(weight, None);
            refuses("rows of 3", || forward(plain, Input::F32(&[1.0; 4]), 2));
            for y in [0, 1, 3, 4] {
                refuses("outputs of 1 tokens", || forward(plain, Input::F32(&[1.0; 3]), y));
            }
            refuses("outputs of 0 tokens", || forward(plain, Input::F32(&[]), 2));
            for bias in [0, 1, 3] {
                let biased = linear(weight, Some(&weights[..bias]));
                refuses("biases of 2 rows", || forward(biased, Input::F32(&[1.0; 3]), 2));
            }
            // Rows without columns, of which any number takes no memory.
            for rows in [0, 1, usize::MAX] {
                let empty = linear(Matrix::new(rows, 0, Storage::F32(&[])), None);
                refuses("rows of 0", || forward(empty, Input::F32(&[]), 0));
                refuses("rows of 0", || forward(empty, Input::F32(&[1.0]), 1));
            }
            let mut q = Q8Rows::default();
            refuses("columns of the input", || forward(plain, Input::Q8(&q), 0));
            q.quantize(isa, &[1.0; 6], 3);
            refuses("weights in panels", || forward(plain, Input::Q8(&q), 4));
            forward(plain, Input::F32(&[]), 0);
            forward(linear(Matrix::new(0, 3, Storage::F32(&[])), None), Input::F32(&[1.0; 3]), 0);
        }
    }
}

#[test]
fn quantized_rows_of_other_sizes() {
    for isa in Isa::available() {
        let mut q = Q8Rows::default();
        refuses("rows of 3", || q.quantize(isa, &[1.0; 4], 3));
        refuses("rows of 0", || q.quantize(isa, &[1.0; 4], 0));
        refuses("rows of 0", || q.quantize(isa, &[], 0));
        refuses("rows of 5", || q.fill(isa, &mut [1.0; 4], 5, |_, _| unreachable!()));
        assert_eq!((q.rows(), q.cols()), (0, 0));
        q.quantize(isa, &[], usize::MAX);
        assert_eq!((q.rows(), q.cols()), (0, usize::MAX));
        // A panic midway leaves rows that can be used.
        refuses("on purpose", || q.fill(isa, &mut [1.0; 40], 4, |_, _| panic!("on purpose")));
        q.quantize(isa, &[1.0; 3], 3);
        assert_eq!((q.rows(), q.cols()), (1, 3));
    }
    for (rows, cols) in [(usize::MAX, 1), (usize::MAX - 1, 64), (overflowing(2), 33)] {
        refuses("quantized rows", || Q8Rows::bytes(rows, cols));
        refuses("quantized rows", || Q8Rows::with_capacity(rows, cols));
    }
    refuses("bytes of the quantized rows", || Q8Rows::bytes(overflowing(8), 32));
}

#[test]
fn quantizing_other_lengths() {
    let shape = Shape::grouped(8, 40, Bits::Four, 32);
    let quantize = |shape: Shape, row: usize, integers: usize, scales: usize| {
        let (mut integers, mut scales) = (vec![0; integers], vec![f16::ZERO; scales]);
        quantize_row(&shape, &vec![1.0; row], &mut integers, &mut scales)
    };
    refuses("columns of the row", || quantize(shape, 39, 40, 2));
    refuses("columns of the row", || quantize(shape, 40, 41, 2));
    refuses("scales of the row", || quantize(shape, 40, 40, 1));
    refuses("no columns", || quantize(Shape { group_blocks: 0, ..shape }, 40, 40, 2));
    assert_eq!(quantize(Shape { cols: 0, ..shape }, 0, 0, 0), Ok(()));

    let pack = |shape: Shape, integers: usize, panel: usize| {
        pack_panel(&shape, &vec![0; integers], &mut vec![0; panel]);
    };
    let bytes = shape.panel_bytes();
    refuses("rows of the panel", || pack(shape, 41, bytes));
    refuses("rows of the panel", || pack(shape, 9 * 40, bytes));
    refuses("rows of the panel", || pack(Shape { cols: 0, ..shape }, 0, 0));
    refuses("bytes of the panel", || pack(shape, 40, bytes - 1));
    refuses("overflow", || pack(Shape { cols: usize::MAX, ..shape }, 0, 0));

    let pack = |groups: usize, scales: usize, panel: usize| {
        pack_scales(groups, &vec![f16::ONE; scales], &mut vec![f16::ZERO; panel]);
    };
    refuses("scales of the panel's rows", || pack(0, 0, 0));
    refuses("scales of the panel's rows", || pack(2, 3, 16));
    refuses("scales of the panel's rows", || pack(2, 18, 16));
    refuses("scales of the panel", || pack(2, 4, 15));
    refuses("scales of the panel", || pack(overflowing(8), 0, 0));
}

#[test]
fn vectors_of_other_lengths() {
    for isa in Isa::available() {
        for lens in [[9, 8, 9, 9], [8, 9, 9, 9], [9, 9, 0, 9], [9, 9, 9, 10]] {
            let [x, weight, bias, mut y] = lens.map(|n| vec![1.0; n]);
            let (x, weight, bias, y) = (&x[..], &weight[..], &bias[..], &mut y[..]);
            refuses("lengths", || isa.run(LayerNorm { x, weight, bias, eps: 1e-5, y }));
        }
        for lens in [[9, 8, 9], [8, 9, 9], [9, 9, 0]] {
            let [x, other, mut y] = lens.map(|n| vec![1.0; n]);
            let (x, other, y) = (&x[..], &other[..], &mut y[..]);
            refuses("lengths", || isa.run(RmsNorm { x, weight: other, eps: 1e-5, y }));
            let activation = Activation::Silu;
            refuses("lengths", || isa.run(Gate { activation, gate: x, up: other, y }));
        }
        isa.run(LayerNorm { x: &[], weight: &[], bias: &[], eps: 0.0, y: &mut [] });
        isa.run(RmsNorm { x: &[], weight: &[], eps: 0.0, y: &mut [] });
        isa.run(Gate { activation: Activation::GeluErf, gate: &[], up: &[], y: &mut [] });
    }
    refuses("angles", || angles(&[1.0; 2], 1.0, &mut [[0.0; 2]; 3]));
    for n in [0, 3, 5] {
        refuses("rotated", || rotate_halves(&mut vec![0.0; n], &[[1.0, 0.0]; 2]));
        refuses("rotated", || rotate_pairs(&mut vec![0.0; n], &[[1.0, 0.0]; 2]));
    }
    let mut huge = [[0.0; 2]];
    angles(&[f32::MAX], f32::MAX, &mut huge);
    rotate_halves(&mut [1.0; 2], &huge);
}

#[test]
fn rows_outside_the_matrix() {
    for (n, width) in [(4, 0), (0, 0), (4, 3), (4, 5), (4, usize::MAX)] {
        refuses("rows of", || _ = SharedRows::new(&mut vec![1.0; n], width));
    }
    refuses("rows of 3", || for_each_row(&mut [1.0; 4], 3, |_, _| ()));
    let (mut values, mut nothing) = ([1.0; 6], [(); 6]);
    let rows = SharedRows::new(&mut values, 3);
    for (row, columns) in [
        (2, 0..1),
        (usize::MAX, 0..1),
        (1, 0..4),
        #[allow(clippy::reversed_empty_ranges)]
        (0, 2..1),
        (0, usize::MAX..usize::MAX),
        (0, 0..usize::MAX),
    ] {
        // SAFETY: nobody else uses the rows.
        refuses("outside the matrix", || unsafe { rows.row(row, columns).len() });
    }
    let rows = SharedRows::new(&mut nothing, 3);
    // SAFETY: nobody else uses the rows.
    refuses("outside the matrix", || unsafe { rows.row(2, 0..3).len() });
}

#[test]
fn loops_of_any_number() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for_each(0, |_| unreachable!());
    pool.install(|| {
        for_each(0, |_| unreachable!());
        refuses("tasks", || for_each(usize::MAX, |_| unreachable!()));
        refuses("tasks", || for_each(1 << 32, |_| unreachable!()));
        // Caught within the region, which goes on. The panic of a task that ran on another thread reaches the caller of the region
        // as well, at its end.
        let reached = AtomicUsize::new(0);
        let _ = catch_unwind(AssertUnwindSafe(|| {
            parallel_region(|| {
                refuses("", || for_each(100, |i| assert_ne!(i, 50)));
                refuses("tasks", || for_each(usize::MAX, |_| unreachable!()));
                for_each(100, |_| {
                    reached.fetch_add(1, Relaxed);
                });
            });
        }));
        assert_eq!(reached.load(Relaxed), 100);
    });
}

#[test]
fn probes_of_nothing_and_of_much() {
    for isa in Isa::available() {
        probe::read(isa, &[]);
        probe::read(isa, &[1]);
        assert_eq!(probe::multiply_adds(isa, 0, usize::MAX), 0);
        assert_eq!(probe::multiply_adds(isa, 1000, 0), 0);
    }
}

#[test]
fn instruction_sets_that_are_not_there() {
    for name in ["", " ", "AVX2", "avx3", "\0"] {
        assert!(name.parse::<Isa>().is_err());
    }
}

/// The slowest ISA's operations on values outside of their ranges: any result, or an overflow in a debug build.
struct Extremes([f32; LANES]);

impl Kernel for Extremes {
    type Output = ();
    fn run<S: Vectors>(self, simd: S) {
        let v = simd.load(&self.0);
        simd.store_i8(v, &mut [0; LANES]);
        simd.store_f16(v, &mut [f16::ZERO; LANES]);
        let mut lanes = [0.0; LANES];
        simd.store(simd.round(v), &mut lanes);
        simd.store(simd.exp2_integral(v), &mut lanes);
    }
}

impl PairKernel for Extremes {
    type Output = ();
    fn run<S: Simd>(self, simd: S) {
        let mut pair = [[0.0; LANES]; 2];
        let v = simd.pair_load(&[self.0; 2]);
        simd.pair_store(simd.pair_fma(v, v, v), &mut pair);
        simd.pair_store(simd.pair_accumulate(v, v, v), &mut pair);
    }
}

#[test]
fn operations_on_values_outside_of_their_ranges() {
    for isa in Isa::available() {
        for x in [f32::NAN, f32::INFINITY, f32::MIN, 1e9, -1e9, 128.0] {
            let _ = catch_unwind(|| isa.run(Extremes([x; LANES])));
            isa.run_pairs(Extremes([x; LANES]));
        }
    }
}

/// Elements of the caller's own may say anything of themselves.
#[test]
fn elements_of_the_callers_own() {
    #[derive(Clone, Copy)]
    struct Liar;
    impl Element for Liar {
        fn widen(self) -> f32 {
            f32::NAN
        }
        fn load<S: Vectors>(simd: S, _: &[Self; LANES]) -> S::F32 {
            simd.splat(f32::NAN)
        }
    }
    struct Load;
    impl Kernel for Load {
        type Output = f32;
        fn run<S: Vectors>(self, simd: S) -> f32 {
            simd.sum(Liar::load(simd, &[Liar; LANES]))
        }
    }
    for isa in Isa::available() {
        assert!(isa.run(Load).is_nan());
    }
}
