//! Text to ids and back.
//!
//! ChatGLM-6B's tokenizer is a SentencePiece unigram model with rules of its own around it. Before
//! the model, special pieces are found in the text and the blanks around them dropped; `\n`, `\t`
//! and runs of blanks, which SentencePiece would collapse, become pieces: `<n>`, `<|tab|>`,
//! `<|blank_2|>` to `<|blank_80|>`. After it they are written out again and blanks before
//! punctuation taken away.

mod decoder;
mod normalizer;
mod sentencepiece;
#[cfg(test)]
pub(crate) mod testing;
mod trie;

use crate::error::{Error, Result};
pub(crate) use decoder::Decoder;
use sentencepiece::SentencePiece;
use serde::Deserialize;
use std::fmt::{self, Write};
use std::fs::File;
use std::io::Read;
use std::path::Path;

const MODEL_FILE: &str = "ice_text.model";
const CONFIG_FILE: &str = "tokenizer_config.json";

const NEWLINE: &str = "<n>";
const TAB: &str = "<|tab|>";
/// The longest run of blanks that has a piece.
const LONGEST_RUN: usize = 80;

/// Longest text in bytes that is encoded; some thousand times the context. Bounds time and memory.
const MAX_TEXT: usize = 16 << 20;

/// Ids below `num_image_tokens` are images that no text model has; more would be nonsense.
const MAX_IMAGE_TOKENS: u32 = 1 << 20;

/// The ids with a meaning of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Special {
    /// `[MASK]`, a short gap to fill.
    pub mask: u32,
    /// `[gMASK]`, a gap of any length; every prompt ends with it and `bos`.
    pub gmask: u32,
    /// `<sop>`, after which the answer begins.
    pub bos: u32,
    /// `<eop>`, with which the answer ends.
    pub eos: u32,
    /// `<pad>`, which fills up the shorter prompts of a batch.
    pub pad: u32,
    /// `<unk>`, what no other piece stands for.
    pub unk: u32,
}

/// Turns text into ids and ids into text, exactly as the official tokenizer of ChatGLM-6B does.
pub struct Tokenizer {
    model: SentencePiece,
    /// Added to the ids of the model.
    image_tokens: u32,
    special: Special,
    /// The special pieces that are recognised in a text, the longest first.
    in_text: Vec<(String, u32)>,
}

impl Tokenizer {
    /// Opens the tokenizer in a model's folder: `ice_text.model` and, if there is one,
    /// `tokenizer_config.json`.
    ///
    /// # Errors
    /// If `ice_text.model` is missing, or if either file is not what ChatGLM-6B needs.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(MODEL_FILE);
        std::fs::metadata(dir).map_err(Error::io(dir))?;
        if !path.is_file() {
            return Err(Error::file(dir, format!("no tokenizer here; looked for {MODEL_FILE}")));
        }
        let model = read(&path)?;
        let config_path = dir.join(CONFIG_FILE);
        let config = if config_path.is_file() { Some(read(&config_path)?) } else { None };
        Self::build(&model, config.as_deref(), &path, &config_path)
    }

    /// Builds a tokenizer from the bytes of `ice_text.model` and of `tokenizer_config.json`.
    /// Without the latter, special pieces have their usual names and ids begin at 0, as in all
    /// checkpoints since version 1.1.
    ///
    /// # Errors
    /// If either is not what ChatGLM-6B needs. No bytes make it panic or allocate more than some
    /// hundred times their own size.
    pub fn from_sentencepiece(model: &[u8], config: Option<&[u8]>) -> Result<Self> {
        Self::build(model, config, Path::new(MODEL_FILE), Path::new(CONFIG_FILE))
    }

    fn build(
        model: &[u8],
        config: Option<&[u8]>,
        model_path: &Path,
        config_path: &Path,
    ) -> Result<Self> {
        let config =
            config.map(|json| Config::parse(json, config_path)).transpose()?.unwrap_or_default();
        let model =
            SentencePiece::parse(model).map_err(|problem| Error::file(model_path, problem))?;
        let image_tokens = config.num_image_tokens;
        let id = |name: &str| {
            let id = model
                .find(name)
                .ok_or_else(|| Error::file(model_path, format!("has no piece {name:?}")))?;
            Ok(id + image_tokens)
        };
        let special = Special {
            mask: id(&config.mask_token.0)?,
            gmask: id(&config.gmask_token.0)?,
            bos: id(&config.bos_token.0)?,
            eos: id(&config.eop_token.as_ref().unwrap_or(&config.eos_token).0)?,
            pad: id(&config.pad_token.0)?,
            unk: id(&config.unk_token.0)?,
        };
        let names = [
            config.bos_token,
            config.eos_token,
            config.unk_token,
            config.pad_token,
            config.mask_token,
        ];
        let mut in_text = names
            .map(|Name(name)| Ok((id(&name)?, name)))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        in_text.sort_by_key(|(_, name)| std::cmp::Reverse(name.len()));
        let in_text = in_text.into_iter().map(|(id, name)| (name, id)).collect();
        Ok(Tokenizer { model, image_tokens, special, in_text })
    }

    /// How many ids there are. A model may have more rows than this; they have no text.
    pub fn vocab_size(&self) -> usize {
        self.image_tokens as usize + self.model.len()
    }

    /// The ids with a meaning of their own.
    pub fn special(&self) -> Special {
        self.special
    }

    /// The id of the piece written exactly so, such as `<|tab|>` or `[sMASK]`. Looks through all
    /// pieces.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.model.find(piece).map(|id| id + self.image_tokens)
    }

    /// The ids of a text, with nothing put before or after it.
    ///
    /// `[MASK]`, `<sop>`, `<eop>`, `<pad>` and `<unk>` in the text become their ids; `[gMASK]` is
    /// text like any other.
    ///
    /// # Errors
    /// If the text is longer than 16 MiB.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT {
            return Err(Error::Prompt(format!(
                "the text has {} bytes, and {MAX_TEXT} are the most",
                text.len()
            )));
        }
        let mut ids = Vec::new();
        let mut rest = text;
        while let Some((at, name, id)) = self.find_special(rest) {
            self.encode_plain(rest[..at].trim_end_matches(is_space), &mut ids);
            ids.push(id);
            rest = rest[at + name.len()..].trim_start_matches(is_space);
        }
        self.encode_plain(rest, &mut ids);
        Ok(ids)
    }

    /// The text of ids, cleaned up as the official tokenizer does. Special ids are invisible.
    ///
    /// # Errors
    /// If an id is not below [`Self::vocab_size`].
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut decoder = self.decoder();
        let mut text = String::new();
        for &id in ids {
            self.push(&mut decoder, id, &mut text)?;
        }
        decoder.finish(&mut text);
        Ok(text)
    }

    pub(crate) fn decoder(&self) -> Decoder {
        Decoder::new()
    }

    /// Gives a decoder its next id; appends to `text` what no later id can change.
    pub(crate) fn push(&self, decoder: &mut Decoder, id: u32, text: &mut String) -> Result<()> {
        if id as usize >= self.vocab_size() {
            let size = self.vocab_size();
            return Err(Error::Ids(format!("id {id} has no text: the tokenizer has {size} ids")));
        }
        if id == self.special.pad {
            // Officially taken out before anything else, so that it does not even part the bytes of
            // a character.
            return Ok(());
        }
        match id.checked_sub(self.image_tokens) {
            Some(piece) => decoder.push(&self.model, piece as usize, text),
            None => decoder.push_verbatim(&format!("<image_{id}>"), text),
        }
        Ok(())
    }

    /// The first special piece in a text: its place, its name and its id.
    fn find_special(&self, text: &str) -> Option<(usize, &str, u32)> {
        text.char_indices().find_map(|(at, _)| {
            let (name, id) =
                self.in_text.iter().find(|(name, _)| text[at..].starts_with(name.as_str()))?;
            Some((at, name.as_str(), *id))
        })
    }

    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) {
        let first = ids.len();
        self.model.encode(&spell_out_blanks(text), ids);
        ids[first..].iter_mut().for_each(|id| *id += self.image_tokens);
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut shown = f.debug_struct("Tokenizer");
        shown
            .field("vocab_size", &self.vocab_size())
            .field("special", &self.special)
            .finish_non_exhaustive()
    }
}

/// Writes as pieces the blanks that SentencePiece would collapse.
fn spell_out_blanks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut run = 0;
    for c in text.chars() {
        if c == ' ' {
            run += 1;
            continue;
        }
        write_run(std::mem::take(&mut run), &mut out);
        match c {
            '\n' => out.push_str(NEWLINE),
            '\t' => out.push_str(TAB),
            _ => out.push(c),
        }
    }
    write_run(run, &mut out);
    out
}

/// Writes a run of blanks: the longest pieces first, a single blank as it is.
fn write_run(mut run: usize, out: &mut String) {
    while run >= 2 {
        let length = run.min(LONGEST_RUN);
        // Writing to a String cannot fail.
        let _ = write!(out, "<|blank_{length}|>");
        run -= length;
    }
    if run == 1 {
        out.push(' ');
    }
}

/// What Python's `str.strip` takes away: four separators more than Unicode's white space.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `tokenizer_config.json`, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Config {
    bos_token: Name,
    eos_token: Name,
    /// In the first checkpoints the end of an answer had a name of its own, and `eos_token` was
    /// `</s>`.
    eop_token: Option<Name>,
    mask_token: Name,
    gmask_token: Name,
    pad_token: Name,
    unk_token: Name,
    #[serde(default = "early_image_tokens")]
    num_image_tokens: u32,
    remove_space: bool,
    do_lower_case: bool,
}

impl Default for Config {
    fn default() -> Self {
        let name = |name: &str| Name(name.into());
        Config {
            bos_token: name("<sop>"),
            eos_token: name("<eop>"),
            eop_token: None,
            mask_token: name("[MASK]"),
            gmask_token: name("[gMASK]"),
            pad_token: name("<pad>"),
            unk_token: name("<unk>"),
            num_image_tokens: 0,
            remove_space: false,
            do_lower_case: false,
        }
    }
}

/// The official tokenizer's own default, for the early configs that do not say; since version 1.1
/// they say 0.
fn early_image_tokens() -> u32 {
    20_000
}

impl Config {
    fn parse(json: &[u8], path: &Path) -> Result<Self> {
        let config: Self =
            serde_json::from_slice(json).map_err(|e| Error::file(path, e.to_string()))?;
        if config.remove_space || config.do_lower_case {
            return Err(Error::file(path, "remove_space and do_lower_case must be false"));
        }
        if config.num_image_tokens > MAX_IMAGE_TOKENS {
            let found = config.num_image_tokens;
            return Err(Error::file(
                path,
                format!("num_image_tokens is {found}, and at most {MAX_IMAGE_TOKENS} make sense"),
            ));
        }
        Ok(config)
    }
}

/// A special piece's name: a string, or an object with the string in `content`.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "NameForm")]
struct Name(String);

#[derive(Deserialize)]
#[serde(untagged)]
enum NameForm {
    Plain(String),
    Object { content: String },
}

impl From<NameForm> for Name {
    fn from(form: NameForm) -> Self {
        match form {
            NameForm::Plain(name) | NameForm::Object { content: name } => Name(name),
        }
    }
}

/// Reads a file, of unreasonable ones only so much that they are recognised.
fn read(path: &Path) -> Result<Vec<u8>> {
    let limit = sentencepiece::MAX_FILE as u64 + 1;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(Error::io(path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
