//! GGUF files of the architectures `chatglm` (ChatGLM3-6B, GLM-4-9B, GLM-Edge) and `glm4` (GLM-4-0414, GLM-Z1).
//!
//! The fields are the metadata of the file, see [`gguf`](crate::files::gguf). The converter of llama.cpp fuses gate and up of both
//! architectures, and keeps the rows of query and key as they were published, except in vision models.

use super::{
    Config, Dialect, Fields, MaskKind, Mlp, Norm, QkvOrder, Reader, Residual, Rope, SpecialIds,
};
use crate::error::Result;
use crate::files::variant::Known;
use crate::generate::sampling::Sampling;

const ARCHITECTURE: &str = "general.architecture";

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
            return Err(fields.error(format!(
                "{ARCHITECTURE} is {found}, and only chatglm (ChatGLM3-6B, GLM-4-9B, GLM-Edge) and glm4 (GLM-4-0414, GLM-Z1) are supported"
            )));
        }
    };
    let key = |name: &str| format!("{architecture}.{name}");
    let size = |name: &str, most: usize| fields.size(&key(name), 1..=most);
    let sections = key("rope.dimension_sections");
    if fields.has(&sections) {
        return Err(fields.error(format!(
            "has {sections}: it is the text part of a vision model, whose rows of query and key are in another order, and is not supported"
        )));
    }
    let scaling = key("rope.scaling.type");
    if fields.text(&scaling).is_some_and(|kind| kind != "none") {
        return Err(fields.error(format!("{scaling} {} is not supported", fields.shown(&scaling))));
    }
    let (hidden, heads) =
        (size("embedding_length", 1 << 17)?, size("attention.head_count", 1 << 10)?);
    let head_size = head_size(fields, &key, hidden, heads)?;
    let kv_heads = match fields.has(&key("attention.head_count_kv")) {
        true => fields.kv_heads(&key("attention.head_count_kv"), heads)?,
        false => heads,
    };
    let vocab = fields.vocab(&key("vocab_size"))?;
    Ok(Config {
        assumed: None,
        prefix: None,
        packing: None,
        architecture: match Known::of(fields.folder())? {
            // GLM-4-0414 has its own name, which files often shorten.
            Some(known) if known.name != "GLM-4" => known.name,
            _ => default,
        },
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
        rope: rope(fields, &key, head_size)?,
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
    let size = fields.size(&keys, 1..=glm_kernels::MAX_HEAD_SIZE)?;
    if fields.has(&values) && fields.size(&values, 1..=glm_kernels::MAX_HEAD_SIZE)? != size {
        return Err(fields.error(format!("{keys} and {values} must be the same")));
    }
    fields.check_head_size(&keys, size)
}

fn rope(fields: &Fields, key: &dyn Fn(&str) -> String, head_size: usize) -> Result<Rope> {
    let rotated = key("rope.dimension_count");
    let rotary_dim = match fields.has(&rotated) {
        true => fields.size(&rotated, 2..=head_size)?,
        false => head_size,
    };
    if !rotary_dim.is_multiple_of(2) {
        return Err(fields.error(format!("{rotated} must be even, found {rotary_dim}")));
    }
    let base = fields.positive_or(&key("rope.freq_base"), 10_000.0)?;
    Ok(Rope::Interleaved { base, rotary_dim, scaling_factor: 1.0 })
}

/// The ids that end a text, a turn and a message of a tool.
fn ends(fields: &Fields, vocab: usize) -> Result<Vec<u32>> {
    let mut ends = Vec::new();
    for name in ["eos", "eot", "eom"] {
        let id = fields.id_or_none(&format!("tokenizer.ggml.{name}_token_id"), vocab)?;
        ends.extend(id.filter(|id| !ends.contains(id)));
    }
    Ok(ends)
}
