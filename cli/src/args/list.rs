//! The arguments of `glm list`.

use clap::Args;

const EXAMPLES: &str = "\
The newest model comes first: it is the one that `glm` alone talks to. The models are those in the cache of the Hugging Face hub, also \
those that Python downloaded, and those that `glm pull --quantize` and `glm quantize` made. An incomplete download is marked; `glm pull` \
goes on with it.

Examples:
  glm list
  glm list --json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct List {
    /// Include models of other kinds, which this program cannot run.
    #[arg(short, long)]
    pub all: bool,
    /// Print JSON: a list of name, bytes, format, kind, state, changed (seconds since 1970) and folder.
    #[arg(long)]
    pub json: bool,
}
