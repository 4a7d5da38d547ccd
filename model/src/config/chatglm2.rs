//! ChatGLM2-6B and what has its network: ChatGLM3-6B, CodeGeeX2-6B, GLM-4-9B as first published. `model_type` "chatglm" with
//! `ffn_hidden_size`.
//!
//! Source: `configuration_chatglm.py` and `modeling_chatglm.py` of THUDM/chatglm2-6b, chatglm2-6b-32k, chatglm3-6b and
//! glm-4-9b-chat.

use std::path::Path;

use super::{
    Config, Dialect, Fields, MaskKind, Mlp, Norm, Positions, QkvOrder, Reader, Residual, SpecialIds,
};
use crate::config;
use crate::error::Result;

pub(super) const READER: Reader = Reader {
    models: "ChatGLM2-6B, ChatGLM3-6B, CodeGeeX2-6B, GLM-4-9B (model_type \"chatglm\" with ffn_hidden_size)",
    recognises: |fields| {
        fields.text("model_type") == Some("chatglm") && fields.has("ffn_hidden_size")
    },
    read,
};

const CHATGLM2: &str = "ChatGLM2-6B";

fn read(fields: &Fields) -> Result<Config> {
    for (name, value) in [
        ("rmsnorm", true),
        ("post_layer_norm", true),
        ("original_rope", true),
        ("apply_residual_connection_post_layernorm", false),
    ] {
        fields.require(name, value)?;
    }
    let heads = fields.heads()?;
    let vocab = fields.vocab("padded_vocab_size")?;
    let head_size = fields.size("kv_channels", 1..=glm_kernels::MAX_HEAD_SIZE)?;
    let linear_bias = fields.flag("add_bias_linear", false)?;
    Ok(Config {
        architecture: name(fields),
        layers: fields.layers("num_layers")?,
        hidden: fields.hidden()?,
        heads,
        kv_heads: match fields.flag("multi_query_attention", false)? {
            true => fields.kv_heads("multi_query_group_num", heads)?,
            false => heads,
        },
        head_size: fields.check_head_size("kv_channels", head_size)?,
        inner: fields.inner("ffn_hidden_size")?,
        vocab,
        max_context: fields.context("seq_length")?,
        norm: Norm::Rms { eps: fields.positive("layernorm_epsilon")? },
        mlp: Mlp::SwiGlu,
        positions: positions(fields, head_size)?,
        mask: MaskKind::Causal,
        residual: Residual::Plain,
        qkv: QkvOrder::Concatenated,
        qkv_bias: fields.flag("add_qkv_bias", false)? || linear_bias,
        linear_bias,
        output_norms: false,
        dialect: Dialect::ChatGlm2,
        tied_head: fields.flag("tie_word_embeddings", false)?,
        special: SpecialIds {
            ends: fields.ids("eos_token_id", vocab)?,
            pad: fields.id_or_none("pad_token_id", vocab)?,
            ..SpecialIds::default()
        },
    })
}

/// The members of the family are told apart by the name that they were published under, or their folder's.
fn name(fields: &Fields) -> &'static str {
    let dir = fields.path.parent().unwrap_or(Path::new(""));
    let names = config::names(fields.text("_name_or_path"), dir);
    let known = [
        ("codegeex2", "CodeGeeX2-6B"),
        ("chatglm2", CHATGLM2),
        ("chatglm3", "ChatGLM3-6B"),
        ("codegeex4", "CodeGeeX4-9B"),
        ("glm-4", "GLM-4-9B"),
    ];
    let of = |name: &String| known.iter().find(|(part, _)| name.contains(part));
    names.iter().find_map(of).map_or("ChatGLM2", |(_, name)| name)
}

/// `rope_ratio` multiplies the base of the frequencies, except in ChatGLM2-6B-32K, where it divides the position.
fn positions(fields: &Fields, head_size: usize) -> Result<Positions> {
    let ratio = fields.positive_or("rope_ratio", 1.0)?;
    let (base, stretch) = match name(fields) {
        CHATGLM2 => (10_000.0, ratio),
        _ => (10_000.0 * ratio, 1.0),
    };
    Ok(Positions::Pairs { base, elements: head_size / 2, stretch })
}
