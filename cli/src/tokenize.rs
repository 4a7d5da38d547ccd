//! `glm tokenize`: text to ids, and back.

use anyhow::Result;
use glm_model::Tokenizer;
use serde_json::json;

use crate::args::Tokenize;
use crate::{input, open, output};

pub fn run(args: &Tokenize) -> Result<()> {
    let tokenizer = open::tokenizer(&args.source)?;
    if let Some(ids) = &args.decode {
        let text = tokenizer.decode(&ids.0)?;
        return if args.json {
            output::json(&json!({ "text": text }))
        } else {
            output::line(&text)
        };
    }
    let text = match &args.text {
        Some(text) => text.clone(),
        None => input::stdin()?,
    };
    let ids = tokenizer.encode(&text)?;
    if args.json {
        return output::json(&json!({ "ids": ids }));
    }
    ids.into_iter().try_for_each(|id| output::line(&format!("{id}\t{}", shown(&tokenizer, id)?)))
}

/// What an id stands for, in quotes; special ids by their names.
fn shown(tokenizer: &Tokenizer, id: u32) -> Result<String> {
    match tokenizer.special_name(id) {
        Some(name) => Ok(name.to_owned()),
        None => Ok(format!("{:?}", tokenizer.decode(&[id])?)),
    }
}
