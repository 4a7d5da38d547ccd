//! The arguments of `glm chat`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use glm_model::Template;

use super::path::path;
use super::{Answering, Model, Thinking};

/// What happens to a conversation that no longer fits in the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Overflow {
    /// The question is refused with an error.
    Error,
    /// The oldest rounds are dropped, so that a quarter of the context (or --max-new-tokens, if less) is free for the
    /// answer. A note says how many.
    DropOldest,
}

const EXAMPLES: &str = "\
At the prompt, /help lists the commands. Ctrl-C stops an answer. Ctrl-D leaves, and so does a second
Ctrl-C at the prompt; the exit code is 0. A question of several lines stands between \"\"\" and
\"\"\", or each of its lines but the last ends with \\.
If stdin is not a terminal, each of its lines is a question. Only the answers are written to stdout.

Examples:
  glm chat -m chatglm-6b-q4
  printf '你好\\n再见\\n' | glm chat -m chatglm-6b-q4 --greedy
  glm chat -m chatglm-6b-q4 --continue talk.json    after /save talk.json
  glm chat -m chatglm-6b-q4 --messages talk.json --json

  where talk.json is [{\"role\": \"user\", \"content\": \"你好\"}, …, {\"role\": \"user\", \"content\": \"…\"}],
  or the body of a request to OpenAI's API. Some models also support the roles system, observation
  and tool, and the fields metadata and tools";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Chat {
    #[command(flatten)]
    pub model: Model,
    /// Answer the conversation in this file once: a JSON list of {"role", "content"}; `-` reads it from stdin. A conversation that
    /// ends with an answer goes on as with --continue.
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub messages: Option<PathBuf>,
    /// Go on with the conversation in this file, as /save wrote it.
    #[arg(long = "continue", value_name = "FILE", conflicts_with = "messages", value_parser = path())]
    pub resume: Option<PathBuf>,
    /// Instructions for the whole conversation, for models that support them.
    #[arg(long, value_name = "TEXT", conflicts_with = "messages")]
    pub system: Option<String>,
    /// Print the answer as JSON: text, prompt_ids, ids and more.
    #[arg(long, requires = "messages")]
    pub json: bool,
    /// After each answer, print to stderr how long it took, how much of the context is used, and how many drafted tokens were
    /// accepted.
    #[arg(long)]
    pub stats: bool,
    /// Neither read nor write the history of questions.
    #[arg(long)]
    pub no_history: bool,
    /// The chat template to use in place of the model's own.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Template::NAMES))]
    pub template: Option<String>,
    #[command(flatten)]
    pub thinking: Thinking,
    /// What happens when the conversation no longer fits in the context.
    #[arg(long, value_name = "WHAT", default_value = "error")]
    pub context_overflow: Overflow,
    #[command(flatten)]
    pub answering: Answering,
}
