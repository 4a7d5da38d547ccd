//! Tokenizers: text to ids and back.
//!
//! The GLM family has seven tokenizers of three kinds. The files in a model folder decide which one it is:
//!
//! ```text
//! ice_text.model               SentencePiece unigram      ChatGLM-6B, GLM-130B
//! tokenizer.model              SentencePiece BPE          ChatGLM2, ChatGLM3, CodeGeeX2
//! cog-pretrain.model           SentencePiece BPE          GLM-10B-Chinese
//! tokenizer.model              tiktoken ranks             GLM-4
//! vocab.json, merges.txt       byte-level BPE             GLM-10B
//! tokenizer.json               byte-level BPE             transformers' glm and glm4, and others
//! ```
//!
//! Each has a module here that reads its files and documents its special rules. The steps are the same for all:
//!
//! ```text
//! text → added tokens, and text between them → pieces → ids
//! ids → pieces and bytes → text → clean-up passes → text
//! ```
//!
//! The crate [`tokenizers`] applies the listed merges of byte-level BPE (`merges.txt`, `tokenizer.json`). It reads neither
//! SentencePiece models nor tiktoken ranks, and it does not decode a stream, so these are implemented here.

mod added;
mod bpe;
mod byte_level;
mod chatglm;
mod chatglm2;
mod counted;
mod decoder;
pub(crate) mod gguf;
mod glm10b;
mod glm130b;
mod glm4;
mod gpt2;
mod normalizer;
mod sentencepiece;
mod settings;
mod split;
#[cfg(test)]
pub(crate) mod testing;
mod transformers;
mod trie;

use crate::error::{Error, Result};
use crate::files::config::{Config, SpecialIds};
use crate::files::model_dir::{ADDED_TOKENS, ModelDir};
use crate::files::model_path::ModelPath;
use crate::limits::text::{MAX_ID, MAX_TEXT};
use added::{Added, Names, Segment, Shown, Token};
use byte_level::ByteLevel;
pub(crate) use decoder::Decoder;
use decoder::Decoding;
pub(crate) use glm4::recognises as is_tiktoken;
use sentencepiece::{Kind, SentencePiece};
pub(crate) use settings::FILE as SETTINGS_FILE;
use std::borrow::Cow;
use std::fmt;
use std::path::Path;

const NEWLINE: &str = "<n>";
const TAB: &str = "<|tab|>";

/// A folder with one of these has a tokenizer.
const MAIN_FILES: [&str; 5] =
    [chatglm::FILE, chatglm2::FILE, transformers::FILE, glm10b::VOCAB, glm10b::CHINESE];

/// All files that a tokenizer may consist of.
pub(crate) const FILES: [&str; 9] = [
    SETTINGS_FILE,
    "special_tokens_map.json",
    chatglm::FILE,
    chatglm2::FILE,
    transformers::FILE,
    glm10b::CHINESE,
    glm10b::VOCAB,
    glm10b::MERGES,
    ADDED_TOKENS,
];

/// The ids with a special meaning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Special {
    /// The ids of blanks, and those that begin and end an answer. In a conversation other ids may end an answer as well; see
    /// [`Template::stop_ids`](crate::Template::stop_ids).
    pub ids: SpecialIds,
    /// The id that pads the shorter prompts of a batch.
    pub pad: Option<u32>,
    /// The ids before every prompt.
    pub before: Vec<u32>,
    /// The ids after every prompt.
    pub after: Vec<u32>,
}

/// The model that a tokenizer belongs to, which decides how prompts are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    ChatGlm,
    ChatGlm2,
    ChatGlm3,
    Glm4,
    Glm10b,
    Glm130b,
    Other,
}

/// Turns text into ids and ids into text, exactly as the model's official tokenizer does.
pub struct Tokenizer {
    family: Family,
    model: Encoder,
    /// The number of image tokens before the ids of the model. It is added to them.
    offset: u32,
    added: Added,
    special: Special,
    decoding: Decoding,
    size: u32,
}

/// The model that encodes a text without added tokens.
enum Encoder {
    Pieces(SentencePiece),
    Bytes(ByteLevel),
}

impl Encoder {
    /// Appends the ids of `text`. `left` is the work that is left for split patterns.
    ///
    /// # Errors
    /// If the normalized text is too long, or the byte-level model fails.
    fn encode(&self, text: &str, left: &mut u64, ids: &mut Vec<u32>) -> Result<()> {
        match self {
            Encoder::Pieces(model) => model.encode(text, ids),
            Encoder::Bytes(model) => model.encode(text, left, ids).map_err(Error::Prompt),
        }
    }

    fn find(&self, piece: &str) -> Option<u32> {
        match self {
            Encoder::Pieces(model) => model.find(piece),
            Encoder::Bytes(model) => model.find(piece),
        }
    }

    fn has(&self, id: u32) -> bool {
        match self {
            Encoder::Pieces(model) => model.piece(id as usize).is_some(),
            Encoder::Bytes(model) => model.token(id).is_some(),
        }
    }

    fn len(&self) -> u32 {
        match self {
            Encoder::Pieces(model) => model.len() as u32,
            Encoder::Bytes(model) => model.len(),
        }
    }
}

/// The parts of a tokenizer.
struct Build {
    family: Family,
    model: Encoder,
    offset: u32,
    added: Vec<Token>,
    special: Special,
    decoding: Decoding,
}

impl Build {
    fn finish(self) -> Result<Tokenizer, String> {
        let Build { family, model, offset, added, special, decoding } = self;
        // A `tokenizer.json` is defined by the crate `tokenizers`, and the others by Python.
        let is_space = if family == Family::Other { char::is_whitespace } else { is_space };
        let added = Added::new(added, is_space)?;
        let size = (offset + model.len()).max(added.len());
        Ok(Tokenizer { family, model, offset, added, special, decoding, size })
    }
}

impl Tokenizer {
    /// Opens the tokenizer in a model folder: the first of `ice_text.model`, `tokenizer.model`, `tokenizer.json`, `vocab.json`
    /// with `merges.txt`, and `cog-pretrain.model` that exists, with `tokenizer_config.json` and `added_tokens.json`.
    ///
    /// # Errors
    /// If none of them exists, or a file is not valid or has a setting that is not supported. The error names the file.
    pub fn open(dir: impl Into<ModelPath>) -> Result<Self> {
        Self::of_folder(&ModelDir::open(dir)?)
    }

    /// The same from files in memory, given by name.
    ///
    /// # Errors
    /// As [`Tokenizer::open`]. No input makes it panic, or allocate more than a few hundred times its size.
    pub fn from_files(files: &[(&str, &[u8])]) -> Result<Self> {
        Self::of_folder(&ModelDir::of(files))
    }

    /// Whether a folder has the files of a tokenizer. They are not read.
    ///
    /// # Errors
    /// If `dir` is no folder.
    pub fn is_in(dir: impl AsRef<Path>) -> Result<bool> {
        let folder = ModelDir::open(dir.as_ref())?;
        Ok(MAIN_FILES.iter().any(|name| folder.has(name)))
    }

    fn of_folder(folder: &ModelDir) -> Result<Self> {
        if folder.has(chatglm::FILE) {
            return match glm130b::recognises(folder)? {
                true => glm130b::open(folder),
                false => chatglm::open(folder),
            };
        }
        if folder.has(chatglm2::FILE) {
            let file = folder.read(chatglm2::FILE)?;
            return match glm4::recognises(&file) {
                true => glm4::open(folder, folder.text(chatglm2::FILE)?.as_bytes()),
                false => chatglm2::open(folder),
            };
        }
        if folder.has(transformers::FILE) {
            return transformers::open(folder);
        }
        if folder.has(glm10b::VOCAB) {
            return glm10b::open_english(folder);
        }
        if folder.has(glm10b::CHINESE) {
            return glm10b::open_chinese(folder);
        }
        if folder.is_gguf() {
            // What the file is, if it is no model of ours, says more.
            Config::of_folder(folder)?;
        }
        let problem = format!("no tokenizer here; looked for {}", MAIN_FILES.join(", "));
        Err(Error::file(folder.path(), problem))
    }

    /// The highest id plus one. The vocabulary of a model may be larger; its additional ids have no text.
    pub fn vocab_size(&self) -> usize {
        self.size as usize
    }

    /// The ids with a special meaning.
    pub fn special(&self) -> &Special {
        &self.special
    }

    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// The id of the piece with exactly this text, such as `<|tab|>`, `[sMASK]` or `<|user|>`. May search through all pieces.
    pub fn id(&self, piece: &str) -> Option<u32> {
        let of_model = || self.model.find(piece).map(|id| id + self.offset);
        self.added.find(piece).or_else(of_model)
    }

    /// The name of a special id, such as `[gMASK]` or `<|user|>`. `None` for ids that are part of the text of an answer.
    pub fn special_name(&self, id: u32) -> Option<&str> {
        self.added.get(id).filter(|token| token.special).map(|token| token.name.as_str())
    }

    /// Whether this is a special id that decodes to its name.
    pub(crate) fn names_special(&self, id: u32) -> bool {
        let is_named = |token: &&Token| matches!(token.shown, Shown::Within(_) | Shown::Apart(_));
        self.added.get(id).filter(is_named).is_some_and(|token| token.special)
    }

    /// The bytes of an id within a text, which may be a part of a character. `None` for special ids and for those without text.
    pub fn bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        if let Some(token) = self.added.get(id) {
            return match &token.shown {
                Shown::Within(name) | Shown::Apart(name) if !token.special => {
                    Some(name.as_bytes().into())
                }
                _ => None,
            };
        }
        let id = id.checked_sub(self.offset)?;
        match &self.model {
            Encoder::Bytes(model) => model.token(id).map(Cow::Borrowed),
            Encoder::Pieces(model) => {
                let piece = model.piece(id as usize)?;
                match piece.kind {
                    Kind::Byte(byte) => Some(vec![byte].into()),
                    Kind::Control | Kind::Unknown => None,
                    _ => Some(self.decoding.within(&piece.text).into_bytes().into()),
                }
            }
        }
    }

    /// Encodes a text. Adds no ids before or after it.
    ///
    /// Names of special ids in the text become these ids, depending on the tokenizer: in ChatGLM-6B `[MASK]`, `<sop>`, `<eop>`,
    /// `<pad>` and `<unk>`, in ChatGLM2, ChatGLM3 and GLM-130B none, in the others all.
    ///
    /// # Errors
    /// If the text is longer than 16 MiB or the normalized text than 32 MiB, or if a split pattern of a `tokenizer.json` takes
    /// too long: its work is counted.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_segments(text, Names::Always, |text| text.into())
    }

    /// As [`Tokenizer::encode`], but what somebody says stays text: only the names of blanks and `/nothink` become ids, and those
    /// of roles, of `<sop>`, of `<|endoftext|>`, and tags such as `<think>` and `<tool_call>` do not.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_as_text(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_segments(text, Names::NoMarkup, |text| text.into())
    }

    /// As [`Tokenizer::encode`], and the roles of ChatGLM3, such as `<|user|>`, become their ids as well. Only for the rendered
    /// text of a conversation: in the text of a user, a role must stay text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_roles(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_segments(text, Names::OnRequest, |text| text.into())
    }

    /// As [`Tokenizer::encode_with_roles`], without the character `mark`, which may break names that are to stay text.
    pub(crate) fn encode_marked(&self, text: &str, mark: char) -> Result<Vec<u32>> {
        self.encode_segments(text, Names::OnRequest, |text| match text.contains(mark) {
            true => text.replace(mark, "").into(),
            false => text.into(),
        })
    }

    /// The names that [`Tokenizer::encode_with_roles`] finds and [`Tokenizer::encode_as_text`] does not.
    pub(crate) fn markup(&self) -> impl Iterator<Item = &str> {
        self.added.markup()
    }

    /// `clean` is applied to the texts between the names.
    fn encode_segments(
        &self,
        text: &str,
        names: Names,
        clean: impl Fn(&str) -> Cow<'_, str>,
    ) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT {
            let (length, most) = (text.len(), MAX_TEXT);
            return Err(Error::Prompt(format!(
                "the text has {length} bytes, and {most} are the most"
            )));
        }
        let (mut ids, mut encoded) = (Vec::new(), Ok(()));
        let mut left = split::work(text.len());
        self.added.split(text, names, |segment| match segment {
            Segment::Text(text) if encoded.is_ok() => {
                encoded = self.encode_plain(&clean(text), &mut left, &mut ids);
            }
            Segment::Text(_) => {}
            Segment::Id(id) => ids.push(id),
        });
        encoded.map(|()| ids)
    }

    fn encode_plain(&self, text: &str, left: &mut u64, ids: &mut Vec<u32>) -> Result<()> {
        let first = ids.len();
        match self.family {
            Family::ChatGlm => self.model.encode(&chatglm::replace_blanks(text), left, ids)?,
            _ => self.model.encode(text, left, ids)?,
        }
        ids[first..].iter_mut().for_each(|id| *id += self.offset);
        Ok(())
    }

    /// Decodes ids as the official tokenizer does. Some tokenizers decode special ids to their names;
    /// [`TextStream::without_special`](crate::TextStream::without_special) never does.
    ///
    /// # Errors
    /// If the tokenizer does not have an id; see [`Tokenizer::knows`].
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut decoder = self.decoder();
        let mut text = String::new();
        for &id in ids {
            self.push(&mut decoder, id, &mut text)?;
        }
        decoder.finish(&mut text);
        Ok(text)
    }

    /// Whether the tokenizer has this id.
    pub fn knows(&self, id: u32) -> bool {
        id < self.offset || self.model.has(id - self.offset) || self.added.get(id).is_some()
    }

    pub(crate) fn decoder(&self) -> Decoder {
        Decoder::new(self.decoding)
    }

    /// Passes the next id to a decoder. Appends to `text` what no later id can change.
    pub(crate) fn push(&self, decoder: &mut Decoder, id: u32, text: &mut String) -> Result<()> {
        if let Some(token) = self.added.get(id) {
            match (&token.shown, &self.model) {
                (Shown::Ignored, _) => {}
                (Shown::Hidden, _) => decoder.part_bytes(text),
                (Shown::Within(name), Encoder::Bytes(_)) => {
                    decoder.push_bytes(name.as_bytes(), text)
                }
                (Shown::Within(name), Encoder::Pieces(_)) => decoder.push_verbatim(name, text),
                (Shown::Apart(name), _) => decoder.push_apart(name, text),
            }
            return Ok(());
        }
        let Some(piece) = id.checked_sub(self.offset) else {
            decoder.push_verbatim(&format!("<image_{id}>"), text);
            return Ok(());
        };
        let known = match &self.model {
            Encoder::Pieces(model) => push_piece(model, decoder, piece, text),
            Encoder::Bytes(model) => {
                model.token(piece).map(|token| decoder.push_bytes(token, text))
            }
        };
        known.ok_or_else(|| {
            let size = self.size;
            Error::Ids(format!("id {id} has no text: the tokenizer has {size} ids"))
        })
    }
}

fn push_piece(
    model: &SentencePiece,
    decoder: &mut Decoder,
    id: u32,
    text: &mut String,
) -> Option<()> {
    let piece = model.piece(id as usize)?;
    match piece.kind {
        Kind::Byte(byte) => decoder.push_bytes(&[byte], text),
        Kind::Control => decoder.part_bytes(text),
        Kind::Unknown => decoder.push_verbatim(model.unknown_surface(), text),
        _ => decoder.push_piece(&piece.text, text),
    }
    Some(())
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut shown = f.debug_struct("Tokenizer");
        shown
            .field("family", &self.family)
            .field("vocab_size", &self.vocab_size())
            .field("special", &self.special)
            .finish_non_exhaustive()
    }
}

/// Whether Python's `str.strip` strips this character: Unicode's white space and four separators.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Text from a file that may be long, as an error shows it.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests;
