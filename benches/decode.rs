//! One token through the whole of ChatGLM-6B, with random weights of its true shape (3.5 GB of memory): tokens a second. `glm bench`
//! gives bytes a second.

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use glm_model::{Chunk, Model, Options, QuantizeOptions, RunOptions};

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
        let mut run = LazyCell::new(|| {
            let special = &model.config().special;
            let (gmask, sop) = (special.gmask.expect("a blank"), special.sop.expect("a start"));
            let mut ids = vec![5; depth - 2];
            ids.extend([gmask, sop]);
            let mut sequence = model.sequence(Some(depth + 1)).expect("a sequence");
            let mut workspace = model.workspace().expect("memory");
            let mut prompt = [Chunk::none(&mut sequence, &ids)];
            model.run(&mut workspace, &mut prompt, RunOptions::default()).expect("a prompt");
            (sequence, workspace)
        });
        group.bench_function(BenchmarkId::new("ChatGLM-6B INT4", depth), |b| {
            let (sequence, workspace) = LazyCell::force_mut(&mut run);
            b.iter(|| {
                sequence.truncate(depth);
                let mut chunks = [Chunk::last(sequence, black_box(&[5]))];
                let logits = model.run(workspace, &mut chunks, RunOptions::default());
                assert!(logits.expect("a token").last(0)[7].is_finite());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
