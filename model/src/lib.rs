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

mod files;
mod generate;
mod machine;
mod network;
mod text;

#[cfg(feature = "demo")]
pub mod demo;

pub use error::{Error, Result};
pub use files::checkpoint::{
    Bytes, Checkpoint, Dtype, Format, SafetensorsLayout, Tensor, TensorSpec,
};
pub use files::config::{
    BlankChoice, Config, Dialect, MaskKind, Mlp, Norm, QkvOrder, Residual, Rope, SpecialIds,
};
pub use files::inventory::{Inventory, MatrixInfo};
pub use files::model_files::ModelFiles;
pub use files::quantize::{GROUPS, QuantizeOptions, Quantized, quantize};
pub use files::random::RANDOM_SHAPES;
pub use generate::fill::Filled;
pub use generate::sampling::Sampling;
pub use generate::score::Score;
pub use generate::session::{
    Answer, CancelToken, DEFAULT_CONTEXT, Finish, Request, Session, TextAnswer,
};
pub use glm_kernels::{ISA_VARIABLE, Isa};
pub use machine::cores::Cores;
pub use machine::roofline::Machine;
pub use network::activations::Activations;
pub use network::layer::{Stage, Tap};
pub use network::model::{MAX_THREADS, Model, Options};
pub use network::state::{KvFormat, State};
pub use text::chat::{
    Blank, Fill, Message, Role, Template, answer_ids, blank, fill_prompt, has_blank,
};
pub use text::stream::TextStream;
pub use text::tokenizer::{Special, Tokenizer};
