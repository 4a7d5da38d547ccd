//! The arguments of `glm logits`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Model;
use super::path::path;
use crate::input::Ids;

const EXAMPLES: &str = "\
The file has one tensor, `logits`, of type f32 and shape [tokens, vocab].

Examples:
  glm logits -m chatglm-6b --ids '[5,74874,130001,130004]' --out logits.safetensors";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Logits {
    #[command(flatten)]
    pub model: Model,
    /// The ids: a JSON list.
    #[arg(long, value_name = "LIST")]
    pub ids: Ids,
    /// The safetensors file to write; an existing file is replaced. `-` writes to stdout, if that is no terminal.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = path())]
    pub out: PathBuf,
}
