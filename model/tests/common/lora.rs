//! Adapters of LoRA for the small models: their tensors and the folder that peft writes.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::Path;

use glm_model::{Activations, Model, Options};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::fixture;
use crate::common::runner::with;
use crate::tensors::{Lcg, Tensor, safetensors};

pub const ONE: &str = "chatglm-6b-tiny/bin-f16";
pub const TWO: &str = "chatglm2-6b-tiny/int4";
pub const FOUR: &str = "glm-4-0414-layer";
pub const HF: &str = "glm-4-9b-chat-hf-layer";

/// The modules of one layer of a model of transformers, and the head: path, outputs and inputs.
pub const MODULES: [(&str, [usize; 2]); 7] = [
    ("model.layers.0.self_attn.q_proj", [128, 128]),
    ("model.layers.0.self_attn.k_proj", [64, 128]),
    ("model.layers.0.self_attn.v_proj", [64, 128]),
    ("model.layers.0.self_attn.o_proj", [128, 128]),
    ("model.layers.0.mlp.gate_up_proj", [688, 128]),
    ("model.layers.0.mlp.down_proj", [128, 344]),
    ("lm_head", [9, 128]),
];

/// The tensors of an adapter.
pub fn updates<'a>(
    modules: impl IntoIterator<Item = &'a (&'a str, [usize; 2])>,
    rank: impl Fn(&str) -> usize,
    seed: u32,
) -> Vec<Tensor> {
    let mut lcg = Lcg(seed);
    let pairs = modules.into_iter().flat_map(|&(path, [outputs, inputs])| {
        let (name, rank) = (format!("base_model.model.{path}.lora_"), rank(path));
        [
            lcg.tensor(format!("{name}A.weight"), [rank, inputs], 0.5),
            lcg.tensor(format!("{name}B.weight"), [outputs, rank], 0.5),
        ]
    });
    pairs.collect()
}

pub fn config(fields: &Value) -> String {
    let mut config = json!({"peft_type": "LORA", "base_model_name_or_path": "THUDM/some-model"});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config.to_string()
}

/// The folder that peft writes.
pub fn folder(fields: &Value, tensors: &[Tensor]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("adapter_config.json"), config(fields)).unwrap();
    fs::write(folder.path().join("adapter_model.safetensors"), safetensors(tensors)).unwrap();
    folder
}

/// Updates of everything in a model of three layers with the names of the authors' code.
pub fn of_authors(name: &str, seed: u32) -> (Value, Vec<Tensor>) {
    let (layers, attention, qkv, up, down, head) = match name {
        ONE => ("transformer.layers", "attention", 384, 512, 512, "lm_head"),
        _ => (
            "transformer.encoder.layers",
            "self_attention",
            256,
            688,
            344,
            "transformer.output_layer",
        ),
    };
    let paths: Vec<_> = (0..3)
        .flat_map(|layer| {
            let at = format!("{layers}.{layer}");
            [
                (format!("{at}.{attention}.query_key_value"), [qkv, 128]),
                (format!("{at}.{attention}.dense"), [128, 128]),
                (format!("{at}.mlp.dense_h_to_4h"), [up, 128]),
                (format!("{at}.mlp.dense_4h_to_h"), [128, down]),
            ]
        })
        .chain([(head.to_owned(), [320, 128])])
        .collect();
    let modules: Vec<_> = paths.iter().map(|(path, shape)| (&**path, *shape)).collect();
    (json!({"r": 3, "lora_alpha": 2}), updates(&modules, |_| 3, seed))
}

pub fn open_with(path: &Path, threads: usize) -> Model {
    let options = with(|options: &mut Options| {
        options.threads = Some(threads);
        options.activations = Some(Activations::F32);
    });
    Model::open(path, &options).unwrap()
}

pub fn open(name: &str) -> Model {
    open_with(&fixture(name), 2)
}

#[track_caller]
pub fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    let error = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(error < tolerance, "{error}");
}

/// Ids of a prompt with three tokens of an answer.
pub fn prompt(name: &str) -> Vec<u32> {
    let mut lcg = Lcg(3);
    let mut ids = |count| (0..count).map(|_| 10 + lcg.next() % 200).collect::<Vec<_>>();
    if name == ONE { [ids(6), vec![301, 304], ids(3)].concat() } else { ids(9) }
}

/// The model in a folder of its own.
pub fn copy(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture(name).join(file), copy.path().join(file)).unwrap();
    }
    copy
}
