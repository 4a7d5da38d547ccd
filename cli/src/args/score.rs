//! The arguments of `glm score`.

use clap::Args;
use clap::builder::PossibleValuesParser;
use glm_model::Template;

use super::{Model, positive};

const EXAMPLES: &str = "\
If the text has a blank, each answer is scored in the place of the blank; more than one blank is
an error. If it has none, the text is a question, and each answer is scored as its answer. One
line is printed for each answer, the likeliest first: the natural logarithm of its probability,
its number of tokens, and its text.

Examples:
  glm score '床前[MASK]光，疑是地上霜。' 明月 日 月
  glm score -m glm-10b 'Paris is the [MASK] of France.' capital river
  glm score -m chatglm-6b-q4 --json '1+1=?' < answers.txt";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Score {
    #[command(flatten)]
    pub model: Model,
    /// The text with a blank, or the question.
    pub text: String,
    /// The answers; without any, each line of stdin is an answer.
    pub answers: Vec<String>,
    /// Include the probability that the answer ends there.
    #[arg(long)]
    pub whole: bool,
    /// Print JSON: for each answer in the order given its text, ids, log_probability and end_log_probability.
    #[arg(long)]
    pub json: bool,
    /// The chat template to use in place of the model's own.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Template::NAMES))]
    pub template: Option<String>,
    /// Tokens that the context holds. [default: the maximum of the model, up to 32768]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub context: Option<usize>,
}
