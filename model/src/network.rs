//! Layers, cache and the pass: ids → logits.

pub(crate) mod activations;
pub(crate) mod layer;
pub(crate) mod model;
pub(crate) mod placement;
pub(crate) mod state;
