//! Attention at the sizes of ChatGLM-6B: 32 heads of 128, one query and a tile of them.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use glm_benches::random;
use glm_kernels::{Attention, Isa, KeyValues, KvShape, Mask};
use half::f16;

const HEADS: usize = 32;
const HEAD_SIZE: usize = 128;

fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    group.sample_size(10);
    for keys in [128, 512, 2048] {
        let shape = KvShape { heads: HEADS, head_size: HEAD_SIZE, capacity: keys };
        let narrow = |x: Vec<f32>| x.into_iter().map(f16::from_f32).collect::<Vec<_>>();
        let (k, v) = (narrow(random(shape.len(), 1.0)), narrow(random(shape.len(), 1.0)));
        for queries in [1, 64] {
            let q = random(queries * HEADS * HEAD_SIZE, 1.0);
            let mut out = vec![f32::NAN; q.len()];
            group.throughput(Throughput::Elements((2 * queries * shape.len()) as u64));
            for isa in Isa::available() {
                let id = BenchmarkId::new(format!("{queries} × {keys} keys"), isa);
                let attention = Attention {
                    queries: &q,
                    heads: HEADS,
                    cache: KeyValues::new(shape, &k, &v),
                    position: keys - queries,
                    mask: Mask { prefix: keys },
                    scale: (HEAD_SIZE as f32).powf(-0.5),
                };
                attention.forward(isa, &mut out);
                // A weighted mean lies within the values.
                assert!(
                    out.iter().all(|x| x.abs() < 4.0),
                    "attention leaves the range of its values"
                );
                group.bench_function(id, |b| b.iter(|| attention.forward(isa, &mut out)));
            }
        }
    }
    group.finish();
}

criterion_group!(benches, attention);
criterion_main!(benches);
