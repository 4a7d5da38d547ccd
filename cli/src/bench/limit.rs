//! The limits of the machine, as the speed of a measurement.

use glm_model::{Activations, Model, Roofline};

use super::lengths::DEPTH;
use super::measurement::Test;

/// The speed that a model could have at most.
pub struct Limits<'a> {
    pub model: &'a Model,
    pub machine: Roofline,
    /// Tokens that are generated in a round.
    pub tokens: usize,
}

/// What a pass takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Tokens of the pass.
    pub tokens: f64,
    /// Bytes of weights, keys and values that are read; of experts, those that unrelated tokens choose on average.
    pub bytes: f64,
    /// Multiplications with weights.
    pub products: f64,
}

impl Limits<'_> {
    /// Measures the machine again. The best counts: what else the machine does can only make it slower.
    pub fn update(&mut self) {
        let Roofline { bytes, multiply_adds, .. } = self.model.roofline();
        self.machine.bytes = self.machine.bytes.max(bytes);
        self.machine.multiply_adds = self.machine.multiply_adds.max(multiply_adds);
    }

    /// The work of a pass of `test`.
    pub fn work(&self, test: Test) -> Work {
        let inventory = self.model.inventory();
        let cached = |tokens: usize| tokens as u64 * self.model.kv_bytes_per_token();
        // The middle of the tokens that are generated.
        let decoded = |depth: usize| cached(depth + self.tokens / 2);
        let (tokens, read) = match test {
            Test::Prompt(tokens) => (tokens, 0),
            Test::Decode(depth) => (1, decoded(depth)),
            Test::Sequences(count) => (count, count as u64 * decoded(DEPTH)),
            Test::Verify(tokens) => (tokens, cached(DEPTH)),
            Test::Lookup(_) => (1, 0),
        };
        let products = match test {
            Test::Prompt(tokens) => inventory.prefill_products(tokens),
            // The logits of every token are computed.
            _ => tokens as u64 * inventory.prefill_products(1),
        };
        Work {
            tokens: tokens as f64,
            bytes: (inventory.bytes_of_pass(tokens) + read) as f64,
            products: products as f64,
        }
    }

    /// Tokens a second if nothing else than memory and multiply-adds took time. None where it is unknown.
    pub fn of(&self, test: Test) -> Option<f64> {
        // How many tokens a pass of prompt lookup has depends on the text.
        if let Test::Lookup(_) = test {
            return None;
        }
        let work = self.work(test);
        let reading = work.bytes / self.machine.bytes;
        let multiplying = work.products / self.machine.multiply_adds;
        let seconds = match self.model.activations() {
            Activations::Int8 => reading.max(multiplying),
            // Only 8-bit products were measured. A single token is limited by memory.
            _ if work.tokens == 1.0 => reading,
            _ => return None,
        };
        Some(work.tokens / seconds)
    }
}
