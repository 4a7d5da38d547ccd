//! The arguments of the commands that answer requests in the form of OpenAI's API.

use clap::Args;
use clap::builder::PossibleValuesParser;
use glm_model::Template;

use super::Thinking;
use super::number::{memory, positive};

/// How requests are answered, and the memory for it.
#[derive(Debug, Args)]
pub struct Api {
    /// Another name under which requests may ask for the model; can be given several times.
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    /// The chat template to use in place of the model's own.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Template::NAMES))]
    pub template: Option<String>,
    #[command(flatten)]
    pub thinking: Thinking,
    /// Tokens that the context holds, prompt and answer together. [default: the maximum of the model, up to 32768]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub context: Option<usize>,
    /// Memory for the keys and values of all sequences, such as 2GB. [default: three quarters of what is free beside the weights]
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    pub kv_memory: Option<u64>,
    /// Memory for prompts that are kept for requests with the same beginning; 0 keeps none.
    #[arg(long, value_name = "BYTES", default_value = "1GB", value_parser = memory)]
    pub cache_memory: u64,
    /// Let names of special tokens inside of messages, such as <|user|>, be these tokens. Without this they are text, so that nobody
    /// speaks in the role of another.
    #[arg(long)]
    pub special_tokens_in_text: bool,
}
