//! `glm` and `glm4` of the transformers library: GLM-4-9B, GLM-Edge; GLM-4-0414, GLM-Z1.
//!
//! Source: `models/glm` and `models/glm4` of huggingface/transformers.

use super::{
    Config, Dialect, Fields, MaskKind, Mlp, Norm, QkvOrder, Reader, Residual, Rope, SpecialIds,
};
use crate::error::Result;
use crate::files::variant::Known;
use crate::generate::sampling::Sampling;

pub(super) const READER: Reader = Reader {
    models: "GLM-4-9B, GLM-Edge (architecture GlmForCausalLM), GLM-4-0414, GLM-Z1 (Glm4ForCausalLM)",
    recognises: |fields| match fields.text("model_type") {
        // The original GLM has the same model_type.
        Some("glm") => {
            let is_named = fields
                .get("architectures")
                .is_some_and(|names| names.to_string().contains("GlmFor"));
            !fields.has("block_position_encoding") && (is_named || fields.has("num_hidden_layers"))
        }
        Some("glm4") => true,
        _ => false,
    },
    read,
};

/// The defaults of the library for both, for fields that a file may leave out: heads of keys and values, the size of a head, the context
/// and the number in the norm. The default of `attention_bias` is true.
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 128;
const CONTEXT: usize = 131_072;
const EPS: f32 = 1.5625e-7;
const ENDS: [u32; 3] = [151_329, 151_336, 151_338];

fn read(fields: &Fields) -> Result<Config> {
    let is_glm4 = fields.text("model_type") == Some("glm4");
    if let Some(act) = fields.get("hidden_act").filter(|act| *act != "silu") {
        return Err(fields.error(format!("hidden_act must be \"silu\", found {act}")));
    }
    let (hidden, heads, vocab) = (fields.hidden()?, fields.heads()?, fields.vocab("vocab_size")?);
    let head_size = fields.size_or("head_dim", 1..=glm_kernels::MAX_HEAD_SIZE, HEAD_DIM)?;
    let head_size = fields.check_head_size("head_dim", head_size)?;
    Ok(Config {
        assumed: None,
        architecture: match Known::of(fields.folder())? {
            // GLM-4-0414 has its own name, which folders often shorten.
            Some(known) if known.name != "GLM-4" => known.name,
            _ if is_glm4 => "GLM-4-0414",
            _ => "GLM-4",
        },
        layers: fields.layers("num_hidden_layers")?,
        hidden,
        heads,
        kv_heads: match fields.has("num_key_value_heads") {
            false if heads.is_multiple_of(KV_HEADS) => KV_HEADS,
            _ => fields.kv_heads("num_key_value_heads", heads)?,
        },
        head_size,
        intermediate_size: fields.intermediate_size("intermediate_size")?,
        vocab,
        max_context: match fields.has("max_position_embeddings") {
            true => fields.context("max_position_embeddings")?,
            false => CONTEXT,
        },
        norm: Norm::Rms { eps: fields.positive_or("rms_norm_eps", EPS)? },
        mlp: Mlp::SwiGlu,
        rope: rope(fields, head_size)?,
        mask: MaskKind::Causal,
        residual: Residual::Plain,
        qkv: QkvOrder::Concatenated,
        qkv_bias: fields.flag("attention_bias", true)?,
        linear_bias: false,
        output_norms: is_glm4,
        dialect: Dialect::Transformers,
        prefix: None,
        unusable_defaults: Vec::new(),
        packing: None,
        tied_head: fields.flag("tie_word_embeddings", false)?,
        sampling: Sampling::published(0.8, 0.8),
        special: SpecialIds { ends: ends(fields, vocab)?, ..SpecialIds::default() },
    })
}

/// The ids that end an answer; those of the class where the file says nothing.
fn ends(fields: &Fields, vocab: usize) -> Result<Vec<u32>> {
    match fields.has("eos_token_id") {
        true => fields.ids("eos_token_id", vocab),
        false => Ok(ENDS.into_iter().filter(|&id| (id as usize) < vocab).collect()),
    }
}

/// Version 5 of the library has the fields in `rope_parameters`, earlier versions at the top level.
fn rope(fields: &Fields, head_size: usize) -> Result<Rope> {
    for scaled in ["rope_scaling", "rope_parameters"] {
        let object = fields.nested(scaled);
        let kind = object.get("rope_type").or_else(|| object.get("type"));
        if let Some(kind) = kind.filter(|kind| *kind != "default") {
            return Err(fields.error(format!("{scaled} of type {kind} is not supported: remove it, and the model reads up to max_position_embeddings tokens")));
        }
    }
    let nested = fields.nested("rope_parameters");
    let number = |name, default| nested.positive_or(name, fields.positive_or(name, default)?);
    let factor = number("partial_rotary_factor", 0.5)?;
    let rotary_dim = (head_size as f32 * factor) as usize;
    if !(2..=head_size).contains(&rotary_dim) || !rotary_dim.is_multiple_of(2) {
        return Err(fields.error(format!(
            "partial_rotary_factor {factor} rotates {rotary_dim} of {head_size} elements of a head: no even number up to all"
        )));
    }
    let base = number("rope_theta", 10_000.0)?;
    Ok(Rope::Interleaved { base, rotary_dim, scaling_factor: 1.0 })
}
