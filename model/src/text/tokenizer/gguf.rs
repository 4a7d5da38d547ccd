//! The vocabulary in a GGUF file → the files of the tokenizer from which it was made.
//!
//! ```text
//! tokenizer.ggml.model, pre
//! gpt2     chatglm-bpe       tokenizer.model    GLM-4-9B: tiktoken ranks, which are the ids
//! gpt2     glm4              tokenizer.json     later models: tokens in GPT-2's notation, merges
//! llama    chatglm-spm       tokenizer.model    ChatGLM3: SentencePiece pieces with scores
//! ```
//!
//! The merges of a `chatglm-bpe` file are not used. The converter finds one merge for a token, and for some tokens none; ranks join any
//! two neighbours that are a token together.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::{Map, Value as Json, json};

use super::sentencepiece::{ModelProto, NormalizerSpec, PieceProto, TrainerSpec};
use super::shortened;
use super::split::GLM4;
use super::transformers;
use super::{chatglm2, gpt2};
use crate::files::gguf::{Array, Value};
use crate::limits::gguf::MAX_VOCABULARY;
use crate::limits::tokenizer::MAX_TOKENS;

type Metadata = BTreeMap<String, Value>;

/// The key of the tokens.
pub(crate) const TOKENS: &str = "tokenizer.ggml.tokens";

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const TEMPLATE: &str = "tokenizer.chat_template";

/// Types of tokens, the same as in SentencePiece.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// What kind of vocabulary there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ranks,
    Merges,
    Pieces,
}

impl Kind {
    fn of(metadata: &Metadata) -> Option<Self> {
        let text = |key| metadata.get(key).and_then(Value::text);
        match (text(MODEL)?, text(PRE)?) {
            ("gpt2", "chatglm-bpe") => Some(Self::Ranks),
            ("gpt2", "glm4") => Some(Self::Merges),
            ("llama", "chatglm-spm") => Some(Self::Pieces),
            _ => None,
        }
    }
}

/// The file that the vocabulary stands for.
pub(crate) fn file_name(metadata: &Metadata) -> &'static str {
    match Kind::of(metadata) {
        Some(Kind::Ranks | Kind::Pieces) => chatglm2::FILE,
        Some(Kind::Merges) | None => transformers::FILE,
    }
}

/// That file.
///
/// # Errors
/// If the vocabulary is of another kind, or not valid.
pub(crate) fn file(metadata: &Metadata) -> Result<Vec<u8>, String> {
    let vocabulary = Vocabulary::new(metadata)?;
    match Kind::of(metadata) {
        Some(Kind::Ranks) => vocabulary.ranks(),
        Some(Kind::Merges) => vocabulary.byte_level(metadata),
        Some(Kind::Pieces) => vocabulary.pieces(metadata),
        None => {
            let [model, pre] = [MODEL, PRE].map(|key| metadata.get(key).and_then(Value::text));
            Err(shortened(&format!(
                "a tokenizer with {MODEL} {model:?} and {PRE} {pre:?} is not supported, only gpt2 with chatglm-bpe or glm4, and llama with chatglm-spm"
            )))
        }
    }
}

/// `tokenizer_config.json`: the chat template, and the names of special tokens. An id of no token is left out: a padding is not needed, and
/// the configuration needs an end of its own.
///
/// # Errors
/// If the vocabulary is not valid.
pub(crate) fn settings(metadata: &Metadata) -> Result<Vec<u8>, String> {
    let vocabulary = Vocabulary::new(metadata)?;
    let mut settings = Map::new();
    for (name, key) in [("eos_token", "eos"), ("pad_token", "padding")] {
        let key = format!("tokenizer.ggml.{key}_token_id");
        let id = metadata.get(&key).and_then(Value::unsigned);
        let token = id.and_then(|id| vocabulary.tokens.get(usize::try_from(id).ok()?));
        settings.extend(token.map(|token| (name.to_owned(), (*token).into())));
    }
    if Kind::of(metadata) == Some(Kind::Ranks) {
        let added = vocabulary.added().map(|(id, token, special)| {
            (id.to_string(), json!({ "content": token, "special": special }))
        });
        settings.insert("added_tokens_decoder".to_owned(), Json::Object(added.collect()));
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
        if tokens.len() != types.len() || tokens.len() > MAX_TOKENS {
            return Err(format!(
                "has {} tokens and {} types of tokens: as many are needed, at most {MAX_TOKENS}",
                tokens.len(),
                types.len()
            ));
        }
        Ok(Self { tokens, types })
    }

    /// Tokens that are not part of the model: their ids, names, and whether they are special.
    fn added(&self) -> impl Iterator<Item = (usize, &'m str, bool)> {
        let all = self.tokens.iter().zip(&self.types).enumerate();
        let added = all.filter(|(_, (_, kind))| matches!(**kind, CONTROL | USER_DEFINED));
        added.map(|(id, (token, kind))| (id, *token, *kind == CONTROL))
    }

    /// Tokens of the model, with their ids.
    fn model(&self) -> impl Iterator<Item = (usize, &'m str)> {
        let all = self.tokens.iter().zip(&self.types).enumerate();
        let own = all.filter(|(_, (_, kind))| !matches!(**kind, CONTROL | USER_DEFINED | UNUSED));
        own.map(|(id, (token, _))| (id, *token))
    }

    /// `tokenizer.model` of GLM-4-9B.
    fn ranks(&self) -> Result<Vec<u8>, String> {
        let alphabet = gpt2::Alphabet::new();
        let mut lines = String::new();
        for (id, token) in self.model() {
            let bytes = alphabet.bytes(token).ok_or_else(|| {
                format!("the token {:?} is not in GPT-2's notation", shortened(token))
            })?;
            lines.push_str(&format!("{} {id}\n", STANDARD.encode(bytes)));
        }
        Ok(lines.into_bytes())
    }

    /// `tokenizer.json`.
    fn byte_level(&self, metadata: &Metadata) -> Result<Vec<u8>, String> {
        let added: Vec<_> = self.added().collect();
        // Every text of these models begins with both.
        let is_before = |name: &str| name == "[gMASK]" || name == "<sop>";
        let before: Vec<_> = added.iter().filter(|(_, token, _)| is_before(token)).collect();
        let added: Vec<_> = added
            .iter()
            .map(|(id, token, special)| json!({ "id": id, "content": token, "special": special }))
            .collect();
        let mut vocab = Map::new();
        for (id, token) in self.model() {
            if vocab.insert(token.to_owned(), id.into()).is_some() {
                return Err(format!("the token {:?} has two ids", shortened(token)));
            }
        }
        let ids: Map<_, _> = before
            .iter()
            .map(|(id, token, _)| ((*token).to_owned(), json!({ "ids": [id] })))
            .collect();
        let mut single: Vec<_> =
            before.iter().map(|(_, token, _)| json!({ "SpecialToken": { "id": token } })).collect();
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
    let array = array.ok_or_else(|| format!("{key} is missing, or no list"))?;
    match array.len() {
        0..=MAX_VOCABULARY => Ok(array),
        _ => Err(format!("{key} has more than {MAX_VOCABULARY} elements")),
    }
}

fn texts<'m>(metadata: &'m Metadata, key: &str) -> Result<Vec<&'m str>, String> {
    let texts = array(metadata, key)?.texts();
    Ok(texts.ok_or_else(|| format!("{key} is no list of strings"))?.collect())
}
