//! The arguments of `glm perplexity`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::path::path;
use super::{Model, positive};

const EXAMPLES: &str = "\
The text is cut into windows. In each window the last tokens are predicted: as many as --stride, at most half of the window. ChatGLM-6B, \
GLM-10B and GLM-130B read what is before them as a bidirectional context, and the others as a causal one. With --blank, tokens in the \
middle of the window are predicted from both sides, which only the three can do.

The perplexity is the exponential of the mean loss, the negative natural logarithm of the probability of a token. KL is the \
Kullback-Leibler divergence from the reference in nats. Behind ± is the standard error.

Examples:
  glm perplexity -m chatglm3-6b-q4 prose.txt
  glm perplexity -m chatglm3-6b-q4 --against ./chatglm3-6b prose.txt
  glm perplexity -m ./chatglm3-6b --activations f32 --save-logits prose.logits prose.txt
  glm perplexity -m chatglm3-6b-q4 --base prose.logits prose.txt";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Perplexity {
    #[command(flatten)]
    pub model: Model,
    /// The file with the text, in UTF-8; `-` is stdin.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = path())]
    pub text: PathBuf,
    /// Tokens of the text in a window.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = positive)]
    pub window: usize,
    /// Tokens from the beginning of a window to that of the next. [default: half of the window]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub stride: Option<usize>,
    /// Predict this number of tokens in the middle of each window.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub blank: Option<usize>,
    /// Only the first N windows. [default: all]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub windows: Option<usize>,
    /// Compare with this model, which runs with f32 activations and an f32 cache: a folder, or a name of `glm list`.
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::DirPath)]
    pub against: Option<PathBuf>,
    /// Compare with the predictions in this file, which --save-logits wrote.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "against", value_parser = path())]
    pub base: Option<PathBuf>,
    /// Write the predictions to this file: about 1.3 bytes for each token and id of the vocabulary. An existing file is replaced.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = path())]
    pub save_logits: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
