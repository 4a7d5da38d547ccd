//! GLM-4: `tokenizer.model` with tiktoken ranks, a line for each token: its bytes in base64, a blank,
//! its id.
//!
//! Special ids are named in `tokenizer_config.json` and found wherever they are written.

use super::added::{Shown, Token};
use super::byte_level::{ByteLevel, Merges};
use super::chatglm2::FILE;
use super::decoder::{Decoding, Invalid};
use super::folder::Folder;
use super::settings::Settings;
use super::split::{GLM4, Splitter};
use super::{Build, Family, Model, Special, Tokenizer};
use crate::error::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;

/// Whether a file has the ranks of tiktoken: a SentencePiece model begins otherwise.
pub(super) fn recognises(file: &[u8]) -> bool {
    let first = file.split(|&byte| byte == b'\n').next().unwrap_or_default();
    std::str::from_utf8(first).is_ok_and(|line| read_line(line).is_some())
}

pub(super) fn open(folder: &Folder, file: &[u8]) -> Result<Tokenizer> {
    let settings = Settings::open(folder)?;
    let model = parse(file).map_err(|problem| folder.error(FILE, problem))?;
    let mut added = settings.added()?;
    if added.is_empty() {
        return Err(settings.error(
            "is missing or has no added_tokens_decoder, which names the special ids: copy the file of that name from the \
             published model",
        ));
    }
    for Token { name, shown, .. } in &mut added {
        *shown = Shown::Apart(name.clone());
    }
    let id = |name: &str| added.iter().find(|token| token.name == name).map(|token| token.id);
    let named = |key: &str| Ok(settings.name(key)?.and_then(id));
    let special = Special {
        mask: id("[MASK]"),
        smask: id("[sMASK]"),
        gmask: id("[gMASK]"),
        sop: id("<sop>"),
        ends: named("eos_token")?.into_iter().collect(),
        pad: named("pad_token")?,
        unk: None,
        before: [id("[gMASK]"), id("<sop>")].into_iter().flatten().collect(),
        after: Vec::new(),
    };
    let decoding = Decoding {
        clean_up: settings.flag("clean_up_tokenization_spaces")?,
        joint: " ",
        invalid: Invalid::Together,
        ..Decoding::default()
    };
    Build { family: Family::Glm4, model: Model::Bytes(model), offset: 0, added, special, decoding }
        .finish()
        .map_err(|problem| folder.error(FILE, problem))
}

fn parse(file: &[u8]) -> Result<ByteLevel, String> {
    let text = std::str::from_utf8(file)
        .map_err(|_| "neither a SentencePiece model nor tiktoken ranks")?;
    let mut tokens = HashMap::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
        let (token, id) = read_line(line)
            .ok_or_else(|| format!("line {number} is no token in base64 and its id"))?;
        if tokens.insert(id, token).is_some() {
            return Err(format!("line {number}: there is a token {id} already"));
        }
    }
    ByteLevel::new(tokens, Merges::Ids, true, Splitter::new(GLM4)?)
}

fn read_line(line: &str) -> Option<(Vec<u8>, u32)> {
    let (token, id) = line.trim_end().split_once(' ')?;
    Some((STANDARD.decode(token).ok()?, id.parse().ok()?))
}
