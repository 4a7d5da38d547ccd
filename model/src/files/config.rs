//! `config.json` → one [`Config`]. Every difference between the models is data in it, so later code never asks for a model's
//! name.
//!
//! Each published dialect of `config.json` has a file under `config/` that turns it into a [`Config`], and a row in
//! [`READERS`]. To support another model, add such a file and, if its tensors have other names, a table in `weights/names.rs`.
//! Only a component that no supported model has needs a new variant of an enum here and a branch in `layer/`.

use glm_kernels::Heads;

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
use crate::limits::config::{MAX_HEADS, MAX_HIDDEN, MAX_INTERMEDIATE, MAX_LAYERS, MAX_VOCAB};

mod chatglm;
mod chatglm2;
mod gguf;
mod glm;
mod glm130b;
mod transformers;

/// Reads one dialect of `config.json`.
struct Reader {
    /// The models with this dialect, for people.
    models: &'static str,
    recognises: fn(&Fields) -> bool,
    read: fn(&Fields) -> Result<Config>,
}

const READERS: [Reader; 6] = [
    chatglm::READER,
    chatglm2::READER,
    transformers::READER,
    glm::READER,
    glm130b::READER,
    gguf::READER,
];

/// The configuration of a folder without `config.json`.
pub(crate) use glm130b::PUBLISHED as UNWRITTEN;

/// The sampling parameters that the authors recommend.
pub(crate) const GENERATION: &str = "generation_config.json";

/// How activations are normalized.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Norm {
    /// LayerNorm with weight and bias.
    Layer {
        /// Added to the variance.
        eps: f32,
    },
    /// RMSNorm with weight.
    Rms {
        /// Added to the mean of the squares.
        eps: f32,
    },
}

/// The activation function of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mlp {
    /// GELU, tanh approximation.
    GeluTanh,
    /// GELU with the error function.
    GeluErf,
    /// `silu(gate) · up`; the first matrix holds the gate's rows, then up's.
    SwiGlu,
    /// `up · gelu(gate)` with the error function; the first matrix holds up's rows, then the gate's.
    GeGlu,
}

impl Mlp {
    /// Whether the first matrix also has the rows of a gate.
    pub fn is_gated(self) -> bool {
        matches!(self, Mlp::SwiGlu | Mlp::GeGlu)
    }
}

/// How queries and keys are rotated by their positions (rotary position embedding).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Rope {
    /// No rotation. The model adds a learned vector for each of its two positions to the embedding instead.
    None,
    /// The 2D rotation of ChatGLM-6B. Each half of a head is rotated by one of two positions, element `i` of the half with
    /// element `i + half/2`. The inverse frequencies `base^(−2i/half)` are rounded to `f16`, as in the published code.
    TwoD {
        /// Base of the frequencies.
        base: f32,
    },
    /// The rotation of GPT-NeoX. A whole head is rotated by one position, element `i` with element `i + size/2`. The inverse
    /// frequencies `base^(−2i/size)` are rounded to `f16`.
    NeoX {
        /// Base of the frequencies.
        base: f32,
    },
    /// The rotation of GPT-J. The first `rotary_dim` elements of a head are rotated by one position, element `2i` with element
    /// `2i + 1`, with the inverse frequency `base^(−2i/rotary_dim)`.
    Interleaved {
        /// Base of the frequencies.
        base: f32,
        /// Elements of a head that are rotated.
        rotary_dim: usize,
        /// Divides the position (linear scaling).
        scaling_factor: f32,
    },
    /// The same rotation of rows that a converter has put into another order: element `i` of the rotated part with element
    /// `i + rotary_dim/2`.
    Halves {
        /// Base of the frequencies.
        base: f32,
        /// Elements of a head that are rotated.
        rotary_dim: usize,
        /// Divides the position (linear scaling).
        scaling_factor: f32,
    },
}

/// Which tokens attend to which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaskKind {
    /// Every token attends to itself and those before it.
    Causal,
    /// Tokens before the first `sop` attend to each other in both directions. `sop` and the tokens after it are causal; their
    /// position is that of the blank they fill.
    Prefix(BlankChoice),
}

/// Which blank is filled if a prompt has several; of one kind, always the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlankChoice {
    /// `[gMASK]`, or else `[MASK]`.
    GmaskFirst,
    /// The first blank of any kind.
    Leftmost,
    /// `[MASK]`, or else `[sMASK]`, or else `[gMASK]`. Tokens that fill a `[gMASK]` have the position after the context instead.
    MaskFirst,
}

/// The residual connection around attention and MLP.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Residual {
    /// `x + f(norm(x))`
    Plain,
    /// `α·norm(x) + f(norm(x))`
    Scaled(f32),
}

/// The order of the rows of the query-key-value matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QkvOrder {
    /// Head by head: its query, key and value.
    PerHead,
    /// All queries, all keys, all values.
    Concatenated,
}

/// The naming scheme of the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// ChatGLM-6B's.
    ChatGlm,
    /// ChatGLM2-6B's, also used by ChatGLM3-6B and GLM-4-9B.
    ChatGlm2,
    /// The one of `glm` and `glm4` in the transformers library.
    Transformers,
    /// The original GLM's.
    Glm,
    /// GLM-130B's.
    Glm130B,
    /// The one of GGUF files.
    Gguf,
}

/// Ids of special tokens, as far as a model has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins the answer (`<sop>`).
    pub sop: Option<u32>,
    /// Each of these ends the answer.
    pub ends: Vec<u32>,
    /// A short blank (`[MASK]`).
    pub mask: Option<u32>,
    /// A blank for a sentence (`[sMASK]`).
    pub smask: Option<u32>,
    /// A blank of any length (`[gMASK]`).
    pub gmask: Option<u32>,
}

impl SpecialIds {
    /// The blanks, and the start of an answer, whose token is called `sop`; no ends.
    pub(crate) fn named(sop: &str, id: impl Fn(&str) -> Option<u32>) -> Self {
        let (mask, smask, gmask) = (id("[MASK]"), id("[sMASK]"), id("[gMASK]"));
        Self { sop: id(sop), ends: Vec::new(), mask, smask, gmask }
    }

    /// The blanks with their names.
    pub(crate) fn blanks(&self) -> [(&'static str, Option<u32>); 3] {
        [("[MASK]", self.mask), ("[sMASK]", self.smask), ("[gMASK]", self.gmask)]
    }
}

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
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_size: usize,
    /// Width between the matrices of the MLP.
    pub intermediate_size: usize,
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

    /// Rows of the query-key-value matrix.
    pub(crate) fn qkv_rows(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_size
    }

    /// Rows of the MLP's first matrix.
    pub(crate) fn up_rows(&self) -> usize {
        if self.mlp.is_gated() { 2 * self.intermediate_size } else { self.intermediate_size }
    }

    /// Where queries, keys and values are in an output row of the query-key-value matrix.
    pub(crate) fn heads_at(&self) -> [Heads; 3] {
        let size = self.head_size;
        let (firsts, stride) = match self.qkv {
            QkvOrder::PerHead => ([0, 1, 2], 3 * size),
            QkvOrder::Concatenated => ([0, self.heads, self.heads + self.kv_heads], size),
        };
        firsts.map(|first| Heads { first: first * size, stride })
    }

    /// Width of all heads together.
    pub(crate) fn attention_width(&self) -> usize {
        self.heads * self.head_size
    }
}

/// Fields that several dialects have, with their ranges.
impl Fields<'_> {
    fn vocab(&self, name: &str) -> Result<usize> {
        self.size(name, 1..=MAX_VOCAB)
    }

    fn hidden(&self) -> Result<usize> {
        self.size("hidden_size", 8..=MAX_HIDDEN)
    }

    fn heads(&self) -> Result<usize> {
        self.size("num_attention_heads", 1..=MAX_HEADS)
    }

    fn layers(&self, name: &str) -> Result<usize> {
        self.size(name, 1..=MAX_LAYERS)
    }

    fn intermediate_size(&self, name: &str) -> Result<usize> {
        self.size(name, 1..=MAX_INTERMEDIATE)
    }

    fn context(&self, name: &str) -> Result<usize> {
        self.size(name, 1..=1 << 21)
    }

    /// The size of a head if all heads together have the hidden size.
    fn head_size(&self, hidden: usize, heads: usize) -> Result<usize> {
        if !hidden.is_multiple_of(heads) {
            return Err(self.error(format!(
                "hidden_size {hidden} is no multiple of num_attention_heads {heads}"
            )));
        }
        self.check_head_size("hidden_size / num_attention_heads", hidden / heads)
    }

    fn check_head_size(&self, what: &str, size: usize) -> Result<usize> {
        if size.is_multiple_of(8) && (8..=glm_kernels::MAX_HEAD_SIZE).contains(&size) {
            return Ok(size);
        }
        Err(self.error(format!(
            "{what} is a head size of {size}; it must be a multiple of 8 up to {}",
            glm_kernels::MAX_HEAD_SIZE
        )))
    }

    /// The number of key-value heads in field `name`, of which `heads` must be a multiple.
    fn kv_heads(&self, name: &str, heads: usize) -> Result<usize> {
        let groups = self.size(name, 1..=heads)?;
        if heads.is_multiple_of(groups) {
            return Ok(groups);
        }
        Err(self.error(format!("{heads} heads cannot share {groups} {name}")))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_as_generation_config_says_or_else_config() {
        for (generation, ends) in [
            ("{}", &[95][..]),
            (r#"{"eos_token_id": 7}"#, &[7]),
            (r#"{"eos_token_id": [95, 7, 8, 7]}"#, &[95, 7, 8]),
            (r#"{"eos_token_id": null}"#, &[95]),
            // No id of the model.
            (r#"{"eos_token_id": [100, -1, 9]}"#, &[9]),
            (r#"{"eos_token_id": [100, "x"]}"#, &[95]),
            ("\u{feff}{\"eos_token_id\": 7}", &[7]),
        ] {
            let files = [(FILE, TINY.as_bytes()), (GENERATION, generation.as_bytes())];
            assert_eq!(Config::from_files(&files).unwrap().special.ends, ends, "{generation}");
        }
        // The end of a blank is another token.
        let blanks =
            RELATIVES[3].replace("\"sop_token_id\"", "\"eop_token_id\": 89, \"sop_token_id\"");
        let files = [(FILE, blanks.as_bytes()), (GENERATION, br#"{"eos_token_id": 7}"#)];
        let ends = Config::from_files(&files).unwrap().special.ends;
        assert!(ends.contains(&89) && ends.contains(&7), "{ends:?}");
        let bad = [(FILE, TINY.as_bytes()), (GENERATION, br#"{"top_p": -3, "top_k": "x"}"#)];
        let config = Config::from_files(&bad).unwrap();
        assert_eq!(config.sampling, parse(TINY).unwrap().sampling);
        let settings: Vec<_> = config.unusable_defaults.iter().map(|it| it.setting).collect();
        assert_eq!(settings, ["top-p", "top-k"]);
    }

    pub(crate) const TINY: &str = r#"{
        "model_type": "chatglm", "architectures": ["ChatGLMModel"], "num_layers": 2, "hidden_size": 64,
        "num_attention_heads": 2, "inner_hidden_size": 256, "vocab_size": 100, "max_sequence_length": 2048,
        "layernorm_epsilon": 1e-5, "position_encoding_2d": true,
        "bos_token_id": 94, "eos_token_id": 95, "mask_token_id": 90, "gmask_token_id": 91
    }"#;

    fn parse(text: &str) -> Result<Config> {
        Config::from_files(&[(FILE, text.as_bytes())])
    }

    #[test]
    fn chatglm_6b_is_read() {
        let config = parse(TINY).unwrap();
        assert_eq!((config.head_size, config.kv_heads, config.intermediate_size), (32, 2, 256));
        assert_eq!(config.special.gmask, Some(91));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, expected) in [
            ("\"chatglm\"", "\"llama\"", "llama"),
            ("\"num_layers\": 2", "\"num_layers\": 0", "num_layers must be an integer from 1"),
            ("\"num_layers\": 2", "\"num_layers\": 1e99", "num_layers"),
            ("\"hidden_size\": 64", "\"hidden_size\": 60", "head size"),
            ("\"hidden_size\": 64", "\"hidden_size\": 18446744073709551615", "hidden_size"),
            ("\"num_attention_heads\": 2", "\"num_attention_heads\": 3", "num_attention_heads"),
            ("1e-5", "-1", "layernorm_epsilon must be a positive"),
            ("\"bos_token_id\": 94", "\"bos_token_id\": 100", "bos_token_id"),
            (
                "\"position_encoding_2d\": true",
                "\"position_encoding_2d\": false",
                "position_encoding_2d",
            ),
        ] {
            let error = parse(&TINY.replace(from, to)).unwrap_err().to_string();
            assert!(error.starts_with(FILE) && error.contains(expected), "{error}");
        }
        assert!(parse("[1]").is_err() && parse("{").is_err());
        let unknown = parse("{}").unwrap_err().to_string();
        assert!(unknown.contains("supported: ChatGLM-6B"), "{unknown}");
    }

    const RELATIVES: [&str; 5] = [
        r#"{"model_type": "chatglm", "_name_or_path": "THUDM/chatglm2-6b-32k", "num_layers": 2, "hidden_size": 64,
            "num_attention_heads": 4, "kv_channels": 16, "multi_query_attention": true, "multi_query_group_num": 2,
            "ffn_hidden_size": 100, "padded_vocab_size": 100, "seq_length": 32768, "layernorm_epsilon": 1e-5,
            "add_qkv_bias": true, "rope_ratio": 16, "eos_token_id": 2}"#,
        r#"{"model_type": "glm", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "head_dim": 16,
            "num_key_value_heads": 2, "intermediate_size": 100, "vocab_size": 100, "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5, "attention_bias": true, "eos_token_id": [5, 6]}"#,
        r#"{"model_type": "glm4", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 100, "vocab_size": 100,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_parameters": {"rope_theta": 500, "partial_rotary_factor": 1.0}}"#,
        r#"{"model_type": "glm", "block_position_encoding": true, "num_layers": 2, "hidden_size": 64,
            "num_attention_heads": 4, "vocab_size": 100, "max_sequence_length": 128, "sop_token_id": 90,
            "mask_token_id": 91}"#,
        glm130b::PUBLISHED,
    ];

    #[test]
    fn the_relatives_are_read() {
        let [two, native, four, glm, large] = RELATIVES.map(|text| parse(text).unwrap());
        let rope = |base, rotary_dim, scaling_factor| Rope::Interleaved {
            base,
            rotary_dim,
            scaling_factor,
        };
        assert_eq!((two.kv_heads, two.rope), (2, rope(1e4, 8, 16.0)));
        assert_eq!((native.qkv_bias, native.rope), (true, rope(1e4, 8, 1.0)));
        assert_eq!((&native.special.ends[..], native.output_norms), (&[5, 6][..], false));
        assert_eq!((four.output_norms, four.rope), (true, rope(500.0, 16, 1.0)));
        assert_eq!(
            (glm.intermediate_size, glm.special.mask, glm.special.gmask),
            (256, Some(91), None)
        );
        assert_eq!((large.head_size, large.residual), (128, Residual::Scaled(140f32.sqrt())));
        let three = parse(&RELATIVES[0].replace("chatglm2-6b-32k", "chatglm3-6b-32k")).unwrap();
        assert_eq!((three.architecture, three.rope), ("ChatGLM3-6B", rope(16e4, 8, 1.0)));
    }

    #[test]
    fn fields_that_transformers_may_leave_out_have_its_defaults() {
        for model in ["glm", "glm4"] {
            let config = parse(&format!(
                r#"{{"model_type": "{model}", "architectures": ["GlmForCausalLM"], "num_hidden_layers": 2, "hidden_size": 64,
                    "num_attention_heads": 4, "intermediate_size": 100, "vocab_size": 100}}"#
            ))
            .unwrap();
            assert_eq!((config.kv_heads, config.head_size, config.max_context), (2, 128, 131_072));
            assert_eq!((config.norm, config.qkv_bias), (Norm::Rms { eps: 1.5625e-7 }, true));
        }
    }

    #[test]
    fn a_missing_field_is_named() {
        for (relative, field) in [
            (0, "ffn_hidden_size"),
            (0, "padded_vocab_size"),
            (0, "multi_query_group_num"),
            (1, "num_hidden_layers"),
            (1, "intermediate_size"),
            (2, "vocab_size"),
        ] {
            let mut config: serde_json::Value = serde_json::from_str(RELATIVES[relative]).unwrap();
            config.as_object_mut().unwrap().remove(field);
            config["architectures"] = serde_json::json!(["GlmForCausalLM"]);
            let error = parse(&config.to_string()).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{field} must be")) && error.contains("missing"),
                "{error}"
            );
        }
        let first = TINY.replace("\"inner_hidden_size\": 256,", "");
        assert!(parse(&first).unwrap_err().to_string().contains("inner_hidden_size must be"));
        assert!(parse("{}").unwrap_err().to_string().contains("model_type is missing"));
    }

    #[test]
    fn what_the_network_is_not_built_for_is_refused() {
        for (relative, from, to, expected) in [
            (0, "\"add_qkv_bias\"", "\"rmsnorm\": false, \"add_qkv_bias\"", "rmsnorm must be true"),
            (0, "\"multi_query_group_num\": 2", "\"multi_query_group_num\": 3", "cannot share 3"),
            (0, "\"rope_ratio\": 16", "\"rope_ratio\": 0", "rope_ratio must be a positive"),
            (
                0,
                "\"eos_token_id\": 2",
                "\"eos_token_id\": 100",
                "eos_token_id must be ids below 100",
            ),
            (1, "\"head_dim\": 16", "\"head_dim\": 17", "head size of 17"),
            (1, "\"head_dim\": 16", "\"head_dim\": 16, \"hidden_act\": \"gelu\"", "hidden_act"),
            (
                1,
                "\"head_dim\": 16",
                "\"head_dim\": 16, \"partial_rotary_factor\": 0.01",
                "rotates 0",
            ),
            (2, "\"rope_theta\"", "\"rope_type\": \"yarn\", \"rope_theta\"", "of type \"yarn\""),
            (3, "\"sop_token_id\": 90", "\"sop_token_id\": 100", "sop_token_id must be an integer"),
            (4, "\"layernorm_order\": \"post\"", "\"layernorm_order\": \"pre\"", "layernorm_order"),
        ] {
            let text = RELATIVES[relative].replace(from, to);
            assert_ne!(text, RELATIVES[relative], "{from}");
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
