//! Models of the GLM family on a CPU.

mod error;
mod rewrite;
mod tokenizer;

pub use error::{Error, Result};
pub use tokenizer::{Special, Tokenizer};
