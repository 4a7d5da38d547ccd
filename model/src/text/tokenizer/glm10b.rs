//! GLM-10B: GPT-2's `vocab.json` and `merges.txt`, or for GLM-10B-Chinese `cog-pretrain.model`, a SentencePiece BPE model. Both
//! have an `added_tokens.json`.
//!
//! Added tokens are always found in a text. `[CLS]` precedes a text, and `<|endoftext|>` follows it.

use super::added::{Shown, Token};
use super::byte_level::ByteLevel;
use super::decoder::{Decoding, Invalid};
use super::gpt2::{self, Merges, Vocab};
use super::sentencepiece::SentencePiece;
use super::settings;
use super::split::{GPT2, Splitter};
use super::{Build, Encoder, Family, Special, SpecialIds, Tokenizer, shortened};
use crate::error::Result;
use crate::files::fields::Fields;
use crate::files::json::check_json_values;
use crate::files::model_dir::{ADDED_TOKENS as ADDED, ModelDir};
use crate::limits::file::MOST_IN_TOKENIZER;

pub(super) const VOCAB: &str = "vocab.json";
pub(super) const MERGES: &str = "merges.txt";
pub(super) const CHINESE: &str = "cog-pretrain.model";
const SOP: &str = "<|startofpiece|>";

pub(super) fn open_english(folder: &ModelDir) -> Result<Tokenizer> {
    let text = folder.text(VOCAB)?;
    check_json_values(text.as_bytes(), MOST_IN_TOKENIZER).map_err(|e| folder.error(VOCAB, e))?;
    let vocab: Vocab =
        serde_json::from_str(&text).map_err(|e| folder.error(VOCAB, shortened(&e.to_string())))?;
    let tokens = gpt2::tokens(&vocab).map_err(|problem| folder.error(VOCAB, problem))?;
    let model = gpt2::merges_of_lines(folder.text(MERGES)?.as_bytes())
        .and_then(|merges| Merges::new(vocab, merges, false))
        .and_then(|merges| Ok(ByteLevel::of_merges(tokens, merges, vec![Splitter::new(GPT2)?])))
        .map_err(|problem| folder.error(MERGES, problem))?;
    open(folder, Encoder::Bytes(model), VOCAB)
}

pub(super) fn open_chinese(folder: &ModelDir) -> Result<Tokenizer> {
    let model = SentencePiece::open(folder, CHINESE)?;
    open(folder, Encoder::Pieces(model), CHINESE)
}

fn open(folder: &ModelDir, model: Encoder, file: &str) -> Result<Tokenizer> {
    let settings = settings::open(folder)?;
    let added = added(folder, &settings, &model)?;
    let id = |name: &str| {
        let token = added.iter().find(|token| token.name == name);
        let problem = || folder.error(ADDED, format!("has no {name}, which all prompts need"));
        token.map(|token| token.id).ok_or_else(problem)
    };
    let optional = |name: &str| id(name).ok();
    let (sop, ends) = (Some(id(SOP)?), vec![id("<|endofpiece|>")?]);
    let special = Special {
        ids: SpecialIds { sop, ends, ..SpecialIds::named(SOP, optional) },
        pad: settings.name("pad_token")?.and_then(optional),
        before: vec![id("[CLS]")?],
        after: vec![id("<|endoftext|>")?],
    };
    let pieces = matches!(model, Encoder::Pieces(_));
    let decoding = Decoding {
        clean_up: settings.flag("clean_up_tokenization_spaces", true)?,
        joint: " ",
        invalid: if pieces { Invalid::Each } else { Invalid::Together },
        ..Decoding::default()
    };
    Build { family: Family::Glm10b, model, offset: 0, added, special, decoding }
        .finish()
        .map_err(|problem| folder.error(file, problem))
}

/// The tokens of `added_tokens.json`, and `<|endoftext|>` if the vocabulary has it, as the English one does.
fn added(folder: &ModelDir, settings: &Fields, model: &Encoder) -> Result<Vec<Token>> {
    let mut ids = Vec::new();
    for (name, id) in folder.json(ADDED)? {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| folder.error(ADDED, format!("{name:?} has no id")))?;
        ids.push((id, name));
    }
    let end = "<|endoftext|>";
    ids.extend(model.find(end).map(|id| (id, end.to_owned())));
    const ROLES: [&str; 6] =
        ["eos_token", "pad_token", "cls_token", "mask_token", "unk_token", "sep_token"];
    let mut tokens = Vec::new();
    for (id, name) in ids {
        let mut token = Token::new(id, &name);
        for role in ROLES {
            if settings.name(role)? == Some(&name) {
                token.strips = settings.strips(role);
            }
        }
        // transformers joins tokens with a role to the text around them, and decodes the others separately.
        let named = ROLES.iter().any(|role| settings.name(role).is_ok_and(|n| n == Some(&name)));
        if settings.is_additional(&name) || !named {
            token.shown = Shown::Apart(name);
        }
        tokens.push(token);
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::super::testing::vocab;
    use super::*;

    const TOKENS: &str = r#"{"[CLS]": 300, "<|startofpiece|>": 301, "<|endofpiece|>": 302, "[MASK]": 303, "[gMASK]": 304}"#;
    const SETTINGS: &str = r#"{"cls_token": "[CLS]", "eos_token": "<|endoftext|>",
        "mask_token": {"content": "[MASK]", "lstrip": true}, "additional_special_tokens": ["[gMASK]"]}"#;

    fn open(merges: &str, added: &str) -> Result<Tokenizer> {
        let vocab = vocab(&["<|endoftext|>", "ab", "Ġa", "Ġab"]);
        let files = [
            (VOCAB, vocab.as_str()),
            (MERGES, merges),
            (ADDED, added),
            ("tokenizer_config.json", SETTINGS),
        ];
        Tokenizer::from_files(&files.map(|(name, text)| (name, text.as_bytes())))
    }

    #[test]
    fn pairs_are_joined_in_the_order_of_their_lines() {
        let t = open("#version: 0.2\nĠ a\na b\n", TOKENS).expect("sound files");
        let id = |piece: &str| t.id(piece).expect("a piece");
        assert_eq!(t.encode("ab ab").unwrap(), [id("ab"), id(" a"), id("b")]);
        assert_eq!(t.encode(" [MASK] [gMASK]").unwrap(), [303, id(" "), 304]);
        // Joined to the text, or separate from it.
        assert_eq!(t.decode(&[303, id("ab"), 304, id(" a")]).unwrap(), "[MASK]ab [gMASK]  a");
        assert_eq!(
            (&t.special().before[..], &t.special().after[..]),
            (&[300][..], &[id("<|endoftext|>")][..])
        );
        assert_eq!(t.decode(&[id(" "), id(".")]).unwrap(), ".");
    }

    #[test]
    fn broken_files_are_refused_and_named() {
        for (merges, added, problem) in [
            ("a c", TOKENS, "merges.txt: a merge is not valid"),
            ("ab", TOKENS, "merges.txt: a merge is not valid"),
            ("<|endoftext|> a", TOKENS, "merges.txt: merge 0"),
            ("", "{}", "added_tokens.json: has no"),
            ("", r#"{"x": -1}"#, "added_tokens.json: \"x\" has no id"),
            ("", "[", "added_tokens.json: is no JSON object"),
        ] {
            let error = open(merges, added).expect_err(problem).to_string();
            assert!(error.starts_with(problem), "{error}");
        }
    }
}
