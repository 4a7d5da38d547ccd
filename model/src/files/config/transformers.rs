//! `glm` and `glm4` of the transformers library: GLM-4-9B, GLM-Edge; GLM-4-0414, GLM-Z1. The text part of `glm4v` is like `glm4`.
//!
//! Source: `models/glm` and `models/glm4` of huggingface/transformers.

use super::{
    Config, Dialect, Fields, MaskKind, Mlp, Norm, QkvOrder, Reader, Residual, Rope, SpecialIds,
};
use crate::error::Result;
use crate::files::variant::Known;
use crate::generate::sampling::Sampling;
use crate::limits::config::MAX_HEAD_SIZE;

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

/// What differs between the classes of the library with these layers.
pub(super) struct Class {
    /// The name for people of a model that has no other.
    pub(super) name: &'static str,
    /// Whether the outputs of attention and MLP are normalized, too.
    pub(super) output_norms: bool,
    pub(super) dialect: Dialect,
    /// The default of `head_dim`; without one, all heads together have the hidden size.
    pub(super) head_dim: Option<usize>,
    /// The default of `max_position_embeddings`.
    pub(super) context: usize,
    /// The default of `rms_norm_eps`.
    pub(super) eps: f32,
}

const GLM: Class = Class {
    name: "GLM-4",
    output_norms: false,
    dialect: Dialect::Transformers,
    head_dim: Some(128),
    context: 131_072,
    eps: 1.5625e-7,
};

const GLM4: Class = Class { name: "GLM-4-0414", output_norms: true, ..GLM };

/// The defaults of all classes: heads of keys and values, and the ids that end an answer. The default of `attention_bias` is true.
const KV_HEADS: usize = 2;
const ENDS: [u32; 3] = [151_329, 151_336, 151_338];

fn read(fields: &Fields) -> Result<Config> {
    let is_glm4 = fields.text("model_type") == Some("glm4");
    of_class(fields, if is_glm4 { &GLM4 } else { &GLM })
}

/// The configuration of a model of a class, from the fields of its text part.
pub(super) fn of_class(fields: &Fields, class: &Class) -> Result<Config> {
    if let Some(act) = fields.get("hidden_act").filter(|act| *act != "silu") {
        return Err(fields.error(format!("hidden_act must be \"silu\", found {act}")));
    }
    let (hidden, heads, vocab) = (fields.hidden()?, fields.heads()?, fields.vocab("vocab_size")?);
    let head_size = match class.head_dim {
        None if !fields.has("head_dim") => fields.head_size(hidden, heads)?,
        default => {
            let default = default.unwrap_or_default();
            let size = fields.size_or("head_dim", 1..=MAX_HEAD_SIZE, default)?;
            fields.check_head_size("head_dim", size)?
        }
    };
    Ok(Config {
        assumed: None,
        architecture: match Known::of(fields.folder())? {
            // GLM-4-0414 has its own name, which folders often shorten.
            Some(known) if known.name != "GLM-4" => known.name,
            _ => class.name,
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
            false => class.context,
        },
        norm: Norm::Rms { eps: fields.positive_or("rms_norm_eps", class.eps)? },
        mlp: Mlp::SwiGlu,
        rope: rope(fields, head_size, 0.5)?,
        mask: MaskKind::Causal,
        residual: Residual::Plain,
        qkv: QkvOrder::Concatenated,
        qkv_bias: fields.flag("attention_bias", true)?,
        linear_bias: false,
        output_norms: class.output_norms,
        dialect: class.dialect,
        prefix: None,
        latent: None,
        experts: None,
        head_norms: false,
        unusable_defaults: Vec::new(),
        packing: None,
        tied_head: fields.flag("tie_word_embeddings", false)?,
        sampling: Sampling::published(0.8, 0.8),
        special: SpecialIds { ends: ends(fields, vocab)?, ..SpecialIds::default() },
    })
}

/// The ids that end an answer; those of the class where the file says nothing.
pub(super) fn ends(fields: &Fields, vocab: usize) -> Result<Vec<u32>> {
    match fields.has("eos_token_id") {
        true => fields.ids("eos_token_id", vocab),
        false => Ok(ENDS.into_iter().filter(|&id| (id as usize) < vocab).collect()),
    }
}

/// Version 5 of the library has the fields in `rope_parameters`, earlier versions at the top level. `rotated` is the part of a head that is
/// rotated where the file does not say it.
pub(super) fn rope(fields: &Fields, head_size: usize, rotated: f32) -> Result<Rope> {
    for scaled in ["rope_scaling", "rope_parameters"] {
        let object = fields.nested(scaled);
        let kind = object.get("rope_type").or_else(|| object.get("type"));
        if let Some(kind) = kind.filter(|kind| *kind != "default") {
            return Err(fields.error(format!("{scaled} of type {kind} is not supported: remove it, and the model reads up to max_position_embeddings tokens")));
        }
    }
    let nested = fields.nested("rope_parameters");
    let number = |name, default| nested.positive_or(name, fields.positive_or(name, default)?);
    let factor = number("partial_rotary_factor", rotated)?;
    let rotary_dim = (head_size as f32 * factor) as usize;
    if !(2..=head_size).contains(&rotary_dim) || !rotary_dim.is_multiple_of(2) {
        return Err(fields.error(format!(
            "partial_rotary_factor {factor} rotates {rotary_dim} of {head_size} elements of a head: no even number up to all"
        )));
    }
    check_sections(fields, rotary_dim)?;
    let base = number("rope_theta", 10_000.0)?;
    Ok(Rope::Interleaved { base, rotary_dim, scaling_factor: 1.0 })
}

/// Checks the parts of a head that a model which reads images rotates by the positions in time, height and width. In a text, all three
/// are the same, so the parts mean nothing else.
fn check_sections(fields: &Fields, rotary_dim: usize) -> Result<()> {
    const NAME: &str = "mrope_section";
    for object in ["rope_scaling", "rope_parameters"].map(|name| fields.nested(name)) {
        let Some(sections) = object.get(NAME) else { continue };
        let sizes = sections.as_array().into_iter().flatten().map(|size| size.as_u64());
        let sum = sizes.reduce(|sum, size| sum?.checked_add(size?)).flatten();
        if sum != Some(rotary_dim as u64 / 2) {
            let found = object.shown(NAME);
            return Err(fields.error(format!(
                "{NAME} must be sizes with the sum {}, half of the {rotary_dim} elements of a head that are rotated, found {found}",
                rotary_dim / 2
            )));
        }
    }
    Ok(())
}
