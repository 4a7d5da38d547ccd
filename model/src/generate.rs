//! Logits → ids → answers.

pub(crate) mod fill;
pub(crate) mod sampling;
pub(crate) mod score;
pub(crate) mod session;
