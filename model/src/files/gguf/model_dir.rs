//! Metadata → the small files that other models have beside their weights.
//!
//! `config.json` has the metadata that describe the network and the special ids, by their own keys, and three fields that follow from
//! the rest of the file:
//!
//! | field | value |
//! |---|---|
//! | `_name_or_path` | `general.name` |
//! | `ARCHITECTURE.vocab_size` | the length of `tokenizer.ggml.tokens`, if the file has no such key |
//! | `ARCHITECTURE.attention.qkv_bias` | whether query, key and value have biases |
//!
//! The files of the tokenizer are those of the model from which the file was made, as far as a tokenizer needs them, see
//! [`gguf`](crate::text::tokenizer::gguf). So a folder that `glm quantize` writes has everything that was in the file.

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::value::{Array, Value};
use super::{Gguf, Header};
use crate::error::{Error, Result};
use crate::files::model_dir::{CONFIG, CONFIG_NAME, TOKENIZER_CONFIG};
use crate::limits::gguf::{MAX_LIST, MAX_TEXT};
use crate::text::tokenizer::gguf as tokenizer;

impl Gguf {
    /// Whether the file stands for this one of a model folder.
    pub(crate) fn stands_for(&self, name: &str) -> bool {
        let metadata = &self.first().header.metadata;
        let has_tokenizer = metadata.contains_key(tokenizer::TOKENS);
        name == CONFIG
            || has_tokenizer && (name == TOKENIZER_CONFIG || name == tokenizer::file_name(metadata))
    }

    /// The file of a model folder that the metadata stand for.
    ///
    /// # Errors
    /// If they do not stand for it, or are not valid.
    pub(crate) fn file(&self, name: &str) -> Result<Vec<u8>> {
        let metadata = &self.first().header.metadata;
        let made = match name {
            CONFIG => Ok(format!("{:#}\n", Json::Object(self.config())).into_bytes()),
            TOKENIZER_CONFIG => tokenizer::settings(metadata),
            name if name == tokenizer::file_name(metadata) => tokenizer::file(metadata),
            _ => Err(format!("does not stand for {name}")),
        };
        made.map_err(|problem| Error::file(self.path(), problem))
    }

    /// The file, or its first part.
    pub(crate) fn path(&self) -> &Path {
        &self.first().path
    }

    fn config(&self) -> Map<String, Json> {
        let Header { metadata, .. } = &self.first().header;
        let architecture = metadata.get("general.architecture").and_then(Value::text);
        let own = format!("{}.", architecture.unwrap_or_default());
        let belongs = |key: &str| {
            [&own, "general.", "tokenizer.ggml."].iter().any(|start| key.starts_with(*start))
        };
        let mut config = Map::new();
        for (key, value) in metadata.iter().filter(|(key, _)| belongs(key)) {
            let json = match value {
                Value::Text(text) if text.len() > MAX_TEXT => {
                    let long = format!("a text of {} bytes", text.len());
                    key.starts_with(&own).then(|| long.into())
                }
                Value::Array(array) if key.starts_with(&own) => Some(list(array)),
                value => value.json(),
            };
            config.extend(json.map(|json| (key.clone(), json)));
        }
        let vocab = format!("{own}vocab_size");
        let tokens = metadata.get(tokenizer::TOKENS).and_then(Value::array);
        if let (Some(tokens), false) = (tokens, config.contains_key(&vocab)) {
            config.insert(vocab, tokens.len().into());
        }
        let has_bias = ["attn_qkv", "attn_q"].iter().any(|q| self.has(&format!("blk.0.{q}.bias")));
        config.insert(format!("{own}attention.qkv_bias"), has_bias.into());
        if let Some(name) = metadata.get("general.name").and_then(Value::text) {
            // Names of models have hyphens, and the metadata may have blanks in their place.
            let name: String = name.chars().take(MAX_TEXT).collect();
            config.insert(CONFIG_NAME.to_owned(), name.replace(' ', "-").into());
        }
        config
    }
}

/// A list of integers of 32 bits, or a text in the place of any other list, so that its reader does not take it for missing.
fn list(array: &Array) -> Json {
    match array.integers().filter(|_| array.len() <= MAX_LIST) {
        Some(numbers) => numbers.collect::<Vec<_>>().into(),
        None => format!("a list of {} values", array.len()).into(),
    }
}
