//! GLM-4: `tokenizer.model` with tiktoken ranks. Each line is a token: its bytes in base64, a blank, and its id.
//!
//! `tokenizer_config.json` names the special ids. Their names are always found in a text.

use super::added::{Shown, Token};
use super::byte_level::ByteLevel;
use super::chatglm2::FILE;
use super::decoder::{Decoding, Invalid};
use super::settings;
use super::split::{GLM4, Splitter};
use super::{Build, Encoder, Family, Special, SpecialIds, Tokenizer};
use crate::error::Result;
use crate::files::model_dir::ModelDir;
use crate::files::utf8::utf8;
use crate::limits::tokenizer::MAX_TOKENS;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;

/// Whether a file has tiktoken ranks. The start of a SentencePiece model cannot be read as such a line.
pub(crate) fn recognises(file: &[u8]) -> bool {
    let first = file.split(|&byte| byte == b'\n').next().unwrap_or_default();
    utf8(first).is_ok_and(|line| read_line(line).is_some())
}

pub(super) fn open(folder: &ModelDir, file: &[u8]) -> Result<Tokenizer> {
    let settings = settings::open(folder)?;
    let model = parse(file).map_err(|problem| folder.error(FILE, problem))?;
    let mut added = settings.added()?;
    if added.is_empty() {
        return Err(settings.error(
            "is missing or has no added_tokens_decoder, which names the special ids: copy the file from the published model",
        ));
    }
    for Token { name, shown, .. } in &mut added {
        *shown = Shown::Apart(name.clone());
    }
    let id = |name: &str| added.iter().find(|token| token.name == name).map(|token| token.id);
    let named = |key: &str| Ok(settings.name(key)?.and_then(id));
    let ends = named("eos_token")?.into_iter().collect();
    let special = Special {
        ids: SpecialIds { ends, ..SpecialIds::named("<sop>", id) },
        pad: named("pad_token")?,
        before: [id("[gMASK]"), id("<sop>")].into_iter().flatten().collect(),
        after: Vec::new(),
    };
    let decoding = Decoding {
        clean_up: settings.flag("clean_up_tokenization_spaces", false)?,
        joint: " ",
        invalid: Invalid::Together,
        ..Decoding::default()
    };
    Build {
        family: Family::Glm4,
        model: Encoder::Bytes(model),
        offset: 0,
        added,
        special,
        decoding,
    }
    .finish()
    .map_err(|problem| folder.error(FILE, problem))
}

fn parse(file: &[u8]) -> Result<ByteLevel, String> {
    let text = std::str::from_utf8(file)
        .map_err(|_| "neither a SentencePiece model nor tiktoken ranks")?;
    let mut tokens = HashMap::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
        let (token, id) = read_line(line)
            .ok_or_else(|| format!("line {number} is not a token in base64 and its id"))?;
        if tokens.insert(id, token).is_some() {
            return Err(format!("line {number}: there is already a token with the id {id}"));
        }
        if tokens.len() > MAX_TOKENS {
            return Err(format!("has more than {MAX_TOKENS} tokens"));
        }
    }
    ByteLevel::of_ranks(tokens, Splitter::new(GLM4)?)
}

fn read_line(line: &str) -> Option<(Vec<u8>, u32)> {
    let (token, id) = line.trim_end().split_once(' ')?;
    Some((STANDARD.decode(token).ok()?, id.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL: &str = r#"{"added_tokens_decoder": {"300": {"content": "<|user|>"}, "301": {"content": "[gMASK]"},
        "302": {"content": "<sop>"}, "303": {"content": "<|x|>", "special": false}}, "eos_token": "<|user|>"}"#;

    /// All bytes, and after them these tokens.
    fn ranks(more: &[&str]) -> String {
        let bytes = (0..=255).map(|byte| vec![byte]);
        let tokens = bytes.chain(more.iter().map(|token| token.as_bytes().to_vec()));
        let line = |(id, token): (u32, Vec<u8>)| format!("{} {id}\n", STANDARD.encode(token));
        (0..).zip(tokens).map(line).collect()
    }

    fn open(ranks: &str, settings: &str) -> Result<Tokenizer> {
        let files = [(FILE, ranks.as_bytes()), ("tokenizer_config.json", settings.as_bytes())];
        Tokenizer::from_files(&files)
    }

    #[test]
    fn words_that_are_tokens_stay_whole_and_others_are_joined_by_rank() {
        let t = open(&ranks(&["ab", "bc", "abc", " a", "abcd"]), SPECIAL).expect("sound files");
        for (text, ids) in [
            ("abc", &[258][..]),
            ("abcd", &[260]),
            ("bcb", &[257, 98]),
            ("x<|user|> a", &[120, 300, 259]),
            ("é", &[0xc3, 0xa9]),
        ] {
            assert_eq!(t.encode(text).expect("short"), ids, "{text}");
        }
        assert_eq!(
            t.decode(&[300, 97, 0xc3, 300, 301]).unwrap(),
            "<|user|> a\u{fffd} <|user|> [gMASK]"
        );
        assert_eq!(t.decode(&[0xe4, 0xbd, 303]).unwrap(), "\u{fffd} <|x|>");
        assert_eq!(
            (&t.special().before[..], &t.special().ids.ends[..]),
            (&[301, 302][..], &[300][..])
        );
        assert!(!t.knows(299) && t.knows(303) && t.decode(&[299]).is_err());
    }

    #[test]
    fn broken_files_are_refused_and_named() {
        for (ranks, settings, problem) in [
            (ranks(&[]), "{}".to_owned(), "tokenizer_config.json: is missing or has no"),
            (ranks(&["a"]), SPECIAL.to_owned(), "tokenizer.model: the tokens 97 and 256 are both"),
            (
                ranks(&[])[7..].to_owned(),
                SPECIAL.to_owned(),
                "tokenizer.model: no token stands for the byte",
            ),
            (ranks(&[]) + "YWI= x", SPECIAL.to_owned(), "line 257 is not a token"),
            (ranks(&[]) + "YWI= 3", SPECIAL.to_owned(), "already a token with the id 3"),
            (ranks(&[]) + "YWI= 4294967295", SPECIAL.to_owned(), "is not below"),
            (ranks(&[]) + " 256", SPECIAL.to_owned(), "token 256 has 0 bytes"),
            (ranks(&[]), SPECIAL.replace("301", "99999999"), "is not below"),
            (
                ranks(&[]),
                SPECIAL.replace("301", "x"),
                "tokenizer_config.json: added_tokens_decoder: x",
            ),
            (ranks(&[]), SPECIAL.replace("[gMASK]", ""), "no name"),
            (ranks(&[]), SPECIAL.replace("[gMASK]", "<sop>"), "is both"),
        ] {
            let error = open(&ranks, &settings).expect_err(problem).to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
