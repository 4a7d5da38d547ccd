//! The arguments of `glm fill`.

use clap::Args;

use super::{Answering, Model};

const EXAMPLES: &str = "\
[MASK] stands for a few words, [gMASK] for a text of any length; GLM and GLM-130B also have [sMASK]
for a sentence. Several blanks are filled from left to right, and the model sees what was filled before.

Examples:
  glm fill '床前[MASK]光，疑是地上[MASK]。'
  glm fill -m chatglm-6b-q4 '凯旋门位于[MASK]。'
  glm fill -m chatglm-6b-q4 --json < text-with-a-blank.txt";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Fill {
    #[command(flatten)]
    pub model: Model,
    /// The text with blanks, `[MASK]` or `[gMASK]`; `-`, or no text, reads it from stdin, without the last line break.
    pub text: Option<String>,
    /// Print JSON: the filled text, its spans, and the answers with ids and more.
    #[arg(long)]
    pub json: bool,
    /// Afterwards, print to stderr how long it took and how many drafted tokens were accepted.
    #[arg(long)]
    pub stats: bool,
    #[command(flatten)]
    pub answering: Answering,
}
