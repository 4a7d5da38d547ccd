//! Directories in the layout of the kernels: writing with `quantize`, and reading.

mod common;
#[path = "common/forge.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod forge;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use common::fixture;
use glm_model::{
    Activations, Checkpoint, Chunk, Config, Error, GROUPS, Model, Options, QuantizeOptions,
    RunOptions, quantize,
};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

fn quantized(bits: usize, group: usize) -> TempDir {
    quantized_as(&QuantizeOptions::new(bits, group))
}

fn with_minimum(bits: usize, group: usize) -> QuantizeOptions {
    let mut options = QuantizeOptions::new(bits, group);
    options.minimum = true;
    options
}

fn quantized_as(options: &QuantizeOptions) -> TempDir {
    let target = tempfile::tempdir().unwrap();
    let source = fixture("chatglm-6b-tiny/bin-f16");
    let mut options = options.clone();
    options.threads = Some(2);
    quantize(&source, target.path(), &options, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
    target
}

fn logits(dir: &Path, activations: Activations) -> Vec<f32> {
    let mut options = Options::default();
    (options.threads, options.activations) = (Some(2), Some(activations));
    let model = Model::open(dir, &options).unwrap();
    let ids: Vec<u32> = (0..40).map(|i| i * 7 % 300).chain([301, 304, 12, 13]).collect();
    let (mut sequence, mut workspace) = (model.sequence(None).unwrap(), model.workspace().unwrap());
    let mut chunks = [Chunk::all(&mut sequence, &ids)];
    let logits = model.run(&mut workspace, &mut chunks, RunOptions::default()).unwrap();
    logits.chunk(0).flatten().copied().collect()
}

fn relative_error(logits: &[f32], exact: &[f32]) -> f32 {
    let error: f32 = logits.iter().zip(exact).map(|(l, e)| (l - e) * (l - e)).sum();
    (error / exact.iter().map(|e| e * e).sum::<f32>()).sqrt()
}

/// Error of the logits of this random model after quantization, relative RMS, measured: 8 bits 0.011 and 0.013, 4 bits 0.179,
/// 0.199 and 0.202. (Its embedding and head are as wide as its other weights; trained weights have a far smaller error.)
#[test]
fn more_bits_and_smaller_groups_reduce_the_error() {
    let exact = logits(&fixture("chatglm-6b-tiny/bin-f16"), Activations::F32);
    let mut last = 0.0;
    for (bits, group, bound) in
        [(8, 32, 0.012), (8, 128, 0.014), (4, 32, 0.19), (4, 64, 0.21), (4, 128, 0.22)]
    {
        let target = quantized(bits, group);
        let error = relative_error(&logits(target.path(), Activations::F32), &exact);
        println!("{bits} bits, groups of {group}: {error:.4}");
        assert!(error < bound && error > last, "{bits} bits, groups of {group}: {error}");
        last = error;
        let int8 = relative_error(&logits(target.path(), Activations::Int8), &exact);
        assert!(int8 < error + 0.02, "{bits} bits, groups of {group}, 8-bit activations: {int8}");
    }
}

/// Measured, as above: 0.142, 0.164 and 0.173.
#[test]
fn a_minimum_reduces_the_error() {
    let exact = logits(&fixture("chatglm-6b-tiny/bin-f16"), Activations::F32);
    for group in [32, 64, 128] {
        let without = quantized(4, group);
        let without = relative_error(&logits(without.path(), Activations::F32), &exact);
        let target = quantized_as(&with_minimum(4, group));
        let error = relative_error(&logits(target.path(), Activations::F32), &exact);
        println!("groups of {group}: {error:.4}, without a minimum {without:.4}");
        assert!(error < 0.95 * without, "groups of {group}: {error} {without}");
        let int8 = relative_error(&logits(target.path(), Activations::Int8), &exact);
        assert!(int8 < error + 0.02, "groups of {group}, 8-bit activations: {int8}");
        let info = Model::open(target.path(), &Options::default()).unwrap().inventory().clone();
        let formats: Vec<_> = info.matrices.iter().map(|matrix| &matrix.format).collect();
        assert!(
            formats.iter().all(|format| format.starts_with("INT4 with minimum")),
            "{formats:?}"
        );
    }
}

#[test]
fn files_are_mapped_without_copies() {
    let target = quantized(4, 32);
    let bytes = fs::read(target.path().join("model.safetensors")).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!((header + 8) % 64, 0);
    for (name, info) in metadata.tensors() {
        if name.ends_with("weight") && info.shape.len() == 3 {
            assert_eq!(info.data_offsets.0 % 64, 0, "{name}");
        }
    }
    let names: Vec<_> =
        fs::read_dir(target.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let checkpoint = Checkpoint::open(target.path()).unwrap();
    assert_eq!(checkpoint.metadata()["glm.layout"], "panels-1");
}

/// Replaces text in the header by text of the same length.
fn change_header(dir: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let path = dir.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).expect("in the header");
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(&path, bytes).unwrap();
}

/// A matrix is described by the shapes of its tensors; the metadata need not say the group.
#[test]
fn shapes_alone_give_the_group() {
    let plain = [4, 8].iter().flat_map(|&bits| GROUPS.map(|n| QuantizeOptions::new(bits, n)));
    for options in plain.chain(GROUPS.map(|group| with_minimum(4, group))) {
        let target = quantized_as(&options);
        let expected = logits(target.path(), Activations::Int8);
        change_header(target.path(), "\"glm.group\"", "\"glm.other\"");
        assert!(logits(target.path(), Activations::Int8) == expected, "{options:?}");
    }
    // A scale a row.
    let target = tempfile::tempdir().unwrap();
    let options = QuantizeOptions::default();
    quantize(fixture("chatglm-6b-tiny/int4"), target.path(), &options, &mut |_, _, _| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let expected = logits(target.path(), Activations::Int8);
    change_header(target.path(), "\"glm.group\"", "\"glm.other\"");
    assert!(logits(target.path(), Activations::Int8) == expected, "a scale a row");
}

/// Weights of eight bits are rotated, and the layout says so. A file that says otherwise gives other numbers.
#[test]
fn eight_bits_are_rotated() {
    let source = fixture("chatglm-6b-tiny/bin-f16");
    let exact = logits(&source, Activations::F32);
    for group in GROUPS {
        let target = quantized(8, group);
        let layout = Checkpoint::open(target.path()).unwrap().metadata()["glm.layout"].clone();
        assert_eq!(layout, "panels-2", "{group}");
        let model = Model::open(target.path(), &Options::default()).unwrap();
        for matrix in &model.inventory().matrices {
            let of_a_row = matrix.format == "INT8 rotated, a scale a row";
            let grouped = matrix.format == format!("INT8 rotated, groups of {group}");
            assert!(of_a_row || grouped, "{}", matrix.format);
        }
        for activations in [Activations::F32, Activations::Int8] {
            let error = relative_error(&logits(target.path(), activations), &exact);
            assert!(error < 0.03, "{group}, {activations:?}: {error}");
        }
        change_header(target.path(), "panels-2", "panels-1");
        for activations in [Activations::F32, Activations::Int8] {
            let error = relative_error(&logits(target.path(), activations), &exact);
            assert!(error > 0.3, "{group}, {activations:?}: {error}");
        }
    }
}

#[test]
fn invalid_layouts_are_refused() {
    for (from, to, expected) in [
        (
            "panels-1",
            "panels-9",
            "layout \"panels-9\", and this version reads \"panels-1\", \"panels-2\", \"panels-3\"",
        ),
        ("\"glm.group\":\"32\"", "\"glm.group\":\"64\"", "weight_scale: expected F16"),
        (
            "\"glm.group\":\"32\"",
            "\"glm.group\":\"33\"",
            "glm.group must be 32, 64, 128 or row, found 33",
        ),
        (
            "[48,4,128]",
            "[4,48,128]",
            "query_key_value.weight: expected U8 [48, 4, 128], found U8 [4, 48, 128]",
        ),
        (
            "\"dtype\":\"F16\",\"shape\":[48,4,8]",
            "\"dtype\":\"I16\",\"shape\":[48,4,8]",
            "expected F16",
        ),
        (
            "layers.2.mlp.dense_h_to_4h.bias",
            "layers.3.mlp.dense_h_to_4h.bias",
            "dense_h_to_4h.bias",
        ),
    ] {
        let target = quantized(4, 32);
        change_header(target.path(), from, to);
        let error = Model::open(target.path(), &Options::default()).err().expect("an error");
        let error = error.to_string();
        assert!(error.contains(expected), "{from} → {to}: {error}");
    }
    for (from, to) in [("[48,4,2,8]", "[48,2,4,8]"), ("[48,4,2,8]", "[48,4,8,2]")] {
        let target = quantized_as(&with_minimum(4, 32));
        change_header(target.path(), from, to);
        let error = Model::open(target.path(), &Options::default()).err().expect("an error");
        assert!(error.to_string().contains("weight_scale: expected F16 [48, 4, 2, 8]"), "{error}");
    }
}

#[test]
fn quantized_directories_are_not_quantized_again_or_overwritten() {
    let target = quantized(4, 32);
    let elsewhere = tempfile::tempdir().unwrap();
    let run = |source: &Path, target: &Path, options: &QuantizeOptions| {
        quantize(source, target, options, &mut |_, _, _| ControlFlow::Continue(())).unwrap_err()
    };
    let default = QuantizeOptions::default();
    let again = run(target.path(), elsewhere.path(), &default).to_string();
    assert!(again.contains("in the kernels' layout already"), "{again}");
    let source = fixture("chatglm-6b-tiny/bin-f16");
    let before = fs::read(target.path().join("model.safetensors")).unwrap();
    let over = run(&source, target.path(), &default).to_string();
    assert!(over.contains("already: remove it, or name another folder"), "{over}");
    assert_eq!(fs::read(target.path().join("model.safetensors")).unwrap(), before);
    let options = [(5, 32), (4, 48)].map(|(bits, group)| QuantizeOptions::new(bits, group));
    for options in options.into_iter().chain([with_minimum(8, 32)]) {
        assert!(matches!(run(&source, elsewhere.path(), &options), Error::Setting { .. }));
    }
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

/// A dangling link is not followed, and files of others are refused.
#[test]
fn only_empty_directories_are_written() {
    let source = fixture("chatglm-6b-tiny/bin-f16");
    let options = QuantizeOptions::default();
    for name in ["config.json", "ice_text.model", "pytorch_model.bin.index.json"] {
        let target = tempfile::tempdir().unwrap();
        let elsewhere = target.path().join("elsewhere");
        #[cfg(unix)]
        std::os::unix::fs::symlink(&elsewhere, target.path().join(name)).unwrap();
        #[cfg(not(unix))]
        fs::write(target.path().join(name), "").unwrap();
        let done =
            quantize(&source, target.path(), &options, &mut |_, _, _| ControlFlow::Continue(()));
        assert!(done.unwrap_err().to_string().contains(&format!("holds {name} already")));
        assert!(!elsewhere.exists());
    }
    // Of another program.
    let target = tempfile::tempdir().unwrap();
    let other = target.path().join("model.Ab3xYz.part");
    fs::write(&other, "half a model").unwrap();
    let done = quantize(&source, target.path(), &options, &mut |_, _, _| ControlFlow::Continue(()));
    let error = done.unwrap_err().to_string();
    assert!(error.contains("holds model.Ab3xYz.part already") && other.exists(), "{error}");
}

/// Only a name tells ChatGLM2 from ChatGLM3: `_name_or_path`, or that of the directory. The output directory may have another name.
#[test]
fn variant_from_the_directory_name_is_stored() {
    let original = fixture("chatglm2-6b-tiny/int4");
    let read = |folder: &Path| -> Value {
        serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap()
    };
    for (published, tokenizer, folder, expected) in [
        ("", "", "ChatGLM2-6B", "chatglm2-6b"),
        ("/data/mine", "mine", "chatglm2-6b-ft", "chatglm2-6b-ft"),
        ("/data/mine", "mine", "ft", "/data/mine"),
        ("/data/mine", "THUDM/chatglm2-6b", "chatglm3-6b", "/data/mine"),
        ("THUDM/chatglm2-6b", "", "chatglm3-6b", "THUDM/chatglm2-6b"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join(folder), dir.path().join("q4"));
        fs::create_dir(&source).unwrap();
        fs::copy(original.join("pytorch_model.bin"), source.join("pytorch_model.bin")).unwrap();
        let mut config = read(&original);
        config["_name_or_path"] = published.into();
        fs::write(source.join("config.json"), config.to_string()).unwrap();
        let settings = json!({ "name_or_path": tokenizer }).to_string();
        fs::write(source.join("tokenizer_config.json"), settings).unwrap();

        let options = QuantizeOptions::default();
        quantize(&source, &target, &options, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
        config["_name_or_path"] = expected.into();
        assert_eq!(read(&target), config, "{published:?}, {tokenizer:?}, {folder}");
        let architecture = |dir: &Path| Config::open(dir).unwrap().architecture;
        assert_eq!(architecture(&target), architecture(&source), "{published:?}, {folder}");
    }
}

/// A weight that is not finite, in a matrix or a vector, is an error with the name of the tensor, and no files are left.
#[test]
fn weights_that_are_not_finite_are_named() {
    for (end, index, value, expected) in [
        ("1.attention.dense.weight", 130, half::f16::NAN, "[1, 2] is NaN"),
        ("0.input_layernorm.weight", 3, half::f16::INFINITY, "[3] of "),
        ("1.mlp.dense_h_to_4h.bias", 3, half::f16::NEG_INFINITY, "[3] of "),
    ] {
        let source = altered(|name, bytes| {
            if name.ends_with(end) {
                bytes[2 * index..][..2].copy_from_slice(&value.to_le_bytes());
            }
            true
        });
        let target = tempfile::tempdir().unwrap();
        let options = QuantizeOptions::default();
        let go_on = &mut |_: u64, _: u64, _: &str| ControlFlow::Continue(());
        let error = quantize(source.path(), target.path(), &options, go_on).unwrap_err();
        let error = error.to_string();
        let expected = expected.replace(
            "130",
            &match end.ends_with("norm.weight") {
                true => (130 % 64).to_string(),
                false => "130".to_owned(),
            },
        );
        assert!(error.contains(&format!("{end}: {expected}")), "{error}");
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
        assert!(!target.path().with_added_extension("quantize.part").exists());
    }
}

#[test]
fn cancellation_leaves_no_files() {
    let source = fixture("chatglm-6b-tiny/bin-f16");
    let target = tempfile::tempdir().unwrap();
    let mut pieces = 0;
    let mut stop = |_, _, _: &str| {
        pieces += 1;
        if pieces == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let error = quantize(&source, target.path(), &QuantizeOptions::default(), &mut stop);
    assert!(matches!(error, Err(Error::Cancelled)));
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
}

/// The tiny model with changed tensors. Tensors for which `change` returns false are omitted.
fn altered(change: impl Fn(&str, &mut Vec<u8>) -> bool) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let original = fixture("chatglm-6b-tiny/bin-f16");
    fs::copy(original.join("config.json"), folder.path().join("config.json")).unwrap();
    let checkpoint = Checkpoint::open(&original).unwrap();
    let mut tensors = Vec::new();
    for name in checkpoint.names() {
        let tensor = checkpoint.tensor(name).unwrap();
        let mut bytes = tensor.bytes().to_vec();
        if change(name, &mut bytes) {
            tensors.push((name, tensor.shape().to_vec(), bytes));
        }
    }
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let dtype = safetensors::Dtype::F16;
        (*name, safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

/// A missing head is tied to the embedding, unless config.json says that it is not. Any other missing tensor is an error.
#[test]
fn only_tied_heads_may_be_missing() {
    let tied = altered(|name, _| name != "lm_head.weight");
    let model = Model::open(tied.path(), &Options::default()).unwrap();
    assert!(model.inventory().is_head_tied);
    let config = tied.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replacen('{', "{\"tie_word_embeddings\": false,", 1)).unwrap();
    let error = Model::open(tied.path(), &Options::default()).err().unwrap().to_string();
    assert!(error.contains("tensor lm_head.weight: is missing"), "{error}");

    let lacking = altered(|name, _| !name.ends_with("2.mlp.dense_4h_to_h.bias"));
    let error = Model::open(lacking.path(), &Options::default()).err().unwrap().to_string();
    assert!(error.contains("transformer.layers.2.mlp.dense_4h_to_h.bias: is missing"), "{error}");
}

/// A NaN or infinite weight in any tensor gives an error, also with 8-bit activations and GELU.
#[test]
fn damaged_weights_are_detected() {
    for name in
        ["0.mlp.dense_h_to_4h.bias", "1.input_layernorm.weight", "2.attention.query_key_value.bias"]
    {
        let folder = altered(|other, bytes| {
            if other.ends_with(name) {
                bytes[..2].copy_from_slice(&half::f16::NAN.to_le_bytes());
            }
            true
        });
        let all = logits(folder.path(), Activations::F32);
        assert!(all.iter().any(|logit| !logit.is_finite()), "{name}");
    }
}

/// 8-bit activations are ignored for unquantized weights, also for the type of the KV cache.
#[test]
fn unquantized_weights_always_use_f32() {
    let plain = fixture("chatglm-6b-tiny/bin-f16");
    assert_eq!(logits(&plain, Activations::Int8), logits(&plain, Activations::F32));
    let target = quantized(8, 32);
    assert_ne!(logits(target.path(), Activations::Int8), logits(target.path(), Activations::F32));
}

/// Models and generations implement `Send`, models also `Sync`.
#[test]
fn models_and_generations_are_send() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Model>();
    sent::<glm_model::Generation>();
    sent::<glm_model::Workspace>();
    shared::<glm_model::KvPool>();
}

#[cfg(unix)]
#[test]
fn a_pipe_in_place_of_a_file_does_not_hang() {
    let folder = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.path().join("config.json")).status();
    assert!(made.unwrap().success());
    let error = Model::open(folder.path(), &Options::default()).err().unwrap().to_string();
    assert!(error.ends_with("config.json: is missing, or no regular file"), "{error}");
}

/// Its reads would wait for messages of the kernel.
#[cfg(target_os = "linux")]
#[test]
fn a_file_of_the_system_in_place_of_a_file_does_not_hang() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/proc/kmsg", folder.path().join("config.json")).unwrap();
    assert!(Model::open(folder.path(), &Options::default()).is_err());
}

/// Each would take 70 bytes.
#[test]
fn a_configuration_of_very_many_values_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let many = format!(r#"{{"model_type": "chatglm", "x": [{}0]}}"#, "0,".repeat(1 << 20));
    fs::write(folder.path().join("config.json"), many).unwrap();
    let error = Model::open(folder.path(), &Options::default()).err().unwrap().to_string();
    assert!(error.ends_with("config.json: has more than 131072 values"), "{error}");
}

/// A weight whose scale is beyond `f16`.
#[test]
fn weights_that_are_too_large_are_refused_and_named() {
    const NAME: &str = "transformer.layers.1.mlp.dense_4h_to_h.weight";
    let dir = tempfile::tempdir().unwrap();
    let [source, target] = ["source", "target"].map(|name| dir.path().join(name));
    fs::create_dir(&source).unwrap();
    let tiny = fixture("chatglm-6b-tiny/bin-f16");
    fs::copy(tiny.join("config.json"), source.join("config.json")).unwrap();
    let checkpoint = Checkpoint::open(&tiny).unwrap();
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for name in checkpoint.names() {
        let tensor = checkpoint.tensor(name).unwrap();
        let start = data.len();
        for (index, half) in tensor.bytes().as_chunks::<2>().0.iter().enumerate() {
            let is_large = tensor.name() == NAME && index == 1;
            let value = if is_large { 1e9 } else { half::f16::from_le_bytes(*half).to_f32() };
            data.extend(value.to_le_bytes());
        }
        let about = serde_json::json!({ "dtype": "F32", "shape": tensor.shape(), "data_offsets": [start, data.len()] });
        header.insert(tensor.name().to_owned(), about);
    }
    let header = serde_json::Value::Object(header).to_string();
    fs::write(source.join("model.safetensors"), forge::safetensors(&header, &data)).unwrap();
    let mut asked: Vec<_> =
        [(4, 32), (8, 32)].map(|(bits, group)| QuantizeOptions::new(bits, group)).to_vec();
    asked.push(with_minimum(4, 64));
    for options in asked {
        let error = quantize(&source, &target, &options, &mut |_, _, _| ControlFlow::Continue(()));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(NAME) && error.contains("[0, 1] is 1000000000"), "{error}");
        assert!(!target.exists());
    }
}
