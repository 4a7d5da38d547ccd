//! Layers, cache and the pass: ids → logits.

pub(crate) mod activations;
pub(crate) mod adapter;
pub(crate) mod chunk;
pub(crate) mod experts;
pub(crate) mod hook;
pub(crate) mod kv;
pub(crate) mod layer;
pub(crate) mod lora;
pub(crate) mod model;
pub(crate) mod pass;
pub(crate) mod placement;
pub(crate) mod rope;
pub(crate) mod sequence;
pub(crate) mod workspace;
