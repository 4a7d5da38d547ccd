//! A norm over the channels of each token.

use glm_kernels::{Isa, LayerNorm, RmsNorm};
use rayon::prelude::*;

/// LayerNorm, or without a bias RMSNorm.
pub(crate) struct Norm {
    /// `[hidden]`
    pub(crate) weight: Vec<f32>,
    /// `[hidden]`
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) eps: f32,
}

impl Norm {
    /// `x`, `y`: `[tokens, hidden]`.
    pub(crate) fn forward(&self, isa: Isa, x: &[f32], y: &mut [f32]) {
        let n = self.weight.len();
        let (weight, eps) = (&self.weight[..], self.eps);
        let rows = x.par_chunks_exact(n).zip(y.par_chunks_exact_mut(n));
        rows.for_each(|(x, y)| match &self.bias {
            Some(bias) => isa.run(LayerNorm { x, weight, bias, eps, y }),
            None => isa.run(RmsNorm { x, weight, eps, y }),
        });
    }
}
