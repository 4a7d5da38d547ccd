//! All checkpoint formats in the test data: reading, and comparison of the same weights in different formats.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{fixture, shared_model};
use glm_model::{Checkpoint, Dtype};

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|error| panic!("{error}"))
}

fn names(checkpoint: &Checkpoint) -> BTreeSet<&str> {
    checkpoint.names().collect()
}

/// Asserts that `b` has every tensor of `a` with the same type, shape and bytes.
#[track_caller]
fn assert_in(a: &Checkpoint, b: &Checkpoint) {
    assert!(a.names().len() > 0);
    for name in a.names() {
        let (a, b) = (a.tensor(name).unwrap(), b.tensor(name).unwrap());
        b.expect(&[a.dtype()], a.shape()).unwrap();
        assert!(a.bytes() == b.bytes(), "{name}: bytes differ");
    }
}

/// Finds directories with weights below `folder`, and `.pt` files.
fn checkpoints(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut has_weights = false;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            checkpoints(&path, found);
        } else if name.ends_with(".pt") {
            found.push(path);
        } else {
            has_weights |= name.starts_with("model") || name.starts_with("pytorch_model");
        }
    }
    if has_weights {
        found.push(folder.to_owned());
    }
}

#[test]
fn local_checkpoints_open() {
    check_all_open(&fixture(""), 7);
}

#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn shared_checkpoints_open() {
    check_all_open(&shared_model(""), 30);
}

fn check_all_open(models: &Path, least: usize) {
    let mut paths = Vec::new();
    checkpoints(models, &mut paths);
    assert!(paths.len() >= least, "only {} checkpoints", paths.len());
    for path in paths {
        let checkpoint = open(&path);
        assert!(checkpoint.names().len() >= 10, "{}", path.display());
        assert!(checkpoint.names().is_sorted());
        assert!(checkpoint.total_bytes() > 10_000);
        for name in checkpoint.names() {
            let tensor = checkpoint.tensor(name).unwrap();
            let count: usize = tensor.shape().iter().product();
            assert_eq!(tensor.bytes().len(), count * tensor.dtype().size());
            assert_eq!(tensor.name(), name);
            assert!(tensor.path().starts_with(&path));
        }
    }
}

#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn torch_and_safetensors_hold_the_same_tensors() {
    // The shards of ChatGLM2-6B also hold the buffer `rotary_pos_emb.inv_freq`. Buffers in shards are left out.
    for (torch, safetensors) in [
        ("chatglm-6b-tiny/bin-f16", "chatglm-6b-tiny/f16"),
        ("chatglm2-6b-tiny/bin-f16-sharded", "chatglm2-6b-tiny/f16"),
    ] {
        let [torch, safetensors] = [torch, safetensors].map(|name| open(&shared_model(name)));
        assert_in(&safetensors, &torch);
        assert_eq!(names(&torch), names(&safetensors));
    }
}

#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn shards_hold_the_same_tensors_as_one_file() {
    let sharded = open(&shared_model("chatglm-6b-tiny/f32-sharded"));
    let single = open(&shared_model("chatglm-6b-tiny/f16"));
    // As in the published files, the older format also has a buffer that the model recomputes.
    let only_in_single = names(&single).difference(&names(&sharded)).copied().collect::<Vec<_>>();
    let buffers =
        [0, 1, 2].map(|i| format!("transformer.layers.{i}.attention.rotary_emb.inv_freq"));
    assert_eq!(only_in_single, buffers);
    for name in sharded.names() {
        let (wide, half) = (sharded.tensor(name).unwrap(), single.tensor(name).unwrap());
        wide.expect(&[Dtype::F32], half.shape()).unwrap();
        let wide = wide.bytes().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let half = half.bytes().chunks(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()));
        assert!(wide.eq(half.map(f32::from)), "{name}");
    }
}

#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn names_differ_only_in_a_prefix() {
    let prefixed = open(&shared_model("glm-10b-tiny/bin-f16-prefixed"));
    let plain = open(&shared_model("glm-10b-tiny/f16"));
    assert_eq!(prefixed.names().len(), plain.names().len());
    for name in prefixed.names() {
        let tensor = plain.tensor(name.strip_prefix("glm.").unwrap()).unwrap();
        assert_eq!(tensor.bytes(), prefixed.tensor(name).unwrap().bytes());
    }
}

#[test]
fn official_int4_is_bytes_and_scales() {
    check_quantized(&open(&fixture("chatglm-6b-tiny/int4")), 64);
}

#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn official_int8_is_bytes_and_scales() {
    check_quantized(&open(&shared_model("chatglm-6b-tiny/int8")), 128);
}

fn check_quantized(checkpoint: &Checkpoint, columns: usize) {
    let weight = "transformer.layers.2.attention.query_key_value.weight";
    let weight = checkpoint.tensor(weight).unwrap();
    weight.expect(&[Dtype::I8], &[384, columns]).unwrap();
    let scale = checkpoint.tensor(&format!("{}_scale", weight.name())).unwrap();
    scale.expect(&[Dtype::F16], &[384]).unwrap();
}

#[test]
fn nested_dictionaries_join_their_names() {
    let checkpoint = open(&fixture("glm-130b-narrow/int4/49300/mp_rank_00_model_states.pt"));
    assert!(checkpoint.names().all(|name| name.starts_with("module.")), "{checkpoint:?}");
    let embedding = checkpoint.tensor("module.transformer.word_embeddings.weight").unwrap();
    embedding.expect(&[Dtype::F16], &[208, 64]).unwrap();
}

#[test]
fn errors_name_file_and_tensor() {
    let folder = fixture("chatglm-6b-tiny/bin-f16");
    let checkpoint = open(&folder);
    let missing = checkpoint.tensor("lm_tail.weight").unwrap_err().to_string();
    assert_eq!(missing, format!("{}: tensor lm_tail.weight: is missing", folder.display()));
    let head = checkpoint.tensor("lm_head.weight").unwrap();
    let wrong = head.expect(&[Dtype::F16], &[128, 320]).unwrap_err().to_string();
    let file = folder.join("pytorch_model.bin");
    let expected = "tensor lm_head.weight: expected F16 [128, 320], found F16 [320, 128]";
    assert_eq!(wrong, format!("{}: {expected}", file.display()));
}

#[test]
fn tensors_outlive_the_checkpoint() {
    let checkpoint = open(&fixture("chatglm-6b-tiny/bin-f16"));
    let tensor = checkpoint.tensor("lm_head.weight").unwrap();
    let (copy, data) = (tensor.bytes().to_vec(), tensor.data().clone());
    drop(checkpoint);
    assert_eq!(data[..], copy);
}
