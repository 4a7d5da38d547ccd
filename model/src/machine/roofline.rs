//! The roofline: what the machine can do at best with given threads, instructions and weights.

use std::time::{Duration, Instant};

use glm_kernels::{Isa, probe};

/// The two limits of a forward pass.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Roofline {
    /// Bytes a second when the weights are read and nothing else is done: from memory, or from the caches if they fit there.
    pub bytes: f64,
    /// Multiply-adds a second of the instructions that quantized weights are multiplied with, operands in registers.
    pub multiply_adds: f64,
}

/// Least time for which each limit is measured.
const TIME: Duration = Duration::from_millis(500);

impl Roofline {
    /// Measures both with the threads of the current parallel region.
    pub(crate) fn measure(isa: Isa, threads: usize, weights: &[&[u8]]) -> Self {
        let size = weights.iter().map(|bytes| bytes.len() as u64).sum();
        let bytes = best(|| {
            read(isa, weights.iter().copied());
            size
        });
        Self { bytes, multiply_adds: best(|| probe::multiply_adds(isa, threads, 1 << 16)) }
    }
}

/// Reads all bytes once.
pub(crate) fn read<'a>(isa: Isa, weights: impl Iterator<Item = &'a [u8]>) {
    weights.for_each(|bytes| probe::read(isa, bytes));
}

/// The best rate, a second; `work` returns how much it has done.
fn best(work: impl Fn() -> u64) -> f64 {
    // Once to bring everything into memory.
    work();
    let (begun, mut best) = (Instant::now(), 0f64);
    while begun.elapsed() < TIME {
        let started = Instant::now();
        let done = work();
        best = best.max(done as f64 / started.elapsed().as_secs_f64());
    }
    best
}
