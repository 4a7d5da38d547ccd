//! GGUF files of the architectures `chatglm` (ChatGLM3-6B, GLM-4-9B, GLM-Edge) and `glm4` (GLM-4-0414, GLM-Z1).
//!
//! The fields are the metadata of the file, see [`gguf`](crate::files::gguf). The converter of llama.cpp fuses gate and up of both
//! architectures, and keeps the rows of query and key as they were published, except in vision models of `glm4`: there the rotated rows
//! of each head are those of even numbers, and then those of odd numbers.
//!
//! Source: `conversion/chatglm.py` and `conversion/glm.py` of llama.cpp for the rows; `llama_model::load_hparams` and
//! `llama_model_rope_type` for the rotation and its defaults.

use serde_json::Value;

use super::{
    Config, Dialect, Fields, MaskKind, Mlp, Norm, QkvOrder, Reader, Residual, Rope, SpecialIds,
    refused,
};
use crate::error::Result;
use crate::files::variant::Known;
use crate::generate::sampling::Sampling;
use crate::limits::config::{MAX_HEAD_SIZE, MAX_HEADS, MAX_HIDDEN};
use crate::limits::gguf::MAX_SECTIONS;

const ARCHITECTURE: &str = "general.architecture";

/// Fields that change what the file means, and the only value that is supported. It is that of a file without the field.
const FIXED: [(&str, f64); 3] =
    [("rope.scaling.attn_factor", 1.0), ("nextn_predict_layers", 0.0), ("expert_count", 0.0)];

pub(super) const READER: Reader = Reader {
    models: "GGUF files of the architectures chatglm and glm4",
    recognises: |fields| fields.has(ARCHITECTURE),
    read,
};

fn read(fields: &Fields) -> Result<Config> {
    let architecture = fields.text(ARCHITECTURE).unwrap_or_default();
    let (is_glm4, default) = match architecture {
        "chatglm" => (false, "GLM-4"),
        "glm4" => (true, "GLM-4-0414"),
        "clip" => {
            return Err(fields.error(
                "is the vision part of a model (mmproj), which is not supported: name the GGUF file of the language model",
            ));
        }
        _ => {
            let found = fields.shown(ARCHITECTURE);
            let known = refused::of_architecture(architecture);
            let known = known.map_or_else(String::new, |known| format!(" {}", known.of_gguf()));
            return Err(fields.error(format!(
                "{ARCHITECTURE} is {found}{known}, and only chatglm (ChatGLM3-6B, GLM-4-9B, GLM-Edge) and glm4 (GLM-4-0414, GLM-Z1) are supported"
            )));
        }
    };
    let key = |name: &str| format!("{architecture}.{name}");
    let size = |name: &str, most: usize| fields.size(&key(name), 1..=most);
    let (hidden, heads) =
        (size("embedding_length", MAX_HIDDEN)?, size("attention.head_count", MAX_HEADS)?);
    let head_size = head_size(fields, &key, hidden, heads)?;
    let kv_heads = match fields.has(&key("attention.head_count_kv")) {
        true => fields.kv_heads(&key("attention.head_count_kv"), heads)?,
        false => heads,
    };
    let vocab = fields.vocab(&key("vocab_size"))?;
    for (name, only) in FIXED.map(|(name, only)| (key(name), only)) {
        if fields.get(&name).is_some_and(|value| value.as_f64() != Some(only)) {
            let found = fields.shown(&name);
            return Err(fields.error(format!("{name} {found} is not supported, only {only}")));
        }
    }
    Ok(Config {
        assumed: None,
        prefix: None,
        latent: None,
        experts: None,
        head_norms: false,
        unusable_defaults: Vec::new(),
        architecture: name(fields, default)?,
        packing: None,
        layers: fields.layers(&key("block_count"))?,
        hidden,
        heads,
        kv_heads,
        head_size,
        intermediate_size: fields.intermediate_size(&key("feed_forward_length"))?,
        vocab,
        max_context: fields.context(&key("context_length"))?,
        norm: Norm::Rms { eps: fields.positive(&key("attention.layer_norm_rms_epsilon"))? },
        mlp: Mlp::SwiGlu,
        rope: rope(fields, &key, head_size, is_glm4)?,
        mask: MaskKind::Causal,
        residual: Residual::Plain,
        qkv: QkvOrder::Concatenated,
        qkv_bias: fields.flag(&key("attention.qkv_bias"), false)?,
        linear_bias: false,
        output_norms: is_glm4,
        dialect: Dialect::Gguf,
        tied_head: true,
        sampling: Sampling::published(0.8, 0.8),
        special: SpecialIds { ends: ends(fields, vocab)?, ..SpecialIds::default() },
    })
}

/// The name for people. ChatGLM3 has a vocabulary of its own; among the others, the names of the file and its folder decide.
fn name(fields: &Fields, default: &'static str) -> Result<&'static str> {
    let known = Known::of(fields.folder())?;
    Ok(match (fields.text("tokenizer.ggml.model"), known) {
        (Some("llama"), Some(known)) if known.is_chatglm() => known.name,
        (Some("llama"), _) => "ChatGLM3-6B",
        (Some(_), Some(known)) if known.is_chatglm() => default,
        // GLM-4-0414 has its own name, which files often shorten.
        (_, Some(known)) if known.name != "GLM-4" => known.name,
        _ => default,
    })
}

/// The size of a head of queries, keys and values.
fn head_size(
    fields: &Fields,
    key: &dyn Fn(&str) -> String,
    hidden: usize,
    heads: usize,
) -> Result<usize> {
    let [keys, values] = ["attention.key_length", "attention.value_length"].map(key);
    if !fields.has(&keys) {
        if !hidden.is_multiple_of(heads) {
            return Err(fields.error(format!(
                "{} {hidden} is no multiple of {} {heads}",
                key("embedding_length"),
                key("attention.head_count")
            )));
        }
        return fields.check_head_size("embedding_length / attention.head_count", hidden / heads);
    }
    let size = fields.size(&keys, 1..=MAX_HEAD_SIZE)?;
    if fields.has(&values) && fields.size(&values, 1..=MAX_HEAD_SIZE)? != size {
        return Err(fields.error(format!("{keys} and {values} must be the same")));
    }
    fields.check_head_size(&keys, size)
}

fn rope(
    fields: &Fields,
    key: &dyn Fn(&str) -> String,
    head_size: usize,
    is_glm4: bool,
) -> Result<Rope> {
    let rotated = key("rope.dimension_count");
    let rotary_dim = match fields.has(&rotated) {
        true => fields.size(&rotated, 2..=head_size)?,
        false => head_size,
    };
    if !rotary_dim.is_multiple_of(2) {
        return Err(fields.error(format!("{rotated} must be even, found {rotary_dim}")));
    }
    let base = fields.positive_or(&key("rope.freq_base"), 10_000.0)?;
    let scaling_factor = scaling_factor(fields, key)?;
    // Of the positions in time, height and width, all three are the same in a text. As in llama.cpp, sections without a time and a height
    // mean nothing.
    let sections = key("rope.dimension_sections");
    let is_halves = match fields.get(&sections) {
        None => false,
        Some(Value::Array(sections))
            if sections.len() <= MAX_SECTIONS && sections.iter().all(Value::is_u64) =>
        {
            sections.len() > 1 && sections[..2].iter().all(|n| n.as_u64() != Some(0))
        }
        Some(_) => {
            let found = fields.shown(&sections);
            return Err(fields.error(format!(
                "{sections} must be a list of at most {MAX_SECTIONS} integers from 0, found {found}"
            )));
        }
    };
    if is_halves && !is_glm4 {
        return Err(fields.error(format!("{sections} is not supported for this architecture")));
    }
    Ok(match is_halves {
        true => Rope::Halves { base, rotary_dim, scaling_factor },
        false => Rope::Interleaved { base, rotary_dim, scaling_factor },
    })
}

/// What divides the positions. Without a type, the scaling is linear, and 0 is no scaling, as in llama.cpp.
fn scaling_factor(fields: &Fields, key: &dyn Fn(&str) -> String) -> Result<f32> {
    let kind = key("rope.scaling.type");
    match fields.text(&kind) {
        Some("none") => return Ok(1.0),
        None if !fields.has(&kind) => {}
        Some("linear") => {}
        _ => {
            let found = fields.shown(&kind);
            return Err(fields.error(format!("{kind} {found} is not supported, only linear")));
        }
    }
    // The second is the name of earlier versions.
    let names = ["rope.scaling.factor", "rope.scale_linear"].map(key);
    match names.iter().find(|name| fields.has(name)) {
        Some(name) if fields.get(name).is_some_and(|factor| factor.as_f64() == Some(0.0)) => {
            Ok(1.0)
        }
        Some(name) => fields.positive(name),
        None => Ok(1.0),
    }
}

/// The ids that end a text, a turn and a message of a tool. What is no id of the model cannot occur in an answer.
///
/// # Errors
/// If some are named, and none is an id of the model.
fn ends(fields: &Fields, vocab: usize) -> Result<Vec<u32>> {
    let names = ["eos", "eot", "eom"].map(|name| format!("tokenizer.ggml.{name}_token_id"));
    let mut ends = Vec::new();
    for id in names.iter().flat_map(|name| fields.known_ids(name, vocab)) {
        if !ends.contains(&id) {
            ends.push(id);
        }
    }
    match names.iter().find(|name| fields.has(name)) {
        Some(name) if ends.is_empty() => fields.id(name, vocab).map(|id| vec![id]),
        _ => Ok(ends),
    }
}
