//! Attention at the sizes of ChatGLM-6B (32 heads of 128), ChatGLM3-6B (32 that share 2) and GLM-4.7-Flash (20 that share a latent
//! head of 576, the first 512 elements of which are the values): one query, and a tile of a prompt.

use std::cell::LazyCell;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use glm_benches::random;
use glm_kernels::{
    Attention, Cached, HeadRows, Heads, Int4, Isa, KEYS, KvCache, KvPage, KvShape, Mask, Partials,
    Values,
};
use half::f16;

/// Heads of a model.
#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    head_size: usize,
    values: Values,
    /// For one query. With those of the model, a latent head of 576 elements does not stay in the CPU's cache.
    layers: usize,
}

const CHATGLM: Shape =
    Shape { heads: 32, kv_heads: 32, head_size: 128, values: Values::Own, layers: 1 };
const CHATGLM3: Shape = Shape { kv_heads: 2, ..CHATGLM };
const LATENT: Shape =
    Shape { heads: 20, kv_heads: 1, head_size: 576, values: Values::Keys(512), layers: 47 };

/// One query: bytes of keys and values a second.
fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention of a token");
    for shape in [CHATGLM, CHATGLM3] {
        for keys in [128, 512, 2048] {
            all_formats(&mut group, shape, 1, keys);
        }
    }
    group.finish();
}

/// Many queries: multiply-adds a second.
fn prompt(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention of a prompt");
    for shape in [CHATGLM, CHATGLM3] {
        for keys in [128, 512, 2048] {
            all_formats(&mut group, shape, 128, keys);
        }
    }
    group.finish();
}

/// One query and many: multiply-adds a second. Twenty heads read each key, so they bound one query, too.
fn latent(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention to a latent head");
    for (queries, keys) in [(1, 64), (1, 1024), (1, 4096), (128, 128), (128, 1024), (128, 4096)] {
        all_formats(&mut group, LATENT, queries, keys);
    }
    group.finish();
}

fn all_formats(
    group: &mut BenchmarkGroup<'_, WallTime>,
    shape: Shape,
    queries: usize,
    keys: usize,
) {
    run::<f16>(group, "f16", shape, queries, keys);
    run::<i16>(group, "int16", shape, queries, keys);
    run::<i8>(group, "int8", shape, queries, keys);
    run::<Int4>(group, "int4", shape, queries, keys);
}

fn run<E: Cached>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    format: &str,
    shape: Shape,
    queries: usize,
    keys: usize,
) {
    let Shape { heads, kv_heads, head_size, values, .. } = shape;
    let layers = if queries == 1 { shape.layers } else { 1 };
    let kv = KvShape { layers, heads: kv_heads, head_size, values };
    let width = kv_heads * head_size;
    group.throughput(match (queries, values) {
        (1, Values::Own) => Throughput::Bytes((kv.page_bytes::<E>() * keys / KEYS) as u64),
        _ => {
            let of_key = heads * (head_size + kv.value_size());
            Throughput::Elements((layers * queries * keys * of_key) as u64)
        }
    });
    for isa in Isa::available() {
        if matches!(isa, Isa::Scalar(_)) && keys > 128 {
            continue; // It would take minutes.
        }
        let mut case = LazyCell::new(|| {
            let mut cache = KvCache::<E>::new(kv);
            // The same page again and again: speed does not depend on the values.
            let rows = random(KEYS * 2 * width, 1.0);
            let [k, v] = [0, width].map(|first| Heads { first, stride: head_size });
            for position in (0..keys).step_by(KEYS) {
                cache.push(KvPage::new(kv).expect("memory"));
                let rows = HeadRows { rows: &rows, width: 2 * width, keys: k, values: v };
                (0..layers).for_each(|layer| cache.store(isa, layer, position, rows));
            }
            let q = random(queries * heads * head_size, 1.0);
            let out = vec![f32::NAN; queries * heads * kv.value_size()];
            (cache, q, Partials::default(), out)
        });
        let shape = match values {
            Values::Own => format!("{heads} heads on {kv_heads} {format} × {keys} keys"),
            Values::Keys(_) => {
                format!("{queries} queries of {heads} heads on {format} × {keys} keys")
            }
        };
        group.bench_function(BenchmarkId::new(shape, isa), |b| {
            let (cache, q, partials, out) = LazyCell::force_mut(&mut case);
            let attention = |layer| Attention {
                queries: q,
                heads,
                cache,
                layer,
                position: keys - queries,
                mask: Mask { prefix: keys },
                scale: (head_size as f32).powf(-0.5),
            };
            b.iter(|| {
                (0..layers).for_each(|layer| attention(layer).forward(isa, partials, out));
            });
            // A weighted mean lies within the values.
            assert!(out.iter().all(|x| x.abs() < 4.0), "attention leaves the range of its values");
        });
    }
}

/// Under a second a case. The flags of criterion override this, for example `--sample-size 100 --measurement-time 5`.
fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
}

criterion_group! { name = benches; config = quick(); targets = decode, prompt, latent }
criterion_main!(benches);
