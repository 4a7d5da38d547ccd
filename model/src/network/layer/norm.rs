//! A norm over the channels of each token.

use glm_kernels::{Isa, LayerNorm, MAX_HEAD_SIZE, RmsNorm, for_each_row};

/// LayerNorm with a bias, RMSNorm without.
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
        for_each_row(y, n, |token, y| self.token(isa, x, token, y));
    }

    /// Normalizes a head, or another part of a row.
    pub(crate) fn in_place(&self, isa: Isa, part: &mut [f32]) {
        let mut copy = [0.0; MAX_HEAD_SIZE];
        let copy = &mut copy[..part.len()];
        copy.copy_from_slice(part);
        self.token(isa, copy, 0, part);
    }

    /// Normalizes one token; `y`: `[hidden]`.
    pub(crate) fn token(&self, isa: Isa, x: &[f32], token: usize, y: &mut [f32]) {
        let (weight, eps) = (&self.weight[..], self.eps);
        let x = &x[token * weight.len()..][..weight.len()];
        match &self.bias {
            Some(bias) => isa.run(LayerNorm { x, weight, bias, eps, y }),
            None => isa.run(RmsNorm { x, weight, eps, y }),
        }
    }
}
