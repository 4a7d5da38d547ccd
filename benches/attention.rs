//! Attention at the sizes of ChatGLM-6B (32 heads of 128) and ChatGLM3-6B (32 that share 2): one query, and a tile of a prompt.

use std::cell::LazyCell;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use glm_benches::random;
use glm_kernels::{
    Attention, Cached, HeadRows, Heads, Int4, Isa, KEYS, KvCache, KvPage, KvShape, Mask, Partials,
};
use half::f16;

const HEADS: usize = 32;
const HEAD_SIZE: usize = 128;

/// One query: bytes of keys and values a second.
fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention of a token");
    for kv_heads in [32, 2] {
        for keys in [128, 512, 2048] {
            run::<f16>(&mut group, "f16", kv_heads, 1, keys);
            run::<i8>(&mut group, "int8", kv_heads, 1, keys);
            run::<Int4>(&mut group, "int4", kv_heads, 1, keys);
        }
    }
    group.finish();
}

/// Many queries: multiply-adds a second.
fn prompt(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention of a prompt");
    for kv_heads in [32, 2] {
        for keys in [128, 512, 2048] {
            run::<f16>(&mut group, "f16", kv_heads, 128, keys);
            run::<i8>(&mut group, "int8", kv_heads, 128, keys);
            run::<Int4>(&mut group, "int4", kv_heads, 128, keys);
        }
    }
    group.finish();
}

fn run<E: Cached>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    format: &str,
    kv_heads: usize,
    queries: usize,
    keys: usize,
) {
    let kv = KvShape { layers: 1, heads: kv_heads, head_size: HEAD_SIZE };
    let width = kv_heads * HEAD_SIZE;
    group.throughput(match queries {
        1 => Throughput::Bytes((kv.page_bytes::<E>() * keys / KEYS) as u64),
        _ => Throughput::Elements((2 * queries * keys * HEADS * HEAD_SIZE) as u64),
    });
    for isa in Isa::available() {
        if matches!(isa, Isa::Scalar(_)) && keys > 128 {
            continue; // It would take minutes.
        }
        let mut case = LazyCell::new(|| {
            let mut cache = KvCache::<E>::new(kv);
            // The same page again and again: speed does not depend on the values.
            let rows = random(KEYS * 2 * width, 1.0);
            let [k, v] = [0, width].map(|first| Heads { first, stride: HEAD_SIZE });
            for position in (0..keys).step_by(KEYS) {
                cache.push(KvPage::new(kv).expect("memory"));
                let rows = HeadRows { rows: &rows, width: 2 * width, keys: k, values: v };
                cache.store(isa, 0, position, rows);
            }
            let q = random(queries * HEADS * HEAD_SIZE, 1.0);
            let out = vec![f32::NAN; q.len()];
            (cache, q, Partials::default(), out)
        });
        let shape = format!("{HEADS} heads on {kv_heads} {format} × {keys} keys");
        group.bench_function(BenchmarkId::new(shape, isa), |b| {
            let (cache, q, partials, out) = LazyCell::force_mut(&mut case);
            let attention = Attention {
                queries: q,
                heads: HEADS,
                cache,
                layer: 0,
                position: keys - queries,
                mask: Mask { prefix: keys },
                scale: (HEAD_SIZE as f32).powf(-0.5),
            };
            b.iter(|| attention.forward(isa, partials, out));
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

criterion_group! { name = benches; config = quick(); targets = decode, prompt }
criterion_main!(benches);
