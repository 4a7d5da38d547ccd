//! The arguments of `glm bench`.

use clap::Args;
use clap::builder::PossibleValuesParser;
use glm_model::RANDOM_SHAPES;

use super::{Model, bits, group, positive, whole};

const EXAMPLES: &str = "\
A figure is the median of several rounds. The speed of reading a prompt is limited by the
multiply-adds of the processor, and the speed of generating by the memory bandwidth. Both limits
are measured in the same run. Close other programs first.

After prompts and depths, two more things are measured behind 32 tokens: the tokens of several
sequences generated together, and passes that verify a draft (see `glm generate --draft`), each
compared with one token of one sequence.

Examples:
  glm bench --shape chatglm-6b
  glm bench -m chatglm-6b-q4 -t 4 --prompts 32,512 --depths 0,1000 --json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Bench {
    #[command(flatten)]
    pub model: Model,
    /// Measure random weights in memory, with the shape of a published model, in place of a model.
    #[arg(long, value_name = "NAME", conflicts_with = "model", value_parser = PossibleValuesParser::new(RANDOM_SHAPES))]
    pub shape: Option<String>,
    /// Bits of a random weight: 4 or 8.
    #[arg(long, value_name = "N", default_value_t = 4, requires = "shape", value_parser = bits)]
    pub bits: usize,
    /// Random weights that share a scale: 32, 64 or 128.
    #[arg(long, value_name = "N", default_value_t = 32, requires = "shape", value_parser = group)]
    pub group: usize,
    /// Lengths of prompts; by default those of 32,128,512 that fit in the context.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = positive)]
    pub prompts: Option<Vec<usize>>,
    /// Tokens in front of those that are generated; by default those of 32,1000 that fit in the context.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = whole::<usize>(0..=u64::MAX))]
    pub depths: Option<Vec<usize>>,
    /// Numbers of sequences that are generated together; 0 measures none. By default 4,8 if they fit in the context.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = whole::<usize>(0..=u64::MAX))]
    pub sequences: Option<Vec<usize>>,
    /// Tokens of passes that verify a draft: the last token and those drafted; 0 measures none. By default 2,4,8,16 if they fit in
    /// the context.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = whole::<usize>(0..=u64::MAX))]
    pub draft_tokens: Option<Vec<usize>>,
    /// Tokens that are generated in a round.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = positive)]
    pub tokens: usize,
    /// Rounds of each measurement.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = positive)]
    pub rounds: usize,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
