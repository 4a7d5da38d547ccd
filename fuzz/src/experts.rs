//! A model of a few kilobytes with experts.

use glm_model::TensorSpec;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use serde_json::{Value, json};

use crate::{Number, Stored};

/// A model of the transformers library, GLM-4.7-Flash or GLM-4.5.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct TinyExperts {
    /// GLM-4.7-Flash, which has latent attention.
    pub is_latent: bool,
    /// All experts of a layer in two tensors.
    pub is_joined: bool,
    pub number: Number,
}

const VOCAB: usize = 12;
const HIDDEN: usize = 32;
const INNER: usize = 16;
const EXPERTS: usize = 4;

impl TinyExperts {
    /// `config.json`
    pub fn config(self) -> Value {
        let mut config = json!({
            "model_type": if self.is_latent { "glm4_moe_lite" } else { "glm4_moe" }, "hidden_size": HIDDEN,
            "intermediate_size": INNER, "moe_intermediate_size": INNER, "n_routed_experts": EXPERTS,
            "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
            "max_position_embeddings": 256, "num_attention_heads": 2, "num_hidden_layers": 2, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "vocab_size": VOCAB, "eos_token_id": [0],
        });
        let own = match self.is_latent {
            true => json!({
                "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
            }),
            false => {
                json!({"num_key_value_heads": 1, "head_dim": 16, "use_qk_norm": true, "attention_bias": false})
            }
        };
        if let (Value::Object(config), Value::Object(own)) = (&mut config, own) {
            config.extend(own);
        }
        config
    }

    /// The tensors. `value` gets the number of the tensor and of the element.
    pub fn tensors(self, value: impl Fn(usize, usize) -> f32) -> Vec<Stored> {
        let mut shapes: Vec<(String, Vec<usize>)> = vec![
            ("model.embed_tokens.weight".to_owned(), vec![VOCAB, HIDDEN]),
            ("lm_head.weight".to_owned(), vec![VOCAB, HIDDEN]),
            ("model.norm.weight".to_owned(), vec![HIDDEN]),
        ];
        for layer in 0..2 {
            let mut add = |name: &str, shape: &[usize]| {
                shapes.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
            };
            add("input_layernorm.weight", &[HIDDEN]);
            add("post_attention_layernorm.weight", &[HIDDEN]);
            let attention: &[(&str, &[usize])] = match self.is_latent {
                true => &[
                    ("q_a_proj", &[16, HIDDEN]),
                    ("q_a_layernorm", &[16]),
                    ("q_b_proj", &[32, 16]),
                    ("kv_a_proj_with_mqa", &[24, HIDDEN]),
                    ("kv_a_layernorm", &[16]),
                    ("kv_b_proj", &[32, 16]),
                    ("o_proj", &[HIDDEN, 16]),
                ],
                false => &[
                    ("q_proj", &[32, HIDDEN]),
                    ("k_proj", &[16, HIDDEN]),
                    ("v_proj", &[16, HIDDEN]),
                    ("q_norm", &[16]),
                    ("k_norm", &[16]),
                    ("o_proj", &[HIDDEN, 32]),
                ],
            };
            attention
                .iter()
                .for_each(|(name, shape)| add(&format!("self_attn.{name}.weight"), shape));
            let mut mlp = |path: &str| {
                add(&format!("mlp.{path}gate_proj.weight"), &[INNER, HIDDEN]);
                add(&format!("mlp.{path}up_proj.weight"), &[INNER, HIDDEN]);
                add(&format!("mlp.{path}down_proj.weight"), &[HIDDEN, INNER]);
            };
            if layer == 0 {
                mlp("");
                continue;
            }
            mlp("shared_experts.");
            if !self.is_joined {
                (0..EXPERTS).for_each(|expert| mlp(&format!("experts.{expert}.")));
            }
            if self.is_joined {
                add("mlp.experts.gate_up_proj", &[EXPERTS, 2 * INNER, HIDDEN]);
                add("mlp.experts.down_proj", &[EXPERTS, HIDDEN, INNER]);
            }
            add("mlp.gate.weight", &[EXPERTS, HIDDEN]);
            add("mlp.gate.e_score_correction_bias", &[EXPERTS]);
        }
        let stored = |(tensor, (name, shape)): (usize, (String, Vec<usize>))| {
            let values = (0..shape.iter().product()).map(|at| value(tensor, at));
            (TensorSpec::new(name, self.number.dtype(), shape), self.number.bytes(values))
        };
        shapes.into_iter().enumerate().map(stored).collect()
    }
}
