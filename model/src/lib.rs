//! Models of the GLM family on a CPU.

mod checkpoint;
mod error;

pub use checkpoint::{Bytes, Checkpoint, Dtype, Format, Tensor};
pub use error::{Error, Result};
