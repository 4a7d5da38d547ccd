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
    /// Norms of each head of queries and keys.
    pub(super) head_norms: [&'static str; 2],
    pub(super) latent: LatentNames,
    pub(super) attention_output: &'static str,
    pub(super) attention_output_norm: &'static str,
    pub(super) feed_forward_norm: &'static str,
    pub(super) up: &'static str,
    /// Gate and up projection, if the published files may have two matrices.
    pub(super) gate_apart: Option<[&'static str; 2]>,
    pub(super) down: &'static str,
    pub(super) experts: ExpertNames,
    pub(super) feed_forward_output_norm: &'static str,
    pub(super) final_norm: &'static str,
    /// `None` if the embedding is always the head, too.
    pub(super) head: Option<&'static str>,
    /// What the names of tensors begin with that this program does not read: those of another part of the model.
    pub(super) left_out: Option<&'static str>,
    /// Names of what only a layer has that predicts a further token.
    pub(super) prediction: &'static [&'static str],
}

/// Names of latent attention.
pub(super) struct LatentNames {
    /// The first matrix of the queries, the latent vector and the rotated part of the key in one matrix. Quantized files always have this
    /// one.
    pub(super) down: &'static str,
    /// Its parts in published files: the first matrix of the queries, or the only one, and the rest.
    pub(super) query_down: &'static str,
    pub(super) query: &'static str,
    pub(super) key_value_down: &'static str,
    pub(super) query_norm: &'static str,
    pub(super) query_up: &'static str,
    pub(super) norm: &'static str,
    /// What computes keys and values from the latent vector, in published files.
    pub(super) key_value_up: &'static str,
    /// Its parts: that of the keys, transposed head by head, and that of the values.
    pub(super) key_up: &'static str,
    pub(super) value_up: &'static str,
}

/// Names of a feed-forward block with experts.
pub(super) struct ExpertNames {
    pub(super) router: &'static str,
    /// What is added to the scores for the choice, the whole name of the tensor.
    pub(super) router_bias: &'static str,
    /// The list of experts; a dot and the number of the expert follow.
    pub(super) list: &'static str,
    /// The expert that all tokens have.
    pub(super) shared: &'static str,
    /// Names in an expert.
    pub(super) gate: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    /// All experts in one tensor, the whole names: gate and up projection, and down projection.
    pub(super) joined_up: &'static str,
    pub(super) joined_down: &'static str,
}

const NO_LATENT: LatentNames = LatentNames {
    down: "",
    query_down: "",
    query: "",
    key_value_down: "",
    query_norm: "",
    query_up: "",
    norm: "",
    key_value_up: "",
    key_up: "",
    value_up: "",
};

const NO_EXPERTS: ExpertNames = ExpertNames {
    router: "",
    router_bias: "",
    list: "",
    shared: "",
    gate: "",
    up: "",
    down: "",
    joined_up: "",
    joined_down: "",
};

pub(super) fn names(dialect: Dialect) -> &'static Names {
    match dialect {
        Dialect::ChatGlm => &CHATGLM,
        Dialect::ChatGlm2 => &CHATGLM2,
        Dialect::Transformers => &TRANSFORMERS,
        Dialect::Glm4v => &GLM4V,
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
    head_norms: ["", ""],
    latent: NO_LATENT,
    attention_output: "attention.dense",
    attention_output_norm: "",
    feed_forward_norm: "post_attention_layernorm",
    up: "mlp.dense_h_to_4h",
    gate_apart: None,
    down: "mlp.dense_4h_to_h",
    experts: NO_EXPERTS,
    feed_forward_output_norm: "",
    final_norm: "transformer.final_layernorm",
    head: Some("lm_head"),
    left_out: None,
    prediction: &[],
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
    head_norms: ["self_attn.q_norm", "self_attn.k_norm"],
    latent: LatentNames {
        down: "self_attn.qkv_a_proj",
        query_down: "self_attn.q_a_proj",
        query: "self_attn.q_proj",
        key_value_down: "self_attn.kv_a_proj_with_mqa",
        query_norm: "self_attn.q_a_layernorm",
        query_up: "self_attn.q_b_proj",
        norm: "self_attn.kv_a_layernorm",
        key_value_up: "self_attn.kv_b_proj",
        key_up: "self_attn.k_b_proj",
        value_up: "self_attn.v_b_proj",
    },
    attention_output: "self_attn.o_proj",
    attention_output_norm: "post_self_attn_layernorm",
    up: "mlp.gate_up_proj",
    gate_apart: Some(["mlp.gate_proj", "mlp.up_proj"]),
    down: "mlp.down_proj",
    experts: ExpertNames {
        router: "mlp.gate",
        router_bias: "mlp.gate.e_score_correction_bias",
        list: "mlp.experts",
        shared: "mlp.shared_experts",
        gate: "gate_proj",
        up: "up_proj",
        down: "down_proj",
        joined_up: "mlp.experts.gate_up_proj",
        joined_down: "mlp.experts.down_proj",
    },
    prediction: &["eh_proj", "enorm", "hnorm", "shared_head.norm"],
    feed_forward_output_norm: "post_mlp_layernorm",
    final_norm: "model.norm",
    ..CHATGLM
};

const GLM4V: Names = Names {
    embedding: "model.language_model.embed_tokens",
    layers: "model.language_model.layers",
    final_norm: "model.language_model.norm",
    left_out: Some("model.visual."),
    ..TRANSFORMERS
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
    head_norms: ["", ""],
    latent: NO_LATENT,
    attention_output: "attn_output",
    attention_output_norm: "post_attention_norm",
    feed_forward_norm: "ffn_norm",
    up: "ffn_up",
    gate_apart: None,
    down: "ffn_down",
    experts: NO_EXPERTS,
    feed_forward_output_norm: "post_ffw_norm",
    final_norm: "output_norm",
    head: Some("output"),
    left_out: None,
    prediction: &[],
};
