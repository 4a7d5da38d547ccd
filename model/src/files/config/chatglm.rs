//! ChatGLM-6B, the first version: `model_type` "chatglm" with `inner_hidden_size` (later versions have another name for it).
//!
//! Source: `configuration_chatglm.py` and `modeling_chatglm.py` of THUDM/chatglm-6b.

use super::{
    BlankChoice, Config, Dialect, Fields, MaskKind, Mlp, Norm, QkvOrder, Reader, Residual, Rope,
    SpecialIds,
};
use crate::error::Result;
use crate::generate::sampling::Sampling;

pub(super) const READER: Reader = Reader {
    models: "ChatGLM-6B (model_type \"chatglm\" with inner_hidden_size, from version 1.1 on)",
    recognises: |fields| {
        // The fields that later models do not have. If one is missing, its reader says so.
        let own =
            ["inner_hidden_size", "position_encoding_2d", "max_sequence_length", "gmask_token_id"];
        let is_first = own.iter().any(|name| fields.has(name)) && !fields.has("ffn_hidden_size");
        fields.text("model_type") == Some("chatglm") && is_first
    },
    read,
};

/// The published code scales residuals by √(2·28) for any number of layers, because it does not pass the number to its layers.
const RESIDUAL_LAYERS: f32 = 28.0;

fn read(fields: &Fields) -> Result<Config> {
    let (hidden, heads, vocab) = (fields.hidden()?, fields.heads()?, fields.vocab("vocab_size")?);
    fields.require("position_encoding_2d", true)?;
    let id = |name| fields.id(name, vocab);
    Ok(Config {
        assumed: None,
        architecture: "ChatGLM-6B",
        layers: fields.layers("num_layers")?,
        hidden,
        heads,
        kv_heads: heads,
        head_size: fields.head_size(hidden, heads)?,
        intermediate_size: fields.intermediate_size("inner_hidden_size")?,
        vocab,
        max_context: fields.context("max_sequence_length")?,
        norm: Norm::Layer { eps: fields.positive("layernorm_epsilon")? },
        mlp: Mlp::GeluTanh,
        rope: Rope::TwoD { base: 10_000.0 },
        mask: MaskKind::Prefix(BlankChoice::GmaskFirst),
        residual: Residual::Scaled((2.0 * RESIDUAL_LAYERS).sqrt()),
        qkv: QkvOrder::PerHead,
        qkv_bias: true,
        linear_bias: true,
        output_norms: false,
        dialect: Dialect::ChatGlm,
        prefix: None,
        latent: None,
        experts: None,
        head_norms: false,
        unusable_defaults: Vec::new(),
        packing: None,
        tied_head: fields.flag("tie_word_embeddings", true)?,
        sampling: Sampling::published(0.95, 0.7),
        special: SpecialIds {
            sop: Some(id("bos_token_id")?),
            ends: vec![id("eos_token_id")?],
            mask: Some(id("mask_token_id")?),
            smask: None,
            gmask: Some(id("gmask_token_id")?),
        },
    })
}
