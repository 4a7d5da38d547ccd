//! ChatGLM-6B: `ice_text.model`, a unigram model with pieces for newlines, tabs and runs of blanks.
//!
//! Before encoding, special pieces are found in the text and blanks around them are dropped. SentencePiece would collapse
//! `\n`, `\t` and runs of blanks, so they are replaced by the pieces `<n>`, `<|tab|>`, and `<|blank_2|>` to `<|blank_80|>`.
//! Decoding replaces them back and removes blanks before punctuation.

use super::added::{Found, Shown, Token};
use super::decoder::{Decoding, Invalid, Marked};
use super::sentencepiece::SentencePiece;
use super::settings;
use super::{Build, Encoder, Family, NEWLINE, Special, SpecialIds, TAB, Tokenizer};
use crate::error::Result;
use crate::files::fields::Fields;
use crate::files::model_dir::ModelDir;
use crate::limits::tokenizer::{LONGEST_RUN, MAX_IMAGE_TOKENS};
use std::fmt::Write;

pub(super) const FILE: &str = "ice_text.model";

pub(super) const DECODING: Decoding = Decoding {
    marked: Marked::Blanks,
    clean_up: true,
    joint: "",
    invalid: Invalid::Each,
    keeps_blanks: false,
};

/// The default of the official tokenizer, for the early configs without `num_image_tokens`. Since version 1.1 the configs say
/// 0, and that is used without a config as well.
const EARLY_IMAGE_TOKENS: u32 = 20_000;

pub(super) fn open(folder: &ModelDir) -> Result<Tokenizer> {
    let settings = settings::open(folder)?;
    let model = SentencePiece::open(folder, FILE)?;
    let offset = image_tokens(folder, &settings)?;
    let token = |key: &str, usual: &str| {
        let name = settings.name(key)?.unwrap_or(usual);
        let missing = || folder.error(FILE, format!("has no piece {name:?}"));
        let id = model.find(name).ok_or_else(missing)? + offset;
        Ok(Token { shown: Shown::Hidden, strips: [true; 2], ..Token::new(id, name) })
    };
    let [bos, eos] = [token("bos_token", "<sop>")?, token("eos_token", "<eop>")?];
    // In the first checkpoints `eop_token` named the end of an answer, and `eos_token` was `</s>`.
    let end = if settings.has("eop_token") { token("eop_token", "")?.id } else { eos.id };
    let mask = token("mask_token", "[MASK]")?;
    let gmask = Token { found: Found::Never, ..token("gmask_token", "[gMASK]")? };
    // The official code removes padding before it decodes.
    let pad = Token { shown: Shown::Ignored, ..token("pad_token", "<pad>")? };
    let shown = Shown::Within(model.unknown_surface().into());
    let unk = Token { special: false, shown, ..token("unk_token", "<unk>")? };
    let ids = SpecialIds {
        mask: Some(mask.id),
        smask: None,
        gmask: Some(gmask.id),
        sop: Some(bos.id),
        ends: vec![end],
    };
    let (before, after) = (Vec::new(), vec![gmask.id, bos.id]);
    let special = Special { ids, pad: Some(pad.id), before, after };
    let added = vec![bos, eos, unk, pad, mask, gmask];
    let (family, model, decoding) = (Family::ChatGlm, Encoder::Pieces(model), DECODING);
    let built = Build { family, model, offset, added, special, decoding }.finish();
    built.map_err(|problem| folder.error(FILE, problem))
}

/// The number of image ids before those of text.
fn image_tokens(folder: &ModelDir, settings: &Fields) -> Result<u32> {
    if settings.has("num_image_tokens") {
        return Ok(settings.size("num_image_tokens", 0..=MAX_IMAGE_TOKENS)? as u32);
    }
    Ok(if folder.has(settings::FILE) { EARLY_IMAGE_TOKENS } else { 0 })
}

/// Replaces the white space that SentencePiece would collapse by pieces.
pub(super) fn replace_blanks(text: &str) -> String {
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

/// Writes a run of blanks: the longest pieces first, and a single blank as it is.
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
