//! Models of the GLM family on a CPU: a folder as its authors published it, or as `glm quantize` wrote it, and answers.
//!
//! ```text
//! file → weights → layer → kernel          checkpoint, config → weights → layer → glm_kernels
//! text → ids → logits → text               tokenizer, chat → session (glm, sampling) → stream
//! ```

mod error;

mod checkpoint;
mod config;

mod position;
mod state;

mod layer;
mod weights;

mod glm;
mod quantize;

mod sampling;
mod session;

pub use checkpoint::{Bytes, Checkpoint, Dtype, Format, Tensor};
pub use config::{Config, MaskKind, Mlp, Norm, QkvOrder, Residual, Rope, SpecialIds};
pub use error::{Error, Result};
pub use glm::{MAX_THREADS, Model, Options};
pub use layer::{Activations, MatrixInfo, Stage, Tap};
pub use quantize::{GROUPS, QuantizeOptions, Quantized, quantize};
pub use sampling::Sampling;
pub use session::{Answer, CancelToken, Finish, Request, Session};
pub use state::State;
