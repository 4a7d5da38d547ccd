//! Logits → ids → answers.

pub(crate) mod answering;
pub(crate) mod batch;
pub(crate) mod bundle;
pub(crate) mod constraint;
pub(crate) mod conversation;
mod decoding;
pub(crate) mod draft;
pub(crate) mod fair_queue;
pub(crate) mod fill;
pub(crate) mod generation;
pub(crate) mod perplexity;
mod prefix_cache;
pub(crate) mod sampling;
pub(crate) mod score;
