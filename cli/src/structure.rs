//! Answers that follow a JSON schema or a grammar.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use glm_model::{Constraint, Grammar, GrammarCompiler, Template, Tokenizer};
use serde_json::Value;

use crate::args::{Schema, Structure};
use crate::{input, messages};

/// The constraint of an answer to `prompt` that ends with one of `ends`; `None` if the answer is free.
pub fn constraint(
    args: &Structure,
    tokenizer: &Tokenizer,
    template: &Template,
    prompt: &[u32],
    ends: &[u32],
) -> Result<Option<Box<dyn Constraint>>> {
    let (grammar, name) = match (&args.json_schema, &args.grammar) {
        (Some(Schema::Json(schema)), _) => (Grammar::json_schema(schema), "--json-schema".into()),
        (Some(Schema::File(path)), _) => {
            let schema: Value = serde_json::from_str(&read(path)?)
                .map_err(|error| anyhow!(messages::not_a_schema(error)))
                .with_context(|| path.display().to_string())?;
            (Grammar::json_schema(&schema), path.display().to_string())
        }
        (None, Some(path)) => (Grammar::lark(&read(path)?), path.display().to_string()),
        (None, None) => return Ok(None),
    };
    let compiler = GrammarCompiler::new(tokenizer, template, ends)?;
    let compiled = grammar.and_then(|grammar| compiler.compile(&grammar, tokenizer, prompt));
    Ok(Some(Box::new(compiled.context(name)?)))
}

fn read(path: &Path) -> Result<String> {
    let text = File::open(path).map_err(Into::into).and_then(|mut file| input::read(&mut file));
    text.with_context(|| path.display().to_string())
}
