//! The arguments of `glm man`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::path::path;

const EXAMPLES: &str = "\
The pages are in English.

Examples:
  glm man | man -l -
  glm man --command chat | man -l -
  glm man ~/.local/share/man/man1";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Man {
    /// The folder for all pages; it is created if it does not exist. Without it, one page is printed.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = path())]
    pub folder: Option<PathBuf>,
    /// Print the page of this command.
    #[arg(long, value_name = "NAME", conflicts_with = "folder")]
    pub command: Option<String>,
}
