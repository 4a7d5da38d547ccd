//! Logits → ids → answers.

pub(crate) mod bundle;
pub(crate) mod conversation;
pub(crate) mod draft;
pub(crate) mod fill;
pub(crate) mod generation;
pub(crate) mod sampling;
pub(crate) mod score;
