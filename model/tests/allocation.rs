//! What is allocated for a sequence, for a pass and for an adapter, and that nothing is while tokens are generated.

mod common;
#[path = "common/forge.rs"]
#[allow(dead_code, reason = "this file writes valid files only")]
mod forge;
#[path = "common/lora.rs"]
mod lora;
#[path = "common/packed.rs"]
mod packed;
#[path = "common/stored.rs"]
mod stored;
#[path = "common/tensors.rs"]
mod tensors;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::adapter::tuned;
use common::fixture;
use common::runner::Runner;
use glm_model::{
    Activations, Adapter, Chunk, Generation, Model, Options, QuantizeOptions, Request, RunOptions,
    Sampling, calibration_bytes,
};
use lora::{FOUR, MODULES, folder, updates};
use serde_json::{Value, json};
use tempfile::TempDir;

/// An allocator that counts allocations.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
/// Bytes that are allocated at the moment.
static BYTES: AtomicUsize = AtomicUsize::new(0);
/// The most bytes since the last call of [`most_bytes`].
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls are forwarded to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        let bytes = BYTES.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(bytes, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of rayon for entering the pool, once per token, independent of the model.
const ENTERING: usize = 8;

/// One test, so that no other allocates beside it.
#[test]
fn memory_is_taken_as_it_is_needed() {
    a_token_costs_no_memory();
    a_sequence_costs_what_it_holds();
    a_pass_costs_what_is_counted();
    merging_reads_an_adapter_where_it_is();
    patterns_of_an_adapter_are_bounded();
}

/// The most bytes that `work` has beside those that were there before.
fn most_bytes<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = BYTES.load(Relaxed);
    MOST.store(before, Relaxed);
    let done = work();
    (MOST.load(Relaxed) - before, done)
}

/// A model whose columns have an order of their own.
fn reordered() -> TempDir {
    let layers = packed::layers(7).into_iter().enumerate().map(|(index, (name, layer))| {
        // Query, key and value have the same inputs, and so the same order.
        (name, layer.shuffled(if index < 3 { 0 } else { index as u64 }).gptq(name, true))
    });
    let config = packed::gptq(json!({"sym": false, "desc_act": true}));
    packed::model(&layers.collect::<Vec<_>>(), Some(config))
}

/// An adapter of the largest rank that each layer can have.
fn largest() -> TempDir {
    let rank = |path: &str| if path == "lm_head" { 9 } else { 128 };
    let fields = json!({"r": 128, "lora_alpha": 8, "rank_pattern": {"lm_head": 9}});
    folder(&fields, &updates(&MODULES, rank, 7))
}

/// Inputs in another order and updates of adapters too, on all threads.
fn a_pass_costs_what_is_counted() {
    const TOKENS: usize = 256;
    let ids: Vec<u32> = (0..TOKENS as u32).map(|i| i * 5 % 9).collect();
    let dir = reordered();
    for activations in [Activations::F32, Activations::Int8] {
        let mut options = Options::default();
        (options.threads, options.activations) = (Some(2), Some(activations));
        let model = tuned(&Model::open(dir.path(), &options).unwrap(), largest().path());
        let counted = model.inventory().context_bytes(TOKENS).1 as usize;
        let (new, _) = most_bytes(|| model.workspace().unwrap());
        // Inputs of the widest layer in their order; updates of the largest rank, and those of the query.
        let least = 4 * TOKENS * (344 + 128 + 128);
        assert!(new > least, "{new} bytes, of which {least} are for orders and updates");
        let (all, mut runner) = most_bytes(|| {
            let mut runner = Runner::new(&model, 2 * TOKENS);
            runner.last(&ids);
            runner
        });
        let all = all - model.kv_pool().used_bytes() as usize;
        assert!(all <= counted + BESIDE, "{all} bytes, and {counted} are counted");
        // This one takes a page.
        runner.last(&[7]);
        let before = ALLOCATIONS.load(Relaxed);
        runner.last(&[7]);
        let count = ALLOCATIONS.load(Relaxed) - before;
        // Its logits are copied.
        assert!(count <= ENTERING + 1, "{count} allocations for a token");
    }
}

/// All matrices of the adapter in `f32` would take more than four times what merging may.
fn merging_reads_an_adapter_where_it_is() {
    let adapter = largest();
    let mut options = QuantizeOptions::default();
    options.target_bits = Some(6.0);
    let most = || most_bytes(|| calibration_bytes(fixture(FOUR), &options).unwrap()).0;
    let without = most();
    options.adapter = Some(adapter.path().to_owned());
    let with = most_bytes(|| calibration_bytes(fixture(FOUR), &options).unwrap()).0;
    let size: usize =
        MODULES.iter().map(|(_, [outputs, inputs])| 128 * 4 * (outputs + inputs)).sum();
    assert!(with < without + size / 4, "{with} bytes, {without} without an adapter of {size}");
}

/// As large as they may be.
fn patterns_of_an_adapter_are_bounded() {
    let model = Model::open(fixture(FOUR), &Options::default()).unwrap();
    let tensors = updates(&MODULES, |_| 4, 7);
    let open = |patterns: Value| {
        let fields = json!({"r": 4, "lora_alpha": 8, "rank_pattern": patterns});
        let folder = folder(&fields, &tensors);
        most_bytes(|| Adapter::open(folder.path(), &model))
    };
    let many = |count: usize, pattern: &dyn Fn(usize) -> String| -> Value {
        (0..count).map(|index| (pattern(index), json!(4))).collect()
    };
    for (patterns, is_read) in [
        (many(100, &|index| format!("([a-z_.]|[0-9.]){{0,200}}[0-9]{{1,{}}}", index + 1)), true),
        (many(2048, &|index| format!("x{index}{}", r"\w".repeat(3))), false),
        (many(1, &|_| r"\w".repeat(512)), true),
        (many(1, &|_| r"\w{0,9999}".to_owned()), false),
    ] {
        let (bytes, adapter) = open(patterns);
        // Measured: 18 MB.
        assert!(bytes < 24 << 20, "{bytes} bytes");
        assert_eq!(adapter.is_ok(), is_read, "{adapter:?}");
    }
}

/// Bytes that a generation may take beside keys and values: among them, each thread keeps the sums of its part of a layer.
const BESIDE: usize = 128 << 10;

fn a_sequence_costs_what_it_holds() {
    let model = Model::open(fixture("chatglm2-6b-tiny/int4"), &Options::default()).unwrap();
    let page = model.kv_pool().page_bytes() as usize;
    let request = || {
        let mut sampling = Sampling::greedy();
        (sampling.temperature, sampling.top_p) = (0.7, 0.8);
        let mut request = Request::new(sampling);
        request.max_new_tokens = Some(120);
        request
    };
    let generation = |prompt: &[u32]| {
        let sequence = model.sequence(Some(model.config().max_context)).unwrap();
        Generation::new(&model, sequence, prompt, request()).unwrap()
    };
    // What all generations share is there before.
    generation(&[5, 6]).take(10).for_each(|id| assert!(id.is_ok()));
    let before = BYTES.load(Relaxed);
    let mut answer = generation(&[5, 6, 7, 8]);
    let new = BYTES.load(Relaxed) - before;
    assert!(new < BESIDE, "{new} bytes before the first token");
    // The pool had kept a page.
    answer.by_ref().for_each(|id| assert!(id.is_ok()));
    let after = BYTES.load(Relaxed) + page - before;
    assert!(after < page + BESIDE, "{after} bytes after 120 tokens, of which a page has {page}");
    drop(answer);
    let left = BYTES.load(Relaxed).saturating_sub(before);
    assert!(left < BESIDE, "{left} bytes are left");
}

fn a_token_costs_no_memory() {
    for (name, activations) in
        [("chatglm-6b-tiny/int4", Activations::Int8), ("chatglm-6b-tiny/bin-f16", Activations::F32)]
    {
        let dir = fixture(name);
        let mut options = Options::default();
        (options.threads, options.activations) = (Some(2), Some(activations));
        let model = Model::open(dir, &options).unwrap();
        let (mut sequence, mut workspace) =
            (model.sequence(Some(400)).unwrap(), model.workspace().unwrap());
        let special = &model.config().special;
        let prompt = [5, special.gmask.unwrap(), special.sop.unwrap()];
        let mut run = |ids: &[u32]| {
            let mut chunks = [Chunk::last(&mut sequence, ids)];
            model.run(&mut workspace, &mut chunks, RunOptions::default()).unwrap();
        };
        run(&prompt);
        let mut step = || {
            let before = ALLOCATIONS.load(Relaxed);
            run(&[7]);
            ALLOCATIONS.load(Relaxed) - before
        };
        for _ in 0..150 {
            step();
        }
        let most = (0..150).map(|_| step()).max().unwrap();
        assert!(most <= ENTERING, "{name}: {most} allocations for a token");
    }
}
