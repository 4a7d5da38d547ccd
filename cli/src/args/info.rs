//! The arguments of `glm info`.

use clap::Args;

use super::Source;

#[derive(Debug, Args)]
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
