//! GGUF files: the container, models, tokenizers. Malformed files give an error with a message.

mod common;
#[path = "common/gguf.rs"]
mod writer;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use common::fixture;
use common::runner::{Runner, bits, with};
use glm_model::{
    Activations, Checkpoint, Config, Dtype, Format, Model, Options, QuantizeOptions, Result,
    Template, Tokenizer, quantize,
};
use half::f16;
use proptest::prelude::*;
use tempfile::TempDir;
use writer::{Gguf, Tensor, Value, of_transformers, text};

fn read(file: &Gguf) -> Result<Checkpoint> {
    Checkpoint::from_bytes(Format::Gguf, file.bytes())
}

/// Two tensors and some metadata.
fn small() -> Gguf {
    Gguf::new()
        .with("general.architecture", text("glm4"))
        .with("tokenizer.ggml.tokens", Value::Texts(vec!["a".into(), "bc".into()]))
        .with("numbers", Value::Floats(vec![1.0, 2.0]))
        .tensor(Tensor::new("a", 0, &[2, 3], &[1; 24]))
        .tensor(Tensor::new("b", 2, &[3, 64], &[2; 3 * 36]))
}

#[track_caller]
fn refused(file: &Gguf, problem: &str) {
    let error = read(file).expect_err(problem).to_string();
    assert!(error.starts_with("memory: ") && error.contains(problem), "{error}");
}

#[test]
fn a_valid_file_is_read() {
    for version in [2, 3] {
        let checkpoint = read(&Gguf { version, ..small() }).unwrap();
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
        let [a, b] = ["a", "b"].map(|name| checkpoint.tensor(name).unwrap());
        assert_eq!((a.dtype(), a.shape(), a.bytes()), (Dtype::F32, &[2, 3][..], &[1; 24][..]));
        assert_eq!((b.dtype().to_string(), b.shape()), ("Q4_0".to_owned(), &[3, 64][..]));
        assert_eq!(b.bytes(), [2; 108]);
    }
    let wide = Gguf { alignment: 64, ..small() }.with("general.alignment", Value::U32(64));
    assert_eq!(read(&wide).unwrap().tensor("b").unwrap().bytes(), [2; 108]);
}

#[test]
fn truncated_files_are_refused() {
    let file = small().bytes();
    for len in 0..file.len() {
        Checkpoint::from_bytes(Format::Gguf, file[..len].to_vec()).expect_err("a part of a file");
    }
}

#[test]
fn what_is_wrong_with_a_header_is_said() {
    refused(&Gguf { magic: *b"GGML", ..small() }, "is no GGUF file");
    refused(&Gguf { version: 1, ..small() }, "of version 1, and 2 and 3 are read");
    refused(&Gguf { version: 4, ..small() }, "of version 4, and 2 and 3 are read");
    refused(&Gguf { version: 3 << 24, ..small() }, "is a big-endian GGUF file");
    refused(
        &Gguf { counts: [Some(u64::MAX), None], ..small() },
        "claims 18446744073709551615 tensors",
    );
    refused(&Gguf { counts: [None, Some(1 << 40)], ..small() }, "claims 1099511627776 keys");
    for (alignment, shown) in [(0, "0"), (24, "24"), (4, "4"), (1 << 20, "1048576")] {
        let file = small().with("general.alignment", Value::U32(alignment));
        refused(&file, &format!("must be a power of two from 8 to 65536, found {shown}"));
    }
    let mut twice = small();
    twice.metadata.push(("numbers".to_owned(), Value::Bool(true)));
    refused(&twice, "has the key numbers twice");
    refused(&small().with("", Value::Bool(true)), "a key is called \"\"");
    refused(&small().with("x\n", Value::Bool(true)), "a key is called \"x\\n\"");
    refused(&small().with("x", Value::Raw(7, vec![2])), "x: has a boolean of 2");
    refused(&small().with("x", Value::Raw(13, vec![])), "x: has a value of type 13");
    let raw = |kind: u32, len: u64, rest: &[u8]| {
        let bytes = [&kind.to_le_bytes()[..], &len.to_le_bytes(), rest].concat();
        small().with("x", Value::Raw(9, bytes))
    };
    refused(&raw(8, u64::MAX / 8, &[]), "x: claims 2305843009213693951 elements of an array");
    refused(&raw(12, 1 << 61, &[]), "elements of an array");
    refused(&raw(8, 1, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]), "is not UTF-8");
    refused(&raw(99, 0, &[]), "x: has a value of type 99");
    // An array of one array, and so on.
    let level = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    let deep = |levels: usize| {
        let end = [&0u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat();
        small().with("x", Value::Raw(9, [level.repeat(levels), end].concat()))
    };
    read(&deep(3)).unwrap();
    refused(&deep(4), "x: has arrays in arrays of more than 4 levels");
    refused(&deep(100_000), "x: has arrays in arrays of more than 4 levels");
}

#[test]
fn what_is_wrong_with_a_tensor_is_said() {
    let with = |change: &dyn Fn(&mut Tensor)| {
        let mut file = small();
        change(&mut file.tensors[1]);
        file
    };
    for (file, problem) in [
        (with(&|b| b.name = "a".into()), "tensor a: appears twice"),
        (with(&|b| b.name = String::new()), "a tensor is called \"\""),
        (with(&|b| b.shape = vec![]), "tensor b: has 0 axes"),
        (with(&|b| b.shape = vec![1; 9]), "tensor b: has 9 axes"),
        (with(&|b| b.shape = vec![0, 64]), "tensor b: has an axis of 0"),
        (with(&|b| b.shape = vec![6, 33]), "Q4_0 [6, 33] has rows that are no multiple of 32"),
        (with(&|b| b.shape = vec![1 << 62, 1 << 6]), "is larger than any memory"),
        (with(&|b| b.shape = vec![1 << 63, 32]), "is larger than any memory"),
        (with(&|b| b.code = 10), "tensor b: is of type Q2_K, which is not supported"),
        (with(&|b| b.code = 31), "tensor b: is of type Q4_0_4_4, which is not supported"),
        (with(&|b| b.code = 4), "tensor b: is of type 4, which is not supported"),
        (with(&|b| b.offset = Some(33)), "begins at byte 33 of the data"),
        (with(&|b| b.offset = Some(0)), "shares its bytes with"),
        (with(&|b| b.offset = Some(64)), "takes bytes 64 to 172 of the data, and the file has 140"),
        (
            with(&|b| b.offset = Some(u64::MAX - 31)),
            "tensor b: begins at byte 18446744073709551584",
        ),
    ] {
        refused(&file, problem);
    }
}

proptest! {
    /// Whatever the bytes of the header are, the file is read or refused.
    #[test]
    fn changed_files_are_read_or_refused(changes in proptest::collection::vec((0usize..400, any::<u8>()), 1..4)) {
        let mut file = small().bytes();
        for (at, byte) in changes {
            let at = at % file.len();
            file[at] = byte;
        }
        if let Ok(checkpoint) = Checkpoint::from_bytes(Format::Gguf, file) {
            let bytes = checkpoint.total_bytes();
            prop_assert!(bytes <= 24 + 108, "{bytes}");
        }
    }
}

/// Metadata of the models that are the first layers of published ones.
fn layer(architecture: &str) -> Gguf {
    let (context, eps, base) = match architecture {
        "glm4" => (32768, 1e-5, 10_000.0),
        _ => (131_072, 1.5625e-7, 5_000_000.0),
    };
    let key = |name: &str| format!("{architecture}.{name}");
    Gguf::new()
        .with("general.architecture", text(architecture))
        .with("general.name", text("Tiny 4"))
        .with(&key("context_length"), Value::U32(context))
        .with(&key("embedding_length"), Value::U32(128))
        .with(&key("feed_forward_length"), Value::U32(344))
        .with(&key("block_count"), Value::U32(1))
        .with(&key("attention.head_count"), Value::U32(4))
        .with(&key("attention.head_count_kv"), Value::U32(2))
        .with(&key("attention.layer_norm_rms_epsilon"), Value::F32(eps))
        .with(&key("rope.dimension_count"), Value::U32(16))
        .with(&key("rope.freq_base"), Value::F32(base))
        .with(&key("vocab_size"), Value::U32(9))
        .with("tokenizer.ggml.eos_token_id", Value::U32(0))
}

const LAYERS: [(&str, &str); 2] =
    [("chatglm", "glm-4-9b-chat-hf-layer"), ("glm4", "glm-4-0414-layer")];

/// Writes a file to a new folder.
fn written(file: &Gguf) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, file.bytes()).unwrap();
    (dir, path)
}

fn logits(path: &Path, activations: Activations) -> Vec<u32> {
    let options = with(|options: &mut Options| options.activations = Some(activations));
    let model = Model::open(path, &options).unwrap();
    bits(&Runner::new(&model, 16).all(&[1, 5, 8, 2, 2, 7, 3, 4]))
}

/// The numbers as F16, whose rounding none of them needs.
fn halves(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect()
}

fn bfloats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect()
}

#[test]
fn a_model_has_the_configuration_and_the_logits_of_the_original() {
    for (architecture, name) in LAYERS {
        let original = fixture(name);
        let checkpoint = Checkpoint::open(&original).unwrap();
        let (expected, config) =
            (logits(&original, Activations::F32), Config::open(&original).unwrap());
        let matrices = |name: &str, shape: &[usize]| name.ends_with("weight") && shape.len() == 2;
        let f32s = of_transformers(layer(architecture), &checkpoint, &|_, _, _| None);
        let bf16s = of_transformers(layer(architecture), &checkpoint, &|name, shape, values| {
            matrices(name, shape).then(|| (30, bfloats(values)))
        });
        for file in [f32s, bf16s] {
            let (dir, path) = written(&file);
            assert_eq!(logits(&path, Activations::F32), expected, "{name}");
            assert_eq!(logits(dir.path(), Activations::F32), expected, "{name}");
            let mut own = Config::open(&path).unwrap();
            (own.dialect, own.tied_head) = (config.dialect, config.tied_head);
            assert_eq!(own, config, "{name}");
        }
    }
}

/// Blocks of Q8_0, or of Q4_0 with four bits, by the plain definition.
fn symmetric(values: &[f32], four: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for group in values.chunks(32) {
        let largest =
            group.iter().copied().fold(0.0, |a: f32, b| if b.abs() > a.abs() { b } else { a });
        let scale = f16::from_f32(if four { largest / -8.0 } else { largest.abs() / 127.0 });
        let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
        out.extend(scale.to_le_bytes());
        let q: Vec<_> = group.iter().map(|value| (value * inverse).round()).collect();
        match four {
            true => out.extend((0..16).map(|i| {
                let nibble = |q: f32| (q.clamp(-8.0, 7.0) + 8.0) as u8;
                nibble(q[i]) | nibble(q[i + 16]) << 4
            })),
            false => out.extend(q.iter().map(|q| q.clamp(-127.0, 127.0) as i8 as u8)),
        }
    }
    out
}

/// Whether a matrix gets four bits, or eight; `None` if it is not quantized.
type Choice<'a> = dyn Fn(&str) -> Option<bool> + 'a;

/// A model in Q8_0 or Q4_0, except for columns that are no multiple of 32 and what `other` chooses.
fn quantized(architecture: &str, checkpoint: &Checkpoint, four: &Choice<'_>) -> Gguf {
    of_transformers(layer(architecture), checkpoint, &|name, shape, values| {
        if !name.ends_with("weight") || shape.len() != 2 {
            return None;
        }
        let Some(four) = four(name).filter(|_| shape[1].is_multiple_of(32)) else {
            return Some((1, halves(values)));
        };
        Some((if four { 2 } else { 8 }, symmetric(values, four)))
    })
}

#[test]
fn quantized_models_keep_their_integers_and_scales() {
    for (architecture, name) in LAYERS {
        let checkpoint = Checkpoint::open(fixture(name)).unwrap();
        // As the files of people have them: some layers of one kind have more bits than others.
        let choices: [&Choice<'_>; 3] =
            [&|_| Some(true), &|_| Some(false), &|name| Some(!name.contains("attn_v"))];
        for (index, choice) in choices.into_iter().enumerate() {
            let (_dir, path) = written(&quantized(architecture, &checkpoint, choice));
            let model = Model::open(&path, &Options::default()).unwrap();
            assert!(model.inventory().is_quantized && model.inventory().copied_bytes > 0);
            let qkv = model.inventory().matrices.iter().find(|it| it.shape == [256, 128]).unwrap();
            let format = if index == 0 { "INT4, groups of 32" } else { "INT8, groups of 32" };
            assert_eq!(qkv.format, format, "{name}");
            // The folder that is written gives the same, and is mapped.
            let target = tempfile::tempdir().unwrap();
            let go_on = &mut |_, _, _: &str| ControlFlow::Continue(());
            let done = quantize(&path, target.path(), &QuantizeOptions::default(), go_on).unwrap();
            assert_eq!((done.kept, done.quantized), (5, 0), "{name}");
            let kept = Model::open(target.path(), &Options::default()).unwrap();
            assert_eq!(kept.inventory().copied_bytes, 0, "{name}");
            assert_eq!(kept.config(), model.config());
            for activations in [Activations::F32, Activations::Int8] {
                let (own, other) = (logits(&path, activations), logits(target.path(), activations));
                assert_eq!(own, other, "{name}");
            }
        }
    }
}

#[test]
fn parts_are_one_model() {
    let (architecture, name) = LAYERS[1];
    let checkpoint = Checkpoint::open(fixture(name)).unwrap();
    let whole = of_transformers(layer(architecture), &checkpoint, &|_, _, _| None);
    let dir = tempfile::tempdir().unwrap();
    let path = |number| dir.path().join(format!("tiny-{number:05}-of-00002.gguf"));
    let parts = |numbers: [u16; 2]| {
        let mut tensors = [Vec::new(), Vec::new()];
        for (index, tensor) in whole.tensors.iter().enumerate() {
            tensors[index % 2].push(tensor.clone());
        }
        for (number, tensors) in tensors.into_iter().enumerate() {
            let head = if number == 0 { whole.metadata.clone() } else { Vec::new() };
            let file = Gguf { metadata: head, tensors, ..Gguf::new() }
                .with("split.no", Value::U16(numbers[number]))
                .with("split.count", Value::U16(2));
            fs::write(path(number + 1), file.bytes()).unwrap();
        }
    };
    parts([0, 1]);
    let expected = logits(&fixture(name), Activations::F32);
    for opened in [path(1), path(2), dir.path().to_owned()] {
        assert_eq!(logits(&opened, Activations::F32), expected, "{opened:?}");
    }
    let error = |path: &Path| Checkpoint::open(path).unwrap_err().to_string();
    parts([0, 0]);
    assert!(error(&path(1)).contains("is called part 2 of 2, and its header says otherwise"));
    parts([0, 1]);
    fs::remove_file(path(2)).unwrap();
    let missing = error(&path(1));
    assert!(
        missing.contains("tiny-00002-of-00002.gguf: is missing: it is part 2 of 2"),
        "{missing}"
    );
    let renamed = dir.path().join("tiny.gguf");
    fs::rename(path(1), &renamed).unwrap();
    assert!(error(&renamed).contains("is one of 2 parts, and its name does not end in"));
}

#[test]
fn a_folder_with_several_models_is_refused_and_a_vision_part_is_none() {
    let (dir, path) = written(&layer("glm4"));
    fs::write(dir.path().join("mmproj-F16.gguf"), "GGUF").unwrap();
    Config::open(dir.path()).unwrap();
    fs::copy(&path, dir.path().join("b.gguf")).unwrap();
    let error = Config::open(dir.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("holds several models in GGUF files: name one of b.gguf, model.gguf"),
        "{error}"
    );
    // A published checkpoint goes first.
    fs::write(dir.path().join("model.safetensors"), "").unwrap();
    let error = Config::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("config.json: is missing"), "{error}");
}

#[test]
fn what_cannot_be_run_is_named() {
    for (file, problem) in [
        (
            Gguf::new().with("general.architecture", text("clip")),
            "is the vision part of a model (mmproj)",
        ),
        (
            Gguf::new().with("general.architecture", text("qwen2")),
            "general.architecture is \"qwen2\", and only chatglm",
        ),
        (
            layer("glm4").with("glm4.rope.dimension_sections", Value::Integers(vec![8, 4, 4, 0])),
            "vision model",
        ),
        (
            layer("glm4").with("glm4.rope.scaling.type", text("yarn")),
            "glm4.rope.scaling.type \"yarn\" is not supported",
        ),
        (
            layer("glm4").with("glm4.block_count", Value::U32(0)),
            "glm4.block_count must be an integer from 1",
        ),
        (
            layer("glm4").with("glm4.attention.head_count", Value::U32(3)),
            "no multiple of glm4.attention.head_count 3",
        ),
        (
            layer("glm4").with("glm4.attention.head_count_kv", Value::U32(3)),
            "4 heads cannot share 3",
        ),
        (layer("glm4").with("glm4.rope.dimension_count", Value::U32(15)), "must be even, found 15"),
        (layer("glm4").with("tokenizer.ggml.eos_token_id", Value::U32(9)), "eos_token_id"),
        (Gguf::new(), "model_type is missing"),
    ] {
        let (_dir, path) = written(&file);
        let error = Config::open(&path).expect_err(problem).to_string();
        let start = format!("{}: ", path.display());
        assert!(error.starts_with(&start) && error.contains(problem), "{error}");
    }
}

/// The characters that stand for the bytes from 0 to 255 in GPT-2's notation.
fn byte_tokens() -> Vec<String> {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut others = (0x100..).filter_map(char::from_u32);
    (0..=255)
        .map(|byte| if is_printable(byte) { char::from(byte) } else { others.next().unwrap() })
        .map(String::from)
        .collect()
}

const TEMPLATE: &str =
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}<|assistant|>";

/// A model of which only the tokenizer matters: bytes, `ab`, `abc`, `bc`, a gap, special tokens.
fn bytes_and_words() -> Gguf {
    let (normal, control, user, unused) = (1, 3, 4, 5);
    let mut tokens = byte_tokens();
    let mut types = vec![normal; 256];
    for (token, kind) in [
        ("ab", normal),
        ("abc", normal),
        ("bc", normal),
        ("[PAD259]", unused),
        ("[gMASK]", control),
        ("<sop>", control),
        ("<|user|>", control),
        ("<|assistant|>", control),
        ("<think>", user),
    ] {
        tokens.push(token.to_owned());
        types.push(kind);
    }
    let merges = ["a b", "ab c"].map(str::to_owned).to_vec();
    layer("glm4")
        .with("glm4.vocab_size", Value::U32(270))
        .with("tokenizer.ggml.model", text("gpt2"))
        .with("tokenizer.ggml.pre", text("glm4"))
        .with("tokenizer.ggml.tokens", Value::Texts(tokens))
        .with("tokenizer.ggml.token_type", Value::Integers(types))
        .with("tokenizer.ggml.merges", Value::Texts(merges))
        .with("tokenizer.ggml.eos_token_id", Value::U32(262))
        .with("tokenizer.ggml.eot_token_id", Value::U32(262))
        .with("tokenizer.ggml.eom_token_id", Value::U32(260))
        .with("tokenizer.chat_template", text(TEMPLATE))
}

#[test]
fn tokens_template_and_ends_come_from_the_file() {
    let (_dir, path) = written(&bytes_and_words());
    let tokenizer = Tokenizer::open(&path).unwrap();
    assert_eq!(tokenizer.encode("abc").unwrap(), [257]);
    // A word that is a token stays whole, whatever the merges would make of it.
    assert_eq!(tokenizer.encode("bc").unwrap(), [258]);
    assert_eq!(tokenizer.encode("xabc<|user|> ").unwrap(), [120, 257, 262, 32]);
    assert_eq!(tokenizer.encode("é12").unwrap(), [0xc3, 0xa9, 49, 50]);
    assert_eq!(tokenizer.decode(&[257, 264, 0xe4, 0xbd, 0xa0]).unwrap(), "abc<think>你");
    assert_eq!(tokenizer.special_name(262), Some("<|user|>"));
    assert_eq!(tokenizer.special_name(264), None);
    assert_eq!(tokenizer.special().before, [260, 261]);
    assert_eq!(tokenizer.special().ids.ends, [262]);
    assert_eq!(Config::open(&path).unwrap().special.ends, [262, 260]);
    let template = Template::open(&path, &tokenizer).unwrap();
    assert_eq!(template.name(), "chat_template");
    let messages = [glm_model::Message::new(glm_model::Role::User, "bc")];
    let ids = template.prompt_ids(&tokenizer, &messages).unwrap();
    assert_eq!(ids, [260, 261, 262, 10, 258, 263]);
}

/// The ranks of GLM-4-9B join what the one merge of each token does not.
#[test]
fn ranks_join_what_is_a_token() {
    let file = bytes_and_words().with("tokenizer.ggml.pre", text("chatglm-bpe"));
    let (_dir, path) = written(&file.with("tokenizer.ggml.merges", Value::Texts(vec![])));
    let tokenizer = Tokenizer::open(&path).unwrap();
    for (sentence, ids) in
        [("abc", &[257][..]), ("-bc", &[45, 258]), ("xabc<|user|> ", &[120, 257, 262, 32])]
    {
        assert_eq!(tokenizer.encode(sentence).unwrap(), ids, "{sentence}");
    }
    assert_eq!(
        (tokenizer.special_name(262), tokenizer.special_name(264)),
        (Some("<|user|>"), None)
    );
    assert_eq!(tokenizer.special().before, [260, 261]);
    let template = Template::open(&path, &tokenizer).unwrap();
    assert_eq!(template.name(), "chat_template");
}

#[test]
fn the_folder_of_quantize_has_the_tokenizer() {
    let (architecture, name) = LAYERS[1];
    let checkpoint = Checkpoint::open(fixture(name)).unwrap();
    let file = Gguf { metadata: bytes_and_words().metadata, ..Gguf::new() }
        .with("glm4.vocab_size", Value::U32(9));
    let filled = of_transformers(file, &checkpoint, &|_, _, _| None);
    assert_eq!(architecture, "glm4");
    let (_dir, path) = written(
        &filled
            .with("tokenizer.ggml.eos_token_id", Value::U32(8))
            .with("tokenizer.ggml.eot_token_id", Value::U32(8))
            .with("tokenizer.ggml.eom_token_id", Value::U32(8)),
    );
    let target = tempfile::tempdir().unwrap();
    let go_on = &mut |_, _, _: &str| ControlFlow::Continue(());
    quantize(&path, target.path(), &QuantizeOptions::new(8, 32), go_on).unwrap();
    let [own, other] = [&path, target.path()].map(|path: &Path| Tokenizer::open(path).unwrap());
    let sentence = "abcbc é <|user|>\n";
    assert_eq!(own.encode(sentence).unwrap(), other.encode(sentence).unwrap());
    assert_eq!(own.special(), other.special());
    let [own, other] = [&path, target.path()].map(|path: &Path| Config::open(path).unwrap());
    assert_eq!(own, other);
    assert_eq!(
        Template::open(target.path(), &Tokenizer::open(target.path()).unwrap()).unwrap().name(),
        "chat_template"
    );
}

#[test]
fn what_is_wrong_with_a_vocabulary_is_said() {
    let good = bytes_and_words;
    let tokens = |change: &dyn Fn(&mut Vec<String>)| {
        let file = good();
        let listed = file.metadata.iter().find(|(key, _)| key == "tokenizer.ggml.tokens");
        let Some((_, Value::Texts(tokens))) = listed else { unreachable!() };
        let mut tokens = tokens.clone();
        change(&mut tokens);
        file.clone().with("tokenizer.ggml.tokens", Value::Texts(tokens))
    };
    for (file, problem) in [
        (good().with("tokenizer.ggml.model", text("bert")), "tokenizer.ggml.model Some(\"bert\")"),
        (good().with("tokenizer.ggml.pre", text("qwen2")), "tokenizer.ggml.pre Some(\"qwen2\")"),
        (good().with("tokenizer.ggml.tokens", Value::U32(3)), "tokens is missing, or no list"),
        (good().with("tokenizer.ggml.tokens", Value::Floats(vec![1.0])), "is no list of strings"),
        (good().with("tokenizer.ggml.token_type", Value::Texts(vec![])), "is no list of integers"),
        (
            good().with("tokenizer.ggml.token_type", Value::Integers(vec![1; 3])),
            "265 tokens and 3 types",
        ),
        (
            good().with("tokenizer.ggml.merges", Value::Texts(vec!["a xy".into()])),
            "a merge is not valid",
        ),
        (good().with("tokenizer.ggml.eos_token_id", Value::U32(265)), "is not the id of a token"),
        (tokens(&|tokens| tokens[256] = "a".into()), "the token \"a\" has two ids"),
        (tokens(&|tokens| tokens[256] = "a b".into()), "GPT-2's notation"),
        (
            good()
                .with("tokenizer.ggml.model", text("llama"))
                .with("tokenizer.ggml.pre", text("chatglm-spm")),
            "scores is missing",
        ),
    ] {
        let (_dir, path) = written(&file);
        let error = Tokenizer::open(&path).err().unwrap().to_string();
        assert!(
            error.starts_with(&format!("{}: ", path.display())) && error.contains(problem),
            "{error}"
        );
    }
}

/// A field of a protobuf message with a length.
fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128);
    [&[tag << 3 | 2, bytes.len() as u8], bytes].concat()
}

#[test]
fn the_pieces_of_chatglm3_are_those_of_its_own_file() {
    let words = ["▁", "h", "e", "l", "he", "ll", "▁▁", "hell", "▁he"];
    let mut pieces: Vec<(String, f32, i32)> =
        vec![("<unk>".into(), 0.0, 2), ("<s>".into(), 0.0, 3), ("</s>".into(), 0.0, 3)];
    pieces.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
    pieces.extend((0..).zip(words).map(|(i, word)| (word.into(), -(i as f32), 1)));
    let mut model = Vec::new();
    for (piece, score, kind) in &pieces {
        let number = [&[2 << 3 | 5], &score.to_le_bytes()[..], &[3 << 3, *kind as u8]].concat();
        model.extend(field(1, &[field(1, piece.as_bytes()), number].concat()));
    }
    // BPE with bytes, and blanks that stay.
    model.extend(field(2, &[3 << 3, 2, 0x98, 2, 1]));
    model.extend(field(3, &[3 << 3, 1, 4 << 3, 0]));
    let official = Tokenizer::from_files(&[("tokenizer.model", &model)]).unwrap();

    let special = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"];
    let roles = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"];
    pieces[1].0 = "<bos>".into();
    pieces[2].0 = "<eos>".into();
    pieces.extend(special.into_iter().chain(roles).map(|name| (name.into(), 0.0, 3)));
    pieces.push(("[PAD300]".into(), 0.0, 5));
    let file = |pieces: &[(String, f32, i32)]| {
        layer("chatglm")
            .with("tokenizer.ggml.model", text("llama"))
            .with("tokenizer.ggml.pre", text("chatglm-spm"))
            .with(
                "tokenizer.ggml.tokens",
                Value::Texts(pieces.iter().map(|it| it.0.clone()).collect()),
            )
            .with("tokenizer.ggml.scores", Value::Floats(pieces.iter().map(|it| it.1).collect()))
            .with(
                "tokenizer.ggml.token_type",
                Value::Integers(pieces.iter().map(|it| it.2).collect()),
            )
    };
    let (_dir, path) = written(&file(&pieces));
    let own = Tokenizer::open(&path).unwrap();
    assert_eq!(own.special(), official.special());
    for sentence in ["hell", "  he", "é<|user|>", "hello 你 hell\n"] {
        let ids = official.encode(sentence).unwrap();
        assert_eq!(own.encode(sentence).unwrap(), ids, "{sentence}");
        assert_eq!(own.decode(&ids).unwrap(), sentence);
    }
    assert_eq!(Template::open(&path, &own).unwrap().name(), "chatglm3");
    pieces.swap(270, 271);
    let (_dir, path) = written(&file(&pieces));
    let error = Tokenizer::open(&path).err().unwrap().to_string();
    assert!(error.contains("this is no vocabulary of ChatGLM3"), "{error}");
}

/// The vocabulary of a `tokenizer.json`, as the converter of llama.cpp writes it.
fn of_tokenizer_json(json: &serde_json::Value) -> Gguf {
    let mut tokens = Vec::new();
    let mut put = |id: u64, token: &str, kind: i32| {
        let id = id as usize;
        tokens.resize_with(tokens.len().max(id + 1), || ("[PAD]".to_owned(), 5));
        tokens[id] = (token.to_owned(), kind);
    };
    let vocab = json["model"]["vocab"].as_object().unwrap();
    vocab.iter().for_each(|(token, id)| put(id.as_u64().unwrap(), token, 1));
    for token in json["added_tokens"].as_array().unwrap() {
        let kind = if token["special"] == true { 3 } else { 4 };
        put(token["id"].as_u64().unwrap(), token["content"].as_str().unwrap(), kind);
    }
    let merge = |merge: &serde_json::Value| match merge.as_str() {
        Some(line) => line.to_owned(),
        None => format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()),
    };
    let merges = json["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
    vocabulary(tokens, merges)
}

fn vocabulary(tokens: Vec<(String, i32)>, merges: Vec<String>) -> Gguf {
    let (tokens, types) = tokens.into_iter().unzip();
    layer("glm4")
        .with("tokenizer.ggml.model", text("gpt2"))
        .with("tokenizer.ggml.pre", text("glm4"))
        .with("tokenizer.ggml.tokens", Value::Texts(tokens))
        .with("tokenizer.ggml.token_type", Value::Integers(types))
        .with("tokenizer.ggml.merges", Value::Texts(merges))
}

/// The vocabulary of tiktoken ranks, as the converter of llama.cpp writes it: a merge for each token, by the ranks below its own.
fn of_ranks(ranks: &str, settings: &serde_json::Value) -> Gguf {
    let alphabet = byte_tokens();
    let spell = |bytes: &[u8]| bytes.iter().map(|&byte| &*alphabet[usize::from(byte)]).collect();
    let mut by_bytes = std::collections::HashMap::new();
    for line in ranks.lines() {
        let (token, rank) = line.split_once(' ').unwrap();
        let token = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, token);
        by_bytes.insert(token.unwrap(), rank.parse::<usize>().unwrap());
    }
    let mut tokens = vec![("[PAD]".to_owned(), 5); by_bytes.len()];
    let mut merges = vec![None; by_bytes.len()];
    for (token, &rank) in &by_bytes {
        tokens[rank] = (spell(token), 1);
        let mut parts: Vec<Vec<u8>> = token.iter().map(|&byte| vec![byte]).collect();
        loop {
            let pairs = parts.windows(2).map(|pair| by_bytes.get(&pair.concat()).copied());
            let best = pairs.enumerate().filter_map(|(at, rank)| Some((rank?, at))).min();
            let Some((_, at)) = best.filter(|(best, _)| *best < rank) else { break };
            let right = parts.remove(at + 1);
            parts[at].extend(right);
        }
        if let [left, right] = &parts[..] {
            let [left, right]: [String; 2] = [left, right].map(|part| spell(part));
            merges[rank] = Some(format!("{left} {right}"));
        }
    }
    for (id, token) in settings["added_tokens_decoder"].as_object().unwrap() {
        let id: usize = id.parse().unwrap();
        tokens.resize(tokens.len().max(id + 1), ("[PAD]".to_owned(), 5));
        tokens[id] = (token["content"].as_str().unwrap().to_owned(), 3);
    }
    vocabulary(tokens, merges.into_iter().flatten().collect())
        .with("tokenizer.ggml.pre", text("chatglm-bpe"))
}

#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn published_vocabularies_give_the_recorded_ids() {
    let folder = common::shared().join("fixtures");
    let json = |path: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(folder.join(path)).unwrap()).unwrap()
    };
    let ranks =
        fs::read_to_string(folder.join("tokenizers/glm-4-9b-chat/tokenizer.model")).unwrap();
    for (name, file) in [
        ("glm-4.5", of_tokenizer_json(&json("tokenizers/glm-4.5/tokenizer.json"))),
        (
            "glm-4-9b-chat",
            of_ranks(&ranks, &json("tokenizers/glm-4-9b-chat/tokenizer_config.json")),
        ),
    ] {
        let (_dir, path) = written(&file);
        let tokenizer = Tokenizer::open(&path).unwrap();
        let goldens = json(&format!("tokenizer_goldens/{name}.json"));
        let texts = goldens["texts"].as_array().unwrap();
        assert!(texts.len() > 100);
        for case in texts {
            let sentence = case["text"].as_str().unwrap();
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(tokenizer.encode(sentence).unwrap(), ids, "{name}: {sentence:?}");
        }
    }
}
