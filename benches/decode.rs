//! One token through the whole of ChatGLM-6B, with random weights of its true shape (3.5 GB of memory): tokens a second. `glm bench`
//! gives bytes a second.

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use glm_model::{Model, Options, QuantizeOptions};

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    group.sample_size(10);
    group.throughput(Throughput::Elements(1));
    // Built on first use: a filter may leave it out.
    let model = LazyCell::new(|| {
        Model::random("chatglm-6b", &QuantizeOptions::default(), &Options::default())
            .expect("3.5 GB of memory")
    });
    for depth in [16, 512] {
        let mut state = LazyCell::new(|| {
            let special = &model.config().special;
            let (gmask, sop) = (special.gmask.expect("a blank"), special.sop.expect("a start"));
            let mut ids = vec![5; depth - 2];
            ids.extend([gmask, sop]);
            let mut state = model.state(depth + 1).expect("memory");
            model.prefill(&ids, &mut state).expect("a prompt");
            state
        });
        group.bench_function(BenchmarkId::new("ChatGLM-6B INT4", depth), |b| {
            let state = LazyCell::force_mut(&mut state);
            b.iter(|| {
                state.truncate(depth);
                model.forward(black_box(&[5]), state).expect("a token");
                assert!(model.logits(0, state)[7].is_finite());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
