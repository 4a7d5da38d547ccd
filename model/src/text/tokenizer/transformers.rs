//! `tokenizer.json`, the format of the crate `tokenizers` and of transformers, for byte-level BPE: the native `glm` and `glm4`
//! models and others.
//!
//! Other models, normalizers, pre-tokenizers and decoders are errors, because ignoring them would give wrong ids. The crate
//! gets only the vocabulary and the merges. Its own reader accepts any pattern, and its regex engines backtrack; it needs
//! twice the memory as well.

use super::added::Token;
use super::byte_level::ByteLevel;
use super::decoder::{Decoding, Invalid};
use super::gpt2::{self, Merge, Merges, Vocab};
use super::settings::{self, token};
use super::split::{DIGIT, DIGITS, GPT2, Splitter};
use super::{Build, Encoder, Family, Special, SpecialIds, Tokenizer, shortened};
use crate::error::Result;
use crate::files::json::check_json_values;
use crate::files::model_dir::ModelDir;
use crate::limits::file::MOST_IN_TOKENIZER;
use crate::limits::tokenizer::{MAX_AROUND, MAX_CUTS};
use serde::Deserialize;
use serde_json::Value;

pub(super) const FILE: &str = "tokenizer.json";

/// The supported type of model.
const BPE: &str = "BPE";

/// The parts of the file that matter here.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Value>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: BpeModel,
}

#[derive(Deserialize)]
struct BpeModel {
    #[serde(rename = "type", default)]
    kind: Value,
    #[serde(default)]
    dropout: Value,
    #[serde(default)]
    continuing_subword_prefix: Value,
    #[serde(default)]
    end_of_word_suffix: Value,
    #[serde(default)]
    byte_fallback: Value,
    ignore_merges: Option<bool>,
    vocab: Vocab,
    merges: Vec<Merge>,
}

/// The type of a model that cannot be read.
#[derive(Deserialize)]
struct Header {
    model: Kind,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: Value,
}

impl File {
    /// # Errors
    /// If the file is not JSON, or its model is not BPE.
    fn parse(file: &[u8]) -> Result<Self, String> {
        check_json_values(file, MOST_IN_TOKENIZER)?;
        let read: serde_json::Result<File> = serde_json::from_slice(file);
        let kind = match &read {
            Ok(file) => file.model.kind.clone(),
            Err(_) => serde_json::from_slice(file).map_or(BPE.into(), |h: Header| h.model.kind),
        };
        if kind != BPE {
            return Err(format!("a model of type {} is not supported, only {BPE}", shown(&kind)));
        }
        read.map_err(|e| shortened(&format!("is not valid: {e}")))
    }

    /// # Errors
    /// If the file asks for something that is not supported and would change ids.
    fn check(&self) -> Result<(), String> {
        let model = &self.model;
        let unusual = [
            ("dropout", &model.dropout),
            ("continuing_subword_prefix", &model.continuing_subword_prefix),
            ("end_of_word_suffix", &model.end_of_word_suffix),
            ("byte_fallback", &model.byte_fallback),
        ];
        let is_plain = |value: &Value| value.is_null() || value == "" || value == false;
        if let Some((key, value)) = unusual.into_iter().find(|(_, value)| !is_plain(value)) {
            return Err(format!("{key} {} is not supported in byte-level BPE", shown(value)));
        }
        if !self.normalizer.is_null() {
            let found = shown(&self.normalizer);
            return Err(format!("the normalizer {found} is not supported, only none"));
        }
        if self.decoder["type"] != "ByteLevel" {
            let found = shown(&self.decoder);
            return Err(format!("the decoder {found} is not supported, only ByteLevel"));
        }
        Ok(())
    }
}

pub(super) fn open(folder: &ModelDir) -> Result<Tokenizer> {
    let settings = settings::open(folder)?;
    let error = |problem: String| folder.error(FILE, problem);
    let file = File::parse(folder.text(FILE)?.as_bytes()).map_err(error)?;
    file.check().map_err(error)?;
    let added = added(&file.added_tokens).map_err(error)?;
    let model = model(file.model, &file.pre_tokenizer).map_err(error)?;
    let id = |name: &str| added.iter().find(|token| token.name == name).map(|token| token.id);
    let named =
        |key: &str| Ok(settings.name(key)?.and_then(|name| id(name).or_else(|| model.find(name))));
    let [before, after] = around(&file.post_processor).map_err(error)?;
    let ends = named("eos_token")?.into_iter().collect();
    let special = Special {
        ids: SpecialIds { ends, ..SpecialIds::named("<sop>", id) },
        pad: named("pad_token")?,
        before,
        after,
    };
    let decoding = Decoding {
        clean_up: settings.flag("clean_up_tokenization_spaces", false)?,
        invalid: Invalid::Together,
        ..Decoding::default()
    };
    Build {
        family: Family::Other,
        model: Encoder::Bytes(model),
        offset: 0,
        added,
        special,
        decoding,
    }
    .finish()
    .map_err(error)
}

fn added(listed: &[Value]) -> Result<Vec<Token>, String> {
    listed
        .iter()
        .map(|value| {
            let id = value["id"].as_u64().and_then(|id| u32::try_from(id).ok());
            let token =
                id.zip(value["content"].as_str()).and_then(|(id, name)| token(id, name, value));
            let problem = || format!("added_tokens: {} is not supported", shown(value));
            token.ok_or_else(problem)
        })
        .collect()
}

fn model(model: BpeModel, pre_tokenizer: &Value) -> Result<ByteLevel, String> {
    let tokens = gpt2::tokens(&model.vocab)?;
    let whole_words = model.ignore_merges.unwrap_or(false);
    let merges = Merges::new(model.vocab, model.merges, whole_words)?;
    Ok(ByteLevel::of_merges(tokens, merges, splitters(pre_tokenizer)?))
}

/// The steps that split a text into words. The last step maps bytes to characters, and may split by GPT-2's pattern.
fn splitters(json: &Value) -> Result<Vec<Splitter>, String> {
    let steps = match json["type"].as_str() {
        Some("Sequence") => json["pretokenizers"].as_array().map_or(&[][..], Vec::as_slice),
        _ => std::slice::from_ref(json),
    };
    let unsupported = || format!("the pre_tokenizer {} is not supported", shown(json));
    let Some((bytes, cuts)) = steps.split_last() else { return Err(unsupported()) };
    if bytes["type"] != "ByteLevel" || bytes["add_prefix_space"] != false {
        return Err(unsupported());
    }
    if cuts.len() > MAX_CUTS {
        return Err(format!(
            "the pre_tokenizer has {} steps, and {MAX_CUTS} are the most",
            cuts.len()
        ));
    }
    let mut splitters = Vec::new();
    for cut in cuts {
        let pattern = match cut["type"].as_str() {
            Some("Split") if cut["behavior"] == "Isolated" && cut["invert"] == false => {
                let pattern = cut["pattern"]["Regex"].as_str();
                pattern.ok_or("the split pattern is not a regular expression")?
            }
            Some("Digits") if cut["individual_digits"] == true => DIGIT,
            Some("Digits") => DIGITS,
            _ => return Err(unsupported()),
        };
        splitters.push(Splitter::new(pattern)?);
    }
    if bytes["use_regex"].as_bool().unwrap_or(true) {
        splitters.push(Splitter::new(GPT2)?);
    }
    Ok(splitters)
}

/// The ids that the file adds before and after a text.
fn around(json: &Value) -> Result<[Vec<u32>; 2], String> {
    let steps = match json["type"].as_str() {
        Some("Sequence") => json["processors"].as_array().map_or(&[][..], Vec::as_slice),
        _ => std::slice::from_ref(json),
    };
    let Some(template) = steps.iter().find(|step| step["type"] == "TemplateProcessing") else {
        return Ok([Vec::new(), Vec::new()]);
    };
    let mut around = [Vec::new(), Vec::new()];
    let mut side = 0;
    for step in template["single"].as_array().map_or(&[][..], Vec::as_slice) {
        if step.get("Sequence").is_some() {
            side = 1;
            continue;
        }
        let name = step["SpecialToken"]["id"].as_str().unwrap_or_default();
        let ids =
            serde_json::from_value::<Vec<u32>>(template["special_tokens"][name]["ids"].clone());
        around[side]
            .extend(ids.map_err(|_| shortened(&format!("post_processor: {name:?} has no ids")))?);
        if around[side].len() > MAX_AROUND {
            return Err(format!("post_processor puts more than {MAX_AROUND} ids around a text"));
        }
    }
    Ok(around)
}

/// A value as an error shows it.
fn shown(json: &Value) -> String {
    shortened(&json.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::testing::vocab;
    use super::*;

    /// A file with the pattern `[a-z]+`, and an id before and after a text.
    fn file() -> String {
        let file = r#"{"added_tokens": [{"id": 300, "content": "[gMASK]"}, {"id": 301, "content": "<sop>", "rstrip": true}],
            "normalizer": null,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "[a-z]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]},
            "post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[gMASK]"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<sop>"}}],
                "special_tokens": {"[gMASK]": {"ids": [300]}, "<sop>": {"ids": [301]}}}]},
            "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "dropout": null, "byte_fallback": false, "ignore_merges": false, "merges": ["a b", ["ab", "c"]],
                "vocab": VOCAB}}"#;
        file.replace("VOCAB", &vocab(&["ab", "abc", "bc"]))
    }

    fn open(file: &str) -> Result<Tokenizer> {
        Tokenizer::from_files(&[(FILE, file.as_bytes())])
    }

    #[test]
    fn the_file_says_it_all() {
        let t = open(&file()).expect("a sound file");
        let id = |piece: &str| t.id(piece).expect("a piece");
        assert_eq!(t.encode("abcbc").unwrap(), [id("abc"), id("b"), id("c")]);
        assert_eq!(t.encode("a<sop> 1").unwrap(), [id("a"), 301, id("1")]);
        assert_eq!(t.decode(&[300, id("ab"), 301]).unwrap(), "[gMASK]ab<sop>");
        assert_eq!((&t.special().before[..], &t.special().after[..]), (&[300][..], &[301][..]));
        let whole =
            open(&file().replace("\"ignore_merges\": false", "\"ignore_merges\": true")).unwrap();
        assert_eq!(t.encode("bc").unwrap(), [id("b"), id("c")]);
        assert_eq!(whole.encode("bc").unwrap(), [id("bc")]);
    }

    #[test]
    fn digits_may_be_cut_off_before_words_are() {
        let digits = file()
            .replace(r#""type": "Split", "pattern": {"Regex": "[a-z]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false"#, r#""type": "Digits", "individual_digits": true"#)
            .replace("\"use_regex\": false", "\"use_regex\": true")
            .replace("\"bc\": 258", "\"bc\": 258, \"12\": 259")
            .replace("\"a b\"", "\"1 2\", \"a b\"");
        let together =
            digits.replace("\"individual_digits\": true", "\"individual_digits\": false");
        let pieces = |file: &str| {
            let t = open(file).unwrap();
            t.encode("ab12 c")
                .unwrap()
                .iter()
                .map(|&id| t.decode(&[id]).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(pieces(&digits), ["ab", "1", "2", " ", "c"]);
        assert_eq!(pieces(&together), ["ab", "12", " ", "c"]);
    }

    #[test]
    fn what_would_change_ids_is_refused() {
        for (from, to, problem) in [
            ("\"BPE\"", "\"Unigram\"", "a model of type \"Unigram\""),
            ("\"vocab\": {", "\"vocab\": [], \"v\": {", "expected a map"),
            ("\"BPE\",", "\"Unigram\", \"vocab\": [],", "a model of type \"Unigram\""),
            ("\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}", "normalizer"),
            ("\"dropout\": null", "\"dropout\": 0.1", "dropout"),
            ("\"byte_fallback\": false", "\"byte_fallback\": true", "byte_fallback"),
            ("Isolated", "Removed", "pre_tokenizer"),
            (
                "\"Sequence\", \"pretokenizers\"",
                "\"Whitespace\", \"pretokenizers\"",
                "pre_tokenizer",
            ),
            ("[a-z]+", "(?=a)[a-z]+", "split pattern"),
            ("\"decoder\": {\"type\": \"ByteLevel\"}", "\"decoder\": null", "decoder"),
            ("\"a b\"", "\"a x\"", "a merge is not valid"),
            ("\"a b\"", "\"abc abc\"", "merge 0"),
            ("\"a b\"", "5", "a merge of two tokens"),
            ("\"merges\"", "\"m\"", "merges"),
            ("\"abc\": 257", "\"abc\": 256", "same id"),
            ("\"abc\": 257", "\"abc\": -1", "expected u32"),
            ("\"abc\": 257", "\"a c\": 257", "GPT-2's notation"),
            ("\"id\": 300", "\"id\": 99999999", "is not below"),
            ("\"id\": 300", "\"single_word\": true, \"id\": 300", "added_tokens"),
            ("\"ids\": [300]", "\"ids\": 300", "has no ids"),
        ] {
            let file = file();
            assert!(file.contains(from), "{from}");
            let error = open(&file.replacen(from, to, 1)).expect_err(to).to_string();
            assert!(error.starts_with(FILE) && error.contains(problem), "{to}: {error}");
        }
    }

    #[test]
    fn a_text_is_cut_in_so_many_steps_and_no_more() {
        let with = |cuts: usize| {
            let split = r#"{"type": "Split""#;
            let all = r#"{"type": "Digits"}, "#.repeat(cuts - 1) + split;
            open(&file().replacen(split, &all, 1))
        };
        assert!(with(MAX_CUTS).is_ok());
        let error = with(MAX_CUTS + 1).expect_err("a step too many").to_string();
        assert!(error.ends_with("the pre_tokenizer has 9 steps, and 8 are the most"), "{error}");
    }

    #[test]
    fn so_many_ids_are_around_a_text_and_no_more() {
        for (side, name) in ["[gMASK]", "<sop>"].into_iter().enumerate() {
            let step = format!(r#"{{"SpecialToken": {{"id": "{name}"}}}}"#);
            let with = |ids| open(&file().replacen(&step, &vec![&step[..]; ids].join(", "), 1));
            let t = with(MAX_AROUND).expect("as many as there may be");
            assert_eq!([&t.special().before, &t.special().after][side].len(), MAX_AROUND);
            let error = with(MAX_AROUND + 1).expect_err("an id too many").to_string();
            assert!(error.ends_with("puts more than 64 ids around a text"), "{error}");
        }
    }
}
