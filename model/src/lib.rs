//! Models of the GLM family on a CPU: a folder as its authors published it, or as `glm quantize` wrote it, and answers.
//!
//! ```no_run
//! use glm_model::{Bundle, Conversation, ConversationOptions, Options};
//!
//! let bundle = Bundle::open("chatglm-6b-int4", &Options::default())?;
//! let options = ConversationOptions::new(bundle.request(7));
//! let mut conversation = Conversation::new(&bundle, options)?;
//! let mut reply = conversation.ask("你好")?;
//! for piece in &mut reply {
//!     print!("{}", piece?);
//! }
//! reply.finish()?;
//! # Ok::<(), glm_model::Error>(())
//! ```
//!
//! The crate has two flows, text → ids → logits → ids → text and model folder → weights. Its parts:
//!
//! ```text
//! files       model folder → checkpoint, configuration, weights
//! text        text ↔ ids: tokenizers, chat templates, streaming decoder
//! network     ids → logits: layers, keys and values, the pass
//! generate    logits → ids: sampling, drafting, generation
//! calibrate   model folder and text → quantized matrices
//! machine     cores and limits of this machine
//! ```
//!
//! A [`Model`] never changes and is shared by any number of threads. What a conversation has computed is in its [`Sequence`]; one
//! [`Model::run`] takes new tokens of several sequences. The same ids give the same bits on any number of threads, however a
//! prompt is cut, and whatever other sequences are in the pass.
//!
//! A [`Generation`] computes one answer, and a [`Batch`] many at the same time, with a queue and a cache of common beginnings. The
//! ids of an answer are the same in both.

mod calibrate;
mod error;

mod files;
mod generate;
mod limits;
mod machine;
mod memory;
mod network;
mod text;
mod units;

#[cfg(feature = "demo")]
pub mod demo;

pub use calibrate::{Calibration, CalibrationInfo};
pub use error::{Error, FileChange, Result};
pub use files::checkpoint::{
    Bytes, Checkpoint, Dtype, Format, SafetensorsLayout, Tensor, TensorSpec, checkpoint_files,
    write_skeleton,
};
pub use files::config::{
    BlankChoice, Config, Dialect, Experts, Latent, MaskKind, Mlp, Norm, QkvOrder, Residual, Rope,
    SpecialIds,
};
pub use files::gguf::BlockType;
pub use files::inventory::{Inventory, MatrixInfo};
pub use files::json::check_json_values;
pub use files::mapped::survive_truncated_files;
pub use files::model_dir::is_lfs_pointer;
pub use files::model_files::ModelFiles;
pub use files::model_path::ModelPath;
pub use files::prefix::TrainedPrefix;
pub use files::quantize::{
    GROUPS, QuantizeOptions, Quantized, Quantizer, calibration_bytes, companion_files, quantize,
};
pub use files::random::RANDOM_SHAPES;
pub use files::regular::{open_regular, open_regular_as, read_regular};
pub use files::utf8::{NotUtf8, owned_utf8, utf8};
pub use files::variant::Variant;
pub use generate::answering::AnswerGeneration;
pub use generate::batch::{Batch, BatchOptions, BatchStats, Event, Submission, Ticket};
pub use generate::bundle::Bundle;
pub use generate::constraint::{Constraint, IdSet};
pub use generate::conversation::{
    Answer, Conversation, ConversationOptions, Overflow, Reply, images_refused, messages_from_json,
    messages_to_json,
};
pub use generate::draft::{Draft, DraftStats};
pub use generate::fair_queue::{Client, FairQueue, Shares};
pub use generate::fill::{Filled, fill};
pub use generate::generation::{FinishReason, Generation, Request, TextGeneration, check_prompt};
pub use generate::perplexity::{
    Compared, Divergence, LogitsWriter, Mean, Perplexity, Prediction, Reference, SavedLogits,
    Window, WindowOptions, predict, windows,
};
pub use generate::sampling::{SampledToken, Sampler, Sampling, UnusableDefault};
pub use generate::score::{Score, score};
pub use glm_kernels::{ISA_VARIABLE, Isa, for_each, for_each_row};
pub use limits::checkpoint::MOST_IN_INDEX;
pub use limits::file::{MOST_IN_CONFIG, MOST_JSON_VALUES};
pub use limits::run::MAX_DRAFT;
pub use limits::run::MAX_THREADS;
pub use machine::cores::Cores;
pub use machine::roofline::Roofline;
pub use network::activations::Activations;
pub use network::adapter::{Adapter, AdapterKind};
pub use network::chunk::{Chunk, Logits};
pub use network::hook::{CancelToken, Hook, HookPoint, HookRows, LogitsSink, Progress, RunOptions};
pub use network::kv::{KvFormat, KvPool};
pub use network::layer::LinearRole;
pub use network::model::{DEFAULT_CONTEXT, Model, Options};
pub use network::sequence::Sequence;
pub use network::workspace::Workspace;
pub use text::chat::{
    AnswerEvent, AnswerParser, Blank, Fill, Message, PromptOptions, Role, SpecialNames, Template,
    Thinking, ToolCall, answer_ids, blank, fill_prompt, has_blank, offer_tools,
};
#[cfg(feature = "grammar")]
pub use text::grammar::{Grammar, GrammarCompiler, GrammarConstraint};
pub use text::stream::TextStream;
pub use text::tokenizer::{Special, Tokenizer};
pub use units::{readable_bytes, readable_parameters};
