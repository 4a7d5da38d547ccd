//! The original GLM, which fills blanks: GLM-2B, GLM-10B, and GLM-Large and GLM-10B in Chinese.
//!
//! The special ids are in `added_tokens.json`, or else in `config.json`. Without them the weights can be inspected and quantized,
//! but the model cannot generate.
//!
//! Source: `configuration_glm.py`, `modeling_glm.py` and `tokenization_glm.py` of THUDM/glm-10b.

use super::{
    BlankChoice, Config, Dialect, Fields, MaskKind, Mlp, Norm, QkvOrder, Reader, Residual, Rope,
    SpecialIds,
};
use crate::error::Result;
use crate::files::model_dir::ADDED_TOKENS;
use crate::generate::sampling::Sampling;

pub(super) const READER: Reader = Reader {
    models: "GLM (model_type \"glm\" with block_position_encoding)",
    recognises: |fields| {
        fields.text("model_type") == Some("glm") && fields.has("block_position_encoding")
    },
    read,
};

/// Fixed in the published code.
const EPS: f32 = 1e-5;

/// Names in `added_tokens.json`, and in a `config.json` with the ids.
const SOP: [&str; 2] = ["<|startofpiece|>", "sop_token_id"];
const EOP: [&str; 2] = ["<|endofpiece|>", "eop_token_id"];
const MASKS: [[&str; 2]; 3] =
    [["[MASK]", "mask_token_id"], ["[sMASK]", "smask_token_id"], ["[gMASK]", "gmask_token_id"]];

fn read(fields: &Fields) -> Result<Config> {
    fields.require("block_position_encoding", true)?;
    fields.require("relative_encoding", false)?;
    let (hidden, heads, vocab) = (fields.hidden()?, fields.heads()?, fields.vocab("vocab_size")?);
    Ok(Config {
        assumed: None,
        architecture: "GLM",
        layers: fields.layers("num_layers")?,
        hidden,
        heads,
        kv_heads: heads,
        head_size: fields.head_size(hidden, heads)?,
        intermediate_size: 4 * hidden,
        vocab,
        max_context: fields.context("max_sequence_length")?,
        norm: Norm::Layer { eps: EPS },
        mlp: Mlp::GeluErf,
        rope: Rope::None,
        mask: MaskKind::Prefix(BlankChoice::Leftmost),
        residual: Residual::Plain,
        qkv: QkvOrder::Concatenated,
        qkv_bias: true,
        linear_bias: true,
        output_norms: false,
        dialect: Dialect::Glm,
        prefix: None,
        latent: None,
        experts: None,
        head_norms: false,
        unusable_defaults: Vec::new(),
        packing: None,
        tied_head: true,
        sampling: Sampling::published(0.8, 0.8),
        special: special(fields, vocab)?,
    })
}

fn special(fields: &Fields, vocab: usize) -> Result<SpecialIds> {
    let added = Fields::open(fields.folder(), ADDED_TOKENS)?;
    let is_there = fields.folder().has(ADDED_TOKENS);
    let find = |[name, field]: [&str; 2]| match is_there {
        true => added.id_or_none(name, vocab),
        false => fields.id_or_none(field, vocab),
    };
    let [mask, smask, gmask] = MASKS.map(find);
    Ok(SpecialIds {
        sop: find(SOP)?,
        ends: find(EOP)?.into_iter().collect(),
        mask: mask?,
        smask: smask?,
        gmask: gmask?,
    })
}
