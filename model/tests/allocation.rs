//! Decoding does not allocate.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::fixture;
use glm_model::{Activations, Chunk, Model, Options, RunOptions};

/// An allocator that counts allocations.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls are forwarded to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller upholds the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of rayon for entering the pool, once per token, independent of the model.
const ENTERING: usize = 8;

#[test]
fn decoding_does_not_allocate() {
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
