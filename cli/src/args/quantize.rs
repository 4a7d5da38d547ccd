//! The arguments of `glm quantize`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use glm_model::Calibration;

use super::path::path;
use super::{bits, group, positive, target_bits, threads};

const EXAMPLES: &str = "\
The official INT4 and INT8 keep their weights exactly; only their order in the file changes. INT4 is \
rounded with the inputs that each layer has for random tokens. One layer is in memory at a time. The folder \
is written under its name with .quantize.part added, and gets its name when it is complete. If Ctrl-C, SIGTERM or SIGHUP stops the \
command (exit code 130), nothing stays; with --calibrate, the same command goes on with it.

Examples:
  glm quantize ./chatglm-6b ./chatglm-6b-q4
  glm quantize ./chatglm-6b ./chatglm-6b-q8 --bits 8
  glm quantize ./chatglm-6b ./chatglm-6b-q4 --group 32
  glm quantize ./chatglm-6b ./chatglm-6b-q4 --target-bits 4.5
  glm quantize ./chatglm-6b ./chatglm-6b-q4 --calibrate
  glm quantize ./chatglm-6b ./chatglm-6b-q4 --calibrate=letters.txt
  glm quantize THUDM/chatglm-6b                  makes THUDM/chatglm-6b:int4";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Quantize {
    /// The model: a folder, a GGUF file, or a name of `glm list`.
    #[arg(value_name = "SRC")]
    pub source: PathBuf,
    /// The folder to write. It is created if it does not exist, and must not contain a model. Without it, a model of `glm list` is
    /// written beside it, with `:int4` or the like behind its name.
    #[arg(value_name = "DST", value_parser = path())]
    pub target: Option<PathBuf>,
    /// Bits of a weight: 4 or 8.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = bits)]
    pub bits: usize,
    /// Weights that share a scale: 32, 64 or 128. Fewer are more exact, more take less memory. [default: 64; 32 without a minimum]
    #[arg(long, value_name = "N", value_parser = group)]
    pub group: Option<usize>,
    /// Store only a scale for each group, no minimum, for 4 bits: less exact at the same size.
    #[arg(long)]
    pub symmetric: bool,
    /// Bits of a weight on average, such as 4.3, 4.5 or 5, with all scales and minima. The format of each matrix is chosen by measuring
    /// how much it changes the predictions of the model, which takes minutes for 6 billion weights.
    #[arg(long, value_name = "B", value_parser = target_bits, conflicts_with_all = ["bits", "group", "symmetric"])]
    pub target_bits: Option<f64>,
    /// Round the weights for the inputs that a text gives them: much nearer to the original, but it takes hours for a model of 6 billion
    /// weights. FILE is a text, or with the ending .json a conversation, or .jsonl one a line; without FILE, a text in English and
    /// Chinese that is part of the program.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, value_hint = ValueHint::FilePath, value_parser = path())]
    pub calibrate: Option<Option<PathBuf>>,
    /// The most tokens of the text that are read.
    #[arg(long, value_name = "N", default_value_t = Calibration::DEFAULT_TOKENS, value_parser = positive, requires = "calibrate")]
    pub calibration_tokens: usize,
    /// An adapter (LoRA) to merge into the weights before they are quantized: a folder of the peft library. The weights must be the
    /// original ones.
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath, requires = "target", value_parser = path())]
    pub adapter: Option<PathBuf>,
    /// Threads; by default one for each fast core.
    #[arg(short, long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
}
