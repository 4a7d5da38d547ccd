//! The text part of `glm4v` of the transformers library: GLM-4.1V-9B, GLM-4.6V-Flash.
//!
//! It is `glm4` with other defaults and names of tensors, and with biases of query, key and value whatever `attention_bias` says. Its
//! fields are in `text_config`; the first files have them beside the others. `glm46v` and `glmga` have the same layers.
//!
//! Source: `models/glm4v`, `models/glm46v` and `models/glmga` of huggingface/transformers.

use super::transformers::{Class, of_class};
use super::{Config, Dialect, Fields, Reader};
use crate::error::Result;

/// The object with the fields of the text part.
const TEXT: &str = "text_config";

/// What it may say of itself. Other text parts have other layers.
const TEXT_TYPES: [&str; 2] = ["glm4v_text", "glm46v_text"];

pub(super) const READER: Reader = Reader {
    models: "the text part of GLM-4.1V-9B and GLM-4.6V-Flash (Glm4vForConditionalGeneration, Glm46VForConditionalGeneration)",
    recognises: |fields| matches!(fields.text("model_type"), Some("glm4v" | "glm46v" | "glmga")),
    read,
};

const CLASS: Class = Class {
    name: "GLM-4.1V",
    output_norms: true,
    dialect: Dialect::Glm4v,
    head_dim: None,
    context: 32_768,
    eps: 1e-5,
};

fn read(fields: &Fields) -> Result<Config> {
    const TIED: &str = "tie_word_embeddings";
    let class = match fields.text("model_type") {
        Some("glm4v") => CLASS,
        _ => Class { name: "GLM-4.6V", ..CLASS },
    };
    let text = text_part(fields, &TEXT_TYPES)?;
    let config = of_class(text.as_ref().unwrap_or(fields), &class)?;
    let tied_head = fields.flag(TIED, config.tied_head)?;
    Ok(Config { qkv_bias: true, tied_head, ..config })
}

/// The fields of the text part, if they are in an object of their own, which may only name one of `types`.
///
/// # Errors
/// If it names another.
pub(super) fn text_part<'f>(fields: &Fields<'f>, types: &[&str]) -> Result<Option<Fields<'f>>> {
    if !fields.has(TEXT) {
        return Ok(None);
    }
    let text = fields.section(TEXT);
    let is_known = text.text("model_type").is_some_and(|found| types.contains(&found));
    if text.has("model_type") && !is_known {
        return Err(fields.error(format!(
            "{TEXT} has the model_type {}, and only {} is supported",
            text.shown("model_type"),
            types.join(" or ")
        )));
    }
    Ok(Some(text))
}
