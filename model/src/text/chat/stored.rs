//! The template that is stored in the files of a model.

use super::jinja::Jinja;
use crate::error::Result;
use crate::files::model_dir::{ModelDir, TEMPLATE as JINJA_FILE};
use crate::text::tokenizer::SETTINGS_FILE;
use serde_json::{Map, Value};

/// The template in the files of the folder.
pub(super) fn own(folder: &ModelDir) -> Result<Option<Jinja>> {
    let mut settings = folder.json(SETTINGS_FILE)?;
    let template = settings.remove("chat_template");
    let tokens = special_names(settings);
    if folder.has(JINJA_FILE) {
        let source = folder.text(JINJA_FILE)?.into_owned();
        return Jinja::new(source, tokens, &folder.path_of(JINJA_FILE)).map(Some);
    }
    let source = match template {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(source)) => Some(source),
        // A list of named templates.
        Some(other) => {
            let named = other.as_array().into_iter().flatten();
            let default = named.filter(|template| template["name"] == "default");
            default.filter_map(|template| template["template"].as_str()).next().map(str::to_owned)
        }
    };
    let problem = "chat_template is neither a text nor a list with one named \"default\"";
    let source = source.ok_or_else(|| folder.error(SETTINGS_FILE, problem))?;
    Jinja::new(source, tokens, &folder.path_of(SETTINGS_FILE)).map(Some)
}

/// The names of special tokens, such as `eos_token`.
fn special_names(settings: Map<String, Value>) -> Map<String, Value> {
    let is_name = |key: &str| key.ends_with("_token");
    let name = |value: Value| match value {
        Value::String(_) => Some(value),
        Value::Object(mut object) => object.remove("content").filter(Value::is_string),
        _ => None,
    };
    let named = settings.into_iter().filter(|(key, _)| is_name(key));
    named.filter_map(|(key, value)| Some((key, name(value)?))).collect()
}
