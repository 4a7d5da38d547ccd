//! Models of the GLM family on a CPU.

mod chat;
mod error;
mod rewrite;
mod stream;
mod tokenizer;

pub use chat::{Mask, Message, Role, fill_prompt, prompt, prompt_ids, response};
pub use error::{Error, Result};
pub use stream::TextStream;
pub use tokenizer::{Special, Tokenizer};
