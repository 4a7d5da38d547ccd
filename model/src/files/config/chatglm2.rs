//! ChatGLM2-6B and models of the same architecture: ChatGLM3-6B, CodeGeeX2-6B, GLM-4-9B as first published.
//! `model_type` "chatglm" with `ffn_hidden_size`.
//!
//! Source: `configuration_chatglm.py` and `modeling_chatglm.py` of THUDM/chatglm2-6b, chatglm2-6b-32k, chatglm3-6b and
//! glm-4-9b-chat.

use super::{
    Config, Dialect, Fields, MaskKind, Mlp, Norm, QkvOrder, Reader, Residual, Rope, SpecialIds,
};
use crate::error::Result;
use crate::files::variant::{Identity, Variant};
use crate::generate::sampling::Sampling;
use crate::limits::config::MAX_HEAD_SIZE;

pub(super) const READER: Reader = Reader {
    models: "ChatGLM2-6B, ChatGLM3-6B, CodeGeeX2-6B, GLM-4-9B (model_type \"chatglm\" with ffn_hidden_size)",
    recognises: |fields| {
        let own = ["ffn_hidden_size", "padded_vocab_size", "kv_channels", "seq_length", "rmsnorm"];
        fields.text("model_type") == Some("chatglm") && own.iter().any(|name| fields.has(name))
    },
    read,
};

fn read(fields: &Fields) -> Result<Config> {
    for (name, value) in [
        ("rmsnorm", true),
        ("post_layer_norm", true),
        ("original_rope", true),
        ("apply_residual_connection_post_layernorm", false),
    ] {
        fields.require(name, value)?;
    }
    let identity = Identity::of(fields.folder())?;
    let heads = fields.heads()?;
    let vocab = fields.vocab("padded_vocab_size")?;
    let head_size = fields.size("kv_channels", 1..=MAX_HEAD_SIZE)?;
    let linear_bias = fields.flag("add_bias_linear", false)?;
    Ok(Config {
        assumed: identity.variant.filter(|_| identity.is_assumed),
        architecture: identity.name.unwrap_or("GLM-4"),
        layers: fields.layers("num_layers")?,
        hidden: fields.hidden()?,
        heads,
        kv_heads: match fields.flag("multi_query_attention", false)? {
            true => fields.kv_heads("multi_query_group_num", heads)?,
            false => heads,
        },
        head_size: fields.check_head_size("kv_channels", head_size)?,
        intermediate_size: fields.intermediate_size("ffn_hidden_size")?,
        vocab,
        max_context: fields.context("seq_length")?,
        norm: Norm::Rms { eps: fields.positive("layernorm_epsilon")? },
        mlp: Mlp::SwiGlu,
        rope: rope(fields, head_size, identity.variant == Some(Variant::ChatGlm2))?,
        mask: MaskKind::Causal,
        residual: Residual::Plain,
        qkv: QkvOrder::Concatenated,
        qkv_bias: fields.flag("add_qkv_bias", false)? || linear_bias,
        linear_bias,
        output_norms: false,
        dialect: Dialect::ChatGlm2,
        prefix: None,
        latent: None,
        experts: None,
        head_norms: false,
        unusable_defaults: Vec::new(),
        packing: None,
        tied_head: fields.flag("tie_word_embeddings", false)?,
        sampling: Sampling::published(0.8, 0.8),
        special: SpecialIds { ends: fields.ids("eos_token_id", vocab)?, ..SpecialIds::default() },
    })
}

/// `rope_ratio` multiplies the base of the frequencies. In ChatGLM2-6B-32K it divides the position instead.
fn rope(fields: &Fields, head_size: usize, is_chatglm2: bool) -> Result<Rope> {
    let ratio = fields.positive_or("rope_ratio", 1.0)?;
    let (base, scaling_factor) = match is_chatglm2 {
        true => (10_000.0, ratio),
        false => (10_000.0 * ratio, 1.0),
    };
    Ok(Rope::Interleaved { base, rotary_dim: head_size / 2, scaling_factor })
}
