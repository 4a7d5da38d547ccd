//! Valid files, and changes of them.

use std::borrow::Cow;
use std::fs;

use glm_model::Checkpoint;
use serde_json::{Map, Value, json};

use crate::forge::{Tensor, dict, pickle, torch};
use crate::writer::{self, byte_tokens, bytes_and_words, of_transformers};
use crate::{Family, Number, Tiny};

/// The first byte of an input that changes a valid file.
const CHANGED: u8 = 0xed;

/// Where most files say what follows.
const HEADER: usize = 4096;

/// The file that an input stands for. One whose first byte is 0xED changes one of the `valid` files, which the second byte chooses: every
/// five bytes that follow are a change. Any other is the file itself.
pub fn changed<'a>(input: &'a [u8], valid: &[Vec<u8>]) -> Cow<'a, [u8]> {
    let [CHANGED, file, changes @ ..] = input else { return Cow::Borrowed(input) };
    let mut file = valid[usize::from(*file) % valid.len()].clone();
    for &[kind, low, middle, high, value] in changes.as_chunks::<5>().0 {
        let reach = if kind < 128 { file.len().min(HEADER) } else { file.len() };
        let at = u32::from_le_bytes([low, middle, high, 0]) as usize % (reach + 1);
        match kind % 4 {
            0 => file[at..].iter_mut().take(1).for_each(|byte| *byte = value),
            // A whole length or offset.
            1 => file[at..].iter_mut().take(8).for_each(|byte| *byte = value),
            2 => file.insert(at, value),
            _ => drop(file.drain(at..file.len().min(at + usize::from(value)))),
        }
    }
    Cow::Owned(file)
}

/// An archive of torch with two tensors.
pub fn torch_archive() -> Vec<u8> {
    let (storage, key) = ("FloatStorage", "0");
    let whole = Tensor { storage, key, numel: 6, offset: 0, shape: &[2, 3], strides: &[3, 1] };
    let (storage, key) = ("HalfStorage", "1");
    let part = Tensor { storage, key, numel: 4, offset: 1, shape: &[3], strides: &[1] };
    let tensors = dict(&[("a.weight", whole), ("b", part)]);
    torch(&pickle(&[&tensors]), &[("0", &[0; 24]), ("1", &[0; 8])])
}

/// The pieces of a small tokenizer, in the format of SentencePiece.
pub fn pieces() -> Vec<u8> {
    let folder = Family::ChatGlm3.folder();
    fs::read(folder.path().join("tokenizer.model")).expect("the tokenizer of a model")
}

/// Files by their names.
pub type Files = Vec<(&'static str, Vec<u8>)>;

/// Small tokenizers of bytes and merges: of tiktoken, of GPT-2, and of transformers.
pub fn byte_level() -> [Files; 3] {
    let folder = Family::Glm4.folder();
    let file = |name: &'static str| {
        (name, fs::read(folder.path().join(name)).expect("the tokenizer of a model"))
    };
    let tokens = byte_tokens().into_iter().chain(["ab", "abc", "\u{120}a"].map(str::to_owned));
    let vocab: Map<_, _> = tokens.zip(0..).map(|(token, id)| (token, json!(id))).collect();
    let added = json!({ "[CLS]": 300, "[MASK]": 301, "<|endoftext|>": 302, "<|startofpiece|>": 303, "<|endofpiece|>": 304 });
    let special = json!({ "id": 259, "content": "[MASK]", "single_word": false, "lstrip": true, "rstrip": false,
        "normalized": false, "special": true });
    let split = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    // What says most comes first, where most changes are.
    let transformers = format!(
        r#"{{"added_tokens": [{special}], "pre_tokenizer": {{"type": "Sequence", "pretokenizers": [
        {{"type": "Split", "pattern": {{"Regex": {}}}, "behavior": "Isolated", "invert": false}},
        {{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}}]}},
        "decoder": {{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true}},
        "model": {{"type": "BPE", "merges": ["a b", "ab c", "\u0120 a"], "vocab": {}}}}}"#,
        json!(split),
        Value::Object(vocab.clone()),
    );
    [
        vec![file("tokenizer.model"), file("tokenizer_config.json")],
        vec![
            ("added_tokens.json", added.to_string().into()),
            ("merges.txt", "a b\nab c\n\u{120} a\n".into()),
            ("vocab.json", Value::Object(vocab).to_string().into()),
        ],
        vec![("tokenizer.json", transformers.into())],
    ]
}

/// A GGUF file with a small model of GLM-4-0414 and a tokenizer.
pub fn gguf() -> Vec<u8> {
    let model = Tiny { output_norms: true, tied_head: false, number: Number::F32 };
    let folder = tempfile::tempdir().expect("a folder");
    Tiny::write(folder.path(), &model.config(), &model.tensors(Tiny::usual)).expect("a model");
    let checkpoint = Checkpoint::open(folder.path()).expect("its weights");
    let mut file = bytes_and_words();
    for (key, value) in [
        ("embedding_length", Tiny::HIDDEN),
        ("feed_forward_length", Tiny::INNER),
        ("attention.head_count", Tiny::HEADS),
        ("attention.head_count_kv", Tiny::KV_HEADS),
        ("rope.dimension_count", Tiny::HEAD / 2),
        ("vocab_size", Tiny::VOCAB),
    ] {
        file = file.with(&format!("glm4.{key}"), writer::Value::U32(value as u32));
    }
    for key in ["eos", "eot", "eom"] {
        file = file.with(&format!("tokenizer.ggml.{key}_token_id"), writer::Value::U32(8));
    }
    of_transformers(file, &checkpoint, &|_, _, _| None).bytes()
}
