//! The arguments of `glm batch`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::number::whole;
use super::path::path;
use super::{Api, Model};
use crate::limits::request::MOST_SEQUENCES;
use crate::messages;

const EXAMPLES: &str = "\
Each line of the input is a JSON object with `custom_id`, `method` (POST), `url` (/v1/chat/completions, /v1/completions \
or /v1/responses) and `body`. \
Each line of the output has the `custom_id` and the response. A request that is wrong is answered with an error, and the others go on. \
A command that was stopped or killed goes on when it is given again: requests that are answered in the output are skipped. \
Requests that may succeed later, because memory was too small (status 503) or `n` was above --max-sequences, are the last in the \
output: the exit code is 1, and the same command tries them again, also with a higher --kv-memory or --max-sequences. Stdin is read to its end first. Answers on stdout cannot be gone on with.

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
    #[arg(value_name = "IN", value_hint = ValueHint::FilePath, value_parser = path())]
    pub input: PathBuf,
    /// File of answers; `-` is stdout.
    #[arg(value_name = "OUT", value_hint = ValueHint::FilePath, value_parser = path())]
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
    /// Most answers that are generated at the same time, if memory allows.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = whole::<usize>(1..=MOST_SEQUENCES))]
    pub max_sequences: usize,
    #[command(flatten)]
    pub api: Api,
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
