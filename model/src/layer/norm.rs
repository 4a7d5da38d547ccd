//! A norm over the channels of each token.

use glm_kernels::{Isa, LayerNorm};
use rayon::prelude::*;

/// LayerNorm.
pub(crate) struct Norm {
    /// `[hidden]`
    pub(crate) weight: Vec<f32>,
    /// `[hidden]`
    pub(crate) bias: Vec<f32>,
    pub(crate) eps: f32,
}

impl Norm {
    /// `x`, `y`: `[tokens, hidden]`.
    pub(crate) fn forward(&self, isa: Isa, x: &[f32], y: &mut [f32]) {
        let n = self.weight.len();
        let rows = x.par_chunks_exact(n).zip(y.par_chunks_exact_mut(n));
        rows.for_each(|(x, y)| {
            let Self { weight, bias, eps } = self;
            isa.run(LayerNorm { x, weight, bias, eps: *eps, y });
        });
    }
}
