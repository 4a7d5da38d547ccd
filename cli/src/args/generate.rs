//! The arguments of `glm generate`.

use clap::Args;
use clap::builder::PossibleValuesParser;
use glm_model::Template;

#[cfg(feature = "grammar")]
use super::Structure;
use super::{Answering, Model, Thinking};
use crate::input::Ids;

const EXAMPLES: &str = "\
Examples:
  glm generate -m chatglm-6b-q4 -p '写一首诗'
  git diff | glm generate -m chatglm-6b-q4 --max-new-tokens 200
  glm generate -m glm-4-9b-chat --json-schema person.json -p '写一个人物'
  glm generate -m chatglm-6b-q4 --ids '[5,74874,130001,130004]' --greedy --json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Generate {
    #[command(flatten)]
    pub model: Model,
    /// The prompt; `-`, or no prompt, reads it from stdin, without the last line break.
    #[arg(short, long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// The prompt, without a flag.
    #[arg(value_name = "TEXT", conflicts_with = "prompt")]
    pub text: Option<String>,
    /// The whole prompt as ids: a JSON list. Nothing is added to it, and no tokenizer is needed.
    #[arg(long, value_name = "LIST", conflicts_with_all = ["prompt", "text", "template", "think"])]
    pub ids: Option<Ids>,
    /// The chat template to use in place of the model's own.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Template::NAMES))]
    pub template: Option<String>,
    #[command(flatten)]
    pub thinking: Thinking,
    /// Continue after the end of the answer, up to --max-new-tokens.
    #[arg(long)]
    pub ignore_eos: bool,
    #[cfg(feature = "grammar")]
    #[command(flatten)]
    pub structure: Structure,
    /// Print JSON: ids, text, finish and more.
    #[arg(long)]
    pub json: bool,
    /// Afterwards, print to stderr how long it took and how many drafted tokens were accepted.
    #[arg(long)]
    pub stats: bool,
    #[command(flatten)]
    pub answering: Answering,
}
