//! The arguments of `glm completions`.

use clap::Args;
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  glm completions bash > ~/.local/share/bash-completion/completions/glm
  glm completions zsh > ~/.zfunc/_glm
  glm completions fish > ~/.config/fish/completions/glm.fish";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// The shell.
    pub shell: Shell,
}
