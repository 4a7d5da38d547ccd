//! A linear layer, and the choice of its input type.

use glm_kernels::{Activation, Input, Isa, Matrix, Output, Q8Rows, Storage, for_each_row};

use super::Weight;
use crate::network::activations::Activations;
use crate::network::lora::Updates;

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

/// Arguments common to all linear layers of a pass.
pub(crate) struct Context<'a> {
    pub(crate) isa: Isa,
    pub(crate) activations: Activations,
    /// Buffer for quantized inputs.
    pub(crate) quantized: &'a mut Q8Rows,
    /// Buffer for inputs in the order of the columns, `[rows, inputs]`; empty if no layer has columns in an order of their own.
    pub(crate) ordered: &'a mut [f32],
    /// What adapters add to the outputs.
    pub(crate) updates: Option<Updates<'a>>,
}

impl Linear {
    /// `x`: `[rows, inputs]` → `y`: `[rows, outputs]`, stored or added.
    pub(crate) fn forward(
        &self,
        context: &mut Context<'_>,
        x: &[f32],
        output: Output,
        y: &mut [f32],
    ) {
        if let Some(order) = self.weight.order() {
            let buffer = std::mem::take(&mut context.ordered);
            let ordered = &mut buffer[..x.len()];
            let gather = |row: usize, to: &mut [f32]| {
                let x = &x[row * to.len()..][..to.len()];
                to.iter_mut().zip(&**order).for_each(|(to, &input)| *to = x[input as usize]);
            };
            self.forward_in_order(context, ordered, gather, Some(x), output, y);
            context.ordered = buffer;
            return;
        }
        let input = if self.takes_integers(context) {
            let (cols, rotation) = (self.weight.cols(), self.weight.rotation());
            context.quantized.quantize(context.isa, x, cols, rotation);
            Input::Q8(context.quantized)
        } else {
            Input::F32(x)
        };
        self.compute(context.isa, input, x, &mut context.updates, output, y);
    }

    /// As [`Self::forward`], after `fill` has written the rows of `x`. The thread that wrote a row also quantizes it, while it is
    /// in the cache of its core.
    pub(crate) fn forward_filled(
        &self,
        context: &mut Context<'_>,
        x: &mut [f32],
        fill: impl Fn(usize, &mut [f32]) + Sync,
        output: Output,
        y: &mut [f32],
    ) {
        match self.weight.order() {
            None => self.forward_in_order(context, x, fill, None, output, y),
            Some(_) => {
                for_each_row(x, self.weight.cols(), fill);
                self.forward(context, x, output, y);
            }
        }
    }

    /// As [`Self::forward_filled`], with inputs in the order of the columns. Updates take `natural`, the inputs in their own order, if
    /// that is another.
    fn forward_in_order(
        &self,
        context: &mut Context<'_>,
        x: &mut [f32],
        fill: impl Fn(usize, &mut [f32]) + Sync,
        natural: Option<&[f32]>,
        output: Output,
        y: &mut [f32],
    ) {
        let input = if self.takes_integers(context) {
            let (cols, rotation) = (self.weight.cols(), self.weight.rotation());
            context.quantized.fill(context.isa, x, cols, rotation, fill);
            Input::Q8(context.quantized)
        } else {
            for_each_row(x, self.weight.cols(), fill);
            Input::F32(x)
        };
        let natural = natural.unwrap_or(x);
        self.compute(context.isa, input, natural, &mut context.updates, output, y);
    }

    /// The outputs for `input`, which is `x`, and the updates.
    fn compute(
        &self,
        isa: Isa,
        input: Input<'_>,
        x: &[f32],
        updates: &mut Option<Updates<'_>>,
        output: Output,
        y: &mut [f32],
    ) {
        let Some(updates) = updates else {
            return self.kernel(self.activation).forward_into(isa, input, output, y);
        };
        debug_assert_eq!(output, Output::Store, "a sum of three terms would depend on its order");
        self.kernel(Activation::None).forward_into(isa, input, output, y);
        updates.add(isa, x, self.activation, y);
    }

    /// Whether all matrices take integers that are rotated in the same way.
    pub(crate) fn are_alike<'m>(mut matrices: impl Iterator<Item = Matrix<'m>>) -> bool {
        let Some(first) = matrices.next() else { return false };
        let is_quantized = |it: &Matrix<'_>| matches!(it.storage(), Storage::Panels(_));
        let is_like = |it: Matrix<'_>| is_quantized(&it) && it.rotation() == first.rotation();
        is_quantized(&first) && matrices.all(is_like)
    }

    /// Computes several layers at once, without bias, each for its section of the rows of `x`, which `fill` writes: see
    /// [`forward_each`](glm_kernels::Linear::forward_each). Inputs may only be quantized if the layers [are alike](Self::are_alike). That
    /// must not depend on which of them are computed for a token, or its bits would depend on other tokens.
    pub(crate) fn forward_each(
        context: &mut Context<'_>,
        are_alike: bool,
        layers: &[(Matrix<'_>, usize)],
        sections: &[usize],
        x: &mut [f32],
        fill: impl Fn(usize, &mut [f32]) + Sync,
        y: &mut [f32],
    ) {
        let Some((first, _)) = layers.first() else { return };
        let (cols, rotation, isa) = (first.cols(), first.rotation(), context.isa);
        let input = if are_alike && context.activations == Activations::Int8 {
            context.quantized.fill_sections(isa, x, sections, cols, rotation, fill);
            Input::Q8(context.quantized)
        } else {
            for_each_row(x, cols, fill);
            Input::F32(x)
        };
        let layer = |&(weight, section)| {
            let activation = Activation::None;
            (glm_kernels::Linear { weight, bias: None, activation }, section)
        };
        let layers: Vec<_> = layers.iter().map(layer).collect();
        glm_kernels::Linear::forward_each(isa, &layers, sections, input, y);
    }

    fn takes_integers(&self, context: &Context<'_>) -> bool {
        context.activations == Activations::Int8 && self.weight.is_quantized()
    }

    fn kernel(&self, activation: Activation) -> glm_kernels::Linear<'_> {
        glm_kernels::Linear { weight: self.weight.matrix(), bias: self.bias.as_deref(), activation }
    }
}
