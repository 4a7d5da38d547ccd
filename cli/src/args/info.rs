//! The arguments of `glm info`.

use clap::Args;

use super::Source;

const EXAMPLES: &str = "\
The files are not loaded: only their headers are read.

Examples:
  glm info -m chatglm-6b
  glm info -m chatglm-6b-q4 --json
  glm info --cpu";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Info {
    #[command(flatten)]
    pub source: Source,
    /// Describe the processor in place of a model: its cores, its instruction sets, and those that are used.
    #[arg(long, conflicts_with = "model")]
    pub cpu: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
