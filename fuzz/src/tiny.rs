//! A model of a few kilobytes, whose tensors a target changes.

use std::fs;
use std::io;
use std::path::Path;

use glm_model::{Dtype, SafetensorsLayout, TensorSpec};
use half::{bf16, f16};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use serde_json::{Value, json};

/// A tensor and its bytes.
pub type Stored = (TensorSpec, Vec<u8>);

/// The type of unquantized numbers.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Number {
    F32,
    F16,
    Bf16,
}

/// A model of the transformers library, GLM-4 or GLM-4-0414.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct Tiny {
    /// GLM-4-0414, which has more norms.
    pub output_norms: bool,
    pub tied_head: bool,
    pub number: Number,
}

impl Tiny {
    pub const VOCAB: usize = 12;
    pub const HIDDEN: usize = 64;
    pub const INNER: usize = 40;
    pub(crate) const HEAD: usize = 16;
    pub(crate) const HEADS: usize = 4;
    pub(crate) const KV_HEADS: usize = 2;

    /// `config.json`
    pub fn config(self) -> Value {
        json!({
            "model_type": if self.output_norms { "glm4" } else { "glm" },
            "architectures": ["GlmForCausalLM"], "attention_bias": true, "head_dim": Self::HEAD, "hidden_act": "silu",
            "hidden_size": Self::HIDDEN, "intermediate_size": Self::INNER, "max_position_embeddings": 256,
            "num_attention_heads": Self::HEADS, "num_hidden_layers": 1, "num_key_value_heads": Self::KV_HEADS,
            "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": self.tied_head, "vocab_size": Self::VOCAB, "eos_token_id": [0],
        })
    }

    /// The linear layers whose weights may be packed: path, outputs and inputs.
    pub fn linear() -> [(&'static str, [usize; 2]); 6] {
        let (hidden, kv) = (Self::HIDDEN, Self::HEAD * Self::KV_HEADS);
        [
            ("model.layers.0.self_attn.q_proj", [Self::HEAD * Self::HEADS, hidden]),
            ("model.layers.0.self_attn.k_proj", [kv, hidden]),
            ("model.layers.0.self_attn.v_proj", [kv, hidden]),
            ("model.layers.0.self_attn.o_proj", [hidden, Self::HEAD * Self::HEADS]),
            ("model.layers.0.mlp.gate_up_proj", [2 * Self::INNER, hidden]),
            ("model.layers.0.mlp.down_proj", [hidden, Self::INNER]),
        ]
    }

    /// The tensors. `value` gets the number of the tensor and of the element.
    pub fn tensors(self, value: impl Fn(usize, usize) -> f32) -> Vec<Stored> {
        let mut shapes =
            vec![("model.embed_tokens.weight".to_owned(), vec![Self::VOCAB, Self::HIDDEN])];
        if !self.tied_head {
            shapes.push(("lm_head.weight".to_owned(), vec![Self::VOCAB, Self::HIDDEN]));
        }
        for (at, (path, shape)) in Self::linear().into_iter().enumerate() {
            shapes.push((format!("{path}.weight"), shape.to_vec()));
            // Only query, key and value.
            if at < 3 {
                shapes.push((format!("{path}.bias"), vec![shape[0]]));
            }
        }
        let norms = ["input", "post_attention", "post_self_attn", "post_mlp"];
        for norm in &norms[..if self.output_norms { 4 } else { 2 }] {
            shapes.push((format!("model.layers.0.{norm}_layernorm.weight"), vec![Self::HIDDEN]));
        }
        shapes.push(("model.norm.weight".to_owned(), vec![Self::HIDDEN]));
        let stored = |(tensor, (name, shape)): (usize, (String, Vec<usize>))| {
            let values = (0..shape.iter().product()).map(|at| value(tensor, at));
            (TensorSpec::new(name, self.number.dtype(), shape), self.number.bytes(values))
        };
        shapes.into_iter().enumerate().map(stored).collect()
    }

    /// Writes the configuration and the tensors to a folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(folder: &Path, config: &Value, tensors: &[Stored]) -> io::Result<()> {
        fs::write(folder.join("config.json"), config.to_string())?;
        fs::write(folder.join("model.safetensors"), safetensors(tensors))
    }

    /// Values of a usual size.
    pub fn usual(tensor: usize, element: usize) -> f32 {
        let bits = (tensor * 7919 + element) as u32;
        (bits.wrapping_mul(2_654_435_761) >> 20) as f32 / 4096.0 - 0.5
    }
}

impl Number {
    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }

    pub(crate) fn bytes(self, values: impl Iterator<Item = f32>) -> Vec<u8> {
        match self {
            Self::F32 => values.flat_map(f32::to_le_bytes).collect(),
            Self::F16 => values.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
            Self::Bf16 => values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
        }
    }
}

/// A safetensors file of tensors with different names.
pub fn safetensors(tensors: &[Stored]) -> Vec<u8> {
    let specs: Vec<_> = tensors.iter().map(|(spec, _)| spec.clone()).collect();
    let layout = SafetensorsLayout::new(&specs, &[]);
    let mut file = layout.header().to_vec();
    file.resize(layout.file_len(), 0);
    for (index, (_, bytes)) in tensors.iter().enumerate() {
        file[layout.range(index)].copy_from_slice(bytes);
    }
    file
}
