//! Models of the GLM family on a CPU.

mod error;

pub use error::{Error, Result};
