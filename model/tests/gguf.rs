//! GGUF files: the container and models. Malformed files give an error with a message.

mod common;
#[path = "common/gguf.rs"]
mod writer;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use common::fixture;
use common::runner::{Runner, bits, with};
use glm_model::{
    Activations, Checkpoint, Config, Dtype, Format, Model, Options, QuantizeOptions, Result, Rope,
    quantize,
};
use half::f16;
use proptest::prelude::*;
use writer::{Gguf, LAYERS, Tensor, Value, layer, of_transformers, text, written};

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

/// A few bytes of a file are many in memory.
#[test]
fn keys_and_tensors_are_bounded() {
    let with_keys = |keys: usize| {
        let metadata = (0..keys).map(|key| (format!("k{key}"), Value::Bool(true))).collect();
        Gguf { metadata, ..Gguf::new() }
    };
    read(&with_keys(1024)).unwrap();
    refused(&with_keys(1025), "has more than 1024 keys");
    let with_tensors = |from: usize, tensors: usize| {
        let tensor = |n: usize| Tensor::new(&format!("t{}", from + n), 24, &[1], &[0]);
        let file = Gguf { alignment: 8, ..Gguf::new() };
        let file = file.with("general.alignment", Value::U32(8));
        Gguf { tensors: (0..tensors).map(tensor).collect(), ..file }
    };
    read(&with_tensors(0, 65536)).unwrap();
    refused(&with_tensors(0, 65537), "has more than 65536 tensors");
    // The parts of a model have them together.
    let dir = tempfile::tempdir().unwrap();
    let open = |tensors: usize| {
        for part in 0..2 {
            let file = with_tensors(part * 65536, if part == 0 { 65536 - 7 } else { tensors })
                .with("split.no", Value::U16(part as u16))
                .with("split.count", Value::U16(2));
            let name = format!("m-0000{}-of-00002.gguf", part + 1);
            fs::write(dir.path().join(name), file.bytes()).unwrap();
        }
        Checkpoint::open(dir.path().join("m-00001-of-00002.gguf"))
    };
    open(7).unwrap();
    let error = open(8).unwrap_err().to_string();
    assert!(error.contains("has more than 65536 tensors in its parts so far"), "{error}");
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
            layer("glm4").with("glm4.rope.scaling.type", text("yarn")),
            "glm4.rope.scaling.type \"yarn\" is not supported",
        ),
        (
            layer("glm4").with("glm4.rope.scaling.type", Value::U32(1)),
            "glm4.rope.scaling.type 1 is not supported",
        ),
        (
            layer("glm4").with("glm4.rope.scaling.factor", Value::F32(-2.0)),
            "glm4.rope.scaling.factor must be a positive number, found -2.0",
        ),
        // Not taken for missing, which has a default.
        (
            layer("glm4").with("glm4.rope.freq_base", Value::F32(f32::INFINITY)),
            "glm4.rope.freq_base must be a positive number, found \"inf\"",
        ),
        (
            layer("glm4").with("glm4.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN)),
            "epsilon must be a positive number, found \"NaN\"",
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
        // Lists are not taken for missing, whatever their length and type.
        (
            layer("glm4").with("glm4.attention.head_count_kv", Value::Integers(vec![2; 40])),
            "glm4.attention.head_count_kv must be an integer from 1",
        ),
        (
            layer("glm4").with("glm4.attention.head_count_kv", Value::Integers(vec![2; 2000])),
            "found \"a list of 2000 values\"",
        ),
        (
            layer("glm4").with("glm4.rope.dimension_sections", Value::Floats(vec![4.0, 2.0, 2.0])),
            "glm4.rope.dimension_sections must be a list of at most 4 integers from 0, found \"a list of 3 values\"",
        ),
        (
            layer("glm4").with("glm4.rope.dimension_sections", Value::Integers(vec![2; 9])),
            "must be a list of at most 4 integers from 0, found [2,2,2,2,2,2,2,2,2]",
        ),
        (
            layer("glm4").with("glm4.rope.dimension_sections", Value::Integers(vec![4, -2, 2])),
            "found [4,-2,2]",
        ),
        (layer("glm4").with("glm4.rope.dimension_sections", Value::U32(4)), "found 4"),
        (
            layer("chatglm").with("chatglm.rope.dimension_sections", Value::Integers(vec![4, 2])),
            "chatglm.rope.dimension_sections is not supported for this architecture",
        ),
        (
            layer("glm4").with("glm4.rope.scaling.attn_factor", Value::F32(2.0)),
            "glm4.rope.scaling.attn_factor 2.0 is not supported, only 1",
        ),
        (
            layer("glm4").with("glm4.nextn_predict_layers", Value::U32(1)),
            "glm4.nextn_predict_layers 1 is not supported, only 0",
        ),
        (layer("glm4").with("glm4.rope.dimension_count", Value::U32(15)), "must be even, found 15"),
        (layer("glm4").with("tokenizer.ggml.eos_token_id", Value::U32(9)), "from 0 to 8, found 9"),
        (Gguf::new(), "model_type is missing"),
    ] {
        let (_dir, path) = written(&file);
        let error = Config::open(&path).expect_err(problem).to_string();
        let start = format!("{}: ", path.display());
        assert!(error.starts_with(&start) && error.contains(problem), "{error}");
    }
}

#[test]
fn a_weight_that_cannot_be_quantized_is_named_in_its_own_tensor() {
    let (architecture, name) = LAYERS[1];
    let checkpoint = Checkpoint::open(fixture(name)).unwrap();
    let file = of_transformers(layer(architecture), &checkpoint, &|name, _, values| {
        let mut values = values.to_vec();
        let is_key = name == "blk.0.attn_k.weight";
        // The keys are in one matrix with the queries before them.
        is_key.then(|| {
            values[2 * 128 + 5] = f32::NAN;
            (0, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        })
    });
    let ((_dir, path), target) = (written(&file), tempfile::tempdir().unwrap());
    let go_on = &mut |_, _, _: &str| ControlFlow::Continue(());
    let options = QuantizeOptions::new(8, 32);
    let error = quantize(&path, target.path(), &options, go_on).unwrap_err().to_string();
    let expected = "tensor blk.0.attn_k.weight: [2, 5] is NaN, which cannot be quantized";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn special_ids_that_are_none_of_the_model_are_left_out() {
    let key = |name: &str| format!("tokenizer.ggml.{name}_token_id");
    let mut file = layer("glm4").with(&key("eos"), Value::U32(9)).with(&key("eom"), Value::U32(7));
    for name in ["bos", "padding", "unknown", "eot"] {
        file = file.with(&key(name), Value::U32(u32::MAX));
    }
    let (_dir, path) = written(&file);
    assert_eq!(Config::open(&path).unwrap().special.ends, [7]);
}

#[test]
fn the_vocabulary_says_which_model_it_is_and_then_its_name() {
    for (architecture, vocabulary, name, expected) in [
        ("chatglm", "llama", "model", "ChatGLM3-6B"),
        ("chatglm", "llama", "GLM-4 from ChatGLM3", "ChatGLM3-6B"),
        ("chatglm", "llama", "codegeex2-6b", "CodeGeeX2-6B"),
        ("chatglm", "gpt2", "model", "GLM-4"),
        ("chatglm", "gpt2", "chatglm3 successor", "GLM-4"),
        ("chatglm", "gpt2", "glm edge 4b chat", "GLM-Edge"),
        ("glm4", "gpt2", "GLM-4 32B", "GLM-4-0414"),
        ("glm4", "gpt2", "GLM Z1 9B", "GLM-Z1"),
    ] {
        let file = layer(architecture).with("general.name", text(name));
        let (_dir, path) = written(&file.with("tokenizer.ggml.model", text(vocabulary)));
        assert_eq!(Config::open(&path).unwrap().architecture, expected, "{vocabulary} {name}");
    }
}

#[test]
fn linear_scaling_divides_the_positions() {
    let factor = |file: &Gguf| match Config::open(&written(file).1).unwrap().rope {
        Rope::Interleaved { scaling_factor, .. } => scaling_factor,
        other => panic!("{other:?}"),
    };
    let with = |name: &str, value: Value| layer("glm4").with(&format!("glm4.rope.{name}"), value);
    let four = || Value::F32(4.0);
    assert_eq!(factor(&layer("glm4")), 1.0);
    assert_eq!(factor(&with("scaling.factor", four())), 4.0);
    assert_eq!(factor(&with("scale_linear", four())), 4.0);
    assert_eq!(factor(&with("scaling.factor", Value::F32(0.0))), 1.0);
    let typed =
        |kind: &str| with("scaling.factor", four()).with("glm4.rope.scaling.type", text(kind));
    assert_eq!([factor(&typed("linear")), factor(&typed("none"))], [4.0, 1.0]);
}

/// As in llama.cpp, which looks at the first two.
#[test]
fn sections_say_which_values_are_rotated_together() {
    for (sections, is_halves) in [
        (&[4, 2, 2, 0][..], true),
        (&[8, 12, 12], true),
        (&[1, 1], true),
        (&[0, 2, 2, 0], false),
        (&[8, 0, 0, 0], false),
        (&[8], false),
        (&[], false),
    ] {
        let sections = Value::Integers(sections.to_vec());
        let file = layer("glm4").with("glm4.rope.dimension_sections", sections);
        let file = file.with("glm4.rope.scaling.attn_factor", Value::F32(1.0));
        let rope = Config::open(written(&file).1).unwrap().rope;
        let found = matches!(rope, Rope::Halves { rotary_dim: 16, .. });
        assert_eq!(found, is_halves, "{rope:?}");
        assert!(found || matches!(rope, Rope::Interleaved { rotary_dim: 16, .. }), "{rope:?}");
    }
}

/// The rows of a query or key, or its biases, as the converter puts them into order for vision models: of each head, the rotated ones of
/// even numbers, then those of odd numbers, then the rest.
fn in_halves(values: &[f32], cols: usize) -> Vec<f32> {
    const ROTATED: usize = 16;
    const HEAD: usize = 32;
    let rows: Vec<_> = values.chunks_exact(cols).collect();
    let of_head = |head: &[&[f32]]| {
        let even = (0..ROTATED).step_by(2);
        let order = even.chain((1..ROTATED).step_by(2)).chain(ROTATED..HEAD);
        order.flat_map(|row| head[row].to_vec()).collect::<Vec<_>>()
    };
    rows.chunks_exact(HEAD).flat_map(of_head).collect()
}

#[test]
fn the_text_part_of_a_vision_model_gives_the_logits_of_the_original() {
    let (architecture, name) = LAYERS[1];
    let checkpoint = Checkpoint::open(fixture(name)).unwrap();
    let sections = Value::Integers(vec![4, 2, 2, 0]);
    let file = layer(architecture).with("glm4.rope.dimension_sections", sections);
    let file = of_transformers(file, &checkpoint, &|name, shape, values| {
        let is_rotated = name.contains("attn_q.") || name.contains("attn_k.");
        let cols = if shape.len() == 2 { shape[1] } else { 1 };
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        is_rotated.then(|| (0, bytes(&in_halves(values, cols))))
    });
    let (_dir, path) = written(&file);
    let floats = |bits: Vec<u32>| bits.into_iter().map(f32::from_bits).collect::<Vec<_>>();
    let [own, expected] =
        [&path, &fixture(name)].map(|path| floats(logits(path, Activations::F32)));
    // The products of a head are summed in another order.
    let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    for (own, expected) in own.iter().zip(&expected) {
        assert!((own - expected).abs() <= 1e-5 * largest, "{own} {expected}");
    }
}
