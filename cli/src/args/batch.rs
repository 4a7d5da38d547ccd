//! The arguments of `glm batch`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueHint};
use glm_model::Template;

use super::Model;
use super::number::{memory, positive, whole};
use crate::messages;

const EXAMPLES: &str = "\
Each line of the input is a JSON object with `custom_id`, `method` (POST), `url` (/v1/chat/completions or /v1/completions) and `body`. \
Each line of the output has the `custom_id` and the response. A request that is wrong is answered with an error, and the others go on. \
A command that was stopped or killed goes on when it is given again: requests that are answered in the output are skipped. Stdin is \
read to its end first. Answers on stdout cannot be gone on with.

Examples:
  glm batch -m chatglm3-6b:int4 questions.jsonl answers.jsonl
  glm batch --order questions.jsonl - | jq .response.body.choices[0].message.content
  glm batch --shard 2/4 questions.jsonl answers-2.jsonl";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Batch {
    #[command(flatten)]
    pub model: Model,
    /// File of requests; `-` is stdin.
    #[arg(value_name = "IN", value_hint = ValueHint::FilePath)]
    pub input: PathBuf,
    /// File of answers; `-` is stdout.
    #[arg(value_name = "OUT", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Write answers in the order of their requests. Without this they are written as they end.
    #[arg(long)]
    pub order: bool,
    /// Answer the Ith of every N requests only, so that several machines share the work.
    #[arg(long, value_name = "I/N", default_value = "1/1", value_parser = shard)]
    pub shard: Shard,
    /// Begin again: what is in the output is replaced.
    #[arg(long)]
    pub restart: bool,
    /// Another name under which requests may ask for the model; can be given several times.
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    /// The chat template to use in place of the model's own.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Template::NAMES))]
    pub template: Option<String>,
    /// Tokens that the context holds, prompt and answer together. [default: the maximum of the model, up to 32768]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub context: Option<usize>,
    /// Most answers that are generated at the same time, if memory allows.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = whole::<usize>(1..=1024))]
    pub max_sequences: usize,
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

/// A part of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub index: u64,
    pub count: u64,
}

impl Shard {
    /// Whether the request with this number, from 0, is in it.
    pub fn has(self, number: u64) -> bool {
        number % self.count == self.index
    }
}

fn shard(text: &str) -> Result<Shard, String> {
    let parts = text.split_once('/').and_then(|(index, count)| {
        let (index, count): (u64, u64) = (index.parse().ok()?, count.parse().ok()?);
        (1..=count).contains(&index).then(|| Shard { index: index - 1, count })
    });
    parts.ok_or_else(messages::not_a_shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_one_of_several() {
        assert_eq!(shard("2/4"), Ok(Shard { index: 1, count: 4 }));
        for wrong in ["", "1", "0/4", "5/4", "1/0", "-1/2", "1/2/3", "a/b"] {
            assert!(shard(wrong).is_err(), "{wrong}");
        }
    }
}
