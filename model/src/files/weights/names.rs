//! What the published files call their tensors: one table for each dialect.

use crate::files::config::Dialect;

/// The names of one dialect, without `.weight` and `.bias`; those of a block without its number.
pub(super) struct Names {
    /// May stand before all names, or not.
    pub(super) prefix: &'static str,
    pub(super) embedding: &'static str,
    /// Learned positions and block positions.
    pub(super) positions: Option<[&'static str; 2]>,
    /// What the number of a block and a dot follow.
    pub(super) blocks: &'static str,
    pub(super) attention_norm: &'static str,
    /// Query, key and value in one matrix; a file of ours has it where the published one has three.
    pub(super) qkv: &'static str,
    /// Query, key and value, where they are published apart.
    pub(super) apart: Option<[&'static str; 3]>,
    pub(super) dense: &'static str,
    pub(super) dense_norm: &'static str,
    pub(super) mlp_norm: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    pub(super) down_norm: &'static str,
    pub(super) final_norm: &'static str,
    /// `None` where the embedding is always the head, too.
    pub(super) head: Option<&'static str>,
    /// The end of the names of tensors that published files hold and no model reads.
    pub(super) ignored: &'static str,
}

pub(super) fn names(dialect: Dialect) -> &'static Names {
    match dialect {
        Dialect::ChatGlm => &CHATGLM,
        Dialect::ChatGlm2 => &CHATGLM2,
        Dialect::Transformers => &TRANSFORMERS,
        Dialect::Glm => &GLM,
        Dialect::Glm130B => &GLM_130B,
    }
}

const CHATGLM: Names = Names {
    prefix: "",
    embedding: "transformer.word_embeddings",
    positions: None,
    blocks: "transformer.layers",
    attention_norm: "input_layernorm",
    qkv: "attention.query_key_value",
    apart: None,
    dense: "attention.dense",
    dense_norm: "",
    mlp_norm: "post_attention_layernorm",
    up: "mlp.dense_h_to_4h",
    down: "mlp.dense_4h_to_h",
    down_norm: "",
    final_norm: "transformer.final_layernorm",
    head: Some("lm_head"),
    ignored: "rotary_emb.inv_freq",
};

const CHATGLM2: Names = Names {
    embedding: "transformer.embedding.word_embeddings",
    blocks: "transformer.encoder.layers",
    qkv: "self_attention.query_key_value",
    dense: "self_attention.dense",
    final_norm: "transformer.encoder.final_layernorm",
    head: Some("transformer.output_layer"),
    ignored: "rotary_pos_emb.inv_freq",
    ..CHATGLM
};

const TRANSFORMERS: Names = Names {
    embedding: "model.embed_tokens",
    blocks: "model.layers",
    qkv: "self_attn.qkv_proj",
    apart: Some(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    dense: "self_attn.o_proj",
    dense_norm: "post_self_attn_layernorm",
    up: "mlp.gate_up_proj",
    down: "mlp.down_proj",
    down_norm: "post_mlp_layernorm",
    final_norm: "model.norm",
    ..CHATGLM
};

const GLM: Names = Names {
    prefix: "glm.",
    embedding: "word_embeddings",
    positions: Some(["transformer.position_embeddings", "transformer.block_position_embeddings"]),
    head: None,
    ..CHATGLM
};

const GLM_130B: Names = Names { head: None, ..CHATGLM };
