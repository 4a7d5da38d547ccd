//! GLM-130B. It was published without a `config.json`; [`PUBLISHED`] takes its place.
//!
//! Source: `configs/model_glm_130b.sh`, `initialize.py` and `generate.py` of THUDM/GLM-130B; SwissArmyTransformer's
//! `glm130B_model.py`.

use super::{
    BlankChoice, Config, Dialect, Fields, MaskKind, Mlp, Norm, QkvOrder, Reader, Residual, Rope,
    SpecialIds,
};
use crate::error::Result;
use crate::generate::sampling::Sampling;

pub(super) const READER: Reader = Reader {
    models: "GLM-130B (model_type \"glm-130b\", or a folder of SwissArmyTransformer without config.json)",
    recognises: |fields| fields.text("model_type") == Some("glm-130b"),
    read,
};

/// A flag of that name has no effect on the layers in the published code.
const EPS: f32 = 1e-5;

fn read(fields: &Fields) -> Result<Config> {
    if let Some(order) = fields.get("layernorm_order").filter(|order| *order != "post") {
        return Err(fields.error(format!("layernorm_order must be \"post\", found {order}")));
    }
    let (hidden, heads, vocab) = (fields.hidden()?, fields.heads()?, fields.vocab("vocab_size")?);
    let layers = fields.layers("num_layers")?;
    let id = |name| fields.id(name, vocab);
    Ok(Config {
        assumed: None,
        architecture: "GLM-130B",
        layers,
        hidden,
        heads,
        kv_heads: heads,
        head_size: fields.head_size(hidden, heads)?,
        intermediate_size: fields.intermediate_size("inner_hidden_size")?,
        vocab,
        max_context: fields.context("max_sequence_length")?,
        norm: Norm::Layer { eps: EPS },
        mlp: Mlp::GeGlu,
        rope: Rope::NeoX { base: fields.positive_or("rotary_base", 10_000.0)? },
        mask: MaskKind::Prefix(BlankChoice::MaskFirst),
        residual: Residual::Scaled((2.0 * layers as f32).sqrt()),
        qkv: QkvOrder::PerHead,
        qkv_bias: true,
        linear_bias: true,
        output_norms: false,
        dialect: Dialect::Glm130B,
        prefix: None,
        latent: None,
        experts: None,
        head_norms: false,
        unusable_defaults: Vec::new(),
        packing: None,
        tied_head: true,
        sampling: Sampling::published(0.8, 0.8),
        special: SpecialIds {
            sop: Some(id("sop_token_id")?),
            ends: vec![id("eos_token_id")?, id("eop_token_id")?],
            mask: Some(id("mask_token_id")?),
            smask: Some(id("smask_token_id")?),
            gmask: Some(id("gmask_token_id")?),
        },
    })
}

/// The published model as a `config.json`.
pub(crate) const PUBLISHED: &str = r#"{
    "model_type": "glm-130b", "num_layers": 70, "hidden_size": 12288, "inner_hidden_size": 32768, "num_attention_heads": 96,
    "vocab_size": 150528, "max_sequence_length": 2048, "layernorm_order": "post", "rotary_base": 10000,
    "mask_token_id": 150000, "gmask_token_id": 150001, "smask_token_id": 150002, "eod_token_id": 150003,
    "sop_token_id": 150004, "eop_token_id": 150005, "eos_token_id": 20002, "num_image_tokens": 20000
}"#;
