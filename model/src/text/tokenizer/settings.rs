//! The settings of `tokenizer_config.json` that tokenizers use.

use super::added::Token;
use crate::error::Result;
use crate::files::fields::Fields;
use crate::files::model_dir::ModelDir;
use serde_json::Value;

pub(crate) use crate::files::model_dir::TOKENIZER_CONFIG as FILE;

/// # Errors
/// If the file is not a JSON object, or has a setting that would change the text and that no model of the family uses.
pub(super) fn open<'f>(folder: &'f ModelDir<'f>) -> Result<Fields<'f>> {
    let settings = Fields::open(folder, FILE)?;
    if settings.flag("remove_space", false)? || settings.flag("do_lower_case", false)? {
        return Err(settings.error("remove_space and do_lower_case must be false"));
    }
    Ok(settings)
}

impl Fields<'_> {
    /// The name of a special token, written as a string or as an object with the string in `content`.
    pub(super) fn name(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match name(value) {
                Some(name) => Ok(Some(name)),
                None => Err(self.error(format!("{key} must be a string, found {value}"))),
            },
        }
    }

    /// Whether white space before a special token, and after it, is dropped.
    pub(super) fn strips(&self, key: &str) -> [bool; 2] {
        self.get(key).map_or([false; 2], strips)
    }

    /// Whether a token is one of the additional special tokens.
    pub(super) fn is_additional(&self, token: &str) -> bool {
        let listed = self.get("additional_special_tokens").and_then(Value::as_array);
        listed.into_iter().flatten().any(|value| name(value) == Some(token))
    }

    /// The tokens of `added_tokens_decoder`.
    pub(super) fn added(&self) -> Result<Vec<Token>> {
        let Some(listed) = self.get("added_tokens_decoder").and_then(Value::as_object) else {
            return Ok(Vec::new());
        };
        listed
            .iter()
            .map(|(id, value)| {
                let token =
                    id.parse().ok().zip(name(value)).and_then(|(id, name)| token(id, name, value));
                token.ok_or_else(|| {
                    self.error(format!(
                        "added_tokens_decoder: {id} is not a supported token: {value}"
                    ))
                })
            })
            .collect()
    }
}

fn name(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

fn strips(value: &Value) -> [bool; 2] {
    ["lstrip", "rstrip"].map(|key| value.get(key).and_then(Value::as_bool).unwrap_or(false))
}

/// A token as transformers describes it. `None` if it is found in whole words only (`single_word`), which no model of the
/// family uses.
pub(super) fn token(id: u32, name: &str, value: &Value) -> Option<Token> {
    let flag = |key: &str, default| value.get(key).map_or(Some(default), Value::as_bool);
    let whole_words = flag("single_word", false)?;
    let special = flag("special", true)?;
    (!whole_words).then(|| Token { special, strips: strips(value), ..Token::new(id, name) })
}
