//! Folders in the kernels' layout: what `quantize` writes, and what it takes to be read back.

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use common::fixture;
use glm_model::{
    Activations, Checkpoint, Chunk, Config, Error, Model, Options, QuantizeOptions, RunOptions,
    quantize,
};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

fn quantized(bits: usize, group: usize) -> TempDir {
    let target = tempfile::tempdir().unwrap();
    let source = fixture("chatglm-6b-tiny/bin-f16");
    let mut options = QuantizeOptions::new(bits, group);
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

/// How far quantising puts the logits of this random model, relative RMS, measured: 8 bits 0.011 and 0.013, 4 bits 0.179,
/// 0.199 and 0.202. (Its embedding and head are as wide as its other weights; trained ones lose far less.)
#[test]
fn more_bits_and_smaller_groups_are_closer_to_the_source() {
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

#[test]
fn the_file_can_be_mapped_as_it_is() {
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

/// A change of the header that keeps its length.
fn lie(dir: &Path, from: &str, to: &str) -> String {
    assert_eq!(from.len(), to.len());
    let path = dir.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).expect("in the header");
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(&path, bytes).unwrap();
    Model::open(dir, &Options::default()).err().expect("an error").to_string()
}

#[test]
fn lies_about_the_layout_are_found() {
    for (from, to, expected) in [
        ("panels-1", "panels-9", "layout \"panels-9\", and this version reads \"panels-1\""),
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
        let error = lie(target.path(), from, to);
        assert!(error.contains(expected), "{from} → {to}: {error}");
    }
}

#[test]
fn a_quantised_folder_is_not_quantised_again_nor_overwritten() {
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
    for (bits, group) in [(5, 32), (4, 48)] {
        let options = QuantizeOptions::new(bits, group);
        assert!(matches!(run(&source, elsewhere.path(), &options), Error::Setting { .. }));
    }
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

/// A link to nowhere is not written through, another model's tokenizer is not adopted, and what a killed run left goes.
#[test]
fn only_a_folder_without_a_model_is_written_to() {
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
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("model.Ab3xYz.part"), "half a model").unwrap();
    quantize(&source, target.path(), &options, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 2);
}

/// ChatGLM2 and ChatGLM3 are told apart by a name alone; the new folder's may say nothing.
#[test]
fn a_name_that_only_the_folder_told_is_written_down() {
    let original = fixture("chatglm2-6b-tiny/int4");
    let read = |folder: &Path| -> Value {
        serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap()
    };
    for (published, tokenizer, folder, expected) in [
        ("", "", "ChatGLM2-6B", "ChatGLM2-6B"),
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

/// A weight that is no number is an error that names it, and leaves nothing behind.
#[test]
fn a_weight_that_is_no_number_is_named() {
    let source = altered(|name, bytes| {
        if name.ends_with("1.attention.dense.weight") {
            bytes[2 * 130..][..2].copy_from_slice(&half::f16::NAN.to_le_bytes());
        }
        true
    });

    let target = tempfile::tempdir().unwrap();
    let options = QuantizeOptions::default();
    let error =
        quantize(source.path(), target.path(), &options, &mut |_, _, _| ControlFlow::Continue(()))
            .unwrap_err();
    let error = error.to_string();
    assert!(error.contains("layers.1.attention.dense.weight: [1, 2] is NaN"), "{error}");
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
}

#[test]
fn what_is_broken_off_leaves_nothing() {
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

/// The tiny model with tensors changed, or left out where `change` says no.
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

/// A head that is missing is the embedding, unless config.json says that they are not tied; any other tensor is missed.
#[test]
fn only_a_tied_head_may_be_missing() {
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

/// Wherever a number of the weights is damaged, the logits say so; 8-bit activations and GELU do not hide it.
#[test]
fn damaged_weights_show() {
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

/// 8-bit activations are for quantised weights alone: asked of plain ones, nothing changes, the cache's type included.
#[test]
fn plain_weights_take_f32_whatever_is_asked() {
    let plain = fixture("chatglm-6b-tiny/bin-f16");
    assert_eq!(logits(&plain, Activations::Int8), logits(&plain, Activations::F32));
    let target = quantized(8, 32);
    assert_ne!(logits(target.path(), Activations::Int8), logits(target.path(), Activations::F32));
}

/// A model and what it gives out can be used from any thread.
#[test]
fn models_and_generations_can_be_sent_and_models_shared() {
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
