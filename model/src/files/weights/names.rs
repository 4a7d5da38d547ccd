//! The names of tensors in published files: one table for each dialect.

use crate::files::config::Dialect;

/// The names of one dialect, without `.weight` and `.bias`. Names of a layer's tensors are relative to the layer.
pub(super) struct Names {
    pub(super) embedding: &'static str,
    /// Learned positions and block positions.
    pub(super) positions: Option<[&'static str; 2]>,
    /// The list of layers; a dot and the number of the layer follow.
    pub(super) layers: &'static str,
    pub(super) attention_norm: &'static str,
    /// Query, key and value in one matrix. Quantized files always have this one.
    pub(super) qkv: &'static str,
    /// Query, key and value, if the published files have three matrices.
    pub(super) apart: Option<[&'static str; 3]>,
    pub(super) attention_output: &'static str,
    pub(super) attention_output_norm: &'static str,
    pub(super) feed_forward_norm: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    pub(super) feed_forward_output_norm: &'static str,
    pub(super) final_norm: &'static str,
    /// `None` if the embedding is always the head, too.
    pub(super) head: Option<&'static str>,
}

pub(super) fn names(dialect: Dialect) -> &'static Names {
    match dialect {
        Dialect::ChatGlm => &CHATGLM,
        Dialect::ChatGlm2 => &CHATGLM2,
        Dialect::Transformers => &TRANSFORMERS,
        Dialect::Glm => &GLM,
        Dialect::Glm130B => &GLM_130B,
        Dialect::Gguf => &GGUF,
    }
}

const CHATGLM: Names = Names {
    embedding: "transformer.word_embeddings",
    positions: None,
    layers: "transformer.layers",
    attention_norm: "input_layernorm",
    qkv: "attention.query_key_value",
    apart: None,
    attention_output: "attention.dense",
    attention_output_norm: "",
    feed_forward_norm: "post_attention_layernorm",
    up: "mlp.dense_h_to_4h",
    down: "mlp.dense_4h_to_h",
    feed_forward_output_norm: "",
    final_norm: "transformer.final_layernorm",
    head: Some("lm_head"),
};

const CHATGLM2: Names = Names {
    embedding: "transformer.embedding.word_embeddings",
    layers: "transformer.encoder.layers",
    qkv: "self_attention.query_key_value",
    attention_output: "self_attention.dense",
    final_norm: "transformer.encoder.final_layernorm",
    head: Some("transformer.output_layer"),
    ..CHATGLM
};

const TRANSFORMERS: Names = Names {
    embedding: "model.embed_tokens",
    layers: "model.layers",
    qkv: "self_attn.qkv_proj",
    apart: Some(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    attention_output: "self_attn.o_proj",
    attention_output_norm: "post_self_attn_layernorm",
    up: "mlp.gate_up_proj",
    down: "mlp.down_proj",
    feed_forward_output_norm: "post_mlp_layernorm",
    final_norm: "model.norm",
    ..CHATGLM
};

const GLM: Names = Names {
    embedding: "word_embeddings",
    positions: Some(["transformer.position_embeddings", "transformer.block_position_embeddings"]),
    head: None,
    ..CHATGLM
};

const GLM_130B: Names = Names { head: None, ..CHATGLM };

const GGUF: Names = Names {
    embedding: "token_embd",
    positions: None,
    layers: "blk",
    attention_norm: "attn_norm",
    qkv: "attn_qkv",
    apart: Some(["attn_q", "attn_k", "attn_v"]),
    attention_output: "attn_output",
    attention_output_norm: "post_attention_norm",
    feed_forward_norm: "ffn_norm",
    up: "ffn_up",
    down: "ffn_down",
    feed_forward_output_norm: "post_ffw_norm",
    final_norm: "output_norm",
    head: Some("output"),
};
