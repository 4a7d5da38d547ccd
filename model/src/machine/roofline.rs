//! What the machine can do at best, with the threads, the instructions and the weights of a model.

use std::time::{Duration, Instant};

use glm_kernels::{parallel_region, probe};

use crate::network::model::Model;

/// The limits that a forward pass runs into.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Bytes a second at which the weights are read and nothing else is done: from memory, or from the caches if they fit there.
    pub bytes: f64,
    /// Multiply-adds a second of the instructions that quantised weights are multiplied with, operands in registers.
    pub multiply_adds: f64,
}

/// How long each limit is measured at least.
const TIME: Duration = Duration::from_millis(500);

impl Model {
    /// Reads once all weights that every token is multiplied with, so that mapped ones are in memory before the first token
    /// needs them.
    pub fn preload(&self) {
        let read = || self.weights().matrices().for_each(|m| probe::read(self.isa(), m.bytes()));
        self.pool().install(|| parallel_region(read));
    }

    /// Measures the machine, the best of several runs; takes some seconds.
    pub fn machine(&self) -> Machine {
        let (isa, threads) = (self.isa(), self.threads());
        let weights: Vec<_> = self.weights().matrices().map(|matrix| matrix.bytes()).collect();
        let size = weights.iter().map(|bytes| bytes.len() as u64).sum();
        let read = || {
            best(|| {
                weights.iter().for_each(|bytes| probe::read(isa, bytes));
                size
            })
        };
        let multiply = || best(|| probe::multiply_adds(isa, threads, 1 << 16));
        let bytes = self.pool().install(|| parallel_region(read));
        Machine { bytes, multiply_adds: self.pool().install(|| parallel_region(multiply)) }
    }
}

/// The best rate of what `work` says it has done, a second.
fn best(work: impl Fn() -> u64) -> f64 {
    // Once for what is not in memory yet.
    work();
    let (begun, mut best) = (Instant::now(), 0f64);
    while begun.elapsed() < TIME {
        let started = Instant::now();
        let done = work();
        best = best.max(done as f64 / started.elapsed().as_secs_f64());
    }
    best
}
