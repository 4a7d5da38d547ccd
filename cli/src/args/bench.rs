//! The arguments of `glm bench`.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::PossibleValuesParser;
use glm_model::RANDOM_SHAPES;

use super::{Model, bits, group, positive, whole};
use crate::folders::expanded;

const EXAMPLES: &str = "\
The rows of the table are named as in llama-bench:
  pp512         a prompt of 512 tokens
  tg16@d1000    16 tokens generated after 1000 others
  tg16@d32 x4   the same after 32, for 4 sequences together
  verify4@d32   a pass that verifies a draft: the last token and 3 drafted ones
  lookup64      64 tokens generated with prompt lookup (see `glm generate --draft`)

The speed is the median of the rounds and half the difference of the fastest and the slowest one.
The limit is the speed at which the memory bandwidth or the multiply-adds of the processor would
be used up. Both are measured several times in the same run, and the best counts; a row shows what
is known by then. The speedup is relative to one token of one sequence. Close other programs first.

Examples:
  glm bench --shape chatglm-6b
  glm bench --shape chatglm3-6b --plot speed.svg
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
    /// Random weights that share a scale: 32, 64 or 128. [default: 64; 32 without a minimum]
    #[arg(long, value_name = "N", requires = "shape", value_parser = group)]
    pub group: Option<usize>,
    /// Random weights of 4 bits that have only a scale for each group, no minimum.
    #[arg(long, requires = "shape")]
    pub symmetric: bool,
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
    /// Draw the speed of prompts and of generation, with their limits, as an SVG picture. By default it shows prompts of up to 512
    /// and depths of up to 2000 tokens, and only what it shows is measured.
    #[arg(long, value_name = "FILE.svg", value_parser = svg)]
    pub plot: Option<PathBuf>,
    /// Print JSON, and the table on stderr.
    #[arg(long)]
    pub json: bool,
}

fn svg(name: &str) -> Result<PathBuf, &'static str> {
    let path = expanded(Path::new(name)).into_owned();
    match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case("svg") => Ok(path),
        _ => Err("the picture is an SVG: the name of the file must end with .svg"),
    }
}
