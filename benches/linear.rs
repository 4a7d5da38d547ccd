//! Linear layers with INT4 weights and 8-bit activations: one token (gemv) and many (gemm), on every instruction set.

use std::cell::LazyCell;
use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use glm_benches::{CHATGLM_6B, GLM_4_9B, LinearShape, Quantized, bytes, q4, random};
use glm_kernels::{
    Activation, Bits, GroupForm, Input, Isa, Linear, Matrix, Q8Rows, Rotation, Shape, Storage,
    probe, reference,
};
use half::f16;

/// One token: bytes of weights a second.
fn gemv(c: &mut Criterion) {
    let mut group = c.benchmark_group("linear gemv");
    for shape in CHATGLM_6B {
        let format = q4(shape);
        let weights = LazyCell::new(|| Quantized::random(format));
        group.throughput(Throughput::Bytes(bytes(&format)));
        group.bench_function(BenchmarkId::new(shape.name, "plain read"), |b| {
            let isa = Isa::choose().expect("a known instruction set");
            b.iter(|| probe::read(isa, black_box(weights.panels())));
        });
        for isa in Isa::available() {
            run(&mut group, BenchmarkId::new(shape.name, isa), isa, &weights, shape, 1);
        }
    }
    group.finish();
}

/// The same at the shapes of GLM-4-9B, on the best instruction set.
fn gemv_glm_4(c: &mut Criterion) {
    let mut group = c.benchmark_group("linear gemv GLM-4-9B");
    let isa = Isa::choose().expect("a known instruction set");
    for shape in GLM_4_9B {
        let format = q4(shape);
        let weights = LazyCell::new(|| Quantized::random(format));
        group.throughput(Throughput::Bytes(bytes(&format)));
        run(&mut group, BenchmarkId::new(shape.name, isa), isa, &weights, shape, 1);
    }
    group.finish();
}

/// One token on every instruction set and many on all but plain Rust, with weights of every format.
fn formats(c: &mut Criterion) {
    let mut group = c.benchmark_group("linear formats");
    let shape = CHATGLM_6B[1];
    let kinds = [
        (Bits::Four, GroupForm::Scale, Rotation::None, "INT4"),
        (Bits::Four, GroupForm::Minimum, Rotation::None, "INT4 minimum"),
        (Bits::Four, GroupForm::ZeroPoint, Rotation::None, "INT4 zero point"),
        (Bits::Eight, GroupForm::Scale, Rotation::None, "INT8"),
        (Bits::Eight, GroupForm::Scale, Rotation::Blocks, "INT8 rotated"),
    ];
    for (bits, form, rotation, name) in kinds {
        let of = |format: Shape| Shape { form, rotation, ..format };
        let grouped = |columns| of(Shape::grouped(shape.rows, shape.cols, bits, columns));
        let mut formats: Vec<_> = [32, 64, 128].map(|n| (n.to_string(), grouped(n))).into();
        let row = of(Shape::per_row(shape.rows, shape.cols, bits));
        formats.push(("row".to_owned(), row));
        for (columns, format) in formats {
            let weights = LazyCell::new(|| Quantized::random(format));
            for (tokens, isa) in tokens_and_sets([1, 128]) {
                group.throughput(products(shape, tokens));
                let id = BenchmarkId::new(format!("{name} {columns} × {tokens}"), isa);
                run(&mut group, id, isa, &weights, shape, tokens);
            }
        }
    }
    let plain = LazyCell::new(|| {
        random(shape.rows * shape.cols, 0.02).into_iter().map(f16::from_f32).collect::<Vec<_>>()
    });
    for (tokens, isa) in tokens_and_sets([1, 128]) {
        let mut case = LazyCell::new(|| {
            let weight = Matrix::new(shape.rows, shape.cols, Storage::F16(&plain));
            let linear = Linear { weight, bias: None, activation: Activation::None };
            let x = random(tokens * shape.cols, 1.0);
            let mut y = vec![f32::NAN; tokens * shape.rows];
            linear.forward(isa, Input::F32(&x), &mut y);
            check(&linear, &x, &y);
            (linear, x, y)
        });
        group.throughput(products(shape, tokens));
        group.bench_function(BenchmarkId::new(format!("F16 × {tokens}"), isa), |b| {
            let (linear, x, y) = LazyCell::force_mut(&mut case);
            b.iter(|| linear.forward(isa, Input::F32(black_box(x)), y));
        });
    }
    group.finish();
}

/// Many tokens: multiply-adds a second, beside the most that the instruction set can do. Every matrix of a block with 128 tokens on
/// every instruction set but plain Rust, and one matrix with many numbers of tokens on the best.
fn gemm(c: &mut Criterion) {
    let mut group = c.benchmark_group("linear gemm");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for isa in Isa::available() {
        group.throughput(Throughput::Elements(probe::multiply_adds(isa, threads, 1) << 16));
        group.bench_function(BenchmarkId::new("products in registers", isa), |b| {
            b.iter(|| probe::multiply_adds(isa, threads, 1 << 16));
        });
    }
    // Of a prompt, only the last token passes the head.
    for shape in &CHATGLM_6B[..4] {
        let weights = LazyCell::new(|| Quantized::random(q4(*shape)));
        for (tokens, isa) in tokens_and_sets([128]) {
            group.throughput(products(*shape, tokens));
            let id = BenchmarkId::new(format!("{} × {tokens}", shape.name), isa);
            run(&mut group, id, isa, &weights, *shape, tokens);
        }
    }
    let (shape, isa) = (CHATGLM_6B[1], Isa::choose().expect("a known instruction set"));
    let weights = LazyCell::new(|| Quantized::random(q4(shape)));
    // Numbers around the heights of tiles, to show where speed drops.
    for tokens in (2..=13).chain([16, 17, 24, 31, 32, 33, 40, 63, 64, 65, 127, 129, 500, 2048]) {
        group.throughput(products(shape, tokens));
        let id = BenchmarkId::new(format!("{} × {tokens}", shape.name), isa);
        run(&mut group, id, isa, &weights, shape, tokens);
    }
    group.finish();
}

fn products(shape: LinearShape, tokens: usize) -> Throughput {
    Throughput::Elements((tokens * shape.rows * shape.cols) as u64)
}

/// Each number of tokens on each instruction set, but many tokens not in plain Rust, which would take minutes.
fn tokens_and_sets<const N: usize>(tokens: [usize; N]) -> impl Iterator<Item = (usize, Isa)> {
    let sets = move |tokens| Isa::available().into_iter().map(move |isa| (tokens, isa));
    let quick = |&(tokens, isa): &(usize, Isa)| tokens == 1 || !matches!(isa, Isa::Scalar(_));
    tokens.into_iter().flat_map(sets).filter(quick)
}

fn run(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    isa: Isa,
    weights: &LazyCell<Quantized, impl FnOnce() -> Quantized>,
    shape: LinearShape,
    tokens: usize,
) {
    let mut case = LazyCell::new(|| {
        let weight = weights.matrix();
        let linear = Linear { weight, bias: None, activation: Activation::None };
        let x = random(tokens * shape.cols, 1.0);
        let mut quantized = Q8Rows::with_capacity(tokens, shape.cols).expect("memory");
        let mut y = vec![f32::NAN; tokens * shape.rows];
        quantized.quantize(isa, &x, shape.cols, weight.rotation());
        linear.forward(isa, Input::Q8(&quantized), &mut y);
        check(&linear, &x, &y);
        (linear, x, quantized, y)
    });
    group.bench_function(id, |b| {
        let (linear, x, quantized, y) = LazyCell::force_mut(&mut case);
        b.iter(|| {
            quantized.quantize(isa, black_box(x), shape.cols, linear.weight.rotation());
            linear.forward(isa, Input::Q8(quantized), y);
        });
    });
}

/// The first eight outputs of the first token are those of the definition, up to the rounding of activations.
fn check(linear: &Linear<'_>, x: &[f32], y: &[f32]) {
    let cols = linear.weight.cols();
    let mut row = vec![0.0; cols];
    for (index, &y) in y.iter().enumerate().take(8) {
        linear.weight.row(index, &mut row);
        let exact = reference::dot(&row, &x[..cols]);
        assert!((f64::from(y) - exact).abs() < 0.05, "output {index} is {y}, should be {exact}");
    }
    assert!(y.iter().all(|y| y.is_finite()));
}

/// Under a second a case. The flags of criterion override this, for example `--sample-size 100 --measurement-time 5`.
fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
}

criterion_group! { name = benches; config = quick(); targets = gemv, gemv_glm_4, formats, gemm }
criterion_main!(benches);
