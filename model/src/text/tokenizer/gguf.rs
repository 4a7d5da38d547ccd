//! The vocabulary in a GGUF file → the files of the tokenizer from which it was made.
//!
//! ```text
//! tokenizer.ggml.model  gpt2     tokenizer.json     GLM-4: tokens in GPT-2's notation, merges
//!                       llama    tokenizer.model    ChatGLM3: SentencePiece pieces with scores
//! ```
//!
//! The file has no pattern that splits a text into words. `tokenizer.ggml.pre` names a known one.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::{Map, Value as Json, json};

use super::chatglm2;
use super::sentencepiece::{ModelProto, NormalizerSpec, PieceProto, TrainerSpec};
use super::split::GLM4;
use super::transformers;
use super::{MAX_ID, shortened};
use crate::files::gguf::{Array, Value};

type Metadata = BTreeMap<String, Value>;

/// The key of the tokens.
pub(crate) const TOKENS: &str = "tokenizer.ggml.tokens";

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const TEMPLATE: &str = "tokenizer.chat_template";

/// The model of byte-level BPE, and that of SentencePiece.
const BYTE_LEVEL: &str = "gpt2";
const PIECES: &str = "llama";

/// Types of tokens, the same as in SentencePiece.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// The file that the vocabulary stands for.
pub(crate) fn file_name(metadata: &Metadata) -> &'static str {
    match metadata.get(MODEL).and_then(Value::text) {
        Some(PIECES) => chatglm2::FILE,
        _ => transformers::FILE,
    }
}

/// That file.
///
/// # Errors
/// If the vocabulary is of another kind, or not valid.
pub(crate) fn file(metadata: &Metadata) -> Result<Vec<u8>, String> {
    let vocabulary = Vocabulary::new(metadata)?;
    let text = |key| metadata.get(key).and_then(Value::text);
    match (text(MODEL), text(PRE)) {
        (Some(BYTE_LEVEL), Some("chatglm-bpe" | "glm4")) => vocabulary.byte_level(metadata),
        (Some(PIECES), Some("chatglm-spm")) => vocabulary.pieces(metadata),
        (model, pre) => Err(shortened(&format!(
            "a tokenizer with {MODEL} {model:?} and {PRE} {pre:?} is not supported, only gpt2 with chatglm-bpe or glm4, and llama with chatglm-spm"
        ))),
    }
}

/// `tokenizer_config.json`: the chat template, and the names of special tokens.
///
/// # Errors
/// If an id is not that of a token.
pub(crate) fn settings(metadata: &Metadata) -> Result<Vec<u8>, String> {
    let vocabulary = Vocabulary::new(metadata)?;
    let mut settings = Map::new();
    for (name, key) in [("eos_token", "eos"), ("pad_token", "padding")] {
        let key = format!("tokenizer.ggml.{key}_token_id");
        let Some(id) = metadata.get(&key) else { continue };
        let token = id.unsigned().and_then(|id| vocabulary.tokens.get(usize::try_from(id).ok()?));
        let token = token.ok_or_else(|| format!("{key} is not the id of a token"))?;
        settings.insert(name.to_owned(), (*token).into());
    }
    if let Some(template) = metadata.get(TEMPLATE).and_then(Value::text) {
        settings.insert("chat_template".to_owned(), template.into());
    }
    Ok(format!("{:#}\n", Json::Object(settings)).into_bytes())
}

/// The tokens by their ids, and their types.
struct Vocabulary<'m> {
    tokens: Vec<&'m str>,
    types: Vec<i32>,
}

impl<'m> Vocabulary<'m> {
    fn new(metadata: &'m Metadata) -> Result<Self, String> {
        let tokens = texts(metadata, TOKENS)?;
        let types = array(metadata, TYPES)?.integers();
        let types: Vec<_> =
            types.ok_or_else(|| format!("{TYPES} is no list of integers"))?.collect();
        if tokens.len() != types.len() || tokens.len() >= MAX_ID as usize {
            return Err(format!(
                "has {} tokens and {} types of tokens: as many are needed, fewer than {MAX_ID}",
                tokens.len(),
                types.len()
            ));
        }
        Ok(Self { tokens, types })
    }

    /// `tokenizer.json`.
    fn byte_level(&self, metadata: &Metadata) -> Result<Vec<u8>, String> {
        let (mut vocab, mut added) = (Map::new(), Vec::new());
        let mut before = Vec::new();
        for (id, (&token, &kind)) in self.tokens.iter().zip(&self.types).enumerate() {
            match kind {
                CONTROL | USER_DEFINED => {
                    added.push(json!({ "id": id, "content": token, "special": kind == CONTROL }));
                    // Every text of these models begins with both.
                    if token == "[gMASK]" || token == "<sop>" {
                        before.push((token, id));
                    }
                }
                UNUSED => {}
                _ => {
                    if vocab.insert(token.to_owned(), id.into()).is_some() {
                        return Err(format!("the token {:?} has two ids", shortened(token)));
                    }
                }
            }
        }
        let ids: Map<_, _> = before
            .iter()
            .map(|(token, id)| ((*token).to_owned(), json!({ "ids": [id] })))
            .collect();
        let mut single: Vec<_> =
            before.iter().map(|(token, _)| json!({ "SpecialToken": { "id": token } })).collect();
        single.push(json!({ "Sequence": { "id": "A" } }));
        let json = json!({
            "version": "1.0",
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
                { "type": "Split", "pattern": { "Regex": GLM4 }, "behavior": "Isolated", "invert": false },
                { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
            ] },
            "post_processor": { "type": "TemplateProcessing", "single": single, "special_tokens": ids },
            "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
            "model": {
                "type": "BPE",
                // As in the published files: a word that is a token stays whole.
                "ignore_merges": true,
                "vocab": vocab,
                "merges": texts(metadata, MERGES)?,
            },
        });
        serde_json::to_vec(&json).map_err(|error| error.to_string())
    }

    /// `tokenizer.model` of ChatGLM3. Its special ids follow the pieces and are not in the file.
    fn pieces(&self, metadata: &Metadata) -> Result<Vec<u8>, String> {
        let scores = array(metadata, SCORES)?.floats();
        let scores: Vec<_> =
            scores.ok_or_else(|| format!("{SCORES} is no list of numbers"))?.collect();
        let special = chatglm2::special_names;
        let first = self.tokens.iter().position(|token| special().next() == Some(*token));
        let first = first.unwrap_or(self.tokens.len());
        let follow = self.tokens.get(first..).unwrap_or_default();
        if scores.len() != self.tokens.len()
            || follow.len() < special().count()
            || special().zip(follow).any(|(name, token)| name != *token)
        {
            let names: Vec<_> = special().collect();
            return Err(format!(
                "the tokens after the pieces are not {}: this is no vocabulary of ChatGLM3",
                names.join(", ")
            ));
        }
        let piece = |id: usize| PieceProto {
            // The converter names these two in its own way.
            piece: Some(match self.tokens[id] {
                "<bos>" if id == 1 => "<s>".to_owned(),
                "<eos>" if id == 2 => "</s>".to_owned(),
                token => token.to_owned(),
            }),
            score: Some(scores[id]),
            kind: Some(self.types[id]),
        };
        let model = ModelProto {
            pieces: (0..first).map(piece).collect(),
            trainer: Some(TrainerSpec {
                model_type: Some(2),
                byte_fallback: Some(true),
                ..TrainerSpec::default()
            }),
            normalizer: Some(NormalizerSpec {
                add_dummy_prefix: Some(true),
                remove_extra_whitespaces: Some(false),
                ..NormalizerSpec::default()
            }),
        };
        Ok(model.encode_to_vec())
    }
}

fn array<'m>(metadata: &'m Metadata, key: &str) -> Result<&'m Array, String> {
    let array = metadata.get(key).and_then(Value::array);
    array.ok_or_else(|| format!("{key} is missing, or no list"))
}

fn texts<'m>(metadata: &'m Metadata, key: &str) -> Result<Vec<&'m str>, String> {
    let texts = array(metadata, key)?.texts();
    Ok(texts.ok_or_else(|| format!("{key} is no list of strings"))?.collect())
}
