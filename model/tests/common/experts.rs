//! Small models with experts and random weights.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use glm_model::{Dtype, TensorSpec};

use crate::stored::{Stored, safetensors};
use crate::tensors::{Lcg, Tensor, bytes};

pub const HIDDEN: usize = 64;
pub const LAYERS: usize = 3;
pub const EXPERTS: usize = 6;
/// Width of an expert.
const INNER: usize = 32;
const DENSE: usize = 96;
const VOCAB: usize = 96;

/// Which network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `glm4_moe_lite`: latent attention.
    Latent,
    /// `glm4_moe`: grouped heads, here with norms, and two shared experts.
    Grouped,
}

/// Sizes of latent attention: heads, query rank, rank, elements that are not rotated, those that are, and of a value.
const SIZES: [usize; 6] = [4, 32, 32, 24, 8, 16];

pub fn config(kind: Kind) -> Value {
    let [heads, query_rank, rank, plain, rotary, value] = SIZES;
    let mut config = json!({
        "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "num_attention_heads": heads, "vocab_size": VOCAB,
        "intermediate_size": DENSE, "moe_intermediate_size": INNER, "n_routed_experts": EXPERTS,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "routed_scaling_factor": 1.8, "first_k_dense_replace": 1,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000, "eos_token_id": [1],
        "num_nextn_predict_layers": 1,
    });
    let own = match kind {
        Kind::Latent => json!({
            "model_type": "glm4_moe_lite", "q_lora_rank": query_rank, "kv_lora_rank": rank, "qk_nope_head_dim": plain,
            "qk_rope_head_dim": rotary, "v_head_dim": value, "n_group": 2, "topk_group": 1,
        }),
        Kind::Grouped => json!({
            "model_type": "glm4_moe", "num_key_value_heads": 2, "head_dim": 16, "attention_bias": true,
            "use_qk_norm": true, "partial_rotary_factor": 0.5, "n_shared_experts": 2,
        }),
    };
    config.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
    config
}

/// The tensors as they are published: one for each matrix of an expert.
pub fn tensors(kind: Kind) -> Vec<Tensor> {
    let mut random = Lcg(11);
    let mut all = Vec::new();
    let mut add = |name: String, shape: [usize; 2]| {
        let scale = 3.0 / (shape[1] as f32).sqrt();
        let mut tensor = random.tensor(name, shape, scale);
        if tensor.name.contains("norm") {
            tensor.shape.truncate(1);
            tensor.values.iter_mut().for_each(|value| *value = 1.0 + *value / 10.0);
        }
        all.push(tensor);
    };
    add("model.embed_tokens.weight".to_owned(), [VOCAB, HIDDEN]);
    add("model.norm.weight".to_owned(), [HIDDEN, 1]);
    add("lm_head.weight".to_owned(), [VOCAB, HIDDEN]);
    // The last one predicts a further token.
    for layer in 0..=LAYERS {
        let mut add = |name: &str, shape| add(format!("model.layers.{layer}.{name}"), shape);
        add("input_layernorm.weight", [HIDDEN, 1]);
        add("post_attention_layernorm.weight", [HIDDEN, 1]);
        attention(kind, &mut add);
        let mut mlp = |path: &str, inner| {
            add(&format!("mlp.{path}gate_proj.weight"), [inner, HIDDEN]);
            add(&format!("mlp.{path}up_proj.weight"), [inner, HIDDEN]);
            add(&format!("mlp.{path}down_proj.weight"), [HIDDEN, inner]);
        };
        if layer == 0 {
            mlp("", DENSE);
            continue;
        }
        (0..EXPERTS).for_each(|expert| mlp(&format!("experts.{expert}."), INNER));
        mlp("shared_experts.", if kind == Kind::Grouped { 2 * INNER } else { INNER });
        add("mlp.gate.weight", [EXPERTS, HIDDEN]);
        add("mlp.gate.e_score_correction_bias", [EXPERTS, 1]);
        if layer == LAYERS {
            add("eh_proj.weight", [HIDDEN, 2 * HIDDEN]);
        }
    }
    all
}

fn attention(kind: Kind, add: &mut dyn FnMut(&str, [usize; 2])) {
    let [heads, query_rank, rank, plain, rotary, value] = SIZES;
    let mut add = |name: &str, shape| add(&format!("self_attn.{name}"), shape);
    match kind {
        Kind::Latent => {
            add("q_a_proj.weight", [query_rank, HIDDEN]);
            add("q_a_layernorm.weight", [query_rank, 1]);
            add("q_b_proj.weight", [heads * (plain + rotary), query_rank]);
            add("kv_a_proj_with_mqa.weight", [rank + rotary, HIDDEN]);
            add("kv_a_layernorm.weight", [rank, 1]);
            add("kv_b_proj.weight", [heads * (plain + value), rank]);
            add("o_proj.weight", [HIDDEN, heads * value]);
        }
        Kind::Grouped => {
            for (name, heads) in [("q", 4), ("k", 2), ("v", 2)] {
                add(&format!("{name}_proj.weight"), [heads * 16, HIDDEN]);
                add(&format!("{name}_proj.bias"), [heads * 16, 1]);
            }
            add("q_norm.weight", [16, 1]);
            add("k_norm.weight", [16, 1]);
            add("o_proj.weight", [HIDDEN, 4 * 16]);
        }
    }
}

/// The same with the experts of a layer in two tensors.
pub fn joined(tensors: Vec<Tensor>) -> Vec<Tensor> {
    let (experts, mut all): (Vec<_>, Vec<_>) =
        tensors.into_iter().partition(|tensor| tensor.name.contains(".experts."));
    for layer in 1..=LAYERS {
        for (name, parts, shape) in [
            ("gate_up_proj", &["gate_proj", "up_proj"][..], [EXPERTS, 2 * INNER, HIDDEN]),
            ("down_proj", &["down_proj"], [EXPERTS, HIDDEN, INNER]),
        ] {
            let path = format!("model.layers.{layer}.mlp.experts.");
            let values =
                (0..EXPERTS).flat_map(|expert| parts.iter().map(move |part| (expert, part)));
            let values = values.flat_map(|(expert, part)| {
                let name = format!("{path}{expert}.{part}.weight");
                experts.iter().find(|tensor| tensor.name == name).unwrap().values.clone()
            });
            let (name, values) = (format!("{path}{name}"), values.collect());
            all.push(Tensor { name, shape: shape.to_vec(), values });
        }
    }
    all
}

/// A folder with these files.
pub fn folder(config: &Value, tensors: &[Tensor]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), config, tensors);
    dir
}

pub fn write(dir: &Path, config: &Value, tensors: &[Tensor]) {
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let stored = |tensor: &Tensor| -> Stored {
        let spec = TensorSpec::new(tensor.name.clone(), Dtype::F32, tensor.shape.clone());
        (spec, bytes(&tensor.values))
    };
    let tensors: Vec<_> = tensors.iter().map(stored).collect();
    fs::write(dir.join("model.safetensors"), safetensors(&tensors)).unwrap();
}

/// A model of this kind.
pub fn tiny(kind: Kind) -> TempDir {
    folder(&config(kind), &tensors(kind))
}
