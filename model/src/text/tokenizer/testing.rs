//! Small tokenizers for tests: one with every kind of piece, and one of each kind of tokenizer.

use super::Tokenizer;
use super::sentencepiece::{ModelProto, NormalizerSpec, PieceProto, TrainerSpec};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use std::sync::LazyLock;

const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const BYTE: i32 = 6;

const WORDS: [&str; 32] = [
    "▁", ",", ".", "?", "!", "'", "a", "b", "c", "▁a", "▁b", "ab", "▁ab", "n", "t", "'t", "▁n",
    "▁'", "▁.", "▁,", "<", ">", "|", "n>", "▁hello", "▁world", "你", "你好", "好", "世界", "[",
    "]",
];

pub(super) fn piece(text: &str, score: f32, kind: i32) -> PieceProto {
    PieceProto { piece: Some(text.into()), score: Some(score), kind: Some(kind) }
}

/// The model of ChatGLM-6B with fewer words. The order is the same: `<unk>`, `<s>`, `</s>`, `<pad>`, `<n>`, words, special
/// pieces, blanks, bytes.
pub(super) fn proto() -> ModelProto {
    let mut pieces = vec![piece("<unk>", 0.0, UNKNOWN)];
    pieces.extend(["<s>", "</s>", "<pad>"].map(|text| piece(text, 0.0, CONTROL)));
    pieces.push(piece("<n>", 0.0, USER_DEFINED));
    pieces.extend(
        WORDS.iter().zip(0_u8..).map(|(word, i)| piece(word, -3.0 - f32::from(i) / 8.0, 1)),
    );
    pieces.extend(
        ["[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"].map(|text| piece(text, 0.0, CONTROL)),
    );
    pieces.push(piece("<|tab|>", 0.0, USER_DEFINED));
    pieces.extend((2..=80).map(|n| piece(&format!("<|blank_{n}|>"), 0.0, USER_DEFINED)));
    pieces.extend((0..=255).map(|b| piece(&format!("<0x{b:02X}>"), 0.0, BYTE)));
    let trainer =
        TrainerSpec { model_type: Some(1), byte_fallback: Some(true), ..TrainerSpec::default() };
    ModelProto { pieces, trainer: Some(trainer), normalizer: Some(NormalizerSpec::default()) }
}

pub(crate) fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
        Tokenizer::from_files(&[("ice_text.model", &proto().encode_to_vec())])
            .expect("a sound model")
    });
    &TOKENIZER
}

pub(crate) fn byte_id(byte: u8) -> u32 {
    tokenizer().id(&format!("<0x{byte:02X}>")).expect("every byte has a piece")
}

/// A BPE model like that of ChatGLM2: blanks are kept, and characters without a piece become bytes. Earlier pieces have
/// higher scores.
pub(super) fn bpe_proto(words: &[&str]) -> ModelProto {
    let mut pieces = vec![piece("<unk>", 0.0, UNKNOWN)];
    pieces.extend(["<s>", "</s>"].map(|text| piece(text, 0.0, CONTROL)));
    pieces.extend((0..=255).map(|b| piece(&format!("<0x{b:02X}>"), 0.0, BYTE)));
    pieces.extend(words.iter().zip(0_u8..).map(|(word, i)| piece(word, -f32::from(i), 1)));
    let trainer =
        TrainerSpec { model_type: Some(2), byte_fallback: Some(true), ..TrainerSpec::default() };
    let blanks =
        NormalizerSpec { remove_extra_whitespaces: Some(false), ..NormalizerSpec::default() };
    ModelProto { pieces, trainer: Some(trainer), normalizer: Some(blanks) }
}

/// A `vocab.json` of all bytes, followed by these tokens.
pub(crate) fn vocab(more: &[&str]) -> String {
    let alphabet = ('\0'..'\u{200}').filter(|&c| super::gpt2::byte(c).is_some());
    let tokens = alphabet.map(String::from).chain(more.iter().map(|&token| token.to_owned()));
    let vocab: Vec<_> = (0..)
        .zip(tokens)
        .map(|(id, token)| format!("{}: {id}", serde_json::json!(token)))
        .collect();
    format!("{{{}}}", vocab.join(", "))
}

/// Files by their names.
pub(crate) type Files = Vec<(&'static str, Vec<u8>)>;

pub(crate) fn open(files: &Files) -> Result<Tokenizer, crate::Error> {
    let files: Vec<_> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    Tokenizer::from_files(&files)
}

/// A small model folder for each kind of tokenizer.
pub(crate) fn folders() -> [Files; 6] {
    let words = ["▁", "a", "b", "▁a", "ab", "▁ab", "▁▁", "你"];
    let bpe = bpe_proto(&words).encode_to_vec();
    let mut chinese = bpe_proto(&words);
    chinese.normalizer = Some(NormalizerSpec::default());
    let merges = b"a b\n\xc4\xa0 a\n\xc4\xa0a b\n".to_vec();
    let vocab = vocab(&["ab", "Ġa", "Ġab"]);
    let added = br#"{"[CLS]": 600, "<|startofpiece|>": 601, "<|endofpiece|>": 602, "[MASK]": 603,
        "<|endoftext|>": 604}"#
        .to_vec();
    let token = r#"{"id": 600, "content": "[MASK]", "single_word": false, "lstrip": true, "rstrip": false,
        "normalized": false, "special": true}"#;
    // The crate `tokenizers` gives an added token the first id that is free, whatever the file says.
    let next = token.replace("600", "259");
    let json = format!(
        r#"{{"model": {{"type": "BPE", "vocab": {vocab}, "merges": ["a b", "Ġ a"]}},
        "decoder": {{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true}}, "added_tokens": [{next}],
        "pre_tokenizer": {{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true}}}}"#
    );
    let english_added = added.clone();
    let line = |(id, token): (u32, Vec<u8>)| format!("{} {id}\n", STANDARD.encode(token));
    let tokens =
        (0..=255).map(|b| vec![b]).chain(["ab", " a", "abc"].map(|t| t.as_bytes().to_vec()));
    let ranks: String = (0..).zip(tokens).map(line).collect();
    let special = format!(r#"{{"added_tokens_decoder": {{"600": {token}}}}}"#);
    [
        vec![("ice_text.model", proto().encode_to_vec())],
        vec![("tokenizer.model", bpe)],
        vec![("cog-pretrain.model", chinese.encode_to_vec()), ("added_tokens.json", added)],
        vec![("tokenizer.model", ranks.into()), ("tokenizer_config.json", special.into())],
        vec![
            ("vocab.json", vocab.into()),
            ("merges.txt", merges),
            ("added_tokens.json", english_added),
        ],
        vec![("tokenizer.json", json.into())],
    ]
}

/// A tokenizer of each kind.
pub(crate) fn tokenizers() -> &'static [Tokenizer] {
    static TOKENIZERS: LazyLock<Vec<Tokenizer>> =
        LazyLock::new(|| folders().iter().map(|files| open(files).expect("sound files")).collect());
    &TOKENIZERS
}
