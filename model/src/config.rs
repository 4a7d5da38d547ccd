//! `config.json` → one [`Config`]. What differs between the models of the family is data here; nothing later asks for a name.
//!
//! Each published dialect of `config.json` has a file under `config/` that turns it into a [`Config`].

use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

mod chatglm;

/// The file in a model's folder.
pub(crate) const FILE: &str = "config.json";

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
}

/// What lies between the two matrices of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mlp {
    /// GELU in its tanh form.
    GeluTanh,
}

/// How positions enter queries and keys.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Rope {
    /// Each half of a head is rotated by one of two positions, within it element `i` against element `i + half/2`;
    /// inverse frequencies `base^(−2i/half)` are rounded to `f16`, as the published code keeps them.
    Halves {
        /// Base of the frequencies.
        base: f32,
    },
}

/// Which tokens see which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaskKind {
    /// All before the first `bos` see each other in both directions; it and what follows are causal.
    Prefix,
}

/// How a block's input is carried past attention and MLP.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Residual {
    /// `α·norm(x) + f(norm(x))`
    Scaled(f32),
}

/// How the rows of the query-key-value matrix are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QkvOrder {
    /// For each head its query, its key, its value.
    PerHead,
}

/// Ids with a meaning of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins the answer (`<sop>`).
    pub bos: u32,
    /// Ends the answer (`<eop>`).
    pub eos: u32,
    /// A short blank (`[MASK]`).
    pub mask: u32,
    /// A blank of any length (`[gMASK]`).
    pub gmask: u32,
    /// Fills up batches.
    pub pad: u32,
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
    pub rope: Rope,
    /// Visibility.
    pub mask: MaskKind,
    /// Residual.
    pub residual: Residual,
    /// Order of query, key and value.
    pub qkv: QkvOrder,
    /// Whether a checkpoint without a head means the embedding (`tie_word_embeddings`, true where it is not said).
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
        // Asked before opening, for opening a pipe waits until somebody writes to it.
        if !std::fs::metadata(&path).map_err(Error::io(&path))?.is_file() {
            return Err(Error::file(&path, "is not a regular file"));
        }
        let mut text = String::new();
        let file = File::open(&path).map_err(Error::io(&path))?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(Error::io(&path))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(Error::file(&path, format!("is larger than {MAX_BYTES} bytes")));
        }
        Self::parse(&path, &text)
    }

    /// Reads the text of a `config.json`; `path` is for errors.
    ///
    /// # Errors
    /// As [`Config::open`].
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let json = serde_json::from_str(text)
            .map_err(|error| Error::file(path, format!("is no JSON object: {error}")))?;
        let fields = Fields { path: path.to_owned(), json };
        if chatglm::recognises(&fields) {
            return chatglm::read(&fields);
        }
        Err(Error::file(
            path,
            format!(
                "model_type {} with architectures {} is not supported; supported: {}",
                fields.shown("model_type"),
                fields.shown("architectures"),
                chatglm::SUPPORTED
            ),
        ))
    }

    /// Rows of the query-key-value matrix.
    pub(crate) fn qkv_rows(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_size
    }

    /// Width of all heads together.
    pub(crate) fn attention_width(&self) -> usize {
        self.heads * self.head_size
    }
}

/// The fields of a `config.json`, read with errors that name file, field and range.
struct Fields {
    path: PathBuf,
    json: Map<String, Value>,
}

impl Fields {
    fn has(&self, name: &str) -> bool {
        self.json.contains_key(name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.json.get(name)?.as_str()
    }

    fn shown(&self, name: &str) -> String {
        self.json.get(name).map_or_else(|| "missing".to_owned(), Value::to_string)
    }

    fn error(&self, problem: String) -> Error {
        Error::file(&self.path, problem)
    }

    fn size(&self, name: &str, range: RangeInclusive<usize>) -> Result<usize> {
        let value = self.json.get(name).and_then(Value::as_u64);
        let size = value.and_then(|value| usize::try_from(value).ok());
        size.filter(|size| range.contains(size)).ok_or_else(|| {
            let (low, high) = range.into_inner();
            let found = self.shown(name);
            self.error(format!("{name} must be an integer from {low} to {high}, found {found}"))
        })
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.json.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.error(format!("{name} must be true or false, found {other}"))),
        }
    }

    fn positive(&self, name: &str) -> Result<f32> {
        let value = self.json.get(name).and_then(Value::as_f64).map(|value| value as f32);
        value.filter(|value| *value > 0.0 && value.is_finite()).ok_or_else(|| {
            let found = self.shown(name);
            self.error(format!("{name} must be a positive number, found {found}"))
        })
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

    fn parse(text: &str) -> Result<Config> {
        Config::parse(Path::new("m/config.json"), text)
    }

    #[test]
    fn chatglm_6b_is_read() {
        let config = parse(TINY).unwrap();
        assert_eq!((config.head_size, config.kv_heads, config.inner), (32, 2, 256));
        assert_eq!(config.special.gmask, 91);
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
}
