//! What is allocated for a sequence, and that nothing is while tokens are generated.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::fixture;
use glm_model::{Activations, Chunk, Generation, Model, Options, Request, RunOptions, Sampling};

/// An allocator that counts allocations.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
/// Bytes that are allocated at the moment.
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls are forwarded to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size(), Relaxed);
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
}

/// Bytes that a generation may take beside keys and values.
const BESIDE: usize = 64 << 10;

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
