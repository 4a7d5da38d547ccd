//! What the files themselves say about being ChatGLM2 or ChatGLM3.

use serde_json::Value;

use super::Variant;
use crate::error::Result;
use crate::files::model_dir::{
    ADDED_TOKENS, CONFIG, ModelDir, TEMPLATE, TOKENIZER_CONFIG, TOKENIZER_MODEL,
};
use crate::text::tokenizer::is_tiktoken;

/// A vocabulary of this size or more is that of GLM-4. ChatGLM2 and ChatGLM3 have 65024 ids.
const LATER_VOCAB: u64 = 100_000;

/// The files with names of special ids.
const TOKENS: [&str; 3] = [ADDED_TOKENS, "special_tokens_map.json", TOKENIZER_CONFIG];

/// The published code. It is read as text, and nothing in it is executed.
const CODE: [&str; 2] = ["tokenization_chatglm.py", "modeling_chatglm.py"];

/// Whether the model is later than both.
///
/// # Errors
/// As [`ModelDir::json`].
pub(super) fn is_later(folder: &ModelDir) -> Result<bool> {
    let config = folder.json(CONFIG)?;
    let vocab = config.get("padded_vocab_size").and_then(Value::as_u64);
    // A file that cannot be read is reported by the tokenizer, which a model can do without.
    let has_ranks = || folder.read(TOKENIZER_MODEL).is_ok_and(|file| is_tiktoken(&file));
    Ok(vocab.is_some_and(|vocab| vocab >= LATER_VOCAB) || has_ranks())
}

/// The variant, if a file tells.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn of(folder: &ModelDir) -> Result<Option<Variant>> {
    let mut has_other_ids = false;
    for file in TOKENS {
        let mut json = folder.json(file)?;
        // Code and templates mention names that are no ids.
        let template = json.remove("chat_template");
        let tokens = Value::Object(json);
        if mentions(&tokens, "<|user|>") {
            return Ok(Some(Variant::ChatGlm3));
        }
        has_other_ids |= mentions(&tokens, "[gMASK]") || mentions(&tokens, "[sMASK]");
        if let Some(variant) = template.and_then(|template| of_prompts(&template.to_string())) {
            return Ok(Some(variant));
        }
    }
    if folder.has(TEMPLATE)
        && let Some(variant) = of_prompts(&folder.text(TEMPLATE)?)
    {
        return Ok(Some(variant));
    }
    // All special ids of the tokenizer are listed, and there are no roles.
    if has_other_ids {
        return Ok(Some(Variant::ChatGlm2));
    }
    for file in CODE {
        if let Some(variant) = folder.text(file).ok().as_deref().and_then(of_prompts) {
            return Ok(Some(variant));
        }
    }
    Ok(None)
}

/// The variant whose prompts a program or a template writes.
fn of_prompts(source: &str) -> Option<Variant> {
    match source {
        _ if source.contains("<|") => Some(Variant::ChatGlm3),
        _ if source.contains("[Round") => Some(Variant::ChatGlm2),
        _ => None,
    }
}

/// Whether a text or the name of a field is this name.
fn mentions(value: &Value, name: &str) -> bool {
    match value {
        Value::String(text) => text == name,
        Value::Array(values) => values.iter().any(|value| mentions(value, name)),
        Value::Object(fields) => {
            fields.iter().any(|(key, value)| key == name || mentions(value, name))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_templates_and_code_tell() {
        use Variant::{ChatGlm2, ChatGlm3};
        for (file, text, expected) in [
            (ADDED_TOKENS, r#"{"<|user|>": 64795, "[gMASK]": 64790}"#, Some(ChatGlm3)),
            (ADDED_TOKENS, r#"{"[gMASK]": 64790, "sop": 64792}"#, Some(ChatGlm2)),
            (
                "special_tokens_map.json",
                r#"{"additional_special_tokens": ["<|user|>"]}"#,
                Some(ChatGlm3),
            ),
            (
                TOKENIZER_CONFIG,
                r#"{"added_tokens_decoder": {"64790": {"content": "[gMASK]"}, "64795": {"content": "<|user|>"}}}"#,
                Some(ChatGlm3),
            ),
            (
                TOKENIZER_CONFIG,
                r#"{"chat_template": "<|{{ messages[0].role }}|>"}"#,
                Some(ChatGlm3),
            ),
            (TOKENIZER_CONFIG, r#"{"chat_template": "[Round {{ 1 }}]"}"#, Some(ChatGlm2)),
            (TOKENIZER_CONFIG, r#"{"eos_token": "</s>"}"#, None),
            (TEMPLATE, "[Round {{ 1 }}]", Some(ChatGlm2)),
            (CODE[0], "prompt += \"[Round {}]\\n\\n\"", Some(ChatGlm2)),
            (CODE[0], "role_special_tokens = [\"<|system|>\", \"<|user|>\"]", Some(ChatGlm3)),
            (CODE[1], "import torch", None),
        ] {
            let files = [(file, text.as_bytes())];
            assert_eq!(of(&ModelDir::of(&files)).unwrap(), expected, "{file} {text}");
        }
    }
}
