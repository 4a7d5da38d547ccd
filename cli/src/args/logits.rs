//! The arguments of `glm logits`.

use std::path::PathBuf;

use clap::Args;

use super::Model;
use crate::input::Ids;

const EXAMPLES: &str = "\
The file has one tensor, `logits`, f32 [tokens, vocab].

Example:
  glm logits -m chatglm-6b --ids '[5,74874,130001,130004]' --activations f32 --out logits.safetensors";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Logits {
    #[command(flatten)]
    pub model: Model,
    /// The ids: a JSON list.
    #[arg(long, value_name = "LIST")]
    pub ids: Ids,
    /// The safetensors file to write. An existing file is replaced.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}
