//! The arguments of `glm rm`.

use clap::Args;

const EXAMPLES: &str = "\
Files that another revision of the same repository has as well are kept. A folder that is not in a cache is not removed.

Examples:
  glm rm THUDM/chatglm-6b:int4
  glm rm --yes chatglm-6b glm-4-9b-chat-hf";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Remove {
    /// Models, by their names in `glm list`.
    #[arg(value_name = "MODEL", required = true)]
    pub models: Vec<String>,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
}
