//! The arguments that say what an answer looks like.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use serde_json::Value;

use super::path::path;
use crate::folders::expanded;
use crate::messages;

#[derive(Debug, Args)]
pub struct Structure {
    /// Answer in JSON that follows this schema: a file, or the schema itself if the text begins with `{`.
    #[arg(long, value_name = "FILE|JSON", conflicts_with_all = ["ids", "ignore_eos"])]
    pub json_schema: Option<Schema>,
    /// Answer in the language of this grammar: a file in the notation of Lark, with the rule `start`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ids", "ignore_eos", "json_schema"], value_parser = path())]
    pub grammar: Option<PathBuf>,
}

/// A JSON schema, or the file with one.
#[derive(Debug, Clone, PartialEq)]
pub enum Schema {
    File(PathBuf),
    Json(Value),
}

impl FromStr for Schema {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.trim_start().starts_with('{') {
            return Ok(Schema::File(expanded(Path::new(text)).into_owned()));
        }
        serde_json::from_str(text).map(Schema::Json).map_err(messages::not_a_schema)
    }
}
