//! `config.json` → one [`Config`]. What differs between the models of the family is data here; nothing later asks for a name.
//!
//! Each published dialect of `config.json` has a file under `config/` that turns it into a [`Config`], and a row in
//! [`READERS`]. The next relative is another such file and, if its tensors have other names, another table of names (see
//! `weights/names.rs`); only a part that no relative has had needs a new variant of an enum here and a branch in `layer/`.

use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::checkpoint::SHARDS;
use crate::error::{Error, Result};

mod chatglm;
mod chatglm2;
mod glm;
mod glm130b;
mod transformers;

/// Reads one dialect of `config.json`.
struct Reader {
    /// The models that have it, for people.
    models: &'static str,
    recognises: fn(&Fields) -> bool,
    read: fn(&Fields) -> Result<Config>,
}

const READERS: [Reader; 5] =
    [chatglm::READER, chatglm2::READER, transformers::READER, glm::READER, glm130b::READER];

/// The file in a model's folder.
pub(crate) const FILE: &str = "config.json";

/// What a folder without the file means.
pub(crate) use glm130b::PUBLISHED as UNWRITTEN;

/// Published files have one or two kilobytes.
const MAX_BYTES: u64 = 1 << 20;

/// How activations are normalised.
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

/// What lies between the two matrices of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mlp {
    /// GELU in its tanh form.
    GeluTanh,
    /// GELU with the error function.
    GeluErf,
    /// `silu(gate) · up`; the first matrix holds the gate's rows, then up's.
    SwiGlu,
    /// `up · gelu(gate)` with the error function; the first matrix holds up's rows, then the gate's.
    GeGlu,
}

impl Mlp {
    /// Whether the first matrix has rows for a gate, too.
    pub fn is_gated(self) -> bool {
        matches!(self, Mlp::SwiGlu | Mlp::GeGlu)
    }
}

/// How positions enter.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Positions {
    /// As vectors, one for each of two positions, that are added to the embedding.
    Learned,
    /// Each half of a query's and key's head is rotated by one of two positions, within it element `i` against element
    /// `i + half/2`; inverse frequencies `base^(−2i/half)` are rounded to `f16`, as the published code keeps them.
    Halves {
        /// Base of the frequencies.
        base: f32,
    },
    /// A whole head is rotated by one position, element `i` against element `i + size/2`; inverse frequencies
    /// `base^(−2i/size)` are rounded to `f16`.
    Whole {
        /// Base of the frequencies.
        base: f32,
    },
    /// The first `elements` of a head are rotated by one position, element `2i` against element `2i + 1`, with the inverse
    /// frequency `base^(−2i/elements)`.
    Pairs {
        /// Base of the frequencies.
        base: f32,
        /// Elements of a head that are rotated.
        elements: usize,
        /// Divides the position.
        stretch: f32,
    },
}

/// Which tokens see which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaskKind {
    /// A token sees those before it.
    Causal,
    /// All before the first `sop` see each other in both directions; it and what follows are causal, and stand where the blank
    /// is that they fill.
    Prefix(BlankChoice),
}

/// Which of several blanks is filled; of one kind always the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlankChoice {
    /// `[gMASK]`, or else `[MASK]`.
    GmaskFirst,
    /// Whichever comes first.
    Leftmost,
    /// `[MASK]`, or else `[sMASK]`, or else `[gMASK]`; what fills a `[gMASK]` stands after the context instead.
    MaskFirst,
}

/// How a block's input is carried past attention and MLP.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Residual {
    /// `x + f(norm(x))`
    Plain,
    /// `α·norm(x) + f(norm(x))`
    Scaled(f32),
}

/// How the rows of the query-key-value matrix are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QkvOrder {
    /// For each head its query, its key, its value.
    PerHead,
    /// All queries, all keys, all values.
    Concatenated,
}

/// Whose names the tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// ChatGLM-6B's.
    ChatGlm,
    /// ChatGLM2-6B's, which ChatGLM3-6B and GLM-4-9B have taken over.
    ChatGlm2,
    /// Those of transformers' own `glm` and `glm4`.
    Transformers,
    /// The original GLM's.
    Glm,
    /// GLM-130B's.
    Glm130B,
}

/// Ids with a meaning of their own, as far as a model has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins the answer (`<sop>`).
    pub sop: Option<u32>,
    /// Any of these ends the answer.
    pub ends: Vec<u32>,
    /// A short blank (`[MASK]`).
    pub mask: Option<u32>,
    /// A blank for a sentence (`[sMASK]`).
    pub smask: Option<u32>,
    /// A blank of any length (`[gMASK]`).
    pub gmask: Option<u32>,
    /// Fills up batches.
    pub pad: Option<u32>,
}

/// What a model in folder `dir` may be called, in lower case: the last part of the name or path that it was `published` under, and
/// the folder's own name.
pub(crate) fn names(published: Option<&str>, dir: &Path) -> Vec<String> {
    let last = published.map(|name| name.trim_end_matches(['/', '\\']));
    let last = last.and_then(|name| name.rsplit(['/', '\\']).next()).map(str::to_lowercase);
    let own = dir.file_name().map(|name| name.to_string_lossy().to_lowercase());
    last.into_iter().chain(own).filter(|name| !name.is_empty()).collect()
}

/// The text of a small file.
fn read(path: &Path) -> Result<String> {
    // Asked before opening, for opening a pipe waits until somebody writes to it.
    if !std::fs::metadata(path).map_err(Error::io(path))?.is_file() {
        return Err(Error::file(path, "is not a regular file"));
    }
    let mut text = String::new();
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(Error::io(path))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(Error::file(path, format!("is larger than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// Sizes and kinds of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The architecture's published name.
    pub architecture: &'static str,
    /// Blocks.
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
    pub inner: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Positions that the model was made for.
    pub max_context: usize,
    /// Normalisation.
    pub norm: Norm,
    /// MLP.
    pub mlp: Mlp,
    /// Positions.
    pub positions: Positions,
    /// Visibility.
    pub mask: MaskKind,
    /// Residual.
    pub residual: Residual,
    /// Order of query, key and value.
    pub qkv: QkvOrder,
    /// Whether query, key and value have biases.
    pub qkv_bias: bool,
    /// Whether the other linear layers have biases.
    pub linear_bias: bool,
    /// Whether attention and MLP each have a norm on their output, too.
    pub output_norms: bool,
    /// Names of the tensors.
    pub dialect: Dialect,
    /// Whether a checkpoint without a head means the embedding (`tie_word_embeddings`; where it is not said, true in
    /// ChatGLM-6B and false in those after it).
    pub tied_head: bool,
    /// Special ids.
    pub special: SpecialIds,
}

impl Config {
    /// Reads `config.json` of a model's folder.
    ///
    /// # Errors
    /// If there is none, it is no JSON object, the architecture is not supported (the error lists those that are), or a size
    /// is missing or outside its range.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        match read(&path) {
            // GLM-130B was published without one.
            Err(Error::Io { .. }) if !path.exists() && dir.join(SHARDS).is_file() => {
                Self::parse(&path, UNWRITTEN)
            }
            text => Self::parse(&path, &text?),
        }
    }

    /// Reads the text of a `config.json`; `path` is for errors, and where the original GLM's `added_tokens.json` is looked for.
    ///
    /// # Errors
    /// As [`Config::open`].
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let fields = Fields::parse(path, text)?;
        if let Some(dialect) = READERS.iter().find(|dialect| (dialect.recognises)(&fields)) {
            return (dialect.read)(&fields);
        }
        let supported: Vec<_> = READERS.iter().map(|dialect| dialect.models).collect();
        Err(Error::file(
            path,
            format!(
                "model_type {} with architectures {} is not supported; supported: {}",
                fields.shown("model_type"),
                fields.shown("architectures"),
                supported.join("; ")
            ),
        ))
    }

    /// Rows of the query-key-value matrix.
    pub(crate) fn qkv_rows(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_size
    }

    /// Rows of the MLP's first matrix.
    pub(crate) fn up_rows(&self) -> usize {
        if self.mlp.is_gated() { 2 * self.inner } else { self.inner }
    }

    /// Width of all heads together.
    pub(crate) fn attention_width(&self) -> usize {
        self.heads * self.head_size
    }
}

/// The fields of a `config.json` or a file like it, read with errors that name file, field and range.
pub(crate) struct Fields {
    path: PathBuf,
    json: Map<String, Value>,
}

impl Fields {
    fn parse(path: &Path, text: &str) -> Result<Self> {
        let json = serde_json::from_str(text)
            .map_err(|error| Error::file(path, format!("is no JSON object: {error}")))?;
        Ok(Self { path: path.to_owned(), json })
    }

    /// The fields of a file, if it is there.
    pub(crate) fn open_if_there(path: &Path) -> Result<Option<Self>> {
        path.exists().then(|| Self::parse(path, &read(path)?)).transpose()
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.json.get(name).filter(|value| !value.is_null())
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    fn shown(&self, name: &str) -> String {
        self.json.get(name).map_or_else(|| "missing".to_owned(), Value::to_string)
    }

    fn error(&self, problem: String) -> Error {
        Error::file(&self.path, problem)
    }

    fn size(&self, name: &str, range: RangeInclusive<usize>) -> Result<usize> {
        let value = self.get(name).and_then(Value::as_u64);
        let size = value.and_then(|value| usize::try_from(value).ok());
        size.filter(|size| range.contains(size)).ok_or_else(|| {
            let (low, high) = range.into_inner();
            let found = self.shown(name);
            self.error(format!("{name} must be an integer from {low} to {high}, found {found}"))
        })
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.error(format!("{name} must be true or false, found {other}"))),
        }
    }

    /// Checks that a flag, where it is given, has the value that the network is built for.
    fn require(&self, name: &str, value: bool) -> Result<()> {
        match self.flag(name, value)? == value {
            true => Ok(()),
            false => Err(self.error(format!("{name} must be {value}"))),
        }
    }

    pub(crate) fn number_or(&self, name: &str, default: f32) -> Result<f32> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let number = value.as_f64().map(|number| number as f32);
        number.ok_or_else(|| self.error(format!("{name} must be a number, found {value}")))
    }

    fn positive(&self, name: &str) -> Result<f32> {
        let value = self.get(name).and_then(Value::as_f64).map(|value| value as f32);
        value.filter(|value| *value > 0.0 && value.is_finite()).ok_or_else(|| {
            let found = self.shown(name);
            self.error(format!("{name} must be a positive number, found {found}"))
        })
    }

    fn positive_or(&self, name: &str, default: f32) -> Result<f32> {
        if self.has(name) { self.positive(name) } else { Ok(default) }
    }

    /// An id of the vocabulary.
    fn id(&self, name: &str, vocab: usize) -> Result<u32> {
        Ok(self.size(name, 0..=vocab - 1)? as u32)
    }

    /// An id that need not be there.
    fn id_or_none(&self, name: &str, vocab: usize) -> Result<Option<u32>> {
        self.has(name).then(|| self.id(name, vocab)).transpose()
    }

    /// One id, or a list of them.
    fn ids(&self, name: &str, vocab: usize) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().filter(|&id| id < vocab as u64).map(|id| id as u32);
        let ids = match self.get(name) {
            None => Some(Vec::new()),
            Some(Value::Array(ids)) => ids.iter().map(id).collect(),
            Some(value) => id(value).map(|id| vec![id]),
        };
        ids.ok_or_else(|| {
            let found = self.shown(name);
            self.error(format!("{name} must be ids below {vocab}, found {found}"))
        })
    }

    fn vocab(&self, name: &str) -> Result<usize> {
        self.size(name, 1..=1 << 24)
    }

    fn hidden(&self) -> Result<usize> {
        self.size("hidden_size", 8..=1 << 17)
    }

    fn heads(&self) -> Result<usize> {
        self.size("num_attention_heads", 1..=1 << 10)
    }

    fn layers(&self, name: &str) -> Result<usize> {
        self.size(name, 1..=1 << 10)
    }

    fn inner(&self, name: &str) -> Result<usize> {
        self.size(name, 1..=1 << 20)
    }

    fn context(&self, name: &str) -> Result<usize> {
        self.size(name, 1..=1 << 21)
    }

    /// The size of a head where the heads share the hidden size.
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

    /// How many heads share their keys and values: all of `heads` in `name` groups.
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

    pub(crate) const TINY: &str = r#"{
        "model_type": "chatglm", "architectures": ["ChatGLMModel"], "num_layers": 2, "hidden_size": 64,
        "num_attention_heads": 2, "inner_hidden_size": 256, "vocab_size": 100, "max_sequence_length": 2048,
        "layernorm_epsilon": 1e-5, "position_encoding_2d": true,
        "bos_token_id": 94, "eos_token_id": 95, "mask_token_id": 90, "gmask_token_id": 91, "pad_token_id": 3
    }"#;

    /// A small ChatGLM-6B.
    pub(crate) fn tiny() -> Config {
        parse(TINY).unwrap()
    }

    fn parse(text: &str) -> Result<Config> {
        Config::parse(Path::new("m/config.json"), text)
    }

    #[test]
    fn chatglm_6b_is_read() {
        let config = parse(TINY).unwrap();
        assert_eq!((config.head_size, config.kv_heads, config.inner), (32, 2, 256));
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
            assert!(error.starts_with("m/config.json") && error.contains(expected), "{error}");
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
            "num_key_value_heads": 2, "intermediate_size": 100, "vocab_size": 100, "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5, "rope_parameters": {"rope_theta": 500, "partial_rotary_factor": 1.0}}"#,
        r#"{"model_type": "glm", "block_position_encoding": true, "num_layers": 2, "hidden_size": 64,
            "num_attention_heads": 4, "vocab_size": 100, "max_sequence_length": 128, "sop_token_id": 90,
            "mask_token_id": 91}"#,
        glm130b::PUBLISHED,
    ];

    #[test]
    fn the_relatives_are_read() {
        let [two, native, four, glm, large] = RELATIVES.map(|text| parse(text).unwrap());
        let pairs = |base, elements, stretch| Positions::Pairs { base, elements, stretch };
        assert_eq!((two.kv_heads, two.positions), (2, pairs(1e4, 8, 16.0)));
        assert_eq!((native.qkv_bias, native.positions), (true, pairs(1e4, 8, 1.0)));
        assert_eq!((&native.special.ends[..], native.output_norms), (&[5, 6][..], false));
        assert_eq!((four.output_norms, four.positions), (true, pairs(500.0, 16, 1.0)));
        assert_eq!((glm.inner, glm.special.mask, glm.special.gmask), (256, Some(91), None));
        assert_eq!((large.head_size, large.residual), (128, Residual::Scaled(140f32.sqrt())));
        let three = parse(&RELATIVES[0].replace("chatglm2-6b-32k", "chatglm3-6b-32k")).unwrap();
        assert_eq!((three.architecture, three.positions), ("ChatGLM3-6B", pairs(16e4, 8, 1.0)));
    }

    #[test]
    fn a_model_is_called_by_the_last_part_of_its_name_and_its_folder() {
        for (published, dir, expected) in [
            (Some("THUDM/ChatGLM3-6B"), "/m/q4", &["chatglm3-6b", "q4"][..]),
            (Some("/base/chatglm2/"), "", &["chatglm2"]),
            (Some("C:\\base\\x"), "a", &["x", "a"]),
            (Some("/"), "/", &[]),
            (None, "chatglm2-6b", &["chatglm2-6b"]),
        ] {
            assert_eq!(names(published, Path::new(dir)), expected, "{published:?} {dir:?}");
        }
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
