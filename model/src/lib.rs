//! Models of the GLM family on a CPU: a folder as its authors published it, or as `glm quantize` wrote it, and answers.
//!
//! ```no_run
//! use glm_model::{Message, Model, Options, Request, Role, Session, Template, Tokenizer};
//!
//! let dir = "chatglm-6b-int4".as_ref();
//! let model = Model::open(dir, &Options::default())?;
//! let tokenizer = Tokenizer::open(dir)?;
//! let template = Template::open(dir, &tokenizer)?;
//! let mut session = Session::new(&model, None)?;
//! let prompt = template.prompt_ids(&tokenizer, &[Message::new(Role::User, "你好")])?;
//! let request = Request::chat(&model, 7).ending_as(&template, &tokenizer);
//! let answer = session.generate(&prompt, &request)?;
//! for piece in answer.text(template.stream(&tokenizer)) {
//!     print!("{}", piece?);
//! }
//! # Ok::<(), glm_model::Error>(())
//! ```
//!
//! Inside, two flows meet in [`Session`]; a module uses only those above it in this list:
//!
//! ```text
//! file → weights → layer → kernel          checkpoint, config → weights → layer → glm_kernels
//! text → ids → logits → text               tokenizer, chat → session (glm, sampling) → stream
//! ```
//!
//! A [`Model`] never changes and is shared by any number of sessions and threads; a [`Session`] owns all memory that does.
//! The same ids give the same bits on any number of threads, however a prompt is cut into tiles.

mod error;

mod folder;

mod fields;
mod member;

mod checkpoint;
mod sampling;

mod config;

mod activations;
mod position;
mod state;

mod layer;
mod weights;

mod rewrite;
mod tokenizer;

mod inventory;

mod glm;
mod machine;
mod quantize;

mod polish;
mod stream;

mod chat;

mod session;

mod cores;
mod fill;
mod random;
mod score;

#[cfg(feature = "demo")]
pub mod demo;

pub use activations::Activations;
pub use chat::{Blank, Fill, Message, Role, Template, answer_ids, blank, fill_prompt, has_blank};
pub use checkpoint::{Bytes, Checkpoint, Dtype, Format, Tensor};
pub use config::{
    BlankChoice, Config, Dialect, MaskKind, Mlp, Norm, Positions, QkvOrder, Residual, SpecialIds,
};
pub use cores::Cores;
pub use error::{Error, Result};
pub use fill::Filled;
pub use glm::{MAX_THREADS, Model, Options};
pub use glm_kernels::{ISA_VARIABLE, Isa};
pub use inventory::{Inventory, MatrixInfo};
pub use layer::{Stage, Tap};
pub use machine::Machine;
pub use quantize::{GROUPS, QuantizeOptions, Quantized, quantize};
pub use random::RANDOM_SHAPES;
pub use sampling::Sampling;
pub use score::Score;
pub use session::{Answer, CancelToken, DEFAULT_CONTEXT, Finish, Request, Session, TextAnswer};
pub use state::{KvFormat, State};
pub use stream::TextStream;
pub use tokenizer::{Special, Tokenizer};
