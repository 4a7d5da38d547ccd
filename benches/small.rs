//! The work between the matrices of ChatGLM-6B, on every instruction set: activation, norm, quantizing, rotation. And the cost of an
//! empty parallel step, at each number of threads.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use glm_benches::random;
use glm_kernels::{
    Activation, Gate, Isa, LayerNorm, Q8Rows, RmsNorm, Rotation, angles, for_each, parallel_region,
    rotate_halves,
};

const HIDDEN: usize = 4096;
const INNER: usize = 16384;

/// Elements a second of one token's rows.
fn rows(c: &mut Criterion) {
    let (x, weight, bias) = (random(INNER, 1.0), random(INNER, 1.0), random(INNER, 1.0));
    let mut y = vec![f32::NAN; INNER];
    let mut group = c.benchmark_group("rows");
    for isa in Isa::available() {
        group.throughput(Throughput::Elements(INNER as u64));
        for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
            let id = BenchmarkId::new(format!("{activation:?} gate"), isa);
            group.bench_function(id, |b| {
                b.iter(|| {
                    isa.run(Gate { activation, gate: black_box(&x), up: &weight, y: &mut y })
                });
                assert!(y.iter().all(|y| y.is_finite()));
            });
        }
        let mut quantized = Q8Rows::with_capacity(1, INNER).expect("memory");
        for (rotation, name) in
            [(Rotation::None, "quantize"), (Rotation::Blocks, "rotate blocks, quantize")]
        {
            group.bench_function(BenchmarkId::new(name, isa), |b| {
                b.iter(|| quantized.quantize(isa, black_box(&x), INNER, rotation));
            });
        }
        group.throughput(Throughput::Elements(HIDDEN as u64));
        let (x, weight, bias) = (&x[..HIDDEN], &weight[..HIDDEN], &bias[..HIDDEN]);
        let y = &mut y[..HIDDEN];
        group.bench_function(BenchmarkId::new("LayerNorm", isa), |b| {
            b.iter(|| isa.run(LayerNorm { x: black_box(x), weight, bias, eps: 1e-5, y }));
        });
        group.bench_function(BenchmarkId::new("RMSNorm", isa), |b| {
            b.iter(|| isa.run(RmsNorm { x: black_box(x), weight, eps: 1e-5, y }));
        });
    }
    let mut turned = vec![[0.0; 2]; 32];
    let frequencies: Vec<_> = (0..32).map(|i| 10_000f32.powf(-(i as f32) / 32.0)).collect();
    angles(&frequencies, 1234.0, &mut turned);
    group.throughput(Throughput::Elements(HIDDEN as u64));
    group.bench_function("rotate", |b| {
        b.iter(|| y[..HIDDEN].chunks_exact_mut(64).for_each(|half| rotate_halves(half, &turned)));
    });
    group.finish();
}

/// A hundred parallel steps whose tasks do nothing.
fn steps(c: &mut Criterion) {
    const STEPS: u64 = 100;
    let mut group = c.benchmark_group("steps");
    group.throughput(Throughput::Elements(STEPS));
    let most = std::thread::available_parallelism().map_or(1, usize::from);
    for threads in 1..=most {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        group.bench_function(BenchmarkId::new("threads", threads), |b| {
            let steps = || {
                (0..STEPS).for_each(|_| {
                    for_each(2 * threads, |i| {
                        black_box(i);
                    })
                })
            };
            pool.install(|| parallel_region(|| b.iter(steps)));
        });
    }
    group.finish();
}

/// Under a second a case. The flags of criterion override this, for example `--sample-size 100 --measurement-time 5`.
fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
}

criterion_group! { name = benches; config = quick(); targets = rows, steps }
criterion_main!(benches);
