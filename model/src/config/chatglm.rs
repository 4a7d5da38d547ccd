//! ChatGLM-6B, the first version: `model_type` "chatglm" with `inner_hidden_size` (its successors call it otherwise).
//!
//! Source: `configuration_chatglm.py` and `modeling_chatglm.py` of THUDM/chatglm-6b.

use super::{Config, Fields, MaskKind, Mlp, Norm, QkvOrder, Residual, Rope, SpecialIds};
use crate::error::Result;

pub(super) const SUPPORTED: &str =
    "ChatGLM-6B (model_type \"chatglm\" with inner_hidden_size, from version 1.1 on)";

/// The published code scales residuals by √(2·28) whatever the number of layers: the count never reaches its blocks.
const RESIDUAL_LAYERS: f32 = 28.0;

pub(super) fn recognises(fields: &Fields) -> bool {
    fields.text("model_type") == Some("chatglm") && fields.has("inner_hidden_size")
}

pub(super) fn read(fields: &Fields) -> Result<Config> {
    let hidden = fields.size("hidden_size", 8..=1 << 17)?;
    let heads = fields.size("num_attention_heads", 1..=1 << 10)?;
    let vocab = fields.size("vocab_size", 1..=1 << 24)?;
    if !hidden.is_multiple_of(heads) {
        let problem = format!("hidden_size {hidden} is no multiple of num_attention_heads {heads}");
        return Err(fields.error(problem));
    }
    let head_size = hidden / heads;
    if !head_size.is_multiple_of(8) || head_size > glm_kernels::MAX_HEAD_SIZE {
        return Err(fields.error(format!(
            "hidden_size / num_attention_heads is a head size of {head_size}; it must be a multiple of 8 up to {}",
            glm_kernels::MAX_HEAD_SIZE
        )));
    }
    if !fields.flag("position_encoding_2d", true)? {
        return Err(fields.error("position_encoding_2d must be true".to_owned()));
    }
    let id = |name| fields.size(name, 0..=vocab - 1).map(|id| id as u32);
    Ok(Config {
        architecture: "ChatGLM-6B",
        layers: fields.size("num_layers", 1..=1 << 10)?,
        hidden,
        heads,
        kv_heads: heads,
        head_size,
        inner: fields.size("inner_hidden_size", 1..=1 << 20)?,
        vocab,
        max_context: fields.size("max_sequence_length", 1..=1 << 16)?,
        norm: Norm::Layer { eps: fields.positive("layernorm_epsilon")? },
        mlp: Mlp::GeluTanh,
        rope: Rope::Halves { base: 10_000.0 },
        mask: MaskKind::Prefix,
        residual: Residual::Scaled((2.0 * RESIDUAL_LAYERS).sqrt()),
        qkv: QkvOrder::PerHead,
        tied_head: fields.flag("tie_word_embeddings", true)?,
        special: SpecialIds {
            bos: id("bos_token_id")?,
            eos: id("eos_token_id")?,
            mask: id("mask_token_id")?,
            gmask: id("gmask_token_id")?,
            pad: id("pad_token_id")?,
        },
    })
}
