//! Text ↔ ids: tokenizers, chat templates, streaming decoder.

pub(crate) mod chat;
#[cfg(feature = "grammar")]
pub(crate) mod grammar;
pub(crate) mod nesting;
pub(crate) mod postprocess;
pub(crate) mod rewrite;
pub(crate) mod stream;
pub(crate) mod tokenizer;
