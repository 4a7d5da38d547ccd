//! `config.json` → one [`Config`]. Every difference between the models is data in it, so later code never asks for a model's
//! name.
//!
//! Each published dialect of `config.json` has a file under `config/` that turns it into a [`Config`], and a row in
//! [`READERS`]. To support another model, add such a file and, if its tensors have other names, a table in `weights/names.rs`.
//! Only a component that no supported model has needs a new variant of an enum in `config/kinds.rs` and a branch in `layer/`.

use crate::error::{Error, Result};
use crate::files::checkpoint;
use crate::files::fields::Fields;
use crate::files::model_dir::{CONFIG as FILE, ModelDir};
use crate::files::model_path::ModelPath;
use crate::files::packed::Packing;
use crate::files::peft::no_model_error;
use crate::files::prefix::TrainedPrefix;
use crate::files::variant::Variant;
use crate::generate::sampling::{Sampling, UnusableDefault};

mod chatglm;
mod chatglm2;
mod gguf;
mod glm;
mod glm130b;
mod glm4_moe;
mod glm4v;
mod kinds;
mod ranges;
mod refused;
mod transformers;
mod widths;

pub use kinds::{
    BlankChoice, Dialect, Experts, Latent, MaskKind, Mlp, Norm, QkvOrder, Residual, Rope,
    SpecialIds,
};

/// Reads one dialect of `config.json`.
struct Reader {
    /// The models with this dialect, for people.
    models: &'static str,
    recognises: fn(&Fields) -> bool,
    read: fn(&Fields) -> Result<Config>,
}

const READERS: [Reader; 8] = [
    chatglm::READER,
    chatglm2::READER,
    transformers::READER,
    glm4_moe::READER,
    glm4v::READER,
    glm::READER,
    glm130b::READER,
    gguf::READER,
];

/// The configuration of a folder without `config.json`.
pub(crate) use glm130b::PUBLISHED as UNWRITTEN;

/// The sampling parameters that the authors recommend.
pub(crate) const GENERATION: &str = "generation_config.json";

/// Sizes and kinds of a model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The published name of the architecture.
    pub architecture: &'static str,
    /// The variant that the model was taken for though nothing says that it is; see [`ModelPath::of_variant`].
    pub assumed: Option<Variant>,
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values. With latent attention there is one, for all heads of queries.
    pub kv_heads: usize,
    /// Elements of a cached key; without latent attention, of every head.
    pub head_size: usize,
    /// Latent attention, if keys and values are computed from a latent vector.
    pub latent: Option<Latent>,
    /// Whether each head of queries and keys is normalized (RMSNorm) before it is rotated.
    pub head_norms: bool,
    /// Width between the matrices of the MLP of layers without experts.
    pub intermediate_size: usize,
    /// The experts of the layers that have some.
    pub experts: Option<Experts>,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Largest context the model supports, in tokens.
    pub max_context: usize,
    /// Normalization.
    pub norm: Norm,
    /// MLP.
    pub mlp: Mlp,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Attention mask.
    pub mask: MaskKind,
    /// Residual connection.
    pub residual: Residual,
    /// Order of query, key and value.
    pub qkv: QkvOrder,
    /// Whether query, key and value have biases.
    pub qkv_bias: bool,
    /// Whether the other linear layers have biases.
    pub linear_bias: bool,
    /// Whether the outputs of attention and MLP are normalized, too.
    pub output_norms: bool,
    /// Names of the tensors.
    pub dialect: Dialect,
    /// Whether the embedding is the head of a checkpoint without one (`tie_word_embeddings`; its default is true for ChatGLM-6B
    /// and false for later models).
    pub tied_head: bool,
    /// A trained prefix of keys and values (P-Tuning v2) that every sequence begins with.
    pub prefix: Option<TrainedPrefix>,
    /// How packed weights are stored, if there may be some.
    pub(crate) packing: Option<Packing>,
    /// Special ids.
    pub special: SpecialIds,
    /// The authors' sampling parameters, with seed 0: the defaults of `chat` in the published code (of ChatGLM2's for models
    /// without `chat`), overridden by `generation_config.json`.
    pub sampling: Sampling,
    /// What in `generation_config.json` is outside its range, and has not overridden `sampling`.
    pub unusable_defaults: Vec<UnusableDefault>,
}

impl Config {
    /// Checks that a context of `capacity` tokens is neither empty nor larger than the model supports.
    pub(crate) fn check_capacity(&self, capacity: usize) -> Result<()> {
        let max = self.max_context;
        if (1..=max).contains(&capacity) {
            return Ok(());
        }
        Err(Error::Setting {
            setting: "context",
            range: format!("from 1 to {max}, for which the model was made"),
            found: capacity.to_string(),
        })
    }

    /// Reads `config.json` of a model's folder, and `generation_config.json` and `added_tokens.json` beside it.
    ///
    /// # Errors
    /// If there is none, it is no JSON object, the architecture is not supported (the error lists those that are), or a size
    /// is missing or outside its range.
    pub fn open(dir: impl Into<ModelPath>) -> Result<Self> {
        Self::of_folder(&ModelDir::open(dir)?)
    }

    /// The same from files that are in memory, by their names.
    ///
    /// # Errors
    /// As [`Config::open`].
    pub fn from_files(files: &[(&str, &[u8])]) -> Result<Self> {
        Self::of_folder(&ModelDir::of(files))
    }

    pub(crate) fn of_folder(folder: &ModelDir) -> Result<Self> {
        let fields = match folder.has(FILE) {
            // GLM-130B was published without one.
            false if checkpoint::is_sharded(|name| folder.has(name)) => {
                Fields::parse(folder, FILE, UNWRITTEN)?
            }
            false => {
                let missing = || folder.error(FILE, "is missing, or no regular file");
                return Err(no_model_error(folder).unwrap_or_else(missing));
            }
            true => Fields::open(folder, FILE)?,
        };
        let Some(reader) = READERS.iter().find(|reader| (reader.recognises)(&fields)) else {
            let supported: Vec<_> = READERS.iter().map(|reader| reader.models).collect();
            if !fields.has("model_type") {
                return Err(fields.error(format!(
                    "model_type is missing, which says what model it is; supported: {}",
                    supported.join("; ")
                )));
            }
            if let Some(refused) = refused::of_model_type(&fields) {
                return Err(fields.error(format!("{refused}; supported: {}", supported.join("; "))));
            }
            return Err(fields.error(format!(
                "model_type {} with architectures {} is not supported; supported: {}",
                fields.shown("model_type"),
                fields.shown("architectures"),
                supported.join("; ")
            )));
        };
        let mut config = (reader.read)(&fields)?;
        config.prefix = TrainedPrefix::read(&fields, config.dialect)?;
        config.packing = Packing::read(&fields, folder)?;
        let generation = Fields::open(folder, GENERATION)?;
        (config.sampling, config.unusable_defaults) = config.sampling.with_overrides(&generation);
        // As transformers generates: those of `config.json` count only if this file has none. The template adds the ends of its turns.
        // The models that fill blanks have ends that are not in `config.json`, or not alone: those stay.
        let mut ends = match config.dialect {
            Dialect::Glm | Dialect::Glm130B => config.special.ends.clone(),
            _ => Vec::new(),
        };
        for end in generation.known_ids("eos_token_id", config.vocab) {
            if !ends.contains(&end) {
                ends.push(end);
            }
        }
        if !ends.is_empty() {
            config.special.ends = ends;
        }
        Ok(config)
    }

    /// Whether the published model also reads images, and only the part that reads text is here.
    pub fn is_text_part(&self) -> bool {
        self.dialect == Dialect::Glm4v
    }
}

#[cfg(test)]
pub(crate) mod tests;
