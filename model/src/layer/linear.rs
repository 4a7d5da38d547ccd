//! A linear layer and the choice of its inputs' type.

use glm_kernels::{Activation, Input, Isa, Q8Rows};

use super::Weight;
use crate::activations::Activations;

/// `y = act(x·Wᵀ + b)`
pub(crate) struct Linear {
    /// `[outputs, inputs]`
    pub(crate) weight: Weight,
    /// `[outputs]`
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) activation: Activation,
}

impl From<Weight> for Linear {
    fn from(weight: Weight) -> Self {
        Self { weight, bias: None, activation: Activation::None }
    }
}

/// What a forward pass runs with.
pub(crate) struct Context<'a> {
    pub(crate) isa: Isa,
    pub(crate) activations: Activations,
    /// Room for the quantised inputs of a linear layer.
    pub(crate) quantised: &'a mut Q8Rows,
}

impl Linear {
    /// `x`: `[tokens, inputs]` → `y`: `[tokens, outputs]`.
    pub(crate) fn forward(&self, context: &mut Context<'_>, x: &[f32], y: &mut [f32]) {
        let Context { isa, activations, quantised } = context;
        let linear = glm_kernels::Linear {
            weight: self.weight.matrix(),
            bias: self.bias.as_deref(),
            activation: self.activation,
        };
        let input = if *activations == Activations::Int8 && self.weight.is_quantised() {
            quantised.quantize(*isa, x, self.weight.cols());
            Input::Q8(quantised)
        } else {
            Input::F32(x)
        };
        linear.forward(*isa, input, y);
    }
}
