//! `glm4_moe` and `glm4_moe_lite` of the transformers library: GLM-4.5, GLM-4.6 and GLM-4.7 with their relatives of the same network, and
//! GLM-4.7-Flash. Both have experts; the second has latent attention.
//!
//! The layer behind the last one predicts a further token (`num_nextn_predict_layers`). It is left out.
//!
//! Source: `models/glm4_moe` and `models/glm4_moe_lite` of huggingface/transformers.

use serde_json::Value;

use super::glm4v::text_part;
use super::transformers::{ends, rope};
use super::{
    Config, Dialect, Experts, Fields, Latent, MaskKind, Mlp, Norm, QkvOrder, Reader, Residual,
    Rope, SpecialIds,
};
use crate::error::Result;
use crate::files::variant::Known;
use crate::generate::sampling::Sampling;
use crate::limits::config::{
    MAX_ALL_EXPERTS, MAX_ALL_HEADS, MAX_EXPERTS, MAX_HEAD_SIZE, MAX_HIDDEN, MAX_INTERMEDIATE,
};

pub(super) const READER: Reader = Reader {
    models: "GLM-4.7-Flash (Glm4MoeLiteForCausalLM), GLM-4.5, GLM-4.6, GLM-4.7 (Glm4MoeForCausalLM), the text part of GLM-4.5V and \
             GLM-4.6V (Glm4vMoeForConditionalGeneration)",
    recognises: |fields| {
        matches!(fields.text("model_type"), Some("glm4_moe" | "glm4_moe_lite" | VISION))
    },
    read,
};

/// The type of models that also read images. Their text part is `glm4_moe` under other names.
const VISION: &str = "glm4v_moe";

/// The ids that end an answer of GLM-4.7-Flash, if the file does not say them.
const ENDS: [u32; 3] = [154_820, 154_827, 154_829];

fn read(fields: &Fields) -> Result<Config> {
    if fields.text("model_type") != Some(VISION) {
        return of_text(fields, false);
    }
    let text = text_part(fields, &["glm4v_moe_text"])?;
    // Its biases have another default.
    let config = of_text(text.as_ref().unwrap_or(fields), true)?;
    let tied_head = fields.flag("tie_word_embeddings", config.tied_head)?;
    Ok(Config { dialect: Dialect::Glm4v, tied_head, ..config })
}

fn of_text(fields: &Fields, has_biases: bool) -> Result<Config> {
    let is_lite = fields.text("model_type") == Some("glm4_moe_lite");
    if let Some(act) = fields.get("hidden_act").filter(|act| *act != "silu") {
        return Err(fields.error(format!("hidden_act must be \"silu\", found {act}")));
    }
    let (hidden, heads, vocab) = (fields.hidden()?, fields.heads()?, fields.vocab("vocab_size")?);
    let layers = fields.layers("num_hidden_layers")?;
    let latent = if is_lite { Some(latent(fields)?) } else { None };
    if latent.is_some() && layers * heads > MAX_ALL_HEADS {
        return Err(fields.error(format!(
            "{layers} layers of {heads} heads (num_attention_heads) are more than {MAX_ALL_HEADS} heads"
        )));
    }
    let (head_size, kv_heads, rope) = match &latent {
        Some(latent) => {
            let rope = rope(fields, latent.rotary_dim, 1.0)?;
            if !matches!(rope, Rope::Interleaved { rotary_dim, .. } if rotary_dim == latent.rotary_dim)
            {
                return Err(fields.error("partial_rotary_factor must be 1 with latent attention"));
            }
            (latent.rank + latent.rotary_dim, 1, rope)
        }
        None => {
            let size = fields.size("head_dim", 1..=MAX_HEAD_SIZE)?;
            let size = fields.check_head_size("head_dim", size)?;
            let rope = match rope(fields, size, 0.5)? {
                Rope::Interleaved { base, rotary_dim, scaling_factor } => {
                    Rope::Halves { base, rotary_dim, scaling_factor }
                }
                other => other,
            };
            (size, fields.kv_heads("num_key_value_heads", heads)?, rope)
        }
    };
    let qkv_bias = fields.flag("attention_bias", has_biases)?;
    if is_lite && qkv_bias {
        return Err(fields.error("attention_bias is not supported with latent attention"));
    }
    let ends = match is_lite && !fields.has("eos_token_id") {
        true => ENDS.into_iter().filter(|&id| (id as usize) < vocab).collect(),
        false => ends(fields, vocab)?,
    };
    Ok(Config {
        assumed: None,
        architecture: match Known::of(fields.folder())? {
            Some(known) if known.name != "GLM-4" => known.name,
            _ if is_lite => "GLM-4.7-Flash",
            _ => "GLM-4.5",
        },
        layers,
        hidden,
        heads,
        kv_heads,
        head_size,
        latent,
        head_norms: !is_lite && fields.flag("use_qk_norm", false)?,
        intermediate_size: fields.intermediate_size("intermediate_size")?,
        experts: Some(experts(fields, layers, is_lite)?),
        vocab,
        max_context: fields.context("max_position_embeddings")?,
        norm: Norm::Rms { eps: fields.positive("rms_norm_eps")? },
        mlp: Mlp::SwiGlu,
        rope,
        mask: MaskKind::Causal,
        residual: Residual::Plain,
        qkv: QkvOrder::Concatenated,
        qkv_bias,
        linear_bias: false,
        output_norms: false,
        dialect: Dialect::Transformers,
        prefix: None,
        unusable_defaults: Vec::new(),
        packing: None,
        tied_head: fields.flag("tie_word_embeddings", false)?,
        sampling: Sampling::published(1.0, 0.95),
        special: SpecialIds { ends, ..SpecialIds::default() },
    })
}

fn latent(fields: &Fields) -> Result<Latent> {
    fields.require("rope_interleave", true)?;
    let size = |name: &str, least: usize| {
        let size = fields.size(name, least..=glm_kernels::MAX_HEAD_SIZE)?;
        if size.is_multiple_of(8) {
            return Ok(size);
        }
        Err(fields.error(format!("{name} must be a multiple of 8, found {size}")))
    };
    let latent = Latent {
        // Without one, `null` is written.
        query_rank: match fields.is_null("q_lora_rank") {
            true => None,
            false => Some(fields.size("q_lora_rank", 8..=MAX_HIDDEN)?),
        },
        rank: size("kv_lora_rank", 8)?,
        plain_dim: size("qk_nope_head_dim", 8)?,
        rotary_dim: size("qk_rope_head_dim", 8)?,
        value_dim: size("v_head_dim", 8)?,
    };
    let key = latent.rank + latent.rotary_dim;
    if key > glm_kernels::MAX_HEAD_SIZE {
        return Err(fields.error(format!(
            "kv_lora_rank and qk_rope_head_dim are {key} together; they must be at most {}",
            glm_kernels::MAX_HEAD_SIZE
        )));
    }
    Ok(latent)
}

fn experts(fields: &Fields, layers: usize, is_lite: bool) -> Result<Experts> {
    let count = fields.size("n_routed_experts", 1..=MAX_EXPERTS)?;
    if count * layers > MAX_ALL_EXPERTS {
        return Err(fields.error(format!(
            "{layers} layers of {count} experts (n_routed_experts) are more than {MAX_ALL_EXPERTS} experts"
        )));
    }
    let used = fields.size("num_experts_per_tok", 1..=count)?;
    let intermediate_size = fields.intermediate_size("moe_intermediate_size")?;
    let shared = fields.size_or("n_shared_experts", 0..=MAX_EXPERTS, 1)?;
    let shared_size = shared.saturating_mul(intermediate_size);
    if shared_size > MAX_INTERMEDIATE {
        return Err(fields.error(format!(
            "n_shared_experts of moe_intermediate_size have a width of {shared_size}; it must be at most {MAX_INTERMEDIATE}"
        )));
    }
    let groups = fields.size_or("n_group", 1..=count, 1)?;
    let used_groups = fields.size_or("topk_group", 1..=groups, 1)?;
    if !count.is_multiple_of(groups) || used > used_groups * (count / groups) {
        return Err(fields.error(format!(
            "{used} of {count} experts cannot be chosen from {used_groups} of {groups} groups (n_group, topk_group)"
        )));
    }
    if groups > 1 && count / groups < 2 {
        return Err(fields.error(format!(
            "n_group {groups} leaves one expert to a group; it must be two or more"
        )));
    }
    for (name, value) in [("topk_method", "noaux_tc"), ("scoring_func", "sigmoid")] {
        if let Some(other) = fields.get(name).filter(|found| *found != value && !found.is_null()) {
            return Err(fields.error(format!("{name} must be {value:?}, found {other}")));
        }
    }
    Ok(Experts {
        count,
        used,
        intermediate_size,
        shared_size,
        groups,
        used_groups,
        is_normalized: fields.flag("norm_topk_prob", true)?,
        scale: fields.positive_or("routed_scaling_factor", if is_lite { 1.8 } else { 1.0 })?,
        first_layer: first_layer(fields, layers)?,
    })
}

/// The first layer with experts: as `mlp_layer_types` says, or else `first_k_dense_replace`.
fn first_layer(fields: &Fields, layers: usize) -> Result<usize> {
    let kinds = match fields.get("mlp_layer_types") {
        None => return fields.size_or("first_k_dense_replace", 0..=layers, 1),
        Some(Value::Array(kinds)) => kinds.as_slice(),
        Some(_) => &[],
    };
    let first = kinds.iter().take_while(|kind| *kind == "dense").count();
    let is_rest_sparse = kinds.iter().skip(first).all(|kind| *kind == "sparse");
    if kinds.len() != layers || !is_rest_sparse {
        return Err(fields.error(format!(
            "mlp_layer_types must have {layers} entries: \"dense\", then \"sparse\""
        )));
    }
    Ok(first)
}
