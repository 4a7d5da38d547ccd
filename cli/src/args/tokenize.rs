//! The arguments of `glm tokenize`.

use clap::{ArgGroup, Args};

use super::Source;
use crate::input::Ids;

const EXAMPLES: &str = "\
A folder with only the files of the tokenizer is enough. For each id, the id and its text are
printed.

Examples:
  glm tokenize -m chatglm-6b '你好，世界'
  glm tokenize -m chatglm-6b --json --stdin < text.txt
  glm tokenize -m chatglm-6b --decode '[5, 74874]'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("what").required(true))]
pub struct Tokenize {
    #[command(flatten)]
    pub source: Source,
    /// The text.
    #[arg(group = "what", allow_hyphen_values = true)]
    pub text: Option<String>,
    /// Read the text from stdin, to the last byte.
    #[arg(long, group = "what")]
    pub stdin: bool,
    /// Convert ids to text: a JSON list.
    #[arg(long, value_name = "LIST", group = "what")]
    pub decode: Option<Ids>,
    /// Print JSON: {"ids": […]}, or {"text": "…"} with --decode.
    #[arg(long)]
    pub json: bool,
}
